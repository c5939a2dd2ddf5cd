"""Writes what follows from the headers of configs: docs/zoo.md and the files that mim reads.

``python tools/zoo.py`` writes that page, configs/metafile.yml and model-index.yml; with ``--check``
it fails where a file differs from what would be written. Parameters and multiply-adds stand in
docs/complexity.json: ``--measure`` counts them anew for all configs, or for those named after it,
before writing; with ``--check`` it fails where a figure differs instead. Measuring needs mmdet and
mmseg, the rest only PyYAML.

A header is the docstring of a config, and no other form of it is accepted:

    Title: what is trained on what.

    Run:     mmresnest train configs/NAME.py
    Expect:  box AP 42.8, mask AP 38.1 on val2017 (source).
    Memory:  5.5 GB (source)                                      } where they are
    Weights: https://HOST/FILE.pth                                } published
    Start:   mmresnest train NAME --data DIR --load-from          } of this or of NAME

Expected are one or several of box AP, mask AP and PQ on val2017, or mIoU on ADE20K val or
Cityscapes val, as ``mIoU 45.71 (46.59 multi-scale and flip)`` or ``mIoU 45.12 (multi-scale and
flip)``; or ``no published result``, ``for this recipe`` (``schedule``, ``network``) if need be, and
after a semicolon anything. A value may go on in lines that are indented to where it began.
"""

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmresnest.models.variants import VARIANTS, Variant  # noqa: E402

CONFIGS = ROOT / 'configs'
PAGE = ROOT / 'docs' / 'zoo.md'
FIGURES = ROOT / 'docs' / 'complexity.json'
METAFILE = CONFIGS / 'metafile.yml'
INDEX = ROOT / 'model-index.yml'
WRITTEN = 'Written by tools/zoo.py from the headers of the configs; do not edit.'

BOX, MASK, PQ, MIOU, SCALES = 'box AP', 'mask AP', 'PQ', 'mIoU', 'mIoU (multi-scale and flip)'
#: metric -> task, by the names that metafiles use
TASKS = {
    BOX: 'Object Detection',
    MASK: 'Instance Segmentation',
    PQ: 'Panoptic Segmentation',
    MIOU: 'Semantic Segmentation',
    SCALES: 'Semantic Segmentation',
}
#: how a config's name begins -> what it trains, and what that is scored by
MODELS = {
    'faster_rcnn': ('Faster R-CNN', (BOX,)),
    'cascade_rcnn': ('Cascade R-CNN', (BOX,)),
    'mask_rcnn': ('Mask R-CNN', (BOX, MASK)),
    'cascade_mask_rcnn': ('Cascade Mask R-CNN', (BOX, MASK)),
    'htc': ('HTC', (BOX, MASK)),
    'panoptic_fpn': ('Panoptic FPN', (PQ, BOX, MASK)),
    'fcn': ('FCN', (MIOU, SCALES)),
    'pspnet': ('PSPNet', (MIOU, SCALES)),
    'deeplabv3': ('DeepLabV3', (MIOU, SCALES)),
    'deeplabv3plus': ('DeepLabV3+', (MIOU, SCALES)),
}
SPLITS = {'COCO': 'val2017', 'ADE20K': 'ADE20K val', 'Cityscapes': 'Cityscapes val'}
#: registered class of a backbone -> the paper that it is from
PAPERS = {
    'ResNeSt': ('ResNeSt: Split-Attention Networks', 'https://arxiv.org/abs/2004.08955'),
    'Res2Net': (
        'Res2Net: A New Multi-scale Backbone Architecture',
        'https://arxiv.org/abs/1904.01169',
    ),
    'SEResNeXt': ('Squeeze-and-Excitation Networks', 'https://arxiv.org/abs/1709.01507'),
    'ResNet': (
        'Bag of Tricks for Image Classification with Convolutional Neural Networks',
        'https://arxiv.org/abs/1812.01187',
    ),
}

FIELDS = ('Run', 'Expect', 'Memory', 'Weights', 'Start')
INDENT = len('Expect:  ')
NUMBER = r'(\d+\.\d+)'
METRIC = re.compile(
    rf'(?P<name>{BOX}|{MASK}|{PQ}|{MIOU}) {NUMBER}'
    rf'(?: \((?:{NUMBER} )?(?P<scales>multi-scale and flip)\))?'
)
RESULT = re.compile(
    r'(?P<metrics>.+) on (?P<split>val2017|ADE20K val|Cityscapes val) '
    r'\((?P<source>.+)\)\.'
)
NONE = re.compile(
    r'no published result(?: for this (?:recipe|schedule|network))?'
    r'(?:\.|; (?P<note>.+)\.)'
)
MEMORY = re.compile(r'(\d+\.\d) GB \((.+)\)')
WEIGHTS = re.compile(r'https://[\w.-]+/\S+\.pth')


