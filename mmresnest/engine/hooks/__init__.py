"""Hooks, a file each, registered as ``mmresnest.<Name>``."""
