"""Measure an image through whole detectors and segmentors: ``mmresnest benchmark --detectors``.

    mmdet       the config with mmdet's or mmseg's own class of the network, as they run it
    plain       with ours, in its definition
    fused       with ours, by ``deploy.fuse``, as ``predict`` runs it; ``test`` does as much

All forms of a model have the same weights and are run in turn, one image of each per round.
Weights are random, and so are the scores that they give: a threshold is chosen at which so many
candidates come to NMS as behind a trained detector. What a part takes is the time from one module
to the next, by hooks on whole modules, which change nothing of what is computed within.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..config.architecture import load_with_arch
from ..config.inspect import import_packages
from ..config.load import load_config
from ..deploy import fuse
from ..errors import UserError, nearest
from ..models import fast
from ..models.norms import replace_sync_norms
from ..models.timm_network import PREFIX
from ..models.trunk import to_memory_format
from ..utils.text import align_columns
from .benchmark import describe_machine, find_quartiles, make_time_columns
from .benchmark_forms import FormUnavailable, mmdet_settings, time_step


class ModelCase(NamedTuple):
    """A model that is measured: its config, and the size of the image."""

    config: str
    size: tuple[int, int, int] = (1, 800, 1344)


CASES = {
    'faster-rcnn': ModelCase('faster_rcnn_resnest50_fpn'),
    'mask-rcnn': ModelCase('mask_rcnn_resnest50_fpn'),
    'cascade-rcnn': ModelCase('cascade_rcnn_resnest50_fpn'),
    'retinanet': ModelCase('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'),
    'deeplabv3': ModelCase('deeplabv3_resnest50_cityscapes', (1, 512, 1024)),
}
"""Name -> the model."""
FORMS = ('mmdet', 'plain', 'fused')
CANDIDATES = 500
"""How many boxes of one class pass the threshold of the score."""
PARTS = (
    'before',
    'backbone',
    'neck',
    'dense head',
    'proposals',
    'RoIAlign',
    'box head',
    'mask head',
    'decode head',
    'after',
)
"""What the time of an image is divided into."""
BEHIND = {'dense head': 'proposals'}
BEHIND_IN_SEGMENTORS = {'backbone': 'decode head'}
"""Module -> the part that the time behind it belongs to, where that is another one."""


@dataclass(frozen=True)
class ModelRow:
    """One form's figures, in milliseconds.

    Attributes:
        parts: median of each part, by name; see ``PARTS``.
        objects: how many were found; classes of pixels for a segmentor.
        difference: the largest of a score from that of the first form, in order of the scores.
    """

    model: str
    arch: str
    size: str
    form: str
    median: float
    quartiles: tuple[float, float]
    cpu: float
    speed: float
    parts: dict[str, float]
    objects: int
    difference: float


def benchmark_models(
    names: Sequence[str] = (),
    *,
    arch: str = 'resnest50',
    forms: Sequence[str] | None = None,
    size: tuple[int, int, int] | None = None,
    repeats: int = 3,
    say: Callable[[str], None] = lambda line: None,
) -> list[ModelRow]:
    """Measure every form of models.

    Args:
        names: of ``CASES``; all if empty.
        arch: their network, see ``mmresnest.list_archs()``.
        forms: of ``FORMS``, all by default; speeds are relative to the first that runs.
        size: batch, height and width of the images, instead of those of the cases.
        repeats: rounds that are counted, behind one that is not.
        say: is called with the progress, and with what is left out.

    Raises:
        UserError: a name that is unknown, with the nearest legal one.
    """
    forms = list(FORMS) if forms is None else forms
    for what, given, legal in (('--detectors', names, CASES), ('--forms', forms, FORMS)):
        for value in given:
            if value not in legal:
                raise UserError(
                    f'{what} {value!r}: unknown here; {nearest(value, legal)}',
                    code='option.unknown',
                )
    if repeats < 1:
        raise UserError(
            f'--repeats {repeats}: at least one round must be counted', code='option.value'
        )
    rows = []
    for name in names or CASES:
        case = CASES[name] if size is None else CASES[name]._replace(size=size)
        say(f'{name}, {arch}, {"x".join(map(str, case.size))}')
        rows += _measure_model(name, case, arch, forms, repeats, say)
    return rows


def _measure_model(
    name: str,
    case: ModelCase,
    arch: str,
    forms: Sequence[str],
    repeats: int,
    say: Callable[[str], None],
) -> list[ModelRow]:
    """Measure one model, all forms in turn."""
    batch = make_batch(case.size)
    ours = build_model(case.config, arch)
    threshold = find_threshold(ours, batch)
    timed: dict[str, TimedModel] = {}
    for form in forms:
        try:
            model = prepare_form(ours, form, case.config, arch)
        except FormUnavailable as reason:
            say(f'  left out: {form} ({reason})')
            continue
        set_threshold(model, threshold)
        timed[form] = TimedModel(model, batch)
        timed[form].run()
    taken: dict[str, list[tuple[float, float]]] = {form: [] for form in timed}
    spans: dict[str, list[dict[str, float]]] = {form: [] for form in timed}
    for _ in range(repeats):
        for form, one in timed.items():
            taken[form].append(time_step(one.run, 'cpu'))
            spans[form].append(one.divide())
    rows: list[ModelRow] = []
    scores = [one.scores() for one in timed.values()]
    for (form, times), found in zip(taken.items(), scores):
        wall = [seconds * 1e3 for seconds, _ in times]
        median = statistics.median(wall)
        rows.append(
            ModelRow(
                name,
                arch,
                'x'.join(map(str, case.size)),
                form,
                median,
                find_quartiles(wall),
                statistics.median(cpu * 1e3 for _, cpu in times),
                (rows[0].median if rows else median) / median,
                {
                    part: statistics.median(one.get(part, 0.0) for one in spans[form])
                    for part in PARTS
                    if any(part in one for one in spans[form])
                },
                len(found),
                float((found - scores[0]).abs().max()) if len(found) == len(scores[0]) > 0 else 0.0,
            )
        )
    return rows


def make_batch(size: tuple[int, int, int]) -> list[Tensor]:
    """Return random images of 8 bits, blurred, since noise alone is no picture."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(size[0], 3, 16, 24, generator=generator)
    fine = nn.functional.interpolate(coarse, size=size[1:], mode='bicubic').clamp(0, 1)
    return list((fine * 255).to(torch.uint8))


