"""Training and testing: what ``tools/`` and the command line are thin over."""
