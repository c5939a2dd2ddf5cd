"""Time a training step and a prediction of whole models by network, with the memory that they take.

``python tools/measure_archs.py`` puts each network of ``--archs`` into a Faster R-CNN, a RetinaNet
and a DeepLabV3 by ``--arch``, as commands do, with random weights, on random images and with few
regions (:data:`FEW`). Each pair is a process of its own, so that its peak of memory is its own.
Networks of timm need the extra ``[timm]``; one that cannot be had is named, the rest is measured.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

ARCHS = (
    'skresnext50_32x4d',
    'dla60_res2net',
    'timm/convnext_tiny',
    'timm/xception65',
    'timm/inception_v4',
)
MODELS = {
    'faster-rcnn': 'faster_rcnn_resnest50_fpn',
    'retinanet': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'deeplabv3': 'deeplabv3_resnest50_ade20k',
}
FEW = {'model.train_cfg.rcnn.sampler.num': 128, 'model.test_cfg.rpn.max_per_img': 200}
"""The regions that a Faster R-CNN's second stage looks at, which would hide its network."""
COLUMNS = ('model', 'arch', 'params M', 'step s', 'prediction s', 'step MiB', 'prediction MiB')
LINE = '{:12} {:20} {:>9} {:>7} {:>13} {:>9} {:>15}'
BATCH = 2  # images of a step; a prediction is one of one


def write_line(text: str) -> None:
    """Write figures as soon as they are there."""
    sys.stdout.write(text + '\n')
    sys.stdout.flush()


def read_peak() -> float:
    """Return the most memory that the process has had so far, in MiB (Linux counts in KiB)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == 'darwin' else 1 << 10)


def time_calls(call: Callable[[], object], times: int) -> float:
    """Return the median seconds of a call, after one that is not counted."""
    seconds = []
    for _ in range(times + 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def measure_pair(name: str, arch: str, size: tuple[int, int], times: int) -> list[str]:
    """Return the cells of a row.

    Memory is what the process has at most beyond what it had before the model was built: of the
    predictions, with the weights, and then of the training steps, with gradients and momentum.
    """
    import torch
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import MODELS as REGISTRY
    from mmengine.registry import DefaultScope

    from mmresnest.analysis.memory import make_sample
    from mmresnest.config.inspect import import_packages, task_of
    from mmresnest.config.retarget import start_from_scratch
    from mmresnest.engine.prepare import configure
    from mmresnest.models.norms import replace_sync_norms

    cfg = configure(MODELS[name], arch=arch, cfg_options=FEW if name == 'faster-rcnn' else None)
    start_from_scratch(cfg)  # which thaws the stages that are frozen
    replace_sync_norms(cfg.model)
    import_packages(cfg)
    if task_of(cfg) == 'semantic':
        cfg.model.data_preprocessor.size = size  # and not the crop of the config
    torch.manual_seed(0)
    before = read_peak()
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = REGISTRY.build(cfg.model).eval()
        images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(BATCH)]
        samples = [make_sample(task_of(cfg), *size, 7) for _ in images]
        batch = dict(inputs=images, data_samples=samples)
        single = {key: values[:1] for key, values in batch.items()}
        with torch.no_grad():
            predicting = time_calls(lambda: model.test_step(single), times)
        peak = read_peak()
        wrapper = build_optim_wrapper(model.train(), cfg.optim_wrapper)
        training = time_calls(lambda: model.train_step(batch, wrapper), times)
    params = sum(one.numel() for one in model.parameters()) / 1e6
    figures = (f'{params:.1f}', f'{training:.2f}', f'{predicting:.2f}')
    return [name, arch, *figures, f'{read_peak() - before:.0f}', f'{peak - before:.0f}']


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--archs', nargs='+', default=ARCHS, metavar='ARCH', help='networks')
    parser.add_argument('--models', nargs='+', default=list(MODELS), choices=MODELS)
    parser.add_argument('--size', nargs=2, type=int, default=(160, 224), metavar=('H', 'W'))
    parser.add_argument('--times', type=int, default=2, metavar='N', help='counted, behind one')
    parser.add_argument('--pair', nargs=2, metavar=('MODEL', 'ARCH'), help='in this process')
    return parser.parse_args()


def main() -> int:
    """Measure each pair in turn; the status is 1 where one could not be measured."""
    args = parse_arguments()
    size = tuple(args.size)
    if args.pair:
        warnings.simplefilter('ignore')
        write_line(LINE.format(*measure_pair(*args.pair, size, args.times)))
        return 0
    write_line(f'training steps of {BATCH}, predictions of 1 x 3 x {size[0]} x {size[1]}')
    write_line(LINE.format(*COLUMNS))
    failed = 0
    for name in args.models:
        for arch in args.archs:
            command = [sys.executable, __file__, '--pair', name, arch, '--times', str(args.times)]
            run = subprocess.run(
                [*command, '--size', *map(str, size)], capture_output=True, text=True
            )
            failed += run.returncode != 0
            write_line((run.stdout or run.stderr or '?').strip().splitlines()[-1])
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
