"""The interactive figures of a report, as plotly's json.

Color never carries a meaning alone: runs differ in the dash of a line or the pattern of a bar too,
and every figure has a table or a sentence beside it on the page.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..evaluation.scores import RECALLS
from ..utils.run_logs import Curve
from ..utils.text import printable

INKS = ('#0072B2', '#D55E00', '#00805A', '#B0407A', '#8A6D00', '#555555', '#6A51A3')
"""Dark enough for a thin line on white."""
DASHES = ('solid', 'dash', 'dot', 'dashdot', 'longdash', 'longdashdot')
FILLS = ('', '/', 'x', '-', '\\', '|', '+', '.')
LINES = 10
"""Trials of a sweep whose lines can be told apart."""
SHOWN = 40
"""Rows of a confusion matrix, and bars, that can be told apart; of more, the worst."""


def _escape_markup(name: object) -> str:
    """Return a name as plotly shows it: it takes some HTML for markup."""
    return html.escape(printable(name), quote=False)


def _make_layout(x: str, y: str, **more: Any) -> dict[str, Any]:
    axis = dict(gridcolor='#e3e3e3', linecolor='#666', zerolinecolor='#bbb', automargin=True)
    return dict(
        paper_bgcolor='white',
        plot_bgcolor='white',
        height=more.pop('height', 360),
        font=dict(family='system-ui, sans-serif', size=13, color='#222'),
        autosize=True,
        margin=dict(l=48, r=12, t=34, b=44),
        xaxis={**axis, 'title': dict(text=x), **more.pop('xaxis', {})},
        yaxis={**axis, 'title': dict(text=y, standoff=14), **more.pop('yaxis', {})},
        legend=dict(orientation='h', x=0, yref='container', y=0, yanchor='bottom'),
        **more,
    )


def _to_json(traces: Sequence[Any], layout: Mapping[str, Any]) -> str:
    import plotly.graph_objects as graph

    figure = graph.Figure(data=list(traces), layout=dict(layout, template='none'))
    return figure.to_json(remove_uids=True)


def _trace_name(run: str, what: str, several: bool) -> str:
    return _escape_markup(f'{run}: {what}' if several else what)


def _line_style(place: int, number: int, several: bool) -> dict[str, Any]:
    """Return how a line is drawn: its color and dash tell the run, its width what is measured.

    Of a run that is alone they tell what is measured.
    """
    told = place if several else number
    return dict(
        color=INKS[told % len(INKS)],
        dash=DASHES[told % len(DASHES)],
        width=(2.4, 1.1)[number % 2] if several else 2.2,
    )


def precision_recall(runs: Mapping[str, np.ndarray]) -> str:
    """Return precision over recall at both overlaps; run -> 2 101."""
    import plotly.graph_objects as graph

    traces = [
        graph.Scatter(
            x=RECALLS.round(2),
            y=curve.round(3),
            mode='lines',
            name=_trace_name(run, f'IoU {iou}', len(runs) > 1),
            line=_line_style(place, number, len(runs) > 1),
        )
        for place, (run, pair) in enumerate(runs.items())
        for number, (iou, curve) in enumerate(zip(('.50', '.75'), pair))
    ]
    return _to_json(
        traces,
        _make_layout(
            'recall', 'precision', xaxis=dict(range=[0, 1.01]), yaxis=dict(range=[0, 1.03])
        ),
    )


def curves_as_json(runs: Mapping[str, np.ndarray], classes: Sequence[str]) -> str:
    """Return, for the choice of a class: class -> the y of every line of the figure."""
    table = {
        str(number): [_json_numbers(pair[iou, number]) for pair in runs.values() for iou in (0, 1)]
        for number in range(len(classes))
    }
    return json.dumps(table, separators=(',', ':'))


def _json_numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 3) for value in values]


def most_confused_rows(table: np.ndarray) -> np.ndarray:
    """Return the rows of a confusion matrix that are shown, in their order; the last always is."""
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    weight = wrong.sum(axis=0) + wrong.sum(axis=1)
    weight[-1] = weight.max() + 1
    return np.sort(np.argsort(-weight, kind='stable')[:SHOWN])


def confusion_heatmap(table: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> str:
    """Return a confusion matrix as a map of shares of each row; the counts stand in the cells."""
    import plotly.graph_objects as graph

    sums = table.sum(axis=1, keepdims=True)
    share = table / np.maximum(sums, 1)
    few = len(rows) <= 14
    map_ = graph.Heatmap(
        z=share.round(4),
        x=list(range(len(columns))),
        y=list(range(len(rows))),
        customdata=table,
        zmin=0,
        zmax=1,
        colorscale='Blues',
        text=table if few else None,
        texttemplate='%{text}' if few else None,
        hovertext=[
            [f'{_escape_markup(row)} taken for {_escape_markup(column)}' for column in columns]
            for row in rows
        ],
        hovertemplate='%{hovertext}<br>%{customdata} (%{z:.1%} of the row)<extra></extra>',
        showscale=False,
    )
    ticks = [
        dict(
            tickmode='array',
            tickvals=list(range(len(names))),
            ticktext=[_shorten_name(name) for name in names],
        )
        for names in (columns, rows)
    ]
    height = max(380, 110 + 19 * len(rows))
    return _to_json(
        [map_],
        _make_layout(
            'predicted',
            'true',
            height=height,
            xaxis=dict(ticks[0], tickangle=-60),
            yaxis=dict(ticks[1], autorange='reversed'),
        ),
    )


def _shorten_name(name: str, length: int = 16) -> str:
    return _escape_markup(name if len(name) <= length else name[: length - 1] + '…')


def score_histogram(runs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Plot how many detections of each score are right and how many false; run -> right, false."""
    edges = np.linspace(0, 1, 21)
    traces = _right_false_traces(runs, np.linspace(0.025, 0.975, 20).round(3), edges)
    return _to_json(
        traces,
        _make_layout(
            'score',
            'detections (logarithmic)',
            xaxis=dict(range=[0, 1]),
            yaxis=dict(type='log', dtick=1),
        ),
    )


