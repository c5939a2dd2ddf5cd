"""Read files of strangers without running what they carry. May import utils."""
