"""The stand-in for panopticapi: its numbers, its place, and what mmdet makes of it."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoPanopticMetric
from mmdet.evaluation.functional import INSTANCE_OFFSET, panoptic_utils

from mmresnest.compat import panopticapi
from mmresnest.compat.panopticapi import OFFSET, VOID, PQStat, id2rgb, rgb2id
from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.data.shapes.drawing import CLASSES

pytestmark = pytest.mark.filterwarnings('ignore')  # mmdet's own future

CATEGORIES = {
    5: dict(id=5, isthing=1),
    2: dict(id=2, isthing=1),
    9: dict(id=9, isthing=0),
    4: dict(id=4, isthing=0),
}
"""The last occurs nowhere."""


def test_colours_and_numbers():
    numbers = np.append(np.arange(0, OFFSET, 97), [255, 256, 65535, 65536, OFFSET - 1])
    colours = id2rgb(numbers)
    assert colours.dtype == np.uint8 and colours.shape == (*numbers.shape, 3)
    assert np.array_equal(rgb2id(colours), numbers)
    grid = numbers[:600].reshape(20, 30)
    assert np.array_equal(rgb2id(id2rgb(grid)), grid) and id2rgb(grid).shape == (20, 30, 3)
    for number, colour in (
        (0, [0, 0, 0]),
        (1, [1, 0, 0]),
        (256, [0, 1, 0]),
        (65536, [0, 0, 1]),
        (OFFSET - 1, [255, 255, 255]),
    ):
        assert id2rgb(number) == colour and rgb2id(colour) == number
        assert isinstance(rgb2id(colour), int)


def random_segments(rng, crowd=False):
    """Blocks of pixels with numbers, and each number's category; number 0 is of no segment."""
    numbers = rng.integers(0, 12, (6, 6)).repeat(4, 0).repeat(4, 1)
    infos = {}
    for number in np.unique(numbers[numbers > VOID]).tolist():
        infos[number] = dict(
            id=number,
            category_id=int(rng.choice([5, 2, 9])),
            area=int((numbers == number).sum()),
            iscrowd=0,
        )
        if crowd and number % 5 == 0 and infos[number]['category_id'] != 9:
            infos[number]['iscrowd'] = 1
    return numbers, infos


def disturbed(rng, numbers, infos):
    """What a model could have said: borders moved, some categories mistaken, some pixels void."""
    said = np.roll(numbers, rng.integers(0, 3, 2), (0, 1))
    said[rng.random(said.shape) < 0.1] = VOID
    kept = {
        number: dict(
            one,
            category_id=int(rng.choice([5, 2, 9])) if rng.random() < 0.2 else one['category_id'],
        )
        for number, one in infos.items()
        if (said == number).any()
    }
    return said, kept


def slow_counts(truth, true_infos, said, said_infos):
    """Matches every pair of segments by their pixels: category -> [sum of IoU, TP, FP, FN]."""
    counts = {category: [0.0, 0, 0, 0] for category in CATEGORIES}
    matched_truth, matched_said = set(), set()
    for b, predicted in said_infos.items():
        for a, true in true_infos.items():
            if true['iscrowd'] or true['category_id'] != predicted['category_id']:
                continue
            both = one = 0
            for t, s in zip(truth.flat, said.flat, strict=True):
                both += t == a and s == b
                one += t == a or (s == b and t != VOID)
            if both > one / 2:
                counts[true['category_id']][0] += both / one
                counts[true['category_id']][1] += 1
                matched_truth.add(a)
                matched_said.add(b)
    for a, true in true_infos.items():
        counts[true['category_id']][3] += a not in matched_truth and not true['iscrowd']
    for b, predicted in said_infos.items():
        if b in matched_said:
            continue
        crowds = [
            a
            for a, true in true_infos.items()
            if true['iscrowd'] and true['category_id'] == predicted['category_id']
        ]
        left_out = [
            t == VOID or t in crowds[-1:]  # the last of them, as they count it
            for t, s in zip(truth.flat, said.flat, strict=True)
            if s == b
        ]
        counts[predicted['category_id']][2] += np.mean(left_out) <= 0.5
    return counts


@pytest.mark.parametrize('seed', range(6))
def test_quality_against_a_slow_twin(tmp_path, seed):
    rng = np.random.default_rng(seed)
    pairs, wanted = [], {category: np.zeros(4) for category in CATEGORIES}
    for index in range(3):
        truth, true_infos = random_segments(rng, crowd=True)
        said, said_infos = disturbed(rng, truth, true_infos)
        for category, counts in slow_counts(truth, true_infos, said, said_infos).items():
            wanted[category] += counts
        for folder, numbers in (('truth', truth), ('said', said)):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f'{index}.png'), id2rgb(numbers)[:, :, ::-1])
        pairs.append(
            [
                dict(
                    image_id=index,
                    file_name=f'{index}.png',
                    segments_info=[dict(one) for one in infos.values()],
                )
                for infos in (true_infos, said_infos)
            ]
        )
    assert all(sum(wanted.values())), 'matches, false and missed segments occur'

    stat = PQStat()
    for pair in pairs:  # summed over images, as a run's batches are
        stat += panoptic_utils.pq_compute_single_core(
            0, [pair], str(tmp_path / 'truth'), str(tmp_path / 'said'), CATEGORIES
        )
    for category, (iou, *counts) in wanted.items():
        one = stat[category]
        assert [one.tp, one.fp, one.fn] == counts and one.iou == pytest.approx(iou)
    for isthing, chosen in ((None, [5, 2, 9]), (True, [5, 2]), (False, [9])):
        mean, each = stat.pq_average(CATEGORIES, isthing)
        qualities = []
        for category in chosen:
            iou, tp, fp, fn = wanted[category]
            quality = iou / (tp + fp / 2 + fn / 2)
            assert each[category]['pq'] == pytest.approx(quality)
            assert quality == pytest.approx(each[category]['sq'] * each[category]['rq'])
            qualities.append(quality)
        assert mean['n'] == len(chosen) and mean['pq'] == pytest.approx(np.mean(qualities))
        assert (4 in each) == (isthing is not True)
        assert each.get(4, {'pq': 0.0})['pq'] == 0.0, 'what does not occur has no quality'


