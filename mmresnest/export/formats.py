"""The formats of exported files: how a graph is written, and run to be compared.

    onnx            .onnx           opset 18; detectors use NonMaxSuppression and RoiAlign
    openvino        .xml, .bin      converted from the former
    torch-export    .pt2            torch.export's program
    torchscript     .pt             a trace; torch has declared TorchScript deprecated

The last two hold what torch itself has operators for. NMS and RoIAlign are torchvision's, so a
detector is exported to them as far as its neck.
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
from ..inference.metadata import METADATA_KEY
from ..inference.runtimes import open_session
from ..utils.packages import import_optional
from .operators import onnx_translations

OPSET = 18
DESCRIPTION_FILE = 'mmresnest.json'
"""The description in archives of torch."""
OLDEST = (2, 6)
"""The first torch whose exporter takes translations of custom operators."""


@dataclass(frozen=True)
class Shapes:
    """The sizes that a file takes.

    Attributes:
        batch: images, None for any number.
        height: of the input, None for any.
        width: likewise.
        divisor: any height and width must be multiples of it.
        least: the smallest height and width.
    """

    batch: int | None
    height: int | None
    width: int | None
    divisor: int
    least: int

    @property
    def is_dynamic(self) -> bool:
        """Tell whether any size is taken."""
        return self.height is None

    def dynamic_shapes(self, number: int) -> Any:
        """Return the dynamic shapes for torch.export: of the image, and of the other inputs."""
        if not self.is_dynamic:
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
    """A format of files.

    Attributes:
        suffix: of the file.
        detects: whether it holds whole detectors.
        write: writes graph, example inputs, file, shapes and description.
        load: opens a file in its runtime, as a function of arrays.
        packages: those it needs, each with the extra that brings it.
    """

    suffix: str
    detects: bool
    write: Callable[[nn.Module, Sequence[Tensor], Path, Shapes, dict[str, Any]], None]
    load: Callable[[Path], Callable[..., list[np.ndarray]]]
    packages: tuple[tuple[str, str], ...] = ()

    def list_files(self, path: Path) -> list[Path]:
        """Return all files that one export consists of."""
        return [path, path.with_suffix('.bin')] if self.suffix == '.xml' else [path]


def check_installed(name: str) -> None:
    """Refuse a format that cannot be written or run here.

    Raises:
        UserError: a package is missing, or torch is too old.
    """
    for package, extra in FORMATS[name].packages:
        import_optional(package, extra)
    version = tuple(map(int, torch.__version__.split('.')[:2]))
    if version < OLDEST:
        raise UserError(
            f'export needs torch {OLDEST[0]}.{OLDEST[1]} or newer, and this is '
            f'{torch.__version__}; update it',
            code='package.too-old',
        )


def export_program(graph: nn.Module, inputs: Sequence[Tensor], shapes: Shapes) -> Any:
    """Export a graph to torch.export's program.

    Raises:
        UserError: torch.export cannot trace it.
    """
    try:
        with torch.no_grad(), silence_exporters():
            return torch.export.export(
                graph,
                tuple(inputs),
                strict=False,
                dynamic_shapes=shapes.dynamic_shapes(len(inputs)),
            )
    except Exception as error:  # of many kinds, most of them private
        first = str(error).strip().splitlines()[0][:300]
        advice = '; try without --dynamic' if shapes.is_dynamic else ''
        raise UserError(
            f'torch.export cannot trace this model: {first}{advice}, or another --part',
            code='export.failed',
        ) from error


def write_onnx(
    graph: nn.Module, inputs: Sequence[Tensor], path: Path, shapes: Shapes, metadata: dict[str, Any]
) -> None:
    """Write ONNX."""
    import onnx

    exported = export_program(graph, inputs, shapes)
    with torch.no_grad(), silence_exporters():
        written = torch.onnx.export(
            exported,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            custom_translation_table=onnx_translations(),
            output_names=metadata['outputs'],
        )
    assert written is not None  # torch.onnx.export returns None if it is given a file
    written.save(path, external_data=False)
    model = onnx.load(path)
    prop = model.metadata_props.add()
    prop.key, prop.value = METADATA_KEY, json.dumps(metadata)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_openvino(
    graph: nn.Module, inputs: Sequence[Tensor], path: Path, shapes: Shapes, metadata: dict[str, Any]
) -> None:
    """Write OpenVINO's two files."""
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder, 'model.onnx')
        write_onnx(graph, inputs, onnx_file, shapes, metadata)
        convert_to_openvino(onnx_file, path, metadata)


