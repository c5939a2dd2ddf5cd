"""Measure time and memory of a network's forms, and of other implementations of the network.

All forms of a network are run in turn, one step of each per round, so that other load on the
machine affects all of them alike. Figures are the median over the rounds and the quartiles.

    mmdet           its own class with the same weights; for SE-ResNeXt its ResNeXt with plain gates
    mmdet-compiled  the same through ``torch.compile``
    timm            its network of that name, in channels_last
    onnxruntime, openvino       mmdet's class, exported (inference)
    plain, lean, fused          ours: the definition, ``fast.enable`` (in training with
                                ``save_memory``), and ``deploy.fuse`` (inference)
    compiled, fused-compiled    ours through ``torch.compile``
    convolutions    the bound: the network's convolutions alone, one by one, in channels_last

A form that cannot run here is left out, with the reason. Bytes saved are those that a forward pass
in training leaves allocated, the peak is that of a whole step, both without weights and gradients.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from ..errors import UserError, nearest
from ..models.trunk import ResTrunk
from ..models.variants import variant
from ..utils.text import align_columns
from .benchmark_forms import (
    DTYPES,
    BenchmarkCase,
    FormUnavailable,
    Step,
    make_step,
    prepare_form,
    synchronize_device,
    time_step,
)

OURS = ('plain', 'lean', 'fused', 'compiled')
MODES = ('inference', 'training')


@dataclass(frozen=True)
class BenchmarkRow:
    """One form's figures; times in milliseconds, memory in MiB."""

    arch: str
    mode: str
    size: str
    dtype: str
    device: str
    form: str
    median: float
    quartiles: tuple[float, float]
    cpu: float  # processor time, which other programs hardly change
    speed: float  # of the first form's; above 1 is faster
    saved: float | None = None
    peak: float | None = None


class StartedForm(NamedTuple):
    """A form that is ready to be timed.

    Attributes:
        run: does a step, and returns its seconds; see :func:`time_step`.
        memory: saved and peak, in MiB, where they can be measured.
        close: ends what was started.
    """

    run: Callable[[], tuple[float, float]]
    memory: tuple[float | None, float | None] = (None, None)
    close: Callable[[], None] = lambda: None


def start_form(form: str, case: BenchmarkCase) -> StartedForm:
    """Prepare a form in this process, and warm it up.

    Raises:
        FormUnavailable: it cannot be run here.
    """
    forward, model = prepare_form(form, case, case.make_image())
    step = make_step(forward, model, case)
    run = partial(time_step, step, case.device)
    warm_up(run)
    if model is None:
        return StartedForm(run)
    model.zero_grad()  # the profiler warns of what is freed without its having seen it made
    return StartedForm(run, measure_memory(forward, step, case))


FORMS: dict[str, Callable[[str, BenchmarkCase], StartedForm]] = dict.fromkeys(
    (
        'mmdet',
        'mmdet-compiled',
        'timm',
        'onnxruntime',
        'openvino',
        'plain',
        'lean',
        'fused',
        'compiled',
        'fused-compiled',
        'convolutions',
    ),
    start_form,
)
"""Form -> the function that starts it."""


def benchmark(
    archs: Sequence[str],
    *,
    forms: Sequence[str] | None = None,
    sizes: Sequence[tuple[int, int, int]] = ((2, 320, 320),),
    modes: Sequence[str] = MODES,
    dtypes: Sequence[str] = ('float32',),
    device: str = 'cpu',
    repeats: int = 10,
    say: Callable[[str], None] = lambda line: None,
) -> list[BenchmarkRow]:
    """Measure every form in every case.

    Args:
        archs: names of networks, see ``mmresnest.list_archs()``.
        forms: of ``FORMS``, all by default; speeds are relative to the first that runs.
        sizes: batch, height and width of the images.
        modes: ``inference``, ``training`` (forward and backward, no optimizer).
        dtypes: ``float32``, or a half precision under autocast.
        device: as torch names it.
        repeats: rounds that are counted.
        say: is called with the progress, and with what is left out.

    Raises:
        UserError: a name that is unknown, with the nearest legal one.
    """
    forms = list(FORMS) if forms is None else forms
    for name, given, legal in (
        ('form', forms, FORMS),
        ('mode', modes, MODES),
        ('dtype', dtypes, tuple(DTYPES)),
    ):
        for value in given:
            if value not in legal:
                raise UserError(
                    f'{name} {value!r} is unknown; {nearest(value, legal)}', code='option.unknown'
                )
    if repeats < 1:
        raise UserError(
            f'repeats={repeats}: at least one round must be counted', code='option.value'
        )
    rows = []
    for arch in archs:
        variant(arch)
        for case in (
            BenchmarkCase(arch, mode, size, dtype, device)
            for size in sizes
            for dtype in dtypes
            for mode in modes
        ):
            say(f'{arch}, {case.mode}, {format_size(case.size)}, {format_dtype(case)}')
            rows += measure_case(case, forms, repeats, say)
    return rows


