"""What an exported file computes, as functions of tensors alone.

    FeatureGraph        x B 3 H W, normalised           -> the maps of backbone or neck
    SegmentorGraph      image B 3 H W, size B 2         -> logits B C H W, labels B H W
    DetectorGraph       image B 3 H W, size B 2         -> boxes B K 4, scores B K, labels B K,
                                                           and of some masks B K M M

``image`` is RGB, 8 bits; of each image only the ``size`` (height, width) at its top left is one,
the rest is padding, as in mmdet's batches. Layers and weights are those of mmdet and mmseg; what
these do with lists of images and objects is said here with tensors of a fixed number of rows, of
which those that are none have the score 0 and the label -1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from .operators import Kernels


class FeatureGraph(nn.Module):
    """The maps of a backbone, or of the neck behind it.

    Args:
        model: the detector or segmentor; its layers become of this type, here as below.
        part: ``backbone`` or ``neck``.
        dtype: that is computed in.

    Raises:
        UserError: the model has no neck.
    """

    def __init__(self, model: Any, part: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.backbone = model.backbone.to(dtype)
        self.neck = None
        if part == 'neck':
            if not getattr(model, 'with_neck', False):
                raise UserError('the model has no neck; export --part backbone, or whole')
            self.neck = model.neck.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """B 3 H W -> maps B C_i H_i W_i, in float32."""
        maps = self.backbone(x.to(self.dtype))
        if self.neck is not None:
            maps = self.neck(maps)
        return tuple(one.float() for one in maps)


class Normalise(nn.Module):
    """What the data preprocessors of mmdet and mmseg do to a batch.

    Args:
        preprocessor: the model's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessor: Any) -> None:
        super().__init__()
        plain = bool(getattr(preprocessor, '_enable_normalize', False))
        mean = preprocessor.mean.flatten() if plain else torch.zeros(3)
        std = preprocessor.std.flatten() if plain else torch.ones(3)
        self.register_buffer('mean', mean.float().view(1, -1, 1, 1).clone())
        self.register_buffer('std', std.float().view(1, -1, 1, 1).clone())
        # The pipelines load BGR, the file is given RGB.
        self.flips = not getattr(
            preprocessor, '_channel_conversion', getattr(preprocessor, 'channel_conversion', False)
        )
        self.fill = float(getattr(preprocessor, 'pad_value', getattr(preprocessor, 'pad_val', 0)))

    def forward(self, image: Tensor, size: Tensor) -> Tensor:
        """B 3 H W of 8 bits, B 2 -> B 3 H W."""
        x = image.flip(1) if self.flips else image
        x = (x.float() - self.mean) / self.std  # B 3 H W
        rows = torch.arange(x.shape[2], device=x.device) < size[:, :1]  # B H
        columns = torch.arange(x.shape[3], device=x.device) < size[:, 1:]  # B W
        inside = (rows[:, :, None] & columns[:, None, :])[:, None]  # B 1 H W
        return torch.where(inside, x, self.fill)


class SegmentorGraph(nn.Module):
    """A segmentor of mmseg; of one that slides a window, the window.

    Args:
        model: an ``EncoderDecoder``.
        dtype: that is computed in.

    Raises:
        UserError: the model is another one, or has one channel for two classes.
    """

    outputs = ('logits', 'labels')

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        super().__init__()
        if type(model).__name__ != 'EncoderDecoder':
            raise _unknown(model, 'EncoderDecoder')
        if model.out_channels == 1:
            raise UserError(
                'the segmentor has one channel for two classes; export --part backbone '
                'or neck, or train it with out_channels=2'
            )
        if predicts_otherwise(
            model.decode_head,
            'mmseg.models.decode_heads.decode_head',
            'BaseDecodeHead',
            ('predict', 'predict_by_feat'),
        ):
            raise _unknown(model.decode_head, 'heads that predict as BaseDecodeHead does')
        self.normalise = Normalise(model.data_preprocessor)
        self.features = FeatureGraph(model, 'neck' if model.with_neck else 'backbone', dtype)
        self.head, self.dtype = model.decode_head.to(dtype), dtype

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """B 3 H W of 8 bits, B 2 -> B C H W, B H W."""
        maps = self.features(self.normalise(image, size))
        logits = self.head(tuple(one.to(self.dtype) for one in maps))
        if not isinstance(logits, Tensor):
            raise _unknown(self.head, 'heads that give one map')
        logits = F.interpolate(
            logits.float(),
            size=image.shape[2:],
            mode='bilinear',
            align_corners=self.head.align_corners,
        )
        return logits, logits.argmax(1)


