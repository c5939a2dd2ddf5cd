"""Parameters and multiply-adds of a config's model, counted without weights, images or memory.

The model is built and run on torch's meta device, where a tensor has a shape and no values, under
torch's own counter of operations. What is counted is one image going through the model as in
testing:

* convolutions and matrix products; one multiply-add (MAC) is a multiplication and an addition, so
  it is two FLOPs. Norms, activations, biases, pooling, resizing, RoIAlign and NMS are left out;
* heads that look at the whole image (RPN, RetinaNet's, semantic ones) once;
* heads that look at regions on a fixed number of them, so that the figure does not hang on what a
  model happens to find: every box head on ``PROPOSALS`` regions, every mask head on ``DETECTIONS``;
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

from ..config.hardware import plain_norms
from ..config.inspect import dataset_leaves, model_of, register, task_of
from ..engine.prepare import configure
from ..engine.runner import building
from ..errors import UserError

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
    """What a model takes.

    Attributes:
        shape: height and width of the image.
        params: number of parameters of each part; heads in training only are among them.
        macs: multiply-adds of each part for one image.
    """

    shape: tuple[int, int]
    params: Mapping[str, int]
    macs: Mapping[str, int]

    def summary(self) -> dict[str, dict[str, int]]:
        """Of the whole model, its backbone, its neck and all its heads together."""

        def grouped(parts: Mapping[str, int]) -> dict[str, int]:
            backbone, neck = parts.get('backbone', 0), parts.get('neck', 0)
            whole = sum(parts.values())
            return dict(whole=whole, backbone=backbone, neck=neck, heads=whole - backbone - neck)

        return dict(params=grouped(self.params), macs=grouped(self.macs))

    def regions(self) -> dict[str, int]:
        """On how many regions the heads were counted that look at regions."""
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
    shape: tuple[int, int] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Complexity:
    """Counts the parameters and multiply-adds of the model of a config.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest.
        shape: height and width of the image; by default 800 x 1344 for detectors, 512 x 1024 for
            segmentors on Cityscapes, 512 x 512 on ADE20K.
        options: settings to override, dotted names to values.

    Raises:
        UserError: the config cannot be used, has a part that is not known here, or is of a data set
            without a default shape and ``shape`` is not given.
    """
    cfg = configure(config, options=options)
    register(cfg)
    height, width = shape or default_shape(cfg)
    with building(cfg):
        model = on_meta(cfg)
    name = cfg.filename or 'the config'
    params = parameters(model, name)
    try:
        macs = multiply_adds(
            model, torch.empty(1, channels_of(model), height, width, device='meta'), name
        )
    except RuntimeError as error:
        if shape is None:
            raise
        raise UserError(
            f'the model of {name} cannot take an image of {height} x {width}: {error}; '
            'give another --shape'
        ) from error
    return Complexity((height, width), params, macs)


def default_shape(cfg: Config) -> tuple[int, int]:
    """Height and width that the figures of a config's kind are given at.

    Raises:
        UserError: a segmentor of another data set than Cityscapes and ADE20K.
    """
    if task_of(cfg) != 'semantic':
        return DETECTOR_SHAPE
    for name in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        loader = cfg.get(name)
        for leaf in dataset_leaves(loader['dataset']) if loader else ():
            kind = str(leaf.get('type')).rpartition('.')[2]
            if kind in SEGMENTOR_SHAPES:
                return SEGMENTOR_SHAPES[kind]
    raise UserError(
        f'{cfg.filename or "the config"} is for none of '
        f'{", ".join(SEGMENTOR_SHAPES)}, for which a size is fixed; give --shape'
    )


def on_meta(cfg: Config) -> nn.Module:
    """The model of a config, in evaluation mode, all its tensors without values."""
    plain_norms(model_of(cfg))  # the same numbers, and nothing to say of synchronising
    with (
        warnings.catch_warnings(),
        torch.device('meta'),
        DefaultScope.overwrite_default_scope(cfg.default_scope),
    ):
        warnings.filterwarnings('ignore', module='mm(det|seg)')  # of losses, which are not run
        model = MODELS.build(model_of(cfg)).to('meta').eval()
    for module in model.modules():
        if hasattr(module, 'conv_offset') and hasattr(module, 'deform_groups'):
            module.forward = undeformed(module)
    return model


def undeformed(module: Any) -> Callable[[Tensor], Tensor]:
    """A deformable convolution's forward with the offsets made, and not used."""

    def forward(x: Tensor) -> Tensor:
        module.conv_offset(x)
        return F.conv2d(
            x,
            module.weight,
            getattr(module, 'bias', None),
            module.stride,
            module.padding,
            module.dilation,
            module.groups,
        )

    return forward


def channels_of(model: nn.Module) -> int:
    """Channels of the images that the backbone takes: those of its first convolution."""
    return next(
        module.in_channels
        for module in model.get_submodule('backbone').modules()
        if isinstance(module, nn.Conv2d)
    )


def parts_of(model: nn.Module, known: tuple[str, ...], name: str) -> dict[str, nn.Module]:
    """The children that hold parameters, by name.

    Raises:
        UserError: one is not known here, and so would be left out.
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
                f'how it is run is not known here; known: {", ".join(known)}'
            )
    return found


def parameters(model: nn.Module, name: str) -> dict[str, int]:
    """Number of parameters of every part."""
    found = parts_of(model, PARTS, name)
    return {
        part: sum(parameter.numel() for parameter in found[part].parameters())
        for part in PARTS
        if part in found
    }


def multiply_adds(model: Any, image: Tensor, name: str) -> dict[str, int]:
    """Multiply-adds of every part for one image; ``model`` and ``image`` may have values or not."""
    macs: dict[str, int] = {}

    def count(part: str, module: Callable, *inputs: Any) -> Any:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            outputs = module(*inputs)
        macs[part] = macs.get(part, 0) + counter.get_total_flops() // 2
        return outputs

    found = parts_of(model, PARTS, name)
    maps = count('backbone', model.backbone, image)
    if 'neck' in found:
        maps = count('neck', model.neck, maps)
    for part in WHOLE_IMAGE:
        if part in found:
            count(part, getattr(model, part), maps)
    if 'roi_head' in found:
        roi_head = model.roi_head
        found = parts_of(roi_head, ROI_PARTS, name)
        if 'semantic_head' in found:
            count('roi_head.semantic_head', roi_head.semantic_head, maps)
        for head, regions in staged(roi_head, 'bbox', PROPOSALS, image.device):
            count('roi_head.bbox_head', head, regions)
        flow = getattr(roi_head, 'mask_info_flow', False)
        last: tuple = ()
        for head, regions in staged(roi_head, 'mask', DETECTIONS, image.device):
            outputs = count('roi_head.mask_head', head, regions, *last)
            last = (outputs[1],) if flow else ()  # HTC: features handed on to the next stage
    return macs


def staged(
    roi_head: Any, kind: str, number: int, device: torch.device
) -> Iterator[tuple[nn.Module, Tensor]]:
    """Every stage's head with as many regions as it is to be counted on, N C h w."""
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