def convert_to_openvino(onnx_file: Path, path: Path, metadata: dict[str, Any]) -> None:
    """Convert an ONNX file to OpenVINO."""
    import openvino

    model = openvino.convert_model(onnx_file)
    model.set_rt_info(json.dumps(metadata), METADATA_KEY)
    openvino.save_model(model, path, compress_to_fp16=metadata['precision'] == 'float16')


def write_program(
    graph: nn.Module, inputs: Sequence[Tensor], path: Path, shapes: Shapes, metadata: dict[str, Any]
) -> None:
    """Write torch.export's archive."""
    with silence_exporters():
        torch.export.save(
            export_program(graph, inputs, shapes),
            path,
            extra_files={DESCRIPTION_FILE: json.dumps(metadata)},
        )


def write_script(
    graph: nn.Module, inputs: Sequence[Tensor], path: Path, shapes: Shapes, metadata: dict[str, Any]
) -> None:
    """Write a trace of TorchScript."""
    with torch.no_grad(), silence_exporters():
        traced = torch.jit.trace(graph, tuple(inputs), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={DESCRIPTION_FILE: json.dumps(metadata)})


@contextmanager
def silence_exporters() -> Iterator[None]:
    """Hide the logs and warnings of torch about its own internals while it exports."""
    loggers = [
        logging.getLogger(name) for name in ('torch.onnx', 'torch.export', 'onnxscript', 'onnx_ir')
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # TorchScript is announced as deprecated, and onnxscript uses renamed names of torch.
            warnings.simplefilter('ignore', DeprecationWarning)
            warnings.simplefilter('ignore', FutureWarning)
            # Of every size that becomes a constant; the file is compared at other sizes too.
            warnings.simplefilter('ignore', torch.jit.TracerWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def load_session(path: Path) -> Callable[..., list[np.ndarray]]:
    """Open a file in ONNX Runtime or OpenVINO."""
    return open_session(path).run


def load_program(path: Path) -> Callable[..., list[np.ndarray]]:
    """Open torch.export's archive."""
    with silence_exporters():
        return as_numpy_function(torch.export.load(path).module())


def load_script(path: Path) -> Callable[..., list[np.ndarray]]:
    """Open a trace of TorchScript."""
    with silence_exporters():
        return as_numpy_function(torch.jit.load(str(path)))


def as_numpy_function(module: Callable) -> Callable[..., list[np.ndarray]]:
    """Return a module as a function of arrays."""

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return to_arrays(module(*map(torch.from_numpy, inputs)))

    return run


def to_arrays(found: Tensor | Sequence[Tensor]) -> list[np.ndarray]:
    """Return what a module returns, as arrays."""
    return [tensor.numpy() for tensor in ([found] if isinstance(found, Tensor) else found)]


_ONNX = (('onnx', 'onnx'), ('onnxscript', 'onnx'))
FORMATS = {
    'onnx': Format('.onnx', True, write_onnx, load_session, (*_ONNX, ('onnxruntime', 'onnx'))),
    'openvino': Format(
        '.xml', True, write_openvino, load_session, (*_ONNX, ('openvino', 'openvino'))
    ),
    'torch-export': Format('.pt2', False, write_program, load_program),
    'torchscript': Format('.pt', False, write_script, load_script),
}
