"""Trainings meet images that cannot be used: skipped, named, counted, and stopped past a limit."""

import copy
import gc
import os
import pickle
import re
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import tiny, toys
from helpers.errors import refuses
from mmengine.dataset import Compose, pseudo_collate
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.utils.data import ConcatDataset, DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from mmresnest.data.checks.images import find_flaw
from mmresnest.engine.hooks import bad_images
from mmresnest.engine.hooks.bad_images import SkipBadImages
from mmresnest.engine.image_guard import (
    BadImageError,
    BadImageLog,
    CheckedDataset,
    CheckedTransform,
    TooManyBadImages,
    check_loading,
    unwrap_datasets,
)
from mmresnest.engine.train import train

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('unformatted')]

SKIP = dict(type='mmresnest.SkipBadImages')
MASKED = [dict(type='LoadImageFromFile'), dict(type='LoadToyMask'), dict(type='PackToy')]


@pytest.fixture
def rows(tmp_path):
    return toys.pictures(tmp_path / 'images')


@pytest.fixture
def workers_gone():
    """Sends workers home that Python's garbage collector would wait 5 s for, each."""
    yield
    for one in gc.get_objects():
        if type(one) is _MultiProcessingDataLoaderIter:
            one._shutdown_workers()


def masked(rows):
    """A whole mask beside every image."""
    for row in rows:
        row['seg_map_path'] = row['img_path'].replace('.jpg', '_mask.png')
        labels = np.random.default_rng(0).integers(0, 5, (row['height'], row['width']), np.uint8)
        cv2.imwrite(row['seg_map_path'], labels)
    return rows


def watched(folder, rows, steps=None):
    dataset = CheckedDataset(toys.Toys(rows=rows, pipeline=steps or toys.pipeline()))
    dataset.log = BadImageLog(str(folder / 'list'), 5)
    return dataset


def cut(path, share=0.5):
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: int(len(content) * share)])


# ---- what is bad ---------------------------------------------------------------------------------

SPOILT = {
    'missing': (lambda row: os.unlink(row['img_path']), 'No such file'),
    'a folder': (lambda row: (os.unlink(row['img_path']), os.mkdir(row['img_path'])), 'directory'),
    'empty': (lambda row: Path(row['img_path']).write_bytes(b''), 'is empty'),
    'junk': (
        lambda row: Path(row['img_path']).write_bytes(b'<html>404</html>' * 99),
        'the file cannot be decoded',
    ),
    'cut': (lambda row: cut(row['img_path']), 'cut off after'),
    'cut early': (lambda row: cut(row['img_path'], 0.01), 'cut off after'),
    'size': (lambda row: row.update(width=33), 'it is 32 x 24 pixels, and annotated as 33 x 24'),
    'no mask': (lambda row: os.unlink(row['seg_map_path']), '_mask.png: .*No such file'),
    'empty mask': (lambda row: Path(row['seg_map_path']).write_bytes(b''), '_mask.png: .*empty'),
    'cut mask': (lambda row: cut(row['seg_map_path']), '_mask.png: the file is cut off'),
    'junk mask': (lambda row: Path(row['seg_map_path']).write_bytes(b'x' * 99), '_mask.png: .*not'),
    'other mask': (
        lambda row: cv2.imwrite(row['seg_map_path'], np.zeros((24, 16), np.uint8)),
        r'_mask.png is 16 x 24 pixels, and the image 32 x 24',
    ),
    'RGB mask': (
        lambda row: cv2.imwrite(row['seg_map_path'], np.zeros((24, 32, 3), np.uint8)),
        r'_mask.png has 3 channels',
    ),
}


def test_whatever_is_wrong_is_skipped_named_and_counted(tmp_path):
    rows = masked(toys.pictures(tmp_path / 'images', len(SPOILT) + 5))
    for row, (spoil, _) in zip(rows, SPOILT.values(), strict=False):
        spoil(row)
    runner = toys.build(
        tmp_path / 'work',
        rows,
        [dict(SKIP, limit=len(SPOILT))],
        steps=MASKED,
        loop=dict(by_epoch=True, max_epochs=2),
    )
    runner.train()
    said, found = toys.log(runner), toys.record(tmp_path / 'work')
    assert len(found) == len(SPOILT)
    by_image = {one['image']: one['reason'] for one in found}
    for row, (name, (_, reason)) in zip(rows, SPOILT.items(), strict=False):
        (line,) = (
            line for line in said.splitlines() if row['img_path'] + ' cannot be used' in line
        )
        assert 'WARNING' in line and by_image[row['img_path']] in line
        assert re.search(reason, line), name
    assert {one['rank'] for one in found} == {0} and found[0]['iteration'] == 1
    assert max(one['iteration'] for one in found) <= len(rows) / 2
    assert said.count('SkipBadImages: 13 images could not be used and were skipped') == 1
    assert runner.iter == 2 * len(rows) / 2