# What a header says -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """The docstring of a config.

    Attributes:
        title: one sentence.
        metrics: name -> value, in the digits it was published in; empty where none is.
        split: where they were measured.
        source: who published them.
        note: what the header says where nothing is published for this very config.
        memory: GB of a GPU in training, as published.
        memory_source: by whom.
        weights: where the trained model is.
    """

    title: str
    metrics: dict[str, str] = field(default_factory=dict)
    split: str = ''
    source: str = ''
    note: str = ''
    memory: float | None = None
    memory_source: str = ''
    weights: str | None = None


def read_header(path: Path) -> Header:
    """Read the header of a config.

    Raises:
        SystemExit: it is not as described at the top of this file; with file, line and the rule.
    """
    node = next(iter(ast.parse(path.read_text(encoding='utf-8')).body), None)
    if not (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ):
        exit_with_reason(path, 1, 'a config begins with a docstring: title, Run, Expect')
    lines = node.value.value.rstrip().splitlines()
    blank = lines.index('') if '' in lines else len(lines)
    title = ' '.join(line.strip() for line in lines[:blank])
    if not title.endswith('.'):
        exit_with_reason(path, node.lineno, 'the title is a sentence, and a blank line follows it')

    values: dict[str, tuple[int, str]] = {}
    name = ''
    for number, line in enumerate(lines[blank + 1 :], node.lineno + blank + 1):
        key, colon, value = line.partition(':')
        if line.startswith(' ' * INDENT) and line[INDENT : INDENT + 1].strip() and name:
            values[name] = values[name][0], f'{values[name][1]} {line.strip()}'
        elif colon and key in FIELDS and line == f'{key + colon:{INDENT}}{value.strip()}':
            if key in values or name and FIELDS.index(key) < FIELDS.index(name):
                exit_with_reason(
                    path,
                    number,
                    f'the lines of a header are {", ".join(FIELDS)}, in this order, each once',
                )
            name, values[key] = key, (number, value.strip())
        else:
            exit_with_reason(
                path,
                number,
                f'{line!r} is none of {", ".join(FIELDS)}, its value aligned at '
                f'column {INDENT + 1}, and goes on with none',
            )
    for key in ('Run', 'Expect'):
        if key not in values:
            exit_with_reason(path, node.lineno, f'the header has no line {key}:')
    number, run = values['Run']
    wanted = f'mmresnest train configs/{path.name}'
    if run != wanted:
        exit_with_reason(path, number, f'Run: is {wanted}, not {run!r}')
    found = Header(
        title,
        **read_expectation(path, *values['Expect']),
        **read_published(path, values.get('Memory'), values.get('Weights')),
    )
    start = find_start(path, values)
    if values.get('Start', (0, ''))[1] != start:
        exit_with_reason(path, node.lineno, f'Start: is {start or "left out"}')
    return found


def find_start(path: Path, values: Mapping[str, Any]) -> str:
    """Return what begins a training on other data from published weights, empty without any.

    Those of the config itself, or of the one for mmdet's or mmseg's checkpoint of the same network.
    """
    names = [path.stem] if 'Weights' in values else []
    for tail in ('_mmdet', '_mmseg'):
        sibling = path.with_stem(path.stem + tail)
        if sibling.is_file() and '\nWeights: ' in sibling.read_text(encoding='utf-8'):
            names.append(sibling.stem)
    return f'mmresnest train {names[0]} --data DIR --load-from' if names else ''


def read_expectation(path: Path, line: int, text: str) -> dict[str, Any]:
    """Return the fields of a header that Expect fills."""
    none, result = NONE.fullmatch(text), RESULT.fullmatch(text)
    if none:
        return dict(note=none['note'] or '')
    if not result:
        exit_with_reason(
            path,
            line,
            f'Expect: {text!r} is neither "no published result" nor results "on" a '
            'split with their source in brackets and a full stop',
        )
    metrics: dict[str, str] = {}
    for part in result['metrics'].split(', '):
        found = METRIC.fullmatch(part)
        if not found or found['scales'] and found['name'] != MIOU:
            exit_with_reason(
                path,
                line,
                f'Expect: {part!r} is no metric with a value; known are '
                f'{BOX}, {MASK}, {PQ} and {MIOU}',
            )
        _, plain, scaled, scales = found.groups()
        for name, value in (
            [(MIOU, plain), (SCALES, scaled)]
            if scaled
            else [(SCALES if scales else found['name'], plain)]
        ):
            if name in metrics or not 0 < float(value) < 100:
                exit_with_reason(path, line, f'Expect: {name} is given twice, or is no percentage')
            metrics[name] = value
    return dict(metrics=metrics, split=result['split'], source=result['source'])


def read_published(
    path: Path, memory: tuple[int, str] | None, weights: tuple[int, str] | None
) -> dict[str, Any]:
    """The fields of a header that Memory and Weights fill."""
    found: dict[str, Any] = {}
    if memory is not None:
        match = MEMORY.fullmatch(memory[1])
        if not match:
            exit_with_reason(
                path, memory[0], f'Memory: {memory[1]!r} is not such as "4.8 GB (source)"'
            )
        found.update(memory=float(match[1]), memory_source=match[2])
    if weights is not None:
        if not WEIGHTS.fullmatch(weights[1]):
            exit_with_reason(
                path, weights[0], f'Weights: {weights[1]!r} is not the https address of a .pth'
            )
        found.update(weights=weights[1])
    return found


def exit_with_reason(path: Path, line: int, why: str) -> NoReturn:
    """Exit with file, line and reason."""
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    sys.exit(f'zoo.py: {shown}, line {line}: {why}')


# What a config is ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A config with what is known of it.

    Attributes:
        path: the file.
        model: what it trains, by the field's name.
        data: COCO, ADE20K or Cityscapes.
        row: its backbone.
        header: what it says of itself.
        figures: its line of docs/complexity.json.
    """

    path: Path
    model: str
    data: str
    row: Variant
    header: Header
    figures: dict[str, Any]

    @property
    def name(self) -> str:
        """Return the name without ``.py``."""
        return self.path.stem