def _right_false_traces(
    runs: Mapping[str, tuple[np.ndarray, np.ndarray]], middles: np.ndarray, edges: np.ndarray
) -> list[Any]:
    """Return two steps of counts a run: right ones and false ones."""
    import plotly.graph_objects as graph

    return [
        graph.Scatter(
            x=middles,
            y=np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0],
            mode='lines',
            name=_trace_name(run, what, len(runs) > 1),
            line=dict(_line_style(place, number, len(runs) > 1), shape='hvh'),
        )
        for place, (run, pair) in enumerate(runs.items())
        for number, (what, values) in enumerate(zip(('right', 'false'), pair))
    ]


def size_histogram(runs: Mapping[str, tuple[np.ndarray, np.ndarray]], truth: np.ndarray) -> str:
    """Plot sizes of boxes: the truth's, and those of right and of false detections shown."""
    import plotly.graph_objects as graph

    edges = 2.0 ** np.arange(0, 12.5, 0.5)
    middles = np.sqrt(edges[1:] * edges[:-1]).round(1)
    there = graph.Scatter(
        x=middles,
        y=np.histogram(np.clip(truth, 1, edges[-1]), edges)[0],
        mode='lines',
        name='truth',
        line=dict(color='#222', dash='dash', shape='hvh', width=1.6),
    )
    traces = [there, *_right_false_traces(runs, middles, edges)]
    return _to_json(
        traces,
        _make_layout(
            'side of a square as large, px',
            'boxes',
            xaxis=dict(type='log', tickvals=[4, 16, 32, 96, 256, 1024], range=[0, 3.4]),
        ),
    )


def _bar_fill(place: int) -> dict[str, Any]:
    """Return how a run's bars are filled, with a pattern for where no color is seen."""
    fill = FILLS[place % len(FILLS)]
    return dict(color=INKS[place % len(INKS)], pattern=dict(shape=fill, solidity=0.25))


def score_bars(runs: Mapping[str, np.ndarray], classes: Sequence[str], what: str) -> str:
    """Return a score of every class as bars; run -> K."""
    import plotly.graph_objects as graph

    names = [_shorten_name(name, 24) for name in classes]
    traces = [
        graph.Bar(
            y=list(range(len(names))),
            x=values.round(4),
            orientation='h',
            name=_escape_markup(run),
            marker=_bar_fill(place),
        )
        for place, (run, values) in enumerate(runs.items())
    ]
    return _to_json(
        traces,
        _make_layout(
            what,
            '',
            height=max(260, 90 + 20 * len(names) * len(runs)),
            showlegend=len(runs) > 1,
            xaxis=dict(range=[0, 1]),
            yaxis=dict(
                autorange='reversed',
                tickmode='array',
                tickvals=list(range(len(names))),
                ticktext=names,
            ),
        ),
    )


