"""Tries every kind of data folder from reading to a score, and prints a table.

``python tools/formats.py [KIND ...]`` makes a folder of each kind that the tests have, by code of
their own, reads it, trains the tiny network for 20 iterations at 64 pixels on it, and scores the
annotations as predictions: boxes and instance masks by COCO's mAP, masks of classes by mIoU of
what is read against what was drawn. With ``--same DIR`` it writes the COCO folder DIR as VOC and
as YOLO, trains on all three from one seed, and fails where a loss or a score differs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import numpy as np  # noqa: E402
from helpers import tiny  # noqa: E402
from helpers.folders import CLASSES, KINDS, make_truth  # noqa: E402
from helpers.mask_folders import MASK_KINDS, draw_truth, make_voc_objects  # noqa: E402
from PIL import Image  # noqa: E402
from pycocotools.coco import COCO  # noqa: E402
from pycocotools.cocoeval import COCOeval  # noqa: E402

from mmresnest.data.base import DataFolder  # noqa: E402
from mmresnest.data.folder import convert_folder, read_folder  # noqa: E402
from mmresnest.data.request import DataRequest  # noqa: E402
from mmresnest.engine.train import train  # noqa: E402

ITERATIONS = 20
SHARE = '0.4'
"""What is put aside for validation where a kind has no such part."""
LOOP = f"""
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters={ITERATIONS}, val_interval={ITERATIONS})
param_scheduler = []
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(by_epoch=False, interval={ITERATIONS}))
"""


def main() -> int:
    """Try the kinds, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('kinds', nargs='*', metavar='KIND', help='default: all')
    parser.add_argument('--same', type=Path, metavar='DIR', help='a COCO folder to write otherwise')
    parser.add_argument('--img-size', type=int, default=64, metavar='PIXELS', help='of --same')
    args = parser.parse_args()
    if args.same is not None:
        return compare_forms(args.same.absolute(), args.img_size)
    every = [*KINDS, 'voc-objects', *MASK_KINDS]
    write('| kind | taken for | classes and counts | last loss | annotations as predictions |')
    write('|---|---|---|---|---|')
    for name in args.kinds or every:
        with tempfile.TemporaryDirectory() as folder:
            os.environ['XDG_CACHE_HOME'] = str(Path(folder) / 'cache')
            tried = try_masks if name in MASK_KINDS else try_objects
            write(f'| `{name}` | {" | ".join(tried(name, Path(folder)))} |')
    return 0


def write(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + '\n')
    sys.stdout.flush()


def try_objects(name: str, folder: Path) -> Iterator[str]:
    """Yield what a folder with boxes is taken for, whether it is right, a loss and a score."""
    kind = KINDS.get(name)
    root = folder / name
    (kind.make if kind else make_voc_objects)(root)
    splits = kind.splits if kind else ('train', 'val')
    split = SHARE if len(splits) == 1 else None
    data = read_folder(DataRequest.parse(root, split=split), 'coco')
    yield data.format or 'COCO, in place'
    truth = make_truth(splits)
    counts = {part: sum(len(shot.marks) for shot in shots) for part, shots in truth.items()}
    found = {part: one.object_count for part, one in data.splits.items()}
    assert sorted(data.classes) == sorted(CLASSES), data.classes
    assert found == counts or split and sum(found.values()) == sum(counts.values()), found
    yield f'{len(data.classes)}; {"/".join(map(str, found.values()))}'
    task = 'instance' if data.has_masks else 'detection'
    losses, _ = train_tiny(folder, task, data=root, split=split)
    yield f'{losses[-1]:.3f}'
    scores = [score_annotations(data, metric) for metric in METRICS[task]]
    yield ', '.join(f'{metric} mAP {score:.3f}' for metric, score in zip(METRICS[task], scores))


METRICS = {'detection': ('bbox',), 'instance': ('bbox', 'segm')}


