"""Open exported files in their runtimes, ONNX Runtime and OpenVINO, without torch."""

from __future__ import annotations

import mmap
import os
import re
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import UserError
from ..utils.packages import import_optional
from .metadata import METADATA_KEY, read_metadata

CPU, CUDA = 'CPUExecutionProvider', 'CUDAExecutionProvider'
"""What ONNX Runtime calls the devices."""
MAX_SECONDS = 600
"""How long a batch may take: a file of a stranger may hold a loop without end."""
TOO_SLOW = f'it did not end within {MAX_SECONDS} s'
MAX_ONNX = 2**31
"""Bytes of an ONNX file: more than a message of protobuf can have."""
EXTERNAL = re.compile(rb'\x0a(?:\x08|\x88\x80*\x00)location')
"""How ONNX names a file that weights lie in, in bytes of protobuf."""


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
        _check_onnx_bytes(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised, and not printed as well
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
        self._make_settings = onnxruntime.RunOptions
        self._inputs = [given.name for given in self._session.get_inputs()]
        custom = self._session.get_modelmeta().custom_metadata_map
        self.metadata = read_metadata(custom.get(METADATA_KEY), path)

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Compute the outputs."""
        settings = self._make_settings()
        timer = threading.Timer(MAX_SECONDS, setattr, (settings, 'terminate', True))
        timer.daemon = True
        timer.start()
        try:
            return self._session.run(None, dict(zip(self._inputs, inputs)), settings)
        except Exception as error:  # it raises many kinds
            if settings.terminate:
                raise TimeoutError(TOO_SLOW) from error
            raise
        finally:
            timer.cancel()


def _check_onnx_bytes(path: Path) -> None:
    """Refuse an ONNX file that would have other files read, which ours never do.

    Raises:
        ValueError: with the reason.
    """
    if not 0 < path.stat().st_size < MAX_ONNX:
        raise ValueError(f'it has {path.stat().st_size} bytes')
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if EXTERNAL.search(content):
            raise ValueError('its weights lie in other files, which `mmresnest export` never does')


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


_core_lock = threading.Lock()


def load_core() -> Any:
    """Return the core of OpenVINO, one for this process and until its end.

    The first model for the CPU has the thread that compiles it run signal handlers on a stack of
    OpenVINO's, which goes with the last core. A core that is collected in another thread takes it
    away under that thread, and the next signal, be it that of a child that ends, kills the process
    without a word (OpenVINO 2026.4).
    """
    with _core_lock:
        return _make_core()


@cache
def _make_core() -> Any:
    core = import_optional('openvino', 'openvino').Core()
    core.set_property({'ENABLE_MMAP': False})  # Windows does not move a file that is mapped
    return core


class OpenVinoSession:
    """A file in OpenVINO.

    Args:
        path: of the ``.xml``; the ``.bin`` lies beside it.
        device: ``cpu``, which ``auto`` is too, or ``gpu``, one of Intel's.

    Raises:
        UserError: there is no such device.
    """

    def __init__(self, path: Path, device: str = 'cpu') -> None:
        core = load_core()
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
        with open(path, 'rb') as file:
            if b'<net' not in file.read(4096):  # OpenVINO would try its readers of other formats
                raise ValueError('it is not a model of OpenVINO')
        model = core.read_model(path)
        held = model.get_rt_info(METADATA_KEY).value if model.has_rt_info(METADATA_KEY) else None
        self.metadata = read_metadata(held, path)
        # Some CPUs would compute in bfloat16 unasked, GPUs in float16.
        compiled = core.compile_model(model, name, {'INFERENCE_PRECISION_HINT': 'f32'})
        self._request = compiled.create_infer_request()

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Compute the outputs."""
        self._request.start_async(list(inputs))
        if not self._request.wait_for(1000 * MAX_SECONDS):
            self._request.cancel()
            raise TimeoutError(TOO_SLOW)
        self._request.wait()  # raises what went wrong
        return [np.array(tensor.data) for tensor in self._request.output_tensors]


SESSIONS: dict[str, Callable[[Path, str], Session]] = {
    '.onnx': OnnxSession,
    '.xml': OpenVinoSession,
}
"""Suffix of a file -> its runtime."""


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
            f'{file} cannot be read: {first_line(error)}; export it anew', code='exported.damaged'
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first telling line of an error, or its type where it has none, printable."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # OpenVINO begins with lines that say where in its source an error was raised.
    line = next((line for line in lines if not line.startswith('Exception from ')), lines[0])
    return ''.join(char if char.isprintable() else '?' for char in line[:300])
