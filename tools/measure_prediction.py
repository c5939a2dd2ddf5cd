"""Measure what tiles and tracks of ``mmresnest predict`` bring, on drawn scenes and films.

``python tools/measure_prediction.py slicing CONFIG CHECKPOINT`` draws large scenes, and prints AP
and seconds of whole images and of tiles; ``tracking`` draws a film in which shapes pass over each
other, and counts how often an identity goes to another one. The checkpoint is one that was trained
on the embedded data set.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmresnest.data.shapes.drawing import CLASSES, Sample, draw_sample
from mmresnest.inference.results import Detections
from mmresnest.inference.slicing import OVERLAP, SlicedPredictor
from mmresnest.inference.tracking import LOW, FilmTracker
from mmresnest.utils.boxes import box_ious
from mmresnest.utils.matching import greedy_pairs

SEED = 7
AREAS = {'all': 0, 'small': 3, 'medium': 4, 'large': 5}
"""Area -> its place in the figures of COCOeval."""
SAME = 0.5  # the overlap from which on a detection is of an object


def write_line(text: str) -> None:
    """Write figures as soon as they are there."""
    sys.stdout.write(text + '\n')
    sys.stdout.flush()


def make_predictor(args: argparse.Namespace, score_thr: float) -> Any:
    """Build the predictor that the arguments name."""
    from mmresnest import Predictor

    warnings.simplefilter('ignore')
    return Predictor(args.config, args.checkpoint, score_thr=score_thr, demo=args.demo)


def compute_ap(scenes: list[Sample], results: list[Any]) -> dict[str, float]:
    """Return COCO's AP by the size of objects."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations = [
        dict(
            id=1000 * number + at + 1,
            image_id=number,
            category_id=int(label) + 1,
            bbox=[int(x0), int(y0), int(x1 - x0), int(y1 - y0)],
            area=int((x1 - x0) * (y1 - y0)),
            iscrowd=0,
        )
        for number, scene in enumerate(scenes, 1)
        for at, (label, (x0, y0, x1, y1)) in enumerate(zip(scene.labels, scene.boxes, strict=True))
    ]
    rows = [row for number, found in enumerate(results, 1) for row in found.to_coco(number)]
    for row in rows:
        row.pop('segmentation', None)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dict(
            images=[dict(id=number) for number in range(1, len(scenes) + 1)],
            annotations=annotations,
            categories=[dict(id=at, name=name) for at, name in enumerate(CLASSES, 1)],
        )
        truth.createIndex()
        if not rows:
            return dict.fromkeys(AREAS, 0.0)
        score = COCOeval(truth, truth.loadRes(rows), 'bbox')
        score.evaluate()
        score.accumulate()
        score.summarize()
    return {name: float(score.stats[place]) for name, place in AREAS.items()}


def measure_slicing(args: argparse.Namespace) -> None:
    """Print AP and seconds of whole images and of tiles."""
    size = (args.side, args.side)
    scenes = [draw_sample(SEED, 'test', number, size) for number in range(args.scenes)]
    images = [scene.image for scene in scenes]
    small = sum(
        int((np.prod(one.boxes[:, 2:] - one.boxes[:, :2], 1) < 32**2).sum()) for one in scenes
    )
    total = sum(len(scene.labels) for scene in scenes)
    write_line(f'{args.scenes} scenes of {args.side} px, {total} objects, {small} of them small')
    predictor = make_predictor(args, 0.05)
    predictor(images[0][: args.slice, : args.slice])  # what happens once
    sliced = SlicedPredictor(predictor, args.slice, args.overlap)
    for name, form in (('whole', predictor), (f'tiles of {args.slice}', sliced)):
        start = time.perf_counter()
        results = form(images, args.batch_size)
        seconds = (time.perf_counter() - start) / len(images)
        scores = compute_ap(scenes, results)
        figures = ', '.join(f'{area} {value:.3f}' for area, value in scores.items())
        write_line(f'{name}: AP {figures}; {seconds:.2f} s a scene')
    whole = predictor(images[0])
    one = SlicedPredictor(predictor, args.side, args.overlap)(images[0])
    equal = all(
        np.array_equal(getattr(whole, part), getattr(one, part))
        for part in ('boxes', 'scores', 'labels')
    )
    write_line(f'one tile of {args.side} is the whole image: {equal}')


