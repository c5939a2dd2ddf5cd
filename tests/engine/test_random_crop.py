"""The transform finds the places that mmseg's finds, and is put where mmseg's was meant."""

import numpy as np
import pytest
from mmengine.config import Config

from mmresnest.config import hardware

transforms = pytest.importorskip('mmseg.datasets.transforms')


@pytest.mark.parametrize('ratio, ignored', [(1.0, 255), (0.75, 255), (0.4, 3), (0.75, 300)])
@pytest.mark.parametrize('kind', [np.uint8, np.int64])
def test_places_and_random_numbers_are_those_of_mmseg(kind, ratio, ignored):
    from mmresnest.engine.random_crop import RandomCrop

    seen = set()
    for seed in range(30):
        draw = np.random.default_rng(seed)
        labels = np.full((40, 50), 255 if seed % 3 else 7, kind)
        for label in (0, 3, 3, 9):
            top, left = draw.integers(0, 30, 2)
            labels[top : top + 22, left : left + 25] = label
        image = draw.integers(0, 255, (40, 50, 3), np.uint8)
        found = []
        for kind_of_crop in (transforms.RandomCrop, RandomCrop):
            np.random.seed(seed)
            crop = kind_of_crop((24, 60), cat_max_ratio=ratio, ignore_index=ignored)
            results = crop(dict(img=image, gt_seg_map=labels, seg_fields=['gt_seg_map']))
            found.append((results['img'], results['gt_seg_map'], np.random.random()))
        for theirs, ours in zip(*found):
            np.testing.assert_array_equal(theirs, ours)
        seen.add(found[0][2])
    assert len(seen) == 30


def test_it_takes_the_place_of_mmseg_s_alone():
    given = [
        dict(type='RandomCrop', crop_size=(8, 8), cat_max_ratio=0.75),
        dict(type='mmseg.RandomCrop', crop_size=(8, 8), cat_max_ratio=0.75),
        dict(type='RandomCrop', crop_size=(8, 8)),  # mmdet's, or as fast already
    ]
    loader = dict(num_workers=0, dataset=dict(type='ADE20KDataset', pipeline=given))
    cfg = Config(dict(train_dataloader=loader))
    hardware.configure_loaders(cfg)
    kinds = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    assert kinds == ['mmresnest.RandomCrop', 'mmresnest.RandomCrop', 'RandomCrop']
