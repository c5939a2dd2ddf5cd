"""Time and peak memory of a backbone's forms, in turn, beside other implementations of it.

    mmdet, timm         its own class, timm's where it can be imported (in channels_last)
    plain, lean, fused  ours: the definition, and the fast form, which stays off on GPUs otherwise
    ...-compiled        the same through ``torch.compile``
    ...-channels-last   what has the other memory layout by itself
    ...-contiguous

All forms of a case have one size: the largest batch that the hungriest of them can train. Eager
forms are measured first and recorded, then once more in turn with the compiled ones.
"""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from ...deploy import compile_backbone
from ...models.trunk import Trunk, to_memory_format
from ..benchmark import format_size, saved_and_peak_memory
from ..benchmark_forms import (
    BenchmarkCase,
    FormUnavailable,
    autocast_context,
    build_model,
    make_step,
    time_step,
)
from .equality import require_dtype, use_fast_form
from .items import CheckPlan, Item, ItemRun, LeftOut, release_memory

EAGER = ('mmdet', 'mmdet-channels-last', 'plain', 'plain-contiguous', 'lean', 'fused', 'timm')
COMPILED = ('mmdet-compiled', 'plain-compiled', 'fused-compiled')
FAST = ('lean', 'fused', 'fused-compiled')
CASES = (
    ('resnest50', 'training', 'bfloat16', 4.0),
    ('resnest50', 'inference', 'bfloat16', 3.0),
    ('resnest50', 'training', 'float32', 2.0),
    ('resnest50', 'inference', 'float32', 1.5),
    ('res2net50_v1b_26w_4s', 'training', 'bfloat16', 1.0),
    ('seresnext50_32x4d', 'training', 'bfloat16', 1.0),
    ('res2net50_v1b_26w_4s', 'inference', 'bfloat16', 1.0),
    ('seresnext50_32x4d', 'inference', 'bfloat16', 1.0),
)
"""Network, mode, format and share of the time; the first come first."""
FULL, TOY = (16, 800, 1344), (2, 32, 64)
TOY_CASES = (('resnest50', 'training', 'float32', 1.0), ('resnest50', 'inference', 'bfloat16', 1.0))
TOY_FORMS = dict(
    training=('mmdet', 'plain-contiguous', 'lean', 'plain-compiled'),
    inference=('mmdet-channels-last', 'plain', 'fused'),
)
HUNGRY = ('plain-contiguous', 'mmdet')
ROOM = 0.85  # of the memory, for one form
ROUNDS = 12
COMPILING = 40.0
"""Seconds that must be left for a form to be compiled; what takes longer is ended."""


class StartedForm(NamedTuple):
    """A form that is ready to be timed.

    Attributes:
        forward: its forward pass.
        step: what is timed.
    """

    forward: Callable[[], Any]
    step: Callable[[], Any]


def list_items(plan: CheckPlan) -> list[Item]:
    """Return the cases."""
    return [
        Item(f'{arch}, {mode}, {dtype}', partial(measure_case, plan, (arch, mode, dtype)), weight)
        for arch, mode, dtype, weight in (TOY_CASES if plan.toy else CASES)
    ]


def measure_case(plan: CheckPlan, what: tuple[str, str, str], run: ItemRun) -> dict[str, Any]:
    """Measure the forms of a network in a mode and a format."""
    arch, mode, dtype = what
    require_dtype(plan, getattr(torch, dtype))
    case = fit_case(BenchmarkCase(arch, mode, TOY if plan.toy else FULL, dtype, plan.device), plan)
    left_out: dict[str, str] = {}
    started: dict[str, StartedForm] = {}
    wanted = TOY_FORMS[mode] if plan.toy else (*EAGER, *COMPILED)
    for form in (one for one in EAGER if one in wanted):
        start_form(form, case, plan, started, left_out)
    values = measure_forms(case, started, left_out, run.until - run.left / 2)
    run.note_values(values)
    compiled = COMPILED if arch.startswith('resnest') else ()
    for form in (one for one in compiled if one in wanted):
        if run.left < COMPILING and not plan.toy:
            left_out[form] = f'{run.left:.0f} s are left, and compiling takes longer'
            continue
        begun = time.monotonic()
        start_form(form, case, plan, started, left_out)
        if form in started:
            values.setdefault('compile_seconds', {})[form] = time.monotonic() - begun
            # Those of one kind, so that another form that takes too long costs none of them.
            values = {**values, **measure_forms(case, started, left_out, run.until)}
            run.note_values(values)
    values['left_out'] = left_out
    return values


