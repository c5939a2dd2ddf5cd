"""Find the batch that fits a GPU, by training steps on the data: ``--batch-size auto``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..config.hardware import configure_norms
from ..config.inspect import import_packages
from ..config.options import ScheduleOptions
from ..config.paths import check_paths
from ..errors import UserError

SHARE = 0.85
"""How much of the memory may be used: images differ in size and number of objects."""
MOST = 64
STEPS = 2
"""The first step makes the state of the optimizer."""


def find_batch_size(cfg: Config, options: ScheduleOptions) -> int:
    """Return how many images of a config's training fit the GPU at once.

    Args:
        cfg: with its data; it is copied.
        options: the others of the training, which count for the size of images.

    Raises:
        UserError: there is no GPU, or not even one image fits.
    """
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            '--batch-size auto finds what fits the memory of a GPU, and there is none here; on a '
            'CPU a larger batch is no faster: give a number, such as 4',
            code='device.missing',
        )
    from ..config.pipelines import set_image_size

    cfg = copy.deepcopy(cfg)
    if options.img_size is not None:
        set_image_size(cfg, options.img_size)
    check_paths(cfg, ('train',))
    import_packages(cfg)
    configure_norms(cfg, False)
    total = torch.cuda.get_device_properties(0).total_memory
    least = 2 if cfg.default_scope == 'mmseg' else 1  # its heads norm maps of one pixel
    steps = TrainingSteps(cfg)
    found = choose_batch_size(steps.measure_memory, total * SHARE, least, steps.images)
    print_log(
        f'batch: {found} images, measured by training steps on {total / 2**30:.0f} GiB', 'current'
    )
    return found


def choose_batch_size(
    measure: Callable[[int], int | None], limit: float, least: int = 1, images: int = MOST
) -> int:
    """Return the largest batch whose memory is below a limit, by doubling and by one line.

    Args:
        measure: batch -> bytes at most; None where they were not enough.
        limit: in bytes.
        least: the smallest batch that can be trained.
        images: how many there are.

    Raises:
        UserError: not even the smallest batch fits.
    """
    most = max(least, min(MOST, images))
    points: list[tuple[int, int]] = []
    batch = least
    while batch <= most:
        used = measure(batch)
        if used is None or used > limit:
            break
        points.append((batch, used))
        batch *= 2
    if not points:
        raise UserError(
            f'--batch-size auto: a batch of {least} does not fit the GPU; make images smaller by '
            '--img-size, or take a smaller network',
            code='device.memory',
        )
    largest, used = points[-1]
    if len(points) == 1:
        return largest
    each = max(1.0, (used - points[0][1]) / (largest - points[0][0]))
    return min(most, max(largest, min(2 * largest - 1, int(largest + (limit - used) // each))))


class TrainingSteps:
    """Training steps of a config on the GPU, whose memory is measured.

    Args:
        cfg: with its data and packages.
    """

    def __init__(self, cfg: Config) -> None:
        from mmengine.registry import DATASETS, DefaultScope

        from .runner import explain_build_errors

        self.cfg = cfg
        with DefaultScope.overwrite_default_scope(cfg.default_scope), explain_build_errors(cfg):
            self.dataset = DATASETS.build(cfg.train_dataloader.dataset)
        self.images = len(self.dataset)

    def measure_memory(self, batch: int) -> int | None:
        """Return the most bytes that steps on so many images take, None if they do not fit."""
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            self._train(batch)
        except torch.cuda.OutOfMemoryError:
            return None
        finally:
            torch.cuda.empty_cache()
        return torch.cuda.max_memory_reserved()

    def _train(self, batch: int) -> None:
        from mmengine.dataset import pseudo_collate
        from mmengine.optim import build_optim_wrapper
        from mmengine.registry import MODELS, DefaultScope

        with DefaultScope.overwrite_default_scope(self.cfg.default_scope):
            model: Any = MODELS.build(copy.deepcopy(self.cfg.model)).cuda().train()
            wrapper = build_optim_wrapper(model, copy.deepcopy(self.cfg.optim_wrapper))
            for step in range(STEPS):
                first = step * batch
                chosen = [self.dataset[(first + one) % self.images] for one in range(batch)]
                model.train_step(pseudo_collate(chosen), wrapper)
