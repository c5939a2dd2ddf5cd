"""A loader that begins anywhere; what is random depends on the seed and on the place alone."""

import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from mmresnest.engine import dataloader
from mmresnest.engine.dataloader import ResumableDataLoader, SeededDataset


class Noise(Dataset):
    """Samples of an index and of noise from all generators."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return index, random.random(), float(np.random.rand()), float(torch.rand(()))


def make(seed=1, endless=False, **given):
    given = dict(dict(batch_size=4, collate_fn=list), **given)
    return ResumableDataLoader(DataLoader(Noise(), **given), seed, endless)


def read(loader, epoch=0, done=0, count=None):
    loader.batch_sampler.start(epoch, done)
    batches = iter(loader)
    found = [batch for batch, _ in zip(batches, range(count or 3), strict=False)]
    batches.close()
    return found


def indices(batches):
    return [sample[0] for batch in batches for sample in batch]


def noise(batches):
    return [sample[1:] for batch in batches for sample in batch]


@pytest.mark.parametrize('rank', [1, 5])
def test_each_process_augments_in_its_own_way(monkeypatch, rank):
    """The same images at the same place, on two processes: no generator draws alike."""
    first = read(make())
    monkeypatch.setattr(dataloader, 'get_rank', lambda: rank)
    second = read(make())
    assert indices(first) == indices(second)
    for one, other in zip(noise(first), noise(second), strict=True):
        assert all(a != b for a, b in zip(one, other, strict=True))


def test_processes_that_load_whole_batches_draw_in_their_own_ways():
    """A data set that is asked for a batch at once is seeded by its process, too."""

    class Together(Noise):
        def __getitems__(self, batch):
            return [self[index] for index in batch]

    batch = dataloader.Batch([0, 1])
    drawn = [SeededDataset(Together(), 1, rank).__getitems__(batch) for rank in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert not set(noise([drawn[0]])) & set(noise([drawn[2]]))


def test_each_place_has_noise_of_its_own():
    """A sample in two passes, in two batches and under two seeds."""
    passes = [noise(read(make(), epoch)) for epoch in (0, 1)] + [noise(read(make(seed=2)))]
    drawn = [value for one in passes for sample in one for value in sample]
    assert len(set(drawn)) == len(drawn) == 3 * 12 * 3


@pytest.mark.parametrize('endless', [False, True])
def test_a_random_sampler_of_torch_shuffles_each_pass_anew(endless):
    """Its order comes from the generator of the process, which each iteration seeds again."""
    loader = make(endless=endless, shuffle=True)
    assert isinstance(loader.batch_sampler.sampler, RandomSampler)
    if endless:
        order = indices(read(loader, count=9))
        passes = [order[start : start + 12] for start in (0, 12, 24)]
    else:
        passes = [indices(read(loader, epoch)) for epoch in range(3)]
    assert all(sorted(one) == list(range(12)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3
    assert indices(read(make(endless=endless, shuffle=True), count=3)) == passes[0], (
        'and is the same again'
    )
    assert indices(read(make(seed=7, shuffle=True))) != passes[0]


def test_a_sampler_of_epochs_is_told_of_further_passes():
    """mmengine's sampler shuffles by its seed and the epoch, which only the loader knows here."""
    sampler = DefaultSampler(Noise(), shuffle=True, seed=3)
    batches = BatchSampler(sampler, 4, drop_last=False)
    loader = make(endless=True, batch_size=1, batch_sampler=batches, shuffle=None)
    order = indices(read(loader, count=6))
    assert sorted(order[:12]) == sorted(order[12:]) == list(range(12))
    assert order[:12] != order[12:]


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('endless', [False, True])
def test_it_begins_anywhere(workers, endless):
    whole = read(make(endless=endless, shuffle=True, num_workers=workers), count=3)
    for done in (1, 2):
        rest = read(make(endless=endless, shuffle=True), done=done, count=3 - done)
        assert rest == whole[done:]


def test_options_are_those_of_the_other_loader():
    def init(worker):
        pass

    given = dict(num_workers=2, prefetch_factor=3, persistent_workers=True, timeout=9)
    loader = make(worker_init_fn=init, drop_last=True, **given)
    for name, value in given.items():
        assert getattr(loader, name) == value
    assert loader.worker_init_fn is init and loader.collate_fn is list
    assert loader.batch_sampler.batch_size == 4 and loader.batch_sampler.drop_last
    assert len(loader) == 3 and len(loader.dataset) == 12


def test_a_wrapper_hands_attributes_on_and_takes_them_for_the_data_set():
    inner = Noise()
    wrapper = SeededDataset(inner, 1, 0)
    wrapper.pipeline = 'exchanged'
    assert inner.pipeline == wrapper.pipeline == 'exchanged' and wrapper.seed == 1
    assert not hasattr(inner, 'seed')
    with pytest.raises(AttributeError):
        wrapper.missing


def test_samples_leave_the_generators_of_the_process_alone():
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    SeededDataset(Noise(), 1, 0).__getitems__(dataloader.Batch([0, 1]))
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()
    assert states[2] == np.random.get_state()[1].tolist()
