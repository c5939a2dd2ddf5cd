"""Prepare a config for a run: everything that happens before the runner is built.

:data:`STEPS` is the way of a config, in order. Each step changes the config in place or refuses it,
and names the options that it reads. What is cheap to check comes before what is expensive, and the
work folder is made last, so that a refused run leaves nothing behind.
"""

from __future__ import annotations

import copy
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from mmengine.config import Config
from mmengine.logging import print_log

from ..config.architecture import set_architecture
from ..config.checks import check_annotations
from ..config.classes import select_classes
from ..config.defaults import (
    CHECKED,
    TYPES,
    configure_evaluators,
    configure_loggers,
    configure_safety,
    use_fast_evaluation,
)
from ..config.demo import shrink_config
from ..config.hardware import (
    OURS,
    check_compiler,
    configure_loaders,
    configure_model_wrapper,
    configure_norms,
    configure_scoring,
    configure_strategy,
    set_strategy,
    strategy_of,
)
from ..config.inspect import dataset_configs, import_packages, task_of
from ..config.load import load_config, merge_options, name_of
from ..config.option_keys import check_keys
from ..config.options import ConfigOptions, PrintOptions, RunOptions, ScheduleOptions, build_options
from ..config.paths import check_paths
from ..config.regions import limit_regions
from ..config.retarget import KINDS, start_from_scratch, use_data
from ..config.schedule import apply_options
from ..data.request import DataRequest
from ..errors import UserError
from . import checkpoints, distributed
from .batch_size import find_batch_size
from .class_order import match_classes, recorded_classes
from .fine_tuning import set_start

Folder = TypeVar('Folder')


def configure(
    config: str | os.PathLike | Config, options: ConfigOptions | None = None, /, **given: Any
) -> Config:
    """Return a config with its data and settings, as ``print-config`` shows it.

    Args:
        config: a config, which is left as it is, its file, or the name of one of mmresnest.
        options: what is asked for.
        **given: options by keyword.

    Raises:
        UserError: if config or data cannot be used.
    """
    kind = PrintOptions if isinstance(options, PrintOptions) else ConfigOptions
    return _take_steps(CONFIG_STEPS, config, build_options(kind, options, given))


def prepare(
    config: str | os.PathLike | Config, options: RunOptions | None = None, /, **given: Any
) -> Config:
    """Return a config that can be run.

    Args:
        config: a config, which is left as it is, its file, or the name of one of mmresnest.
        options: what is asked for.
        **given: options by keyword.

    Raises:
        UserError: if config, data or checkpoint cannot be used.
    """
    return _take_steps(STEPS, config, build_options(RunOptions, options, given))


def _take_steps(
    steps: tuple[tuple[Any, ...], ...], config: str | os.PathLike | Config, options: ConfigOptions
) -> Config:
    cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
    for step, *names in steps:
        # None for an option that the command does not have, as `resume` of a test.
        step(cfg, *(getattr(options, name, None) for name in names))
    return cfg


def if_asked(step: Callable[..., Any]) -> Callable[..., None]:
    """Return a step that is taken only where the first option it names is given."""

    @wraps(step)
    def take_if_asked(cfg: Config, asked: Any, *more: Any) -> None:
        if asked:
            step(cfg, *more)

    return take_if_asked


def use_data_folder(
    cfg: Config,
    data: str | os.PathLike | None,
    demo: bool | None,
    launcher: str | None,
    mask_values: str | None,
    data_format: str | None,
    split: str | None,
) -> None:
    """Point the config at the folder given, or for a demo at the embedded data set."""
    folder = DataRequest.parse(data, mask_values, data_format, split)
    if demo or folder is not None:
        use_data(cfg, choose_data_folder(cfg, folder, launcher or 'none'))


def choose_data_folder(cfg: Config, data: Folder | None, launcher: str = 'none') -> Folder | Path:
    """Return the folder given, or the embedded data set in the layout of the config's task."""
    return draw_embedded_data(KINDS[task_of(cfg)], launcher) if data is None else data


def draw_embedded_data(layout: str, launcher: str = 'none') -> Path:
    """Return the embedded data set under ``data/shapes``, drawn if it is not there yet.

    It is drawn in all layouts, and one drawn with fewer serves where it has the one that is needed.
    """
    from ..data.shapes.dataset import LAYOUTS, STAMP, draw_dataset

    folder, first = Path('data') / 'shapes', distributed.rank_and_world_size(launcher)[1] == 0
    drawn = (folder / STAMP).exists()
    return draw_dataset(folder, layouts=[layout] if drawn else LAYOUTS, progress=first)


def set_schedule(cfg: Config, options: ScheduleOptions, launcher: str | None) -> None:
    """Obey the plain options: epochs, batch, size of images and their like."""
    if options.batch_size == 'auto':
        options = replace(options, batch_size=find_batch_size(cfg, options))
    apply_options(cfg, options, distributed.rank_and_world_size(launcher or 'none')[2])


