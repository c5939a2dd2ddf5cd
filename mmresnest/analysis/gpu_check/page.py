"""The page of a check, in Markdown: whole in itself, and its tables fit into docs/speed.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

OURS = ('plain', 'plain-contiguous', 'lean', 'fused', 'plain-compiled', 'fused-compiled')
GOALS = (
    ('training step in bfloat16, faster than mmdet', 'training', 'mmdet', 'median', 1.6),
    ('the same, than mmdet compiled', 'training', 'mmdet-compiled', 'median', 1.15),
    ('inference in bfloat16, faster than mmdet', 'inference', 'mmdet', 'median', 2.2),
    ('peak memory of a training step, of mmdet', 'training', 'mmdet', 'peak', 0.7),
)
"""What, mode, the form beside it, what of it, and the goal: at least, or at most of memory."""
NOT_MEASURED = 'not measured'


def format_page(result: dict[str, Any]) -> str:
    """Return the page of what :func:`~.supervisor.check_gpu` found."""
    items: list[dict[str, Any]] = result['items']
    parts = {
        part: [one for one in items if one['part'] == part]
        for part in ('equality', 'speed', 'training')
    }
    lines = [
        '# GPU check',
        '',
        *(['**At toy sizes, on the CPU: the figures say nothing.**', ''] if result['toy'] else []),
        f'{result.get("seconds", 0):.0f} s of {result["budget"]:.0f} s.',
        '',
        *format_table(['machine', ''], describe_facts(result['machine'])),
        '## Equality',
        '',
        *format_equality(parts['equality']),
        '## Goals',
        '',
        *format_table(['goal, resnest50', 'goal', 'measured', 'by'], list_goals(parts['speed'])),
        '## Speed',
        '',
        *format_speed(parts['speed']),
        '## Training',
        '',
        *format_training(parts['training']),
        '## Left out, failed',
        '',
        *format_problems(items),
    ]
    return '\n'.join(lines).rstrip() + '\n'


def format_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return a table of Markdown, and an empty line."""
    cells = [columns, ['---'] * len(columns), *rows]
    line = lambda row: '| ' + ' | '.join(str(cell).replace('|', '\\|') for cell in row) + ' |'
    return [*map(line, cells), '']


