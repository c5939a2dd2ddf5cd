"""Memory that stays with the process: glibc's settings for who computes on CPUs.

glibc hands large pieces back to the system as soon as they are freed, and the system clears every
page anew when they are asked for again: for each map of each step. Kept pages are not cleared.
"""
from __future__ import annotations

import ctypes

from ..errors import UserError

# malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
MOST = 2**31 - 1                # what mallopt's int can hold: nothing is ever handed back
PAD = 64 * 2**20                # bytes by which the heap grows at least


def keep_memory() -> None:
    """Has this process keep what it has freed, from now on, and what it starts by ``fork``.

    Faster on CPUs, and larger: what is freed is not always found again where a piece must begin
    at a multiple of 64 bytes, least so by glibc before 2.38. docs/speed.md has figures of both.

    Raises:
        UserError: the C library is not glibc, or does not obey.
    """
    try:
        mallopt = ctypes.CDLL('libc.so.6').mallopt
    except (OSError, AttributeError):
        raise UserError('--keep-memory sets what glibc does, the C library of most Linux systems, '
                        'and it is not here; leave --keep-memory out') from None
    for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, MOST), (M_TOP_PAD, PAD)):
        if not mallopt(name, value):
            raise UserError('--keep-memory: mallopt of the C library refuses its setting '
                            f'{name}; leave --keep-memory out')
