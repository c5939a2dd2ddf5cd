"""Time and memory of a network's forms, beside what others make of the same network.

All forms of a network are run in turn, one step of each per round, so that whatever else the
machine does meets all of them alike. Given are the median over the rounds and the quartiles.

    mmdet           its own class with the same weights; for SE-ResNeXt its ResNeXt with plain gates
    mmdet-compiled  the same through ``torch.compile``
    timm            its network of that name, in channels_last
    onnxruntime, openvino       mmdet's class, exported (inference)
    plain, lean, fused          ours: the definition, as built, and ``deploy.fuse`` (inference)
    compiled, fused-compiled    ours through ``torch.compile``
    convolutions    the bound: the network's convolutions alone, one by one, in channels_last
    ...-kept        the same after ``deploy.keep_memory()``, in a process of its own

What cannot run here is left out, and why is said. Bytes saved are those that a forward pass in
training leaves allocated, the peak is that of a whole step, both beyond weights and gradients.
"""

import gc
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ..deploy import compile_backbone, fuse, keep_memory
from ..errors import UserError, nearest
from ..models.factory import build_backbone
from ..models.fast import plain
from ..models.trunk import ResTrunk
from ..models.variants import variant

FORMS = (
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
    'mmdet-kept',
    'lean-kept',
    'fused-kept',
    'convolutions-kept',
)
KEPT = '-kept'  # of a form in a process of its own, see above
OURS = ('plain', 'lean', 'fused', 'compiled')
MODES = ('inference', 'training')
DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)

Step = Callable[[], Any]
Run = Callable[[], tuple[float, float]]  # a step, and the seconds it took: see ``timed``


class Case(NamedTuple):
    """What is run."""

    arch: str
    mode: str
    size: tuple[int, int, int]  # batch, height, width
    dtype: str
    device: str


@dataclass(frozen=True)
class Row:
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


class Missing(Exception):
    """Why a form cannot be run here."""


