"""Networks, fast forms, operators and training steps against double precision on the CPU.

In double precision a device agrees with the CPU to rounding, whatever order it adds in: there the
tolerance is strict, and shows that the same is computed. In single and half precision a ReLU or a
maximum may fall on the other side, and norms of few values amplify what differs: there an error is
held against the CPU's own in that format, and shows that nothing is grossly wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ...deploy import compile_backbone, fuse
from ...models import fast
from ...models.dla import Root, Tree
from ...models.factory import build_backbone
from ...models.trunk import Trunk
from ...models.variants import TABLE, Variant
from .items import CheckFailed, CheckPlan, Item, ItemRun, LeftOut
from .operators import OPERATORS, OURS, list_dtypes, list_sources, use_source
from .steps import CONFIGS, run_step

Results = dict[str, Tensor]

DEPTHS = (2, 1, 1, 1)
NARROW = 16  # channels, where the published networks have 64
SMALL = 1e-3  # of the largest norm of its sort: the gradient of a bias before a norm is zero
EXACT = 1e-8  # in double precision, of the norm
FLIPPED = (
    5e-2  # of gradients in the other formats: places behind a ReLU that fell on the other side
)
FACTOR, MOST = 10.0, 0.3  # times the CPU's own error in a format, and the most that is allowed


class FormCheck(NamedTuple):
    """A form of a network that is held against the definition in double precision on the CPU.

    Attributes:
        name: of the form.
        training: a step of training, with gradients and statistics; else the maps of evaluation.
        dtype: of the weights, or of autocast if it is a half precision.
        fast: compute by the fast form on the device.
        save_memory: of the fast form.
        prepare: makes the form of a network.
        channels_last: of the network.
        floor: an error of a map below it is one of rounding; for double precision the tolerance.
    """

    name: str
    training: bool
    dtype: torch.dtype = torch.float64
    fast: bool = False
    save_memory: bool = False
    prepare: Callable[[Trunk], Trunk] = lambda network: network
    channels_last: bool = True
    floor: float = EXACT


FORMS = (
    FormCheck('definition, training', True),
    FormCheck('definition, evaluation', False),
    FormCheck('contiguous, training', True, channels_last=False),
    FormCheck('fast form, evaluation', False, fast=True),
    FormCheck('fast form, training', True, fast=True, save_memory=True),
    FormCheck('fused, as it is', False, prepare=fuse),
    FormCheck('fused, fast form', False, fast=True, prepare=fuse),
    FormCheck('definition, training, float32', True, torch.float32, floor=1e-3),
    FormCheck('fast form, training, float32', True, torch.float32, True, True, floor=1e-3),
    FormCheck('definition, training, bfloat16', True, torch.bfloat16, floor=3e-2),
    FormCheck('fast form, training, bfloat16', True, torch.bfloat16, True, True, floor=3e-2),
    FormCheck('fused, fast form, bfloat16', False, torch.bfloat16, True, prepare=fuse, floor=3e-2),
    FormCheck('definition, training, float16', True, torch.float16, floor=1e-2),
)


def list_items(plan: CheckPlan) -> list[Item]:
    """Return the checks: operators, training steps, networks, and compiled forms last."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    items = [
        Item(
            f'{name} ({source}), {str(dtype)[6:]}',
            partial(check_operator, plan, name, source, dtype),
        )
        for name, operator in OPERATORS.items()
        for source in list_sources()
        for dtype in list_dtypes(operator)
    ]
    items += [
        Item(f'step of {config}', partial(check_step, plan, config))
        for config in (CONFIGS[:1] if plan.toy else CONFIGS)
    ]
    kinds = list_rows(by_kind=True)
    items += [
        Item(f'{row.name}: {form.name}', partial(check_form, plan, row, form))
        for row in kinds[: 1 if plan.toy else None]
        for form in FORMS
    ]
    items += [
        Item(f'{row.name}: {form.name}', partial(check_form, plan, row, form))
        for row in list_rows(by_kind=False)
        for form in FORMS
        if form.dtype == torch.float64 and row not in kinds and not plan.toy
    ]
    items += [
        Item(f'{row.name}: compiled, {mode}', partial(check_compiled, plan, row, mode))
        for row in kinds[: 1 if plan.toy else None]
        for mode in ('training', 'evaluation')[plan.toy :]
    ]
    return items


