"""Measure where a training step and a tested image spend their time, by the parts of the model.

The model of a config, with random weights, trains on and predicts on images of a real folder, read
by the config's own pipelines at their full size. Time in one part that is called by another counts
for the inner one only. The backward pass counts as that of neck and heads until all gradients have
reached the backbone.
"""

from __future__ import annotations

import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..compat.instances import wrap_method
from ..config.architecture import set_architecture
from ..config.hardware import WHOLE
from ..config.inspect import LOADERS
from ..config.load import load_config
from ..config.retarget import drop_weights
from ..engine.prepare import choose_data_folder, prepare
from ..engine.runner import build_runner, explain_build_errors
from ..errors import UserError

PARTS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ('data_preprocessor', ('forward',), 'preprocessing'),
    ('backbone', ('forward',), 'backbone'),
    ('neck', ('forward',), 'neck'),
    ('roi_extractor', ('forward',), 'RoIAlign'),
    ('rpn_head', ('predict_by_feat',), 'proposals, NMS'),
    ('bbox_head', ('predict_by_feat',), 'detections, NMS'),
    ('mask_head', ('predict_by_feat',), 'masks'),
    ('rpn_head', ('loss_and_predict', 'loss', 'predict'), 'RPN head'),
    ('roi_head', ('loss', 'predict'), 'RoI heads'),
    ('semantic_head', ('loss', 'predict'), 'semantic head'),
    ('panoptic_fusion_head', ('predict',), 'panoptic fusion'),
    ('decode_head', ('loss', 'predict'), 'decode head'),
    ('auxiliary_head', ('loss',), 'auxiliary head'),
)
"""The last name of a module's path, or its end; its methods, and the name of their time."""
MODES = ('training', 'inference')


@dataclass(frozen=True)
class StepTimes:
    """The seconds of one step, by part, in the order in which the parts begin.

    Attributes:
        mode: ``training`` or ``inference``.
        images: how many are in the step.
        shape: height and width of the batch in pixels.
        parts: medians over the steps.
        total: of the whole step.
        workers: processes that read images; with some, the time of reading is the wait for them.
    """

    mode: str
    images: int
    shape: tuple[int, int]
    parts: dict[str, float]
    total: float
    workers: int = 0


