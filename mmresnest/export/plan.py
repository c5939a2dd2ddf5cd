"""Plan an exported file: its sizes, its description, and the images it is compared on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from ..config.inspect import dataset_configs, type_of
from ..data.base import IMAGE_SUFFIXES
from ..errors import UserError
from ..inference.checkpoint_config import find_test_dataloader
from ..inference.images import read_image
from ..inference.inputs import find_sources
from ..inference.metadata import METADATA_VERSION
from ..inference.predictor import Predictor
from ..inference.rescale import padded_size, resize_image
from ..utils.files import sha256_of
from ..version import __version__
from .formats import FORMATS, Shapes
from .graphs import InputNormalizer

MIN_SIDE = 33
"""The least side of an input in px: of 32 and less one pixel is left in the last stage."""
PICTURES = 2
"""How many images are compared on by default."""
TRIED_SIZES = ((160, 192), (127, 98))
"""Heights and widths that a file of any size is compared at."""


def plan_shapes(
    predictor: Predictor,
    to: str,
    part: str,
    size: tuple[int, int] | None,
    batch: int,
    dynamic: bool,
) -> Shapes:
    """Decide on the sizes that the file takes.

    Raises:
        UserError: the format or the task does not go with what is asked for.
    """
    divisor = _padding_divisor(predictor, part)
    if part == 'model':
        _check_whole_model(predictor, to, divisor, dynamic)
    if dynamic:
        return Shapes(None, None, None, divisor, MIN_SIDE)
    height, width = size or _usual_size(predictor, part)
    up = [-(-side // divisor) * divisor for side in (height, width)]
    if size is not None and list(size) != up:
        raise UserError(
            f'--size {size[0]}x{size[1]}: sides are multiples of {divisor}; give {up[0]}x{up[1]}',
            code='option.value',
        )
    return Shapes(batch, up[0], up[1], divisor, MIN_SIDE)


def _check_whole_model(predictor: Predictor, to: str, divisor: int, dynamic: bool) -> None:
    """Refuse a whole model that the format or the runner cannot express."""
    if predictor.task == 'panoptic':
        raise UserError(
            'a panoptic model merges any number of objects and regions one after the other, '
            'which a graph of tensors cannot express; export --part neck',
            code='export.panoptic',
        )
    if predictor.task != 'semantic' and not FORMATS[to].detects:
        whole = ' and '.join(name for name, one in FORMATS.items() if one.detects)
        raise UserError(
            f"{to} has no operator for NMS and RoIAlign, which are torchvision's; "
            f'{whole} hold whole detectors: --format {whole.partition(" ")[0]}, or --part '
            'neck',
            code='export.no-operator',
        )
    if _sliding_window(predictor) is None:
        return
    if divisor > 1:
        raise UserError(
            'the model pads a picture before it slides a window over it, which the '
            'runner does not; leave size_divisor out of the test_cfg of its '
            'data_preprocessor',
            code='export.padding',
        )
    if not dynamic:
        raise UserError(
            'the model slides a window, which is smaller on a picture that is '
            'smaller: give --dynamic',
            code='option.needed',
        )


def _padding_divisor(predictor: Predictor, part: str) -> int:
    """Return the number that sides of the input are multiples of."""
    preprocessor = predictor.model.data_preprocessor
    if part == 'backbone' or (part == 'neck' and predictor.task == 'semantic'):
        return 1
    if predictor.task == 'semantic':
        return _test_padding_divisor(preprocessor)
    return int(getattr(preprocessor, 'pad_size_divisor', 1) or 1)


def _test_padding_divisor(preprocessor: Any) -> int:
    """Return the divisor that mmseg's preprocessor pads to in a test."""
    rule = dict(getattr(preprocessor, 'test_cfg', None) or {})
    if rule.get('size') is not None:
        raise UserError(
            'the data_preprocessor pads test images to test_cfg.size; export --part '
            'neck, or set size_divisor instead',
            code='export.padding',
        )
    return int(rule.get('size_divisor') or 1)


def _usual_size(predictor: Predictor, part: str) -> tuple[int, int]:
    """Return the largest height and width that the test pipeline scales an image to."""
    if part == 'model' and predictor.task == 'semantic':
        raise UserError(
            'a segmentor looks at the whole picture, so that padding changes what it '
            'says: give --dynamic, or --size HxW of your pictures',
            code='option.needed',
        )
    rule = resize_rule(predictor.config)
    if rule is None:
        raise UserError(
            'the test pipeline does not scale, so pictures have any size: give '
            '--dynamic, or --size HxW',
            code='option.needed',
        )
    width, height = rule['scale']
    return (height, width) if not rule['keep_ratio'] else (min(width, height), max(width, height))


def _sliding_window(predictor: Predictor) -> dict[str, list[int]] | None:
    """Return size and stride of the window that a segmentor slides, None if it does not."""
    rule = predictor.config.model.get('test_cfg') or {}
    if predictor.task != 'semantic' or rule.get('mode', 'whole') != 'slide':
        return None
    return dict(size=list(rule['crop_size']), stride=list(rule['stride']))