def build_model(config: str, arch: str, theirs: bool = False) -> Any:
    """Build a model with random weights and statistics, the same each time.

    Args:
        config: a name of a config of ours, or of mmdet.
        arch: the network.
        theirs: mmdet's or mmseg's own class of it.

    Raises:
        FormUnavailable: they have no such network.
    """
    from mmengine.registry import MODELS, DefaultScope

    cfg = load_with_arch(load_config(config), arch)
    import_packages(cfg)
    if theirs:
        settings = mmdet_settings(arch)
        kept = ('strides', 'dilations', 'contract_dilation', 'out_indices', 'norm_cfg')
        settings.update({key: cfg.model.backbone[key] for key in kept if key in cfg.model.backbone})
        settings.setdefault('norm_cfg', dict(type='BN'))
        cfg.model.backbone = {**settings, 'type': f'{cfg.default_scope}.{settings["type"]}'}
    elif cfg.default_scope == 'mmseg' and not arch.startswith(PREFIX):
        cfg.model.backbone.compat = 'mm'  # dilated, theirs is another function, of equal cost
    replace_sync_norms(cfg.model)
    if cfg.default_scope == 'mmseg':
        cfg.model.test_cfg = dict(mode='whole')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    model.eval()
    return model


def prepare_form(ours: Any, form: str, config: str, arch: str) -> Any:
    """Return a model in a form, with the weights of ours where names are the same."""
    if form == 'mmdet':
        model = build_model(config, arch, theirs=True)
        state = ours.state_dict()
        if state.keys() == model.state_dict().keys():
            model.load_state_dict(state)
        return model
    model = copy.deepcopy(ours)
    to_memory_format(model, torch.channels_last)
    return fast.disable(model) if form == 'plain' else fuse(model, inplace=True)


def find_threshold(model: Any, batch: list[Tensor]) -> float | None:
    """Return the score that ``CANDIDATES`` boxes of one class pass; None for a segmentor."""
    head = find_scoring_head(model)
    if head is None:
        return None
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        scores = output[0]
        if isinstance(scores, Tensor):  # N C+1, the background last
            seen[:] = [scores.softmax(1)[:, :-1].flatten()]
        else:
            seen[:] = [torch.cat([one.sigmoid().flatten() for one in scores])]

    hook = head.register_forward_hook(keep)
    run_model(model, batch)
    hook.remove()
    return float(seen[0].topk(min(CANDIDATES, len(seen[0]))).values[-1])


def find_scoring_head(model: Any) -> Any:
    """Return the module whose scores decide which boxes are kept."""
    if hasattr(model, 'roi_head'):
        head = model.roi_head.bbox_head
        return head[-1] if isinstance(head, nn.ModuleList) else head
    return getattr(model, 'bbox_head', None)


def set_threshold(model: Any, threshold: float | None) -> None:
    """Set the least score of a box."""
    if threshold is not None:
        holder = model.roi_head if hasattr(model, 'roi_head') else model.bbox_head
        holder.test_cfg.score_thr = threshold


