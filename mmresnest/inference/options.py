"""What can be asked of a prediction. Imports nothing heavy, as :mod:`mmresnest.config.options`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..config.options import RUNTIMES, ConfigOptions, option


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images are predicted on, and what is written.

    Attributes:
        out: the folder to write to (default: predictions).
        json: the file for the results (default: predictions.json in --out); detectors in COCO's
            format, images and categories in FILE.images.json.
        vis: draw the predictions.
        save_txt: write the objects of each image as YOLO has them, into --out/labels; of a model
            with masks their outlines.
        save_conf: with --save-txt: end each line with the score.
        save_crops: write each object as a picture, into --out/crops/CLASS.
        classes: keep only the objects of these classes.
        slice: predict on tiles of so many pixels a side, and merge what is found: for small objects
            in large images.
        track: follow the objects of films from frame to frame, by ByteTrack.
        tta: merge what is found in several views of an image: mirrored, and of segmentors at other
            scales, too.
        overlap: with --slice: how much of a tile the next one repeats (default: 0.2).
        score_thr: leave out objects with a lower score.
        batch_size: images of one size at once.
        device: auto (a GPU if there is one), cpu or cuda.
        vid_stride: predict on every N-th frame of a video.
        force: replace results of another run.
    """

    out: str | os.PathLike | None = option(metavar='DIR')
    json: str | os.PathLike | None = option(metavar='FILE')
    vis: bool = option(True, old=['pictures'])
    save_txt: bool = option(False)
    save_conf: bool = option(False)
    save_crops: bool = option(False)
    classes: str | None = option(metavar='NAME,...')
    slice: int | None = option(type=int, metavar='PIXELS')
    overlap: float | None = option(type=float, metavar='SHARE')
    track: bool = option(False)
    tta: bool = option(False)
    score_thr: float = option(0.3, type=float, metavar='S')
    batch_size: int = option(1, type=int, metavar='N')
    device: str = option('auto')
    vid_stride: int = option(1, old=['every'], type=int, metavar='N')
    force: bool = option(False)


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ImageOptions, ConfigOptions):
    """How a checkpoint predicts.

    Attributes:
        data: the training's --data; needed only for a checkpoint that does not name its classes.
        demo: the checkpoint is of train --demo.
        fuse: fold norms into convolutions on a CPU, and use the faster ways of inference: equal
            but for rounding.
        runtime: have this compute backbone and neck, from a file that is exported once for these
            weights; on CPUs.
        max_regions: have the second stage of a detector look at no more regions (default: as the
            config says, mostly 1000); docs/speed.md says what is lost.
    """

    fuse: bool = option(True)
    max_regions: int | None = option(type=int, metavar='N')
    runtime: str | None = option(choices=RUNTIMES)


@dataclass(frozen=True, kw_only=True)
class ExportedOptions(ImageOptions):
    """How an exported file predicts.

    Attributes:
        device: auto (a GPU of CUDA if there is one), cpu; cuda for .onnx, gpu (of Intel) for .xml.
    """
