"""Exports networks in every format and prints a table of differences and times.

``python tools/exports.py`` takes random weights, as differences and times do not depend on what
they were trained for.
"""
import argparse
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SIZE = 320, 320
NETWORKS = ('resnest50', 'res2net50_v1b', 'seresnext50_32x4d')
DETECTORS = {'faster_rcnn': NETWORKS, 'mask_rcnn': NETWORKS[:1], 'retinanet': NETWORKS[:1]}
SEGMENTORS = {'deeplabv3': NETWORKS}
TITLE = ('model', 'part', 'format', 'largest difference', 'PyTorch, ms', 'fused, ms', 'file, ms',
         'MB')


def rows() -> list[tuple[str, str, str]]:
    """Config, part and format of each file."""
    every = ('onnx', 'openvino', 'torch-export', 'torchscript')
    found = [(f'faster_rcnn_{name}_fpn', 'backbone', to) for name in NETWORKS for to in every]
    found += [(f'faster_rcnn_{NETWORKS[0]}_fpn', 'neck', to) for to in every]
    found += [(f'{kind}_{name}_fpn', 'whole', to) for kind, names in DETECTORS.items()
              for name in names for to in every[:2]]
    found += [(f'{kind}_{name}_ade20k', 'whole', to) for kind, names in SEGMENTORS.items()
              for name in names for to in (every if name == NETWORKS[0] else every[:2])]
    return found


def random_checkpoint(name: str, path: Path) -> None:
    """Writes the config's model with random weights, whose objects differ in score."""
    import torch
    from mmengine.registry import MODELS, DefaultScope

    from mmresnest.engine.building import building
    from mmresnest.engine.config import load_config, merge, plain_norms, register
    cfg = load_config(name)
    merge(cfg, {'model.backbone.init_cfg': None})
    plain_norms(cfg.model)
    register(cfg)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), building(cfg):
        model = MODELS.build(cfg.model)
    for key, weight in model.named_parameters():
        if any(part in key for part in ('fc_cls', 'rpn_cls', 'retina_cls', 'conv_logits')):
            torch.nn.init.normal_(weight, 0, 0.1)
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)


def main() -> int:
    """Exports and prints a line for each; 1 if one of them cannot be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--only', default='', help='of the rows those that have this in them')
    args = parser.parse_args()
    from mmresnest.errors import UserError
    table, status = sys.stdout, 0
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):  # of mmengine's log
        table.write(f'| {" | ".join(TITLE)} |\n{"|---" * len(TITLE)}|\n')
        for name, part, to in rows():
            if args.only not in f'{name} {part} {to}':
                continue
            try:
                found = measured(name, part, to, folder)
            except UserError as error:
                found, status = f'{error} | | | |', 1
            table.write(f'| {name} | {part} | {to} | {found} |\n')
            table.flush()
    return status


def measured(name: str, part: str, to: str, folder: str) -> str:
    """What follows in the line of a file."""
    from mmresnest.engine.export import FORMATS, export
    checkpoint = Path(folder, f'{name}.pth')
    if not checkpoint.exists():
        random_checkpoint(name, checkpoint)
    found = export(name, checkpoint, to=to, part=part, size=SIZE, force=True,
                   out=Path(folder, f'model{FORMATS[to].suffix}'))
    worst = max((each for where, every in found.differences.items() for each in every
                 if where.startswith('file')), key=lambda each: each.value)
    times = [f'{value:.0f}' for value in found.milliseconds.values()]
    size = sum(file.stat().st_size for file in found.files) / 1e6
    return f'{worst.value:.1g} ({worst.what}) | {" | ".join(times)} | {size:.0f}'


if __name__ == '__main__':
    sys.exit(main())
