"""Test, as one function."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..config.checks.part import list_parts
from ..config.hardware import WHOLE
from ..config.inspect import dataset_configs, is_scored, list_evaluators, task_of, type_of
from ..config.load import name_of
from ..config.options import TestOptions, build_options
from ..config.retarget import drop_annotations
from ..data.json_files import has_annotations
from ..errors import UserError
from ..registry import HOOKS
from . import checkpoints, distributed
from .class_order import follow_data
from .hooks.scores import SavePredictions
from .prepare import prepare
from .quiet_start import hide_start, log_threads
from .runner import (
    build_runner,
    compile_parts,
    explain_build_errors,
    explain_run_errors,
    release_on_exit,
    show_progress,
    to_floats,
)
from .trained_run import resolve_run
from .tta import use_tta


@dataclass(frozen=True)
class TestResult:
    """What a test found.

    Attributes:
        metrics: scores on the test split; on the validation split where the data have no other.
        seconds: wall time of the whole call.
        files: what was written because of ``out`` and ``show_dir``.
        scored: whether there were annotations; without, ``metrics`` is empty.
    """

    __test__ = False  # pytest takes a class by its name for a test

    metrics: dict[str, float]
    seconds: float
    files: list[Path] = field(default_factory=list)
    scored: bool = True


def test(
    config: str | os.PathLike | Config,
    checkpoint: str | os.PathLike | None = None,
    options: TestOptions | None = None,
    /,
    **given: Any,
) -> TestResult:
    """Score a checkpoint on the test split.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest; or the work folder
            of a training, of which config, data, classes and checkpoint are taken.
        checkpoint: weights of the config's model; None for the best of the work folder.
        options: what is asked for, see :class:`~mmresnest.config.options.TestOptions`.
        **given: options by keyword, such as ``tta=True``.

    Returns:
        scores and files.

    Raises:
        UserError: if config, data or checkpoint cannot be used.
    """
    start = time.monotonic()
    options = build_options(TestOptions, options, given)
    if options.runtime is not None and options.compile:
        raise UserError(
            '--compile compiles backbone and neck, which --runtime replaces; give one of them',
            code='option.conflict',
        )
    exported = None
    if options.runtime is not None:
        exported = HOOKS.build(dict(type='mmresnest.RunExported', runtime=options.runtime))
    config, checkpoint, folder = resolve_run(config, checkpoint)
    if folder is not None and options.work_dir is None:  # the training's own config stays there
        options = replace(options, work_dir=folder / 'test')
    content = checkpoints.read_checkpoint(checkpoint)
    # The checkpoint takes the place of whatever the config would start a training from.
    settings = {**(options.cfg_options or {}), 'load_from': None, 'resume': False, **WHOLE}
    with distributed.process_group(options.launcher):
        cfg = prepare(config, replace(options, cfg_options=settings))
        cfg.load_from = str(checkpoint)
        if options.tta:
            use_tta(cfg)
        out, show_dir = options.out, options.show_dir
        _leave_unscored(cfg)
        scored = is_scored(cfg, 'test')
        if not scored:
            _prepare_submission(cfg, out, show_dir)
        dump = None if out is None else _prepare_out(cfg, Path(out).expanduser())
        with explain_build_errors(cfg):
            with hide_start(ends=False) as shown:
                runner = build_runner(cfg)
                log_threads()
            shown.holds = False
            loop = runner.test_loop
            metainfo = loop.dataloader.dataset.metainfo
            checkpoints.check_fit(checkpoint, content, runner.model, metainfo.get('classes') or ())
            if options.compile:
                compile_parts(runner.model)
            follow_data(checkpoint, content, runner.model, metainfo)
        del content  # the runner reads it once more
        if dump is not None:
            loop.evaluator.metrics.append(dump)
        if exported is not None:
            runner.register_hook(exported)
        if show_dir is not None:
            runner.register_hook(SavePredictions(str(Path(show_dir).expanduser().absolute())))
        show_progress(runner, options.progress)
        with explain_run_errors(cfg), release_on_exit(runner):
            metrics = runner.test()
        return TestResult(
            to_floats(metrics),
            time.monotonic() - start,
            list(_written_files(out, show_dir)),
            scored,
        )


def _leave_unscored(cfg: Config) -> None:
    """Have the evaluators score nothing where no annotation file has annotations."""
    files = [part.path for part in list_parts(cfg, ('test',)) if part.kind == 'coco']
    for evaluator in list_evaluators(cfg.test_evaluator) if files else ():
        if type_of(evaluator) in ('CocoMetric', 'FastCocoMetric'):
            given = evaluator.get('ann_file')
            if not any(map(has_annotations, [Path(given)] if given else files)):
                evaluator['format_only'] = True


def _prepare_submission(cfg: Config, out: Any, show_dir: Any) -> None:
    """Have a split without annotations predicted on, and nothing scored."""
    if out is None and show_dir is None:
        raise UserError(
            f'the test split of {name_of(cfg)} has no annotations, so that nothing can be scored; '
            'give --out FILE to write the predictions, or give the test split annotations',
            code='data.not-scored',
        )
    print_log('the test images have no annotations: nothing is scored', 'current')
    if task_of(cfg) == 'semantic':
        for leaf in dataset_configs(cfg.test_dataloader.dataset):
            leaf.pipeline = drop_annotations(leaf.pipeline)
    written_by_metric = out is not None and Path(out).suffix in ('', '.json')
    if not written_by_metric:
        cfg.test_evaluator = []


def _prepare_out(cfg: Config, out: Path) -> Any:
    """Arrange for the predictions to be written.

    Returns:
        a metric to append that writes them, or None where one of the config's own does.
    """
    semantic = task_of(cfg) == 'semantic'
    legal = '.pkl, or a folder for label images' if semantic else '.pkl or .json'
    kinds = ('', '.pkl', '.pickle') if semantic else ('.json', '.pkl', '.pickle')
    if out.suffix not in kinds:
        raise UserError(
            f'--out {out}: predictions of this config are written as {legal}', code='option.suffix'
        )
    try:
        (out if not out.suffix else out.parent).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'--out {out}: the folder cannot be made: {error.strerror}', code='file.unwritable'
        ) from error
    if out.suffix == '':
        for evaluator in list_evaluators(cfg.test_evaluator):
            evaluator['output_dir'] = str(out)
    elif out.suffix == '.json':
        for evaluator in list_evaluators(cfg.test_evaluator):
            evaluator['outfile_prefix'] = str(out.with_suffix(''))
    elif semantic:
        return _build_label_dump(str(out))
    else:
        from mmdet.evaluation import DumpDetResults

        return DumpDetResults(out_file_path=str(out))
    return None


def _build_label_dump(path: str) -> Any:
    from mmengine.evaluator import DumpResults

    class DumpLabels(DumpResults):
        """Leaves out ground truth and class scores, a hundred times the size of the labels."""

        def process(self, data_batch: dict, predictions: Any) -> None:
            super().process(
                data_batch,
                [
                    {
                        key: value
                        for key, value in sample.items()
                        if key not in ('seg_logits', 'gt_sem_seg')
                    }
                    for sample in predictions
                ],
            )

    return DumpLabels(out_file_path=path)


def _written_files(
    out: str | os.PathLike | None, show_dir: str | os.PathLike | None
) -> Iterator[Path]:
    from mmengine.dist import is_main_process

    if out is not None:
        path = Path(out).expanduser()
        parts = [path.with_suffix(f'.{kind}.json') for kind in ('bbox', 'segm', 'panoptic')]
        parts = [part for part in parts if path.suffix == '.json' and part.exists()]
        if len(parts) == 1 and is_main_process():
            parts[0].replace(path)
        yield from parts if len(parts) > 1 else [path]
    if show_dir is not None:
        yield Path(show_dir).expanduser()
