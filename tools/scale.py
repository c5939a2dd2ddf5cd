"""Counts what configs take in training, and what that comes to: the table of docs/scale.md.

``python tools/scale.py CONFIG ...`` prints one row for each.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmresnest.analysis.memory import (
    count_training_images,
    estimate_step,  # noqa: E402
)
from mmresnest.config.load import load_config  # noqa: E402

RATES = (20e12, 50e12)  # operations a second, sustained
GPUS = (1, 8, 64)


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('configs', nargs='+', metavar='CONFIG')
    parser.add_argument('--arch', metavar='NAME', help='put this network into them')
    args = parser.parse_args()
    for name in args.configs:
        cfg = load_config(name)
        cost, images, batch = (
            estimate_step(cfg, arch=args.arch),
            count_training_images(cfg),
            cfg.train_dataloader.batch_size,
        )
        hours = [f'{cost.hours(images, gpus, rate):.3g}' for rate in RATES for gpus in GPUS]
        sys.stdout.write(
            ' | '.join(
                [
                    f'| `{Path(name).stem}`',
                    f'{images / 1e6:.2f}',
                    ' x '.join(map(str, cost.shape)),
                    f'{cost.flops / 1e9:.0f}',
                    f'{cost.saved / 2**30:.2f}',
                    f'{cost.params / 1e6:.1f}',
                    f'{cost.memory(batch) / 2**30:.1f} ({batch})',
                    *hours,
                ]
            )
            + ' |\n'
        )
        sys.stdout.flush()


if __name__ == '__main__':
    main()