def draw_film(
    frames: int, count: int, side: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield frames H W 3 in RGB in which shapes pass over each other, with boxes and labels."""
    random = np.random.default_rng(SEED)
    sprites = []
    for number in range(1000):
        drawn = draw_sample(SEED, 'train', number)
        for mask, label, (x0, y0, x1, y1) in zip(
            drawn.masks, drawn.labels, drawn.boxes, strict=True
        ):
            inside = 0 < x0 and x1 < 256 and 0 < y0 and y1 < 256
            if inside and 36 <= max(x1 - x0, y1 - y0) <= 80 and len(sprites) < count:
                window = slice(y0, y1), slice(x0, x1)
                sprites.append((drawn.image[window], mask[window], int(label)))
    sizes = np.array([mask.shape[::-1] for _, mask, _ in sprites], float)
    places = random.uniform(0, 1, (count, 2)) * (side - sizes)
    speeds = random.uniform(1.5, 4, (count, 2)) * random.choice([-1, 1], (count, 2))
    ground = random.integers(100, 140, (side // 8, side // 8, 3), np.uint8)
    ground = np.kron(ground, np.ones((8, 8, 1), np.uint8))
    for _ in range(frames):
        places += speeds
        beyond = (places < 0) | (places > side - sizes)
        speeds[beyond] *= -1
        places = np.clip(places, 0, side - sizes)
        image, boxes = ground.copy(), []
        for (x, y), (picture, mask, _) in zip(places.astype(int), sprites, strict=True):
            height, width = mask.shape
            image[y : y + height, x : x + width][mask] = picture[mask]
            boxes.append((x, y, x + width, y + height))
        yield image, np.array(boxes, float), np.array([label for _, _, label in sprites])


def hide_covered(boxes: np.ndarray, labels: np.ndarray, side: int) -> Detections:
    """Return the objects of a frame as a perfect detector finds those that are half visible.

    Args:
        boxes: N 4; later ones lie over earlier ones.
        labels: N.
        side: of the frame.
    """
    owner = np.full((side, side), -1)
    for number, (x0, y0, x1, y1) in enumerate(boxes.astype(int)):
        owner[y0:y1, x0:x1] = number
    areas = np.prod(boxes[:, 2:].astype(int) - boxes[:, :2].astype(int), axis=1)
    visible = np.bincount(owner[owner >= 0], minlength=len(boxes)) / areas
    seen = np.flatnonzero(visible >= 0.5)
    size = (side, side)
    scores = np.ones(len(seen), np.float32)
    return Detections(boxes[seen].astype(np.float32), scores, labels[seen], CLASSES, None, size)


def count_switches(truth: list[np.ndarray], followed: list[Any]) -> tuple[int, int]:
    """Return how often objects have an identity, and how often another than before.

    By the rule of CLEAR MOT (Bernardin and Stiefelhagen, 2008): an object keeps the track that it
    had as long as that overlaps it, and the others are paired best score first.
    """
    last: dict[int, int] = {}
    numbered = switches = 0
    for boxes, one in zip(truth, followed, strict=True):
        one = one.take(np.flatnonzero(one.ids > 0))
        overlaps = box_ious(one.boxes.astype(float), boxes)
        for column, identity in last.items():
            for row in np.flatnonzero((one.ids == identity) & (overlaps[:, column] >= SAME)):
                numbered += 1
                overlaps[row], overlaps[:, column] = -1, -1
        for row, column in greedy_pairs(overlaps, SAME):
            numbered += 1
            switches += column in last
            last[column] = int(one.ids[row])
    return numbered, switches


def measure_tracking(args: argparse.Namespace) -> None:
    """Print how many identities are kept, and the frames a second."""
    film = list(draw_film(args.frames, args.objects, args.side))
    crossings = sum(int((np.triu(box_ious(boxes, boxes), 1) > 0.1).sum()) for _, boxes, _ in film)
    predictor = None if args.true_boxes else make_predictor(args, LOW)
    start = time.perf_counter()
    if args.true_boxes:
        found = [hide_covered(boxes, labels, args.side) for _, boxes, labels in film]
    else:
        found = predictor([image for image, _, _ in film], args.batch_size)
    predicted = time.perf_counter()
    tracker = FilmTracker(args.rate, args.score_thr)
    followed = [tracker.follow(one).filter_by_score(args.score_thr) for one in found]
    ended = time.perf_counter()
    seen = sum(
        len(greedy_pairs(box_ious(one.boxes.astype(float), boxes), SAME))
        for (_, boxes, _), one in zip(film, followed, strict=True)
    )
    numbered, switches = count_switches([boxes for _, boxes, _ in film], followed)
    write_line(
        f'{args.frames} frames, {args.objects} objects, {crossings} overlaps of two in a frame\n'
        f'found: {seen} of {args.frames * args.objects}, with an identity: {numbered}\n'
        f'identities: {max((int(one.ids.max(initial=0)) for one in followed), default=0)} for '
        f'{args.objects} objects, {switches} times another one\n'
        f'{args.frames / (predicted - start):.3g} frames a second predicted, '
        f'{args.frames / (ended - predicted):.4g} followed, '
        f'{args.frames / (ended - start):.3g} both'
    )


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    commands = parser.add_subparsers(required=True)
    for name, run in (('slicing', measure_slicing), ('tracking', measure_tracking)):
        command = commands.add_parser(name, help=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument('config')
        command.add_argument('checkpoint')
        command.add_argument('--demo', action='store_true', help='of train --demo')
        command.add_argument('--batch-size', type=int, default=1)
        if name == 'slicing':
            command.add_argument('--scenes', type=int, default=8)
            command.add_argument('--side', type=int, default=1600, help='of a scene')
            command.add_argument('--slice', type=int, default=256)
            command.add_argument('--overlap', type=float, default=OVERLAP)
        else:
            command.add_argument('--frames', type=int, default=150)
            command.add_argument('--objects', type=int, default=6)
            command.add_argument('--side', type=int, default=256, help='of the film')
            command.add_argument('--rate', type=float, default=25.0)
            command.add_argument(
                '--true-boxes', action='store_true', help='follow these instead of detections'
            )
            command.add_argument('--score-thr', type=float, default=0.3)
    args = parser.parse_args()
    args.run(args)


if __name__ == '__main__':
    main()
