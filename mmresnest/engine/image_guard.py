"""Data sets that skip images which cannot be used.

In a large data set an image or mask may be missing, empty, cut off, or not the one that was
annotated. mmengine ends a training at the first, hours in, and OpenCV decodes a truncated JPEG into
an image whose lower part is gray.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from mmengine.dist import get_rank, get_world_size
from mmengine.registry import DATASETS as ROOT_DATASETS
from torch.utils.data import Dataset, get_worker_info

from ..config.inspect import type_of
from ..data.checks.images import find_flaw
from ..errors import UserError
from ..registry import DATASETS

LOG_NAME = 'bad_images.jsonl'

AGREE_EVERY = 10
"""Iterations after which several processes agree on whether to go on."""
MAX_TRIES = 100
"""Images that are tried in place of a bad one, before the data set as a whole is held to be bad."""


class TooManyBadImages(UserError):
    """Too many images of a training cannot be used.

    Args:
        said: the message; out of a worker process torch gives the text of a traceback, which ends
            in it.
    """

    def __init__(self, said: str) -> None:
        said = said.rpartition(f'{type(self).__name__}: ')[2].rstrip()
        super().__init__(said, code='data.too-many-bad-images')


class BadImageError(Exception):
    """An image cannot be used.

    Args:
        image: its path.
        reason: what is wrong with it, or with its mask.
    """

    def __init__(self, image: str, reason: str) -> None:
        super().__init__(f'{image}: {reason}')
        self.image, self.reason = image, reason


class DatasetWrapper(Dataset):
    """Stand for a data set: what is not the wrapper's own is read from it, and written to it.

    So hooks such as mmdet's ``PipelineSwitchHook``, which assigns to ``dataset.pipeline``, reach
    it.
    """

    _own = frozenset({'dataset'})
    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or 'dataset' not in vars(self):  # while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._own:
            super().__setattr__(name, value)
        else:
            setattr(self.dataset, name, value)


def walk_datasets(dataset: Any) -> Iterator[Any]:
    """Yield a data set and all that it holds, outermost first."""
    yield dataset
    if isinstance(dataset, DatasetWrapper):
        inner: Any = dataset.dataset
    else:
        # num_batch_per_epoch wraps the data set in a proxy whose __getattr__ forwards, so that its
        # _dataset must be read from vars().
        inner = vars(dataset).get('_dataset') if hasattr(dataset, '__dict__') else None
        inner = inner or getattr(dataset, 'datasets', None) or getattr(dataset, 'dataset', None)
    if inner is not None:
        for one in inner if isinstance(inner, (list, tuple)) else [inner]:
            yield from walk_datasets(one)


def unwrap_datasets(dataset: Any) -> list[Any]:
    """Return the data sets that are no wrappers."""
    return [one for one in walk_datasets(dataset) if len(list(walk_datasets(one))) == 1]


class BadImageLog:
    """The bad images of a training, listed in a file to which all its processes add.

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

    def add_image(self, image: str, reason: str) -> None:
        """Add an image that is not in it, by one write: lines of two processes do not mix."""
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
            # After a partial line, which a killed process or a full disk leaves.
            os.write(file, b'\n' + line.encode() if self._is_torn() else line.encode())
        finally:
            os.close(file)

    def _is_torn(self) -> bool:
        with open(self.path, 'rb') as file:
            if not file.seek(0, os.SEEK_END):
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b'\n'

    def read_new(self) -> dict[str, str]:
        """Read what was added since the last call; return what is new."""
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
        rows = list(filter(None, map(_parse_row, whole.splitlines())))
        new = {row['image']: row['reason'] for row in rows if row['image'] not in self.found}
        self.found.update(new)
        return new

    def explain_end(self, more: Mapping[str, str] | None = None) -> str:
        """Return the message of the error that ends a training.

        Args:
            more: images that are not in the file yet, or were met by other processes.
        """
        found = {**self.found, **(more or {})}
        examples = '; '.join(f'{image} ({reason})' for image, reason in list(found.items())[:3])
        return (
            f'{len(found)} images of the training data cannot be used, and SkipBadImages goes '
            f'on with {self.limit} at most (limit): {examples}. '
            f'{self.path} lists all that were met. Repair them, or have `mmresnest check-data '
            'CONFIG --fix` take all bad images out of the annotations'
        )


