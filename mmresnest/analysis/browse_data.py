"""Images as the pipeline of a config delivers them, on a sheet: ``mmresnest browse-data``."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config

from ..config.checks import check_annotations
from ..config.inspect import dataset_configs, import_packages, type_of
from ..config.load import load_config, name_of
from ..config.option_keys import override_settings
from ..config.paths import check_paths
from ..config.retarget import use_data
from ..data.request import DataRequest
from ..engine.prepare import choose_data_folder
from ..engine.runner import explain_build_errors, explain_run_errors
from ..errors import UserError


class Sample(NamedTuple):
    """What the pipeline makes of an image.

    Attributes:
        image: H W 3, in RGB.
        objects: boxes, labels and masks, see
            :func:`mmresnest.visualization.contact_sheet.draw_contact_sheet`.
        labels: class indices H W, if there are any.
        head: its name, and the size that it is delivered in.
    """

    image: np.ndarray
    objects: dict[str, np.ndarray]
    labels: np.ndarray | None
    head: str


def browse_data(
    config: str | os.PathLike | Config,
    *,
    data: str | os.PathLike | None = None,
    mask_values: str | None = None,
    data_format: str | None = None,
    demo: bool = False,
    options: Mapping[str, Any] | None = None,
    split: str = 'train',
    out: str | os.PathLike | None = None,
    number: int = 24,
    seed: int = 0,
) -> Path:
    """Draw images and annotations after augmentation, as a model would get them.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest.
        data: a folder in COCO or ADE20K layout instead of the config's data.
        mask_values: what the values of its masks stand for, as ``train --mask-values``.
        data_format: its format, as ``train --format``.
        demo: the embedded data set, unless ``data`` is given.
        options: settings to override, dotted names to values.
        split: ``train``, ``val`` or ``test``.
        out: the PNG to write; by default named by config and split, in the current folder.
        number: how many images.
        seed: which images, and how they are augmented.

    Returns:
        the PNG.

    Raises:
        UserError: if config or data cannot be used.
    """
    from ..visualization.contact_sheet import draw_contact_sheet

    cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
    if demo or data is not None:
        use_data(cfg, choose_data_folder(cfg, DataRequest.parse(data, mask_values, data_format)))
    override_settings(cfg, options)
    if number < 1:
        raise UserError(
            f'--num-images {number}: at least one image must be drawn', code='option.value'
        )
    if cfg.get(f'{split}_dataloader') is None:
        raise UserError(
            f'{name_of(cfg)} has no {split}_dataloader; legal splits: '
            + ', '.join(
                name
                for name in ('train', 'val', 'test')
                if cfg.get(f'{name}_dataloader') is not None
            ),
            code='config.no-split' if split in ('train', 'val', 'test') else 'option.unknown',
        )
    name = Path(cfg.filename).stem if cfg.filename else 'config'
    target = Path(f'{name}_{split}.png' if out is None else out)
    if target.suffix != '.png':
        raise UserError(
            f'--out {target}: the sheet is a .png file; name it so', code='option.suffix'
        )
    check_paths(cfg, (split,))
    import_packages(cfg)
    check_annotations(cfg, (split,), data, demo)
    with explain_build_errors(cfg):
        dataset = _build_dataset(cfg, split)
    chosen = sorted(random.Random(seed).sample(range(len(dataset)), min(number, len(dataset))))
    with explain_run_errors(cfg):
        late = _is_annotated_late(cfg, split)
        seen = [_load_sample(dataset, index, seed, late) for index in chosen]
    return draw_contact_sheet(
        target,
        [one.image for one in seen],
        [one.objects for one in seen],
        [one.labels for one in seen],
        list(dataset.metainfo.get('classes') or ()),
        [one.head for one in seen],
        f'{name}: {len(seen)} of {len(dataset)} images of {split}, as the pipeline delivers them',
    )


def _build_dataset(cfg: Config, split: str) -> Any:
    """Return the data set of a split, with its pipeline."""
    from mmengine.registry import DATASETS, DefaultScope

    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
    if not len(dataset):
        raise UserError(
            f'no image of {split} is left to draw; `mmresnest check-data` says why',
            code='data.no-images',
        )
    return dataset


def _is_annotated_late(cfg: Config, split: str) -> bool:
    """Return whether annotations are loaded behind the resizing, as pipelines for testing do.

    Predictions are scaled back before they are scored, and annotations are left as they are.
    """
    leaf = dataset_configs(cfg[f'{split}_dataloader'].dataset)[0]
    types = [type_of(step) for step in leaf.get('pipeline') or ()]
    resized = next((at for at, name in enumerate(types) if 'Resize' in name), len(types))
    return any(name.startswith('Load') and 'Annotations' in name for name in types[resized:])


def _load_sample(dataset: Any, index: int, seed: int, late: bool) -> Sample:
    """Load one image through the pipeline; what is random depends on seed and index alone."""
    import cv2
    import torch

    random.seed(seed + index)
    np.random.seed((seed + index) % 2**32)
    torch.manual_seed(seed + index)
    item = dataset[index]
    inputs, sample = item.get('inputs'), item.get('data_samples')
    if not isinstance(inputs, torch.Tensor) or inputs.ndim != 3 or sample is None:
        raise UserError(
            'the pipeline delivers no single image with its annotations: it must end '
            'in PackDetInputs or PackSegInputs, and not branch',
            code='config.pipeline',
        )
    labels = None
    if 'gt_sem_seg' in sample:
        # mmseg calls the tensor `data`, mmdet `sem_seg`.
        held = sample.gt_sem_seg
        labels = np.asarray(held.data if 'data' in held else held.sem_seg).squeeze(0)
    image, meta = _to_rgb(inputs.numpy()), sample.metainfo
    head = f'{Path(meta.get("img_path", str(index))).name}: {image.shape[1]} x {image.shape[0]}'
    if late and 'ori_shape' in meta:
        image = cv2.resize(np.ascontiguousarray(image), meta['ori_shape'][1::-1])
    return Sample(image, _read_objects(sample, masks=labels is None), labels, head)


def _to_rgb(inputs: np.ndarray) -> np.ndarray:
    """Return an image H W 3 from the pipeline's tensor, 3 H W in BGR, before normalization."""
    image = np.moveaxis(inputs, 0, 2)
    if image.dtype != np.uint8 and image.min() >= -1 and image.max() <= 256:
        image = image.clip(0, 255).astype(np.uint8)  # photometric augmentation makes floats
    return image[:, :, ::-1] if image.shape[2] == 3 else image[:, :, :1]


def _read_objects(sample: Any, masks: bool) -> dict[str, np.ndarray]:
    """Return boxes, labels and masks of a sample, and which of them no loss counts."""
    parts = [
        (sample.get(key), ignored)
        for key, ignored in (('gt_instances', False), ('ignored_instances', True))
    ]
    parts = [(part, ignored) for part, ignored in parts if part is not None and 'labels' in part]
    boxes = [_to_array(part.bboxes).reshape(-1, 4) for part, _ in parts]
    found = {
        'boxes': np.concatenate([np.zeros((0, 4)), *boxes]),
        'labels': np.concatenate(
            [np.zeros(0, int), *(_to_array(part.labels) for part, _ in parts)]
        ),
        'ignored': np.concatenate(
            [np.zeros(0, bool), *(np.full(len(part.labels), ignored) for part, ignored in parts)]
        ),
    }
    if masks and parts and all('masks' in part for part, _ in parts):
        held = [part.masks.to_ndarray().astype(bool) for part, _ in parts if len(part.labels)]
        if held:
            found['masks'] = np.concatenate(held)
    return found


def _to_array(value: Any) -> np.ndarray:
    return np.asarray(value.tensor if hasattr(value, 'tensor') else value)
