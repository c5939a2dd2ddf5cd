"""Score each image as if it were alone, whatever the batch.

mmdet pads the images of a batch to the largest of them, and what stands beyond the border of an
image changes its features: the same model had another mAP with another batch size. Here a batch is
divided into parts whose images are padded to one size anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.runner import BaseLoop
from mmengine.runner import TestLoop as TheirTestLoop
from mmengine.runner import ValLoop as TheirValLoop
from mmengine.runner.amp import autocast

from ..models.fast.beside import InferenceForm
from ..registry import LOOPS
from .wrappers import unwrap_model


def canvas_divisor(model: Any) -> int:
    """Return the number of pixels that the sides of a padded image are multiples of."""
    preprocessor = getattr(unwrap_model(model), 'data_preprocessor', None)
    test_settings = getattr(preprocessor, 'test_cfg', None) or {}  # mmseg's
    return test_settings.get('size_divisor') or getattr(preprocessor, 'pad_size_divisor', None) or 1


def group_by_canvas(inputs: Sequence[Any], divisor: int) -> list[list[int]]:
    """Group the images of a batch by the size that each is padded to when it is alone.

    Args:
        inputs: an image a sample, C H W; with test-time augmentation a list of B images a view.
        divisor: what padded sides are multiples of.

    Returns:
        indices of samples, in lists of one padded size.
    """
    views = inputs if isinstance(inputs[0], (list, tuple)) else [inputs]
    groups: dict[tuple, list[int]] = {}
    for index, sample in enumerate(zip(*views)):
        canvas = tuple(-(-side // divisor) for image in sample for side in image.shape[-2:])
        groups.setdefault(canvas, []).append(index)
    return list(groups.values())


def take_samples(value: Any, indices: list[int]) -> Any:
    """Return the samples of these indices, of a list of B or of one such list for each view."""
    if value and isinstance(value[0], (list, tuple)):
        return [take_samples(view, indices) for view in value]
    return [value[index] for index in indices]


def split_batch(batch: Any, divisor: int) -> Iterator[tuple[list[int], Any]]:
    """Yield parts of a batch whose images are padded to one size, and which samples they are.

    A batch that is no dictionary of lists, as another collate function makes, stays whole.
    """
    inputs = batch.get('inputs') if isinstance(batch, Mapping) else None
    groups = group_by_canvas(inputs, divisor) if isinstance(inputs, (list, tuple)) else []
    if len(groups) < 2:
        yield [], batch
    else:
        for indices in groups:
            yield indices, {key: take_samples(value, indices) for key, value in batch.items()}


class _ScoringLoopMixin(BaseLoop):
    """Run a batch in parts of one padded size; hooks and evaluator see the whole batch.

    On a CPU the model computes by its fast form of inference, while it predicts a batch and no
    longer: what hooks see, or a checkpoint holds, is the model as it is trained.

    Args:
        fused: have it do so.
    """

    evaluator: Any
    fp16: bool
    stage: str

    def __init__(self, *args: Any, fused: bool = True, **more: Any) -> None:
        super().__init__(*args, **more)
        self.fused = fused
        self._form: InferenceForm | None = None

    def run(self) -> Any:
        """Score the model."""
        try:
            return super().run()
        finally:
            self._form = None

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Predict a batch, and hand the predictions to the evaluator."""
        if not self.fused:
            self._run_parts(idx, data_batch)
            return
        if self._form is None:  # by now hooks have put in place whatever weights are scored
            self._form = InferenceForm(self.runner.model)
        with self._form.in_place():
            self._run_parts(idx, data_batch)

    def _run_parts(self, idx: int, data_batch: Any) -> None:
        model = self.runner.model
        parts = list(split_batch(data_batch, canvas_divisor(model)))
        if len(parts) == 1:
            super().run_iter(idx, data_batch)
            return
        step = getattr(model, f'{self.stage}_step')
        self.runner.call_hook(f'before_{self.stage}_iter', batch_idx=idx, data_batch=data_batch)
        found: dict[int, Any] = {}
        with autocast(enabled=self.fp16):
            for indices, part in parts:
                found.update(zip(indices, step(part)))
        outputs = [found[index] for index in range(len(found))]
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(
            f'after_{self.stage}_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs
        )


@LOOPS.register_module()
class ValLoop(_ScoringLoopMixin, TheirValLoop):
    """mmengine's validation, the same for every batch size."""

    stage = 'val'


@LOOPS.register_module()
class TestLoop(_ScoringLoopMixin, TheirTestLoop):
    """mmengine's test, the same for every batch size."""

    stage = 'test'
    __test__ = False  # no test case, whatever pytest takes it for
