"""The graphs of exported files: what they compute, as functions of tensors alone.

    FeatureGraph        x B 3 H W, normalized           -> the maps of backbone or neck
    SegmentorGraph      image B 3 H W, size B 2         -> logits B C H W, labels B H W
    DetectorGraph       image B 3 H W, size B 2         -> boxes B K 4, scores B K, labels B K,
                                                           and of some masks B K M M

``image`` is RGB, 8 bits, of which ``size`` (height, width) at the top left is the image and the
rest padding, as in mmdet's batches. Layers and weights are those of mmdet and mmseg. Where these
handle lists of images and objects, the graphs have tensors of a fixed number of rows; rows without
an object have the score 0 and the label -1.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..deploy import fold
from ..errors import UserError
from .dense_heads import AnchorHead, DenseHead, ProposalHead
from .head_utils import overrides_prediction, unsupported_error
from .operators import NATIVE, DetectionOperators
from .roi_heads import RoIHead


class FeatureGraph(nn.Module):
    """Compute the maps of a backbone, or of the neck behind it.

    Args:
        model: the detector or segmentor, whose layers are converted to ``dtype``.
        part: ``backbone`` or ``neck``.
        dtype: of the computation.

    Raises:
        UserError: the model has no neck.
    """

    def __init__(self, model: Any, part: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.backbone = model.backbone.to(dtype)
        self.neck = None
        if part == 'neck':
            if not getattr(model, 'with_neck', False):
                raise UserError(
                    'the model has no neck; export --part backbone, or model',
                    code='option.conflict',
                )
            self.neck = model.neck.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return maps B C_i H_i W_i, in float32, of images B 3 H W."""
        maps = self.backbone(x.to(self.dtype))
        if self.neck is not None:
            maps = self.neck(maps)
        return tuple(one.float() for one in maps)


class InputNormalizer(nn.Module):
    """Normalize a batch as the data preprocessors of mmdet and mmseg do.

    Args:
        preprocessor: the model's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessor: Any) -> None:
        super().__init__()
        enabled = bool(getattr(preprocessor, '_enable_normalize', False))
        mean = preprocessor.mean.flatten() if enabled else torch.zeros(3)
        std = preprocessor.std.flatten() if enabled else torch.ones(3)
        self.register_buffer('mean', mean.float().view(1, -1, 1, 1).clone())
        self.register_buffer('std', std.float().view(1, -1, 1, 1).clone())
        # The pipelines load BGR, the file is given RGB.
        self.flips = not getattr(
            preprocessor, '_channel_conversion', getattr(preprocessor, 'channel_conversion', False)
        )
        self.fill = float(getattr(preprocessor, 'pad_value', getattr(preprocessor, 'pad_val', 0)))

    def forward(self, image: Tensor, size: Tensor) -> Tensor:
        """Return normalized images B 3 H W, of images of 8 bits and their sizes B 2."""
        x = image.flip(1) if self.flips else image
        x = (x.float() - self.mean) / self.std  # B 3 H W
        rows = torch.arange(x.shape[2], device=x.device) < size[:, :1]  # B H
        columns = torch.arange(x.shape[3], device=x.device) < size[:, 1:]  # B W
        inside = (rows[:, :, None] & columns[:, None, :])[:, None]  # B 1 H W
        return torch.where(inside, x, self.fill)


class SegmentorGraph(nn.Module):
    """Segment images by a model of mmseg; of one that slides a window, the window.

    Args:
        model: an ``EncoderDecoder``.
        dtype: of the computation.

    Raises:
        UserError: the model is another one, or has one channel for two classes.
    """

    outputs = ('logits', 'labels')

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        super().__init__()
        if type(model).__name__ != 'EncoderDecoder':
            raise unsupported_error(model, 'EncoderDecoder')
        if model.out_channels == 1:
            raise UserError(
                'the segmentor has one channel for two classes; export --part backbone '
                'or neck, or train it with out_channels=2',
                code='export.unknown-part',
            )
        if overrides_prediction(
            model.decode_head,
            'mmseg.models.decode_heads.decode_head',
            'BaseDecodeHead',
            ('predict', 'predict_by_feat'),
        ):
            raise unsupported_error(model.decode_head, 'heads that predict as BaseDecodeHead does')
        self.normalizer = InputNormalizer(model.data_preprocessor)
        self.features = FeatureGraph(model, 'neck' if model.with_neck else 'backbone', dtype)
        self.head, self.dtype = model.decode_head.to(dtype), dtype

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits B C H W and labels B H W of images B 3 H W and sizes B 2."""
        maps = self.features(self.normalizer(image, size))
        logits = self.head(tuple(one.to(self.dtype) for one in maps))
        if not isinstance(logits, Tensor):
            raise unsupported_error(self.head, 'heads that give one map')
        logits = F.interpolate(
            logits.float(),
            size=image.shape[2:],
            mode='bilinear',
            align_corners=self.head.align_corners,
        )
        return logits, logits.argmax(1)


