"""What can be asked of a run: each option once, with its default and its description.

The command line makes its parsers from these classes (:mod:`mmresnest.cli.arguments`), and
``train``, ``test``, ``predict`` and ``export`` take them, or their fields by keyword. The
attributes of the docstrings are the help texts. Imports nothing heavy, since ``mmresnest --help``
reads it.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar

from ..errors import ArgumentError, nearest

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
STRATEGIES = ('fsdp', 'deepspeed')
RUNTIMES = ('onnxruntime', 'openvino')
AUGMENTATIONS = ('none', 'light', 'strong')
SCHEDULES = ('auto', 'config', 'small', 'laptop')
LOGGERS = ('tensorboard', 'wandb', 'mlflow')

Options = TypeVar('Options')


def option(
    default: Any = None,
    *,
    old: Sequence[str] = (),
    old_values: Mapping[str, str] | None = None,
    also: Sequence[str] = (),
    **argument: Any,
) -> Any:
    """Return a field of an options class.

    Args:
        default: the value where the option is not given.
        old: former names; they are accepted until the next version.
        old_values: former values -> those of today, likewise.
        also: shorter names on the command line, where the command has no such option of its own.
        **argument: what ``ArgumentParser.add_argument`` takes: ``metavar``, ``choices``, ...
    """
    return field(
        default=default,
        metadata=dict(
            old=tuple(old), old_values=dict(old_values or {}), also=tuple(also), argument=argument
        ),
    )


def build_options(
    kind: type[Options], options: Options | None, given: Mapping[str, Any]
) -> Options:
    """Return options with some fields set by keyword.

    Args:
        kind: the class of options.
        options: those to start from; the defaults if None.
        given: name of a field -> its value.

    Raises:
        ArgumentError: there is no such option, or ``options`` are those of another command.
    """
    if options is not None and not isinstance(options, kind):
        raise ArgumentError(
            f'options are a {type(options).__name__}, and here go those of {kind.__name__}: '
            'give one, or its fields by keyword',
            code='option.unknown',
        )
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    current = {old: one.name for one in known.values() for old in one.metadata.get('old', ())}
    values = {}
    for name, value in given.items():
        if name not in known:
            if name not in current:
                raise ArgumentError(
                    f'there is no option {name!r} here; {nearest(name, known)}',
                    code='option.unknown',
                )
            note_renamed(name, current[name])
            name = current[name]
        renamed = known[name].metadata.get('old_values', {})
        if isinstance(value, str) and value in renamed:
            note_renamed(f'{name} {value}', f'{name} {renamed[value]}')
            value = renamed[value]
        values[name] = value
    return replace(kind() if options is None else options, **values)  # type: ignore[type-var]


def note_renamed(old: str, new: str) -> None:
    """Log that a name is no longer the one to use."""
    logging.getLogger('mmresnest').warning(
        '%s is called %s now; the former name goes with the next version', old, new
    )


def read_help(kind: type) -> dict[str, str]:
    """Return field -> description, from the docstrings of an options class and its parents."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        listed = inspect.cleandoc(vars(base).get('__doc__') or '').partition('Attributes:\n')[2]
        for name, text in re.findall(r'^ {4}(\w+): (.+(?:\n {5,}.+)*)', listed, re.MULTILINE):
            texts[name] = ' '.join(text.split()).removesuffix('.')
    return texts


@dataclass(frozen=True, kw_only=True)
class ConfigOptions:
    """How a config is read.

    Attributes:
        arch: put this network into the config, with its weights, pixel statistics and channels:
            resnest101, or another of `mmresnest.list_archs()`.
        cfg_options: override settings of the config, such as optim_wrapper.optimizer.lr=0.01;
            lists as "[1,2]" or 1,2.
        data: a folder of images and annotations in any common format (COCO, VOC, YOLO, labelme,
            CSV; masks of classes in ADE20K's and other layouts), which is recognized; classes are
            read from it.
        data_format: the format of --data, where it can be read in several.
        split: put this share of the images aside for validation, where --data has no such part:
            0.2, or 0.2:SEED.
        mask_values: what the values or colors of the masks stand for, where they are no class
            indices: 0=background,255=object or 0:0:0=background,128:0:0=cat; the name ignore leaves
            pixels out.
        demo: a size and schedule for a CPU, on the embedded data set unless --data is given.
    """

    arch: str | None = option(metavar='NAME')
    cfg_options: Mapping[str, Any] | None = option(
        old=['options'], nargs='+', action='extend', metavar='KEY=VALUE'
    )
    data: str | os.PathLike | None = option(metavar='DIR')
    data_format: str | None = option(also=['format'], metavar='FORMAT')
    split: str | None = option(metavar='SHARE')
    mask_values: str | None = option(metavar='VALUE=NAME,...')
    demo: bool = option(False)


@dataclass(frozen=True, kw_only=True)
class RunOptions(ConfigOptions):
    """How a config is run.

    Attributes:
        work_dir: for checkpoints and logs (default: work_dirs/<config>).
        launcher: what started the processes.
        compile: torch.compile backbone and neck, once for all image sizes; on CPUs this takes a C++
            compiler.
        fast_eval: compute COCO's scores by faster-coco-eval: the same in less time.
        fuse: fold norms into convolutions where the model is scored on a CPU, and use the faster
            ways of inference: equal but for rounding.
        max_regions: have the second stage of a detector look at no more regions when it is scored
            (default: as the config says, mostly 1000); docs/speed.md says what is lost.
        progress: show a progress bar, which only a terminal gets.
        splits: the parts of the data that are read; no option of the command line.
    """

    work_dir: str | os.PathLike | None = option(metavar='DIR')
    launcher: str = option('none', choices=LAUNCHERS)
    compile: bool = option(False)
    fast_eval: bool = option(False)
    fuse: bool = option(True)
    max_regions: int | None = option(type=int, metavar='N')
    progress: bool = option(True)
    splits: tuple[str, ...] = ('train', 'val')

    @property
    def is_distributed(self) -> bool:
        """Return whether several processes share the work."""
        return self.launcher != 'none'

    @property
    def scored_split(self) -> str:
        """Return the split whose evaluator gives the scores."""
        return 'test' if self.splits == ('test',) else 'val'