class DetectorGraph(nn.Module):
    """A detector of mmdet with anchors: of one stage, or with RoI heads behind an RPN.

    Args:
        model: the detector.
        dtype: that is computed in; boxes are in float32.
        kernels: how objects are thinned out and RoIs pooled.

    Raises:
        UserError: the model has a part that is not known here.
    """

    def __init__(self, model: Any, dtype: torch.dtype, kernels: Kernels) -> None:
        super().__init__()
        self.normalise = Normalise(model.data_preprocessor)
        self.features = FeatureGraph(model, 'neck' if model.with_neck else 'backbone', dtype)
        self.dense: Anchored
        self.rois: RoIHead | None = None
        self.outputs: tuple[str, ...] = ('boxes', 'scores', 'labels')
        roi_head = getattr(model, 'roi_head', None)
        if roi_head is None:
            if not hasattr(model, 'bbox_head'):
                raise _unknown(model, 'a detector of one stage with anchors, or of two with RoIs')
            self.dense = DenseHead(model.bbox_head, dtype, kernels)
        else:
            if type(model).__name__ not in (
                'FasterRCNN',
                'MaskRCNN',
                'CascadeRCNN',
                'TwoStageDetector',
            ):
                raise _unknown(model, 'FasterRCNN, MaskRCNN, CascadeRCNN')
            self.dense = Proposals(model.rpn_head, dtype, kernels)
            self.rois = RoIHead(roi_head, dtype, kernels)
            if self.rois.with_mask:
                self.outputs += ('masks',)
        last: Any = self.rois or self.dense
        self.lowest, self.most = float(last.lowest), int(last.most)

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """B 3 H W of 8 bits, B 2 -> B K 4, B K, B K (, B K M M)."""
        maps = self.features(self.normalise(image, size))
        found = self.dense(maps, size)
        return found if self.rois is None else self.rois(maps, *found, size)


# ---- dense heads ---------------------------------------------------------------------------------


