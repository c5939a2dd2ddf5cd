"""The card of a published model: what it finds, how well, from what, and how it is used."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..report.sections import format_number
from ..utils.text import printable
from ..version import __version__

PIPELINES = {
    'detection': 'object-detection',
    'instance': 'image-segmentation',
    'panoptic': 'image-segmentation',
    'semantic': 'image-segmentation',
}
TASKS = {
    'detection': 'detects objects',
    'instance': 'finds objects and their masks',
    'panoptic': 'labels every pixel, and tells objects apart',
    'semantic': 'labels every pixel',
}
SHOWN = 100  # classes in a table


@dataclass(frozen=True)
class CardFacts:
    """What a card tells.

    Attributes:
        name: of the model, as ``someone/model``.
        task: ``detection``, ``instance``, ``panoptic`` or ``semantic``.
        network: backbone and the model around it.
        classes: their names.
        scores: name -> value on the validation split.
        by_class: name of a score -> its value for each class; empty where it is not known.
        facts: what it was trained from and with, word to value.
        license: as the hub names it; empty where none was stated.
    """

    name: str
    task: str
    network: str
    classes: Sequence[str]
    scores: Mapping[str, float]
    by_class: Mapping[str, Sequence[float]]
    facts: Mapping[str, str]
    license: str


def escape_markdown(text: object) -> str:
    """Return a text that Markdown shows as it is; classes may be called anything."""
    return re.sub(r'([\\`*_{}\[\]()<>#+!|~&$])', r'\\\1', printable(text).replace('\n', ' '))


def write_card(about: CardFacts) -> str:
    """Return the card as Markdown, with the metadata that the hub reads in front."""
    parts = [
        f'---\n{_write_metadata(about)}\n---',
        f'# {escape_markdown(about.name.rpartition("/")[2])}',
        f'This model {TASKS[about.task]} of {len(about.classes)} '
        f'class{"es" if len(about.classes) != 1 else ""}: {about.network}, trained with '
        f'mmresnest {__version__}.',
        '## Scores',
        _score_table(about) if about.scores else 'It was not scored.',
        '## Classes',
        _class_table(about),
        '## Use',
        _usage(about),
        '## Training',
        '| | |\n|---|---|\n'
        + '\n'.join(
            f'| {escape_markdown(word)} | {escape_markdown(value)} |'
            for word, value in about.facts.items()
        ),
        '## License',
        f'{escape_markdown(about.license)}.' if about.license else 'No license was stated.',
    ]
    return '\n\n'.join(parts) + '\n'


def _write_metadata(about: CardFacts) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    short = about.name.rpartition('/')[2]
    pipeline = PIPELINES[about.task]
    results = [
        EvalResult(
            task_type=pipeline,
            dataset_type='custom',
            dataset_name='validation split of the training data',
            metric_type=name.rpartition('/')[2],
            metric_value=round(float(value), 5),
        )
        for name, value in about.scores.items()
    ]
    data = ModelCardData(
        license=about.license or None,
        library_name='mmresnest',
        pipeline_tag=pipeline,
        tags=['mmresnest', pipeline],
        model_name=short,
        eval_results=results or None,
    )
    return data.to_yaml().strip()


def _score_table(about: CardFacts) -> str:
    rows = [f'| {escape_markdown(name)} | {value:.4f} |' for name, value in about.scores.items()]
    return '\n'.join(['On the validation split of its data.\n', '| score | |', '|---|---:|', *rows])


def _class_table(about: CardFacts) -> str:
    heads = list(about.by_class)
    lines = [
        f'| | class |{"".join(f" {name} |" for name in heads)}',
        f'|---:|---|{"---:|" * len(heads)}',
    ]
    for number, name in enumerate(about.classes[:SHOWN]):
        cells = ''.join(f' {format_number(about.by_class[head][number])} |' for head in heads)
        lines.append(f'| {number} | {escape_markdown(name)} |{cells}')
    if len(about.classes) > SHOWN:
        lines.append(f'\nand {len(about.classes) - SHOWN} more.')
    return '\n'.join(lines)


def _usage(about: CardFacts) -> str:
    folder = f'work_dirs/{about.name.rpartition("/")[2]}'
    return f"""```sh
pip install 'mmresnest[onedl,hub]'
mmresnest pull {about.name}
mmresnest predict {folder} photos --safe-config
mmresnest test {folder} --data DIR --safe-config
mmresnest train {folder}/config.py --data DIR --load-from {folder}/best_model.pth
```

`--safe-config` reads the config as data: no code of the download is executed. Weights are read
without code, too."""


def describe_versions(versions: Mapping[str, Any]) -> str:
    """Return names and versions in a line."""
    return ', '.join(
        [
            f'Python {platform.python_version()}',
            *(f'{name} {one}' for name, one in versions.items()),
        ]
    )
