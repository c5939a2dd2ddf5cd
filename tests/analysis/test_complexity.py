"""Parameters and multiply-adds: against runs with values, published figures, the variant table."""

import json
import warnings
from importlib import import_module

import pytest
import torch
from helpers.errors import refuses
from helpers.tiers import mark_slow
from mmengine.registry import MODELS, DefaultScope
from torch.utils.flop_counter import FlopCounterMode

from mmresnest.analysis.flops import DETECTIONS, build_on_meta, complexity
from mmresnest.cli.main import main
from mmresnest.compat.mmcv_ext import is_stand_in
from mmresnest.config.inspect import import_packages, model_of
from mmresnest.engine.prepare import configure
from mmresnest.models.norms import replace_sync_norms
from mmresnest.models.variants import VARIANTS

# mmengine, mmdet and mmseg warn of their own future at every turn.
pytestmark = pytest.mark.filterwarnings('ignore')

FEW = {  # detectors: few regions, and none dropped for the low scores of random weights
    'model.test_cfg.rpn.max_per_img': 7,
    'model.test_cfg.rcnn.score_thr': 0.0,
    'model.test_cfg.rcnn.max_per_img': 5,
}
RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
SMALL = {'model.backbone.arch': 'resnest50'}
KINDS = {  # a config of each kind of model, and what makes it small enough to run with values
    'faster_rcnn_resnet50d_fpn': FEW,
    'faster_rcnn_resnest50_fpn_dcn': FEW,
    'cascade_rcnn_seresnext50_32x4d_fpn': FEW,
    'mask_rcnn_resnest50_fpn_mmdet': FEW,
    'cascade_mask_rcnn_resnet50d_fpn': FEW,
    'htc_res2net101_v1b_fpn': FEW,
    RETINANET: {},
    'panoptic_fpn_resnest50_fpn': FEW,
    'panoptic_fpn_resnest200_fpn_3x': dict(FEW, **{'model.backbone.arch': 'resnest50'}),
    'deeplabv3_resnest50_ade20k': {},
    'deeplabv3_resnest50_ade20k_encoding': {'model.test_cfg.mode': 'whole'},
    'deeplabv3plus_resnest101_cityscapes_mmseg': SMALL,
    'fcn_resnest101_ade20k_mmseg': SMALL,
    'pspnet_resnest101_cityscapes_mmseg': SMALL,
}
FAST = (
    'faster_rcnn_resnest50_fpn_dcn',
    'mask_rcnn_resnest50_fpn_mmdet',
    RETINANET,
    'panoptic_fpn_resnest50_fpn',
    'deeplabv3_resnest50_ade20k',
    'pspnet_resnest101_cityscapes_mmseg',
)
SHAPE = (96, 160)


def prepared(name, options=None):
    cfg = configure(name, cfg_options=options)
    import_packages(cfg)
    return cfg


def counted_with_values(cfg) -> tuple[int, dict[str, int]]:
    """MACs of a prediction as it is made for users, and how many regions each kind of head saw.

    Without compiled operators NMS and RoIAlign are products of two matrices (mm), which are left
    out; layers are convolutions, linear ones with biases (addmm) and deformable ones (bmm).
    """
    replace_sync_norms(model_of(cfg))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model).eval()
    seen = {}

    def looked_at(heads):
        """Counts the regions of one stage of heads of a kind; all stages see the same number."""
        numbers = []
        for head in heads:
            head.register_forward_hook(lambda head, inputs, outputs: numbers.append(len(inputs[0])))
        return lambda: sum(numbers) // len(heads)

    for kind in ('bbox_head', 'mask_head'):
        heads = getattr(getattr(model, 'roi_head', None), kind, None)
        if heads is not None:
            seen[kind] = looked_at(heads if isinstance(heads, torch.nn.ModuleList) else [heads])
    meta = dict(
        ori_shape=SHAPE,
        img_shape=SHAPE,
        pad_shape=SHAPE,
        batch_input_shape=SHAPE,
        scale_factor=(1.0, 1.0),
    )
    image = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if cfg.default_scope == 'mmseg':
            model.encode_decode(image, [meta])
        else:
            from mmdet.structures import DetDataSample

            model.predict(image, [DetDataSample(metainfo=meta)])
    flops = counter.get_flop_counts()['Global']
    layers = (torch.ops.aten.convolution, torch.ops.aten.addmm, torch.ops.aten.bmm)
    return (
        sum(flops.get(layer, 0) for layer in layers) // 2,
        {kind: number() for kind, number in seen.items()},
    )


@pytest.mark.slow
@pytest.mark.parametrize('name', KINDS)
def test_a_run_with_values_takes_what_was_counted_without(name):
    """The whole of a prediction, post-processing too, and no part of it twice."""
    if name.endswith('_dcn') and not is_stand_in(import_module('mmcv._ext')):
        pytest.skip('compiled deformable convolutions are not seen by the counter')
    found = complexity(name, shape=SHAPE, options=KINDS[name])
    total, seen = counted_with_values(prepared(name, KINDS[name]))
    expected = 0
    for part, macs in found.macs.items():
        if part in found.counted_regions():
            number = seen[part.removeprefix('roi_head.')]
            assert number and macs % found.counted_regions()[part] == 0
            macs = macs // found.counted_regions()[part] * number
        expected += macs
    assert total == expected


