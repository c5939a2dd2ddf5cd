"""Open exported files in their runtimes, ONNX Runtime and OpenVINO, without torch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import UserError
from .metadata import METADATA_KEY, read_metadata

CPU, CUDA = 'CPUExecutionProvider', 'CUDAExecutionProvider'
"""What ONNX Runtime calls the devices."""


class Session(Protocol):
    """A file in its runtime.

    Attributes:
        metadata: the description that the file holds; see :mod:`.metadata`.
    """

    metadata: dict[str, Any]

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Compute the outputs, in the order of the description."""


class OnnxSession:
    """A file in ONNX Runtime.

    Args:
        path: of the ``.onnx``.
        device: ``cpu``, ``cuda`` or ``cuda:1``, which the package onnxruntime-gpu has; or ``auto``,
            a GPU if there is one.

    Raises:
        UserError: there is no such device.
    """

    def __init__(self, path: Path, device: str = 'cpu') -> None:
        onnxruntime = import_optional('onnxruntime', 'onnx')
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        providers = execution_providers(device, onnxruntime.get_available_providers())
        # ONNX Runtime's own fallback prints to stdout and takes the first GPU instead of this one.
        try:
            self._session = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=providers, enable_fallback=0
            )
        except Exception:  # it raises many kinds
            if providers == [CPU]:
                raise
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=[CPU])
        used = self._session.get_provider_options().get(CUDA, {})
        if device.startswith('cuda') and used.get('device_id') != (device[5:] or '0'):
            raise UserError(
                f'--device {device}: ONNX Runtime can use no such GPU here; give cpu, '
                'or repair it: pip uninstall onnxruntime, then pip install '
                'onnxruntime-gpu, which takes the CUDA and cuDNN that it names',
                code='device.missing',
            )
        self._inputs = [given.name for given in self._session.get_inputs()]
        custom = self._session.get_modelmeta().custom_metadata_map
        self.metadata = read_metadata(custom.get(METADATA_KEY), path)

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Compute the outputs."""
        return self._session.run(None, dict(zip(self._inputs, inputs)))


def execution_providers(device: str, available: Sequence[str]) -> list[Any]:
    """Return ONNX Runtime's names of a device and of its fallback."""
    gpu = re.fullmatch(r'cuda(?::(\d+))?', device)
    if gpu is None and device not in ('auto', 'cpu'):
        raise UserError(
            f'unknown device {device!r} for .onnx; legal: auto, cpu, cuda, or cuda:1 and so on',
            code='option.unknown',
        )
    if device == 'cpu' or CUDA not in available:
        return [CPU]
    number = int(gpu.group(1) or 0) if gpu else 0
    return [(CUDA, {'device_id': number, 'use_tf32': 0}), CPU]  # TF32 has 11 bits


class OpenVinoSession:
    """A file in OpenVINO.

    Args:
        path: of the ``.xml``; the ``.bin`` lies beside it.
        device: ``cpu``, which ``auto`` is too, or ``gpu``, one of Intel's.

    Raises:
        UserError: there is no such device.
    """

    def __init__(self, path: Path, device: str = 'cpu') -> None:
        openvino = import_optional('openvino', 'openvino')
        core = openvino.Core()
        core.set_property({'ENABLE_MMAP': False})  # Windows does not move a file that is mapped
        if device not in ('auto', 'cpu', 'gpu'):
            raise UserError(
                f'unknown device {device!r} for .xml; legal: auto, cpu, gpu (of '
                'Intel); for cuda, export --format onnx',
                code='option.unknown',
            )
        name = 'GPU' if device == 'gpu' else 'CPU'
        if not any(one.startswith(name) for one in core.available_devices):
            raise UserError(
                f'--device {device}: OpenVINO sees {", ".join(core.available_devices)} '
                'here; give cpu',
                code='device.missing',
            )
        model = core.read_model(path)
        held = model.get_rt_info(METADATA_KEY).value if model.has_rt_info(METADATA_KEY) else None
        self.metadata = read_metadata(held, path)
        # Some CPUs would compute in bfloat16 unasked, GPUs in float16.
        self._model = core.compile_model(model, name, {'INFERENCE_PRECISION_HINT': 'f32'})

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Compute the outputs."""
        found = self._model(list(inputs))
        return [np.asarray(found[number]) for number in range(len(self._model.outputs))]


SESSIONS: dict[str, Callable[[Path, str], Session]] = {
    '.onnx': OnnxSession,
    '.xml': OpenVinoSession,
}
"""Suffix of a file -> its runtime."""


def import_optional(package: str, extra: str) -> Any:
    """Import a package that an extra of ours brings.

    Raises:
        UserError: it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f'the package {error.name!r} is not installed: pip install "mmresnest[{extra}]"',
            code='package.missing',
        ) from error


def open_session(path: str | os.PathLike, device: str = 'cpu') -> Session:
    """Open a file in the runtime that its suffix names.

    Args:
        path: the file.
        device: see the runtimes above.

    Raises:
        UserError: it does not exist, is of another kind, or cannot be read, or the device is not
            there.
    """
    file = Path(path).expanduser()
    if file.suffix not in SESSIONS:
        other = (
            '; .pt2 and .pt are loaded by torch.export.load and torch.jit.load'
            if file.suffix in ('.pt', '.pt2')
            else ''
        )
        raise UserError(
            f'--model {file}: the runners read {" and ".join(SESSIONS)}{other}',
            code='option.suffix',
        )
    if not file.is_file():
        raise UserError(f'--model {file} does not exist; correct its path', code='exported.missing')
    try:
        return SESSIONS[file.suffix](file, device)
    except UserError:
        raise
    except Exception as error:  # each runtime has its own kinds
        raise UserError(
            f'{file} cannot be read: {str(error).strip().splitlines()[0]}; export it anew',
            code='exported.damaged',
        ) from error