def read_entry(path: Path, figures: dict[str, Any]) -> Entry:
    """Collect what is known of a config.

    Raises:
        SystemExit: its name is of no known model, it has no backbone of the table, its results are
            not those of its task, or its figures are missing.
    """
    begins = [prefix for prefix in MODELS if path.stem.startswith(prefix + '_')]
    if not begins:
        exit_with_reason(path, 1, f'the name begins with none of {", ".join(MODELS)}')
    model, metrics = MODELS[begins[0]]
    data = next((name for name in SPLITS if f'_{name.lower()}' in path.stem), 'COCO')
    header = read_header(path)
    wrong = set(header.metrics) - set(metrics)
    if wrong or header.metrics and header.split != SPLITS[data]:
        exit_with_reason(
            path,
            1,
            f'{model} on {data} is scored by {", ".join(metrics)} on {SPLITS[data]}, '
            f'not by {", ".join(sorted(wrong)) or "results"} on {header.split}',
        )
    arch = arch_of(path)
    if arch not in VARIANTS or VARIANTS[arch].type not in PAPERS:
        exit_with_reason(
            path,
            1,
            f'the backbone {arch} is no row of the table, or of a class without a '
            'paper in tools/zoo.py',
        )
    if path.stem not in figures:
        sys.exit(
            f'zoo.py: {FIGURES.name} knows nothing of {path.stem}. '
            f'Run: python tools/zoo.py --measure {path.stem}'
        )
    return Entry(path, model, data, VARIANTS[arch], header, figures[path.stem])


def arch_of(path: Path) -> str | None:
    """Return the network whose base config a config inherits from, also through another leaf."""
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_base_':
            bases = ast.literal_eval(node.value)
            for base in [bases] if isinstance(bases, str) else bases:
                parent = path.parent / base
                if parent.parent.name == 'backbones':
                    return parent.stem
                if '::' not in base and parent.parent == path.parent:
                    return arch_of(parent)
    return None


def read_entries() -> list[Entry]:
    """Read all configs, in the order of their names."""
    figures = read_figures()
    paths = sorted(CONFIGS.glob('*.py'))
    left = sorted(set(figures) - {path.stem for path in paths})
    if left:
        sys.exit(
            f'zoo.py: {FIGURES.name} has figures of {", ".join(left)}, which are no configs. '
            'Run: python tools/zoo.py --measure'
        )
    return [read_entry(path, figures) for path in paths]