def fit_case(case: BenchmarkCase, plan: CheckPlan) -> BenchmarkCase:
    """Return a case of the largest batch, then image, that fits the memory beside what is used.

    Raises:
        LeftOut: not even one small image fits.
    """
    while not all(fits_memory(form, case._replace(mode='training'), plan) for form in HUNGRY):
        batch, height, width = case.size
        if batch == 1 and height <= 100:
            raise LeftOut('not even an image of 100 x 168 fits the memory')
        smaller = (batch // 2, height, width) if batch > 1 else (1, height // 2, width // 2)
        case = case._replace(size=smaller)
    return case


def fits_memory(form: str, case: BenchmarkCase, plan: CheckPlan) -> bool:
    """Return whether a step of a form leaves room for the weights of the others."""
    cuda = case.device.startswith('cuda')
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    try:
        forward, model = prepare_form(form, case, plan)
        make_step(forward, model, case)()
        if not cuda:
            return True
        return torch.cuda.max_memory_allocated() < ROOM * torch.cuda.mem_get_info()[1]
    except FormUnavailable:
        return True
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        forward = model = None  # type: ignore[assignment]  # they hold what may not have fitted
        release_memory()


def prepare_form(
    form: str, case: BenchmarkCase, plan: CheckPlan
) -> tuple[Callable[[], Any], nn.Module]:
    """Return a form's forward pass, and its module.

    Raises:
        FormUnavailable: it cannot be run here.
    """
    if form.startswith('fused') and case.mode == 'training':
        raise FormUnavailable('for inference only')
    base, _, rest = form.partition('-')
    model = build_model(base, case).to(case.device)
    image = case.make_image()
    if rest in ('channels-last', 'contiguous'):
        layout = torch.channels_last if rest == 'channels-last' else torch.contiguous_format
        to_memory_format(model, layout)
        image = image.contiguous(memory_format=layout)
        if isinstance(model, Trunk):
            model.channels_last = rest == 'channels-last'
    if rest == 'compiled':
        compile_backbone(model, dynamic=False, backend=plan.backend)

    def forward() -> Any:
        with autocast_context(case):
            return model(image)

    return forward, model


def start_form(
    form: str,
    case: BenchmarkCase,
    plan: CheckPlan,
    started: dict[str, StartedForm],
    left_out: dict[str, str],
) -> None:
    """Prepare a form and warm it up, or note why it is left out."""
    try:
        forward, model = prepare_form(form, case, plan)
        one = StartedForm(forward, make_step(forward, model, case))
        with use_fast_form(case.device, form in FAST):
            for _ in range(2):
                one.step()
        started[form] = one
    except FormUnavailable as reason:
        left_out[form] = str(reason)
    except torch.cuda.OutOfMemoryError:
        left_out[form] = f'{format_size(case.size)} does not fit the memory'
    except Exception as error:  # of a compiler, say; the others are measured all the same
        left_out[form] = f'{type(error).__name__}: {(str(error).splitlines() or [""])[0]}'
        traceback.print_exc()  # into the log
    forward = model = one = None  # type: ignore[assignment]  # of what did not fit
    release_memory()


def measure_forms(
    case: BenchmarkCase, started: dict[str, StartedForm], left_out: dict[str, str], until: float
) -> dict[str, Any]:
    """Run all forms in turn until rounds or time are over; return their figures.

    Returns:
        size, rounds, and for each form milliseconds (median and quartiles) and MiB.
    """
    taken: dict[str, list[float]] = {form: [] for form in started}
    peaks: dict[str, tuple[float | None, float | None]] = {}
    rounds = 0
    while rounds < (2 if case.device == 'cpu' else ROUNDS):
        if rounds >= 3 and time.monotonic() > until:
            break
        for form, one in list(started.items()):
            try:
                with use_fast_form(case.device, form in FAST):
                    if not rounds:
                        trains = case.mode == 'training'
                        peaks[form] = (
                            saved_and_peak_memory(one.forward, case.device)[0] if trains else None,
                            saved_and_peak_memory(one.step, case.device)[1],
                        )
                    taken[form].append(time_step(one.step, case.device)[0] * 1e3)
            except torch.cuda.OutOfMemoryError:
                left_out[form] = f'{format_size(case.size)} does not fit beside the other forms'
                del started[form], taken[form]
        rounds += 1
    forms = {}
    for form, wall in taken.items():
        low, median, high = statistics.quantiles(wall, n=4, method='inclusive')
        forms[form] = dict(
            median=median, quartiles=(low, high), saved=peaks[form][0], peak=peaks[form][1]
        )
    return dict(
        arch=case.arch,
        mode=case.mode,
        dtype=case.dtype,
        size=format_size(case.size),
        images=case.size[0],
        rounds=rounds,
        forms=forms,
        left_out=dict(left_out),
    )
