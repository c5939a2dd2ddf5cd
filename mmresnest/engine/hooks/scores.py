"""Hooks that keep the scores of a run and write its predictions as images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from ...registry import HOOKS


@HOOKS.register_module(name=['LastMetrics', 'LastScores'])  # its former name
class LastMetrics(Hook):
    """Keep the scores of the last validation and its iteration, and validate after the last step.

    Attributes:
        metrics: scores of the last validation; empty before the first.
        iteration: how many iterations the run had made then; -1 before the first.
    """

    priority = 'NORMAL'  # before the logger hook closes what scores are written to

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.iteration = -1

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Keep the scores."""
        self.metrics = dict(metrics or {})
        self.iteration = runner.iter

    def after_run(self, runner: Any) -> None:
        """Validate after the last step, if the loop did not."""
        if runner.val_loop is not None and self.iteration != runner.iter:
            runner.val_loop.run()


@HOOKS.register_module(
    name=['SavePredictions', 'PaintPredictions']
)  # the second is its former name
class SavePredictions(Hook):
    """Write each test image with its predictions beside its ground truth.

    Args:
        folder: where the images go, one each, under the name of the image.
        score_thr: predictions below this score are not drawn.
    """

    def __init__(self, folder: str, score_thr: float = 0.3) -> None:
        self.folder = Path(folder)
        self.score_thr = score_thr

    def after_test_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Draw the images of a batch."""
        import inspect

        import mmcv

        draw = runner.visualizer.add_datasample
        threshold = {
            name: self.score_thr
            for name in ('pred_score_thr', 'score_thr')
            if name in inspect.signature(draw).parameters
        }
        for sample in outputs or ():
            image = mmcv.imread(sample.img_path, channel_order='rgb')
            path = self.folder / (Path(sample.img_path).stem + '.png')
            self.folder.mkdir(parents=True, exist_ok=True)
            draw(path.stem, image, data_sample=sample, show=False, out_file=str(path), **threshold)
