"""Writes what follows from the variant table: docs/archs.md and configs/_base_/backbones/*.py.

``python tools/table.py`` writes; ``python tools/table.py --check`` fails where a file differs from
what would be written.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmresnest.models.variants import ALIASES, TABLE, Variant, Weights  # noqa: E402

DOCS = ROOT / 'docs' / 'archs.md'
BACKBONES = ROOT / 'configs' / '_base_' / 'backbones'
FEATURES = ROOT / 'tests' / 'data' / 'features.json.gz'
BEGIN, END = '<!-- begin: {}, written by tools/table.py -->', '<!-- end: {} -->'
WRITTEN = 'Written by tools/table.py.'

#: what the detectors of a family subtract and divide by, RGB, and the comment on it; its segmentors
#: take ImageNet's, which mmseg has anyway
PIXELS = {
    'ResNeSt': (
        "the pixel statistics of its authors' detectors",
        'mean=[123.68, 116.779, 103.939], std=[58.393, 57.12, 57.375]',
    )
}
IMAGENET = (
    "ImageNet's pixel statistics",
    'mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]',
)


def table(header: str, rows: Iterator[str]) -> str:
    """A Markdown table from lines of cells with bars between them."""
    rule = ' | '.join(['---'] * (header.count('|') + 1))
    return '\n'.join(f'| {line} |' for line in (header, rule, *rows))


def strides_with_features() -> dict[str, list[int]]:
    """Arch -> output strides at which the tests compare its features with its authors'."""
    cases = json.loads(gzip.decompress(FEATURES.read_bytes()))['cases'].values()
    found: dict[str, list[int]] = {}
    for case in cases:
        found.setdefault(case['arch'], []).append(int(case['output_stride']))
    return {arch: sorted(strides, reverse=True) for arch, strides in found.items()}


def accuracy(item: Variant | Weights) -> str:
    """Top-1 and crop, or what to say without."""
    return 'not published' if item.top1 is None else f'{item.top1:.2f} @ {item.crop}'


def links(row: Variant) -> str:
    """The file, and its mirrors."""
    if not row.weights:
        return 'none'
    first, *mirrors = row.weights
    return ', '.join(
        [f'[{first.file}]({first.url})']
        + [f'[{weights.note or "mirror"}]({weights.url})' for weights in mirrors]
    )


def networks() -> str:
    """One table per registered class."""
    checked = strides_with_features()

    def verified(row: Variant) -> str:
        if row.name in checked:
            return f'yes: features, stride {", ".join(map(str, checked[row.name]))}'
        return 'no: parameters and MACs only'

    parts = []
    for type_ in dict.fromkeys(row.type for row in TABLE):
        rows = (
            f'`{row.name}` | {row.params:.2f} | {row.macs:.2f} | {accuracy(row)} | '
            f'{row.weights[0].licence if row.weights else "-"} | {links(row)} | '
            f'{verified(row)}'
            for row in TABLE
            if row.type == type_
        )
        parts.append(
            f'### {type_}\n\n'
            + table('arch | params M | MACs G | top-1 @ crop | licence | weights | verified', rows)
        )
    return '\n\n'.join(parts)


def aliases() -> str:
    """Every second name."""
    return table('also accepted | is', (f'`{alias}` | `{name}`' for alias, name in ALIASES.items()))


def alternatives() -> str:
    """Every file that ``pretrained=True`` does not take."""
    return table(
        'arch | file | trained by | top-1 @ crop | licence',
        (
            f'`{row.name}` | [{weights.file}]({weights.url}) | {weights.note} | '
            f'{accuracy(weights)} | {weights.licence}'
            for row in TABLE
            for weights in row.alternatives
        ),
    )


def document(text: str) -> str:
    """The document with its generated parts anew; what stands between them is kept."""
    for name, write in (
        ('networks', networks),
        ('aliases', aliases),
        ('alternatives', alternatives),
    ):
        begin, end = BEGIN.format(name), END.format(name)
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            sys.exit(f'table.py: {DOCS.relative_to(ROOT)} lacks the lines {begin} and {end}')
        text = f'{before}{begin}\n\n{write()}\n\n{end}{after}'
    return text


def config(row: Variant) -> str:
    """A base config of one network with its published weights."""
    comment, pixels = PIXELS.get(row.type, IMAGENET)
    return (
        f'# {row.name} with {comment} (RGB). {WRITTEN}\n'
        f'backbone = dict(\n'
        f"    type='mmresnest.{row.type}',\n"
        f"    arch='{row.name}',\n"
        f"    init_cfg=dict(type='Pretrained', checkpoint='mmresnest://{row.name}'),\n"
        f')\n'
        f'pixels = dict({pixels})\n'
    )


def wanted() -> dict[Path, str]:
    """File -> what it has to hold."""
    files = {BACKBONES / f'{row.name}.py': config(row) for row in TABLE if row.weights}
    files[DOCS] = document(DOCS.read_text(encoding='utf-8'))
    return files


def drift() -> list[str]:
    """What is missing, differs, or is not wanted any more."""
    files = wanted()
    return [
        f'{path.relative_to(ROOT)} {"differs" if path.is_file() else "is missing"}'
        for path, text in files.items()
        if not path.is_file() or path.read_text(encoding='utf-8') != text
    ] + [
        f'{path.relative_to(ROOT)} is of no row with weights'
        for path in sorted(BACKBONES.glob('*.py'))
        if path not in files
    ]


def main(argv: list[str]) -> None:
    """Writes, or checks."""
    parser = argparse.ArgumentParser(prog='table.py', description=__doc__.partition('\n')[0])
    parser.add_argument('--check', action='store_true', help='write nothing; fail on drift')
    if parser.parse_args(argv).check:
        problems = drift()
        if problems:
            sys.exit(f'table.py: {"; ".join(problems)}. Run: python tools/table.py')
        return
    for path, text in wanted().items():
        path.write_text(text, encoding='utf-8')
    for path in BACKBONES.glob('*.py'):
        if path not in wanted() and WRITTEN in path.read_text(encoding='utf-8'):
            path.unlink()


if __name__ == '__main__':
    main(sys.argv[1:])