class Anchored(nn.Module):
    """A head that scores and shifts anchors, and what its two uses share.

    Args:
        head: of mmdet.
        settings: its ``test_cfg``.
        dtype: that is computed in.
        kernels: how objects are thinned out.
    """

    def __init__(self, head: Any, settings: Mapping, dtype: torch.dtype, kernels: Kernels) -> None:
        super().__init__()
        generator = head.prior_generator
        if type(generator).__name__ not in ('AnchorGenerator', 'SSDAnchorGenerator'):
            raise _unknown(generator, 'AnchorGenerator')
        self.head, self.dtype, self.kernels = head.to(dtype), dtype, kernels
        self.strides = [tuple(map(float, stride)) for stride in generator.strides]
        self.anchors = nn.ParameterList(
            [
                nn.Parameter(base.detach().float().clone(), requires_grad=False)
                for base in generator.base_anchors
            ]
        )
        self.coder = Coder(head.bbox_coder)
        self.lowest, self.most = 0.0, most_of(settings)
        self.before = int(settings.get('nms_pre', -1))
        self.smallest = float(settings.get('min_bbox_size', -1))
        self.overlap = overlap_of(settings)
        if self.before <= 0:
            raise UserError(
                'the test_cfg of a head has no nms_pre, and so a number of candidates '
                'that depends on the image; set it, to 1000 as is usual'
            )

    def levels(self, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of each level: scores B N C, shifts B N 4 and anchors N 4."""
        result = []
        found = self.head(tuple(one.to(self.dtype) for one in maps))
        if len(found) != 2:
            raise _unknown(self.head, 'heads that give scores and shifts')
        scores, shifts = found
        for score, shift, base, stride in zip(scores, shifts, self.anchors, self.strides):
            batch, height, width = score.shape[0], score.shape[2], score.shape[3]
            score = score.float().permute(0, 2, 3, 1).reshape(batch, -1, self.head.cls_out_channels)
            score = score.sigmoid() if self.head.use_sigmoid_cls else score.softmax(2)[:, :, :-1]
            shift = shift.float().permute(0, 2, 3, 1).reshape(batch, -1, 4)
            x = torch.arange(width, device=score.device, dtype=torch.float32) * stride[0]
            y = torch.arange(height, device=score.device, dtype=torch.float32) * stride[1]
            x, y = x[None, :].expand(height, width), y[:, None].expand(height, width)
            grid = torch.stack([x, y, x, y], 2)[:, :, None]  # H W 1 4
            result.append((score, shift, (grid + base).reshape(-1, 4)))
        return result

    def candidates(self, score: Tensor) -> tuple[Tensor, Tensor]:
        """The best ``before`` of B N, always so many: B M scores, and their places.

        Where there are fewer, the last place stands in, with the score 0.
        """
        padded = F.pad(score, (0, self.before))
        best, at = padded.topk(self.before, 1)
        return best, at.clamp(max=score.shape[1] - 1)

    def boxes(
        self, anchors: Tensor, shifts: Tensor, at: Tensor, scores: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """B M 4 boxes of the candidates, and their scores, 0 where the box is too small."""
        chosen = shifts.gather(1, at[:, :, None].expand(-1, -1, 4))
        boxes = self.coder(anchors[at], chosen, size)
        if self.smallest >= 0:
            sides = boxes[:, :, 2:] - boxes[:, :, :2]
            scores = torch.where((sides > self.smallest).all(2), scores, 0.0)
        return boxes, scores


class Proposals(Anchored):
    """An RPN (Ren et al., Faster R-CNN, 2015).

    Args:
        head: an ``RPNHead``.
        dtype: that is computed in.
        kernels: how objects are thinned out.
    """

    def __init__(self, head: Any, dtype: torch.dtype, kernels: Kernels) -> None:
        if type(head).__name__ != 'RPNHead':
            raise _unknown(head, 'RPNHead')
        super().__init__(head, head.test_cfg, dtype, kernels)

    def forward(self, maps: Sequence[Tensor], size: Tensor) -> tuple[Tensor, ...]:
        """Maps -> boxes B K 4 and their scores B K; 0 where there is none."""
        boxes, scores = [], []
        for score, shifts, anchors in self.levels(maps):
            best, at = self.candidates(score[:, :, 0])
            found, best = self.boxes(anchors, shifts, at, best, size)
            # Each level is thinned out for itself.
            keep = self.kernels.keep(found, best, self.overlap)
            boxes.append(found)
            scores.append(torch.where(keep, best, 0.0))
        return top(torch.cat(boxes, 1), torch.cat(scores, 1), self.most)


class DenseHead(Anchored):
    """The head of a detector of one stage, such as RetinaNet's (Lin et al., 2017).

    Args:
        head: whose prediction is that of mmdet's ``BaseDenseHead``.
        dtype: that is computed in.
        kernels: how objects are thinned out.
    """

    def __init__(self, head: Any, dtype: torch.dtype, kernels: Kernels) -> None:
        ours = predicts_otherwise(
            head,
            'mmdet.models.dense_heads.base_dense_head',
            'BaseDenseHead',
            ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process'),
        )
        if (
            ours
            or not hasattr(head, 'prior_generator')
            or getattr(head.loss_cls, 'custom_cls_channels', False)
        ):
            raise _unknown(head, 'heads with anchors and without centerness, such as RetinaHead')
        super().__init__(head, head.test_cfg, dtype, kernels)
        if self.smallest > 0:
            raise UserError(
                f'min_bbox_size={self.smallest:g} is in pixels of the picture, whose '
                'size a file does not know; set it to 0'
            )
        self.lowest = float(head.test_cfg.get('score_thr', 0))

    def forward(self, maps: Sequence[Tensor], size: Tensor) -> tuple[Tensor, ...]:
        """Maps -> boxes B K 4, scores B K, labels B K."""
        boxes, scores, labels = [], [], []
        for score, shifts, anchors in self.levels(maps):
            classes = score.shape[2]
            score = torch.where(score > self.lowest, score, 0.0)
            best, at = self.candidates(score.reshape(score.shape[0], -1))
            found, best = self.boxes(
                anchors, shifts, torch.div(at, classes, rounding_mode='floor'), best, size
            )
            boxes.append(found)
            scores.append(best)
            labels.append(at % classes)
        box, score, label = torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(labels, 1)
        # Classes do not suppress each other: each lies in a place of its own.
        away = label[:, :, None] * (box.amax((1, 2), keepdim=True) + 1)
        keep = self.kernels.keep(box + away, score, self.overlap)
        return top(box, torch.where(keep, score, 0.0), self.most, label)


# ---- RoI heads -----------------------------------------------------------------------------------


class RoIHead(nn.Module):
    """Fast R-CNN's second stage, or the stages of Cascade R-CNN (Cai and Vasconcelos, 2018).

    Args:
        head: a ``StandardRoIHead`` or a ``CascadeRoIHead``.
        dtype: that is computed in.
        kernels: how objects are thinned out and RoIs pooled.
    """

    def __init__(self, head: Any, dtype: torch.dtype, kernels: Kernels) -> None:
        super().__init__()
        if type(head).__name__ not in ('StandardRoIHead', 'CascadeRoIHead') or getattr(
            head, 'with_shared_head', False
        ):
            raise _unknown(head, 'StandardRoIHead and CascadeRoIHead without a shared head')
        many = type(head).__name__ == 'CascadeRoIHead'
        stages = list(head.bbox_head) if many else [head.bbox_head]
        extractors = list(head.bbox_roi_extractor) if many else [head.bbox_roi_extractor]
        for stage in stages:
            _check_box_head(stage)
        self.stages = nn.ModuleList(stages).to(dtype)
        self.pools = nn.ModuleList([Pool(one, dtype, kernels) for one in extractors])
        self.coders = nn.ModuleList([Coder(stage.bbox_coder) for stage in stages])
        self.with_mask = bool(head.with_mask)
        self.masks = MaskHeads(head, many, dtype, kernels) if self.with_mask else None
        settings = head.test_cfg
        self.lowest, self.most = float(settings['score_thr']), most_of(settings)
        self.overlap, self.kernels = overlap_of(settings), kernels

    def forward(
        self, maps: Sequence[Tensor], boxes: Tensor, scores: Tensor, size: Tensor
    ) -> tuple[Tensor, ...]:
        """Maps and proposals B N 4, B N -> boxes B K 4, scores B K, labels B K (, masks)."""
        there = scores > 0
        total: Any = 0.0
        for number, (stage, pool, coder) in enumerate(zip(self.stages, self.pools, self.coders)):
            logits, shifts = stage(pool(maps, boxes))
            logits = logits.float().unflatten(0, boxes.shape[:2])  # B N C+1
            shifts = shifts.float().view(boxes.shape[0], boxes.shape[1], -1, 4)  # B N C 4
            total = total + logits
            if number < len(self.stages) - 1:
                best = (
                    logits[:, :, :-1].argmax(2)
                    if shifts.shape[2] > 1
                    else torch.zeros_like(logits[:, :, 0], dtype=torch.int64)
                )
                at = best[:, :, None, None].expand(-1, -1, 1, 4)
                boxes = coder(boxes, shifts.gather(2, at)[:, :, 0], size)
        probable = (total / len(self.stages)).softmax(2)[:, :, :-1]  # B N C
        probable = torch.where((probable > self.lowest) & there[:, :, None], probable, 0.0)
        batch, number, classes = probable.shape
        moved = self.coders[-1](boxes[:, :, None], shifts, size[:, None])  # B N C 4
        moved = moved.expand(-1, -1, classes, -1)
        # Each class is thinned out for itself.
        rows = moved.transpose(1, 2).reshape(batch * classes, number, 4)
        row_scores = probable.transpose(1, 2).reshape(batch * classes, number)
        keep = self.kernels.keep(rows, row_scores, self.overlap)
        left = torch.where(keep, row_scores, 0.0).reshape(batch, classes * number)
        labels = (
            torch.arange(classes, device=left.device)[None, :, None]
            .expand(batch, classes, number)
            .reshape(batch, -1)
        )
        found = top(rows.reshape(batch, -1, 4), left, self.most, labels)
        if self.masks is None:
            return found
        return (*found, self.masks(maps, found[0], found[2]))


class MaskHeads(nn.Module):
    """Mask R-CNN's masks (He et al., 2017), of a cascade their average.

    Args:
        head: the RoI head.
        many: whether it is a cascade.
        dtype: that is computed in.
        kernels: how RoIs are pooled.
    """

    def __init__(self, head: Any, many: bool, dtype: torch.dtype, kernels: Kernels) -> None:
        super().__init__()
        heads = list(head.mask_head) if many else [head.mask_head]
        extractors = list(head.mask_roi_extractor) if many else [head.mask_roi_extractor]
        for one in heads:
            if type(one).__name__ != 'FCNMaskHead':
                raise _unknown(one, 'FCNMaskHead')
        self.heads = nn.ModuleList(heads).to(dtype)
        self.pools = nn.ModuleList([Pool(one, dtype, kernels) for one in extractors])
        self.threshold = float(head.test_cfg['mask_thr_binary'])
        if self.threshold < 0:
            raise UserError(
                'mask_thr_binary is below 0: masks would be shades, which the runner '
                'does not give; set it, to 0.5 as is usual'
            )

    def forward(self, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Maps, B K 4, B K -> probabilities B K M M, each in its box."""
        total: Any = 0.0
        for head, pool in zip(self.heads, self.pools):
            masks = head(pool(maps, boxes)).float().sigmoid()  # BK C M M
            at = (
                labels.clamp(min=0).reshape(-1)
                if masks.shape[1] > 1
                else torch.zeros_like(labels).reshape(-1)
            )
            at = at[:, None, None, None].expand(-1, 1, *masks.shape[2:])
            total = total + masks.gather(1, at)[:, 0]
        return (total / len(self.heads)).unflatten(0, labels.shape)


class Pool(nn.Module):
    """RoIAlign on the level of a pyramid that suits a RoI's size (Lin et al., FPN, 2017, eq. 1).

    Args:
        extractor: a ``SingleRoIExtractor``.
        dtype: that is computed in.
        kernels: how RoIs are pooled.
    """

    def __init__(self, extractor: Any, dtype: torch.dtype, kernels: Kernels) -> None:
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
            raise _unknown(extractor, 'SingleRoIExtractor with square, aligned, averaging RoIAlign')
        self.scales = [float(layer.spatial_scale) for layer in layers]
        self.ratio = int(layers[0].sampling_ratio)
        self.bins = int(layers[0].output_size[0])
        self.finest, self.dtype, self.kernels = float(extractor.finest_scale), dtype, kernels

    def forward(self, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """Maps, boxes B N 4 -> BN C bins bins."""
        batch, number = boxes.shape[:2]
        image = torch.arange(batch, device=boxes.device, dtype=boxes.dtype).view(-1, 1, 1)
        rois = torch.cat([image.expand(-1, number, 1), boxes], 2).view(-1, 5)
        area = (rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])
        level = torch.floor(torch.log2(area.sqrt() / self.finest + 1e-6))
        level = level.clamp(0, len(self.scales) - 1).to(torch.int64)
        return self.kernels.align(
            list(maps[: len(self.scales)]), rois, level, self.scales, self.bins, self.ratio
        ).to(self.dtype)


# ---- what heads share ----------------------------------------------------------------------------


class Coder(nn.Module):
    """Shifts of boxes by (dx, dy, dw, dh) (Girshick et al., R-CNN, 2014, appendix C).

    Args:
        coder: a ``DeltaXYWHBBoxCoder``.
    """

    means: Tensor
    stds: Tensor

    def __init__(self, coder: Any) -> None:
        super().__init__()
        if type(coder).__name__ != 'DeltaXYWHBBoxCoder':
            raise _unknown(coder, 'DeltaXYWHBBoxCoder')
        self.register_buffer('means', torch.tensor(coder.means, dtype=torch.float32))
        self.register_buffer('stds', torch.tensor(coder.stds, dtype=torch.float32))
        self.clips, self.clamps = bool(coder.clip_border), bool(coder.add_ctr_clamp)
        self.clamp = float(coder.ctr_clamp)

    def forward(self, boxes: Tensor, shifts: Tensor, size: Tensor) -> Tensor:
        """Boxes and shifts B ... 4, sizes B ... 2 of the same rank but one -> B ... 4."""
        shifts = shifts * self.stds + self.means
        centre = (boxes[..., :2] + boxes[..., 2:]) * 0.5
        sides = boxes[..., 2:] - boxes[..., :2]
        move, grow = sides * shifts[..., :2], shifts[..., 2:]
        most = abs(math.log(16 / 1000))  # mmdet's wh_ratio_clip
        if self.clamps:
            move, grow = move.clamp(-self.clamp, self.clamp), grow.clamp(max=most)
        else:
            grow = grow.clamp(-most, most)
        centre, half = centre + move, sides * grow.exp() * 0.5
        result = torch.cat([centre - half, centre + half], -1)
        if self.clips:
            limit = size.to(result.dtype).flip(-1)
            limit = torch.cat([limit, limit], -1)[..., None, :]
            result = torch.minimum(result.clamp(min=0), limit)
        return result


def top(
    boxes: Tensor, scores: Tensor, most: int, labels: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The best of B N, always ``most``: those that are none have no size, score 0 and label -1."""
    spare = max(0, most - scores.shape[1]) if isinstance(scores.shape[1], int) else most
    best, at = F.pad(scores, (0, spare)).topk(most, 1)
    at = at.clamp(max=scores.shape[1] - 1)
    there = best > 0
    boxes = boxes.gather(1, at[:, :, None].expand(-1, -1, 4))
    boxes = torch.where(there[:, :, None], boxes, 0.0)
    if labels is None:
        return boxes, best
    return boxes, best, torch.where(there, labels.gather(1, at), -1)


def overlap_of(settings: Mapping) -> float:
    """The IoU from which the better of two boxes suppresses the other.

    Raises:
        UserError: they are thinned out by something else than plain NMS.
    """
    nms = dict(settings['nms'])
    kind, overlap = nms.pop('type', 'nms'), nms.pop('iou_threshold', None)
    nms.pop('split_thr', None)  # how mmcv saves memory
    if kind != 'nms' or overlap is None or any(nms.values()):
        raise UserError(
            f'objects are thinned out by {dict(settings["nms"])}, and exported files '
            "have dict(type='nms', iou_threshold=...) only; test with that first, as "
            'it changes scores, or export --part neck'
        )
    return float(overlap)


def most_of(settings: Mapping) -> int:
    """How many objects of an image are kept.

    Raises:
        UserError: as many as there are, which a file has no room for.
    """
    most = int(settings['max_per_img'])
    if most < 1:
        raise UserError(
            f'max_per_img={most} keeps as many objects as there are, and a file has '
            'room for a fixed number; set it, to 100 as is usual'
        )
    return most


def predicts_otherwise(head: Any, module: str, base: str, names: Sequence[str]) -> bool:
    """Whether a head has other methods of prediction than the class that is known here."""
    known = getattr(import_module(module), base)
    return any(getattr(type(head), name, None) is not getattr(known, name) for name in names)


def _check_box_head(head: Any) -> None:
    """Makes sure that a head predicts as mmdet's ``BBoxHead``."""
    changed = predicts_otherwise(
        head,
        'mmdet.models.roi_heads.bbox_heads',
        'BBoxHead',
        ('predict_by_feat', '_predict_by_feat_single'),
    )
    whole = head.with_cls and head.with_reg
    if changed or getattr(head, 'custom_activation', False) or not whole:
        raise _unknown(head, 'heads that predict as BBoxHead does')


def _unknown(found: Any, legal: str) -> UserError:
    return UserError(
        f'a whole model cannot be exported with {type(found).__name__}; known here: '
        f'{legal}. Export --part neck or backbone, whose maps your code takes on'
    )