def describe_facts(machine: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the machine, a fact a line."""

    def say(value: Any) -> str:
        if isinstance(value, dict):
            return ', '.join(f'{key}: {one}' for key, one in value.items())
        return ', '.join(map(str, value)) if isinstance(value, list) else str(value)

    return [(name, say(value)) for name, value in machine.items()]


def format_equality(items: Sequence[dict[str, Any]]) -> list[str]:
    """Return how many checks passed, and the largest errors beside their tolerances."""
    counts = {
        status: sum(one['status'] == status for one in items)
        for status in ('passed', 'failed', 'error', 'left out')
    }
    told = ', '.join(f'{number} {status}' for status, number in counts.items() if number)
    measured = [one for one in items if one.get('values')]
    measured.sort(key=lambda one: -float(one['values']['error']) / one['values']['tolerance'])
    rows = [
        (
            one['item'],
            one['status'],
            f'{float(one["values"]["error"]):.1e}',
            f'{one["values"]["tolerance"]:.1e}',
            one['values']['where'],
        )
        for one in measured[:15]
    ]
    columns = ['nearest to their tolerance', '', 'error', 'tolerance', 'where']
    return [
        f'{told or "nothing was checked"}, against double precision on the CPU.',
        '',
        *(format_table(columns, rows) if rows else []),
    ]


def list_goals(items: Sequence[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Return each goal beside what was measured; nothing is guessed."""
    rows = []
    for text, mode, other, figure, goal in GOALS:
        memory = figure == 'peak'
        shown = f'at most {goal}' if memory else f'{goal}x'
        measured, form = NOT_MEASURED, ''
        forms = find_forms(items, mode)
        beside = forms.get(other, {}).get(figure)
        own = {
            name: forms[name][figure]
            for name in OURS
            if forms.get(name, {}).get(figure) is not None
        }
        if beside and own:
            form = min(own, key=own.__getitem__)
            ratio = own[form] / beside if memory else beside / own[form]
            met = ratio <= goal if memory else ratio >= goal
            measured = f'{ratio:.2f}{"" if memory else "x"}, {"met" if met else "missed"}'
        rows.append((text, shown, measured, form))
    return rows


def find_forms(items: Sequence[dict[str, Any]], mode: str) -> dict[str, dict[str, Any]]:
    """Return the forms of ResNeSt in bfloat16 in a mode, empty if there are none."""
    for one in items:
        values = one.get('values') or {}
        if (
            values.get('mode') == mode
            and values.get('dtype') == 'bfloat16'
            and values['arch'].startswith('resnest')
        ):
            return values['forms']
    return {}


def format_speed(items: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table for each case: milliseconds, speed, and memory."""
    lines: list[str] = []
    for values in (one['values'] for one in items if one.get('values')):
        first = next(iter(values['forms'].values()), None)
        rows = [
            (
                form,
                f'{row["median"]:.1f} ({row["quartiles"][0]:.1f} to {row["quartiles"][1]:.1f})',
                f'{first["median"] / row["median"]:.2f}x' if first else '',
                f'{values["images"] * 1e3 / row["median"]:.0f}',
                *('' if row[name] is None else f'{row[name]:.0f}' for name in ('saved', 'peak')),
            )
            for form, row in values['forms'].items()
        ]
        title = f'{values["arch"]}, {values["mode"]}, {values["dtype"]}, {values["size"]}'
        columns = [title, 'ms', 'speed', 'images/s', 'saved MiB', 'peak MiB']
        lines += format_table(columns, rows)
        seconds = values.get('compile_seconds', {})
        said = [f'{form} took {taken:.0f} s to compile' for form, taken in seconds.items()]
        said += [f'{form} left out: {reason}' for form, reason in values['left_out'].items()]
        lines += [f'{values["rounds"]} rounds in turn. ' + '; '.join(said), '']
    return lines or [NOT_MEASURED, '']


def format_training(items: Sequence[dict[str, Any]]) -> list[str]:
    """Return pace and scores of the training, and of the short run before it."""
    rows = []
    for values in (one.get('values') or {} for one in items):
        for name in ('probe', 'training'):
            if name not in values:
                continue
            run = values[name]
            scores = (f'{key.rpartition("/")[2]} {one:.3f}' for key, one in run['scores'].items())
            figures = [run['images_per_second'], run['step'] * 1e3, run['data_time'] * 1e3]
            rows.append(
                [
                    f'{values["config"]} on {values["data"]}, {name}',
                    run['steps'],
                    *(f'{figure:.1f}' for figure in figures),
                    f'{run["memory_mib"]:.0f}',
                    run['wrapper'],
                    ', '.join(scores),
                ]
            )
    if not rows:
        return [NOT_MEASURED, '']
    columns = ['', 'steps', 'images/s', 'step ms', 'data ms', 'MiB', 'precision', 'scores']
    return format_table(columns, rows)


def format_problems(items: Sequence[dict[str, Any]]) -> list[str]:
    """Return what did not come to its end and why, failures with their traceback."""
    lines: list[str] = []
    left_out: dict[str, list[str]] = {}
    for one in items:
        name, reason = f'{one["part"]}, {one["item"]}', one.get('reason', '')
        if one['status'] == 'left out':
            left_out.setdefault(f'{one["part"]}, left out: {reason}', []).append(one['item'])
        elif one['status'] != 'passed':
            lines.append(f'- {name}: {one["status"]}: {reason}')
            if one.get('traceback'):
                lines += ['', *(f'      {line}' for line in one['traceback'].splitlines()), '']
    lines += [f'- {what}: ' + '; '.join(names) for what, names in left_out.items()]
    return [*lines, ''] if lines else ['Nothing.', '']
