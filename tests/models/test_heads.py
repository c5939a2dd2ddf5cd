"""What our recipes put into heads, against slow twins."""

import pytest
import torch
import torch.nn.functional as F
from helpers.errors import refuses
from mmdet.registry import MODELS as DETECTION
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS as SEGMENTATION
from torch import nn

from mmresnest.config.load import load_config

EXTRACTOR = dict(
    type='mmdet.SingleRoIExtractor',
    out_channels=4,
    featmap_strides=[4, 8],
    roi_layer=dict(type='RoIAlign', output_size=3, sampling_ratio=0),
)


def features() -> list[torch.Tensor]:
    drawn = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, 4, 64 // stride, 64 // stride, generator=drawn, requires_grad=True)
        for stride in (4, 8)
    ]


ROIS = torch.tensor([[0, 2, 3, 40, 37], [0, 20, 1, 60, 63], [0, 0, 0, 200, 150]]).float()


@pytest.mark.parametrize('scale', [1 / 3, 1.0])
def test_scaled_gradient(scale):
    """The features of the extractor alone, and so much of its gradient; heads get all of theirs."""
    plain = DETECTION.build(EXTRACTOR)
    ours = DETECTION.build(dict(type='mmresnest.ScaledGradient', extractor=EXTRACTOR, scale=scale))
    assert (ours.num_inputs, ours.out_channels, ours.featmap_strides) == (2, 4, [4, 8])
    assert not ours.state_dict()
    results = []
    for extractor in (plain, ours):
        maps, weight = features(), torch.full((3, 4, 3, 3), 0.1, requires_grad=True)
        y = extractor(tuple(maps), ROIS)
        (y * weight).square().sum().backward()
        results.append((y.detach(), weight.grad, [m.grad for m in maps]))
    (y, of_head, whole), (same, of_same_head, part) = results
    assert torch.equal(y, same) and torch.equal(of_head, of_same_head)
    for one, other in zip(whole, part, strict=True):
        assert one.abs().sum() > 0
        torch.testing.assert_close(other, scale * one)


@pytest.mark.parametrize('scale', [0, -1, 1.5])
def test_a_scale_that_is_no_share_is_refused(scale):
    with refuses('argument.value', f'scale={scale} ', 'legal: above 0, at most 1'):
        DETECTION.build(dict(type='mmresnest.ScaledGradient', extractor=EXTRACTOR, scale=scale))


def test_cascade_by_the_authors_losses():
    head = load_config('cascade_rcnn_resnest50_fpn').model.roi_head
    assert head.stage_loss_weights == [1, 1, 1]
    assert head.bbox_roi_extractor.scale == pytest.approx(1 / head.num_stages)
    weights = [[round(1 / std) for std in one.bbox_coder.target_stds] for one in head.bbox_head]
    assert weights == [[10, 10, 5, 5], [20, 20, 10, 10], [30, 30, 15, 15]]
    assert {one.loss_bbox.type for one in head.bbox_head} == {'L1Loss'}


def test_aspp_as_in_encoding():
    """Five branches, projected, refined and classified: by hand, in evaluation."""
    load_config('deeplabv3_resnest50_ade20k_encoding')  # its custom_imports register the head
    init_default_scope('mmseg')
    torch.manual_seed(0)
    head = SEGMENTATION.build(
        dict(
            type='mmresnest.EncodingASPPHead',
            in_channels=8,
            in_index=1,
            channels=6,
            num_classes=5,
            dilations=(1, 2, 3),
            norm_cfg=dict(type='BN'),
            align_corners=True,
        )
    ).eval()
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    x = torch.randn(2, 8, 9, 7)

    def layer(module, x, dilation=1):
        kernel = module.conv.weight.shape[-1]
        y = F.conv2d(x, module.conv.weight, None, 1, kernel // 2 * dilation, dilation)
        return F.relu(
            F.batch_norm(
                y, module.bn.running_mean, module.bn.running_var, module.bn.weight, module.bn.bias
            )
        )

    parts = [layer(branch, x, dilation) for branch, dilation in zip(head.branches, (1, 1, 2, 3))]
    parts.append(layer(head.image_branch, x.mean((2, 3), keepdim=True)).expand_as(parts[0]))
    y = layer(head.refine, layer(head.project, torch.cat(parts, 1)))
    wanted = F.conv2d(y, head.conv_seg.weight, head.conv_seg.bias)
    with torch.no_grad():
        torch.testing.assert_close(head([None, x]), wanted)
    assert not torch.equal(*(head.train()([None, x]) for _ in range(2))), 'dropout rests'