def test_whole_pictures_that_look_cut(tmp_path, rows):
    """What cameras append is no flaw."""
    path = Path(rows[0]['img_path'])
    assert find_flaw(path) == ''
    content = path.read_bytes()
    path.write_bytes(content + bytes(9999))
    assert find_flaw(path) == ''
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((9, 9, 3), np.uint8))
    (tmp_path / 'a.png').write_bytes((tmp_path / 'a.png').read_bytes() + bytes(9999))
    assert (
        find_flaw(tmp_path / 'a.png') == ''
        and find_flaw(None) == ''
        and find_flaw('s3://bucket/a.png') == ''
    )
    assert find_flaw(tmp_path / 'nowhere.png') == '', 'a backend has read it from elsewhere'


def test_a_mistake_in_an_augmentation_stops_at_once(tmp_path, rows):
    runner = toys.build(tmp_path / 'work', rows, [SKIP], steps=toys.pipeline(fault='5.jpg'))
    with pytest.raises(ZeroDivisionError, match='a mistake in an augmentation'):
        runner.train()
    assert toys.record(tmp_path / 'work') == [] and runner.iter == 2


def test_a_clean_training_is_the_same_one(tmp_path, rows):
    found = []
    for number, hooks in enumerate(([], [SKIP])):
        runner = toys.build(tmp_path / f'{number}', rows, hooks)
        runner.train()
        found.append(runner.model.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert 'SkipBadImages: no images could not' in toys.log(runner)
    assert not (tmp_path / '1' / 'bad_images.jsonl').exists()


# ---- runners, loops, workers, wrappers -----------------------------------------------------------

ITERATIONS = dict(by_epoch=False, max_iters=6)
ENDLESS = dict(type='InfiniteSampler', shuffle=False)


@pytest.mark.parametrize(
    'flexible, loop, loader',
    [
        (True, dict(by_epoch=True, max_epochs=2), {}),
        (False, dict(by_epoch=True, max_epochs=2), dict(num_workers=2)),
        (False, ITERATIONS, dict(sampler=ENDLESS)),
        pytest.param(
            False,
            ITERATIONS,
            dict(num_workers=2, persistent_workers=True, sampler=ENDLESS),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            True,
            ITERATIONS,
            dict(num_workers=1, multiprocessing_context='spawn', sampler=ENDLESS),
            marks=pytest.mark.slow,
        ),
    ],
    ids=['flexible', 'forked', 'iterations', 'persistent', 'spawned'],
)
def test_wherever_images_are_loaded(tmp_path, rows, workers_gone, flexible, loop, loader):
    os.unlink(rows[2]['img_path'])
    cut(rows[5]['img_path'])
    made, kind = toys.settings(tmp_path / 'work', rows, [SKIP], loop=loop, flexible=flexible)
    made.train_dataloader.update(loader)
    if kind is not toys.Runner:
        made.pop('randomness', None)
    runner = kind(
        **{
            key: getattr(value, 'to_dict', lambda value=value: value)()
            for key, value in made.items()
        }
    )
    runner.train()
    said = toys.log(runner)
    assert {one['image'] for one in toys.record(tmp_path / 'work')} == {
        rows[2]['img_path'],
        rows[5]['img_path'],
    }
    assert said.count('cannot be used and is skipped') == 2 and '2 images could not' in said
    if not loader.get('num_workers'):
        assert all(one['iteration'] for one in toys.record(tmp_path / 'work'))


def test_data_sets_in_wrappers(tmp_path, rows):
    os.unlink(rows[1]['img_path'])
    half = dict(type='Toys', rows=rows[:4], pipeline=toys.pipeline())
    rest = dict(half, rows=rows[4:])
    runner = toys.build(
        tmp_path / 'work',
        rows,
        [SKIP],
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='RepeatDataset',
                times=2,
                dataset=dict(type='ConcatDataset', datasets=[half, rest]),
            ),
        ),
    )
    assert len(list(unwrap_datasets(runner.train_loop.dataloader.dataset))) == 2
    runner.train()
    assert toys.log(runner).count('cannot be used and is skipped') == 1 and runner.iter == 8


