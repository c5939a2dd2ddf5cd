"""How time and memory grow: with side and number of images, depth, and number of processes.

``python tools/growth.py`` measures, writes docs/growth.json and draws docs/growth.svg; with
``--plot`` it only draws what the former holds. One thread, so that a quiet core is all it needs.
"""

import argparse
import json
import multiprocessing
import queue
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

ROOT = Path(__file__).resolve().parents[1]
SIDES = (256, 512, 1024, 2048)
BATCHES = (1, 2, 4, 8)
DEPTHS = (14, 26, 50, 101, 200, 269)
PROCESSES = 2
TRAINED = 2 * 1024**2  # pixels of a training step at most: its maps take 1.2 KiB each
FORMS = ('lean', 'fused')


def list_cases() -> Iterator[tuple[str, str, tuple[int, int, int]]]:
    """Yield axis, network and batch x height x width; what two axes share is measured for each."""
    for side in SIDES:
        yield 'side', 'resnest50', (1, side, side)
    for batch in BATCHES:
        yield 'batch', 'resnest50', (batch, 256, 256)
    for depth in DEPTHS:
        yield 'depth', f'resnest{depth}', (1, 256, 256)


def measure_cases(repeats: int) -> list[dict[str, Any]]:
    """Measure all cases, inference and training."""
    from mmresnest.analysis.benchmark import as_json, benchmark

    found = []
    for axis, arch, size in list_cases():
        small = size[0] * size[1] * size[2] <= TRAINED
        rows = benchmark(
            [arch],
            forms=FORMS,
            sizes=[size],
            repeats=repeats,
            modes=('inference', 'training') if small else ('inference',),
            say=lambda said: sys.stderr.write(f'{said}\n'),
        )
        found += [dict(row, axis=axis) for row in as_json(rows)['rows']]
    return found


def run_worker(rank: int, store: str, repeats: int, answers: Any) -> None:
    """Time steps in one process: alone, beside another, and exchanging gradients."""
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    from mmresnest import build_backbone
    from mmresnest.engine.distributed import leave_process_group

    torch.set_num_threads(1)
    distributed.init_process_group('gloo', f'file://{store}', rank=rank, world_size=PROCESSES)
    torch.manual_seed(0)
    network = build_backbone('resnest50')
    divided = DistributedDataParallel(build_backbone('resnest50'))
    image = torch.randn(2, 3, 256, 256)
    gradients = torch.zeros(sum(one.numel() for one in network.parameters()))

    def step(model: torch.nn.Module) -> None:
        sum(one.mean() for one in model(image)).backward()
        model.zero_grad()

    runs = dict(
        alone=lambda: step(network) if rank == 0 else None,
        beside=lambda: step(network),
        exchanging=lambda: step(divided),
        exchange=lambda: distributed.all_reduce(gradients),
    )
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repeats + 1):
        for name, run in runs.items():
            distributed.barrier()
            start = time.perf_counter()
            run()
            if number:
                times[name].append((time.perf_counter() - start) * 1e3)
    leave_process_group()
    if rank == 0:
        answers.put(
            dict(
                {name: statistics.median(taken) for name, taken in times.items()},
                MiB=gradients.numel() * 4 / 2**20,
            )
        )


def measure_processes(repeats: int) -> dict[str, float]:
    """Return what processes cost each other, in milliseconds, and the size of the gradients."""
    context = multiprocessing.get_context('spawn')
    answers = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        group = [
            context.Process(
                target=run_worker, daemon=True, args=(rank, f'{folder}/store', repeats, answers)
            )
            for rank in range(PROCESSES)
        ]
        for one in group:
            one.start()
        found: dict[str, float] = {}
        while not found:
            try:
                found = answers.get(timeout=1)
            except queue.Empty:
                failed = [one.exitcode for one in group if one.exitcode]
                if failed:
                    raise SystemExit(f'a process ended with {failed[0]}, see above') from None
        for one in group:
            one.join()
    return found


