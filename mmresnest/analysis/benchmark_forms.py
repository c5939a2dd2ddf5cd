"""The forms of a network that a benchmark runs: ours, mmdet's, timm's, and those of runtimes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..deploy import compile_backbone, fuse
from ..inference.runtimes import load_core
from ..models import fast
from ..models.factory import build_backbone
from ..models.timm_network import PREFIX
from ..models.variants import variant

DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)

Step = Callable[[], Any]


class BenchmarkCase(NamedTuple):
    """What is run: a network, inference or training, and on what."""

    arch: str
    mode: str
    size: tuple[int, int, int]  # batch, height, width
    dtype: str
    device: str

    def make_image(self) -> Tensor:
        """Return random images B 3 H W."""
        return torch.randn(self.size[0], 3, *self.size[1:], device=self.device)


class FormUnavailable(Exception):
    """A form cannot be run here; the message says why."""


def synchronize_device(device: str) -> None:
    """Wait until the device has done all work."""
    kind = torch.device(device).type
    if kind in ('cuda', 'mps'):
        getattr(torch, kind).synchronize()


def time_step(step: Step, device: str) -> tuple[float, float]:
    """Return the seconds of one step: wall time, and processor time of all threads."""
    synchronize_device(device)
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    synchronize_device(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def make_step(forward: Step, model: nn.Module | None, case: BenchmarkCase) -> Step:
    """Return a step of inference or training, from a forward pass."""
    if case.mode == 'inference':
        return torch.no_grad()(forward)
    if model is None:
        return forward  # its step includes the backward pass

    def step() -> None:
        model.zero_grad()
        sum(m.float().mean() for m in forward()).backward()

    return step


def autocast_context(case: BenchmarkCase) -> AbstractContextManager:
    """Return the context of mixed precision, where the case has it."""
    if case.dtype == 'float32':
        return nullcontext()
    return torch.autocast(torch.device(case.device).type, DTYPES[case.dtype])


def prepare_form(form: str, case: BenchmarkCase, image: Tensor) -> tuple[Step, nn.Module | None]:
    """Return a form's forward pass, and its module where it is one of torch.

    Raises:
        FormUnavailable: it cannot be run here.
    """
    training = case.mode == 'training'
    if form in ('onnxruntime', 'openvino'):
        if training or case.dtype != 'float32' or case.device != 'cpu':
            raise FormUnavailable('runs inference in float32 on a CPU here')
        make = onnxruntime_step if form == 'onnxruntime' else openvino_step
        return make(mmdet_backbone(case), image), None
    if 'fused' in form and training:
        raise FormUnavailable('for inference only')
    if form == 'convolutions':
        return convolution_step(our_backbone(case).eval(), image, case), None
    model = build_model(form, case)

    def forward() -> Any:
        with autocast_context(case):
            return model(image)

    return forward, model


def build_model(form: str, case: BenchmarkCase) -> nn.Module:
    """Build the module of a form of torch, in training or evaluation mode."""
    training = case.mode == 'training'
    if form == 'timm':
        model = timm_backbone(case)
    else:
        model = mmdet_backbone(case) if 'mmdet' in form else our_backbone(case)
    model.train(training)
    if form == 'plain':
        fast.disable(model)
    if form.startswith('lean') and training:
        fast.enable(model, save_memory=True)
    if form.startswith('fused'):
        model = fuse(model, inplace=True)
    if form.endswith('compiled'):
        compile_backbone(model, dynamic=False)
    return model


def our_backbone(case: BenchmarkCase) -> nn.Module:
    """Build our network, with the same random weights each time."""
    torch.manual_seed(0)
    return build_backbone(case.arch).to(case.device)


def mmdet_backbone(case: BenchmarkCase) -> nn.Module:
    """Build mmdet's class of a network, with the weights of ours where names are the same.

    Raises:
        FormUnavailable: mmdet has no such network, or is not installed.
    """
    if find_spec('mmdet') is None:
        raise FormUnavailable('mmdet is not installed')
    import mmdet.models

    settings = mmdet_settings(case.arch)
    model = getattr(mmdet.models, settings.pop('type'))(**settings)
    trunk = variant(case.arch).trunk
    if trunk['kind'] == 'se':
        _add_gates(model, trunk.get('reduction', 16))
    state = our_backbone(case).state_dict()
    if state.keys() == model.state_dict().keys():
        model.load_state_dict(state)
    return model.to(case.device)


def mmdet_settings(arch: str) -> dict[str, Any]:
    """Return type and arguments of mmdet's class for a network."""
    if arch.startswith(PREFIX):
        raise FormUnavailable('mmdet has no networks of timm')
    row = variant(arch)
    trunk, kind = row.trunk, row.trunk['kind']
    depth = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}.get(row.depths)
    deep_stem = not isinstance(trunk.get('stem', 64), int)
    if depth is None:
        raise FormUnavailable('mmdet has no such network')
    if kind == 'split' and deep_stem and not trunk.get('avd_first'):
        return dict(
            type='ResNeSt',
            depth=depth,
            stem_channels=trunk['stem'][-1],
            radix=trunk.get('radix', 2),
            reduction_factor=4,
            avg_down_stride=True,
        )
    if kind == 'res2' and deep_stem:
        scales, width = trunk.get('scales', 4), trunk.get('base_width', 26)
        return dict(type='Res2Net', depth=depth, scales=scales, base_width=width)
    plain = not deep_stem and not set(row.differs) & {'ceil_pool', 'stride_in_1x1'}
    if kind in ('resnext', 'se') and plain:
        groups, width = trunk.get('groups', 1), trunk.get('base_width', 64)
        return dict(type='ResNeXt', depth=depth, groups=groups, base_width=width)
    raise FormUnavailable('mmdet has no such network')


