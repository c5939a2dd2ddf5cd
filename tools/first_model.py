"""Walks from an empty folder with a YOLO data set to a model, as a newcomer types it, and counts.

``python tools/first_model.py FOLDER`` draws a set of shapes, writes it as YOLO, and runs the
commands of docs/data.md in FOLDER, which must not exist: lines that each prints, those before the
first loss, and seconds. ``--data DIR`` takes a data set of any form; what follows ``--`` goes to
the training.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CONFIG = 'faster_rcnn_resnest50_fpn'
RUN = f'work_dirs/{CONFIG}'


def main() -> int:
    """Walk, and print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('folder', type=Path, metavar='FOLDER')
    parser.add_argument('--data', type=Path, metavar='DIR')
    parser.add_argument('rest', nargs='*', metavar='OPTION', help='of the training, after --')
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    data = args.data.absolute() if args.data else draw_yolo(args.folder)
    images = next(path.parent for path in sorted(data.rglob('*.jpg')))
    typed = 0
    for words in (
        ['train', CONFIG, '--data', str(data), *args.rest],
        ['test', RUN],
        ['predict', RUN, str(images)],
        ['export', RUN],
        ['report', RUN],
    ):
        typed += len(' '.join(['mmresnest', *words]))
        status = run_command(words, args.folder)
        if status:
            return status
    sys.stdout.write(f'5 commands of {typed} letters\n')
    return 0


def draw_yolo(folder: Path) -> Path:
    """Draw shapes and write them as YOLO; return their folder."""
    from mmresnest.data.folder import convert_folder
    from mmresnest.data.request import DataRequest
    from mmresnest.data.shapes.dataset import draw_dataset

    drawn = folder / 'drawn'
    draw_dataset(drawn, train=60, val=20, test=20, layouts=('coco',), progress=False)
    for path in drawn.glob('*.json'):  # boxes alone: the masks have holes, which YOLO has not
        table = json.loads(path.read_text())
        for row in table.get('annotations', ()):
            row.pop('segmentation', None)
        path.write_text(json.dumps(table))
    convert_folder(DataRequest(drawn, format='coco'), folder / 'pictures', 'yolo')
    return folder / 'pictures'


def run_command(words: list[str], folder: Path) -> int:
    """Run a command and print what it took; return its status."""
    start, lines, before = time.monotonic(), 0, None
    with (folder / f'{words[0]}.txt').open('w') as log:
        process = subprocess.Popen(
            [sys.executable, '-m', 'mmresnest', *words],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None  # by PIPE
        for line in process.stdout:
            if before is None and ' loss: ' in line:
                before = lines
            lines += bool(line.strip())
            log.write(line)
        status = process.wait()
    first = '' if before is None else f', {before} before the first loss'
    took = time.monotonic() - start
    sys.stdout.write(f'{words[0]}: status {status}, {lines} lines{first}, {took:.0f} s\n')
    sys.stdout.flush()
    return status


if __name__ == '__main__':
    sys.exit(main())
