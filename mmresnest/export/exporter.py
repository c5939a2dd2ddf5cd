"""Models as files that run elsewhere, each run at once and compared: ``mmresnest export``."""

from __future__ import annotations

import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..config.load import load_config
from ..deploy import fold, fuse
from ..engine import checkpoints
from ..engine.prepare import data_for
from ..errors import UserError, nearest
from ..inference import inputs as sources
from ..inference.exported import ExportedModel
from ..inference.outputs import check_folder
from ..inference.predictor import Predictor
from ..inference.results import PanopticSegmentation, Result
from ..inference.scoring import check_scored, main_score, score
from ..models.fast import plain
from ..utils.files import no_empty_folders
from . import formats
from .compare import LIMITS, Cut, Difference, differences, refuse_differences, result_differences
from .formats import FORMATS
from .graphs import DetectorGraph, FeatureGraph, SegmentorGraph
from .operators import NATIVE
from .plan import LEAST, describe, inputs_for, pictures_for, plan_for
from .quantize import QUANTISERS

PARTS = ('whole', 'neck', 'backbone')
ROUNDS = 5  # of timing
MOST_CALIBRATION = 100  # pictures that scales are found from
MAX_DROP = 0.02  # of the score by int8


@dataclass(frozen=True)
class ExportResult:
    """A file, and how it does.

    Attributes:
        files: that were written.
        about: the description in the file.
        differences: from the framework, and from the graph that was written.
        objects: how many objects, or pixels, were compared.
        milliseconds: of a batch, by what computed it.
        scores: on the test split, by precision; of int8 only.
        notes: what the user should know.
        seconds: wall time of the whole call.
    """

    files: list[Path]
    about: dict[str, Any]
    differences: dict[str, list[Difference]]
    objects: int
    milliseconds: dict[str, float]
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def export(
    config: str | os.PathLike | Config,
    checkpoint: str | os.PathLike,
    *,
    to: str = 'onnx',
    part: str = 'whole',
    out: str | os.PathLike | None = None,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    dynamic: bool = False,
    half: bool = False,
    int8: str | os.PathLike | None = None,
    max_drop: float | None = None,
    pictures: Sequence[str | os.PathLike] = (),
    data: str | os.PathLike | None = None,
    demo: bool = False,
    options: Mapping[str, Any] | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> ExportResult:
    """Writes a model as a file, runs it, and compares.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest.
        checkpoint: weights of the config's model.
        to: ``onnx``, ``openvino``, ``torch-export`` or ``torchscript``.
        part: ``whole``, with what lies before and behind the network; ``neck``, the maps of
            backbone and neck; or ``backbone``.
        out: the file; by default named as the config, in the current folder.
        size: height and width of the input, where they are fixed; by default what the test pipeline
            makes of a picture that fills it.
        batch: images at once, where sizes are fixed.
        dynamic: take any number of images, of any size.
        half: compute in float16; boxes, and outputs, stay in float32.
        int8: a folder of pictures to find the scales of 8-bit layers from; scores on the test split
            say what they cost.
        max_drop: by how much of 1 int8 may lower the score, 0.02 by default.
        pictures: to compare on; by default the first of the test split, or drawn ones.
        data: see :class:`~.predictor.Predictor`; with ``int8`` also what is scored on.
        demo: the checkpoint is of ``train(..., demo=True)``; with ``int8`` and without ``data``
            what that trains on is drawn, if it is not there yet.
        options: settings to override, dotted names to values.
        force: replace a file.
        say: is told what is done.

    Returns:
        files and figures.

    Raises:
        UserError: something given cannot be used, the format cannot hold the model, or the file's
            results are not those of the model. Nothing is left behind then.
    """
    start = time.monotonic()
    _check(to, part, size, batch, dynamic, half, int8, max_drop)
    path = _target(config, to, out, force)
    formats.check_installed(to)
    if demo and int8 is not None:  # what is scored on is there, or drawn
        checkpoints.read(checkpoint)
        data = data_for(config if isinstance(config, Config) else load_config(config), data)
    calibration = [] if int8 is None else _calibration(int8, say)
    predictor = Predictor(
        config, checkpoint, 'cpu', 0.0, data=data, demo=demo, options=options, fused=False
    )
    plain(predictor.model)
    plan = plan_for(predictor, to, part, size, batch, dynamic)
    images = pictures_for(predictor.config, pictures)
    about = describe(predictor, plan, part, 'float16' if half else 'float32', checkpoint)
    if int8 is not None:
        check_scored(predictor.config)
    graph = build(predictor.model, part, torch.float32)
    about['lowest'] = getattr(graph, 'lowest', 0.0)
    found: dict[str, list[Difference]] = {}
    notes: list[str] = []
    objects = 0
    if part == 'whole':
        say(f'comparing the graph with the framework on {len(images)} pictures')
        found['graph and framework'], objects = _against_framework(predictor, graph, about, images)
        if not objects:
            notes.append(
                'nothing was found on the pictures that were compared: give some with --try'
            )
        if plan.height is not None:
            notes.append(
                f'pictures are scaled to fit into {plan.height}x{plan.width} and padded, '
                'those of another shape more than in a test; with --dynamic they are not'
            )
    inputs = inputs_for(plan, part, images, about)
    with torch.inference_mode():
        expected = [formats.arrays_of(graph(*batch)) for batch in inputs]
    about['outputs'] = list(getattr(graph, 'outputs', ())) or [
        f'map{number}' for number in range(len(expected[0]))
    ]
    written = build(predictor.model, part, torch.float16) if half else graph
    scores: dict[str, dict[str, float]] = {}
    with _beside(path) as file, _told(to, path):
        say(f'writing {to}')
        FORMATS[to].write(written, inputs[0], file, plan, about)
        say('running it')
        run = FORMATS[to].load(file)
        found.update(_against_graph(run, about, inputs, expected))
        if int8 is not None:
            file, scores = _quantise(
                predictor, to, file, calibration, MAX_DROP if max_drop is None else max_drop, say
            )
            about['precision'] = 'int8'
            run = FORMATS[to].load(file)
        times = _times(predictor, part, run, inputs[0], to)
        files = FORMATS[to].files(path)
        for new, place in reversed(list(zip(FORMATS[to].files(file), files))):
            os.replace(new, place)  # the file that is opened comes last
    return ExportResult(
        files, about, found, objects, times, scores, notes, time.monotonic() - start
    )


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A file in a folder of its own beside its place, which is gone afterwards."""
    with no_empty_folders(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f'.{path.stem}.', dir=path.parent) as folder:
            yield Path(folder, path.name)


@contextmanager
def _told(to: str, path: Path) -> Iterator[None]:
    """Says of what exporters and runtimes raise, of many kinds, what can be done about it."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f'{path} cannot be written: {error.strerror or error}; make room, or name another --out'
        ) from error
    except Exception as error:
        root: BaseException = error
        while root.__cause__ is not None:  # what lies about it advises to mend the exporter
            root = root.__cause__
        lines = str(root).strip().splitlines() or [type(root).__name__]
        raise UserError(
            f'{to} cannot hold or run this model: {lines[0][:300]}; try another --to or --part'
        ) from error


