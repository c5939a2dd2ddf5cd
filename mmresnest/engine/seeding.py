"""Seed random numbers by their place in the run, and preserve those of others."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_all(*place: int) -> None:
    """Seed all generators of this process by a place in the run: any numbers, hashed.

    Python's, numpy's, torch's on the CPU, and on GPUs where they are in use.
    """
    digest = hashlib.blake2b(repr(place).encode(), digest_size=40).digest()
    random.seed(digest[:16])
    np.random.seed(np.frombuffer(digest[16:32], np.uint32))
    # Not torch.manual_seed, which records a stack trace each time before a GPU is used.
    seed = int.from_bytes(digest[32:], 'little', signed=True)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    elif torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


@contextmanager
def preserve_rng() -> Iterator[None]:
    """Restore the state of this process's generators at the end."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