def parse_batch_size(text: str) -> int | str:
    """Read a number of images, or ``auto``."""
    return text if text == 'auto' else int(text)


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """The plain options of a training: what depends on one is scaled with it.

    Attributes:
        epochs: train for so many epochs; a schedule of iterations is computed from the number of
            images.
        batch_size: images of one process at once; the learning rate follows it. auto: as many as
            fit the GPU.
        img_size: the longer side of an image in a test, and the largest of a training; for a
            segmentor that of a crop.
        lr: the learning rate.
        patience: end after so many validations without a better score.
        workers: processes that read images.
        classes: learn only these of the data's classes; the rest is background, or of masks without
            a class background left out.
        augment: none; light, mirrored; strong, colors and mosaics as well (default: as the config
            has it)
        schedule: that of the config; small for hundreds of pictures; laptop, the same for smaller
            images and a narrower network, for CPUs; auto takes small where --data has fewer than a
            thousand and nothing is said of the schedule, and laptop where there is no GPU either
    """

    epochs: int | None = option(type=int, metavar='N')
    batch_size: int | str | None = option(type=parse_batch_size, metavar='N')
    img_size: int | None = option(type=int, metavar='PIXELS')
    lr: float | None = option(type=float, metavar='RATE')
    patience: int | None = option(type=int, metavar='N')
    workers: int | None = option(type=int, metavar='N')
    classes: str | None = option(metavar='NAME,...')
    augment: str | None = option(choices=AUGMENTATIONS)
    schedule: str = option('auto', choices=SCHEDULES)

    @property
    def plain_options(self) -> ScheduleOptions:
        """Return these, for the step that obeys all of them."""
        return self


@dataclass(frozen=True, kw_only=True)
class PrintOptions(ScheduleOptions, ConfigOptions):
    """How a config is printed."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(ScheduleOptions, RunOptions):
    """How a config is trained.

    Attributes:
        amp: mixed precision: float16 on GPUs, bfloat16 on CPUs.
        resume: continue from a checkpoint, or (auto, or nothing) from the last in the work dir;
            if-any: or from the beginning, if none is there.
        allow_mismatch: resume even if the number of processes, the batch size or the data differ
            from those of the checkpoint.
        load_from: begin from a model of other classes: a file, a URL, or the name of a config whose
            checkpoint is published (nothing: of this config); heads keep the classes of the same
            name.
        auto_scale_lr: scale the learning rate to the batch size by the config's base batch size.
        from_scratch: random weights; none are fetched, none are frozen.
        logger: also log numbers and images where they can be watched.
        seed: for everything random.
        deterministic: deterministic algorithms only.
        save_memory: have the backward pass of the backbone recompute what is cheap: about half the
            bytes in about the same time, on CPUs.
        strategy: divide weights, gradients and momentum among the processes of a launcher: fsdp, of
            torch, or deepspeed.
    """

    trains: ClassVar[bool] = True

    amp: bool = option(False)
    resume: str | None = option(nargs='?', const='auto', metavar='CHECKPOINT')
    allow_mismatch: bool = option(False, old=['accept_changes'])
    load_from: str | None = option(nargs='?', const='published', metavar='CHECKPOINT')
    auto_scale_lr: bool = option(False)
    from_scratch: bool = option(False, old=['scratch'])
    logger: Sequence[str] = option((), old=['live'], nargs='+', action='extend', choices=LOGGERS)
    seed: int | None = option(type=int)
    deterministic: bool = option(False)
    save_memory: bool = option(False)
    strategy: str | None = option(choices=STRATEGIES)


@dataclass(frozen=True, kw_only=True)
class TestOptions(RunOptions):
    """How a checkpoint is tested.

    Attributes:
        classes: score these of the data's classes alone, for a model that was trained on them.
        out: write the predictions: .pkl; .json for detectors; a folder for segmentors.
        show_dir: draw predictions beside the ground truth.
        tta: average over mirrored (segmentors: and scaled) copies.
        runtime: have this compute backbone and neck, from a file that is exported once for these
            weights; on CPUs.
    """

    __test__: ClassVar[bool] = False  # pytest takes a class by its name for a test

    splits: tuple[str, ...] = ('test',)
    classes: str | None = option(metavar='NAME,...')
    out: str | os.PathLike | None = option(metavar='FILE')
    show_dir: str | os.PathLike | None = option(metavar='DIR')
    tta: bool = option(False)
    runtime: str | None = option(choices=RUNTIMES)

    @property
    def scored_classes(self) -> str | None:
        """Return the classes that are scored, None for all."""
        return self.classes


@dataclass(frozen=True, kw_only=True)
class ExportedTestOptions(ConfigOptions):
    """How an exported file is tested.

    Attributes:
        progress: show a progress bar, which only a terminal gets.
    """

    progress: bool = option(True)
