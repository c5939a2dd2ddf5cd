"""What can be asked of an export. Imports nothing heavy, as :mod:`mmresnest.config.options`."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..config.options import ConfigOptions, option

FORMATS = ('onnx', 'openvino', 'torch-export', 'torchscript')
PARTS = ('model', 'neck', 'backbone')


def parse_size(text: str) -> tuple[int, int]:
    """Read ``HxW``."""
    if not re.fullmatch(r'[1-9]\d*x[1-9]\d*', text):
        raise argparse.ArgumentTypeError(f'{text} is not height x width, as 800x1344')
    height, width = map(int, text.split('x'))
    return height, width


@dataclass(frozen=True, kw_only=True)
class ExportOptions(ConfigOptions):
    """How a model is exported.

    Attributes:
        data: the training's --data; with --int8 also what the scores are measured on.
        demo: the checkpoint is of train --demo; with --int8 and without --data the embedded data
            set is scored on.
        format: of the file.
        part: the whole model, with pre- and postprocessing; or the feature maps of neck or
            backbone.
        out: the file to write (default: named as the config).
        size: height and width of the input (default: what the test pipeline scales an image to).
        batch: images at once.
        dynamic: take any number of images of any size.
        half: compute in float16.
        int8: compute in 8-bit integers, calibrated on the images of this folder; the drop of the
            score is measured.
        max_drop: how far int8 may lower the score, as a fraction of 1 (default 0.02).
        sample_images: images to compare on (default: the first of the test split, or drawn ones).
        force: replace a file.
    """

    format: str = option('onnx', old=['to'], choices=FORMATS)
    part: str = option('model', choices=PARTS, old_values={'whole': 'model'})
    out: str | os.PathLike | None = option(metavar='FILE')
    size: tuple[int, int] | None = option(type=parse_size, metavar='HxW')
    batch: int = option(1, type=int, metavar='N')
    dynamic: bool = option(False)
    half: bool = option(False)
    int8: str | os.PathLike | None = option(metavar='CALIB')
    max_drop: float | None = option(type=float, metavar='D')
    sample_images: Sequence[str | os.PathLike] = option(
        (), old=['try', 'pictures'], nargs='+', metavar='IMAGE'
    )
    force: bool = option(False)
