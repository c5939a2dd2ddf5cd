"""Load batches so that a run which was interrupted resumes with the very next one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count, islice
from typing import Any

from mmengine.dist import get_rank
from torch.utils.data import DataLoader, get_worker_info

from ..errors import UserError
from .seeding import random_numbers_kept, sow


class Batch(list):
    """The indices of a batch, and which of them it is: (pass over the data, number)."""

    place: tuple[int, int] = (0, 0)


class Stream:
    """The batches of a loader, from anywhere on.

    Args:
        batches: the batch sampler.
        sampler: what :meth:`set_epoch` is asked of before a further pass, if it has that.
        endless: go on with the next pass where one ends.
        seed: of the run.
    """

    def __init__(self, batches: Any, sampler: Any, endless: bool, seed: int) -> None:
        self.batches, self.sampler, self.endless, self.seed = batches, sampler, endless, seed
        self.start(0, 0)

    def start(self, epoch: int, done: int) -> None:
        """Has the next iteration begin in an epoch, behind a number of batches of it."""
        self.epoch, self.done = epoch, done

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        batches = self._passes() if self.endless else self._pass(self.epoch)
        for number, indices in enumerate(islice(batches, self.done, None), self.done):
            batch = Batch(indices)
            batch.place = self.epoch, number
            yield batch

    def _pass(self, number: int) -> Iterator[Sequence[int]]:
        # Samplers of torch draw from the generator of all; it is sown again in each iteration.
        sow(self.seed, number, -1)
        yield from self.batches

    def _passes(self) -> Iterator[Sequence[int]]:
        for number in count():
            if number and hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(number)
            empty = True
            for batch in self._pass(number):
                empty = False
                yield batch
            if empty:
                raise UserError(
                    'the training data make no batch: with drop_last, '
                    'train_dataloader.batch_size must not exceed the number of images'
                )


class Sown:
    """What a worker calls for a batch: the samples, each from random numbers of its own place.

    Args:
        dataset: the data set.
        seed: of the run.
        rank: of the process.
    """

    def __init__(self, dataset: Any, seed: int, rank: int) -> None:
        self.dataset, self.seed, self.rank = dataset, seed, rank
        self.theirs = getattr(dataset, '__getitems__', None)

    def __call__(self, batch: Sequence[Any]) -> list[Any]:
        """The samples of a batch; of one that does not know its place, as without us."""
        place = getattr(batch, 'place', None)
        if place is None:
            return self.theirs(batch) if self.theirs else [self.dataset[index] for index in batch]
        alone: AbstractContextManager = (
            random_numbers_kept() if get_worker_info() is None else nullcontext()
        )
        with alone:
            if self.theirs:
                sow(self.seed, self.rank, *place)
                return self.theirs(batch)
            samples = []
            for number, index in enumerate(batch):
                sow(self.seed, self.rank, *place, number)
                samples.append(self.dataset[index])
            return samples


class ExactLoader(DataLoader):
    """A loader whose samples do not depend on who loads them, and that begins anywhere."""

    stream: Stream

    @classmethod
    def of(cls, loader: DataLoader, seed: int, endless: bool) -> ExactLoader:
        """Another loader, made one of these.

        Its data set is given ``__getitems__``, by which torch asks for a batch at once.
        """
        self = cls.__new__(cls)
        vars(self).update(vars(loader))
        batches: Any = loader.batch_sampler
        dataset: Any = loader.dataset
        sampler = (
            loader.sampler
            if hasattr(loader.sampler, 'set_epoch')
            else getattr(batches, 'sampler', None)
        )
        vars(self)['stream'] = Stream(batches, sampler, endless, seed)
        dataset.__getitems__ = Sown(dataset, seed, get_rank())
        return self

    @property
    def _index_sampler(self) -> Stream:
        return self.stream

    def __iter__(self) -> Any:
        # Not before the first batch is asked for: workers read ahead from where they start.
        yield from super().__iter__()

    def reseed(self, seed: int, sampler_seed: int | None) -> None:
        """Takes the seeds of the run that is taken up."""
        sown: Any = self.dataset
        sown.__getitems__.seed = self.stream.seed = seed
        if sampler_seed is not None:
            self.stream.sampler.seed = sampler_seed

    @property
    def sampler_seed(self) -> int | None:
        """What the order of the samples depends on."""
        return getattr(self.stream.sampler, 'seed', None)
