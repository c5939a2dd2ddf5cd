"""Curves of the losses and scores of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from ..utils.run_logs import Curve, main_score, read_scalars, short_name
from .canvas import PALETTE, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = ('-', '--', '-.', ':')


def plot_curves(source: str | os.PathLike, out: str | os.PathLike, *, title: str = '') -> Path:
    """Plot the losses and the scores of a run over its iterations.

    Args:
        source: see ``read_scalars``.
        out: the PNG to write.
        title: the line above the plots.

    Returns:
        ``out`` as a path.

    Raises:
        UserError: nothing was logged there.
    """
    losses, scores = read_scalars(source)
    if not losses and not scores:
        raise UserError(
            f'curves: found no logged loss or score in {source}. '
            'Give the work folder of a run, or a scalars.json',
            code='report.nothing',
        )
    groups: dict[str, dict] = {}
    for key, line in scores.items():
        groups.setdefault(key.rpartition('/')[0], {})[key] = line
    panels = ([('losses', losses)] if losses else []) + list(groups.items())
    figure = new_figure(6.4 * len(panels), 4.6)
    if title:
        figure.suptitle(title, fontsize=12).set_parse_math(False)
    for number, (name, lines) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        if lines is losses:
            _plot_losses(axes, losses)
        else:
            _plot_scores(axes, name, lines)
        axes.set_xlabel('iteration')
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
        axes.set_xlim(left=0)
    figure.tight_layout()
    return save_figure(figure, out)


def _line_style(number: int) -> dict[str, Any]:
    # Yellow is too pale for a thin line on white.
    inks = [ink for ink in PALETTE if ink != '#F0E442']
    return {
        'color': inks[number % len(inks)],
        'linestyle': _STYLES[number // len(inks) % len(_STYLES)],
    }


def _curve_marker(points: Sequence[float]) -> str | None:
    return 'o' if len(points) < 25 else None


def _plot_losses(axes: Axes, losses: Mapping[str, Curve]) -> None:
    total = losses.get('loss')
    terms = [(key, line) for key, line in losses.items() if key != 'loss']
    for number, (key, (x, y)) in enumerate(terms[:18]):
        axes.plot(
            x,
            y,
            label=key,
            linewidth=1.3,
            marker=_curve_marker(x),
            markersize=2.5,
            **_line_style(number),
        )
    if total:
        axes.plot(
            *total,
            label='loss (total)',
            color='black',
            linewidth=2.2,
            marker=_curve_marker(total[0]),
            markersize=3.5,
        )
    # The first steps of a network from random weights would flatten all that follows.
    heights = total[1] if total else np.concatenate([line[1] for line in losses.values()])
    axes.set_ylim(0, max(float(np.quantile(heights, 0.98)) * 1.1, 1e-6))
    axes.set_title(
        'training loss' if total is None else f'training loss: {total[1][-1]:.3g} at the end'
    )
    axes.set_ylabel('loss')
    axes.legend(fontsize=8, framealpha=0.8)


def _plot_scores(axes: Axes, name: str, lines: Mapping[str, Curve]) -> None:
    short = {key: short_name(key) for key in lines}
    main = main_score(lines) or next(iter(lines))
    order = [main] + [key for key in lines if key != main]
    for number, key in enumerate(order[:8]):
        x, y = lines[key]
        look = (
            {'color': 'black', 'linewidth': 2.2}
            if key == main
            else {'linewidth': 1.3, **_line_style(number - 1)}
        )
        axes.plot(x, y, label=short[key], marker=_curve_marker(x), markersize=3.5, **look)
    x, y = lines[main]
    best = int(np.argmax(y))
    axes.set_title(f'{short[main]}: best {y[best]:.3g} at iteration {x[best]:g}')
    axes.set_ylim(0, 1 if max(max(line[1]) for line in lines.values()) <= 1 else 100)
    axes.set_ylabel(f'score on validation data{f" ({name})" if name else ""}')
    axes.legend(fontsize=8, framealpha=0.8)
