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

from mmresnest.models.variants import (  # noqa: E402
    ALIASES,
    DETECTOR_PIXELS,
    TABLE,
    Variant,
    Weights,
    pixel_statistics,
)

DOCS = ROOT / 'docs' / 'archs.md'
CONFIGS = ROOT / 'configs'
BACKBONES = CONFIGS / '_base_' / 'backbones'
FEATURES = ROOT / 'tests' / 'data' / 'features.json.gz'
BEGIN, END = '<!-- begin: {}, written by tools/table.py -->', '<!-- end: {} -->'
WRITTEN = 'Written by tools/table.py.'


def format_table(header: str, rows: Iterator[str]) -> str:
    """Return a Markdown table from lines of cells with bars between them."""
    rule = ' | '.join(['---'] * (header.count('|') + 1))
    return '\n'.join(f'| {line} |' for line in (header, rule, *rows))


def strides_with_features() -> dict[str, list[int]]:
    """Return arch -> output strides at which the tests compare features with the authors'."""
    cases = json.loads(gzip.decompress(FEATURES.read_bytes()))['cases'].values()
    found: dict[str, list[int]] = {}
    for case in cases:
        found.setdefault(case['arch'], []).append(int(case['output_stride']))
    return {arch: sorted(strides, reverse=True) for arch, strides in found.items()}


def format_accuracy(item: Variant | Weights) -> str:
    """Return top-1 and crop, or what to say without."""
    return 'not published' if item.top1 is None else f'{item.top1:.2f} @ {item.crop}'


def format_links(row: Variant) -> str:
    """Return the links to a file and its mirrors."""
    if not row.weights:
        return 'none'
    first, *mirrors = row.weights
    return ', '.join(
        [f'[{first.file}]({first.url})']
        + [f'[{weights.note or "mirror"}]({weights.url})' for weights in mirrors]
    )


def format_networks() -> str:
    """Return one table per registered class."""
    checked = strides_with_features()

    def list_strides(row: Variant) -> str:
        if row.name in checked:
            return f'yes: features, stride {", ".join(map(str, checked[row.name]))}'
        return 'no: parameters and MACs only'

    parts = []
    for type_ in dict.fromkeys(row.type for row in TABLE):
        rows = (
            f'`{row.name}` | {row.params:.2f} | {row.macs:.2f} | {format_accuracy(row)} | '
            f'{row.weights[0].license if row.weights else "-"} | {format_links(row)} | '
            f'{list_strides(row)}'
            for row in TABLE
            if row.type == type_
        )
        parts.append(
            f'### {type_}\n\n'
            + format_table(
                'arch | params M | MACs G | top-1 @ crop | licence | weights | verified', rows
            )
        )
    return '\n\n'.join(parts)


def format_aliases() -> str:
    """Return the table of second names."""
    return format_table(
        'also accepted | is', (f'`{alias}` | `{name}`' for alias, name in ALIASES.items())
    )


def format_alternatives() -> str:
    """Return the table of files that ``pretrained=True`` does not use."""
    return format_table(
        'arch | file | trained by | top-1 @ crop | licence',
        (
            f'`{row.name}` | [{weights.file}]({weights.url}) | {weights.note} | '
            f'{format_accuracy(weights)} | {weights.license}'
            for row in TABLE
            for weights in row.alternatives
        ),
    )


def update_document(text: str) -> str:
    """Return the document with its generated parts replaced and the text between them kept."""
    for name, write in (
        ('networks', format_networks),
        ('aliases', format_aliases),
        ('alternatives', format_alternatives),
    ):
        begin, end = BEGIN.format(name), END.format(name)
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            sys.exit(f'table.py: {DOCS.relative_to(ROOT)} lacks the lines {begin} and {end}')
        text = f'{before}{begin}\n\n{write()}\n\n{end}{after}'
    return text


def format_config(row: Variant) -> str:
    """Return a base config of one network with its published weights."""
    pixels = pixel_statistics(row.type, detects=True)
    theirs, imagenet = (
        "the pixel statistics of its authors' detectors",
        "ImageNet's pixel statistics",
    )
    comment = theirs if row.type in DETECTOR_PIXELS else imagenet
    return (
        f'# {row.name} with {comment} (RGB). {WRITTEN}\n'
        f'backbone = dict(\n'
        f"    type='mmresnest.{row.type}',\n"
        f"    arch='{row.name}',\n"
        f"    init_cfg=dict(type='Pretrained', checkpoint='mmresnest://{row.name}'),\n"
        f')\n'
        f'pixels = dict({", ".join(f"{name}={value}" for name, value in pixels.items())})\n'
    )


def is_inherited(row: Variant) -> bool:
    """Return whether a config inherits from the base config of a network."""
    piece = f'_base_/backbones/{row.name}.py'
    return any(piece in path.read_text(encoding='utf-8') for path in CONFIGS.glob('*.py'))


def make_files() -> dict[Path, str]:
    """Return file -> what it has to hold."""
    files = {BACKBONES / f'{row.name}.py': format_config(row) for row in TABLE if is_inherited(row)}
    files[DOCS] = update_document(DOCS.read_text(encoding='utf-8'))
    return files


def find_differences() -> list[str]:
    """List what is missing, differs, or should not exist any more."""
    files = make_files()
    return [
        f'{path.relative_to(ROOT)} {"differs" if path.is_file() else "is missing"}'
        for path, text in files.items()
        if not path.is_file() or path.read_text(encoding='utf-8') != text
    ] + [
        f'{path.relative_to(ROOT)} is inherited by no config'
        for path in sorted(BACKBONES.glob('*.py'))
        if path not in files
    ]


def main(argv: list[str]) -> None:
    """Write, or check."""
    parser = argparse.ArgumentParser(prog='table.py', description=__doc__.partition('\n')[0])
    parser.add_argument('--check', action='store_true', help='write nothing; fail on drift')
    if parser.parse_args(argv).check:
        problems = find_differences()
        if problems:
            sys.exit(f'table.py: {"; ".join(problems)}. Run: python tools/table.py')
        return
    for path, text in make_files().items():
        path.write_text(text, encoding='utf-8')
    for path in BACKBONES.glob('*.py'):
        if path not in make_files() and WRITTEN in path.read_text(encoding='utf-8'):
            path.unlink()


if __name__ == '__main__':
    main(sys.argv[1:])
