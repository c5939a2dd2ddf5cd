"""Count parameters and multiply-adds of a config's model, without weights, images or memory.

The model is built and run on torch's meta device, where a tensor has a shape and no values, under
torch's own counter of operations. What is counted is one image going through the model as in
testing:

* convolutions and matrix products; one multiply-add (MAC) is a multiplication and an addition, so
  it is two FLOPs. Norms, activations, biases, pooling, resizing, RoIAlign and NMS are left out;
* heads that look at the whole image (RPN, RetinaNet's, semantic ones) once;
* heads that look at regions on a fixed number of them, so that the figure does not depend on what
  a model happens to find: every box head on ``PROPOSALS`` regions, every mask head on
  ``DETECTIONS``;
* a deformable convolution as the plain one of the same geometry and the one that makes its offsets;
  the interpolation between them is left out like RoIAlign's.

Auxiliary heads do not run in testing: they count among the parameters, not among the MACs.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..config.inspect import dataset_configs, import_packages, model_of, task_of
from ..config.load import name_of
from ..engine.prepare import configure
from ..engine.runner import explain_build_errors
from ..errors import UserError
from ..models.norms import replace_sync_norms

#: regions for every box head, as many as an RPN hands on by default
PROPOSALS = 1000
#: regions for every mask head, as many boxes as COCO's evaluation looks at
DETECTIONS = 100
#: height and width of the image: COCO's (800 x 1333) padded to multiples of 32, and the crops that
#: segmentors are trained and published with
DETECTOR_SHAPE = (800, 1344)
SEGMENTOR_SHAPES = {'CityscapesDataset': (512, 1024), 'ADE20KDataset': (512, 512)}

WHOLE_IMAGE = ('rpn_head', 'bbox_head', 'semantic_head', 'decode_head')
PARTS = ('backbone', 'neck', *WHOLE_IMAGE, 'roi_head', 'auxiliary_head')
ROI_PARTS = ('bbox_head', 'mask_head', 'semantic_head')

Count = Callable[..., Any]


@dataclass(frozen=True)
class Complexity:
    """The size of a model.

    Attributes:
        shape: height and width of the image.
        params: number of parameters of each part, those of auxiliary heads too.
        macs: multiply-adds of each part for one image.
    """

    shape: tuple[int, int]
    params: Mapping[str, int]
    macs: Mapping[str, int]

    def summary(self) -> dict[str, dict[str, int]]:
        """Return the sums of the whole model, its backbone, its neck and its heads."""

        def sum_parts(parts: Mapping[str, int]) -> dict[str, int]:
            backbone, neck = parts.get('backbone', 0), parts.get('neck', 0)
            whole = sum(parts.values())
            return dict(whole=whole, backbone=backbone, neck=neck, heads=whole - backbone - neck)

        return dict(params=sum_parts(self.params), macs=sum_parts(self.macs))

    def counted_regions(self) -> dict[str, int]:
        """Return on how many regions each head that looks at regions was counted."""
        return {
            name: number
            for name, number in (
                ('roi_head.bbox_head', PROPOSALS),
                ('roi_head.mask_head', DETECTIONS),
            )
            if name in self.macs
        }


def complexity(
    config: str | os.PathLike | Config,
    *,
    arch: str | None = None,
    shape: tuple[int, int] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Complexity:
    """Count the parameters and multiply-adds of the model of a config.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest.
        arch: put this network into it, as ``train --arch``.
        shape: height and width of the image; by default 800 x 1344 for detectors, 512 x 1024 for
            segmentors on Cityscapes, 512 x 512 on ADE20K.
        options: settings to override, dotted names to values.

    Raises:
        UserError: the config cannot be used, has a part that is not known here, or is of a data set
            without a default shape and ``shape`` is not given.
    """
    cfg = configure(config, arch=arch, cfg_options=options)
    import_packages(cfg)
    height, width = shape or default_shape(cfg)
    with explain_build_errors(cfg):
        model = build_on_meta(cfg)
    name = name_of(cfg)
    params = count_parameters(model, name)
    try:
        macs = count_macs(
            model, torch.empty(1, input_channels(model), height, width, device='meta'), name
        )
    except RuntimeError as error:
        if shape is None:
            raise
        raise UserError(
            f'the model of {name} cannot take an image of {height} x {width}: {error}; '
            'give another --shape',
            code='option.value',
        ) from error
    return Complexity((height, width), params, macs)


def default_shape(cfg: Config) -> tuple[int, int]:
    """Return the height and width that models for a data set are compared at.

    Raises:
        UserError: a segmentor of another data set than Cityscapes and ADE20K.
    """
    if task_of(cfg) != 'semantic':
        return DETECTOR_SHAPE
    for name in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        loader = cfg.get(name)
        for leaf in dataset_configs(loader['dataset']) if loader else ():
            kind = str(leaf.get('type')).rpartition('.')[2]
            if kind in SEGMENTOR_SHAPES:
                return SEGMENTOR_SHAPES[kind]
    raise UserError(
        f'{name_of(cfg)} is for none of '
        f'{", ".join(SEGMENTOR_SHAPES)}, for which a size is fixed; give --shape',
        code='option.needed',
    )


def build_on_meta(cfg: Config) -> nn.Module:
    """Build the model of a config in evaluation mode, on the meta device."""
    replace_sync_norms(model_of(cfg))  # the same counts, and no warning about synchronizing
    with (
        warnings.catch_warnings(),
        torch.device('meta'),
        DefaultScope.overwrite_default_scope(cfg.default_scope),
    ):
        warnings.filterwarnings('ignore', module='mm(det|seg)')  # about losses, which are not run
        model = MODELS.build(model_of(cfg)).to('meta').eval()
    for name, module in list(model.named_modules()):
        if hasattr(module, 'conv_offset') and hasattr(module, 'deform_groups'):
            parent, _, child = name.rpartition('.')
            setattr(model.get_submodule(parent), child, PlainDeformConv(module))
    return model


class PlainDeformConv(nn.Module):
    """A deformable convolution as the plain one and its offsets, which are computed and not used.

    Args:
        conv: of mmcv, whose operator does not run on the meta device.
    """

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Return B C' H' W' of B C H W."""
        conv = self.conv
        conv.conv_offset(x)
        bias = getattr(conv, 'bias', None)
        return F.conv2d(x, conv.weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def input_channels(model: nn.Module) -> int:
    """Return the channels of the images that the backbone takes, by its first convolution."""
    return next(
        module.in_channels
        for module in model.get_submodule('backbone').modules()
        if isinstance(module, nn.Conv2d)
    )


def known_children(model: nn.Module, known: tuple[str, ...], name: str) -> dict[str, nn.Module]:
    """Return the children that have parameters, by name.

    Raises:
        UserError: one is not known here, and so would not be counted.
    """
    found = {
        part: child
        for part, child in model.named_children()
        if next(child.parameters(), None) is not None
    }
    for part, child in found.items():
        if part not in known:
            raise UserError(
                f'the model of {name} has a part {part} ({type(child).__name__}), and '
                f'how it is run is not known here; known: {", ".join(known)}',
                code='model.unknown-part',
            )
    return found


def count_parameters(model: nn.Module, name: str) -> dict[str, int]:
    """Return the number of parameters of every part."""
    found = known_children(model, PARTS, name)
    return {
        part: sum(parameter.numel() for parameter in found[part].parameters())
        for part in PARTS
        if part in found
    }


def count_macs(model: Any, image: Tensor, name: str) -> dict[str, int]:
    """Return the multiply-adds of every part for one image, also on the meta device."""
    macs: dict[str, int] = {}

    def count(part: str, module: Callable, *inputs: Any) -> Any:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            outputs = module(*inputs)
        macs[part] = macs.get(part, 0) + counter.get_total_flops() // 2
        return outputs

    found = known_children(model, PARTS, name)
    maps = count('backbone', model.backbone, image)
    if 'neck' in found:
        maps = count('neck', model.neck, maps)
    for part in WHOLE_IMAGE:
        if part in found:
            count(part, getattr(model, part), maps)
    if 'roi_head' in found:
        roi_head = model.roi_head
        found = known_children(roi_head, ROI_PARTS, name)
        if 'semantic_head' in found:
            count('roi_head.semantic_head', roi_head.semantic_head, maps)
        for head, regions in stack_stage_heads(roi_head, 'bbox', PROPOSALS, image.device):
            count('roi_head.bbox_head', head, regions)
        flow = getattr(roi_head, 'mask_info_flow', False)
        last: tuple = ()
        for head, regions in stack_stage_heads(roi_head, 'mask', DETECTIONS, image.device):
            outputs = count('roi_head.mask_head', head, regions, *last)
            last = (outputs[1],) if flow else ()  # HTC passes features to the next stage
    return macs


def stack_stage_heads(
    roi_head: Any, kind: str, number: int, device: torch.device
) -> Iterator[tuple[nn.Module, Tensor]]:
    """Yield the head of every stage with as many regions as it is counted on, N C h w."""
    heads, extractors = (
        getattr(roi_head, f'{kind}_{part}', None) or () for part in ('head', 'roi_extractor')
    )
    if isinstance(heads, nn.Module) and not isinstance(heads, nn.ModuleList):
        heads, extractors = [heads], [extractors]
    for head, extractor in zip(heads, extractors):
        size = next(
            layer.output_size for layer in extractor.modules() if hasattr(layer, 'output_size')
        )  # of its RoIAlign, h w
        yield head, torch.empty(number, extractor.out_channels, *size, device=device)
