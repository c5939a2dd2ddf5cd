"""Show images with predictions in TensorBoard, Weights & Biases or MLflow while a model trains."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.visualization import MLflowVisBackend as TheirMLflowVisBackend

from ...errors import UserError
from ...registry import HOOKS
from .arguments import check_whole_number


@HOOKS.register_module()
class LivePictures(Hook):
    """Draw what a validation predicts beside the ground truth, for all backends of the visualizer.

    The images are always the same, at equal steps over those that the first process validates on,
    and what is drawn are the predictions that are scored: no image is predicted on twice.

    Args:
        number: of images.
        score_thr: objects below this score are not drawn.

    Raises:
        ArgumentError: ``number`` is no whole number above 0.
    """

    priority = 'NORMAL'  # before the scores are logged, which wandb puts behind them

    def __init__(self, number: int = 4, score_thr: float = 0.3) -> None:
        check_whole_number(self, 'number', number)
        self.number, self.score_thr = number, score_thr
        self.drawn: list[np.ndarray] = []
        self.places: dict[str, int] = {}
        self.seen = 0

    def before_run(self, runner: Any) -> None:
        """Refuse a backend that would end the run at the first image."""
        if any(type(one) is TheirMLflowVisBackend for one in _list_backends(runner)):
            raise UserError(
                "LivePictures: mmengine's MLflowVisBackend takes no picture by steps; "
                "write type='mmresnest.MLflowVisBackend' in visualizer.vis_backends",
                code='config.type-unfit',
            )

    def before_val_epoch(self, runner: Any) -> None:
        """Start from no images."""
        self.seen, self.drawn = 0, []

    def after_val_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        """Draw the selected images of a batch."""
        from ...visualization.pictures import spread_indices

        if outputs is None or not is_main_process():
            return
        dataset = runner.val_dataloader.dataset
        chosen = spread_indices(max(len(dataset) // get_world_size(), 1), self.number)
        for place, sample in enumerate(outputs, self.seen):
            if place in chosen:
                self._draw_sample(runner, dataset, sample)
        self.seen += len(outputs)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Write the images to all backends."""
        for number, image in enumerate(self.drawn, 1):
            runner.visualizer.add_image(f'predictions_{number}', image, runner.iter)
        self.drawn = []

    def _draw_sample(self, runner: Any, dataset: Any, sample: Any) -> None:
        from ...evaluation.collector import index_by_path
        from ...visualization.canvas import read_image
        from ...visualization.pictures import draw_results

        try:
            self.places = self.places or index_by_path(dataset)
            info = dataset.get_data_info(self.places[sample.img_path])
            with tempfile.TemporaryDirectory(prefix='mmresnest-live-') as folder:
                path = draw_results(
                    [sample],
                    [info],
                    dataset.metainfo.get('classes') or (),
                    Path(folder) / 'one.png',
                    self.score_thr,
                    title=Path(sample.img_path).name,
                )
                self.drawn.append(read_image(str(path)))
        except Exception as error:  # no training is to end for a picture of it
            runner.logger.warning(
                f'{getattr(sample, "img_path", "an image")} is not drawn for '
                f'those who watch: {type(error).__name__}: {error}'
            )


def _list_backends(runner: Any) -> list[Any]:
    """Return the backends of a runner's visualizer, which has no public way to all of them."""
    return list(runner.visualizer._vis_backends.values())
