"""A score is that of each image alone, whatever the batch."""

import json
import pickle

import numpy as np
import pytest
import torch
from helpers import tiny
from PIL import Image

from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.engine.scoring_loops import group_by_canvas, split_batch
from mmresnest.engine.test import test as score
from mmresnest.engine.train import train

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('fresh_logger')]


def images(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    return [torch.zeros(3, *size) for size in sizes]


@pytest.mark.parametrize(
    'sizes, divisor, groups',
    [
        ([(64, 64), (64, 64)], 1, [[0, 1]]),
        ([(64, 64), (64, 65)], 1, [[0], [1]]),
        ([(64, 64), (64, 65), (33, 40)], 32, [[0, 2], [1]]),
        ([(1, 64), (64, 1), (32, 64)], 32, [[0, 2], [1]]),
    ],
)
def test_images_of_one_padded_size_go_together(sizes, divisor, groups):
    assert group_by_canvas(images(*sizes), divisor) == groups


def test_views_of_augmented_testing_are_told_apart_by_all_sizes():
    first, second = images((64, 64), (64, 64), (64, 64)), images((32, 32), (32, 64), (32, 32))
    assert group_by_canvas([first, second], 32) == [[0, 2], [1]]
    batch = dict(inputs=[first, second], data_samples=[['a', 'b', 'c'], ['d', 'e', 'f']])
    parts = list(split_batch(batch, 32))
    assert [indices for indices, _ in parts] == [[0, 2], [1]]
    assert [part['data_samples'] for _, part in parts] == [[['a', 'c'], ['d', 'f']], [['b'], ['e']]]
    assert [len(view) for view in parts[0][1]['inputs']] == [2, 2]


@pytest.mark.parametrize(
    'batch', [dict(inputs=torch.zeros(2, 3, 4, 4), data_samples=[1, 2]), [1, 2], dict(image=[3])]
)
def test_what_another_collate_function_made_stays_whole(batch):
    [(indices, part)] = split_batch(batch, 32)
    assert indices == [] and part is batch


@pytest.fixture(scope='module')
def mixed(tmp_path_factory):
    """A drawn set, where two in three images of the validation are wider or higher."""
    data = draw_dataset(
        tmp_path_factory.mktemp('mixed') / 'data',
        train=2,
        val=6,
        test=0,
        size=(64, 64),
        layouts=['coco'],
        progress=False,
    )
    table = json.loads((data / 'val.json').read_text())
    wanted = {}
    for number, row in enumerate(table['images']):
        right, below = ((0, 0), (40, 0), (0, 70))[number % 3]
        wanted[row['file_name']] = (below, right)
        row['width'] += right
        row['height'] += below
    for row in table['annotations']:  # run lengths would be of the former sizes
        x, y, w, h = row['bbox']
        row['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    (data / 'val.json').write_text(json.dumps(table))
    for name, (below, right) in wanted.items():
        image = np.asarray(Image.open(data / 'val' / name))
        wide = np.pad(image, ((0, below), (0, right), (0, 0)), mode='reflect')
        Image.fromarray(wide).save(data / 'val' / name, quality=95)
    return data


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['detection', 'instance'])
def test_the_score_is_the_same_for_every_batch_size(kind, mixed, tmp_path):
    path = tiny.write(tmp_path, kind)
    every = {'model.test_cfg.rcnn.score_thr': 0.0}
    checkpoint = train(
        path, data=mixed, work_dir=tmp_path / 'run', cfg_options=every, seed=0
    ).checkpoint
    found = {}
    for batch in (1, 2, 3):
        out = tmp_path / f'{batch}.pkl'
        result = score(
            path,
            checkpoint,
            data=mixed,
            work_dir=tmp_path / str(batch),
            out=out,
            cfg_options={**every, 'test_dataloader.batch_size': batch},
        )
        rows = pickle.loads(out.read_bytes())
        found[batch] = result.metrics, [row['pred_instances'] for row in rows]
    assert len(found[1][1]) == 6 and all(len(one['scores']) for one in found[1][1])
    for batch in (2, 3):
        assert found[batch][0] == pytest.approx(found[1][0], abs=1e-6)
        for ours, alone in zip(found[batch][1], found[1][1]):
            torch.testing.assert_close(ours['scores'], alone['scores'], atol=1e-5, rtol=0)
            torch.testing.assert_close(ours['bboxes'], alone['bboxes'], atol=1e-2, rtol=0)
