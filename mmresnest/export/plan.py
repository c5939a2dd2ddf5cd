"""What a file is asked to hold: its sizes, its description, and pictures to try it on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from ..config.inspect import dataset_leaves, type_of
from ..errors import UserError
from ..inference import inputs
from ..inference.exported import VERSION, padded_size, resized
from ..inference.predictor import Predictor, loader_of
from ..utils.files import sha256_of
from ..version import __version__
from .formats import FORMATS, Shapes
from .graphs import Normalise

LEAST = 33  # px, of a file of any size: 32 and less are one pixel in the last stage
PICTURES = 2  # to compare on
TRIED = ((160, 192), (127, 98))
"""Heights and widths that a file of any size is tried with."""


def plan_for(
    predictor: Predictor,
    to: str,
    part: str,
    size: tuple[int, int] | None,
    batch: int,
    dynamic: bool,
) -> Shapes:
    """The sizes that the file takes.

    Raises:
        UserError: the format or the task does not go with what is asked for.
    """
    if part == 'whole' and predictor.task == 'panoptic':
        raise UserError(
            'a panoptic model joins objects and regions one after the other, as many '
            'as there are, which no graph of tensors says; export --part neck'
        )
    if part == 'whole' and predictor.task != 'semantic' and not FORMATS[to].detects:
        whole = ' and '.join(name for name, one in FORMATS.items() if one.detects)
        raise UserError(
            f"{to} has no operator for NMS and RoIAlign, which are torchvision's; "
            f'{whole} hold whole detectors: --to {whole.partition(" ")[0]}, or --part '
            'neck'
        )
    preprocessor = predictor.model.data_preprocessor
    divisor = int(getattr(preprocessor, 'pad_size_divisor', 1) or 1)
    if part == 'backbone':
        divisor = 1
    elif predictor.task == 'semantic':
        divisor = _tested_divisor(preprocessor) if part == 'whole' else 1
    if part == 'whole' and _window(predictor) is not None:
        if divisor > 1:
            raise UserError(
                'the model pads a picture before it slides a window over it, which the '
                'runner does not; leave size_divisor out of the test_cfg of its '
                'data_preprocessor'
            )
        if not dynamic:
            raise UserError(
                'the model slides a window, which is smaller on a picture that is '
                'smaller: give --dynamic'
            )
    if dynamic:
        return Shapes(None, None, None, divisor, LEAST)
    height, width = size or _usual_size(predictor, part)
    up = [-(-side // divisor) * divisor for side in (height, width)]
    if size is not None and list(size) != up:
        raise UserError(
            f'--size {size[0]}x{size[1]}: sides are multiples of {divisor}; give {up[0]}x{up[1]}'
        )
    return Shapes(batch, up[0], up[1], divisor, LEAST)


def _tested_divisor(preprocessor: Any) -> int:
    """What mmseg's preprocessor pads to multiples of in a test."""
    rule = dict(getattr(preprocessor, 'test_cfg', None) or {})
    if rule.get('size') is not None:
        raise UserError(
            'the data_preprocessor pads test images to test_cfg.size; export --part '
            'neck, or set size_divisor instead'
        )
    return int(rule.get('size_divisor') or 1)


def _usual_size(predictor: Predictor, part: str) -> tuple[int, int]:
    """The height and width of a picture that fills what the test pipeline scales to."""
    if part == 'whole' and predictor.task == 'semantic':
        raise UserError(
            'a segmentor looks at the whole picture, so that padding changes what it '
            'says: give --dynamic, or --size HxW of your pictures'
        )
    rule = resize_rule(predictor.config)
    if rule is None:
        raise UserError(
            'the test pipeline does not scale, so pictures have any size: give '
            '--dynamic, or --size HxW'
        )
    width, height = rule['scale']
    return (height, width) if not rule['keep_ratio'] else (min(width, height), max(width, height))


def _window(predictor: Predictor) -> dict[str, list[int]] | None:
    """The window that a segmentor slides."""
    rule = predictor.config.model.get('test_cfg') or {}
    if predictor.task != 'semantic' or rule.get('mode', 'whole') != 'slide':
        return None
    return dict(size=list(rule['crop_size']), stride=list(rule['stride']))


