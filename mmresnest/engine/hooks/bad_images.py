"""Skip images that cannot be read, up to a limit, and list them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import BaseDataset, InfiniteSampler
from mmengine.dist import all_gather_object, all_reduce, barrier, is_main_process
from mmengine.hooks import Hook

from ...registry import HOOKS
from ..image_guard import (
    AGREE_EVERY,
    LOG_NAME,
    BadImageLog,
    CheckedDataset,
    TooManyBadImages,
    unwrap_datasets,
    walk_datasets,
)
from ..seeding import preserve_rng
from .arguments import check_whole_number


@HOOKS.register_module()
class SkipBadImages(Hook):
    """Count images that cannot be used, and end a training that has too many of them.

    Data sets of type ``mmresnest.CheckedDataset`` take another image in place of a bad one; our
    training loops put that around each data set, other loops need it in the config.

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
        check_whole_number(
            self, 'limit', limit, least=0, none='None for 1 % of the images, at least 10'
        )
        self.limit = limit

    def before_train(self, runner: Any) -> None:
        """Give the data sets the list; a run that starts from the beginning starts a new one."""
        path = Path(runner.work_dir) / LOG_NAME
        if runner.iter == 0 and is_main_process():
            path.unlink(missing_ok=True)
        barrier()  # nobody writes into the old list
        everything = list(walk_datasets(runner.train_dataloader.dataset))
        watched = [
            one
            for one in everything
            if isinstance(one, CheckedDataset) and isinstance(one.dataset, BaseDataset)
        ]
        if len(watched) < len(unwrap_datasets(everything[0])):
            runner.logger.warning(
                "SkipBadImages: a data set that is not derived from mmengine's BaseDataset, or is "
                'not wrapped in mmresnest.CheckedDataset, is not watched'
            )
        limit = self.limit
        if limit is None:
            limit = max(10, math.ceil(sum(map(len, watched)) / 100))
        self.log = BadImageLog(str(path), limit)
        self.log.read_new()  # of the run before
        self.log.iteration = runner.iter + 1
        for dataset in watched:
            dataset.log = self.log
        restart_workers(runner.train_loop)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Warn of new bad images, and end the training past the limit.

        Raises:
            TooManyBadImages: on all processes together.
        """
        self._warn_of_new(runner)
        self.log.iteration = runner.iter + 2  # the loops count up after the hooks
        over = len(self.log.found) > self.log.limit
        if not self.log.alone:
            if (runner.iter + 1) % AGREE_EVERY:
                return
            any_over = torch.tensor(int(over))
            all_reduce(any_over, 'max')
            over = bool(any_over)
        if over:
            everywhere: dict[str, str] = {}
            for found in all_gather_object(self.log.found):
                everywhere.update(found)
            raise TooManyBadImages(self.log.explain_end(everywhere))

    def after_train(self, runner: Any) -> None:
        """Log how many images were skipped."""
        self._warn_of_new(runner)
        number = len(self.log.found)
        runner.logger.info(
            f'SkipBadImages: {number or "no"} image{"s" * (number != 1)} could not '
            'be used'
            + (
                f' and {"were" if number > 1 else "was"} skipped, see {self.log.path}'
                if number
                else ''
            )
        )

    def _warn_of_new(self, runner: Any) -> None:
        for image, reason in self.log.read_new().items():
            if is_main_process():
                runner.logger.warning(f'the image {image} cannot be used and is skipped: {reason}')


def restart_workers(loop: Any) -> None:
    """Restart worker processes that mmengine 0.10.7's loop has started before the hooks ran."""
    from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

    ahead: Any = getattr(loop, 'dataloader_iterator', None)
    if not isinstance(getattr(ahead, '_iterator', None), _MultiProcessingDataLoaderIter):
        return
    loader = loop.dataloader
    loader._iterator = ahead._iterator = None
    for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):
        if isinstance(sampler, InfiniteSampler):  # its only generator went with the workers
            sampler.indices = sampler._indices_of_rank()
    with preserve_rng():
        loop.dataloader_iterator = type(ahead)(loader)
