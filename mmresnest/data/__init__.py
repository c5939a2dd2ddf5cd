"""Data: the embedded set, and folders of a user."""
