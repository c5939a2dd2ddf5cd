"""Read files of strangers without running what they carry.

Imports utils; torch late, and mmengine in :mod:`.config_reader` only.
"""
