"""--max-regions: what it sets, and for what it is refused."""

import pytest
from helpers.errors import check_refused, refuses

from mmresnest.config.load import load_config
from mmresnest.config.regions import limit_regions

pytestmark = pytest.mark.once


@pytest.mark.parametrize('most, expected', [(300, 300), (5000, 1000), (None, 1000), (1, 1)])
def test_the_second_stage_is_limited_and_training_is_not(most, expected):
    cfg = load_config('faster_rcnn_resnest50_fpn')
    training = cfg.model.train_cfg.rpn_proposal.max_per_img
    limit_regions(cfg, most)
    assert cfg.model.test_cfg.rpn.max_per_img == expected
    assert cfg.model.train_cfg.rpn_proposal.max_per_img == training


@pytest.mark.parametrize(
    'config, most, code',
    [
        ('faster_rcnn_resnest50_fpn', 0, 'option.value'),
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 100, 'option.conflict'),
        ('deeplabv3_resnest50_ade20k', 100, 'option.conflict'),
    ],
)
def test_what_cannot_be_limited_is_refused(config, most, code):
    with refuses(code, '--max-regions'):
        limit_regions(load_config(config), most)


def test_the_command_says_so_in_one_line(tmp_path):
    line = f'train faster_rcnn_resnest50_fpn --max-regions 0 --work-dir {tmp_path}'
    check_refused(line.split(), 'option.value', '--max-regions 0')
