"""Refuse options of a prediction that nothing can obey, before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import UserError
from .base import check_score
from .inputs import Source
from .options import ImageOptions
from .slicing import OVERLAP, check_tiles
from .tracking import LOW, import_tracker

BOXES = ('detection', 'instance')

# fmt: off
TASKS: Mapping[str, tuple[tuple[str, ...], str]] = {
    'save_txt':   (BOXES, 'writes a line for each object, as YOLO has it'),
    'save_crops': (BOXES, 'writes a picture of each object'),
    'classes':    ((*BOXES, 'panoptic'), 'leaves out the objects of other classes'),
    'track':      (BOXES, 'follows objects from frame to frame'),
    'slice':      ((*BOXES, 'semantic'), 'merges what is found in tiles'),
}
# fmt: on
"""Option -> the tasks of models that can obey it, and what it does."""

KINDS = {'semantic': 'gives each pixel a class', 'panoptic': 'gives each pixel a segment'}
"""Task -> what a model gives that has no boxes."""


def check_values(options: ImageOptions) -> None:
    """Refuse values that no model can obey.

    Raises:
        UserError: with those that it can.
    """
    check_score(options.score_thr)
    for name, value in (('--vid-stride', options.vid_stride), ('--batch-size', options.batch_size)):
        if value < 1:
            raise UserError(f'{name} {value}: at least 1 is needed', code='option.value')
    if options.save_conf and not options.save_txt:
        raise UserError(
            '--save-conf writes scores into the files of --save-txt; give that, too',
            code='option.needed',
        )
    if options.slice is not None:
        check_tiles(options.slice, tile_overlap(options))
    elif options.overlap is not None:
        raise UserError(
            '--overlap is that of the tiles of --slice; give that, too', code='option.needed'
        )
    if options.track:
        import_tracker()


def check_sources(options: ImageOptions, sources: Iterable[Source]) -> None:
    """Refuse options that some of the inputs cannot obey.

    Raises:
        UserError: with the first of these.
    """
    still = next((source for source in sources if not source.video), None)
    if options.track and still is not None:
        raise UserError(
            f'--track follows objects from frame to frame of a film, and {still.label} is a '
            'picture; give films alone, or leave --track out',
            code='option.conflict',
        )


def needed_score(options: ImageOptions) -> float:
    """Return the lowest score of objects that the options have a use for."""
    return min(options.score_thr, LOW) if options.track else options.score_thr


def tile_overlap(options: ImageOptions) -> float:
    """Return the overlap of tiles, as a share of their side."""
    return OVERLAP if options.overlap is None else options.overlap


def check_task(options: ImageOptions, task: str) -> None:
    """Refuse options that a model of a task cannot obey.

    Raises:
        UserError: with the option.
    """
    for name, (tasks, meaning) in TASKS.items():
        if getattr(options, name) not in (None, False) and task not in tasks:
            option = f'--{name.replace("_", "-")}'
            raise UserError(
                f'{option} {meaning}, and this model, for {task} segmentation, {KINDS[task]}; '
                f'leave {option} out',
                code='option.conflict',
            )
    if options.slice is not None and options.tta and task == 'semantic':
        raise UserError(
            '--slice averages the scores of tiles, and --tta of a segmentor gives none; leave one '
            'of them out',
            code='option.conflict',
        )