def read_figures() -> dict[str, Any]:
    """Read the kept figures: config -> its shape, parameters, MACs and numbers of regions."""
    return json.loads(FIGURES.read_text(encoding='utf-8')) if FIGURES.is_file() else {}


# What is written ----------------------------------------------------------------------------------


def to_gigas(number: int) -> float:
    """Return billions, to two digits."""
    return round(number / 1e9, 2)


def make_metafile(entries: list[Entry]) -> dict[str, Any]:
    """Return what mim and mmengine look up configs and weights in."""

    def model(entry: Entry) -> dict[str, Any]:
        header, figures = entry.header, entry.figures
        about: dict[str, Any] = {
            'Training Data': entry.data,
            'Architecture': [entry.model, entry.row.name],
        }
        if header.memory is not None:
            about['Training Memory (GB)'] = header.memory
        about['Parameters (M)'] = round(figures['params']['whole'] / 1e6, 2)
        about['MACs (G)'] = to_gigas(figures['macs']['whole'])
        about['Image Size'] = '{} x {}'.format(*figures['shape'])
        found: dict[str, Any] = {
            'Name': entry.name,
            'In Collection': entry.row.type,
            'Config': f'configs/{entry.path.name}',
            'Metadata': about,
        }
        results: dict[str, dict[str, float]] = {}
        for name, value in header.metrics.items():
            results.setdefault(TASKS[name], {})[name] = float(value)
        if results:
            found['Results'] = [
                dict(Task=task, Dataset=entry.data, Metrics=metrics)
                for task, metrics in results.items()
            ]
        if header.weights is not None:
            found['Weights'] = header.weights
        return found

    used = dict.fromkeys(entry.row.type for entry in entries)
    return {
        'Collections': [
            {
                'Name': name,
                'Paper': dict(Title=PAPERS[name][0], URL=PAPERS[name][1]),
                'README': 'docs/archs.md',
                'Metadata': {
                    'Architecture': list(
                        dict.fromkeys(entry.row.name for entry in entries if entry.row.type == name)
                    )
                },
            }
            for name in PAPERS
            if name in used
        ],
        'Models': [model(entry) for entry in entries],
    }


INTRODUCTION = """# Model zoo

<!-- {written} -->

{count} configs. **None of them was trained to its result by us.** What is expected of a config is
what others have published for its recipe, and the source says who; weights and training memory are
theirs, too. What we have run of every config is one training step and one prediction, most of them
at a reduced size (`tests/config/test_configs.py`). Where nobody has published a result, the row
says "none", and we have none either.

Parameters and multiply-adds are our own counts, backbone / whole model, for one image of
{shapes}.
A multiply-add (MAC) is two FLOPs. Convolutions and matrix products are counted; a deformable
convolution as the plain one of its size and the one that makes its offsets; every box head on
{boxes} regions, every mask head on {masks}. Heads that only train count among the parameters only.
`mmresnest flops CONFIG` counts any config, by its parts and at any size; `python tools/zoo.py
--measure` counts all of them anew.

Train a config by its name, `mmresnest train {first}`.
The weights of a row are for `mmresnest test`. [archs.md](archs.md) has the backbones, their
weights, and the licences of those.
"""
HEADER = ('config', 'backbone', 'expected', 'source', 'weights', 'memory GB', 'params M', 'MACs G')
GROUPS = {  # heading -> which results and data
    'Object detection, COCO val2017': ((BOX,), 'COCO'),
    'Instance segmentation, COCO val2017': ((BOX, MASK), 'COCO'),
    'Panoptic segmentation, COCO val2017': ((PQ, BOX, MASK), 'COCO'),
    'Semantic segmentation, ADE20K val': ((MIOU, SCALES), 'ADE20K'),
    'Semantic segmentation, Cityscapes val': ((MIOU, SCALES), 'Cityscapes'),
}


def make_page(entries: list[Entry]) -> str:
    """Return the zoo as a page, grouped by task and model."""
    shapes: dict[tuple[int, int], list[str]] = {}
    for entry in entries:
        names = shapes.setdefault(tuple(entry.figures['shape']), [])
        names += [entry.data] if entry.data not in names else []
    regions = {
        part: number for entry in entries for part, number in entry.figures['regions'].items()
    }
    parts = [
        INTRODUCTION.format(
            written=WRITTEN,
            count=len(entries),
            first=entries[0].name,
            boxes=regions.get('roi_head.bbox_head'),
            masks=regions.get('roi_head.mask_head'),
            shapes=', '.join(
                f'{height} x {width} ({" and ".join(names)})'
                for (height, width), names in shapes.items()
            ),
        )
    ]
    for heading, (metrics, data) in GROUPS.items():
        parts.append(f'## {heading}\n')
        for model, scored in MODELS.values():
            rows = [entry for entry in entries if (entry.model, entry.data) == (model, data)]
            if rows and scored == metrics:
                parts.append(f'### {model}\n\n{format_table(map(list_cells, rows))}\n')
    return '\n'.join(parts)


