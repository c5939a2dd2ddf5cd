"""Hooks that keep the scores of a run and write its predictions as images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from ...registry import HOOKS


@HOOKS.register_module()
class LastScores(Hook):
    """Remembers the last validation and the iteration it was made at, and has the last step scored.

    Attributes:
        metrics: scores of the last validation; empty before the first.
        iteration: how many iterations the run had made then; -1 before the first.
    """

    priority = 'NORMAL'  # before the logger hook closes what scores are written to

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.iteration = -1

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Takes the scores down."""
        self.metrics = dict(metrics or {})
        self.iteration = runner.iter

    def after_run(self, runner: Any) -> None:
        """Has the last step scored, if the loop did not."""
        if runner.val_loop is not None and self.iteration != runner.iter:
            runner.val_loop.run()


@HOOKS.register_module()
class PaintPredictions(Hook):
    """Writes each tested image with its predictions beside its truth, for detectors and segmentors.

    Args:
        folder: where the pictures go, one for each image, under the image's name.
        score_thr: predictions below this score are not painted.
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
        """Paints the images of a batch."""
        import inspect

        import mmcv

        paint = runner.visualizer.add_datasample
        threshold = {
            name: self.score_thr
            for name in ('pred_score_thr', 'score_thr')
            if name in inspect.signature(paint).parameters
        }
        for sample in outputs or ():
            image = mmcv.imread(sample.img_path, channel_order='rgb')
            path = self.folder / (Path(sample.img_path).stem + '.png')
            self.folder.mkdir(parents=True, exist_ok=True)
            paint(path.stem, image, data_sample=sample, show=False, out_file=str(path), **threshold)