@pytest.mark.parametrize(
    'name, params, gigas, masks',
    mark_slow(
        [
            ('faster_rcnn', 61.18, 293.68, 0),
            ('mask_rcnn', 63.83, 362.18, 1),
            ('cascade_rcnn', 88.82, 321.32, 0),
            ('cascade_mask_rcnn', 96.75, 526.84, 3),
            ('htc', 99.69, 574.30, 3),
        ],
        lambda case: case[0] == 'mask_rcnn',
    ),
)
def test_published_figures(name, params, gigas, masks):
    """The README of the Res2Net authors' mmdetection fork, with Res2Net-101 at 1280 x 800.

    Their tool, mmdet's of that time, counts trainable parameters only, counts norms, activations
    and biases as well (below half a per cent), and the transposed convolution of every mask head
    at its output's resolution, which is four times what it takes.
    """
    cfg = prepared(f'{name}_res2net101_v1b_fpn_mmdet')
    trainable = sum(
        parameter.numel()
        for parameter in build_on_meta(cfg).parameters()
        if parameter.requires_grad
    )
    assert trainable / 1e6 == pytest.approx(params, abs=0.011)
    found = complexity(cfg, shape=(800, 1280))
    transposed = masks * DETECTIONS * 256 * 256 * 2 * 2 * 14 * 14
    assert (sum(found.macs.values()) + 3 * transposed) / 1e9 == pytest.approx(gigas, rel=0.005)


@pytest.mark.parametrize(
    'name, arch',
    [
        ('faster_rcnn_resnest50_fpn', 'resnest50'),
        ('deeplabv3_res2net50_v1b_ade20k', 'res2net50_v1b_26w_4s'),
    ],
)
def test_the_backbone_is_the_one_of_the_table(name, arch):
    found = complexity(
        name,
        shape=(224, 224),
        options={'model.backbone.strides': (1, 2, 2, 2), 'model.backbone.dilations': (1, 1, 1, 1)},
    )
    row, classifier = VARIANTS[arch], 2048 * 1000
    assert (found.params['backbone'] + classifier + 1000) / 1e6 == pytest.approx(
        row.params, abs=6e-4
    )
    assert (found.macs['backbone'] + classifier) / 1e9 == pytest.approx(row.macs, abs=6e-4)


def test_nothing_takes_memory():
    model = build_on_meta(prepared('cascade_mask_rcnn_resnest200_fpn_dcn_3x'))
    tensors = [*model.parameters(), *(buffer for name, buffer in model.named_buffers())]
    assert len(tensors) > 1000 and all(tensor.is_meta for tensor in tensors)


def test_heads_of_training_count_among_the_parameters_only():
    found = complexity('deeplabv3_resnest50_ade20k')
    assert 'auxiliary_head' in found.params and 'auxiliary_head' not in found.macs
    summary = found.summary()
    assert summary['params']['whole'] == sum(found.params.values())
    assert summary['macs']['whole'] == sum(
        summary['macs'][part] for part in ('backbone', 'neck', 'heads')
    )


@pytest.mark.parametrize(
    'name, shape',
    [
        (RETINANET, (800, 1344)),
        ('fcn_resnest50_ade20k_encoding', (512, 512)),
        ('deeplabv3_resnest50_cityscapes', (512, 1024)),
    ],
)
def test_sizes_by_the_kind_of_config(name, shape):
    assert complexity(name).shape == shape


def test_a_part_that_cannot_be_run_is_named_not_left_out():
    with refuses('model.unknown-part', 'point_head (MaskPointHead)', 'known: bbox_head'):
        complexity('mmdet::point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py')


def test_other_bad_input_is_named():
    with refuses('option.needed', 'fcn_r50-d8', 'CityscapesDataset, ADE20KDataset', '--shape'):
        complexity('mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py')
    with refuses('option.value', '0 x 64', '--shape'):
        complexity(RETINANET, shape=(0, 64))
    with refuses('config.incomplete', "{'frozen_stages': 1}", 'configs/_base_'):
        complexity(
            configure(
                'faster_rcnn_resnest50_fpn',
                cfg_options={'model.backbone': dict(_delete_=True, frozen_stages=1)},
            )
        )


def test_another_network(capsys):
    arch, classifier = 'res2net50_26w_4s', 2048 * 1000 + 1000
    assert main(['flops', RETINANET, '--arch', arch, '--shape', '64', '64', '--json']) == 0
    params = json.loads(capsys.readouterr().out)['params']['backbone']
    assert (params + classifier) / 1e6 == pytest.approx(VARIANTS[arch].params, abs=6e-4)


def test_on_the_command_line(capsys):
    assert main(['flops', 'mask_rcnn_resnest50_fpn', '--shape', '96', '160', '--json']) == 0
    said = json.loads(capsys.readouterr().out)
    found = complexity('mask_rcnn_resnest50_fpn', shape=SHAPE)
    assert said['shape'] == list(SHAPE) and said['parts']['macs'] == found.macs
    assert said['params'] == found.summary()['params']
    assert said['regions'] == {'roi_head.bbox_head': 1000, 'roi_head.mask_head': 100}
    assert main(['flops', 'mask_rcnn_resnest50_fpn', '--shape', '96', '160']) == 0
    text = capsys.readouterr().out
    macs = found.summary()['macs']['whole']
    assert f'{macs / 1e9:.2f}' in text and f'{2 * macs / 1e9:.2f}' in text
    assert '96 x 160' in text and 'counted on 100 regions' in text


def test_counting_says_nothing_of_its_own(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        complexity('fcn_resnest50_ade20k_encoding', shape=(64, 64))
    assert capfd.readouterr() == ('', '')