def choose_device(name: str) -> str:
    """Return the device of that name.

    Raises:
        UserError: it is not here.
    """
    from ..inference.predictor import resolve_device

    if name == 'mps' and torch.backends.mps.is_available():
        return name
    return resolve_device(name)


def format_size(size: tuple[int, int, int]) -> str:
    """Return B x 3 x H x W."""
    return f'{size[0]}x3x{size[1]}x{size[2]}'


def format_dtype(case: BenchmarkCase) -> str:
    """Return number format and device."""
    return f'{case.dtype} on {case.device}'


def measure_case(
    case: BenchmarkCase, forms: Sequence[str], repeats: int, say: Callable[[str], None]
) -> list[BenchmarkRow]:
    """Measure one case, all forms in turn."""
    started: dict[str, StartedForm] = {}
    with ExitStack() as stack:
        for form in forms:
            try:
                started[form] = FORMS[form](form, case)
                stack.callback(started[form].close)
            except FormUnavailable as reason:
                say(f'  left out: {form} ({reason})')
        times: dict[str, list[tuple[float, float]]] = {form: [] for form in started}
        for _ in range(repeats):
            for form, one in started.items():
                times[form].append(one.run())
    rows: list[BenchmarkRow] = []
    for form, taken in times.items():
        wall = [seconds * 1e3 for seconds, _ in taken]
        median = statistics.median(wall)
        rows.append(
            BenchmarkRow(
                case.arch,
                case.mode,
                format_size(case.size),
                case.dtype,
                case.device,
                form,
                median,
                find_quartiles(wall),
                statistics.median(cpu * 1e3 for _, cpu in taken),
                (rows[0].median if rows else median) / median,
                *started[form].memory,
            )
        )
    return rows


def warm_up(run: Callable[[], Any]) -> None:
    """Do two steps; the first compiles a compiled form."""
    try:
        for _ in range(2):
            run()
    except torch._dynamo.exc.BackendCompilerFailed as error:
        raise FormUnavailable(f'cannot be compiled: {str(error).splitlines()[0]}') from error


def measure_memory(
    forward: Step, step: Step, case: BenchmarkCase
) -> tuple[float | None, float | None]:
    """Return the MiB left allocated by a forward pass in training, and the peak of a step."""
    saved = saved_and_peak_memory(forward, case.device)[0] if case.mode == 'training' else None
    return saved, saved_and_peak_memory(step, case.device)[1]


def record_operations(**options: Any) -> profile:
    """Return torch's profiler, which writes nothing to the terminal."""
    # Kineto has a level for messages to other programs, 5, and writes these lines ("USDT: ...
    # profiler_start") with all others. It reads the variable when it is first used.
    os.environ.setdefault('KINETO_LOG_LEVEL', '6')
    return profile(**options)


def saved_and_peak_memory(run: Step, device: str) -> tuple[float | None, float | None]:
    """Return the MiB that a run leaves allocated while its result is held, and its peak."""
    gc.collect()
    kind = torch.device(device).type
    if kind == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = run()
        after, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
        del result
        return (after - before) / 2**20, (peak - before) / 2**20
    if kind != 'cpu':
        return None, None
    with record_operations(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = run()
    del result
    events = [
        event for event in seen.profiler.kineto_results.events() if event.name() == '[memory]'
    ]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return held / 2**20, peak / 2**20


def profile_form(case: BenchmarkCase, form: str, operations: int = 15) -> str:
    """Return where the time of a form of ours goes, per stage and per operation, as text.

    Args:
        case: what is run; in training the times of stages are those of the forward pass.
        form: ``plain``, ``lean`` or ``fused``.
        operations: lines of the second table.
    """
    if form not in OURS[:3]:
        raise UserError(
            f'only plain, lean and fused are profiled, not {form!r}; {nearest(form, OURS[:3])}',
            code='option.unknown',
        )
    forward, model = prepare_form(form, case, case.make_image())
    assert isinstance(model, ResTrunk)
    step = make_step(forward, model, case)
    step()
    marks: list[float] = []

    def mark(*_: Any) -> None:
        synchronize_device(case.device)
        marks.append(time.perf_counter())

    stages: list[Any] = model.stages
    hooks = [
        stages[0][0].register_forward_pre_hook(mark),  # a trunk calls blocks only
        *(stage[-1].register_forward_hook(mark) for stage in stages),
    ]
    start = time.perf_counter()
    step()
    for hook in hooks:
        hook.remove()
    names = ['stem', *(f'layer{index + 1}' for index in range(len(model.stages)))]
    lines = [
        f'{name:<10}{(end - begin) * 1e3:9.1f} ms'
        for name, begin, end in zip(names, [start, *marks], marks)
    ]
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if 'cuda' in case.device else [])]
    with record_operations(activities=activities) as seen:
        step()
    of_gpu = 'cuda' in case.device
    spent = lambda one: one.self_device_time_total if of_gpu else one.self_cpu_time_total
    averages = sorted(seen.key_averages(), key=spent, reverse=True)
    total = sum(map(spent, averages))
    lines += [
        '',
        *(
            f'{one.key[:48]:<50}{spent(one) / 1e3:9.1f} ms '
            f'{spent(one) / total:6.1%} {one.count:6d} calls'
            for one in averages[:operations]
        ),
    ]
    return '\n'.join(lines)