def score_annotations(data: DataFolder, metric: str) -> float:
    """Return the mAP of the annotations of the validation part as predictions."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(data.root / data.split('val').annotations))
        rows = [{**row, 'score': 1.0} for row in truth.dataset['annotations']]
        for number, row in enumerate(truth.dataset['annotations'], start=1):
            row['id'] = number  # pycocotools takes 0 for no match
        truth.createIndex()
        scores = COCOeval(truth, truth.loadRes(rows), metric)
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
    return float(scores.stats[0])


def try_masks(name: str, folder: Path) -> Iterator[str]:
    """Yield what a folder of masks is taken for, whether it is right, a loss and a score."""
    kind, root = MASK_KINDS[name], folder / name
    kind.make(root)
    split = SHARE if len(kind.splits) == 1 else None
    data = read_folder(DataRequest.parse(root, kind.mapping, split=split), 'ade20k')
    yield data.format
    assert data.classes == kind.names, data.classes
    pairs = list(list_masks(data))
    shots = {shot.name: shot for part in kind.splits for shot in make_truth()[part]}
    assert len(pairs) == len(shots), pairs
    yield f'{len(data.classes)}; {"/".join(str(one.image_count) for one in data.splits.values())}'
    losses, _ = train_tiny(folder, 'semantic', data=root, split=split, mask_values=kind.mapping)
    yield f'{losses[-1]:.3f}'
    both = np.zeros((256, 256), int)
    for image, mask in pairs:
        drawn = np.asarray(kind.change(draw_truth(shots[image]))).astype(int)
        both += np.bincount(
            (256 * drawn + np.asarray(Image.open(mask))).ravel(), minlength=65536
        ).reshape(256, 256)
    there = [at for at in range(255) if both[at].sum() or both[:, at].sum()]
    ious = [both[at, at] / (both[at].sum() + both[:, at].sum() - both[at, at]) for at in there]
    yield f'mIoU {np.mean(ious):.3f}'


def list_masks(data: DataFolder) -> Iterator[tuple[str, Path]]:
    """Yield the name of each image and its mask."""
    for part in data.splits.values():
        for stem in Path(part.listing).read_text(encoding='utf-8').splitlines():
            image = Path(stem + data.img_suffix).stem.removesuffix('_leftImg8bit')
            yield image, data.root / part.annotations / (stem + data.seg_map_suffix)


def train_tiny(folder: Path, task: str, **given: Any) -> tuple[list[float], Mapping[str, float]]:
    """Train the tiny network of a task; return the loss of each iteration, and the scores."""
    folder.mkdir(exist_ok=True)
    config = tiny.write(folder, task)
    config.write_text(config.read_text() + LOOP)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        result = train(
            config, work_dir=str(folder / 'run'), seed=0, schedule='config', workers=0, **given
        )
    [log] = sorted((folder / 'run').glob('*/vis_data/scalars.json'))
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [row['loss'] for row in rows if 'loss' in row]
    assert len(losses) == ITERATIONS, losses
    return losses, result.metrics


def compare_forms(root: Path, size: int) -> int:
    """Train on a COCO folder and on what is written of it, and compare to the last digit."""
    found: dict[str, tuple[Sequence[float], Mapping[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ['XDG_CACHE_HOME'] = str(folder / 'cache')
        for form in ('coco', 'voc', 'yolo'):
            data = root
            if form != 'coco':
                data = folder / f'written_{form}'
                convert_folder(DataRequest(root), data, form)
            read = read_folder(data, 'coco')
            score = score_annotations(read, 'bbox')
            losses, scores = train_tiny(folder / form, 'detection', data=data, img_size=size)
            found[form] = losses, scores
            rest = ', '.join(f'{key} {value!r}' for key, value in sorted(scores.items()))
            write(f'{form}: annotations as predictions {score!r}, last loss {losses[-1]!r}, {rest}')
    differ = [form for form, value in found.items() if value != found['coco']]
    write(f'these differ from coco: {", ".join(differ)}' if differ else 'all are the same')
    return 1 if differ else 0


if __name__ == '__main__':
    sys.exit(main())