def list_rows(by_kind: bool) -> list[Variant]:
    """Return one row of the table of each kind, or one of each set of operations."""

    def describe(row: Variant) -> Any:
        if by_kind:
            return row.trunk['kind']
        return sorted(
            (key, value if isinstance(value, (bool, str)) else (type(value).__name__, value == 1))
            for key, value in row.trunk.items()
            if key != 'depths'
        )

    first: dict[str, Variant] = {}
    for row in TABLE:
        first.setdefault(str(describe(row)), row)
    return list(first.values())


@lru_cache(maxsize=2)
def build_network(row_name: str, channels_last: bool = True) -> Trunk:
    """Build a row's network with few blocks, no weight at a value that would hide a mistake.

    Whoever changes it makes a copy.
    """
    torch.manual_seed(0)
    network = build_backbone(
        row_name,
        depths=DEPTHS,
        base_channels=NARROW,
        zero_init_residual=False,
        channels_last=channels_last,
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.get_buffer('running_mean'), -0.1, 0.1)
            nn.init.uniform_(module.get_buffer('running_var'), 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.1, 0.1)
        elif isinstance(module, Root):  # sums of many maps would grow from tree to tree
            nn.init.uniform_(module.get_parameter('bn.weight'), 0.1, 0.3)
        elif isinstance(module, Tree) and module.depth == 1:
            for name, weight in module.named_parameters():
                if name in ('tree1.bn3.weight', 'tree2.bn3.weight'):
                    weight.data.mul_(torch.rand_like(weight) * 0.2 + 0.1)
    return cast(Trunk, fast.disable(network))  # a row of ours: none of timm's


def make_image(size: int) -> Tensor:
    """Return four random images, 4 3 H W, of an odd size, where pools round."""
    return torch.randn(4, 3, size, size + 32, generator=torch.Generator().manual_seed(0))


def run_network(network: nn.Module, x: Tensor, form: FormCheck) -> Results:
    """Run a network on the device of its weights; return maps, gradients and statistics, on it."""
    like = next(network.parameters())
    x = x.to(like).requires_grad_(form.training)
    half = form.dtype in (torch.bfloat16, torch.float16)
    with (
        torch.set_grad_enabled(form.training),
        torch.autocast(like.device.type, form.dtype) if half else nullcontext(),
    ):
        maps = network(x)
    found = {f'map {index}': one.detach() for index, one in enumerate(maps)}
    if form.training:
        compute_loss(maps).backward()
        if not half:
            found.update((name, p.grad) for name, p in network.named_parameters())
            found['image'] = x.grad
        found.update(network.named_buffers())
    return found


def compute_loss(maps: tuple[Tensor, ...]) -> Tensor:
    """Return a loss in which no two elements of a map weigh the same."""
    losses = []
    for one in maps:
        value = one.to(torch.promote_types(one.dtype, torch.float32))
        ramp = torch.linspace(-1, 1, value.numel(), dtype=value.dtype, device=value.device)
        losses.append((value * ramp.view_as(value)).mean() + value.square().mean())
    return torch.stack(losses).sum()


@contextmanager
def use_fast_form(device: str, wanted: bool) -> Iterator[None]:
    """Have the fast form compute on a type of device, or its definitions."""
    kind, before = torch.device(device).type, set(fast.DEVICES)
    if wanted:
        fast.DEVICES.add(kind)
    try:
        yield
    finally:
        fast.DEVICES.clear()
        fast.DEVICES.update(before)


@lru_cache(maxsize=2)
def run_reference(name: str, training: bool, size: int) -> Results:
    """Return what the definition gives on the CPU in double precision."""
    network = copy.deepcopy(build_network(name)).double().train(training)
    return run_network(network, make_image(size), FormCheck('', training))


@lru_cache(maxsize=4)
def run_cpu(name: str, training: bool, dtype: torch.dtype, size: int) -> dict[str, float]:
    """Return the errors of the definition on the CPU in a format."""
    if dtype == torch.float16:  # few CPUs have it; bfloat16 has fewer digits
        dtype = torch.bfloat16
    network = copy.deepcopy(build_network(name)).train(training)
    found = run_network(network, make_image(size), FormCheck('', training, dtype))
    return measure_errors(found, run_reference(name, training, size))


