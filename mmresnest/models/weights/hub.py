"""Find the file of a checkpoint: on disk, in the cache, or at its publisher."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import torch

from ...errors import UserError
from ...utils.env import TRUST, is_on
from ...utils.files import sha256_of
from ..variants import TABLE, Variant, variant
from .download import fetch_file, file_name, is_whole

SCHEME = 'mmresnest://'  # + arch: the published weights of a row of the variant table

#: file name -> the hex digits with which its sha256 begins
PUBLISHED = {weights.file: weights.sha256 for row in TABLE for weights in row.weights}


def is_trusted() -> bool:
    """Return whether the user lets files of his own run code, by ``--trust-checkpoint``."""
    return is_on(TRUST)


def locate_checkpoint(checkpoint: str) -> tuple[Path, bool]:
    """Return the file of a path, a URL or ``mmresnest://arch``, its hash checked; if fetched."""
    if checkpoint.startswith(SCHEME):
        return fetch_published(variant(checkpoint[len(SCHEME) :])), True
    if checkpoint.startswith(('http://', 'https://')):
        return fetch_cached((checkpoint,), checkpoint), True
    path = Path(checkpoint).expanduser()
    if not path.is_file():
        raise UserError(
            f'the checkpoint {path.absolute()} does not exist; correct its path',
            code='checkpoint.missing',
        )
    verify_hash(path, PUBLISHED.get(path.name))
    return path, False


def fetch_published(row: Variant) -> Path:
    """Return the published weights of a network: from the cache, or from the first host with them.

    Raises:
        UserError: none were published, or no host can be reached; says what to put where by hand.
    """
    if not row.weights:
        raise UserError(
            f'no weights were published for {row.name}; train from scratch with '
            f'--from-scratch, or give a checkpoint of your own',
            code='weights.unpublished',
        )
    return fetch_cached(tuple(weights.url for weights in row.weights), row.name)


def fetch_cached(urls: tuple[str, ...], what: str) -> Path:
    """Return the first of the files that torch hub's cache has, or that can be fetched into it.

    A file in the cache whose hash is wrong is fetched again.
    """
    for url in urls:
        file = cache_folder(url) / file_name(url)
        if is_whole(file, hash_in_name(url)):
            return file
    return fetch_file(urls, cache_folder(urls[0]), what, [hash_in_name(url) for url in urls])


def cache_folder(url: str) -> Path:
    """Return the folder for a file: torch hub's, or one per host for names without a hash."""
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    return folder if hash_in_name(url) else folder / urlsplit(url).netloc.replace(':', '_')


def hash_in_name(url: str) -> str | None:
    """Return the sha256 prefix that a published name ends with, by torch hub's convention."""
    name = file_name(url)
    found = re.search(r'-([0-9a-f]{8,64})\.\w+$', name)
    by_name = found.group(1) if found and not found.group(1).isdigit() else None  # not a date
    return PUBLISHED.get(name, by_name)


def verify_hash(path: Path, wanted: str | None) -> None:
    """Refuse a file that has not the sha256 prefix that is known of it."""
    if wanted is not None and not (digest := sha256_of(path)).startswith(wanted):
        raise UserError(
            f"{path}: its sha256 begins {digest[: len(wanted)]}, the published file's "
            f'{wanted}: it is damaged or another file; delete it and fetch it again',
            code='weights.other-hash',
        )
