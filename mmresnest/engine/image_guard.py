"""Trainings that go on past images they cannot use.

    custom_hooks = [dict(type='mmresnest.SkipBadImages', limit=25)]

Of a large data set an image is sometimes missing, empty, cut off or not the one that was annotated;
its mask, too.  mmengine ends a training at the first it meets, hours in, and OpenCV decodes a JPEG
that is cut off into a picture whose lower part is grey.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.dist import get_rank, get_world_size
from torch.utils.data import get_worker_info

from ..data.checks.images import flaw
from ..errors import UserError

RECORD = 'bad_images.jsonl'

#: iterations after which several processes agree on whether to go on
TOGETHER = 10

#: images that are tried in place of a bad one, before the data set as a whole is held to be bad
TRIES = 100


class BadImages(UserError):
    """Too many images of a training cannot be used.

    Args:
        said: the message; out of a worker process torch gives the text of a traceback, which ends
            in it.
    """

    def __init__(self, said: str) -> None:
        super().__init__(said.rpartition(f'{type(self).__name__}: ')[2].rstrip())


class Unusable(Exception):
    """An image cannot be used.

    Args:
        image: its path.
        reason: what is wrong with it, or with its mask.
    """

    def __init__(self, image: str, reason: str) -> None:
        super().__init__(f'{image}: {reason}')
        self.image, self.reason = image, reason


def leaves(dataset: Any) -> Iterator[Any]:
    """The data sets proper inside wrappers."""
    # mmengine's num_batch_per_epoch puts one around the others that hands attributes on.
    inner = vars(dataset).get('_dataset') if hasattr(dataset, '__dict__') else None
    inner = inner or getattr(dataset, 'datasets', None) or getattr(dataset, 'dataset', None)
    if inner is None:
        yield dataset
        return
    for one in inner if isinstance(inner, (list, tuple)) else [inner]:
        yield from leaves(one)


class Ledger:
    """The bad images of a training, in a file to which all its processes add.

    Args:
        path: the file.
        limit: how many images may be in it.

    Attributes:
        found: image -> reason, of those that were read.
        iteration: the one that a process without workers loads images for.
    """

    def __init__(self, path: str, limit: int) -> None:
        self.path, self.limit = path, limit
        self.rank, self.alone = get_rank(), get_world_size() == 1
        self.found: dict[str, str] = {}
        self.added: set[str] = set()  # by this process
        self.iteration: int | None = None
        self.offset = 0

    def add(self, image: str, reason: str) -> None:
        """Adds an image that is not in it, by one write: lines of two processes do not mix."""
        if image in self.found or image in self.added:
            return
        self.added.add(image)
        line = (
            json.dumps(
                dict(
                    image=image,
                    reason=reason,
                    rank=self.rank,
                    iteration=self.iteration if get_worker_info() is None else None,
                )
            )
            + '\n'
        )
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            # Behind what a process that was killed, or a full disk, has left of a line.
            os.write(file, b'\n' + line.encode() if self._is_torn() else line.encode())
        finally:
            os.close(file)

    def _is_torn(self) -> bool:
        with open(self.path, 'rb') as file:
            if not file.seek(0, os.SEEK_END):
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b'\n'

    def read(self) -> dict[str, str]:
        """Takes in what was added since the last time; returns what is new of it."""
        try:
            if os.stat(self.path).st_size <= self.offset:
                return {}
            with open(self.path, 'rb') as file:
                file.seek(self.offset)
                lines = file.read()
        except FileNotFoundError:
            return {}
        whole = lines.rpartition(b'\n')[0]
        self.offset += len(whole) + 1 if whole else 0
        rows = list(filter(None, map(_row, whole.splitlines())))
        new = {row['image']: row['reason'] for row in rows if row['image'] not in self.found}
        self.found.update(new)
        return new

    def verdict(self, more: Mapping[str, str] | None = None) -> str:
        """What to say when no further image is skipped.

        Args:
            more: images that are not in the file yet, or were met elsewhere.
        """
        found = {**self.found, **(more or {})}
        examples = '; '.join(f'{image} ({reason})' for image, reason in list(found.items())[:3])
        return (
            f'{len(found)} images of the training data cannot be used, and SkipBadImages goes '
            f'on with {self.limit} at most (limit): {examples}. '
            f'{self.path} lists all that were met. Repair them, or have `mmresnest check-data '
            'CONFIG --fix` take all bad images out of the annotations'
        )


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of the list; None for half a line."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {'image', 'reason'} <= row.keys() else None


class CarefulPreparation:
    """A data set's ``prepare_data`` that gives None for an image that cannot be used.

    mmengine then asks for another one.  It goes with the data set to worker processes.

    Args:
        dataset: a data set, whose class has the proper ``prepare_data``.
        ledger: where bad images are noted.
    """

    def __init__(self, dataset: BaseDataset, ledger: Ledger) -> None:
        self.dataset, self.ledger = dataset, ledger
        self.pipeline: Any = None  # the one whose steps are watched
        self.in_a_row: dict[str, str] = {}
        self.tries = 0

    def __call__(self, idx: int) -> Any:
        """The sample of an index."""
        dataset = self.dataset
        if dataset.pipeline is not self.pipeline:  # others may change it in mid-training
            self.pipeline = dataset.pipeline
            for step in loading_steps(self.pipeline):
                step.transform = CarefulLoading(step)
        try:
            sample = type(dataset).prepare_data(dataset, idx)
        except Unusable as bad:
            self._note(bad.image, bad.reason)
            return None
        if sample is not None and self.tries:
            self.in_a_row, self.tries = {}, 0
        return sample

    def _note(self, image: str, reason: str) -> None:
        self.ledger.add(image, reason)
        self.in_a_row[image] = reason
        self.tries += 1
        # One of several processes waits for the others, see SkipBadImages.after_train_iter.
        over = self.ledger.alone and len(self.in_a_row) > self.ledger.limit
        if over or self.tries >= TRIES:
            raise BadImages(self.ledger.verdict(self.in_a_row))


def loading_steps(part: Any) -> Iterator[Any]:
    """The steps of a pipeline that load, also those nested in others."""
    inner = part if isinstance(part, (list, tuple)) else getattr(part, 'transforms', None)
    if inner is not None:
        for one in inner:
            yield from loading_steps(one)
    elif type(part).__name__.startswith('Load') and hasattr(type(part), 'transform'):
        yield part


class CarefulLoading:
    """A loading step's ``transform`` that says which image cannot be used, and why.

    Args:
        step: the step, whose class has the proper ``transform``.
    """

    def __init__(self, step: Any) -> None:
        self.step = step

    def __call__(self, results: dict) -> Any:
        """Loads, and looks at what was loaded."""
        image, file = str(results.get('img_path')), self._file(results)
        annotated = results.get('height'), results.get('width')
        try:
            found = type(self.step).transform(self.step, results)
        except MemoryError:  # no fault of the image
            raise
        except Exception as error:  # a reader fails in every way there is
            reason = flaw(file, failed=True)
            if not reason:
                raise Unusable(
                    image,
                    f'{type(self.step).__name__} fails on it: '
                    f'{type(error).__name__}: {error}'.splitlines()[0],
                ) from error
        else:
            reason = flaw(file)
            if not reason and found is not None:
                file, reason = None, misfit(found, annotated)
            if not reason:
                return found
        ours = file is None or str(file) == image
        raise Unusable(image, reason if ours else f'its mask {file}: {reason}')

    def _file(self, results: Mapping[str, Any]) -> Any:
        """The file that the step reads, None if it reads none."""
        if getattr(self.step, 'with_seg', False):
            return results.get('seg_map_path')
        return results.get('img_path') if 'Image' in type(self.step).__name__ else None


def misfit(results: Mapping[str, Any], annotated: tuple[Any, Any]) -> str:
    """What does not fit between a loaded image, its mask and its annotations, or nothing.

    Args:
        results: of a loading step.
        annotated: height and width by the annotations; None or 0 where they do not say.
    """
    shape = results.get('ori_shape') or results.get('img_shape')
    if shape is None:
        return ''
    height, width = shape[:2]
    if all(side and side > 0 for side in annotated) and annotated != (height, width):
        return f'it is {width} x {height} pixels, and annotated as {annotated[1]} x {annotated[0]}'
    mask = results.get('gt_seg_map')
    if mask is None:
        return ''
    where = f'its mask {results.get("seg_map_path") or ""}'.rstrip()
    if mask.ndim == 2 and mask.shape != (height, width):
        return (
            f'{where} is {mask.shape[1]} x {mask.shape[0]} pixels, and the image {width} x {height}'
        )
    if mask.ndim == 3 and mask.shape[-1] in (2, 3, 4):
        return f'{where} has {mask.shape[-1]} channels, and one number a pixel is its label'
    return ''
