"""Whether a long training keeps its memory and its open files: 2,000 iterations, watched.

``python tools/soak.py`` trains a small Faster R-CNN on the embedded data set, with workers,
evaluation and checkpoints, writes docs/soak.json and draws docs/soak.svg; with ``--plot`` it only
draws what the former holds.  ``make soak`` runs this and the long forms of the tests.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

ITERATIONS, EVERY = 2000, 10
SIZE = 64  # px
OPTIONS = {
    'model.backbone.arch': 'resnest14',
    'train_dataloader.num_workers': 2,
    'train_dataloader.persistent_workers': True,
    'val_dataloader.num_workers': 1,
    'default_hooks.checkpoint.max_keep_ckpts': 2,
}


def train_and_watch(iterations: int, work_dir: Path, data: Path) -> dict[str, Any]:
    """Train, and record memory and open files every so many iterations."""
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS

    from mmresnest.config.inspect import iterate_dicts
    from mmresnest.config.load import load_config
    from mmresnest.engine.prepare import configure
    from mmresnest.engine.train import train

    rows: list[dict[str, int]] = []

    @HOOKS.register_module(name='Watch', force=True)
    class Watch(Hook):
        priority = 'LOWEST'

        def after_train_iter(
            self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
        ) -> None:
            if (runner.iter + 1) % EVERY == 0:
                rows.append(dict(iteration=runner.iter + 1, **read_memory()))

    cfg = configure(load_config('faster_rcnn_resnest50_fpn'), data=data, demo=True, options=OPTIONS)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        for node in iterate_dicts(loader.dataset):
            if node.get('type') == 'Resize':
                node.scale = (SIZE, SIZE)
    cfg.train_cfg.update(max_iters=iterations, val_interval=max(iterations // 10, 1))
    cfg.default_hooks.checkpoint.interval = max(iterations // 20, 1)
    cfg.param_scheduler[1].end = iterations
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='Watch')]
    result = train(cfg, work_dir=work_dir, seed=0)
    return dict(
        iterations=iterations,
        seconds=round(result.seconds),
        every=EVERY,
        mAP=result.metrics.get('coco/bbox_mAP'),
        rows=rows,
    )


def read_memory() -> dict[str, int]:
    """Return resident KiB of this process and of its children, and its open files."""
    own = os.getpid()
    children = [
        int(pid)
        for task in Path(f'/proc/{own}/task').iterdir()
        for pid in (task / 'children').read_text().split()
    ]
    return dict(
        resident=_resident_memory(own),
        children=sum(map(_resident_memory, children)),
        processes=len(children),
        files=len(os.listdir(f'/proc/{own}/fd')),
    )


def _resident_memory(pid: int) -> int:
    try:
        status = Path(f'/proc/{pid}/status').read_text()
    except FileNotFoundError:  # it has ended meanwhile
        return 0
    return next(
        (int(line.split()[1]) for line in status.splitlines() if line.startswith('VmRSS')), 0
    )


def measure_growth(rows: list[dict[str, int]], what: str) -> float:
    """Return how much higher the last quarter lies than the second, by their medians."""
    quarter = len(rows) // 4
    early, late = (
        [row[what] for row in part] for part in (rows[quarter : 2 * quarter], rows[-quarter:])
    )
    return statistics.median(late) / statistics.median(early) - 1


def plot_record(found: dict[str, Any], path: Path) -> None:
    """Draw memory and open files over iterations."""
    import matplotlib

    matplotlib.use('agg')
    from matplotlib import pyplot

    figure, (memory, files) = pyplot.subplots(2, 1, figsize=(8, 5), sharex=True)
    x = [row['iteration'] for row in found['rows']]
    memory.plot(x, [row['resident'] / 2**20 for row in found['rows']], label='training process')
    memory.plot(x, [row['children'] / 2**20 for row in found['rows']], label='workers, together')
    memory.set(ylabel='resident, GiB')
    memory.legend(loc='lower right')
    files.plot(x, [row['files'] for row in found['rows']], color='tab:green')
    files.set(ylabel='open files', xlabel='iteration')
    for axis in (memory, files):
        axis.set_ylim(0, 1.15 * axis.get_ylim()[1])
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={'Date': None})
    pyplot.close(figure)


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--plot', action='store_true', help='only draw docs/soak.json')
    parser.add_argument('--iterations', type=int, default=ITERATIONS)
    args = parser.parse_args()
    record = ROOT / 'docs' / 'soak.json'
    if not args.plot:
        from mmresnest.engine.prepare import draw_embedded_data

        found = train_and_watch(
            args.iterations, Path('work_dirs') / 'soak', draw_embedded_data('coco')
        )
        lines = ',\n'.join(json.dumps(row) for row in found.pop('rows'))
        head = json.dumps(found)[:-1]
        record.write_text(f'{head}, "rows": [\n{lines}\n]}}\n')
    found = json.loads(record.read_text())
    plot_record(found, record.with_suffix('.svg'))
    for what in ('resident', 'children', 'files'):
        sys.stdout.write(f'{what}: {measure_growth(found["rows"], what):+.1%}\n')


if __name__ == '__main__':
    main()
