"""Trainings that go on past images they cannot use.

    custom_hooks = [dict(type='mmresnest.SkipBadImages', limit=25)]

Of a large data set an image is sometimes missing, empty, cut off or not the one that was annotated;
its mask, too.  mmengine ends a training at the first it meets, hours in, and OpenCV decodes a JPEG
that is cut off into a picture whose lower part is grey.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import BaseDataset, InfiniteSampler
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    barrier,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import Hook
from torch.utils.data import get_worker_info

from ..data.files import flaw
from ..errors import ArgumentError, UserError
from ..registry import HOOKS
from .randomness import random_numbers_kept

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


@HOOKS.register_module()
class SkipBadImages(Hook):
    """Has a training take another image in place of one that cannot be used, and counts those.

    An image is bad if a step of the pipeline whose name begins with ``Load`` fails on it or on its
    annotations; if it or its mask is cut off; if its size is not the annotated one, or its mask's
    not its own.  What fails in any other step is a mistake in the code, and ends the run as ever.

    Bad images are listed in ``bad_images.jsonl`` in the work folder, which a resumed run goes on
    with. The log names each once. In a training of several processes each adds its lines to the
    file in the folder that it sees.

    Args:
        limit: so many different images may be bad; with one more, all processes end the training
            together. None for one in a hundred, but at least 10.

    Raises:
        ArgumentError: the limit is no whole number from 0.
        BadImages: in the training, past the limit, or where no good image is found.
    """

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None and (
            isinstance(limit, bool) or not isinstance(limit, int) or limit < 0
        ):
            raise ArgumentError(
                f'SkipBadImages: limit={limit!r} is not supported; legal: whole '
                'numbers from 0, or None for 1 % of the images, at least 10'
            )
        self.limit = limit

    def before_train(self, runner: Any) -> None:
        """Watches the data sets; a run that begins anew begins a new list."""
        path = Path(runner.work_dir) / RECORD
        if runner.iter == 0 and is_main_process():
            path.unlink(missing_ok=True)
        barrier()  # nobody writes into the old list
        sets = list(leaves(runner.train_dataloader.dataset))
        watched = [one for one in sets if isinstance(one, BaseDataset)]
        if len(watched) < len(sets):
            runner.logger.warning(
                "SkipBadImages: a data set that is not derived from mmengine's "
                'BaseDataset is not watched'
            )
        limit = self.limit
        if limit is None:
            limit = max(10, math.ceil(sum(map(len, watched)) / 100))
        self.ledger = Ledger(str(path), limit)
        self.ledger.read()  # of the run before
        self.ledger.iteration = runner.iter + 1
        for dataset in watched:
            dataset.prepare_data = CarefulPreparation(dataset, self.ledger)
            dataset.max_refetch = max(dataset.max_refetch, TRIES)
        _start_workers_anew(runner.train_loop)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Warns of images that were not known yet, and ends the training past the limit."""
        self._tell(runner)
        self.ledger.iteration = runner.iter + 2  # the loops count up after the hooks
        over = len(self.ledger.found) > self.ledger.limit
        if not self.ledger.alone:
            if (runner.iter + 1) % TOGETHER:
                return
            any_over = torch.tensor(int(over))
            all_reduce(any_over, 'max')
            over = bool(any_over)
        if over:
            everywhere: dict[str, str] = {}
            for found in all_gather_object(self.ledger.found):
                everywhere.update(found)
            raise BadImages(self.ledger.verdict(everywhere))

    def after_train(self, runner: Any) -> None:
        """Sums up."""
        self._tell(runner)
        number = len(self.ledger.found)
        runner.logger.info(
            f'SkipBadImages: {number or "no"} image{"s" * (number != 1)} could not '
            'be used'
            + (
                f' and {"were" if number > 1 else "was"} skipped, see {self.ledger.path}'
                if number
                else ''
            )
        )

    def _tell(self, runner: Any) -> None:
        for image, reason in self.ledger.read().items():
            if is_main_process():
                runner.logger.warning(f'the image {image} cannot be used and is skipped: {reason}')


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


def _start_workers_anew(loop: Any) -> None:
    """Replaces worker processes that were started before the hooks ran, as mmengine 0.10.7 does."""
    from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

    ahead: Any = getattr(loop, 'dataloader_iterator', None)
    if not isinstance(getattr(ahead, '_iterator', None), _MultiProcessingDataLoaderIter):
        return
    loader = loop.dataloader
    loader._iterator = ahead._iterator = None
    for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):
        if isinstance(sampler, InfiniteSampler):  # its only generator went with the workers
            sampler.indices = sampler._indices_of_rank()
    with random_numbers_kept():
        loop.dataloader_iterator = type(ahead)(loader)


# ---- the list ------------------------------------------------------------------------------------


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


# ---- watching ------------------------------------------------------------------------------------


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


# ---- what can be wrong ---------------------------------------------------------------------------


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
