"""The report of a run, of several beside each other, or of a sweep: one HTML file without fetches.

plotly draws its figures in the browser, and its script is in the page, 4.8 MB of it.  With at most
``PICTURES`` pictures the page stays below 15 MB however large the validation split is.  A policy in
its head forbids it to load anything.
"""

from __future__ import annotations

import base64
import difflib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..evaluation.predictions import Detections, LabelMaps, select_classes
from ..utils.boxes import is_background
from ..utils.files import write_whole
from ..utils.packages import require_packages
from ..utils.text import format_some, printable
from ..visualization.canvas import class_color
from . import detection, gallery, segmentation
from .cases import KINDS, select_cases
from .sections import NOTHING, Run, Section, Table
from .training import curves_section

PICTURES = 320  # on a page, of all runs and kinds
RUNS = 12  # that one page can tell apart
LEGEND = 60  # colors of classes that are told
TEMPLATES = Path(__file__).parent / 'templates'


def require_report() -> None:
    """Refuse where what a page is made with is not there; see :func:`require_packages`."""
    require_packages('a report', 'report', 'plotly', 'jinja2')


def write_page(out: str | os.PathLike, runs: Sequence[Run]) -> None:
    """Write the page.

    Args:
        out: the file; it is whole or as it was.
        runs: one, or several that predicted on the same classes.

    Raises:
        UserError: the runs cannot stand beside each other, or the file cannot be written.
    """
    require_report()
    write_text(out, render_page(runs))


def write_text(out: str | os.PathLike, text: str) -> None:
    """Write a page that was rendered.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        write_whole(out, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(
            f'the report {out} cannot be written: {error.strerror or error}; name '
            'another file with --out',
            code='file.unwritable',
        ) from error


def render_page(runs: Sequence[Run]) -> str:
    """Return the page as text; see :func:`write_page`."""
    runs = align_classes(runs)
    kind, judged = _score_runs(runs)
    sections = kind.build_sections(judged, len(runs) == 1) if judged else []
    training = curves_section(runs)
    sections += [training] if training is not None else []
    cases, told = _build_gallery(kind, runs, judged) if judged else ([], [])
    classes = next(iter(judged.values())).results.classes if judged else []
    return _fill_template(
        title='Run report: ' + ', '.join(run.name for run in runs),
        subtitle=_page_subtitle(runs),
        notes=_page_notes(runs),
        sections=sections,
        cases=cases,
        gallery_texts=told,
        runs=runs,
        classes=classes,
        maps=kind is segmentation,
        shown_classes=sorted({case['label'] for case in cases}),
        legend=_class_legend(cases, classes, kind is segmentation),
        last='Run' if len(runs) == 1 else 'Runs',
        facts=_facts_table(runs),
        differences=_config_diff(runs),
        curve_data=kind.curve_data(judged) if kind is detection and judged else '{}',
    )


def render_sections(
    title: str, subtitle: str, notes: Sequence[str], sections: Sequence[Section], facts: Table
) -> str:
    """Return a page without pictures of its own, that of a sweep, with facts at its end."""
    return _fill_template(
        title=title,
        subtitle=subtitle,
        notes=notes,
        sections=sections,
        last='Sweep',
        facts=facts,
        runs=(),
        cases=(),
        curve_data='{}',
    )


def _fill_template(*, sections: Sequence[Section], curve_data: str, **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader

    # Whatever has no mark-up of its own is escaped: classes and files may be called anything.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, finalize=_escape_controls
    )
    environment.filters['printable'] = printable
    return environment.get_template('page.html.j2').render(
        sections=sections, kinds=KINDS, **values, **_script_blocks(sections, curve_data)
    )


def _escape_controls(value: Any) -> Any:
    """Escape what is no letter in names that files brought; mark-up of our own passes."""
    return printable(value) if type(value) is str else value


def align_classes(runs: Sequence[Run], common: bool = False) -> list[Run]:
    """Return runs whose results are of the same classes in the same order, that of the first.

    Args:
        runs: one or several; those without results stay as they are.
        common: where the classes differ, compare over those that all have.

    Raises:
        UserError: some detect objects and others label pixels, or their classes differ.
    """
    judged = [run for run in runs if run.results is not None]
    results = [run.results for run in judged if run.results is not None]
    if len(judged) < 2:
        return list(runs)
    first = results[0]
    for run, other in zip(judged, results):
        pair = f'{judged[0].name} and {run.name} cannot stand beside each other'
        if type(first) is not type(other):
            raise UserError(
                f'{pair}: one detects objects and the other labels pixels; make a report of each',
                code='report.unlike-runs',
            )
        if set(first.classes) != set(other.classes) and not common:
            told = [
                f'only {name} has {format_some(alone)}'
                for name, alone in (
                    (judged[0].name, [one for one in first.classes if one not in other.classes]),
                    (run.name, [one for one in other.classes if one not in first.classes]),
                )
                if alone
            ]
            raise UserError(
                f'{pair}: {" and ".join(told)}; --common-classes compares over the classes that '
                'all runs have, or make a report of each',
                code='report.unlike-runs',
            )
    names = [name for name in first.classes if all(name in one.classes for one in results)]
    if not names:
        raise UserError(
            f'{", ".join(run.name for run in judged)} have no class in common; make a report of '
            'each',
            code='report.no-common-class',
        )
    return [
        replace(
            run,
            results=select_classes(run.results, names),
            notes=[*run.notes, *_left_out_note(run.results.classes, names)],
        )
        if run.results is not None and run.results.classes != names
        else run
        for run in runs
    ]


def _left_out_note(classes: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return what is to be said where classes are left out, since others do not have them."""
    alone = [name for name in classes if name not in names]
    if not alone:
        return []
    return [f'Not compared, since not all runs have them: {format_some(alone)}.']