def format_table(rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table below our header."""
    lines = [HEADER, ['---'] * len(HEADER), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def list_cells(entry: Entry) -> Iterator[str]:
    """Yield the cells of a config's row."""
    header, figures = entry.header, entry.figures
    yield f'[{entry.name}](../configs/{entry.path.name})'
    yield f'`{entry.row.name}`'
    if header.metrics:
        yield ', '.join(f'{name} {value}' for name, value in header.metrics.items())
        yield header.source
    else:
        yield f'none; {header.note}' if header.note else 'none'
        yield '-'
    yield f'[pth]({header.weights})' if header.weights else '-'
    if header.memory is None:
        yield '-'
    else:
        by = '' if header.memory_source == header.source else f' ({header.memory_source})'
        yield f'{header.memory:g}{by}'
    for kind, unit in (('params', 1e6), ('macs', 1e9)):
        yield ' / '.join(f'{figures[kind][part] / unit:.2f}' for part in ('backbone', 'whole'))


def as_yaml(content: dict[str, Any]) -> str:
    """Return a file of YAML, its keys in our order."""
    import yaml

    return f'# {WRITTEN}\n' + yaml.safe_dump(content, sort_keys=False, width=1000)


def make_files() -> dict[Path, str]:
    """Return file -> what it has to hold."""
    entries = read_entries()
    return {
        PAGE: make_page(entries),
        METAFILE: as_yaml(make_metafile(entries)),
        INDEX: as_yaml({'Import': [METAFILE.relative_to(ROOT).as_posix()]}),
    }


def find_differences() -> list[str]:
    """List the files that are missing or differ."""
    return [
        f'{path.name} {"differs" if path.is_file() else "is missing"}'
        for path, text in make_files().items()
        if not path.is_file() or path.read_text(encoding='utf-8') != text
    ]


# What is measured ---------------------------------------------------------------------------------


def measure_configs(names: list[str]) -> dict[str, Any]:
    """Count parameters and multiply-adds: name of a config -> its figures.

    Raises:
        SystemExit: there is no config of a name.
    """
    from tqdm import tqdm

    from mmresnest.analysis.flops import complexity

    known = {path.stem: path for path in sorted(CONFIGS.glob('*.py'))}
    for name in names:
        if name not in known:
            sys.exit(f'zoo.py: there is no config {name}')
    figures = {}
    for name in tqdm(names or known, unit='config', disable=None):
        found = complexity(known[name])
        figures[name] = dict(
            shape=list(found.shape), **found.summary(), regions=found.counted_regions()
        )
    return figures


def write_figures(figures: dict[str, Any]) -> None:
    """Write the figures, one config a line, so that a change of one is one line of a diff."""
    lines = (f'{json.dumps(name)}: {json.dumps(found)}' for name, found in sorted(figures.items()))
    FIGURES.write_text('{\n' + ',\n'.join(lines) + '\n}\n', encoding='utf-8')


def main(argv: list[str]) -> None:
    """Write, check or measure."""
    parser = argparse.ArgumentParser(prog='zoo.py', description=__doc__.partition('\n')[0])
    parser.add_argument('--check', action='store_true', help='write nothing; fail on drift')
    parser.add_argument(
        '--measure',
        nargs='*',
        metavar='NAME',
        help='count parameters and multiply-adds anew, of all configs or of these',
    )
    args = parser.parse_args(argv)
    problems = []
    if args.measure is not None:
        kept, figures = read_figures(), measure_configs(args.measure)
        if args.check:
            problems += [
                f'{FIGURES.name} is wrong on {name}'
                for name, found in figures.items()
                if kept.get(name) != found
            ]
        else:
            write_figures(dict(kept, **figures) if args.measure else figures)
    if args.check:
        problems += find_differences()
        if problems:
            sys.exit(
                f'zoo.py: {"; ".join(problems)}. Run: python tools/zoo.py'
                + (' --measure' if args.measure is not None else '')
            )
        return
    for path, text in make_files().items():
        path.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main(sys.argv[1:])