class Clock:
    """A clock that sums time by name; of nested spans only the innermost counts.

    Args:
        read: returns the seconds; wall time unless given.
    """

    def __init__(self, read: Callable[[], float] = time.perf_counter) -> None:
        self.read = read
        self.spent: dict[str, float] = {}
        self.open: list[str] = []
        self.since = 0.0

    def book_time(self) -> None:
        """Add the time since the last call to the current span."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = self.read()
        if self.open:
            self.spent[self.open[-1]] = self.spent.get(self.open[-1], 0.0) + now - self.since
        self.since = now

    @contextmanager
    def time_span(self, name: str) -> Iterator[None]:
        """Count the time inside under a name."""
        self.book_time()
        self.open.append(name)
        self.spent.setdefault(name, 0.0)
        try:
            yield
        finally:
            self.book_time()
            self.open.pop()

    def time_call(self, name: str, call: Callable[[], Any]) -> Any:
        """Make a call, and count its time under a name."""
        with self.time_span(name):
            return call()


def profile(
    config: str | os.PathLike | Config,
    *,
    arch: str | None = None,
    data: str | os.PathLike | None = None,
    mode: str = 'training',
    steps: int = 3,
    options: Mapping[str, Any] | None = None,
    workers: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> StepTimes:
    """Time the steps of a config's training, or of its test.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest.
        arch: put this network into it, as ``train --arch``.
        data: a folder in COCO or ADE20K layout; the embedded data set unless given.
        mode: ``training`` or ``inference``.
        steps: how many are counted, after one to warm up.
        options: settings to override, dotted names to values.
        workers: processes that read images; 0 has the time of reading itself.
        say: is called with each step.

    Raises:
        UserError: config or data cannot be used, or a mode that there is not.
    """
    check_arguments([mode], steps)
    with build_run(config, data, mode, options, arch, workers) as (runner, loader):
        return replace(time_steps(runner, loader, mode, steps, say), workers=workers)


@contextmanager
def build_run(
    config: str | os.PathLike | Config,
    data: str | os.PathLike | None,
    mode: str,
    options: Mapping[str, Any] | None,
    arch: str | None = None,
    workers: int = 0,
) -> Iterator[tuple[Any, Any]]:
    """Yield the runner of a config and the loader of its images; see :func:`profile`."""
    with tempfile.TemporaryDirectory() as folder:
        split = 'train' if mode == 'training' else 'test'
        cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
        if arch is not None:
            set_architecture(cfg, arch, from_scratch=True)
        drop_weights(cfg)  # frozen parts stay frozen, since that saves time
        cfg = prepare(
            cfg,
            splits=(split,),
            work_dir=folder,
            data=choose_data_folder(cfg, data),
            cfg_options={**(options or {}), **WHOLE},
        )
        cfg.log_level = 'WARNING'
        cfg.randomness = dict(seed=0)  # the same images at the same sizes each time
        for key in LOADERS:
            if cfg.get(key):
                cfg[key].update(num_workers=workers, persistent_workers=workers > 0)
                if not workers:
                    cfg[key].pop('prefetch_factor', None)
        with explain_build_errors(cfg):
            runner = build_runner(cfg)
            loader = runner.build_dataloader(cfg[f'{split}_dataloader'], seed=0)
            if mode == 'training':
                runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        yield runner, loader


def check_arguments(modes: Sequence[str], steps: int) -> None:
    """Refuse what cannot be timed, before anything is."""
    for mode in modes:
        if mode not in MODES:
            raise UserError(
                f'mode {mode!r} is unknown; legal: {", ".join(MODES)}', code='option.unknown'
            )
    if steps < 1:
        raise UserError(f'steps={steps}: at least one must be counted', code='option.value')


def time_steps(
    runner: Any, loader: Any, mode: str, steps: int, say: Callable[[str], None]
) -> StepTimes:
    """Time the steps of a runner."""
    model, clock = runner.model, Clock()
    model.train(mode == 'training')
    time_methods(model, clock)
    shape: list[tuple[int, int]] = []
    before = model.backbone.register_forward_pre_hook(
        lambda _, given: shape.append(tuple(given[0].shape[-2:]))
    )
    step = train_step if mode == 'training' else test_step
    batches = cycle_batches(loader)
    spent: list[dict[str, float]] = []
    totals: list[float] = []
    images = 0
    for number in range(steps + 1):
        clock.spent.clear()
        start = time.perf_counter()
        with clock.time_span('reading'):
            batch = next(batches)
        with clock.time_span('rest'):
            step(runner, batch, clock)
        spent.append(dict(clock.spent))
        totals.append(time.perf_counter() - start)
        images = len(batch['inputs'])
        say(f'{mode}, step {number} of {steps}: {totals[-1]:.2f} s')
    before.remove()
    names = [name for name in spent[1] if name != 'rest'] + ['rest']
    parts = {name: statistics.median(one.get(name, 0.0) for one in spent[1:]) for name in names}
    return StepTimes(mode, images, shape[-1], parts, statistics.median(totals[1:]))


def cycle_batches(loader: Any) -> Iterator[Any]:
    """Yield the batches of a loader again and again."""
    while True:
        yield from loader


def time_methods(model: nn.Module, clock: Clock) -> None:
    """Time the methods of the model's parts by the clock."""
    for path, module in model.named_modules():
        for part, methods, name in PARTS:
            last = [key for key in path.split('.') if not key.isdigit()][-1:]
            if not last or not f'_{last[0]}'.endswith(f'_{part}'):
                continue
            for method in methods:
                if callable(getattr(module, method, None)) and method not in vars(module):
                    wrap_method(module, method, partial(clock.time_call, name))


def train_step(runner: Any, batch: Any, clock: Clock) -> None:
    """Do what ``BaseModel.train_step`` does, with the backward pass timed in two parts."""
    model, returned = runner.model, []

    def mark(_: Any) -> None:
        clock.book_time()
        returned.append(dict(clock.spent))

    def wait(_: nn.Module, __: Any, maps: tuple[Tensor, ...]) -> None:
        # Autograd runs the operations in reverse order of the forward pass, so that of the
        # backbone's last map begins when those of neck and heads are done.
        if maps[-1].grad_fn is not None:
            maps[-1].grad_fn.register_prehook(mark)

    handle = model.backbone.register_forward_hook(wait)
    wrapper = runner.optim_wrapper
    with wrapper.optim_context(model):
        losses, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
    handle.remove()
    name = 'backward, neck and heads'
    with clock.time_span(name):
        wrapper.backward(wrapper.scale_loss(losses))
    if returned:
        outside = returned[0][name]
        clock.spent['backward, backbone'] = clock.spent[name] - outside
        clock.spent[name] = outside
    with clock.time_span('optimizer'):
        wrapper.step()
        wrapper.zero_grad()


def test_step(runner: Any, batch: Any, clock: Clock) -> None:
    """Do what ``BaseModel.test_step`` does."""
    with torch.no_grad():
        runner.model.test_step(batch)


def format_table(found: StepTimes) -> str:
    """Return the parts, their milliseconds and shares, as text."""
    height, width = found.shape
    workers = f', {found.workers} workers' if found.workers else ''
    size = f'{found.images} x 3 x {height} x {width}'
    lines = [f'{found.mode}{workers}: {size}, {found.total * 1e3:.0f} ms']
    lines += [
        f'  {name:<26}{seconds * 1e3:9.1f} ms {seconds / found.total:6.1%}'
        for name, seconds in found.parts.items()
    ]
    return '\n'.join(lines)