class DetectorGraph(nn.Module):
    """Detect objects by a model of mmdet: one stage with anchors, or RoI heads behind an RPN.

    Args:
        model: the detector.
        dtype: of the computation; boxes are in float32.
        operators: of NMS and RoIAlign.

    Raises:
        UserError: the model has a part that is not known here.
    """

    def __init__(self, model: Any, dtype: torch.dtype, operators: DetectionOperators) -> None:
        super().__init__()
        self.normalizer = InputNormalizer(model.data_preprocessor)
        self.features = FeatureGraph(model, 'neck' if model.with_neck else 'backbone', dtype)
        self.dense: AnchorHead
        self.rois: RoIHead | None = None
        self.outputs: tuple[str, ...] = ('boxes', 'scores', 'labels')
        roi_head = getattr(model, 'roi_head', None)
        if roi_head is None:
            if not hasattr(model, 'bbox_head'):
                raise unsupported_error(
                    model, 'a detector of one stage with anchors, or of two with RoIs'
                )
            self.dense = DenseHead(model.bbox_head, dtype, operators)
        else:
            if type(model).__name__ not in (
                'FasterRCNN',
                'MaskRCNN',
                'CascadeRCNN',
                'TwoStageDetector',
            ):
                raise unsupported_error(model, 'FasterRCNN, MaskRCNN, CascadeRCNN')
            self.dense = ProposalHead(model.rpn_head, dtype, operators)
            self.rois = RoIHead(roi_head, dtype, operators)
            if self.rois.with_mask:
                self.outputs += ('masks',)
        last: Any = self.rois or self.dense
        self.score_thr, self.max_per_img = float(last.score_thr), int(last.max_per_img)

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """Return boxes B K 4, scores B K, labels B K (and masks B K M M) of images and sizes."""
        maps = self.features(self.normalizer(image, size))
        found = self.dense(maps, size)
        return found if self.rois is None else self.rois(maps, *found, size)


def build_graph(model: nn.Module, part: str, dtype: torch.dtype) -> nn.Module:
    """Return the graph of a model on a copy of its weights, norms folded.

    Args:
        model: a detector or segmentor in evaluation, in its definition.
        part: ``model``, ``neck`` or ``backbone``.
        dtype: of the computation.

    Raises:
        UserError: the model has a part that cannot be exported.
    """
    refuse_deformable(model)
    return graph_on(fold(copy.deepcopy(model)), part, dtype)


def refuse_deformable(model: nn.Module) -> None:
    """Raise ``UserError`` where a model has what not all runtimes have."""
    deformable = sorted(
        {type(module).__name__ for module in model.modules() if hasattr(module, 'conv_offset')}
    )
    if deformable:
        raise UserError(
            f'the model has deformable convolutions ({", ".join(deformable)}), which '
            'the runtimes do not all have; export one without',
            code='export.unknown-part',
        )


def graph_on(model: nn.Module, part: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the graph on the layers of a model itself; see :func:`build_graph`."""
    graph: nn.Module
    if part != 'model':
        graph = FeatureGraph(model, part, dtype)
    elif hasattr(model, 'decode_head'):
        graph = SegmentorGraph(model, dtype)
    else:
        graph = DetectorGraph(model, dtype, NATIVE)
    return graph.eval().requires_grad_(False)