def resize_rule(cfg: Config) -> dict[str, Any] | None:
    """How the test pipeline scales an image, in terms that the runner knows.

    Raises:
        UserError: it does something else.
    """
    steps = [
        step
        for step in dataset_leaves(loader_of(cfg)['dataset'])[0].get('pipeline') or ()
        if not type_of(step).startswith(('Load', 'Pack'))
    ]
    loads = dataset_leaves(loader_of(cfg)['dataset'])[0]['pipeline'][0]
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
                'pipeline, or export --part neck with --size or --dynamic'
            )
        scale = known['scale']
        scale = [scale, scale] if isinstance(scale, int) else list(map(int, scale))
        rule = dict(scale=scale, keep_ratio=known['keep_ratio'])
    if loads.get('to_float32'):
        raise UserError(
            'the test pipeline loads images with to_float32, and exported files take '
            '8 bits; set it to False'
        )
    return rule


def describe(
    predictor: Predictor, plan: Shapes, part: str, precision: str, checkpoint: str | os.PathLike
) -> dict[str, Any]:
    """What the file says of itself."""
    norm = Normalise(predictor.model.data_preprocessor)
    cfg = predictor.config
    head = cfg.model.get('decode_head') or {}
    head = head[-1] if isinstance(head, (list, tuple)) else head
    rcnn = (cfg.model.get('test_cfg') or {}).get('rcnn') or {}
    return dict(
        version=VERSION,
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
        resize=resize_rule(cfg) if part == 'whole' else None,
        window=_window(predictor),
        normalise=dict(
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


# ---- pictures ------------------------------------------------------------------------------------


def pictures_for(cfg: Config, given: Sequence[str | os.PathLike]) -> list[np.ndarray]:
    """Pictures to compare on: those given, or some of the test split, or drawn ones."""
    if given:
        found = inputs.find(given)
        videos = [source.path for source in found if source.video]
        if videos:
            raise UserError(f'--try {videos[0]} is a video; give pictures')
        return [inputs.read_image(source.path) for source in found]
    from ..data.shapes.drawing import sample

    from_data = _of_dataset(cfg)
    return from_data or [sample(0, 'val', number, (320, 240)).image for number in range(PICTURES)]


def _of_dataset(cfg: Config) -> list[np.ndarray]:
    """The first pictures of the test split, if it is there."""
    leaf = dataset_leaves(loader_of(cfg)['dataset'])[0]
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
    files = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in inputs.IMAGE_SUFFIXES
    )
    return [inputs.read_image(path) for path in files[:PICTURES]]


def inputs_for(
    plan: Shapes, part: str, images: list[np.ndarray], about: dict[str, Any]
) -> list[tuple[Tensor, ...]]:
    """Batches that fit the file: one, or two of different sizes where it takes any."""
    form = about['input']
    sizes = [padded_size(size, form) for size in (TRIED if plan.dynamic else TRIED[:1])]
    counts = [2, 1] if plan.batch is None else [plan.batch]
    result: list[tuple[Tensor, ...]] = []
    for size, count in zip(sizes, counts):
        placed = [fitted(images[number % len(images)], size) for number in range(count)]
        pixels = torch.from_numpy(np.stack([image for image, _ in placed]))  # B 3 H W
        if part == 'whole':
            result.append((pixels, torch.tensor([true for _, true in placed])))
            continue
        norm = about['normalise']
        mean, std = (torch.tensor(norm[name]).view(1, -1, 1, 1) for name in ('mean', 'std'))
        ordered = pixels if norm['order'] == 'RGB' else pixels.flip(1)
        result.append(((ordered.float() - mean) / std,))
    return result


def fitted(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, list[int]]:
    """An image at the top left of an input, 3 H W, as large as it fits; and how large that is."""
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    true = [min(most, max(1, int(of * scale))) for most, of in zip(size, image.shape)]
    placed = np.zeros((3, *size), np.uint8)
    placed[:, : true[0], : true[1]] = resized(image, (true[0], true[1])).transpose(2, 0, 1)
    return placed, true