def run_model(model: Any, batch: list[Tensor]) -> list[Any]:
    """Predict on images, preprocessing and postprocessing included."""
    if hasattr(model, 'decode_head'):
        kind = import_module('mmseg.structures').SegDataSample
    else:
        kind = import_module('mmdet.structures').DetDataSample
    samples = [
        kind(
            metainfo=dict(
                ori_shape=tuple(image.shape[1:]),
                img_shape=tuple(image.shape[1:]),
                scale_factor=(1.0, 1.0),
            )
        )
        for image in batch
    ]
    with torch.no_grad():
        return model.test_step(dict(inputs=batch, data_samples=samples))


class TimedModel:
    """A model, and when each of its parts began and ended on the last images."""

    def __init__(self, model: Any, batch: list[Tensor]) -> None:
        self.model, self.batch = model, batch
        self.marks: list[tuple[str, bool, float]] = []
        self.found: list[Any] = []
        self.start = self.end = 0.0
        self.behind = BEHIND_IN_SEGMENTORS if hasattr(model, 'decode_head') else BEHIND
        for part, module in list_parts(model):
            module.register_forward_pre_hook(self._mark(part, True))
            module.register_forward_hook(self._mark(part, False))

    def _mark(self, part: str, begins: bool) -> Callable[..., None]:
        def mark(*_: Any) -> None:
            self.marks.append((part, begins, time.perf_counter()))

        return mark

    def run(self) -> None:
        """Predict on the images."""
        self.marks.clear()
        self.start = time.perf_counter()
        self.found = run_model(self.model, self.batch)
        self.end = time.perf_counter()

    def divide(self) -> dict[str, float]:
        """Return the milliseconds of each part of the last run."""
        spent: dict[str, float] = {}
        now, part = self.start, 'before'
        last = max(number for number, (_, begins, _) in enumerate(self.marks) if not begins)
        for number, (name, begins, at) in enumerate(self.marks):
            spent[part] = spent.get(part, 0.0) + (at - now) * 1e3
            part = name if begins else self.behind.get(name, name)
            if number == last:
                part = 'after'
            now = at
        spent[part] = spent.get(part, 0.0) + (self.end - now) * 1e3
        return spent

    def scores(self) -> Tensor:
        """Return the scores that were found, the highest first; of a segmentor its logits' mean."""
        if hasattr(self.model, 'decode_head'):
            return torch.cat([one.seg_logits.data.mean((1, 2)) for one in self.found])
        return torch.cat([one.pred_instances.scores.sort().values.flip(0) for one in self.found])


def list_parts(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of a model that have a module, and the modules."""
    yield 'backbone', model.backbone
    if getattr(model, 'with_neck', False):
        yield 'neck', model.neck
    if hasattr(model, 'decode_head'):
        yield 'decode head', model.decode_head.conv_seg
        return
    yield 'dense head', model.rpn_head if hasattr(model, 'rpn_head') else model.bbox_head
    roi_head = getattr(model, 'roi_head', None)
    for part, name in (
        ('RoIAlign', 'bbox_roi_extractor'),
        ('RoIAlign', 'mask_roi_extractor'),
        ('box head', 'bbox_head'),
        ('mask head', 'mask_head'),
    ):
        found = getattr(roi_head, name, None)
        for module in found if isinstance(found, nn.ModuleList) else [found]:
            if module is not None:
                yield part, module


# fmt: off
COLUMNS: Mapping[str, Callable[[ModelRow], str]] = {
    'model':     lambda row: row.model,
    'size':      lambda row: row.size,
    'form':      lambda row: row.form,
    **make_time_columns(0),
    'objects':   lambda row: str(row.objects),
    'differs':   lambda row: f'{row.difference:.0e}',
}
# fmt: on


def format_models(rows: Iterable[ModelRow]) -> str:
    """Return the rows as a table of text, and below it what each part takes."""
    rows = list(rows)
    cells = [[*COLUMNS], *([text(row) for text in COLUMNS.values()] for row in rows)]
    parts = [part for part in PARTS if any(part in row.parts for row in rows)]
    below = [['model', 'form', *(f'{part} ms' for part in parts)]]
    for row in rows:
        spent = (f'{row.parts[part]:.0f}' if part in row.parts else '' for part in parts)
        below.append([row.model, row.form, *spent])
    return f'{align_columns(cells)}\n\n{align_columns(below)}'


def models_as_json(rows: Iterable[ModelRow]) -> dict[str, Any]:
    """Return rows and machine, for ``json``."""
    return dict(machine=describe_machine(), rows=[asdict(row) for row in rows])