def require_loops(cfg: Config, splits: tuple[str, ...]) -> None:
    """Make sure that the config says how to do what the run is for."""
    for split in splits[:1]:
        if cfg.get(f'{split}_dataloader') is None or cfg.get(f'{split}_cfg') is None:
            raise UserError(
                f'{name_of(cfg)} has no {split}_dataloader or {split}_cfg: there is nothing to '
                f'{split}',
                code='config.no-split',
            )


def set_work_dir(
    cfg: Config, work_dir: str | os.PathLike | None, demo: bool, arch: str | None
) -> None:
    """Set where checkpoints and logs go."""
    if work_dir is not None:
        cfg.work_dir = os.fspath(work_dir)
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', _name_run(cfg, demo, arch))


def _name_run(cfg: Config, demo: bool, arch: str | None = None) -> str:
    name = Path(cfg.filename).stem if cfg.filename else 'run'
    network = '_' + arch.replace('/', '_') if arch else ''
    return name + network + ('_demo' if demo else '')


def resolve_checkpoint(cfg: Config, resume: str | None) -> None:
    """Set what the run starts from, and check that file before anything is built."""
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume in ('auto', 'if-any') else resume
    if cfg.get('resume') and not cfg.get('load_from'):
        _find_last_checkpoint(cfg, needed=resume != 'if-any')
    source = cfg.get('load_from')
    flexible = cfg.get('runner_type') == 'FlexibleRunner'
    if source and '://' not in source and not (flexible and checkpoints.is_sharded(Path(source))):
        content = checkpoints.read_checkpoint(source)
        if cfg.get('resume') and 'optimizer' not in content:
            raise UserError(
                f'{source} holds weights only, and resuming needs the state of the '
                'optimizer too; to start a new run from these weights, give '
                f'--cfg-options load_from={source} without --resume',
                code='resume.weights-only',
            )
        if cfg.get('resume'):
            _check_resumed_classes(cfg, source, content)


def _check_resumed_classes(cfg: Config, source: str, content: dict[str, Any]) -> None:
    """Refuse to go on with classes that the heads were not trained on."""
    trained = recorded_classes(content)
    for leaf in dataset_configs((cfg.get('train_dataloader') or {}).get('dataset') or {}):
        given = (leaf.get('metainfo') or {}).get('classes')
        if isinstance(given, (list, tuple)) and match_classes(source, trained, given):
            raise UserError(
                f'{source} was trained with the classes in the order {", ".join(trained)}, and '
                f'the data have them as {", ".join(map(str, given))}: each head would learn '
                'other classes from here on; bring the data into the order of the checkpoint',
                code='checkpoint.other-classes',
            )


def _find_last_checkpoint(cfg: Config, needed: bool) -> None:
    folder = Path(cfg.work_dir)
    skipped: list[str] = []
    found = checkpoints.find_last(folder, skipped.append)
    for line in skipped:
        print_log(line, 'current', logging.WARNING)
    if found is not None:
        print_log(f'resumes from {found}', 'current')
        cfg.load_from = str(found)
    elif skipped:
        raise UserError(
            f'nothing to resume in {folder.absolute()}: none of its {len(skipped)} '
            f'checkpoints is whole ({skipped[0].partition("; ")[0]}); bring one back, '
            'or name another --work-dir to start from the beginning',
            code='resume.nothing',
        )
    elif needed:
        raise UserError(
            f'nothing to resume in {folder.absolute()}: no checkpoint is there; leave '
            '--resume out to start from the beginning, or name another --work-dir',
            code='resume.nothing',
        )
    else:
        print_log(
            f'{folder.absolute()} holds no checkpoint: the run starts from the beginning',
            'current',
            logging.WARNING,
        )
        cfg.resume = False


def set_launcher(cfg: Config, launcher: str) -> None:
    """Note what started the processes."""
    cfg.launcher = launcher


def note_command(cfg: Config) -> None:
    """Write the command into the config, for the report."""
    cfg.command = format_command()


def format_command() -> str:
    """Return the command that runs, as it was typed."""
    program, *arguments = sys.argv
    path = Path(program)  # `python -m mmresnest` has the name of a file
    name = (
        'mmresnest'
        if (path.parent.name if path.stem == '__main__' else path.stem) == 'mmresnest'
        else program
    )
    return shlex.join([name, *arguments])


def allow_mismatch(cfg: Config) -> None:
    """Have the loop resume though data, batch size or number of processes differ."""
    kind = cfg.train_cfg.get('type')
    if kind not in TYPES.values():
        raise UserError(
            f'--allow-mismatch is an option of our loops, and train_cfg.type is {kind}; set it '
            'to mmresnest.EpochBasedTrainLoop or mmresnest.IterBasedTrainLoop',
            code='option.conflict',
        )
    cfg.train_cfg.accept_changes = True