def fit_line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the a and b of the line a + b x that is nearest in relative terms."""
    import numpy as np

    x, y = np.array(points, float).T
    scaled = np.stack([1 / y, x / y], 1)
    (a, b), *_ = np.linalg.lstsq(scaled, np.ones_like(y), rcond=None)
    return float(a), float(b)


def select_points(
    found: dict[str, Any], axis: str, mode: str, form: str, value: str
) -> list[tuple[float, float]]:
    """(x, value) of one curve; x is the number of pixels, or of multiply-adds for depth."""
    points = []
    for row in found['rows']:
        if (row['axis'], row['mode'], row['form']) == (axis, mode, form):
            batch, _, height, width = map(int, row['size'].split('x'))
            pixels = batch * height * width
            x = found['macs'][row['arch']] * pixels if axis == 'depth' else pixels
            points.append((x, row[value]))
    return sorted(points)


def fit_formulas(found: dict[str, Any]) -> dict[str, Any]:
    """Return lines through what was measured, and how far off they are at most."""
    lines = {}
    for name, axes, mode, form, value in (
        ('held', ('side', 'batch'), 'training', 'lean', 'saved'),
        ('step', ('side', 'batch'), 'training', 'lean', 'cpu'),
        ('image', ('side', 'batch'), 'inference', 'lean', 'cpu'),
        ('image, fused', ('side', 'batch'), 'inference', 'fused', 'cpu'),
        ('image by depth', ('depth',), 'inference', 'lean', 'cpu'),
        ('step by depth', ('depth',), 'training', 'lean', 'cpu'),
        ('held by depth', ('depth',), 'training', 'lean', 'saved'),
    ):
        points = [point for axis in axes for point in select_points(found, axis, mode, form, value)]
        a, b = fit_line(points)
        lines[name] = dict(a=a, b=b, off=max(abs(a + b * x - y) / y for x, y in points))
    return lines


def plot_growth(found: dict[str, Any], path: Path) -> None:
    """Draw four panels: time and memory by pixels, by depth, and time by processes."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams['svg.hashsalt'] = 'mmresnest'  # the same file each time
    figure = Figure(figsize=(10, 7.5), layout='constrained')
    panels = figure.subplots(2, 2).ravel()
    curves = (
        ('inference', 'lean', '#56B4E9', 'lean, inference'),
        ('inference', 'fused', '#009E73', 'fused, inference'),
        ('training', 'lean', '#0072B2', 'lean, training step'),
    )
    for panel, value, title in (
        (panels[0], 'cpu', 'Time of one thread, s'),
        (panels[1], 'saved', 'Held after a forward pass, and peak, MiB'),
    ):
        for mode, form, color, label in curves if value == 'cpu' else curves[2:]:
            for axis, mark in (('side', 'o'), ('batch', 's')):
                points = select_points(found, axis, mode, form, value)
                scale = 1e3 if value == 'cpu' else 1
                panel.plot(
                    [x for x, _ in points],
                    [y / scale for _, y in points],
                    mark + '-',
                    color=color,
                    label=f'{label}, by {axis}',
                )
                if value == 'saved':
                    panel.plot(
                        *zip(*select_points(found, axis, mode, form, 'peak')),
                        mark + ':',
                        color='#D55E00',
                        label=f'peak, by {axis}',
                    )
        panel.set(xscale='log', yscale='log', xlabel='pixels: batch x height x width', title=title)
    for mode, form, color, label in curves:
        rows = [
            row
            for row in found['rows']
            if (row['axis'], row['mode'], row['form']) == ('depth', mode, form)
        ]
        panels[2].plot(
            [int(row['arch'].removeprefix('resnest')) for row in rows],
            [row['cpu'] / 1e3 for row in rows],
            'o-',
            color=color,
            label=label,
        )
    panels[2].set(
        xlabel='depth: ResNeSt-14 .. ResNeSt-269, 1 x 256 x 256',
        ylim=(0, None),
        title='Time of one thread, s',
    )
    names = dict(
        alone='one process',
        beside='two, each by itself',
        exchanging='two, exchanging',
        exchange='the exchange alone',
    )
    bars = panels[3].barh(
        list(names.values()),
        [found['processes'][name] for name in names],
        color=['#999999', '#999999', '#0072B2', '#D55E00'],
    )
    panels[3].bar_label(bars, fmt=' %.0f')
    panels[3].invert_yaxis()
    panels[3].margins(x=0.15)
    panels[3].set(title='Step of 2 x 256 x 256 in each process, ms')
    for panel in panels[:3]:
        panel.grid(alpha=0.3)
        panel.legend(fontsize='small')
    figure.savefig(path, metadata={'Date': None})


def main() -> None:
    """Measure, fit, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--repeats', type=int, default=3, help='rounds that are counted')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs' / 'growth', help='without suffix')
    parser.add_argument('--plot', action='store_true', help='measure nothing, draw')
    args = parser.parse_args()
    data, picture = args.out.with_suffix('.json'), args.out.with_suffix('.svg')
    if args.plot:
        found = json.loads(data.read_text(encoding='utf-8'))
    else:
        import torch

        from mmresnest.analysis.benchmark import describe_machine
        from mmresnest.models.variants import variant

        torch.set_num_threads(1)
        found = dict(
            machine=describe_machine(),
            rows=measure_cases(args.repeats),
            processes=measure_processes(args.repeats),
            macs={
                f'resnest{depth}': variant(f'resnest{depth}').macs * 1e9 / 224**2
                for depth in DEPTHS
            },
        )
        data.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
    plot_growth(found, picture)
    for name, fit in fit_formulas(found).items():
        sys.stdout.write(f'{name}: {fit["a"]:.3g} + {fit["b"]:.3g} x, within {fit["off"]:.0%}\n')
    sys.stdout.write(f'written: {data}, {picture}\n')


if __name__ == '__main__':
    main()