def find_quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and the last quartile of values, of which there may be one."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method='inclusive')
    return low, high


def make_time_columns(digits: int) -> dict[str, Callable[[Any], str]]:
    """Return the columns that all benchmarks share, with milliseconds of so many decimals."""
    return {
        'median ms': lambda row: f'{row.median:.{digits}f}',
        'quartiles': lambda row: '-'.join(f'{one:.{digits}f}' for one in row.quartiles),
        'CPU ms': lambda row: f'{row.cpu:.{digits}f}',
        'speed': lambda row: f'{row.speed:.2f}x',
    }


# fmt: off
COLUMNS: Mapping[str, Callable[[BenchmarkRow], str]] = {
    'arch':      lambda row: row.arch,
    'mode':      lambda row: row.mode,
    'size':      lambda row: row.size,
    'dtype':     lambda row: row.dtype,
    'form':      lambda row: row.form,
    **make_time_columns(1),
    'saved MiB': lambda row: '' if row.saved is None else f'{row.saved:.1f}',
    'peak MiB':  lambda row: '' if row.peak is None else f'{row.peak:.1f}',
}
# fmt: on


def format_table(rows: Iterable[BenchmarkRow]) -> str:
    """Return the rows as a table of text."""
    cells = [[text(row) for text in COLUMNS.values()] for row in rows]
    return align_columns([[*COLUMNS], *cells], 5)


def describe_machine() -> dict[str, Any]:
    """Return the machine that the figures were measured on."""
    import platform

    cpu = Path('/proc/cpuinfo')
    models = (
        [
            line.partition(':')[2].strip()
            for line in cpu.read_text().splitlines()
            if line.startswith('model name')
        ]
        if cpu.is_file()
        else []
    )
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return dict(
        cpu=models[0] if models else platform.processor(),
        threads=torch.get_num_threads(),
        gpus=gpus,
        torch=torch.__version__,
        system=platform.system(),
    )


def as_json(rows: Iterable[BenchmarkRow]) -> dict[str, Any]:
    """Return rows and machine, for ``json``."""
    return dict(machine=describe_machine(), rows=[asdict(row) for row in rows])


def plot_rows(rows: Sequence[BenchmarkRow], path: Path) -> None:
    """Draw bars per case: the median of each form, and the quartiles."""
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys((row.arch, row.mode, row.size, row.dtype) for row in rows))
    figure = Figure(
        figsize=(
            8,
            0.6
            + sum(
                0.55 + 0.25 * sum((row.arch, row.mode, row.size, row.dtype) == case for row in rows)
                for case in cases
            ),
        ),
        layout='constrained',
    )
    panels = figure.subplots(len(cases), 1, squeeze=False)[:, 0]
    for panel, case in zip(panels, cases):
        own = [row for row in rows if (row.arch, row.mode, row.size, row.dtype) == case]
        spread = [
            [row.median - row.quartiles[0] for row in own],
            [row.quartiles[1] - row.median for row in own],
        ]
        bars = panel.barh(
            [row.form for row in own],
            [row.median for row in own],
            xerr=spread,
            color=['#0072B2' if row.form.split('-')[0] in OURS else '#999999' for row in own],
        )
        panel.bar_label(bars, [f' {row.speed:.2f}x' for row in own])
        panel.invert_yaxis()
        panel.margins(x=0.12)
        panel.set_title(', '.join(case), loc='left', fontsize='medium')
    panels[-1].set_xlabel('ms, median and quartiles')
    figure.savefig(path)