def benchmark(
    archs: Sequence[str],
    *,
    forms: Sequence[str] = FORMS,
    sizes: Sequence[tuple[int, int, int]] = ((2, 320, 320),),
    modes: Sequence[str] = MODES,
    dtypes: Sequence[str] = ('float32',),
    device: str = 'cpu',
    repeats: int = 10,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Measures every form in every case.

    Args:
        archs: names of networks, see ``mmresnest.list_archs()``.
        forms: of ``FORMS``; the speed of the others is given relative to the first that runs.
        sizes: batch, height and width of the images.
        modes: ``inference``, ``training`` (forward and backward, no optimizer).
        dtypes: ``float32``, or a half precision under autocast.
        device: as torch names it.
        repeats: rounds that are counted.
        say: is told of progress, and of what is left out.

    Raises:
        UserError: a name that is unknown, with the nearest legal one.
    """
    for name, given, legal in (
        ('form', forms, FORMS),
        ('mode', modes, MODES),
        ('dtype', dtypes, tuple(DTYPES)),
    ):
        for value in given:
            if value not in legal:
                raise UserError(f'{name} {value!r} is unknown; {nearest(value, legal)}')
    if repeats < 1:
        raise UserError(f'repeats={repeats}: at least one round must be counted')
    rows = []
    for arch in archs:
        variant(arch)
        for case in (
            Case(arch, mode, size, dtype, device)
            for size in sizes
            for dtype in dtypes
            for mode in modes
        ):
            say(f'{arch}, {case.mode}, {written(case.size)}, {dtype_of(case)}')
            rows += measure(case, forms, repeats, say)
    return rows


def written(size: tuple[int, int, int]) -> str:
    """B x 3 x H x W."""
    return f'{size[0]}x3x{size[1]}x{size[2]}'


def dtype_of(case: Case) -> str:
    """With the device."""
    return f'{case.dtype} on {case.device}'


def measure(
    case: Case, forms: Sequence[str], repeats: int, say: Callable[[str], None]
) -> list[Row]:
    """One case, all forms in turn."""
    image = torch.randn(case.size[0], 3, *case.size[1:], device=case.device)
    runs: dict[str, Run] = {}
    memory: dict[str, tuple[float | None, float | None]] = {}
    with ExitStack() as stack:
        for form in forms:
            memory[form] = None, None
            try:
                if form.endswith(KEPT):
                    run: Run = stack.enter_context(Elsewhere(form, case))
                    warm_up(run)
                else:
                    forward, model = prepare(form, case, image)
                    step = step_of(forward, model, case)
                    run = partial(timed, step, case.device)
                    warm_up(run)
                    if model is not None:
                        memory[form] = memory_of(forward, step, case)
                runs[form] = run
            except Missing as reason:
                say(f'  left out: {form} ({reason})')
        times: dict[str, list[tuple[float, float]]] = {form: [] for form in runs}
        for _ in range(repeats):
            for form, run in runs.items():
                times[form].append(run())
    rows: list[Row] = []
    for form, taken in times.items():
        wall = [seconds * 1e3 for seconds, _ in taken]
        median = statistics.median(wall)
        low, _, high = (
            statistics.quantiles(wall, n=4, method='inclusive') if len(wall) > 1 else (wall * 3)
        )
        rows.append(
            Row(
                case.arch,
                case.mode,
                written(case.size),
                case.dtype,
                case.device,
                form,
                median,
                (low, high),
                statistics.median(cpu * 1e3 for _, cpu in taken),
                (rows[0].median if rows else median) / median,
                *memory[form],
            )
        )
    return rows


def warm_up(run: Run) -> None:
    """Two steps; the first compiles, where anything is to be compiled."""
    try:
        for _ in range(2):
            run()
    except torch._dynamo.exc.BackendCompilerFailed as error:
        raise Missing(f'cannot be compiled: {str(error).splitlines()[0]}') from error


def timed(step: Step, device: str) -> tuple[float, float]:
    """Seconds of one step: by the clock, and of all processors."""
    synchronise(device)
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    synchronise(device)
    return time.perf_counter() - wall, time.process_time() - cpu


class Elsewhere(AbstractContextManager):
    """A form in a process of its own, which keeps its memory; a call is one step, timed there.

    Raises:
        Missing: the form cannot be run.
    """

    def __init__(self, form: str, case: Case):
        if torch.device(case.device).type != 'cpu':
            raise Missing('memory is kept on CPUs')
        self.form = form
        context = multiprocessing.get_context('spawn')
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=serve,
            daemon=True,
            args=(theirs, form.removesuffix(KEPT), case, torch.get_num_threads()),
        )
        self.process.start()
        theirs.close()
        try:
            missing = self.pipe.recv()
        except EOFError:
            missing = 'its process ended early, see above'
        if missing:
            self.__exit__()
            raise Missing(missing)

    def __call__(self) -> tuple[float, float]:
        """What ``timed`` found there."""
        try:
            self.pipe.send(True)
            found: tuple[float, float] = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise UserError(
                f'the process of {self.form} ended early, see above; leave the form '
                'out, or give it more memory'
            ) from error
        return found

    def __exit__(self, *_: Any) -> None:
        """Ends the process."""
        with suppress(OSError):  # it may have ended by itself
            self.pipe.send(False)
        self.process.join()


def serve(pipe: Any, form: str, case: Case, threads: int) -> None:
    """The other end."""
    torch.set_num_threads(threads)
    image = torch.randn(case.size[0], 3, *case.size[1:], device=case.device)
    try:
        keep_memory()
        step = step_of(*prepare(form, case, image), case)
    except (Missing, UserError) as reason:
        pipe.send(str(reason))
        return
    pipe.send('')
    while pipe.recv():
        pipe.send(timed(step, case.device))


def synchronise(device: str) -> None:
    """Waits for what was handed to the device."""
    kind = torch.device(device).type
    if kind in ('cuda', 'mps'):
        getattr(torch, kind).synchronize()


# Steps -------------------------------------------------------------------------------------------


def step_of(forward: Step, model: nn.Module | None, case: Case) -> Step:
    """A step of the mode asked for, over a forward pass."""
    if case.mode == 'inference':
        return torch.no_grad()(forward)
    if model is None:
        return forward  # its step includes the backward pass

    def step() -> None:
        model.zero_grad()
        sum(m.float().mean() for m in forward()).backward()

    return step


def autocast(case: Case) -> AbstractContextManager:
    """Mixed precision, where asked for."""
    if case.dtype == 'float32':
        return nullcontext()
    return torch.autocast(torch.device(case.device).type, DTYPES[case.dtype])


def prepare(form: str, case: Case, image: Tensor) -> tuple[Step, nn.Module | None]:
    """A form's forward pass, and its module where it is one of torch.

    Raises:
        Missing: it cannot be run here.
    """
    training = case.mode == 'training'
    if form in ('onnxruntime', 'openvino'):
        if training or case.dtype != 'float32' or case.device != 'cpu':
            raise Missing('runs inference in float32 on a CPU here')
        return (onnxruntime if form == 'onnxruntime' else openvino)(theirs(case), image), None
    if 'fused' in form and training:
        raise Missing('for inference only')
    if form == 'convolutions':
        return convolutions(ours(case).eval(), image, case), None
    if form == 'timm':
        model = timm(case)
    else:
        model = theirs(case) if 'mmdet' in form else ours(case)
    model.train(training)
    if form == 'plain':
        plain(model)
    if form.startswith('fused'):
        model = fuse(model, inplace=True)
    if form.endswith('compiled'):
        compile_backbone(model, dynamic=False)

    def forward() -> Any:
        with autocast(case):
            return model(image)

    return forward, model


def ours(case: Case) -> ResTrunk:
    """Our network, with the same random weights each time it is built."""
    torch.manual_seed(0)
    return build_backbone(case.arch).to(case.device)


def theirs(case: Case) -> nn.Module:
    """The class of mmdet for a network, with the weights of ours where names are the same."""
    if find_spec('mmdet') is None:
        raise Missing('mmdet is not installed')
    import mmdet.models

    row = variant(case.arch)
    trunk = row.trunk
    depth = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}.get(row.depths)
    deep = not isinstance(trunk.get('stem', 64), int)
    own: dict[str, Any] = {}
    if trunk['kind'] == 'split' and deep and depth is not None and not trunk.get('avd_first'):
        own = dict(
            type='ResNeSt',
            stem_channels=trunk['stem'][-1],
            radix=trunk.get('radix', 2),
            reduction_factor=4,
            avg_down_stride=True,
        )
    elif trunk['kind'] == 'res2' and deep and depth is not None:
        own = dict(
            type='Res2Net', scales=trunk.get('scales', 4), base_width=trunk.get('base_width', 26)
        )
    elif (
        trunk['kind'] in ('resnext', 'se')
        and not deep
        and depth is not None
        and not set(row.differs) & {'ceil_pool', 'stride_in_1x1'}
    ):
        own = dict(
            type='ResNeXt', groups=trunk.get('groups', 1), base_width=trunk.get('base_width', 64)
        )
    if not own:
        raise Missing('mmdet has no such network')
    model = getattr(mmdet.models, own.pop('type'))(depth=depth, **own)
    if trunk['kind'] == 'se':
        for block in [m for m in model.modules() if hasattr(m, 'norm3_name')]:
            block.add_module(
                block.norm3_name,
                nn.Sequential(
                    block.norm3, PlainGate(block.norm3.num_features, trunk.get('reduction', 16))
                ),
            )
    state = ours(case).state_dict()
    if state.keys() == model.state_dict().keys():
        model.load_state_dict(state)
    return model.to(case.device)


class PlainGate(nn.Module):
    """Squeeze-and-excitation as it is usually written."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.fc = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // reduction, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // reduction, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> the same."""
        return x * self.fc(x)


def timm(case: Case) -> nn.Module:
    """The network of that name in timm, in channels_last."""
    if find_spec('timm') is None:
        raise Missing('timm is not installed')
    try:
        from timm import create_model, list_models
    except (ImportError, RuntimeError) as error:  # its torchvision, beside another torch
        raise Missing(f'timm cannot be imported: {error}') from error
    names = dict(
        resnest50='resnest50d',
        resnest101='resnest101e',
        resnest200='resnest200e',
        resnest269='resnest269e',
        resnest14='resnest14d',
        resnest26='resnest26d',
        res2net50_v1b_26w_4s='res2net50d',
        res2net101_v1b_26w_4s='res2net101d',
    )
    name = names.get(case.arch, case.arch)
    if name not in list_models(name):
        raise Missing('timm has no such network')
    model = create_model(name, features_only=True, out_indices=(1, 2, 3, 4))
    return model.to(case.device, memory_format=torch.channels_last)


def export(model: nn.Module, image: Tensor) -> bytes:
    """A model in ONNX."""
    if find_spec('onnx') is None:
        raise Missing('onnx is not installed')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.onnx')
        model.eval()  # mmdet's returns None
        torch.onnx.export(model, (image,), path, dynamo=False)
        return path.read_bytes()


def onnxruntime(model: nn.Module, image: Tensor) -> Step:
    """ONNX Runtime on an exported model, with as many threads as torch has."""
    if find_spec('onnxruntime') is None:
        raise Missing('onnxruntime is not installed')
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = InferenceSession(export(model, image), options, providers=['CPUExecutionProvider'])
    feed = {session.get_inputs()[0].name: image.numpy()}
    return lambda: session.run(None, feed)


def openvino(model: nn.Module, image: Tensor) -> Step:
    """OpenVINO on an exported model, with as many threads as torch has."""
    if find_spec('openvino') is None:
        raise Missing('openvino is not installed')
    from openvino import Core

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.onnx')
        path.write_bytes(export(model, image))
        core = Core()
        compiled = core.compile_model(
            core.read_model(path),
            'CPU',
            {'INFERENCE_NUM_THREADS': torch.get_num_threads(), 'INFERENCE_PRECISION_HINT': 'f32'},
        )
    request = compiled.create_infer_request()
    array = image.numpy()
    return lambda: request.infer([array])


def convolutions(network: nn.Module, image: Tensor, case: Case) -> Step:
    """The network's convolutions alone, each on an input of the size that it has there."""
    training = case.mode == 'training'
    calls: list[tuple[nn.Conv2d, Tensor, Tensor]] = []

    def keep(conv: nn.Module, inputs: tuple, output: Tensor) -> None:
        if isinstance(conv, nn.Conv2d):
            x = inputs[0].detach().contiguous(memory_format=torch.channels_last)
            calls.append((conv, x.requires_grad_(training), torch.randn_like(output)))

    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    hooks = [conv.register_forward_hook(keep) for conv in convs]
    with torch.no_grad(), autocast(case):
        network(image)
    for hook in hooks:
        hook.remove()

    def step() -> None:
        with autocast(case):
            for conv, x, gradient in calls:
                y = conv(x)
                if training:
                    torch.autograd.grad(y, (x, conv.weight), gradient)

    return step


# Memory and profile ------------------------------------------------------------------------------


def memory_of(forward: Step, step: Step, case: Case) -> tuple[float | None, float | None]:
    """MiB left allocated by a forward pass in training, and the peak of a step."""
    saved = traffic(forward, case.device)[0] if case.mode == 'training' else None
    return saved, traffic(step, case.device)[1]


def traffic(run: Step, device: str) -> tuple[float | None, float | None]:
    """MiB that a run leaves allocated while its result is held, and its peak."""
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
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
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


def profiled(case: Case, form: str, operations: int = 15) -> str:
    """Where the time of a form of ours goes: per stage, and per operation.

    Args:
        case: what is run; in training the stages' times are those of the forward pass.
        form: ``plain``, ``lean`` or ``fused``.
        operations: lines of the second table.
    """
    if form not in OURS[:3]:
        raise UserError(
            f'only plain, lean and fused are profiled, not {form!r}; {nearest(form, OURS[:3])}'
        )
    image = torch.randn(case.size[0], 3, *case.size[1:], device=case.device)
    forward, model = prepare(form, case, image)
    assert isinstance(model, ResTrunk)
    step = step_of(forward, model, case)
    step()
    marks: list[float] = []

    def mark(*_: Any) -> None:
        synchronise(case.device)
        marks.append(time.perf_counter())

    hooks = [
        model.stages[0][0].register_forward_pre_hook(mark),  # a trunk calls blocks only
        *(stage[-1].register_forward_hook(mark) for stage in model.stages),
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
    with profile(activities=activities) as seen:
        step()
    averages = sorted(seen.key_averages(), key=lambda one: -one.self_cpu_time_total)
    total = sum(one.self_cpu_time_total for one in averages)
    lines += [
        '',
        *(
            f'{one.key[:48]:<50}{one.self_cpu_time_total / 1e3:9.1f} ms '
            f'{one.self_cpu_time_total / total:6.1%} {one.count:6d} calls'
            for one in averages[:operations]
        ),
    ]
    return '\n'.join(lines)


# What is shown -----------------------------------------------------------------------------------

COLUMNS = (
    'arch',
    'mode',
    'size',
    'dtype',
    'form',
    'median ms',
    'quartiles',
    'CPU ms',
    'speed',
    'saved MiB',
    'peak MiB',
)


def table(rows: Iterable[Row]) -> str:
    """The rows as text."""
    number = lambda value: '' if value is None else f'{value:.1f}'
    cells = [
        COLUMNS,
        *(
            (
                row.arch,
                row.mode,
                row.size,
                row.dtype,
                row.form,
                number(row.median),
                f'{row.quartiles[0]:.1f}-{row.quartiles[1]:.1f}',
                number(row.cpu),
                f'{row.speed:.2f}x',
                number(row.saved),
                number(row.peak),
            )
            for row in rows
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return '\n'.join(
        '  '.join(
            cell.ljust(width) if index < 5 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in cells
    )


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
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


def as_json(rows: Iterable[Row]) -> dict[str, Any]:
    """Rows and machine, for ``json``."""
    return dict(machine=machine(), rows=[asdict(row) for row in rows])


def plot(rows: Sequence[Row], path: Path) -> None:
    """Bars per case: the median of each form, and the quartiles."""
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