def _score_runs(runs: Sequence[Run]) -> tuple[Any, dict[str, Any]]:
    """Return the module that knows about the results, and what it computed of each run."""
    kind: Any = (
        segmentation if any(isinstance(run.results, LabelMaps) for run in runs) else detection
    )
    return kind, {
        run.name: kind.compute_scores(run.results) for run in runs if run.results is not None
    }


def _page_subtitle(runs: Sequence[Run]) -> str:
    return ' – '.join(dict.fromkeys(run.facts['task'] for run in runs if 'task' in run.facts))


def _page_notes(runs: Sequence[Run]) -> list[str]:
    notes = [f'{run.name}: {note}' if len(runs) > 1 else note for run in runs for note in run.notes]
    results = [run.results for run in runs if run.results is not None]
    judged = [run.name for run in runs if run.results is not None]
    others = [name for name, one in zip(judged, results) if not _same_pictures(results[0], one)]
    if others:
        notes.append(
            f'{judged[0]} and {", ".join(others)} were scored on other images: the '
            'difference of their scores is not one of the models alone.'
        )
    return notes


def _same_pictures(one: Detections | LabelMaps, two: Detections | LabelMaps) -> bool:
    names = [
        sorted(os.path.basename(picture.path) for picture in each.pictures) for each in (one, two)
    ]
    return names[0] == names[1]


def _facts_table(runs: Sequence[Run]) -> Table:
    names = list(dict.fromkeys(name for run in runs for name in run.facts))
    return Table(
        'What was run',
        ['', *(run.name for run in runs)],
        [[name, *(run.facts.get(name, NOTHING) for run in runs)] for name in names],
    )


def _config_diff(runs: Sequence[Run]) -> str:
    """Return where the configs of the other runs differ from that of the first."""
    first = runs[0]
    parts = []
    for run in runs[1:]:
        lines = difflib.unified_diff(
            first.config.splitlines(),
            run.config.splitlines(),
            first.name,
            run.name,
            lineterm='',
            n=2,
        )
        parts.append('\n'.join(lines) or f'{first.name} and {run.name} do not differ.')
    return '\n\n'.join(parts)


def _build_gallery(
    kind: Any, runs: Sequence[Run], judged: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the pictures as the template takes them, and what is to be said of their choice."""
    each = PICTURES // len(judged) // len(KINDS)
    shown: list[dict[str, Any]] = []
    there = lost = 0
    for place, run in enumerate(runs):
        if run.name not in judged:
            continue
        one = judged[run.name]
        cases = kind.list_cases(one)
        there += sum(map(len, cases.values()))
        selected = [case for name in KINDS for case in select_cases(cases[name], each)]
        pictures, unread = kind.draw_cases(one, selected)
        lost += unread
        turn = dict.fromkeys(KINDS, 0)
        for picture in pictures:
            shown.append(
                _gallery_entry(picture, place, one.results, run.name if len(runs) > 1 else '')
            )
            shown[-1]['turn'] = turn[picture.kind]
            turn[picture.kind] += 1
    # Of all kinds and runs the first, then of all the second.
    shown.sort(key=lambda case: case['turn'])
    told = [
        kind.GALLERY,
        f'{len(shown)} of {there} cases are shown'
        + (
            f': a sample of at most {each} of a kind{" and run" * (len(judged) > 1)}, in which '
            'the classes take turns, each with its next.'
            if len(shown) < there
            else '.'
        ),
    ]
    if lost:
        told.append(
            f'{lost} more were chosen and are left out, since their images cannot be read; '
            'they may have been moved since the run was scored.'
        )
    return shown, told


def _class_legend(
    cases: Sequence[dict[str, Any]], classes: Sequence[str], tinted: bool
) -> list[tuple[str, str]]:
    """Return the classes of the pictures with their colors, the first ``LEGEND`` of them."""
    from matplotlib.colors import to_hex

    labels = sorted({case['label'] for case in cases})[:LEGEND]
    return [
        (f'{classes[label]} (untinted)', '#ffffff')
        if tinted and is_background(classes, label)
        else (classes[label], to_hex(class_color(label)))
        for label in labels
    ]


def _gallery_entry(
    picture: gallery.GalleryItem, place: int, results: Detections | LabelMaps, run: str
) -> dict[str, Any]:
    name = results.classes[picture.label]
    file = os.path.basename(picture.path)
    said = f' by {run}' if run else ''
    return dict(
        kind=picture.kind,
        label=picture.label,
        run=place,
        caption=picture.caption,
        data=base64.b64encode(picture.jpeg).decode(),
        width=picture.size[0],
        height=picture.size[1],
        file=file,
        alt=f'{KINDS[picture.kind]}{said}: {name} in {file}, truth beside prediction',
    )


def _script_blocks(sections: Sequence[Section], curve_data: str) -> dict[str, Any]:
    """Return what of the template is not text: it must not be escaped, and not end its element."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    def read_raw(name: str) -> Markup:
        return Markup((TEMPLATES / name).read_text(encoding='utf-8'))

    def escape_data(text: str) -> Markup:
        return Markup(text.replace('<', '\\u003c'))

    figures = ','.join(
        f'{json.dumps(one.id)}:{one.json}' for section in sections for one in section.figures
    )
    return dict(
        style=read_raw('page.css'),
        script=read_raw('page.js'),
        figure_data=escape_data(f'{{{figures}}}'),
        curve_data=escape_data(curve_data),
        plotly=Markup(get_plotlyjs().replace('</script', '<\\/script')),
    )
