"""Export models to files, and compare each file with its model: ``mmresnest export``."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from ..config.architecture import load_with_arch
from ..config.load import load_config
from ..config.options import build_options
from ..data.request import DataRequest
from ..engine import checkpoints
from ..engine.prepare import choose_data_folder
from ..engine.trained_run import resolve_run
from ..errors import UserError, nearest
from ..inference.outputs import check_folder
from ..inference.predictor import Predictor
from ..inference.scoring import check_scorable
from ..models import fast
from ..utils.files import no_empty_folders
from . import formats
from .compare import Difference
from .formats import FORMATS, Shapes
from .graphs import build_graph
from .options import PARTS, ExportOptions
from .plan import MIN_SIDE, build_metadata, comparison_images, comparison_inputs, plan_shapes
from .quantize import QUANTIZERS, quantize_and_score, read_calibration_images
from .verify import compare_with_framework, compare_with_graph, time_forms

MAX_DROP = 0.02
"""How far int8 may lower the score by default, as a fraction of 1."""


@dataclass
class ExportResult:
    """An exported file, and what was measured of it.

    Attributes:
        files: that were written.
        metadata: the description in the file.
        differences: from the framework, and from the graph that was written.
        objects: how many objects, or pixels, were compared.
        milliseconds: of a batch, by what computes it.
        scores: on the test split, by precision; of int8 only.
        notes: what the user should know.
        seconds: wall time of the whole call.
    """

    files: list[Path]
    metadata: dict[str, Any]
    differences: dict[str, list[Difference]]
    objects: int
    milliseconds: dict[str, float]
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def export(
    config: str | os.PathLike | Config,
    checkpoint: str | os.PathLike | None = None,
    options: ExportOptions | None = None,
    /,
    *,
    say: Callable[[str], None] = lambda line: None,
    **given: Any,
) -> ExportResult:
    """Write a model as a file, run it, and compare.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest; or the work folder
            of a training, of which config and checkpoint are taken, and where the file goes.
        checkpoint: weights of the config's model; None for the best of the work folder.
        options: what is asked for, see :class:`~mmresnest.export.options.ExportOptions`.
        say: is called with each thing that is done.
        **given: options by keyword, such as ``format='openvino'``.

    Returns:
        files and figures.

    Raises:
        UserError: something given cannot be used, the format cannot hold the model, or the file's
            results are not those of the model. Nothing is left behind then.
    """
    start = time.monotonic()
    options = build_options(ExportOptions, options, given)
    _check_options(options)
    config, checkpoint, folder = resolve_run(config, checkpoint)
    config = load_with_arch(config, options.arch)
    to, part, int8 = options.format, options.part, options.int8
    path = _output_path(config, folder, options)
    formats.check_installed(to)
    calibration = [] if int8 is None else read_calibration_images(int8, say)
    predictor = _load_predictor(config, checkpoint, options)
    plan = plan_shapes(predictor, to, part, options.size, options.batch, options.dynamic)
    images = comparison_images(predictor.config, options.sample_images)
    precision = 'float16' if options.half else 'float32'
    metadata = build_metadata(predictor, plan, part, precision, checkpoint)
    if int8 is not None:
        check_scorable(predictor.config, predictor.names)
    graph = build_graph(predictor.model, part, torch.float32)
    metadata['lowest'] = getattr(graph, 'score_thr', 0.0)
    result = ExportResult(FORMATS[to].list_files(path), metadata, {}, 0, {})
    if part == 'model':
        say(f'comparing the graph with the framework on {len(images)} images')
        found, result.objects = compare_with_framework(predictor, graph, metadata, images)
        result.differences['graph and framework'] = found
        result.notes += _notes_on_comparison(result.objects, plan)
    inputs = comparison_inputs(plan, part, images, metadata)
    with torch.inference_mode():
        expected = [formats.to_arrays(graph(*batch)) for batch in inputs]
    metadata['outputs'] = list(getattr(graph, 'outputs', ())) or [
        f'map{number}' for number in range(len(expected[0]))
    ]
    written = build_graph(predictor.model, part, torch.float16) if options.half else graph
    with _temporary_sibling(path) as file, _explain_export_errors(to, path):
        say(f'writing {to}')
        FORMATS[to].write(written, inputs[0], file, plan, metadata)
        say('running it')
        run = FORMATS[to].load(file)
        result.differences.update(compare_with_graph(run, metadata, inputs, expected))
        if int8 is not None:
            max_drop = MAX_DROP if options.max_drop is None else options.max_drop
            file, result.scores = quantize_and_score(
                predictor, to, file, calibration, max_drop, say
            )
            metadata['precision'] = 'int8'
            run = FORMATS[to].load(file)
        result.milliseconds.update(time_forms(predictor, part, run, inputs[0], to))
        for new, place in reversed(list(zip(FORMATS[to].list_files(file), result.files))):
            os.replace(new, place)  # the file that is opened comes last
    result.seconds = time.monotonic() - start
    return result


def _load_predictor(
    config: str | os.PathLike | Config, checkpoint: str | os.PathLike, options: ExportOptions
) -> Predictor:
    """Load the model on the CPU, in its definition, ready to be copied into graphs."""
    data: DataRequest | Path | None = DataRequest.parse(
        options.data, options.mask_values, options.data_format, options.split
    )
    if options.demo and options.int8 is not None:  # the data of the demo are drawn if missing
        checkpoints.read_checkpoint(checkpoint)
        data = choose_data_folder(
            config if isinstance(config, Config) else load_config(config), data
        )
    predictor = Predictor(
        config,
        checkpoint,
        'cpu',
        0.0,
        data=data,
        demo=options.demo,
        options=options.cfg_options,
        fused=False,
    )
    fast.disable(predictor.model)
    return predictor


def _notes_on_comparison(objects: int, plan: Shapes) -> list[str]:
    notes = []
    if not objects:
        notes.append(
            'nothing was found on the images that were compared: name others with --sample-images'
        )
    if plan.height is not None:
        notes.append(
            f'images are scaled to fit into {plan.height}x{plan.width} and padded, '
            'those of another shape more than in a test; with --dynamic they are not'
        )
    return notes


@contextmanager
def _temporary_sibling(path: Path) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder beside a file."""
    with no_empty_folders(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f'.{path.stem}.', dir=path.parent) as folder:
            yield Path(folder, path.name)


