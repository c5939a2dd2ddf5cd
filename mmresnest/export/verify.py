"""Check a graph against the framework and a file against its graph, and time them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..deploy import fuse
from ..inference.exported import ExportedModel
from ..inference.predictor import Predictor
from ..inference.results import PanopticSegmentation, Result
from .compare import (
    LIMITS,
    Difference,
    Selection,
    check_differences,
    compare_outputs,
    compare_results,
)
from .formats import as_numpy_function
from .graphs import graph_on

ROUNDS = 5
"""How often each form is timed."""


class EagerSession:
    """A graph that is run like an exported file, at any size.

    Args:
        graph: takes 8-bit images and their sizes.
        metadata: the description of the file that it will become.
    """

    def __init__(self, graph: nn.Module, metadata: dict[str, Any]) -> None:
        form = {**metadata['input'], 'batch': None, 'height': None, 'width': None, 'least': 1}
        self.graph, self.metadata = graph, {**metadata, 'input': form}

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Compute the outputs."""
        return as_numpy_function(self.graph)(*inputs)


def compare_with_framework(
    predictor: Predictor, graph: nn.Module, metadata: dict[str, Any], images: list[np.ndarray]
) -> tuple[list[Difference], int]:
    """Compare a graph's results with those of mmdet or mmseg.

    Args:
        predictor: of the framework.
        graph: the graph.
        metadata: the description of the file that it will become.
        images: H W 3 in RGB.

    Returns:
        the largest differences, and the number of objects or pixels that were compared.

    Raises:
        UserError: a difference is beyond rounding.
    """
    ours = ExportedModel(EagerSession(graph, metadata), 0.0)
    pairs = [(predictor(image), ours(image)) for image in images]
    worst: dict[str, Difference] = {}
    selection = Selection(metadata['lowest'], getattr(graph, 'max_per_img', 0))
    for one, other in pairs:
        for each in compare_results(one, other, LIMITS['float32'], selection):
            if each.what not in worst or not each.value <= worst[each.what].value:
                worst[each.what] = each
    check_differences({'graph and framework': list(worst.values())})
    return list(worst.values()), sum(map(_count_labels, (one for one, _ in pairs)))


def compare_with_graph(
    run: Callable[..., list[np.ndarray]],
    metadata: dict[str, Any],
    inputs: list[tuple[Tensor, ...]],
    expected: list[list[np.ndarray]],
) -> dict[str, list[Difference]]:
    """Compare a file's outputs with those of its graph.

    Args:
        run: the file, as a function of arrays.
        metadata: its description.
        inputs: batches.
        expected: the outputs of the graph on each.

    Returns:
        what was compared -> its differences.

    Raises:
        UserError: a difference is beyond rounding.
    """
    found = {}
    for batch, reference in zip(inputs, expected):
        size = 'x'.join(map(str, batch[0].shape))
        found[f'file and graph, {size}'] = compare_outputs(
            metadata['outputs'],
            reference,
            run(*(one.numpy() for one in batch)),
            LIMITS[metadata['precision']],
            metadata['lowest'],
        )
    check_differences(found)
    return found


def _count_labels(result: Result) -> int:
    assert not isinstance(result, PanopticSegmentation)
    return result.labels.size


def time_forms(
    predictor: Predictor, part: str, run: Callable, inputs: tuple[Tensor, ...], to: str
) -> dict[str, float]:
    """Time a batch: milliseconds of PyTorch as it is, of our deployed form, and of the file."""
    arrays = [one.numpy() for one in inputs]
    eager = graph_on(predictor.model, part)
    deployed = graph_on(fuse(predictor.model), part)
    calls: dict[str, Callable[[], Any]] = {
        'PyTorch': lambda: eager(*inputs),
        'PyTorch, fused': lambda: deployed(*inputs),
        to: lambda: run(*arrays),
    }
    taken: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for call in calls.values():
            call()  # the first call allocates
        for _ in range(ROUNDS):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                taken[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in taken.items()}
