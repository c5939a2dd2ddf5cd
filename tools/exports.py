"""Exports networks in every format and prints the tables of docs/export.md.

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
DETECTORS = (
    'faster_rcnn_resnest50_fpn',
    'faster_rcnn_res2net50_v1b_fpn',
    'faster_rcnn_seresnext50_32x4d_fpn',
    'mask_rcnn_resnest50_fpn',
)
NOTHING = '–'
UNITS = {'boxes, in pixels': ' px', 'pixels of another class': ' of pixels'}
TITLES = (
    'Largest difference of the file from the graph in PyTorch',
    'Milliseconds in PyTorch as it is / in our deployed form / in the file',
)


def list_rows() -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Return the name of a row -> config, part and formats."""
    from mmresnest.export.options import FORMATS

    found: dict[str, tuple[str, str, tuple[str, ...]]] = {
        f'{name}, backbone': (f'faster_rcnn_{name}_fpn', 'backbone', FORMATS) for name in NETWORKS
    }
    found[f'{NETWORKS[0]}, with FPN'] = f'faster_rcnn_{NETWORKS[0]}_fpn', 'neck', FORMATS
    found |= {name: (name, 'model', FORMATS[:2]) for name in DETECTORS}
    found |= {
        f'deeplabv3_{name}_ade20k': (f'deeplabv3_{name}_ade20k', 'model', FORMATS)
        for name in NETWORKS
    }
    return found


def write_random_checkpoint(name: str, path: Path) -> None:
    """Write the config's model with random weights, whose objects differ in score."""
    import torch
    from mmengine.registry import MODELS, DefaultScope

    from mmresnest.config.inspect import import_packages
    from mmresnest.config.load import load_config, merge_options
    from mmresnest.engine.runner import explain_build_errors
    from mmresnest.models.norms import replace_sync_norms

    cfg = load_config(name)
    merge_options(cfg, {'model.backbone.init_cfg': None})
    replace_sync_norms(cfg.model)
    import_packages(cfg)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), explain_build_errors(cfg):
        model = MODELS.build(cfg.model)
    for key, weight in model.named_parameters():
        if any(part in key for part in ('fc_cls', 'rpn_cls', 'retina_cls', 'conv_logits')):
            torch.nn.init.normal_(weight, 0, 0.1)
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)


def main() -> int:
    """Export and print tables; return 1 if something cannot be exported."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--only', default='', help='of the lines those that have this in them')
    args = parser.parse_args()
    from mmresnest.errors import UserError
    from mmresnest.export.options import FORMATS

    chosen = {line: row for line, row in list_rows().items() if args.only in line}
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    status = 0
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):  # of mmengine's log
        for line, (name, part, formats) in chosen.items():
            for to in formats:
                try:
                    found[line, to] = measure_file(name, part, to, folder)
                except UserError as error:
                    found[line, to], status = ('failed',) * len(TITLES), 1
                    sys.stderr.write(f'{line}, {to}: {error}\n')
    for number, title in enumerate(TITLES):
        sys.stdout.write(f'{title}:\n\n| | {" | ".join(FORMATS)} |\n|---{"|---" * len(FORMATS)}|\n')
        for line in chosen:
            cells = [found[line, to][number] if (line, to) in found else NOTHING for to in FORMATS]
            sys.stdout.write(f'| {line} | {" | ".join(cells)} |\n')
        sys.stdout.write('\n')
    return status


def measure_file(name: str, part: str, to: str, folder: str) -> tuple[str, ...]:
    """Return the cells of a file, one for each title."""
    from mmresnest.export.exporter import FORMATS, export

    checkpoint = Path(folder, f'{name}.pth')
    if not checkpoint.exists():
        write_random_checkpoint(name, checkpoint)
    done = export(
        name,
        checkpoint,
        format=to,
        part=part,
        size=SIZE,
        force=True,
        out=Path(folder, f'model{FORMATS[to].suffix}'),
    )
    worst = max(
        (
            each
            for where, every in done.differences.items()
            for each in every
            if where.startswith('file')
        ),
        key=lambda each: each.value,
    )
    return (
        f'{worst.value:.1g}{UNITS.get(worst.what, "")}',
        ' / '.join(f'{value:.0f}' for value in done.milliseconds.values()),
    )


if __name__ == '__main__':
    sys.exit(main())
