"""Data: the embedded set of shapes, and the folders of a user: read, checked, repaired.

Imports utils; neither torch nor an mm library.
"""
