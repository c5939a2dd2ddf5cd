"""Our operators, called through mmcv, against figures of compiled mmcv 2.3.6 (its CPU kernels).

``data/mmcv_ops.json`` says under ``about`` how its inputs were drawn.
"""

import json
import sys
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from mmresnest.compat import ops

FIGURES = json.loads((Path(__file__).parents[1] / 'data' / 'mmcv_ops.json').read_text())
MODULES = ('nms', 'roi_align', 'deform_conv', 'modulated_deform_conv', 'focal_loss')


@pytest.fixture(autouse=True)
def ours(monkeypatch):
    """Puts our operators under mmcv's functions, also where a compiled mmcv is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # mmcv's own, at import
        import_module('mmcv.ops')
    table = type('Table', (), {name: staticmethod(op) for name, op in ops.TABLE.items()})
    for name in MODULES:
        monkeypatch.setattr(sys.modules[f'mmcv.ops.{name}'], 'ext_module', table)


def drawn(case, section):
    return pytest.param(case, id=f'{section}-{case["seed"]}')


def cases(section):
    return pytest.mark.parametrize('case', [drawn(case, section) for case in FIGURES[section]])


def tensor(values):
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def assert_is(value, figures, name):
    """Sums and samples to 1e-4 of the value, or of the mean value where it is smaller than that."""
    value = value.detach().double().flatten()
    assert value.shape[0] == np.prod(figures['shape'])
    at = [int(i * (len(value) - 1) // 15) for i in range(16)]
    mean = figures['abs_sum'] / len(value)
    np.testing.assert_allclose(value[at], figures['samples'], 1e-4, 1e-4 * mean, err_msg=name)
    np.testing.assert_allclose(value.abs().sum(), figures['abs_sum'], 1e-4, err_msg=name)
    np.testing.assert_allclose(
        value.sum(), figures['sum'], 1e-4, 1e-6 * figures['abs_sum'], err_msg=name
    )


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@cases('roi_align')
def test_roi_align(case, layout):
    from mmcv.ops import RoIAlign

    random = np.random.RandomState(case['seed'])
    feature = tensor(random.standard_normal((2, 5, 20, 28))).contiguous(memory_format=layout)
    image, corner = random.randint(0, 2, 12), random.uniform(-4, 96, (12, 2))
    rois = tensor(
        np.concatenate([image[:, None], corner, corner + random.uniform(0, 70, (12, 2))], 1)
    )
    pool = RoIAlign(
        case['output_size'], case['spatial_scale'], case['sampling_ratio'], aligned=case['aligned']
    )
    out = pool(feature.requires_grad_(), rois)
    assert list(out.shape) == case['out']['shape']
    (out * tensor(random.standard_normal(out.shape))).sum().backward()
    assert_is(out, case['out'], 'out')
    assert_is(feature.grad, case['grad'], 'grad')


def draw_boxes(random):
    corner = random.uniform(0, 200, (300, 2))
    boxes = np.concatenate([corner, corner + random.uniform(1, 80, (300, 2))], 1)
    return tensor(boxes), tensor(random.uniform(0, 1, 300))


@cases('nms')
def test_nms(case):
    from mmcv.ops import nms

    boxes, scores = draw_boxes(np.random.RandomState(case['seed']))
    kept, index = nms(boxes, scores, case['iou_threshold'], offset=case['offset'])
    assert index.tolist() == case['keep']
    assert torch.equal(kept, torch.cat([boxes, scores[:, None]], 1)[index])


@cases('batched_nms')
def test_batched_nms(case):
    from mmcv.ops import batched_nms

    random = np.random.RandomState(case['seed'])
    boxes, scores = draw_boxes(random)
    labels = torch.from_numpy(random.randint(0, 4, 300))
    rule = {'type': 'nms', 'iou_threshold': case['iou_threshold']}
    assert batched_nms(boxes, scores, labels, rule)[1].tolist() == case['keep']


@cases('soft_nms')
def test_soft_nms(case):
    from mmcv.ops import soft_nms

    boxes, scores = draw_boxes(np.random.RandomState(case['seed']))
    kept, index = soft_nms(
        boxes, scores, case['iou_threshold'], case['sigma'], case['min_score'], case['method']
    )
    assert index.tolist() == case['keep']
    assert torch.equal(kept[:, :4], boxes[index])
    np.testing.assert_allclose(kept[:, 4], case['scores'], 1e-4)


@cases('modulated_deform_conv2d')
def test_modulated_deform_conv2d(case):
    from mmcv.ops import modulated_deform_conv2d

    random, groups = np.random.RandomState(case['seed']), case['deform_groups']
    height, width = case['out']['shape'][2:]
    inputs = {
        'x': random.standard_normal((2, 8, 11, 13)),
        'offset': random.standard_normal((2, 18 * groups, height, width)) * 2,
        'mask': random.uniform(0, 1, (2, 9 * groups, height, width)),
        'weight': random.standard_normal((6, 8 // case['groups'], 3, 3)),
    }
    inputs = {name: tensor(value).requires_grad_() for name, value in inputs.items()}
    out = modulated_deform_conv2d(
        *inputs.values(),
        None,
        case['stride'],
        case['padding'],
        case['dilation'],
        case['groups'],
        groups,
    )
    assert list(out.shape) == case['out']['shape']
    (out * tensor(random.standard_normal(out.shape))).sum().backward()
    assert_is(out, case['out'], 'out')
    for name, value in inputs.items():
        assert_is(value.grad, case['grads'][name], name)