def plot_curves(runs: Mapping[str, Mapping[str, Curve]], y: str, main: str = '') -> str:
    """Plot logged curves over iterations; run -> name -> curve.

    Color tells the curve, of which one is drawn thicker, and dash the run. Of more than two runs
    only that one is drawn, with color and dash for the run.
    """
    import plotly.graph_objects as graph

    if len(runs) > 2 and any(main in group for group in runs.values()):
        runs = {
            run: {name: curve for name, curve in group.items() if name == main}
            for run, group in runs.items()
        }
    names = list(dict.fromkeys(name for group in runs.values() for name in group))
    traces = []
    for place, (run, group) in enumerate(runs.items()):
        for name, (x, values) in group.items():
            number = names.index(name)
            traces.append(
                graph.Scatter(
                    x=x,
                    y=[float(f'{value:.5g}') for value in values],
                    mode='lines+markers' if len(x) < 25 else 'lines',
                    marker=dict(size=5),
                    name=_trace_name(run, name, len(runs) > 1),
                    line=_line_style(place, 0, True)
                    if names == [main] and len(runs) > 2
                    else dict(
                        color='#222' if name == main else INKS[number % len(INKS)],
                        dash=DASHES[place % len(DASHES)],
                        width=2.6 if name == main else 1.5,
                    ),
                )
            )
    return _to_json(
        traces, _make_layout('iteration', y, yaxis=dict(rangemode='tozero', exponentformat='e'))
    )


TRIAL_MARKS = {'finished': 'circle', 'pruned': 'x-thin-open'}
"""How the state of a trial is drawn; all others are open circles."""


def _trial_markers(states: Sequence[str], size: int = 9) -> dict[str, Any]:
    return dict(
        symbol=[TRIAL_MARKS.get(state, 'circle-open') for state in states],
        color=[INKS[0] if state == 'finished' else INKS[1] for state in states],
        size=size,
        line=dict(width=2),
    )


def parameter_scatter(
    points: Sequence[tuple[str, float, str, int]], scale: str, parameter: str, score: str
) -> str:
    """Plot the score of trials against a parameter.

    Args:
        points: value, score, state and number of each trial.
        scale: of the axis: ``linear``, ``log`` or ``category``.
        parameter: its name.
        score: its name.
    """
    import plotly.graph_objects as graph

    trace = graph.Scatter(
        x=[value if scale == 'category' else float(value) for value, *_ in points],
        y=[round(value, 5) for _, value, *_ in points],
        mode='markers',
        marker=_trial_markers([state for *_, state, _ in points]),
        text=[f'trial {number}, {state}' for *_, state, number in points],
        hovertemplate='%{text}<br>%{x}: %{y}<extra></extra>',
        showlegend=False,
    )
    axis: dict[str, Any] = dict(type=scale)
    if scale == 'category':
        axis.update(categoryorder='category ascending')
    elif scale == 'log':
        axis.update(dtick='D2', exponentformat='e')  # 1, 2 and 5 of each power of ten
    return _to_json([trace], _make_layout(_escape_markup(parameter), score, xaxis=axis))


def _count_axis(count: int) -> dict[str, Any]:
    """Return an axis of whole numbers, of which plotly would show halves where they are few."""
    return dict(dtick=1) if count <= 12 else dict(tickformat='d')


def score_history(points: Sequence[tuple[int, float, str]], score: str) -> str:
    """Plot the score of trials in their order, and the best that had finished by then.

    Args:
        points: number, score and state of each trial, by number.
        score: its name.
    """
    import plotly.graph_objects as graph

    finished = [(number, value) for number, value, state in points if state == 'finished']
    best = np.maximum.accumulate([value for _, value in finished]) if finished else np.zeros(0)
    traces = [
        graph.Scatter(
            x=[number for number, _ in finished],
            y=best.round(5),
            mode='lines',
            line=dict(shape='hv', color='#222', width=1.6),
            name='best so far',
        ),
        graph.Scatter(
            x=[number for number, *_ in points],
            y=[round(value, 5) for _, value, _ in points],
            mode='markers',
            marker=_trial_markers([state for *_, state in points]),
            text=[state for *_, state in points],
            hovertemplate='trial %{x}, %{text}: %{y}<extra></extra>',
            name='a trial',
        ),
    ]
    return _to_json(traces, _make_layout('trial', score, xaxis=_count_axis(len(points))))


def validation_lines(trials: Sequence[tuple[int, Sequence[float], str]], score: str) -> str:
    """Plot the scores of trials over their validations; number, scores and state, best first."""
    import plotly.graph_objects as graph

    most = max(len(values) for _, values, _ in trials)
    traces = [
        graph.Scatter(
            x=list(range(1, len(values) + 1)),
            y=[round(value, 5) for value in values],
            mode='lines+markers',
            marker=dict(size=5),
            line=dict(
                color=INKS[place % len(INKS)],
                dash='solid' if state == 'finished' else 'dash',
                width=2.6 if place == 0 else 1.5,
            ),
            name=f'trial {number}',
        )
        for place, (number, values, state) in enumerate(trials[:LINES])
    ]
    return _to_json(traces, _make_layout('validation', score, xaxis=_count_axis(most)))