def measure_errors(found: Results, expected: Results) -> dict[str, float]:
    """Return how far each tensor is from what is expected, of its norm; infinite if not finite."""
    largest: dict[bool, float] = {}
    norms = {name: float(expected[name].double().norm()) for name in found}
    for name, norm in norms.items():
        largest[is_gradient(name)] = max(norm, largest.get(is_gradient(name), 0.0))
    errors = {}
    for name, value in found.items():
        one, other = value.detach().double().cpu(), expected[name].double()
        if one.shape != other.shape:
            raise ValueError(f'{name} has the shape {tuple(one.shape)}, not {tuple(other.shape)}')
        scale = norms[name] + SMALL * largest[is_gradient(name)] + 1e-30
        error = float((one - other).norm()) / scale
        errors[name] = error if error < float('inf') else float('inf')
    return errors


def is_gradient(name: str) -> bool:
    """Return whether a result is a gradient, and no map or statistic."""
    return not name.startswith('map ') and not name.rpartition('.')[2].startswith(
        ('running_', 'num_batches')
    )


def judge_errors(errors: dict[str, float], tolerances: dict[str, float]) -> dict[str, Any]:
    """Return the error that is largest beside its tolerance.

    Raises:
        CheckFailed: it is larger than that.
    """
    where = max(errors, key=lambda name: errors[name] / tolerances[name])
    error, tolerance = errors[where], tolerances[where]
    values = dict(error=str(error), tolerance=tolerance, where=where, compared=len(errors))
    if not error <= tolerance:
        raise CheckFailed(
            f'{where} differs by {error:.2g} of its norm, and {tolerance:.2g} is allowed', values
        )
    return values


def require_dtype(plan: CheckPlan, dtype: torch.dtype) -> None:
    """Leave out bfloat16 on GPUs that have none."""
    if dtype == torch.bfloat16 and plan.device == 'cuda' and not torch.cuda.is_bf16_supported():
        raise LeftOut('this GPU has no bfloat16')


def check_form(plan: CheckPlan, row: Variant, form: FormCheck, run: ItemRun) -> dict[str, Any]:
    """Hold a form of a network on the device against the definition on the CPU."""
    size = 33 if plan.toy else 97
    require_dtype(plan, form.dtype)
    weights = torch.float64 if form.dtype == torch.float64 else torch.float32
    network = copy.deepcopy(build_network(row.name, form.channels_last)).train(form.training)
    if form.fast:
        fast.enable(network, save_memory=form.save_memory)
    device_network = form.prepare(network.to(weights)).to(plan.device)
    with use_fast_form(plan.device, form.fast):
        found = run_network(device_network, make_image(size), form)
    return judge_form(found, row, form, size)


def judge_form(found: Results, row: Variant, form: FormCheck, size: int) -> dict[str, Any]:
    """Compare what a form gave; in formats other than double with the CPU's own error in them."""
    expected = run_reference(row.name, form.training, size)
    tolerances = dict.fromkeys(found, form.floor)
    if form.dtype != torch.float64:
        of_cpu = run_cpu(row.name, form.training, form.dtype, size)
        for name in found:
            floor = FLIPPED if is_gradient(name) else form.floor
            tolerances[name] = min(MOST, max(floor, FACTOR * of_cpu[name]))
    return judge_errors(measure_errors(found, expected), tolerances)


def check_compiled(plan: CheckPlan, row: Variant, mode: str, run: ItemRun) -> dict[str, Any]:
    """Hold a compiled network on the device against the definition on the CPU."""
    size, form = (
        33 if plan.toy else 97,
        FormCheck('', mode == 'training', torch.float32, floor=1e-3),
    )
    network = copy.deepcopy(build_network(row.name)).train(form.training).to(plan.device)
    compile_backbone(network, dynamic=False, backend=plan.backend)
    try:
        return judge_form(run_network(network, make_image(size), form), row, form, size)
    finally:
        torch._dynamo.reset()


def check_operator(
    plan: CheckPlan, name: str, source: str, dtype: torch.dtype, run: ItemRun
) -> dict[str, Any]:
    """Hold an operator on the device, value and gradients, against the CPU."""
    operator = OPERATORS[name]
    require_dtype(plan, dtype)
    with use_source(OURS):
        expected = operator.reference()
    with use_source(source):
        found = operator.run(plan.device, dtype)
    return judge_errors(
        measure_errors(found, expected), dict.fromkeys(found, operator.dtypes[dtype])
    )


def check_step(plan: CheckPlan, config: str, run: ItemRun) -> dict[str, Any]:
    """Hold losses and gradients of a model's training step in double precision against the CPU."""
    size = 64 if plan.toy else 128
    model, expected = run_step(config, 'cpu', size)
    _, found = run_step(config, plan.device, size, model.to(plan.device))
    return judge_errors(measure_errors(found, expected), dict.fromkeys(found, 1e-6))