def set_randomness(cfg: Config, seed: int | None, deterministic: bool | None) -> None:
    """Set the seed, and the choice of algorithms."""
    if seed is not None or deterministic:
        cfg.randomness = {**cfg.get('randomness', {}), 'deterministic': bool(deterministic)}
        if seed is not None:
            cfg.randomness.seed = seed


def use_amp(cfg: Config) -> None:
    """Set up mixed precision: float16 with scaled losses on a GPU, bfloat16 elsewhere."""
    import torch

    from ..deploy import has_bfloat16

    wrapper = cfg.optim_wrapper
    if wrapper.get('type', 'OptimWrapper') not in (*CHECKED, *CHECKED.values()):
        raise UserError(
            f'--amp replaces the OptimWrapper, and {name_of(cfg)} has a {wrapper.type}; set mixed '
            'precision there',
            code='option.conflict',
        )
    # Scaled losses need all shards of a gradient checked before any of them is used.
    if torch.cuda.is_available() and strategy_of(cfg) != OURS:
        wrapper.type = CHECKED['AmpOptimWrapper']
        wrapper.setdefault('loss_scale', 'dynamic')
    else:
        wrapper.pop('loss_scale', None)
        wrapper.pop('dtype', None)
        wrapper.type = 'mmresnest.Bfloat16OptimWrapper'
        print_log('mixed precision: bfloat16, without loss scaling', 'current')
        if not torch.cuda.is_available() and not has_bfloat16():
            print_log(
                'this processor has neither AVX512-BF16 nor AMX: --amp saves memory here, and '
                'takes more time than float32',
                'current',
                logging.WARNING,
            )


def scale_learning_rate(cfg: Config) -> None:
    """Have the learning rate follow the batch size."""
    if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
        raise UserError(
            '--auto-scale-lr needs the batch size that the learning rate of '
            f'{name_of(cfg)} is meant for: add auto_scale_lr = dict(base_batch_size=16), or what '
            'it is',
            code='config.incomplete',
        )
    cfg.auto_scale_lr.enable = True


def name_visualizer(cfg: Config, demo: bool) -> None:
    """Give the visualizer a name of its own.

    mmengine keeps visualizers by name for as long as the process lives, so that a second run would
    write its curves into the folder of the first.
    """
    if cfg.get('visualizer') is not None:
        cfg.visualizer.name = f'{_name_run(cfg, demo)}_{time.time_ns()}'


def make_work_dir(cfg: Config) -> None:
    """Make the work folder."""
    try:
        os.makedirs(cfg.work_dir, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'the work folder {cfg.work_dir} cannot be made: {error.strerror}; choose '
            'another with --work-dir',
            code='file.unwritable',
        ) from error


CONFIG_STEPS: tuple[tuple[Any, ...], ...] = (
    (if_asked(set_architecture), 'arch', 'arch', 'from_scratch', 'demo', 'trains'),
    (use_data_folder, 'data', 'demo', 'launcher', 'mask_values', 'data_format', 'split'),
    (if_asked(select_classes), 'scored_classes', 'scored_classes'),
    (if_asked(start_from_scratch), 'from_scratch'),
    (if_asked(shrink_config), 'demo'),
    (if_asked(set_strategy), 'strategy', 'strategy'),
    (if_asked(set_schedule), 'plain_options', 'plain_options', 'launcher'),
    (if_asked(check_keys), 'cfg_options', 'cfg_options'),
    (merge_options, 'cfg_options'),
)
"""What makes the config that is printed: a step, and the options that it reads."""

STEPS: tuple[tuple[Any, ...], ...] = (
    *CONFIG_STEPS,
    (limit_regions, 'max_regions'),
    (check_paths, 'splits'),
    (require_loops, 'splits'),
    (set_work_dir, 'work_dir', 'demo', 'arch'),
    (set_launcher, 'launcher'),
    (resolve_checkpoint, 'resume'),
    (if_asked(set_start), 'load_from', 'load_from', 'resume', 'from_scratch'),
    (import_packages,),
    (configure_safety,),
    (configure_evaluators,),
    (configure_loggers, 'logger'),
    (if_asked(use_fast_evaluation), 'fast_eval', 'scored_split'),
    (if_asked(note_command), 'trains'),
    (if_asked(allow_mismatch), 'allow_mismatch'),
    (set_randomness, 'seed', 'deterministic'),
    (if_asked(use_amp), 'amp'),
    (if_asked(scale_learning_rate), 'auto_scale_lr'),
    (if_asked(check_compiler), 'compile'),
    (configure_model_wrapper,),
    (configure_norms, 'is_distributed'),
    (configure_loaders, 'workers', 'cfg_options'),
    (configure_scoring, 'fuse'),
    (if_asked(configure_strategy), 'trains'),
    (check_annotations, 'splits', 'data', 'demo'),
    (name_visualizer, 'demo'),
    (make_work_dir,),
)
"""What makes the config that is run."""
