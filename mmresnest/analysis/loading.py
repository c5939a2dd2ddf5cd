"""Measure where the processor time of reading images goes, by the transforms of the pipeline.

Processor time hardly depends on what else the machine does. A training step waits for images where
reading its batch takes one process longer than the step, divided by the number of workers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from mmengine.config import Config

from ..compat.instances import wrap_method
from ..engine.image_guard import unwrap_datasets
from ..errors import UserError
from .profile import Clock, build_run, check_arguments, cycle_batches

REST = 'collating, rest'


@dataclass(frozen=True)
class LoadingTimes:
    """The processor seconds that an image takes.

    Attributes:
        mode: ``training`` or ``inference``.
        images: how many were read.
        transforms: seconds of an image by transform, in the order of the pipeline, then the rest.
        total: of all.
    """

    mode: str
    images: int
    transforms: dict[str, float]
    total: float


def measure_loading(
    config: str | os.PathLike | Config,
    data: str | os.PathLike | None = None,
    mode: str = 'training',
    images: int = 50,
    options: Mapping[str, Any] | None = None,
    arch: str | None = None,
) -> LoadingTimes:
    """Measure the reading of a config's images in this process.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest.
        data: a folder in COCO or ADE20K layout; the embedded data set unless given.
        mode: ``training`` or ``inference``.
        images: how many are read, at least; after a batch that is not counted.
        options: settings to override, dotted names to values.
        arch: put this network into it.

    Raises:
        UserError: config or data cannot be used, a mode that there is not, or no image.
    """
    check_arguments([mode], steps=1)
    if images < 1:
        raise UserError(f'--loading {images}: at least one image is needed', code='option.value')
    with build_run(config, data, mode, options, arch) as (_, loader):
        clock = Clock(time.process_time)
        for dataset in unwrap_datasets(loader.dataset):
            for transform in getattr(dataset.pipeline, 'transforms', ()):
                if hasattr(transform, 'transform'):  # any callable may stand in a pipeline
                    name = type(transform).__name__
                    wrap_method(transform, 'transform', partial(clock.time_call, name))
        batches = cycle_batches(loader)
        next(batches)
        clock.spent.clear()
        number = 0
        while number < images:
            with clock.time_span(REST):
                number += len(next(batches)['inputs'])
    names = [name for name in clock.spent if name != REST] + [REST]
    spent = {name: clock.spent[name] / number for name in names}
    return LoadingTimes(mode, number, spent, sum(spent.values()))


def format_table(found: LoadingTimes) -> str:
    """Return the transforms, their milliseconds and shares, as text."""
    lines = [
        f'{found.mode}: {found.total * 1e3:.1f} ms of processor time an image '
        f'(mean of {found.images}), {1 / found.total:.0f} images a second by one process'
    ]
    lines += [
        f'  {name:<26}{seconds * 1e3:9.2f} ms {seconds / found.total:6.1%}'
        for name, seconds in found.transforms.items()
    ]
    return '\n'.join(lines)
