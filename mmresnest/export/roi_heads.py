"""RoI heads as functions of tensors: boxes, classes and masks of proposals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .head_utils import (
    DeltaXYWHCoder,
    max_per_img,
    nms_iou_threshold,
    overrides_prediction,
    topk_by_score,
    unsupported_error,
)
from .operators import DetectionOperators


class RoIHead(nn.Module):
    """Classify and refine proposals: Fast R-CNN's stage, or those of Cascade R-CNN (Cai, 2018).

    Args:
        head: a ``StandardRoIHead`` or a ``CascadeRoIHead``.
        dtype: of the computation.
        operators: of NMS and RoIAlign.
    """

    def __init__(self, head: Any, dtype: torch.dtype, operators: DetectionOperators) -> None:
        super().__init__()
        if type(head).__name__ not in ('StandardRoIHead', 'CascadeRoIHead') or getattr(
            head, 'with_shared_head', False
        ):
            raise unsupported_error(
                head, 'StandardRoIHead and CascadeRoIHead without a shared head'
            )
        stages, extractors = _as_list(head.bbox_head), _as_list(head.bbox_roi_extractor)
        for stage in stages:
            _check_box_head(stage)
        self.stages = nn.ModuleList(stages).to(dtype)
        self.extractors = nn.ModuleList([RoIExtractor(one, dtype, operators) for one in extractors])
        self.coders = nn.ModuleList([DeltaXYWHCoder(stage.bbox_coder) for stage in stages])
        self.with_mask = bool(head.with_mask)
        self.masks = MaskHeads(head, dtype, operators) if self.with_mask else None
        settings = head.test_cfg
        self.score_thr, self.max_per_img = float(settings['score_thr']), max_per_img(settings)
        self.iou_threshold, self.operators = nms_iou_threshold(settings), operators

    def forward(
        self, maps: Sequence[Tensor], boxes: Tensor, scores: Tensor, size: Tensor
    ) -> tuple[Tensor, ...]:
        """Return boxes B K 4, scores B K, labels B K (and masks) of proposals B N 4, B N."""
        is_proposal = scores > 0
        logits: Any = 0.0
        for number, coder in enumerate(self.coders):
            stage_logits, deltas = self._run_stage(number, maps, boxes)
            logits = logits + stage_logits
            if number < len(self.stages) - 1:
                boxes = coder(boxes, _deltas_of_best_class(stage_logits, deltas), size)
        probabilities = (logits / len(self.stages)).softmax(2)[:, :, :-1]  # B N C
        is_object = (probabilities > self.score_thr) & is_proposal[:, :, None]
        probabilities = torch.where(is_object, probabilities, 0.0)
        decoded = self.coders[-1](boxes[:, :, None], deltas, size[:, None])  # B N C 4, or B N 1 4
        found = self._suppress_per_class(decoded, probabilities)
        if self.masks is None:
            return found
        return (*found, self.masks(maps, found[0], found[2]))

    def _run_stage(
        self, number: int, maps: Sequence[Tensor], boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return logits B N C+1 and deltas B N C 4 (B N 1 4 where all classes share a box)."""
        logits, deltas = self.stages[number](self.extractors[number](maps, boxes))
        logits = logits.float().unflatten(0, boxes.shape[:2])
        return logits, deltas.float().view(boxes.shape[0], boxes.shape[1], -1, 4)

    def _suppress_per_class(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
        """Return the best objects after NMS of each class, of boxes B N C 4 and scores B N C."""
        batch, number, classes = scores.shape
        boxes = boxes.expand(-1, -1, classes, -1)
        rows = boxes.transpose(1, 2).reshape(batch * classes, number, 4)
        row_scores = scores.transpose(1, 2).reshape(batch * classes, number)
        keep = self.operators.nms_keep(rows, row_scores, self.iou_threshold)
        kept = torch.where(keep, row_scores, 0.0).reshape(batch, classes * number)
        labels = torch.arange(classes, device=kept.device)[None, :, None]
        labels = labels.expand(batch, classes, number).reshape(batch, -1)
        return topk_by_score(rows.reshape(batch, -1, 4), kept, self.max_per_img, labels)


class MaskHeads(nn.Module):
    """Predict Mask R-CNN's masks (He et al., 2017); of a cascade their average.

    Args:
        head: the RoI head.
        dtype: of the computation.
        operators: of RoIAlign.
    """

    def __init__(self, head: Any, dtype: torch.dtype, operators: DetectionOperators) -> None:
        super().__init__()
        heads, extractors = _as_list(head.mask_head), _as_list(head.mask_roi_extractor)
        for one in heads:
            if type(one).__name__ != 'FCNMaskHead':
                raise unsupported_error(one, 'FCNMaskHead')
        self.heads = nn.ModuleList(heads).to(dtype)
        self.extractors = nn.ModuleList([RoIExtractor(one, dtype, operators) for one in extractors])
        self.threshold = float(head.test_cfg['mask_thr_binary'])
        if self.threshold < 0:
            raise UserError(
                'mask_thr_binary is below 0, which asks for masks of probabilities, and '
                'exported files give binary ones; set it, to 0.5 as is usual',
                code='export.unknown-part',
            )

    def forward(self, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Return probabilities B K M M, each in its box, from maps, boxes B K 4 and labels B K."""
        total: Any = 0.0
        for head, extractor in zip(self.heads, self.extractors):
            masks = head(extractor(maps, boxes)).float().sigmoid()  # BK C M M
            channel = labels.clamp(min=0) if masks.shape[1] > 1 else torch.zeros_like(labels)
            channel = channel.reshape(-1)[:, None, None, None].expand(-1, 1, *masks.shape[2:])
            total = total + masks.gather(1, channel)[:, 0]
        return (total / len(self.heads)).unflatten(0, labels.shape)


class RoIExtractor(nn.Module):
    """Pool each RoI on the pyramid level that suits its size (Lin et al., FPN, 2017, eq. 1).

    Args:
        extractor: a ``SingleRoIExtractor``.
        dtype: of the computation.
        operators: of RoIAlign.
    """

    def __init__(self, extractor: Any, dtype: torch.dtype, operators: DetectionOperators) -> None:
        super().__init__()
        extractor = getattr(extractor, 'extractor', extractor)  # of mmresnest.ScaledGradient
        layers: Any = getattr(extractor, 'roi_layers', ())
        if type(extractor).__name__ != 'SingleRoIExtractor' or any(
            type(layer).__name__ != 'RoIAlign'
            or layer.pool_mode != 'avg'
            or not layer.aligned
            or len(set(layer.output_size)) > 1
            for layer in layers
        ):
            raise unsupported_error(
                extractor, 'SingleRoIExtractor with square, aligned, averaging RoIAlign'
            )
        self.scales = [float(layer.spatial_scale) for layer in layers]
        self.ratio = int(layers[0].sampling_ratio)
        self.bins = int(layers[0].output_size[0])
        self.finest, self.dtype, self.operators = float(extractor.finest_scale), dtype, operators

    def forward(self, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """Return features BN C bins bins of boxes B N 4."""
        batch, number = boxes.shape[:2]
        image = torch.arange(batch, device=boxes.device, dtype=boxes.dtype).view(-1, 1, 1)
        rois = torch.cat([image.expand(-1, number, 1), boxes], 2).view(-1, 5)
        area = (rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])
        level = torch.floor(torch.log2(area.sqrt() / self.finest + 1e-6))
        level = level.clamp(0, len(self.scales) - 1).to(torch.int64)
        return self.operators.roi_align_levels(
            list(maps[: len(self.scales)]), rois, level, self.scales, self.bins, self.ratio
        ).to(self.dtype)


def _deltas_of_best_class(logits: Tensor, deltas: Tensor) -> Tensor:
    """Return deltas B N 4 of the best class, of logits B N C+1 and deltas B N C 4 or B N 1 4."""
    if deltas.shape[2] == 1:
        return deltas[:, :, 0]
    best = logits[:, :, :-1].argmax(2)[:, :, None, None].expand(-1, -1, 1, 4)
    return deltas.gather(2, best)[:, :, 0]


def _as_list(modules: Any) -> list[Any]:
    """Return the modules of a cascade, or the only one of a plain head."""
    return list(modules) if isinstance(modules, (list, nn.ModuleList)) else [modules]


def _check_box_head(head: Any) -> None:
    """Refuse a head that does not predict as mmdet's ``BBoxHead``."""
    changed = overrides_prediction(
        head,
        'mmdet.models.roi_heads.bbox_heads',
        'BBoxHead',
        ('predict_by_feat', '_predict_by_feat_single'),
    )
    whole = head.with_cls and head.with_reg
    if changed or getattr(head, 'custom_activation', False) or not whole:
        raise unsupported_error(head, 'heads that predict as BBoxHead does')