# ---- what is asked for ---------------------------------------------------------------------------


def _check(
    to: str,
    part: str,
    size: tuple[int, int] | None,
    batch: int,
    dynamic: bool,
    half: bool,
    int8: Any,
    max_drop: float | None,
) -> None:
    """Makes sure that what is asked for is known and goes together."""
    if to not in FORMATS:
        raise UserError(f'--to {to}: there is no such format; {nearest(to, FORMATS)}')
    if part not in PARTS:
        raise UserError(f'--part {part}: there is no such part; {nearest(part, PARTS)}')
    if batch < 1:
        raise UserError(f'--batch {batch}: a batch has at least one image')
    if size is not None and min(size) < LEAST:
        raise UserError(f'--size {size[0]}x{size[1]}: a side has at least {LEAST} pixels')
    if dynamic and (size is not None or batch > 1):
        raise UserError(
            '--dynamic takes any size and number of images; leave --size and --batch out'
        )
    if half and int8 is not None:
        raise UserError('--half and --int8 are two precisions; give one of them')
    if max_drop is not None and int8 is None:
        raise UserError('--max-drop is of the score by --int8; give that too, or leave it out')
    if int8 is not None and (to not in QUANTISERS or part != 'whole'):
        raise UserError(
            '--int8 is judged by the score of whole models in '
            f'{" or ".join(QUANTISERS)}, whose runtimes have a quantiser; this is '
            f'--to {to} --part {part}'
        )


