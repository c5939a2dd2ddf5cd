"""Find the file of a checkpoint: on disk, in the cache, or at its publisher."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import torch

from ...errors import UserError
from ...utils.env import TRUST, is_on
from ...utils.files import sha256_of
from ..variants import TABLE, Variant, variant
from . import download as web

SCHEME = 'mmresnest://'  # + arch: the published weights of a row of the variant table

#: file name -> the hex digits with which its sha256 begins
PUBLISHED = {weights.file: weights.sha256 for row in TABLE for weights in row.weights}


def trusted() -> bool:
    """Whether the user lets files of his own run code, by ``--trust-checkpoint``."""
    return is_on(TRUST)


def locate(checkpoint: str) -> tuple[Path, bool]:
    """The file behind a path, a URL or ``mmresnest://arch``, its hash checked; whether fetched."""
    fetched = True
    if checkpoint.startswith(SCHEME):
        path = fetch(variant(checkpoint[len(SCHEME) :]))
        wanted = PUBLISHED.get(path.name)
    elif checkpoint.startswith(('http://', 'https://')):
        path, wanted = download((checkpoint,), checkpoint), hash_in(checkpoint)
    else:
        path, fetched = Path(checkpoint).expanduser(), False
        wanted = PUBLISHED.get(path.name)
        if not path.is_file():
            raise UserError(f'the checkpoint {path.absolute()} does not exist; correct its path')
    verify_hash(path, wanted)
    return path, fetched


def fetch(row: Variant) -> Path:
    """The published weights of a network: from the cache, or from the first host that has them.

    Raises:
        UserError: none were published, or no host can be reached; says what to put where by hand.
    """
    if not row.weights:
        raise UserError(
            f'no weights were published for {row.name}; train from scratch with '
            f'--from-scratch, or give a checkpoint of your own'
        )
    return download(tuple(weights.url for weights in row.weights), row.name)


def download(urls: tuple[str, ...], what: str) -> Path:
    """The first of the files that is in torch hub's cache or can be fetched into it."""
    folders = [cache_of(url) for url in urls]
    files = [folder / web.file_name(url) for folder, url in zip(folders, urls)]
    here = next((file for file in files if file.is_file()), None)
    distributed = torch.distributed
    try:
        if here is None and int(os.environ.get('LOCAL_RANK', 0)) == 0:
            here = web.fetch(urls, folders[0], what, [hash_in(url) for url in urls])
    finally:  # one process of a machine fetches, or fails, for all of them
        if distributed.is_available() and distributed.is_initialized():
            distributed.barrier()
    here = here or next((file for file in files if file.is_file()), None)
    if here is None:
        raise UserError(f'{what}: the process that fetches the weights failed; see its message')
    return here


def cache_of(url: str) -> Path:
    """The folder for a file: torch hub's, or one per host for names that have no hash in them."""
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    return folder if hash_in(url) else folder / urlsplit(url).netloc.replace(':', '_')


def hash_in(url: str) -> str | None:
    """The sha256 prefix that a published name ends with, by torch hub's and mm's convention."""
    name = web.file_name(url)
    found = re.search(r'-([0-9a-f]{8,64})\.\w+$', name)
    by_name = found.group(1) if found and not found.group(1).isdigit() else None  # not a date
    return PUBLISHED.get(name, by_name)


def verify_hash(path: Path, wanted: str | None) -> None:
    """Compares a file with the sha256 prefix that is known of it."""
    if wanted is not None and not (digest := sha256_of(path)).startswith(wanted):
        raise UserError(
            f"{path}: its sha256 begins {digest[: len(wanted)]}, the published file's "
            f'{wanted}: it is damaged or another file; delete it and fetch it again'
        )
