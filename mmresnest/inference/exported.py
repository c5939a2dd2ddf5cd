"""An exported model that is asked about images, without torch and without an mm library.

    model = ExportedModel('detector.onnx')
    found = model('street.jpg')
    found.boxes, found.named, found.draw('street.jpg')

Beside its runtime this takes numpy and OpenCV. The file holds the network with what lies before and
behind it, except for the scaling of the image and the scaling back. These are done here, by a rule
that stands in the file, as mmcv, mmdet and mmseg do them: formats round interpolated pixels to
8 bits otherwise than OpenCV, with which the network was trained.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import UserError
from .base import Asked
from .inputs import BadImage
from .results import Detections, Result, Segmentation

KEY = 'mmresnest'  # of the description in a file
VERSION = 1  # of the description
MOST_SIDE = 16384  # px
CPU, CUDA = 'CPUExecutionProvider', 'CUDAExecutionProvider'  # as ONNX Runtime calls them


class Session(Protocol):
    """A file in its runtime.

    Attributes:
        about: the description that the file holds.
    """

    about: dict[str, Any]

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Computes the outputs, in the order of the description."""


# ---- runtimes ------------------------------------------------------------------------------------


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
        onnxruntime = needed('onnxruntime', 'onnx')
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        asked = _providers(device, onnxruntime.get_available_providers())
        try:  # without a fallback, which would say so on stdout and take the first GPU
            self._session = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=asked, enable_fallback=0
            )
        except Exception:  # there are many kinds
            if asked == [CPU]:
                raise
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=[CPU])
        used = self._session.get_provider_options().get(CUDA, {})
        if device.startswith('cuda') and used.get('device_id') != (device[5:] or '0'):
            raise UserError(
                f'--device {device}: ONNX Runtime can use no such GPU here; give cpu, '
                'or mend it: pip uninstall onnxruntime, then pip install '
                'onnxruntime-gpu, which takes the CUDA and cuDNN that it names'
            )
        self._inputs = [one.name for one in self._session.get_inputs()]
        self.about = described(self._session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Computes."""
        return self._session.run(None, dict(zip(self._inputs, inputs)))


def _providers(device: str, available: Sequence[str]) -> list[Any]:
    """What ONNX Runtime calls a device, and what it falls back to."""
    gpu = re.fullmatch(r'cuda(?::(\d+))?', device)
    if gpu is None and device not in ('auto', 'cpu'):
        raise UserError(
            f'unknown device {device!r} for .onnx; legal: auto, cpu, cuda, or cuda:1 and so on'
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
        openvino = needed('openvino', 'openvino')
        core = openvino.Core()
        core.set_property({'ENABLE_MMAP': False})  # Windows does not move a file that is mapped
        if device not in ('auto', 'cpu', 'gpu'):
            raise UserError(
                f'unknown device {device!r} for .xml; legal: auto, cpu, gpu (of '
                'Intel); for cuda, export --to onnx'
            )
        name = 'GPU' if device == 'gpu' else 'CPU'
        if not any(one.startswith(name) for one in core.available_devices):
            raise UserError(
                f'--device {device}: OpenVINO sees {", ".join(core.available_devices)} '
                'here; give cpu'
            )
        model = core.read_model(path)
        held = model.get_rt_info(KEY).value if model.has_rt_info(KEY) else None
        self.about = described(held, path)
        # Some CPUs would compute in bfloat16 unasked, GPUs in float16.
        self._model = core.compile_model(model, name, {'INFERENCE_PRECISION_HINT': 'f32'})

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Computes."""
        found = self._model(list(inputs))
        return [np.asarray(found[number]) for number in range(len(self._model.outputs))]


SESSIONS: dict[str, Callable[[Path, str], Session]] = {
    '.onnx': OnnxSession,
    '.xml': OpenVinoSession,
}
"""Suffix -> the runtime that needs no torch."""


def needed(package: str, extra: str) -> Any:
    """A package that an extra of ours brings.

    Raises:
        UserError: it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f'the package {error.name!r} is not installed: pip install "mmresnest[{extra}]"'
        ) from error


def described(text: str | None, path: Path) -> dict[str, Any]:
    """The description of a file.

    Raises:
        UserError: it has none, or one of a newer version.
    """
    if not text:
        raise UserError(
            f'{path} was not written by `mmresnest export`: it does not say how images '
            'are prepared for it; export it anew'
        )
    try:
        about = json.loads(text)
        version = about['version']
    except (ValueError, KeyError, TypeError):
        about, version = {}, None
    if version != VERSION:
        raise UserError(
            f'{path} is described in version {version}, and this mmresnest reads '
            f'{VERSION}; update mmresnest, or export it anew'
        )
    wrong = [name for name, right in CLAIMS.items() if not right(about.get(name))]
    if wrong:
        raise UserError(f'the description in {path} is damaged: {", ".join(wrong)}; export it anew')
    return about


def _side(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MOST_SIDE


def _sides(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_side, value))


def _input(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    open_ended = all(value.get(name) is None for name in ('batch', 'height', 'width'))
    fixed = all(_side(value.get(name)) for name in ('batch', 'height', 'width'))
    return (open_ended or fixed) and _side(value.get('divisor')) and _side(value.get('least'))


#: what a file may say of itself: whoever wrote it may be a stranger
CLAIMS: dict[str, Callable[[Any], bool]] = {
    'part': lambda value: value in ('whole', 'neck', 'backbone'),
    'task': lambda value: value in ('detection', 'instance', 'panoptic', 'semantic'),
    'names': lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
    'outputs': lambda value: isinstance(value, list) and len(value) > 0,
    'input': _input,
    'resize': lambda value: (
        value is None
        or (
            isinstance(value, dict)
            and _sides(value.get('scale'))
            and type(value.get('keep_ratio')) is bool
        )
    ),
    'window': lambda value: (
        value is None
        or (isinstance(value, dict) and _sides(value.get('size')) and _sides(value.get('stride')))
    ),
    'mask_threshold': lambda value: isinstance(value, float) and 0 <= value <= 1,
    'align_corners': lambda value: type(value) is bool,
}


def opened(path: str | os.PathLike, device: str = 'cpu') -> Session:
    """A file in the runtime that its suffix names.

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
        raise UserError(f'--model {file}: the runners read {" and ".join(SESSIONS)}{other}')
    if not file.is_file():
        raise UserError(f'--model {file} does not exist; correct its path')
    try:
        return SESSIONS[file.suffix](file, device)
    except UserError:
        raise
    except Exception as error:  # each runtime has its own kinds
        raise UserError(
            f'{file} cannot be read: {str(error).strip().splitlines()[0]}; export it anew'
        ) from error


# ---- the model -----------------------------------------------------------------------------------


class ExportedModel(Asked):
    """A whole detector or segmentor in a file.

    Args:
        source: an ``.onnx`` or ``.xml`` that ``mmresnest export`` wrote; or one that is open.
        score_thr: objects that are less certain are left out.
        device: what opens a file computes on: ``cpu``; of an ``.onnx`` also ``cuda`` or ``cuda:1``,
            of an ``.xml`` also ``gpu``; or ``auto``, a CUDA device if there is one.

    Attributes:
        about: the description that the file holds.

    Raises:
        UserError: the file cannot be used, or holds a part of a model.
    """

    def __init__(
        self, source: str | os.PathLike | Session, score_thr: float = 0.3, device: str = 'auto'
    ) -> None:
        if not 0 <= score_thr <= 1:
            raise UserError(f'score_thr {score_thr}: scores are from 0 to 1')
        self.score_thr = score_thr
        self.session = opened(source, device) if isinstance(source, (str, os.PathLike)) else source
        self.about = self.session.about
        if self.about['part'] != 'whole':
            raise UserError(
                f'the file holds the {self.about["part"]} of a model, whose maps are '
                'not yet predictions; export --part whole'
            )
        self.task, self.names = self.about['task'], tuple(self.about['names'])
        self.things = len(self.names)

    def prepare(self, image: np.ndarray) -> tuple[tuple[int, ...], Any]:
        """The size of the file's input for an image, and the image scaled and what it was."""
        original = image.shape[:2]
        size = scaled_size(original, self.about)
        if min(size) < 1:
            raise BadImage(
                'the image',
                f'it is {original[1]} x {original[0]} pixels, which the '
                'test pipeline cannot bring to its size',
            )
        return size, (resized(image, size), original)

    def answer(self, samples: list[Any]) -> list[Result]:
        """The results of scaled images of one size."""
        images = np.stack([image for image, _ in samples]).transpose(0, 3, 1, 2)  # B 3 H W
        originals = [original for _, original in samples]
        if self.task == 'semantic':
            return [
                self._regions(logits, labels, original)
                for (logits, labels), original in zip(self._classified(images), originals)
            ]
        return [
            self._objects([output[number] for output in outputs], images.shape[2:4], original)
            for outputs, number, original in self._found(images, originals)
        ]

    def _found(self, images: np.ndarray, originals: list) -> Iterator[tuple[list, int, Any]]:
        """The outputs and the place in them of each image."""
        at = 0
        for outputs, count in self._run(images):
            for number in range(count):
                yield outputs, number, originals[at]
                at += 1

    def _run(self, images: np.ndarray) -> Iterator[tuple[list[np.ndarray], int]]:
        """The file's outputs for images of one size, and how many images they are of."""
        most = self.about['input']['batch'] or len(images)
        for start in range(0, len(images), most):
            part = images[start : start + most]
            yield self._computed(*self.inputs_of(part)), len(part)

    def inputs_of(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scaled images B 3 H W as the file takes them, padded and filled up; and their sizes."""
        form = self.about['input']
        height, width = padded_size(images.shape[2:], form)
        batch = np.zeros((form['batch'] or len(images), 3, height, width), np.uint8)
        batch[: len(images), :, : images.shape[2], : images.shape[3]] = images
        return batch, np.tile(np.array([images.shape[2:]], np.int64), (len(batch), 1))

    def _computed(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """The outputs of a batch, if they are those that the file says it has."""
        expected = {'semantic': 2, 'detection': 3, 'instance': 4}.get(self.task)
        try:
            found = self.session.run(*inputs)
        except Exception as error:  # each runtime has its own kinds
            raise UserError(
                'the exported file cannot be run on '
                f'{"x".join(map(str, inputs[0].shape))}: '
                f'{str(error).strip().splitlines()[0]}; export it anew'
            ) from error
        if len(found) != expected:
            raise UserError(
                f'the exported file has {len(found)} outputs, and one for {self.task} '
                f'has {expected}; export it anew'
            )
        return found

    # detectors

    def _objects(
        self, outputs: list[np.ndarray], size: tuple[int, ...], original: tuple[int, int]
    ) -> Detections:
        """An image's outputs in terms of the image as it was."""
        boxes, scores, labels = outputs[:3]
        there = (labels >= 0) & (scores >= self.score_thr)
        scale = np.array([size[1] / original[1], size[0] / original[0]] * 2, np.float32)
        boxes = boxes[there] / scale
        masks = None
        if len(outputs) > 3:
            masks = pasted(outputs[3][there], boxes, original, self.about['mask_threshold'])
        return Detections(
            boxes.astype(np.float32).reshape(-1, 4),
            scores[there],
            labels[there].astype(np.int64),
            self.names,
            masks,
            original,
        ).above(self.score_thr)

    # segmentors

    def _classified(self, images: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Logits C H W and labels H W of each image, in the size it was scaled to."""
        window = self.about['window']
        if window is not None and not self._fits(images.shape[2:], window):
            for image in images:
                logits = self._slid(image, window)
                yield logits, logits.argmax(0)
            return
        for (logits, labels), count in self._run(images):
            yield from (
                (
                    logits[number, :, : images.shape[2], : images.shape[3]],
                    labels[number, : images.shape[2], : images.shape[3]],
                )
                for number in range(count)
            )

    @staticmethod
    def _fits(size: tuple[int, ...], window: Mapping) -> bool:
        return size[0] <= window['size'][0] and size[1] <= window['size'][1]

    def _slid(self, image: np.ndarray, window: Mapping) -> np.ndarray:
        """The mean of the logits of windows that slide over an image, C H W."""
        sides = [min(of, most) for of, most in zip(image.shape[1:], window['size'])]
        places = [
            (y, x)
            for y in starts(image.shape[1], sides[0], window['stride'][0])
            for x in starts(image.shape[2], sides[1], window['stride'][1])
        ]
        total: Any = 0.0
        count = np.zeros(image.shape[1:], np.float32)
        for y, x in places:
            rows, columns = slice(y, y + sides[0]), slice(x, x + sides[1])
            (logits, _), _ = next(self._run(image[None, :, rows, columns]))
            if not count.any():
                total = np.zeros((logits.shape[1], *image.shape[1:]), np.float32)
            total[:, rows, columns] += logits[0, :, : sides[0], : sides[1]]
            count[rows, columns] += 1
        return total / count

    def _regions(
        self, logits: np.ndarray, labels: np.ndarray, original: tuple[int, int]
    ) -> Segmentation:
        """The classes of the pixels of the image as it was."""
        if labels.shape != original:
            labels = best_classes(logits, original, self.about['align_corners'])
        return Segmentation(labels.astype(np.int64), self.names, original)


# ---- before the network --------------------------------------------------------------------------


def scaled_size(original: tuple[int, int], about: Mapping) -> tuple[int, int]:
    """The height and width that an image is scaled to: mmcv's Resize, and into the file's input."""
    rule, form = about['resize'], about['input']
    height, width = original
    if rule is not None and not rule['keep_ratio']:
        width, height = rule['scale']
    elif rule is not None:
        long, short = max(rule['scale']), min(rule['scale'])
        scale = min(long / max(original), short / min(original))
        height, width = int(original[0] * scale + 0.5), int(original[1] * scale + 0.5)
    if (
        form['height'] is None
        or about['window'] is not None
        or (height <= form['height'] and width <= form['width'])
    ):
        return height, width
    scale = min(form['height'] / original[0], form['width'] / original[1])
    return (
        min(form['height'], int(original[0] * scale + 0.5)),
        min(form['width'], int(original[1] * scale + 0.5)),
    )


def padded_size(size: tuple[int, ...], form: Mapping) -> tuple[int, int]:
    """The height and width of the file's input for an image."""
    if form['height'] is not None:
        return form['height'], form['width']
    height, width = (-(-side // form['divisor']) * form['divisor'] for side in size)
    return max(height, form['least']), max(width, form['least'])


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image H W 3, scaled as mmcv does."""
    import cv2

    if image.shape[:2] == size:
        return image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def starts(length: int, side: int, stride: int) -> list[int]:
    """Where windows begin along an axis; the last ends with it."""
    number = max(length - side + stride - 1, 0) // stride + 1
    return [min(place * stride, length - side) for place in range(number)]


# ---- behind the network --------------------------------------------------------------------------


def pasted(
    masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], threshold: float
) -> np.ndarray:
    """Masks N M M of boxes N 4, in the image: N H W, by bilinear interpolation."""
    result = np.zeros((len(masks), *size), bool)
    for out, mask, box in zip(result, masks, boxes):
        first = np.clip(np.floor(box[:2]).astype(int) - 1, 0, None)
        last = np.clip(np.ceil(box[2:]).astype(int) + 1, 0, size[::-1])
        x, y = (
            _taps(first[axis], last[axis], box[axis], box[axis + 2], mask.shape[1 - axis])
            for axis in (0, 1)
        )
        out[first[1] : last[1], first[0] : last[0]] = y @ mask @ x.T >= threshold
    return result


def _taps(first: int, last: int, low: float, high: float, cells: int) -> np.ndarray:
    """The share of each cell in each pixel from ``first`` on, along one axis: pixels x cells."""
    pixel = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    with np.errstate(divide='ignore', invalid='ignore'):
        place = (pixel - low) / (high - low) * cells - np.float32(0.5)
    # A box without a side has its pixels in its middle, as mmdet has it.
    place = np.where(np.isinf(place), (cells - 1) / 2, place)
    return np.maximum(0, 1 - abs(place[:, None] - np.arange(cells, dtype=np.float32)))


def best_classes(logits: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """C H W -> the class of each pixel of an image of another size, one class at a time."""
    best = np.full(size, -np.inf, np.float32)
    labels = np.zeros(size, np.int64)
    y, x = (_places(of, to, align_corners) for of, to in zip(logits.shape[1:], size))
    for label, one in enumerate(logits):
        value = _interpolated(one, y, x)
        higher = value > best
        labels[higher], best[higher] = label, value[higher]
    return labels


def _places(cells: int, pixels: int, align_corners: bool) -> tuple[np.ndarray, ...]:
    """The two cells about each pixel, and the share of the upper one."""
    pixel = np.arange(pixels, dtype=np.float32)
    if align_corners:
        place = pixel * np.float32((cells - 1) / max(pixels - 1, 1))
    else:
        place = (pixel + np.float32(0.5)) * np.float32(cells / pixels) - np.float32(0.5)
    place = np.maximum(place, 0)
    lower = np.minimum(place.astype(np.int64), cells - 1)
    return lower, np.minimum(lower + 1, cells - 1), (place - lower).astype(np.float32)


def _interpolated(
    plane: np.ndarray, y: tuple[np.ndarray, ...], x: tuple[np.ndarray, ...]
) -> np.ndarray:
    """H W -> H' W', as torch interpolates."""
    along = plane[:, x[0]] * (1 - x[2]) + plane[:, x[1]] * x[2]
    return along[y[0]] * (1 - y[2])[:, None] + along[y[1]] * y[2][:, None]