def _target(config: Any, to: str, out: Any, force: bool) -> Path:
    """The file to write.

    Raises:
        UserError: it cannot be made, or is there already.
    """
    suffix = FORMATS[to].suffix
    name = config.filename if isinstance(config, Config) else config
    path = Path(f'{Path(name or "model").stem}{suffix}' if out is None else out).expanduser()
    if path.suffix != suffix:
        raise UserError(f'--out {path}: a file of {to} ends in {suffix}')
    for file in FORMATS[to].files(path):
        if file.is_dir() or (file.exists() and not force):
            raise UserError(
                f'--out {path}: {file} exists; name another, or give --force to replace it'
            )
    check_folder(path.parent, '--out')
    return path


# ---- graphs and their inputs ---------------------------------------------------------------------


def build(model: nn.Module, part: str, dtype: torch.dtype) -> nn.Module:
    """The graph of a model, on weights of its own, norms folded.

    Args:
        model: a detector or segmentor in evaluation, in its definition.
        part: ``whole``, ``neck`` or ``backbone``.
        dtype: that is computed in.

    Raises:
        UserError: the model has a part that cannot be exported.
    """
    deformable = sorted(
        {type(module).__name__ for module in model.modules() if hasattr(module, 'conv_offset')}
    )
    if deformable:
        raise UserError(
            f'the model has deformable convolutions ({", ".join(deformable)}), which '
            'the runtimes do not all have; export one without'
        )
    return graph_of(fold(copy.deepcopy(model)), part, dtype)


