"""Where a training step and a tested image spend their time, by the parts of the model.

The model of a config, with random weights, learns from and predicts on images of a real folder,
read by the config's own pipelines at their full size. The methods of its parts are timed from
outside; what one part does inside another counts for the inner one only. In the backward pass the
time up to the moment when all gradients have come back to the backbone is that of neck and heads.
"""

from __future__ import annotations

import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..config.hardware import WHOLE
from ..config.inspect import LOADERS
from ..config.load import load_config
from ..config.retarget import without_weights
from ..engine.prepare import data_for, prepare
from ..engine.runner import build_runner, building
from ..errors import UserError

#: the last name of a module's path, or the end of it, its methods, and what they are booked as
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
MODES = ('training', 'inference')


@dataclass(frozen=True)
class Spending:
    """Seconds of one step, by part, in the order in which the parts begin.

    Attributes:
        mode: ``training`` or ``inference``.
        images: in the step.
        shape: of the batch, height and width in pixels.
        parts: medians over the steps.
        total: of the whole step.
    """

    mode: str
    images: int
    shape: tuple[int, int]
    parts: dict[str, float]
    total: float


class Clock:
    """Time by name; of spans that contain each other only the innermost runs."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.open: list[str] = []
        self.since = 0.0

    def turn(self) -> None:
        """Books the time since the last turn."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.open:
            self.spent[self.open[-1]] = self.spent.get(self.open[-1], 0.0) + now - self.since
        self.since = now

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Books what happens inside under a name."""
        self.turn()
        self.open.append(name)
        self.spent.setdefault(name, 0.0)
        try:
            yield
        finally:
            self.turn()
            self.open.pop()


def profile(
    config: str | os.PathLike | Config,
    *,
    data: str | os.PathLike | None = None,
    mode: str = 'training',
    steps: int = 3,
    options: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Spending:
    """Times the steps of a config's training, or of its test.

    Args:
        config: a config, its file, or the name of one that comes with mmresnest.
        data: a folder in COCO or ADE20K layout; the embedded data set unless given.
        mode: ``training`` or ``inference``.
        steps: that are counted; one more goes before them.
        options: settings to override, dotted names to values.
        say: is told of progress.

    Raises:
        UserError: config or data cannot be used, or a mode that there is not.
    """
    check([mode], steps)
    with tempfile.TemporaryDirectory() as folder:
        split = 'train' if mode == 'training' else 'test'
        cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
        without_weights(cfg)  # what is frozen stays so: it saves time
        cfg = prepare(
            cfg,
            (split,),
            work_dir=folder,
            data=data_for(cfg, data),
            options={**(options or {}), **WHOLE},
        )
        cfg.log_level = 'WARNING'
        cfg.randomness = dict(seed=0)  # the same images at the same sizes each time
        for key in LOADERS:  # the time of a worker would not be seen
            if cfg.get(key):
                cfg[key].update(num_workers=0, persistent_workers=False)
        with building(cfg):
            runner = build_runner(cfg)
            loader = runner.build_dataloader(cfg[f'{split}_dataloader'], seed=0)
            if mode == 'training':
                runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        return timed(runner, loader, mode, steps, say)


def check(modes: Sequence[str], steps: int) -> None:
    """Refuses what cannot be timed, before anything is."""
    for mode in modes:
        if mode not in MODES:
            raise UserError(f'mode {mode!r} is unknown; legal: {", ".join(MODES)}')
    if steps < 1:
        raise UserError(f'steps={steps}: at least one must be counted')


def timed(runner: Any, loader: Any, mode: str, steps: int, say: Callable[[str], None]) -> Spending:
    """Runs the steps of a runner that is built."""
    model, clock = runner.model, Clock()
    model.train(mode == 'training')
    watch(model, clock)
    shape: list[tuple[int, int]] = []
    before = model.backbone.register_forward_pre_hook(
        lambda _, given: shape.append(tuple(given[0].shape[-2:]))
    )
    step = train_step if mode == 'training' else test_step
    batches = endless(loader)
    taken: list[tuple[dict[str, float], float]] = []
    images = 0
    for number in range(steps + 1):
        clock.spent.clear()
        start = time.perf_counter()
        with clock.running('reading'):
            batch = next(batches)
        with clock.running('rest'):
            step(runner, batch, clock)
        taken.append((dict(clock.spent), time.perf_counter() - start))
        images = len(batch['inputs'])
        say(f'{mode}, step {number} of {steps}: {taken[-1][1]:.2f} s')
    before.remove()
    counted = taken[1:]
    parts = {
        name: statistics.median(spent.get(name, 0.0) for spent, _ in counted)
        for name in counted[0][0]
        if name != 'rest'
    }
    parts['rest'] = statistics.median(spent['rest'] for spent, _ in counted)
    return Spending(
        mode, images, shape[-1], parts, statistics.median(total for _, total in counted)
    )


def endless(loader: Any) -> Iterator[Any]:
    """Its batches, again and again."""
    while True:
        yield from loader


def watch(model: nn.Module, clock: Clock) -> None:
    """Has the clock run while methods of the model's parts do."""
    for path, module in model.named_modules():
        for part, methods, name in PARTS:
            last = [one for one in path.split('.') if not one.isdigit()][-1:]
            if not last or not f'_{last[0]}'.endswith(f'_{part}'):
                continue
            for method in methods:
                if callable(getattr(module, method, None)) and method not in vars(module):
                    setattr(module, method, during(getattr(module, method), clock, name))


def during(method: Callable, clock: Clock, name: str) -> Callable:
    """The same method, its time booked."""

    @wraps(method)
    def timed_method(*args: Any, **kwargs: Any) -> Any:
        with clock.running(name):
            return method(*args, **kwargs)

    return timed_method


def train_step(runner: Any, batch: Any, clock: Clock) -> None:
    """As ``BaseModel.train_step``, with the backward pass cut in two."""
    model, returned = runner.model, []

    def mark(_: Any) -> None:
        clock.turn()
        returned.append(dict(clock.spent))

    def wait(_: nn.Module, __: Any, maps: tuple[Tensor, ...]) -> None:
        # Of the operations at hand autograd runs the latest of the forward pass first, so the last
        # one of the backbone begins when none of neck and heads is left.
        if maps[-1].grad_fn is not None:
            maps[-1].grad_fn.register_prehook(mark)

    handle = model.backbone.register_forward_hook(wait)
    wrapper = runner.optim_wrapper
    with wrapper.optim_context(model):
        losses, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
    handle.remove()
    name = 'backward, neck and heads'
    with clock.running(name):
        wrapper.backward(wrapper.scale_loss(losses))
    if returned:
        outside = returned[0][name]
        clock.spent['backward, backbone'] = clock.spent[name] - outside
        clock.spent[name] = outside
    with clock.running('optimiser'):
        wrapper.step()
        wrapper.zero_grad()


def test_step(runner: Any, batch: Any, clock: Clock) -> None:
    """As ``BaseModel.test_step``."""
    with torch.no_grad():
        runner.model.test_step(batch)


def table(found: Spending) -> str:
    """The parts, their milliseconds and shares."""
    height, width = found.shape
    lines = [f'{found.mode}: {found.images} x 3 x {height} x {width}, {found.total * 1e3:.0f} ms']
    lines += [
        f'  {name:<26}{seconds * 1e3:9.1f} ms {seconds / found.total:6.1%}'
        for name, seconds in found.parts.items()
    ]
    return '\n'.join(lines)
