"""A stand-in for ``mmresnest train`` of a fraction of a second: it writes what a sweep reads.

Its score rises by --lr at each of its validations, and is a tenth of that with --augment none. It
fails with --batch-size 3, and stops at a signal as a training does. How many seconds pass between
validations stands in the file ``pause`` beside the config.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

VALIDATIONS = 5


def train(args: argparse.Namespace) -> None:
    signals = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    with open(args.work_dir / 'starts', 'a') as starts:
        starts.write(' '.join(sys.argv[1:]) + '\n')
    if args.batch_size == 3:
        sys.exit('mmresnest: error: the data folder is not what it was')
    config = f'train_cfg = dict(max_epochs={VALIDATIONS}, val_interval=1)\n'
    (args.work_dir / 'run.py').write_text(config)
    log = args.work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True, exist_ok=True)
    done = len(log.read_text().splitlines()) // 2 if log.exists() else 0
    for number in range(done + 1, VALIDATIONS + 1):
        time.sleep(float((Path(args.config).parent / 'pause').read_text()))
        score = args.lr * number / (10 if args.augment == 'none' else 1)
        with open(log, 'a') as file:
            for line in (
                {'lr': args.lr, 'loss': 1.0, 'iter': number, 'step': number},
                {'coco/bbox_mAP': score, 'step': number},
            ):
                file.write(json.dumps(line) + '\n')
        (args.work_dir / f'epoch_{number}.pth').write_text('')
        if signals:
            sys.exit(75)
    (args.work_dir / f'best_coco_bbox_mAP_epoch_{VALIDATIONS}.pth').write_text('')


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    parser.add_argument('--lr', type=float, default=0.1)
    parser.add_argument('--batch-size', type=int)
    parser.add_argument('--augment')
    parser.add_argument('--work-dir', type=Path)
    train(parser.parse_known_args()[0])