def graph_of(model: nn.Module, part: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The graph on the layers of a model as they are; see :func:`build`."""
    graph: nn.Module
    if part != 'whole':
        graph = FeatureGraph(model, part, dtype)
    elif hasattr(model, 'decode_head'):
        graph = SegmentorGraph(model, dtype)
    else:
        graph = DetectorGraph(model, dtype, NATIVE)
    return graph.eval().requires_grad_(False)


# ---- comparing and timing ------------------------------------------------------------------------


class GraphSession:
    """A graph that is asked as an exported file is, with any size.

    Args:
        graph: that takes 8-bit images and sizes.
        about: the description of the file it will be.
    """

    def __init__(self, graph: nn.Module, about: dict[str, Any]) -> None:
        form = {**about['input'], 'batch': None, 'height': None, 'width': None, 'least': 1}
        self.graph, self.about = graph, {**about, 'input': form}

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Computes."""
        return formats.as_arrays(self.graph)(*inputs)


def _against_framework(
    predictor: Predictor, graph: nn.Module, about: dict[str, Any], images: list[np.ndarray]
) -> tuple[list[Difference], int]:
    """How far the graph's results are from those of mmdet or mmseg, and of how many objects."""
    ours = ExportedModel(GraphSession(graph, about), 0.0)
    pairs = [(predictor(image), ours(image)) for image in images]
    worst: dict[str, Difference] = {}
    cut = Cut(about['lowest'], getattr(graph, 'most', 0))
    for one, other in pairs:
        for each in result_differences(one, other, LIMITS['float32'], cut):
            if each.what not in worst or not each.value <= worst[each.what].value:
                worst[each.what] = each
    refuse_differences({'graph and framework': list(worst.values())})
    return list(worst.values()), sum(map(_count, (one for one, _ in pairs)))


def _against_graph(
    run: Callable[..., list[np.ndarray]],
    about: dict[str, Any],
    inputs: list[tuple[Tensor, ...]],
    expected: list[list[np.ndarray]],
) -> dict[str, list[Difference]]:
    """How far a file's outputs are from those of the graph.

    Raises:
        UserError: beyond rounding.
    """
    found = {}
    for batch, reference in zip(inputs, expected):
        size = 'x'.join(map(str, batch[0].shape))
        found[f'file and graph, {size}'] = differences(
            about['outputs'],
            reference,
            run(*(one.numpy() for one in batch)),
            LIMITS[about['precision']],
            about['lowest'],
        )
    refuse_differences(found)
    return found


def _count(result: Result) -> int:
    assert not isinstance(result, PanopticSegmentation)
    return result.labels.size


def _times(
    predictor: Predictor, part: str, run: Callable, inputs: tuple[Tensor, ...], to: str
) -> dict[str, float]:
    """Milliseconds of a batch: of PyTorch as it is, of our deployed form, and of the file."""
    arrays = [one.numpy() for one in inputs]
    eager = graph_of(predictor.model, part)
    deployed = graph_of(fuse(predictor.model), part)
    calls: dict[str, Callable[[], Any]] = {
        'PyTorch': lambda: eager(*inputs),
        'PyTorch, fused': lambda: deployed(*inputs),
        to: lambda: run(*arrays),
    }
    taken: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for call in calls.values():
            call()  # memory is laid out
        for _ in range(ROUNDS):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                taken[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in taken.items()}


def _calibration(folder: str | os.PathLike, say: Callable[[str], None]) -> list[np.ndarray]:
    """The pictures of a folder, the first ones; what is none is named and left out.

    Raises:
        UserError: there is none.
    """
    found: list[np.ndarray] = []
    for source in sources.find([folder]):
        if source.video or len(found) == MOST_CALIBRATION:
            continue
        try:
            found.append(sources.read_image(source.path))
        except sources.BadImage as error:
            say(f'left out: {error}')
    if not found:
        raise UserError(
            f'--int8 {folder}: none of its files is a picture; name a folder of '
            'pictures like those of the task'
        )
    return found


# ---- int8 ----------------------------------------------------------------------------------------


def _quantise(
    predictor: Predictor,
    to: str,
    file: Path,
    calibration: list[np.ndarray],
    max_drop: float,
    say: Callable[[str], None],
) -> tuple[Path, dict[str, dict[str, float]]]:
    """Writes the file anew with 8-bit layers, and scores both.

    Raises:
        UserError: the score drops too far, or there is nothing to score on.
    """
    say(f'finding scales on {len(calibration)} pictures')
    out = file.with_name(f'int8{file.suffix}')
    QUANTISERS[to](file, out, _flowing(file, calibration))
    scores = {}
    for name, one in (('float32', file), ('int8', out)):
        say(f'scoring {name}')
        scores[name] = score(ExportedModel(one, 0.0, 'cpu'), predictor.config)
    if not main_score(scores['float32']) > 0:
        raise UserError(
            'the model scores nothing on these data even in float32, so the drop says '
            'nothing; give the --data that it was trained for'
        )
    drop = main_score(scores['float32']) - main_score(scores['int8'])
    if not drop <= max_drop:
        raise UserError(
            f'int8 lowers the score by {drop:.3f} of 1, and --max-drop is '
            f'{max_drop:g}; give more pictures like those of the task to --int8, '
            'allow more, or export --half'
        )
    return out, scores


def _flowing(file: Path, calibration: list[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
    """The inputs of the file for some pictures; of a window that slides, its first place."""
    asked = ExportedModel(file, 0.0, 'cpu')
    window = asked.about['window']
    batches: list[tuple[np.ndarray, ...]] = []
    for picture in calibration:
        _, (image, _) = asked.prepare(picture)
        if window is not None:
            image = image[: window['size'][0], : window['size'][1]]
        batches.append(asked.inputs_of(image.transpose(2, 0, 1)[None]))
    return batches
