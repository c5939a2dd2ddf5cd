"""The command line, a file a command. Imports everything, but late."""