def test_nothing_counted():
    mean, each = PQStat().pq_average(CATEGORIES, None)
    assert mean == dict(pq=0.0, sq=0.0, rq=0.0, n=0) and len(each) == 4


def ask(folder, code):
    run = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=60, cwd=folder
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_the_real_package_wins(tmp_path):
    code = (
        'import mmresnest, panopticapi, panopticapi.utils, panopticapi.evaluation\n'
        'print(panopticapi.utils.__spec__.origin, panopticapi.utils.rgb2id.__module__)'
    )
    assert ask(tmp_path, code) == [panopticapi.__name__] * 2
    package = tmp_path / 'panopticapi'
    package.mkdir()
    # A clone of its repository in the working directory is a folder of that name, without code.
    assert ask(tmp_path, code) == [panopticapi.__name__] * 2
    for name in ('__init__', 'evaluation', 'utils'):
        (package / f'{name}.py').write_text('def rgb2id(colour): pass\n')
    assert ask(tmp_path, code) == [str(package / 'utils.py'), 'panopticapi.utils']


def test_nothing_else_is_found():
    with pytest.raises(ModuleNotFoundError):
        import_module('panopticapi.combine_semantic_and_instance_predictions')
    with pytest.raises(ImportError, match='IdGenerator'):
        exec('from panopticapi.utils import IdGenerator')
    assert set(panopticapi.CONTENTS) <= set(sys.modules)


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    return draw_dataset(
        folder, train=0, val=4, test=0, size=(96, 80), layouts='panoptic', progress=False
    )


NAMES = (*CLASSES, 'background')
NOTHING = len(NAMES)


def samples(shapes, say):
    """What mmdet's model and data set hand to the score, for predictions that ``say`` changes."""
    table = json.loads((shapes / 'panoptic_val.json').read_text())
    for image, row in zip(table['images'], table['annotations'], strict=True):
        mask = shapes / 'panoptic_val' / row['file_name']
        numbers = cv2.imread(str(mask))[:, :, 2]
        said = np.full(numbers.shape, NOTHING)
        for one in row['segments_info']:
            label = one['category_id'] - 1
            said[numbers == one['id']] = label + INSTANCE_OFFSET * one['id'] * (label < 6)
        segments = [
            dict(id=one['id'], category=one['category_id'] - 1, is_thing=one['category_id'] <= 6)
            for one in row['segments_info']
        ]
        yield dict(
            img_id=image['id'],
            img_path=str(shapes / 'val' / image['file_name']),
            ori_shape=(80, 96),
            segments_info=segments,
            seg_map_path=str(mask),
            pred_panoptic_seg=dict(sem_seg=torch.from_numpy(say(said))[None]),
        )


def only_stuff(said):
    return np.where(said == 6, said, NOTHING)


@pytest.mark.parametrize(
    'say, things, stuff',
    [
        (lambda said: said, 100, 100),
        (lambda said: np.full_like(said, NOTHING), 0, 0),
        (only_stuff, 0, 100),
    ],
)
@pytest.mark.parametrize('truth', ['of the file', 'of the data set'])
@pytest.mark.parametrize('processes', [1, 2])
def test_score_of_mmdet(shapes, tmp_path, say, things, stuff, truth, processes):
    settings = dict(seg_prefix=str(shapes / 'panoptic_val'))
    if truth == 'of the file':
        settings['ann_file'] = str(shapes / 'panoptic_val.json')
    if processes > 1:  # with results on disk mmdet counts in processes of its own
        settings.update(outfile_prefix=str(tmp_path / 'out'), nproc=processes)
    metric = CocoPanopticMetric(classwise=True, **settings)
    metric.dataset_meta = dict(classes=NAMES, thing_classes=NAMES[:6], stuff_classes=NAMES[6:])
    for sample in samples(shapes, say):
        metric.process({}, [sample])
    scores = metric.evaluate(size=4)
    table = json.loads((shapes / 'panoptic_val.json').read_text())
    there = {one['category_id'] for row in table['annotations'] for one in row['segments_info']}
    count = len(there - {7})
    assert count > 2 and 7 in there
    for name, wanted in (
        ('PQ_th', things),
        ('PQ_st', stuff),
        ('PQ', (things * count + stuff) / (count + 1)),
    ):
        assert scores[f'coco_panoptic/{name}'] == pytest.approx(wanted)