class SwitchPipeline(Hook):
    """As mmdet's PipelineSwitchHook does."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            runner.train_dataloader.dataset.pipeline = Compose(toys.pipeline())


def test_a_pipeline_that_is_exchanged_is_watched_too(tmp_path, rows):
    runner = toys.build(tmp_path / 'work', rows, [SKIP], loop=dict(by_epoch=True, max_epochs=2))
    runner.register_hook(SwitchPipeline())

    class Spoil(Hook):
        def after_train_epoch(self, runner):
            if runner.epoch == 0:
                os.unlink(rows[2]['img_path'])

    runner.register_hook(Spoil())
    runner.train()
    assert toys.log(runner).count('cannot be used and is skipped') == 1 and runner.iter == 8


def test_loading_steps_nested_in_others():
    pipeline = Compose(
        [
            dict(type='LoadImageFromFile'),
            dict(
                type='RandomChoice', transforms=[[dict(type='LoadToyMask')], [dict(type='PackToy')]]
            ),
        ]
    )
    checked = check_loading(pipeline)
    choices = [choice.transforms[0] for choice in checked.transforms[1].transforms]
    assert [type(step) for step in (checked.transforms[0], *choices)] == [
        CheckedTransform,
        CheckedTransform,
        toys.PackToy,
    ]
    assert type(choices[0].step) is toys.LoadToyMask
    kept = [choice.transforms[0] for choice in pipeline.transforms[1].transforms]
    assert type(kept[0]) is toys.LoadToyMask, 'the pipeline that was given is as it was'


def test_it_can_be_sent_to_a_worker(tmp_path, rows):
    os.unlink(rows[0]['img_path'])
    dataset = watched(tmp_path, rows)
    assert dataset[0]['data_samples'].img_path != rows[0]['img_path']
    for sent in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert sent.dataset is not dataset.dataset and sent.dataset.pipeline is sent.checked
        assert sent[0]['data_samples'].img_path != rows[0]['img_path']
        assert len(sent) == len(rows) and sent.metainfo == dataset.metainfo


def test_a_shortage_of_memory_is_no_fault_of_the_image(tmp_path, rows, monkeypatch):
    dataset = watched(tmp_path, rows)

    def transform(self, results):
        raise MemoryError

    monkeypatch.setattr(type(dataset.dataset.pipeline.transforms[0]), 'transform', transform)
    with pytest.raises(MemoryError):
        dataset[0]


def test_what_a_loading_step_drops_itself_is_not_bad(tmp_path, rows):
    """ignore_empty: the step gives nothing; that of a whole file is its own business."""
    steps = [dict(type='LoadImageFromFile', ignore_empty=True), dict(type='PackToy')]
    dataset = watched(tmp_path, rows, steps)
    Path(rows[0]['img_path']).write_bytes(b'')
    assert dataset[0]['data_samples'].img_path != rows[0]['img_path']
    assert dataset[1]['data_samples'].img_path == rows[1]['img_path']
    assert 'is empty' in (tmp_path / 'list').read_text()


@HOOKS.register_module()
class Ruin(Hook):
    """Cuts files off when all that looks at them beforehand has done so."""

    def __init__(self, files):
        self.files = files

    def before_train(self, runner):
        for file in self.files:
            cut(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    'kind, folder', [('detection', 'train'), ('semantic', 'annotations/train')]
)
def test_detectors_and_segmentors(tmp_path, shapes, kind, folder):
    data = shutil.copytree(shapes, tmp_path / 'data')
    files = [str(path) for path in sorted((data / folder).iterdir())[:2]]
    hooks = [dict(type='Ruin', files=files), SKIP, dict(type='mmresnest.CheckNumbers')]
    found = train(
        tiny.write(tmp_path, kind),
        data=data,
        work_dir=tmp_path / 'work',
        seed=0,
        cfg_options=dict(custom_hooks=hooks),
    )
    rows = toys.record(tmp_path / 'work')
    assert rows and all('cut off' in one['reason'] for one in rows)
    assert {Path(one['image']).stem for one in rows} <= {Path(file).stem for file in files}
    assert found.checkpoint is not None and found.metrics


# ---- the limit -----------------------------------------------------------------------------------


def test_past_the_limit(tmp_path, rows):
    for number in (1, 2, 4, 6):
        os.unlink(rows[number]['img_path'])
    runner = toys.build(tmp_path / 'work', rows, [dict(SKIP, limit=2)])
    with refuses(
        'data.too-many-bad-images',
        '3 images',
        '2 at most (limit)',
        f'{rows[1]["img_path"]} (',
        'No such file',
        'mmresnest check-data CONFIG --fix',
        tmp_path / 'work' / 'bad_images.jsonl',
    ):
        runner.train()
    assert toys.log(runner).count('cannot be used and is skipped') == 3, 'each is named before'


def test_not_one(tmp_path, rows):
    os.unlink(rows[5]['img_path'])
    runner = toys.build(tmp_path / 'work', rows, [dict(SKIP, limit=0)])
    with refuses('data.too-many-bad-images', '0 at most') as stopped:
        runner.train()
    assert stopped.type is TooManyBadImages and str(stopped.value).startswith('1 images')
    assert runner.iter == 2


def test_one_in_a_hundred(tmp_path, rows):
    for times, limit in ((1, 10), (200, 16)):
        inner = CheckedDataset(toys.Toys(rows=rows * times, pipeline=toys.pipeline()))
        dataset = ConcatDataset([inner])
        runner = toys.build(tmp_path / 'work', rows, train_dataloader=DataLoader(dataset))
        hook = SkipBadImages()
        runner.train_loop
        hook.before_train(runner)
        assert hook.log.limit == limit


@pytest.mark.parametrize('workers, limit', [(0, None), (0, 3), (0, 10**6), (2, 3)])
def test_all_images_are_bad(tmp_path, rows, workers_gone, workers, limit):
    shutil.rmtree(tmp_path / 'images')
    runner = toys.build(tmp_path / 'work', rows, [dict(SKIP, limit=limit)], workers=workers)
    start = time.monotonic()
    with refuses('data.too-many-bad-images', 'No such file') as stopped:
        runner.train()
    assert time.monotonic() - start < 10
    assert 'Traceback' not in str(stopped.value)
    assert str(stopped.value).startswith('4 images' if limit == 3 else '8 images')


def test_a_good_image_among_many_bad_ones(tmp_path, rows):
    """The count in a row begins anew with each good one."""
    for row in rows[1:]:
        os.unlink(row['img_path'])
    runner = toys.build(
        tmp_path / 'work', rows, [dict(SKIP, limit=7)], loop=dict(by_epoch=True, max_epochs=3)
    )
    runner.train()
    assert len(toys.record(tmp_path / 'work')) == 7 and runner.iter == 12


def test_the_count_goes_on_when_a_run_is_resumed(tmp_path, rows):
    os.unlink(rows[1]['img_path'])
    toys.build(tmp_path / 'work', rows, [dict(SKIP, limit=1)]).train()
    os.unlink(rows[2]['img_path'])
    resumed = toys.build(
        tmp_path / 'work',
        rows,
        [dict(SKIP, limit=1)],
        resume=True,
        load_from=str(tmp_path / 'work' / 'epoch_1.pth'),
        loop=dict(by_epoch=True, max_epochs=2),
    )
    with refuses('data.too-many-bad-images', '2 images', '1 at most'):
        resumed.train()
    anew = toys.build(tmp_path / 'work', rows, [dict(SKIP, limit=2)])
    anew.train()
    assert len(toys.record(tmp_path / 'work')) == 2
    last = toys.log(anew).splitlines()
    assert sum(f'{rows[1]["img_path"]} cannot be used' in line for line in last) == 2, (
        'once by the first run, once by the one that began anew, not by the one that went on'
    )


@pytest.mark.parametrize('wrong', [-1, 0.01, True, '10'])
def test_limits_that_are_none(wrong):
    with refuses('argument', f'limit={wrong!r}', 'legal: whole numbers from 0'):
        SkipBadImages(limit=wrong)


def test_other_data_sets_are_left_alone(tmp_path, rows):
    samples = [dict(inputs=torch.zeros(48))] * 4
    runner = toys.build(
        tmp_path / 'work',
        rows,
        [SKIP],
        train_dataloader=DataLoader(samples, collate_fn=pseudo_collate),
    )
    runner.train()
    assert "not derived from mmengine's BaseDataset, or is not wrapped" in toys.log(runner)


def test_errors_say_themselves():
    assert str(BadImageError('a.jpg', 'the file is empty')) == 'a.jpg: the file is empty'
    assert (
        str(
            TooManyBadImages(
                'Caught TooManyBadImages in worker.\nTraceback ...\nx.TooManyBadImages: 3 images\n'
            )
        )
        == '3 images'
    )


def test_no_process_writes_into_the_list_of_the_run_before(tmp_path, rows, monkeypatch):
    """The first removes it, and the others wait for that."""
    seen = []
    path = tmp_path / 'work' / 'bad_images.jsonl'
    path.parent.mkdir()
    path.write_text('{"image": "a.jpg", "reason": "of another run"}\n')
    monkeypatch.setattr(bad_images, 'barrier', lambda: seen.append(path.exists()))
    runner = toys.build(tmp_path / 'work', rows, [SKIP])
    runner.train()
    assert seen == [False] and 'a.jpg' not in toys.log(runner)
