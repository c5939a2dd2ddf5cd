"""Dense heads with anchors as functions of tensors: RPN, and the heads of one-stage detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
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


class AnchorHead(nn.Module):
    """Score and move anchors: what the two kinds of dense heads share.

    Args:
        head: of mmdet.
        settings: its ``test_cfg``.
        dtype: of the computation.
        operators: of NMS.
    """

    def __init__(
        self, head: Any, settings: Mapping, dtype: torch.dtype, operators: DetectionOperators
    ) -> None:
        super().__init__()
        generator = head.prior_generator
        if type(generator).__name__ not in ('AnchorGenerator', 'SSDAnchorGenerator'):
            raise unsupported_error(generator, 'AnchorGenerator')
        self.head, self.dtype, self.operators = head.to(dtype), dtype, operators
        self.strides = [tuple(map(float, stride)) for stride in generator.strides]
        self.anchors = nn.ParameterList(
            [
                nn.Parameter(base.detach().float().clone(), requires_grad=False)
                for base in generator.base_anchors
            ]
        )
        self.coder = DeltaXYWHCoder(head.bbox_coder)
        self.score_thr, self.max_per_img = 0.0, max_per_img(settings)
        self.nms_pre = int(settings.get('nms_pre', -1))
        self.min_bbox_size = float(settings.get('min_bbox_size', -1))
        self.iou_threshold = nms_iou_threshold(settings)
        if self.nms_pre <= 0:
            raise UserError(
                'the test_cfg of a head has no nms_pre, so that the number of candidates '
                'depends on the image; set it, to 1000 as is usual',
                code='export.unknown-part',
            )

    def level_outputs(self, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return of each level: scores B N C, deltas B N 4 and anchors N 4."""
        result = []
        found = self.head(tuple(one.to(self.dtype) for one in maps))
        if len(found) != 2:
            raise unsupported_error(self.head, 'heads that give scores and deltas')
        scores, deltas = found
        for score, delta, base, stride in zip(scores, deltas, self.anchors, self.strides):
            batch, height, width = score.shape[0], score.shape[2], score.shape[3]
            score = score.float().permute(0, 2, 3, 1).reshape(batch, -1, self.head.cls_out_channels)
            score = score.sigmoid() if self.head.use_sigmoid_cls else score.softmax(2)[:, :, :-1]
            delta = delta.float().permute(0, 2, 3, 1).reshape(batch, -1, 4)
            x = torch.arange(width, device=score.device, dtype=torch.float32) * stride[0]
            y = torch.arange(height, device=score.device, dtype=torch.float32) * stride[1]
            x, y = x[None, :].expand(height, width), y[:, None].expand(height, width)
            grid = torch.stack([x, y, x, y], 2)[:, :, None]  # H W 1 4
            result.append((score, delta, (grid + base).reshape(-1, 4)))
        return result

    def topk_candidates(self, score: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best ``nms_pre`` of scores B N, always so many: scores B M, indices B M.

        Where there are fewer, the last index stands in, with the score 0.
        """
        padded = F.pad(score, (0, self.nms_pre))
        best, index = padded.topk(self.nms_pre, 1)
        return best, index.clamp(max=score.shape[1] - 1)

    def decode_boxes(
        self, anchors: Tensor, deltas: Tensor, index: Tensor, scores: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return boxes B M 4 of the candidates, and their scores, 0 where the box is too small."""
        chosen = deltas.gather(1, index[:, :, None].expand(-1, -1, 4))
        boxes = self.coder(anchors[index], chosen, size)
        if self.min_bbox_size >= 0:
            sides = boxes[:, :, 2:] - boxes[:, :, :2]
            scores = torch.where((sides > self.min_bbox_size).all(2), scores, 0.0)
        return boxes, scores


class ProposalHead(AnchorHead):
    """Find proposals by an RPN (Ren et al., Faster R-CNN, 2015).

    Args:
        head: an ``RPNHead``.
        dtype: of the computation.
        operators: of NMS.
    """

    def __init__(self, head: Any, dtype: torch.dtype, operators: DetectionOperators) -> None:
        if type(head).__name__ != 'RPNHead':
            raise unsupported_error(head, 'RPNHead')
        super().__init__(head, head.test_cfg, dtype, operators)

    def forward(self, maps: Sequence[Tensor], size: Tensor) -> tuple[Tensor, ...]:
        """Return boxes B K 4 and their scores B K from the maps; 0 where there is none."""
        boxes, scores = [], []
        for score, deltas, anchors in self.level_outputs(maps):
            best, index = self.topk_candidates(score[:, :, 0])
            found, best = self.decode_boxes(anchors, deltas, index, best, size)
            # NMS looks at each level separately.
            keep = self.operators.nms_keep(found, best, self.iou_threshold)
            boxes.append(found)
            scores.append(torch.where(keep, best, 0.0))
        return topk_by_score(torch.cat(boxes, 1), torch.cat(scores, 1), self.max_per_img)


class DenseHead(AnchorHead):
    """Find objects by the head of a one-stage detector, such as RetinaNet's (Lin et al., 2017).

    Args:
        head: whose prediction is that of mmdet's ``BaseDenseHead``.
        dtype: of the computation.
        operators: of NMS.
    """

    def __init__(self, head: Any, dtype: torch.dtype, operators: DetectionOperators) -> None:
        changed = overrides_prediction(
            head,
            'mmdet.models.dense_heads.base_dense_head',
            'BaseDenseHead',
            ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process'),
        )
        if (
            changed
            or not hasattr(head, 'prior_generator')
            or getattr(head.loss_cls, 'custom_cls_channels', False)
        ):
            raise unsupported_error(
                head, 'heads with anchors and without centerness, such as RetinaHead'
            )
        super().__init__(head, head.test_cfg, dtype, operators)
        if self.min_bbox_size > 0:
            raise UserError(
                f'min_bbox_size={self.min_bbox_size:g} is in pixels of the picture, whose '
                'size a file does not know; set it to 0',
                code='export.unknown-part',
            )
        self.score_thr = float(head.test_cfg.get('score_thr', 0))

    def forward(self, maps: Sequence[Tensor], size: Tensor) -> tuple[Tensor, ...]:
        """Return boxes B K 4, scores B K and labels B K from the maps."""
        boxes, scores, labels = [], [], []
        for score, deltas, anchors in self.level_outputs(maps):
            classes = score.shape[2]
            score = torch.where(score > self.score_thr, score, 0.0)
            best, index = self.topk_candidates(score.reshape(score.shape[0], -1))
            anchor = torch.div(index, classes, rounding_mode='floor')
            found, best = self.decode_boxes(anchors, deltas, anchor, best, size)
            boxes.append(found)
            scores.append(best)
            labels.append(index % classes)
        box, score, label = torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(labels, 1)
        # So that boxes of one class do not suppress those of another, each is moved elsewhere.
        offset = label[:, :, None] * (box.amax((1, 2), keepdim=True) + 1)
        keep = self.operators.nms_keep(box + offset, score, self.iou_threshold)
        return topk_by_score(box, torch.where(keep, score, 0.0), self.max_per_img, label)
