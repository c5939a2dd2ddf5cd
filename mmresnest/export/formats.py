"""How a graph becomes a file, and how that file is run to be compared with the graph.

    onnx            .onnx           opset 18; detectors use NonMaxSuppression and RoiAlign
    openvino        .xml, .bin      converted from the former
    torch-export    .pt2            torch.export's program
    torchscript     .pt             a trace; torch has declared TorchScript deprecated

The last two hold what torch itself has operators for. Those that thin out boxes and pool RoIs are
torchvision's, so a detector is exported to them as far as its neck.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..inference import exported
from .operators import translations

OPSET = 18
FILE = 'mmresnest.json'  # of the description in archives of torch
OLDEST = (2, 6)  # the first torch whose exporter takes translations of operators


@dataclass(frozen=True)
class Shapes:
    """What sizes a file takes.

    Attributes:
        batch: images, None for any number.
        height: of the input, None for any.
        width: likewise.
        divisor: that any height and width must be multiples of.
        least: that they must have.
    """

    batch: int | None
    height: int | None
    width: int | None
    divisor: int
    least: int

    @property
    def dynamic(self) -> bool:
        """Whether any size is taken."""
        return self.height is None

    def constraints(self, number: int) -> Any:
        """The same as torch.export takes it, for the image and so many inputs less one of sizes."""
        if not self.dynamic:
            return None
        from torch.export import Dim

        batch = Dim('batch', min=1, max=1024)
        sides = []
        for name in ('height', 'width'):
            steps = Dim(name, min=-(-self.least // self.divisor), max=16384 // self.divisor)
            sides.append(self.divisor * steps if self.divisor > 1 else steps)
        return ({0: batch, 2: sides[0], 3: sides[1]}, *[{0: batch}] * (number - 1))


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        suffix: of the file.
        detects: whether it holds whole detectors.
        write: of the graph, its inputs, the file, the shapes and the description.
        load: the file in its runtime, as a function of arrays.
        packages: that it takes, and the extra that brings them.
    """

    suffix: str
    detects: bool
    write: Callable[[nn.Module, Sequence[Tensor], Path, Shapes, dict[str, Any]], None]
    load: Callable[[Path], Callable[..., list[np.ndarray]]]
    packages: tuple[tuple[str, str], ...] = ()

    def files(self, path: Path) -> list[Path]:
        """All files that make up one."""
        return [path, path.with_suffix('.bin')] if self.suffix == '.xml' else [path]


def check_installed(name: str) -> None:
    """Makes sure that a format can be written and run here.

    Raises:
        UserError: a package is missing, or torch is too old.
    """
    for package, extra in FORMATS[name].packages:
        exported.needed(package, extra)
    version = tuple(map(int, torch.__version__.split('.')[:2]))
    if version < OLDEST:
        raise UserError(
            f'export takes torch {OLDEST[0]}.{OLDEST[1]} or newer, and this is '
            f'{torch.__version__}; update it'
        )


# ---- writing -------------------------------------------------------------------------------------


def program(graph: nn.Module, inputs: Sequence[Tensor], shapes: Shapes) -> Any:
    """A graph as torch.export's program.

    Raises:
        UserError: torch.export cannot follow it.
    """
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(
                graph, tuple(inputs), strict=False, dynamic_shapes=shapes.constraints(len(inputs))
            )
    except Exception as error:  # there are many kinds, most of them private
        first = str(error).strip().splitlines()[0][:300]
        advice = '; try without --dynamic' if shapes.dynamic else ''
        raise UserError(
            f'torch.export cannot follow this model: {first}{advice}, or another --part'
        ) from error


def write_onnx(
    graph: nn.Module, inputs: Sequence[Tensor], path: Path, shapes: Shapes, about: dict[str, Any]
) -> None:
    """Writes ONNX."""
    import onnx

    followed = program(graph, inputs, shapes)
    with torch.no_grad(), quiet():
        written = torch.onnx.export(
            followed,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            custom_translation_table=translations(),
            output_names=about['outputs'],
        )
    assert written is not None  # torch.onnx.export returns None if it is given a file
    written.save(path, external_data=False)
    model = onnx.load(path)
    held = model.metadata_props.add()
    held.key, held.value = exported.KEY, json.dumps(about)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_openvino(
    graph: nn.Module, inputs: Sequence[Tensor], path: Path, shapes: Shapes, about: dict[str, Any]
) -> None:
    """Writes OpenVINO's two files."""
    with tempfile.TemporaryDirectory() as folder:
        between = Path(folder, 'model.onnx')
        write_onnx(graph, inputs, between, shapes, about)
        as_openvino(between, path, about)


def as_openvino(onnx_file: Path, path: Path, about: dict[str, Any]) -> None:
    """Converts an ONNX file."""
    import openvino

    model = openvino.convert_model(onnx_file)
    model.set_rt_info(json.dumps(about), exported.KEY)
    openvino.save_model(model, path, compress_to_fp16=about['precision'] == 'float16')


def write_program(
    graph: nn.Module, inputs: Sequence[Tensor], path: Path, shapes: Shapes, about: dict[str, Any]
) -> None:
    """Writes torch.export's archive."""
    with quiet():
        torch.export.save(
            program(graph, inputs, shapes), path, extra_files={FILE: json.dumps(about)}
        )


def write_script(
    graph: nn.Module, inputs: Sequence[Tensor], path: Path, shapes: Shapes, about: dict[str, Any]
) -> None:
    """Writes a trace."""
    with torch.no_grad(), quiet():
        traced = torch.jit.trace(graph, tuple(inputs), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={FILE: json.dumps(about)})


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back what torch says of its own insides while it exports."""
    loggers = [
        logging.getLogger(name) for name in ('torch.onnx', 'torch.export', 'onnxscript', 'onnx_ir')
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # TorchScript's end is announced at every call, and onnxscript uses what torch renames.
            warnings.simplefilter('ignore', DeprecationWarning)
            warnings.simplefilter('ignore', FutureWarning)
            # A trace tells of every size that it takes as it is; the file is run with others.
            warnings.simplefilter('ignore', torch.jit.TracerWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


# ---- running -------------------------------------------------------------------------------------


def load_session(path: Path) -> Callable[..., list[np.ndarray]]:
    """Opens a file in the runtime that needs no torch."""
    return exported.opened(path).run


def load_program(path: Path) -> Callable[..., list[np.ndarray]]:
    """Opens torch.export's archive."""
    with quiet():
        return as_arrays(torch.export.load(path).module())


def load_script(path: Path) -> Callable[..., list[np.ndarray]]:
    """Opens a trace."""
    with quiet():
        return as_arrays(torch.jit.load(str(path)))


def as_arrays(module: Callable) -> Callable[..., list[np.ndarray]]:
    """A module as a function of arrays."""

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return arrays_of(module(*map(torch.from_numpy, inputs)))

    return run


def arrays_of(found: Tensor | Sequence[Tensor]) -> list[np.ndarray]:
    """What a module returns, as arrays."""
    return [one.numpy() for one in ([found] if isinstance(found, Tensor) else found)]


_ONNX = (('onnx', 'onnx'), ('onnxscript', 'onnx'))
FORMATS = {
    'onnx': Format('.onnx', True, write_onnx, load_session, (*_ONNX, ('onnxruntime', 'onnx'))),
    'openvino': Format(
        '.xml', True, write_openvino, load_session, (*_ONNX, ('openvino', 'openvino'))
    ),
    'torch-export': Format('.pt2', False, write_program, load_program),
    'torchscript': Format('.pt', False, write_script, load_script),
}