def _parse_row(line: bytes) -> dict[str, Any] | None:
    """Parse a line of the list; None for half a line."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {'image', 'reason'} <= row.keys() else None


@DATASETS.register_module()
class CheckedDataset(DatasetWrapper):
    """A data set that gives another image in place of one that cannot be used.

        dataset = dict(type='mmresnest.CheckedDataset', dataset=dict(type='CocoDataset', ...))

    The hook ``SkipBadImages`` gives it the list into which it writes such images; without the hook
    it is the data set that it holds. Our training loops put it around each data set by themselves.

    Args:
        dataset: a data set derived from mmengine's ``BaseDataset``, or its settings.

    Attributes:
        log: where bad images are noted.
    """

    _own = frozenset({'dataset', 'log', 'checked', 'in_a_row', 'tries'})

    def __init__(self, dataset: Any) -> None:
        self.dataset = ROOT_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.log: BadImageLog | None = None
        self.checked: Any = None  # the pipeline whose loading steps are checked
        self.in_a_row: dict[str, str] = {}
        self.tries = 0

    def __getitem__(self, index: int) -> Any:
        """Return the sample of an index, or of a random one if that image cannot be used.

        Raises:
            TooManyBadImages: too many in a row cannot be.
        """
        if self.log is None:
            return self.dataset[index]
        if self.dataset.pipeline is not self.checked:  # mmdet's PipelineSwitchHook exchanges it
            self.checked = check_loading(self.dataset.pipeline)
            self.dataset.pipeline = self.checked
        while True:
            try:
                sample = self.dataset[index]
            except BadImageError as bad:
                self._note(self.log, bad)
                index = np.random.randint(len(self.dataset))
            else:
                if self.tries:
                    self.in_a_row, self.tries = {}, 0
                return sample

    def _note(self, log: BadImageLog, bad: BadImageError) -> None:
        log.add_image(bad.image, bad.reason)
        self.in_a_row[bad.image] = bad.reason
        self.tries += 1
        # One of several processes waits for the others, see SkipBadImages.after_train_iter.
        over = log.alone and len(self.in_a_row) > log.limit
        if over or self.tries >= MAX_TRIES:
            raise TooManyBadImages(log.explain_end(self.in_a_row))


def add_checks(settings: Any) -> Any:
    """Return settings in which each data set that is no wrapper is a ``CheckedDataset``."""
    if not isinstance(settings, dict) or type_of(settings) == CheckedDataset.__name__:
        return settings
    if isinstance(settings.get('dataset'), dict):
        return dict(settings, dataset=add_checks(settings['dataset']))
    if isinstance(settings.get('datasets'), (list, tuple)):
        return dict(settings, datasets=[add_checks(one) for one in settings['datasets']])
    return dict(type=f'mmresnest.{CheckedDataset.__name__}', dataset=settings)


def check_loading(part: Any) -> Any:
    """Return a pipeline, or a part of one, whose loading steps are checked, also nested ones.

    The pipeline that is given stays as it is.
    """
    if isinstance(part, (list, tuple)):
        return type(part)(map(check_loading, part))
    steps = getattr(part, 'transforms', None)
    if steps is not None:
        part = copy.copy(part)
        part.transforms = check_loading(steps)
        return part
    loads = type(part).__name__.startswith('Load') and hasattr(type(part), 'transform')
    return CheckedTransform(part) if loads else part


class CheckedTransform:
    """A step of a pipeline that loads, and says which image cannot be used, and why.

    Args:
        step: the step that does the loading.
    """

    def __init__(self, step: Any) -> None:
        self.step = step

    def __call__(self, results: dict) -> Any:
        """Load, and check what was loaded.

        Raises:
            BadImageError: the file cannot be used.
        """
        image, file = str(results.get('img_path')), self._loaded_file(results)
        annotated = results.get('height'), results.get('width')
        try:
            found = self.step(results)
        except MemoryError:  # no fault of the image
            raise
        except Exception as error:  # a reader fails in every way there is
            reason = find_flaw(file, failed=True)
            if not reason:
                raise BadImageError(
                    image,
                    f'{type(self.step).__name__} fails on it: '
                    f'{type(error).__name__}: {error}'.splitlines()[0],
                ) from error
        else:
            reason = find_flaw(file)
            if not reason and found is not None:
                file, reason = None, describe_mismatch(found, annotated)
            if not reason:
                return found
        ours = file is None or str(file) == image
        raise BadImageError(image, reason if ours else f'its mask {file}: {reason}')

    def _loaded_file(self, results: Mapping[str, Any]) -> Any:
        """Return the file that the step reads, None if it reads none."""
        if getattr(self.step, 'with_seg', False):
            return results.get('seg_map_path')
        return results.get('img_path') if 'Image' in type(self.step).__name__ else None


def describe_mismatch(results: Mapping[str, Any], annotated: tuple[Any, Any]) -> str:
    """Return what does not fit between a loaded image, its mask and its annotations, or ''.

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
