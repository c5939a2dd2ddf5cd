"""Skip images that cannot be read, up to a limit, and list them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import BaseDataset, InfiniteSampler
from mmengine.dist import all_gather_object, all_reduce, barrier, is_main_process
from mmengine.hooks import Hook

from ...errors import ArgumentError
from ...registry import HOOKS
from ..image_guard import RECORD, TOGETHER, TRIES, BadImages, CarefulPreparation, Ledger, leaves
from ..seeding import random_numbers_kept


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
