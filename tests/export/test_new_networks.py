"""Detectors with SKNet and DLA as files: what they find is what PyTorch finds, and depends on it.

The weights are random, and every layer is set by the values that it meets on a few images: norms
to their statistics, the layers of neck and heads to outputs of deviation 1. Scores are then
far apart, boxes differ, and a wrong branch of the network shows in them, which is looked at, too.
"""

import copy
from functools import partial

import pytest
import torch
from helpers import tiny
from torch import nn

from mmresnest.config.architecture import load_with_arch
from mmresnest.data.shapes.drawing import draw_sample
from mmresnest.engine.prepare import configure
from mmresnest.export.compare import LIMITS, Selection, compare_results
from mmresnest.export.exporter import export
from mmresnest.inference.exported import ExportedModel
from mmresnest.inference.predictor import Predictor
from mmresnest.models.blocks import Res2NetBottleneck
from mmresnest.models.blocks.selective_kernel import SelectiveKernel
from mmresnest.models.dla import Root

pytestmark = [
    pytest.mark.slow,
    pytest.mark.once,
    pytest.mark.filterwarnings('ignore'),
    pytest.mark.usefixtures('unformatted', 'fresh_logger'),
]

SMALL = """
resize = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 64), keep_ratio=True),
          dict(type='PackDetInputs',
               meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
test_dataloader = dict(dataset=dict(pipeline=resize))
val_dataloader = test_dataloader
"""
DETECTORS = {
    'faster_rcnn': SMALL
    + """
_base_ = 'mmresnest::faster_rcnn_resnest50_fpn.py'
model = dict(
    neck=dict(out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(in_channels=32, fc_out_channels=32, conv_out_channels=32)),
    test_cfg=dict(rpn=dict(max_per_img=40, nms_pre=200), rcnn=dict(max_per_img=50)))
""",
    'retinanet': SMALL
    + """
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(
    neck=dict(out_channels=32),
    bbox_head=dict(in_channels=32, feat_channels=32, stacked_convs=1),
    test_cfg=dict(nms_pre=60, max_per_img=50))
""",
}
DEVIATIONS = dict(rpn_cls=2.0, rpn_reg=0.2, fc_cls=4.0, fc_reg=1.0, retina_cls=2.0, retina_reg=0.2)
"""The deviation of the outputs of the last layers; of all others it is 1."""
MEANS = dict(retina_cls=-7.0)
STRICT = LIMITS['float32']
SHALLOW = dict(skresnext50_32x4d={'model.backbone.depths': [1, 1, 1, 1]}, dla60_res2net={})
"""A graph grows with its blocks; of DLA the trees are what is looked at."""


def swap_kernels(selective):
    """Each kernel gets the weight of the other."""
    selective.fc2.weight.data = selective.fc2.weight.roll(selective.channels, 0)


def swap_subtrees(root):
    """A root takes the second subtree for the first."""
    weight, channels = root.conv.weight.data, root.conv.out_channels
    weight[:, : 2 * channels] = weight[:, : 2 * channels].roll(channels, 1)


def omit_node(root):
    """A root does not see the last node that is named to it from further up."""
    root.conv.weight.data[:, 2 * root.conv.out_channels :][:, -128:] = 0


def swap_rungs(block):
    """Two splits of a ladder meet each other's convolutions."""
    block.convs[0].weight.data, block.convs[1].weight.data = (
        block.convs[1].weight.data,
        block.convs[0].weight.data,
    )


WRONG = dict(
    skresnext50_32x4d={swap_kernels: SelectiveKernel},
    dla60_res2net={swap_subtrees: Root, omit_node: Root, swap_rungs: Res2NetBottleneck},
)
"""What may be wrong in one module of a network, and in a module of which type."""


def calibrate(model, predict):
    """Have every layer set itself by what it meets the first time."""

    def standardize(module, _, output, name):
        shape = (1, -1) + (1,) * (output.dim() - 2)
        others = [dim for dim in range(output.dim()) if dim != 1]
        mean, scale = output.mean(others), DEVIATIONS.get(name, 1.0) / output.std(others)
        shift = MEANS.get(name, 0.0)
        module.weight.data *= scale.view(-1, *(1,) * (module.weight.dim() - 1))
        module.bias.data = (module.bias - mean) * scale + shift
        handles.pop(module).remove()
        return (output - mean.view(shape)) * scale.view(shape) + shift

    handles = {}
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 1.0
        norm.bias.data.uniform_(0.5, 1.5)  # most values pass the ReLU: else rounding grows by block
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            hook = partial(standardize, name=name.rpartition('.')[2])
            handles[module] = module.register_forward_hook(hook)
    predict()
    assert norms and not handles, 'every layer was met'
    model.eval()


def draw(first, number):
    return [draw_sample(1, 'val', first + one, (96, 64)).image for one in range(number)]


@pytest.mark.parametrize(
    'detector, arch',
    [
        ('faster_rcnn', 'skresnext50_32x4d'),
        ('faster_rcnn', 'dla60_res2net'),
        ('retinanet', 'skresnext50_32x4d'),
    ],
)
def test_finds_what_pytorch_finds(detector, arch, shapes, tmp_path):
    """On images that the export has not seen; no module could be wrong without being noticed."""
    path, checkpoint = tmp_path / f'{detector}.py', tmp_path / 'random.pth'
    path.write_text(DETECTORS[detector])
    given = dict(data=str(shapes), cfg_options=SHALLOW[arch])
    tiny.save_random(configure(path, arch=arch, **given), checkpoint)
    cfg = load_with_arch(path, arch)
    predictor = Predictor(
        cfg, checkpoint, 'cpu', 0.0, data=str(shapes), options=SHALLOW[arch], fused=False
    )
    calibrate(predictor.model, lambda: predictor(draw(0, 4), batch_size=4))
    content = torch.load(checkpoint)
    torch.save({**content, 'state_dict': predictor.model.state_dict()}, checkpoint)
    done = export(path, checkpoint, arch=arch, size=(64, 96), out=tmp_path / 'a.onnx', **given)
    assert done.objects > 3

    images = draw(10, 2)
    expected, found = predictor(images), ExportedModel(tmp_path / 'a.onnx', 0.0)(images)
    for one, other in zip(expected, found):
        assert len(one) > 3 and len(other) > 3 and len(set(one.labels)) > 1
        assert one.scores.max() - one.scores.min() > 0.2, 'far apart'
        assert differ(one, other) == []

    image = images[0]
    for spoil, kind in WRONG[arch].items():
        for module in predictor.model.backbone.modules():
            if not isinstance(module, kind):
                continue
            right = copy.deepcopy(module.state_dict())
            spoil(module)
            if any(not torch.equal(right[key], one) for key, one in module.state_dict().items()):
                assert differ(predictor(image), found[0]), (spoil.__name__, module)
            module.load_state_dict(right)
    assert differ(predictor(image), found[0]) == []


def differ(one, other):
    """What is beyond rounding."""
    selection = Selection(0.05, 50)
    return [each for each in compare_results(one, other, STRICT, selection) if not each.passes]