@contextmanager
def _explain_export_errors(to: str, path: Path) -> Iterator[None]:
    """Raise the many kinds of errors of exporters and runtimes as one, with the remedy."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f'{path} cannot be written: {error.strerror or error}; make room, or name another '
            '--out',
            code='file.unwritable',
        ) from error
    except Exception as error:
        root: BaseException = error
        while root.__cause__ is not None:  # the outer errors advise to debug the exporter
            root = root.__cause__
        lines = str(root).strip().splitlines() or [type(root).__name__]
        raise UserError(
            f'{to} cannot hold or run this model: {lines[0][:300]}; try another --format or --part',
            code='export.failed',
        ) from error


def _check_options(options: ExportOptions) -> None:
    """Refuse options that are unknown or contradict each other."""
    to, part, size, int8 = options.format, options.part, options.size, options.int8
    if to not in FORMATS:
        raise UserError(
            f'--format {to}: there is no such format; {nearest(to, FORMATS)}', code='option.unknown'
        )
    if part not in PARTS:
        raise UserError(
            f'--part {part}: there is no such part; {nearest(part, PARTS)}', code='option.unknown'
        )
    if options.batch < 1:
        raise UserError(
            f'--batch {options.batch}: a batch has at least one image', code='option.value'
        )
    if size is not None and min(size) < MIN_SIDE:
        raise UserError(
            f'--size {size[0]}x{size[1]}: a side has at least {MIN_SIDE} pixels',
            code='option.value',
        )
    if options.dynamic and (size is not None or options.batch > 1):
        raise UserError(
            '--dynamic takes any size and number of images; leave --size and --batch out',
            code='option.conflict',
        )
    if options.half and int8 is not None:
        raise UserError(
            '--half and --int8 are two precisions; give one of them', code='option.conflict'
        )
    if options.max_drop is not None and int8 is None:
        raise UserError(
            '--max-drop limits the drop of the score by --int8; give that too, or leave it out',
            code='option.conflict',
        )
    if int8 is not None and (to not in QUANTIZERS or part != 'model'):
        raise UserError(
            '--int8 is judged by the score of whole models in '
            f'{" or ".join(QUANTIZERS)}, whose runtimes have a quantizer; this is '
            f'--format {to} --part {part}',
            code='option.conflict',
        )


def _output_path(config: Any, folder: Path | None, options: ExportOptions) -> Path:
    """Return the file to write.

    Raises:
        UserError: it cannot be made, or exists already.
    """
    to, out = options.format, options.out
    suffix = FORMATS[to].suffix
    name = config.filename if isinstance(config, Config) else config
    default = Path(folder or '', f'{Path(name or "model").stem}{suffix}')
    path = default if out is None else Path(out).expanduser()
    if path.suffix != suffix:
        raise UserError(f'--out {path}: a file of {to} ends in {suffix}', code='option.suffix')
    for file in FORMATS[to].list_files(path):
        if file.is_dir() or (file.exists() and not options.force):
            raise UserError(
                f'--out {path}: {file} exists; name another, or give --force to replace it',
                code='option.exists',
            )
    check_folder(path.parent, '--out')
    return path