def resize_rule(cfg: Config) -> dict[str, Any] | None:
    """Return how the test pipeline scales an image, in terms that the runner knows.

    Raises:
        UserError: the pipeline does something else.
    """
    steps = [
        step
        for step in dataset_configs(find_test_dataloader(cfg)['dataset'])[0].get('pipeline') or ()
        if not type_of(step).startswith(('Load', 'Pack'))
    ]
    loads = dataset_configs(find_test_dataloader(cfg)['dataset'])[0]['pipeline'][0]
    rule: dict[str, Any] | None = None
    for step in steps:
        known = dict(
            type=step['type'],
            scale=step.get('scale'),
            keep_ratio=bool(step.get('keep_ratio', False)),
        )
        if (
            type_of(step) != 'Resize'
            or rule is not None
            or known['scale'] is None
            or set(step) - {'_scope_', *known}
        ):
            raise UserError(
                f'the test pipeline has the step {dict(step)}, and the runner of '
                'exported files knows one Resize(scale, keep_ratio); change the test '
                'pipeline, or export --part neck with --size or --dynamic',
                code='export.pipeline',
            )
        scale = known['scale']
        scale = [scale, scale] if isinstance(scale, int) else list(map(int, scale))
        rule = dict(scale=scale, keep_ratio=known['keep_ratio'])
    if loads.get('to_float32'):
        raise UserError(
            'the test pipeline loads images with to_float32, and exported files take '
            '8 bits; set it to False',
            code='export.pipeline',
        )
    return rule


def build_metadata(
    predictor: Predictor, plan: Shapes, part: str, precision: str, checkpoint: str | os.PathLike
) -> dict[str, Any]:
    """Return the description that the file holds; see :mod:`mmresnest.inference.metadata`."""
    norm = InputNormalizer(predictor.model.data_preprocessor)
    cfg = predictor.config
    head = cfg.model.get('decode_head') or {}
    head = head[-1] if isinstance(head, (list, tuple)) else head
    rcnn = (cfg.model.get('test_cfg') or {}).get('rcnn') or {}
    return dict(
        version=METADATA_VERSION,
        mmresnest=__version__,
        torch=torch.__version__,
        part=part,
        task=predictor.task,
        names=list(predictor.names),
        precision=precision,
        outputs=[],
        input=dict(
            batch=plan.batch,
            height=plan.height,
            width=plan.width,
            divisor=plan.divisor,
            least=plan.least,
        ),
        resize=resize_rule(cfg) if part == 'model' else None,
        window=_sliding_window(predictor),
        normalize=dict(
            mean=norm.mean.flatten().tolist(),
            std=norm.std.flatten().tolist(),
            order='BGR' if norm.flips else 'RGB',
        ),
        mask_threshold=float(rcnn.get('mask_thr_binary', 0.5)),
        align_corners=bool(head.get('align_corners', False)),
        config=Path(cfg.filename or '').name,
        checkpoint=dict(
            file=Path(checkpoint).name, sha256=sha256_of(Path(checkpoint).expanduser())
        ),
    )


def comparison_images(cfg: Config, given: Sequence[str | os.PathLike]) -> list[np.ndarray]:
    """Return images to compare on: those given, or some of the test split, or drawn ones."""
    if given:
        found = find_sources(given)
        videos = [source.path for source in found if source.video]
        if videos:
            raise UserError(
                f'--sample-images {videos[0]} is a video; give pictures', code='option.value'
            )
        return [read_image(source.path) for source in found]
    from ..data.shapes.drawing import draw_sample

    from_data = _dataset_images(cfg)
    return from_data or [
        draw_sample(0, 'val', number, (320, 240)).image for number in range(PICTURES)
    ]


def _dataset_images(cfg: Config) -> list[np.ndarray]:
    """Return the first images of the test split, if it exists."""
    leaf = dataset_configs(find_test_dataloader(cfg)['dataset'])[0]
    folder = Path(
        str(leaf.get('data_root') or '.'),
        str(
            (leaf.get('data_prefix') or {}).get('img')
            or (leaf.get('data_prefix') or {}).get('img_path')
            or ''
        ),
    )
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return [read_image(path) for path in files[:PICTURES]]


def comparison_inputs(
    plan: Shapes, part: str, images: list[np.ndarray], metadata: dict[str, Any]
) -> list[tuple[Tensor, ...]]:
    """Return batches that fit the file: one, or two of different sizes where it takes any."""
    form = metadata['input']
    sizes = [
        padded_size(size, form) for size in (TRIED_SIZES if plan.is_dynamic else TRIED_SIZES[:1])
    ]
    counts = [2, 1] if plan.batch is None else [plan.batch]
    result: list[tuple[Tensor, ...]] = []
    for size, count in zip(sizes, counts):
        placed = [fit_image(images[number % len(images)], size) for number in range(count)]
        pixels = torch.from_numpy(np.stack([image for image, _ in placed]))  # B 3 H W
        if part == 'model':
            result.append((pixels, torch.tensor([true for _, true in placed])))
            continue
        norm = metadata['normalize']
        mean, std = (torch.tensor(norm[name]).view(1, -1, 1, 1) for name in ('mean', 'std'))
        ordered = pixels if norm['order'] == 'RGB' else pixels.flip(1)
        result.append(((ordered.float() - mean) / std,))
    return result


def fit_image(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, list[int]]:
    """Scale an image into the top left of an input 3 H W; return it and its size there."""
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    true = [min(most, max(1, int(of * scale))) for most, of in zip(size, image.shape)]
    placed = np.zeros((3, *size), np.uint8)
    placed[:, : true[0], : true[1]] = resize_image(image, (true[0], true[1])).transpose(2, 0, 1)
    return placed, true
