"""Load batches so that a run which was interrupted resumes with the very next one.

torchdata's ``StatefulDataLoader`` takes snapshots of its workers. Here a sample's random numbers
depend on its place in the run alone, so that nothing has to be saved, and the number of workers may
change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count, islice
from typing import Any

from mmengine.dist import get_rank
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..errors import UserError
from .image_guard import DatasetWrapper
from .seeding import preserve_rng, seed_all

_OPTIONS = (
    'num_workers',
    'collate_fn',
    'pin_memory',
    'timeout',
    'worker_init_fn',
    'multiprocessing_context',
    'generator',
    'prefetch_factor',
    'persistent_workers',
)
"""Arguments of a torch loader that are handed on as they are."""


class Batch(list):
    """The indices of a batch, and its place: (pass over the data, number in the pass)."""

    place: tuple[int, int] = (0, 0)


class ResumableBatchSampler:
    """Yield the batches of another batch sampler, from any of them on.

    Args:
        batch_sampler: the other one.
        sampler: its sampler, whose ``set_epoch`` is called before a further pass, if it has that.
        endless: go on with the next pass where one ends.
        seed: of the run.
    """

    def __init__(self, batch_sampler: Any, sampler: Any, endless: bool, seed: int) -> None:
        self.batches, self.sampler, self.endless, self.seed = batch_sampler, sampler, endless, seed
        self.batch_size = getattr(batch_sampler, 'batch_size', None)
        self.drop_last = getattr(batch_sampler, 'drop_last', False)
        self.start(0, 0)

    def start(self, epoch: int, done: int) -> None:
        """Let the next iteration begin in an epoch, behind ``done`` batches of it."""
        self.epoch, self.done = epoch, done

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        batches = self._all_passes() if self.endless else self._one_pass(self.epoch)
        for number, indices in enumerate(islice(batches, self.done, None), self.done):
            batch = Batch(indices)
            batch.place = self.epoch, number
            yield batch

    def _one_pass(self, number: int) -> Iterator[Sequence[int]]:
        # torch's samplers draw from the global generator, which each iteration seeds again.
        seed_all(self.seed, number, -1)
        yield from self.batches

    def _all_passes(self) -> Iterator[Sequence[int]]:
        for number in count():
            if number and hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(number)
            empty = True
            for batch in self._one_pass(number):
                empty = False
                yield batch
            if empty:
                raise UserError(
                    'the training data make no batch: with drop_last, '
                    'train_dataloader.batch_size must not exceed the number of images',
                    code='data.no-batch',
                )


class SeededDataset(DatasetWrapper):
    """Load each sample of a batch with random numbers that depend on its place in the run alone.

    Args:
        dataset: the data set.
        seed: of the run.
        rank: of the process.
    """

    _own = frozenset({'dataset', 'seed', 'rank'})

    def __init__(self, dataset: Any, seed: int, rank: int) -> None:
        self.dataset, self.seed, self.rank = dataset, seed, rank

    def __getitems__(self, batch: Sequence[Any]) -> list[Any]:
        """Return the samples of a batch, for which torch's loader asks at once."""
        together = getattr(self.dataset, '__getitems__', None)
        place = getattr(batch, 'place', None)
        if place is None:  # of another loader, as PreciseBN has one
            return together(batch) if together else [self.dataset[index] for index in batch]
        guard: AbstractContextManager = (
            preserve_rng() if get_worker_info() is None else nullcontext()
        )
        with guard:
            if together:
                seed_all(self.seed, self.rank, *place)
                return together(batch)
            samples = []
            for number, index in enumerate(batch):
                seed_all(self.seed, self.rank, *place, number)
                samples.append(self.dataset[index])
            return samples


class ResumableDataLoader(DataLoader):
    """A loader that begins anywhere, and whose samples do not depend on which worker loads them.

    Args:
        loader: the loader that it takes data set, batches and all options from.
        seed: of the run.
        endless: go on with the next pass over the data where one ends.
    """

    batch_sampler: ResumableBatchSampler
    dataset: SeededDataset

    def __init__(self, loader: DataLoader, seed: int, endless: bool) -> None:
        batches: Any = loader.batch_sampler
        sampler = (
            loader.sampler
            if hasattr(loader.sampler, 'set_epoch')
            else getattr(batches, 'sampler', None)
        )
        options = {name: getattr(loader, name) for name in _OPTIONS}
        for name in ('pin_memory_device', 'in_order'):  # not in every torch
            if getattr(loader, name, None) not in (None, '', True):
                options[name] = getattr(loader, name)
        super().__init__(
            SeededDataset(loader.dataset, seed, get_rank()),
            batch_sampler=ResumableBatchSampler(batches, sampler, endless, seed),
            **options,
        )

    @staticmethod
    def can_replace(loader: Any) -> bool:
        """Return whether a loader is torch's own, over batches of a data set read by index."""
        return (
            type(loader) is DataLoader
            and loader.batch_sampler is not None
            and not isinstance(loader.dataset, IterableDataset)
        )

    def __iter__(self) -> Any:
        # A generator: workers, which read ahead from where they start, start with the first batch.
        yield from super().__iter__()

    def set_seeds(self, seed: int, sampler_seed: int | None) -> None:
        """Take the seeds of the run that is resumed."""
        self.dataset.seed = self.batch_sampler.seed = seed
        if sampler_seed is not None:
            self.batch_sampler.sampler.seed = sampler_seed

    @property
    def sampler_seed(self) -> int | None:
        """The seed that the order of the samples depends on."""
        return getattr(self.batch_sampler.sampler, 'seed', None)