def _add_gates(model: nn.Module, reduction: int) -> None:
    """Put a gate behind the last norm of every block."""
    blocks: list[Any] = [module for module in model.modules() if hasattr(module, 'norm3_name')]
    for block in blocks:
        gate = PlainGate(block.norm3.num_features, reduction)
        block.add_module(block.norm3_name, nn.Sequential(block.norm3, gate))


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
        """Return B C H W, gated by channel."""
        return x * self.fc(x)


def timm_backbone(case: BenchmarkCase) -> nn.Module:
    """Build the network of that name in timm, in channels_last."""
    if find_spec('timm') is None:
        raise FormUnavailable('timm is not installed')
    try:
        from timm import create_model, list_models
    except (ImportError, RuntimeError) as error:  # its torchvision, beside another torch
        raise FormUnavailable(f'timm cannot be imported: {error}') from error
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
        raise FormUnavailable('timm has no such network')
    model = create_model(name, features_only=True, out_indices=(1, 2, 3, 4))
    return model.to(case.device, memory_format=torch.channels_last)


def export_onnx(model: nn.Module, image: Tensor) -> bytes:
    """Export a model to ONNX."""
    if find_spec('onnx') is None:
        raise FormUnavailable('onnx is not installed')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.onnx')
        model.eval()  # mmdet's eval() returns None
        torch.onnx.export(model, (image,), path, dynamo=False)
        return path.read_bytes()


def onnxruntime_step(model: nn.Module, image: Tensor) -> Step:
    """Run an exported model by ONNX Runtime, with as many threads as torch has."""
    if find_spec('onnxruntime') is None:
        raise FormUnavailable('onnxruntime is not installed')
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = InferenceSession(
        export_onnx(model, image), options, providers=['CPUExecutionProvider']
    )
    feed = {session.get_inputs()[0].name: image.numpy()}
    return lambda: session.run(None, feed)


def openvino_step(model: nn.Module, image: Tensor) -> Step:
    """Run an exported model by OpenVINO, with as many threads as torch has."""
    if find_spec('openvino') is None:
        raise FormUnavailable('openvino is not installed')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.onnx')
        path.write_bytes(export_onnx(model, image))
        core = load_core()
        compiled = core.compile_model(
            core.read_model(path),
            'CPU',
            {'INFERENCE_NUM_THREADS': torch.get_num_threads(), 'INFERENCE_PRECISION_HINT': 'f32'},
        )
    request = compiled.create_infer_request()
    array = image.numpy()
    return lambda: request.infer([array])


def convolution_step(network: nn.Module, image: Tensor, case: BenchmarkCase) -> Step:
    """Run the network's convolutions alone, each on an input of its size in the network."""
    training = case.mode == 'training'
    calls: list[tuple[nn.Conv2d, Tensor, Tensor]] = []

    def keep(conv: nn.Module, inputs: tuple, output: Tensor) -> None:
        if isinstance(conv, nn.Conv2d):
            x = inputs[0].detach().contiguous(memory_format=torch.channels_last)
            calls.append((conv, x.requires_grad_(training), torch.randn_like(output)))

    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    hooks = [conv.register_forward_hook(keep) for conv in convs]
    with torch.no_grad(), autocast_context(case):
        network(image)
    for hook in hooks:
        hook.remove()

    def step() -> None:
        with autocast_context(case):
            for conv, x, gradient in calls:
                y = conv(x)
                if training:
                    torch.autograd.grad(y, (x, conv.weight), gradient)

    return step
