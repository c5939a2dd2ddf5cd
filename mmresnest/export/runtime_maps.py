"""Have ONNX Runtime or OpenVINO compute a model's maps, behind its heads in the same process.

    RunExported('openvino').replace(model)      # backbone and neck are an exported file

The file is exported once for the weights that it holds, takes images of any size, and is kept in
torch hub's folder. What comes behind the neck, heads, NMS and scaling back, stays what it is.
"""

from __future__ import annotations

import copy
import hashlib
import os
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import Tensor, nn

from ..deploy import fold
from ..engine.wrappers import unwrap_model
from ..errors import UserError, nearest
from ..inference.metadata import METADATA_VERSION
from ..inference.runtimes import Session, open_session
from ..models import fast
from ..registry import HOOKS
from ..utils.packages import import_optional
from ..version import __version__
from .formats import FORMATS, OPSET, Shapes, check_installed
from .graphs import FeatureGraph, refuse_deformable
from .plan import MIN_SIDE

RUNTIMES = {'onnxruntime': 'onnx', 'openvino': 'openvino'}
"""Name of a runtime -> the format of its files."""
TRIED_SIDES = (3, 2)
"""Height and width of the image that a new file is compared on, in steps of the padding."""
MAX_DIFFERENCE = 1e-3
"""How far maps of a new file may be from the model's, relative to the largest value."""


class ExportedMaps(nn.Module):
    """The maps of backbone and neck, by an exported file.

    Args:
        session: the file in its runtime.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return maps B C_i H_i W_i of normalized images B 3 H W."""
        arrays = self.session.run(np.ascontiguousarray(x.float().numpy()))
        return tuple(
            torch.from_numpy(one).contiguous(memory_format=torch.channels_last) for one in arrays
        )


@HOOKS.register_module()
class RunExported(Hook):
    """Have a runtime compute the maps of the model that is tested.

    Args:
        runtime: of :data:`RUNTIMES`.

    Raises:
        UserError: there is no such runtime, or it is not installed.
    """

    def __init__(self, runtime: str) -> None:
        if runtime not in RUNTIMES:
            raise UserError(
                f'--runtime {runtime}: there is no such runtime; {nearest(runtime, RUNTIMES)}',
                code='option.unknown',
            )
        import_optional(runtime, RUNTIMES[runtime])
        check_installed(RUNTIMES[runtime])
        self.runtime = runtime

    def before_test(self, runner: Any) -> None:
        """Replace the parts; the weights are loaded by now."""
        self.replace(unwrap_model(runner.model))

    def replace(self, model: Any) -> None:
        """Replace backbone and neck of a detector or segmentor, its weights loaded.

        Raises:
            UserError: the model has no backbone that is called for images, is on a GPU, or cannot
                be exported.
        """
        model = getattr(model, 'module', model)  # of augmented testing
        if not hasattr(model, 'backbone') or not hasattr(model, 'extract_feat'):
            raise UserError(
                f'--runtime replaces the backbone of a detector or segmentor, and a '
                f'{type(model).__name__} has none of its own; leave --runtime out',
                code='option.conflict',
            )
        if any(weight.device.type != 'cpu' for weight in model.parameters()):
            raise UserError(
                '--runtime computes on the CPU, and the model is on a GPU; leave it out, or give '
                '--device cpu',
                code='option.conflict',
            )
        part = 'neck' if getattr(model, 'with_neck', False) else 'backbone'
        path = self._file_of(model, part)
        if not path.is_file():
            print_log(f'exporting the {part} for {self.runtime}, once for these weights', 'current')
            self._write(model, part, path)
        print_log(f'backbone and neck are run by {self.runtime}: {path}', 'current')
        model.backbone = ExportedMaps(open_session(path)).eval()
        if part == 'neck':
            model.neck = nn.Identity().eval()

    def _file_of(self, model: Any, part: str) -> Path:
        """Return where the file of these weights is kept."""
        modules = [model.backbone, *([model.neck] if part == 'neck' else [])]
        versions = [import_module(self.runtime).__version__, torch.__version__, __version__, OPSET]
        key = hashlib.sha256(repr([*modules, versions, _divisor_of(model, part)]).encode())
        for module in modules:
            for name, value in module.state_dict().items():
                key.update(name.encode())
                key.update(value.cpu().contiguous().numpy().tobytes())
        suffix = FORMATS[RUNTIMES[self.runtime]].suffix
        return Path(torch.hub.get_dir(), 'exported', f'{key.hexdigest()[:32]}{suffix}')

    def _write(self, model: Any, part: str, path: Path) -> None:
        """Export backbone and neck, and compare the file with them.

        Raises:
            UserError: they cannot be exported, or the file gives other maps.
        """
        refuse_deformable(model)
        parts: Any = nn.Module()
        parts.backbone = copy.deepcopy(model.backbone)
        parts.with_neck = part == 'neck'
        if parts.with_neck:
            parts.neck = copy.deepcopy(model.neck)
        fold(fast.disable(parts).eval())
        graph = FeatureGraph(parts, part, torch.float32).eval().requires_grad_(False)
        divisor = _divisor_of(model, part)
        sides = [max(step * divisor, 2 * MIN_SIDE) for step in TRIED_SIDES]
        x = torch.randn(2, 3, *(-(-side // divisor) * divisor for side in sides))
        with torch.no_grad():
            expected = graph(x)
        form = FORMATS[RUNTIMES[self.runtime]]
        shapes = Shapes(None, None, None, divisor, MIN_SIDE)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                file = Path(folder, path.name)
                form.write(graph, [x], file, shapes, _describe(part, len(expected), shapes))
                found = open_session(file).run(x.numpy())
                is_same = all(map(_is_close, found, expected))
                for new, place in reversed(
                    list(zip(form.list_files(file), form.list_files(path) if is_same else ()))
                ):
                    os.replace(new, place)  # the file that is opened comes last
        except OSError as error:
            raise UserError(
                f'{path} cannot be written: {error.strerror or error}; make room, or set '
                'TORCH_HOME to another folder',
                code='file.unwritable',
            ) from error
        if not is_same:
            raise UserError(
                f'--runtime {self.runtime} gives other maps than the model; leave --runtime out, '
                'or take the other runtime',
                code='export.differs',
            )


def _is_close(found: np.ndarray, expected: Tensor) -> bool:
    """Return whether a map is equal but for rounding."""
    wanted = expected.numpy()
    most = max(float(np.abs(wanted).max()), 1e-12)
    return found.shape == wanted.shape and float(np.abs(found - wanted).max()) <= (
        MAX_DIFFERENCE * most
    )


def _divisor_of(model: Any, part: str) -> int:
    """Return what padded sides of a detector's images are multiples of."""
    preprocessor = getattr(model, 'data_preprocessor', None)
    if part == 'backbone' or hasattr(model, 'decode_head'):
        return 1
    return int(getattr(preprocessor, 'pad_size_divisor', 1) or 1)


def _describe(part: str, outputs: int, shapes: Shapes) -> dict[str, Any]:
    """Return the description that readers of exported files ask for."""
    return dict(
        version=METADATA_VERSION,
        mmresnest=__version__,
        torch=torch.__version__,
        part=part,
        task='detection',
        names=[],
        precision='float32',
        outputs=[f'map{number}' for number in range(outputs)],
        input=dict(batch=None, height=None, width=None, divisor=shapes.divisor, least=shapes.least),
        resize=None,
        window=None,
        mask_threshold=0.5,
        align_corners=False,
    )
