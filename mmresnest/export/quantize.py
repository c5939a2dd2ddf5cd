"""Quantize convolutions to 8-bit integers, by the quantizer of the runtime that will run them.

Scales are calibrated on a user's images. What follows the last layers, the postprocessing of boxes,
stays in floating point.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..inference.exported import ExportedModel
from ..inference.images import BadImage, read_image
from ..inference.inputs import find_sources
from ..inference.metadata import METADATA_KEY
from ..inference.predictor import Predictor
from ..inference.runtimes import load_core
from ..inference.scoring import find_main_score, score_predictor
from ..utils.packages import import_optional

MAX_CALIBRATION_IMAGES = 100

LAYERS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
"""Operators of ONNX that are computed in integers."""


def quantize_onnx(path: Path, out: Path, batches: list[tuple[np.ndarray, ...]]) -> None:
    """Write an ONNX file with integer layers, by ONNX Runtime's static quantization.

    Args:
        path: the file in floating point.
        out: the file to write.
        batches: inputs to calibrate on.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    names = [given.name for given in onnx.load(path).graph.input]

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds: Iterator[dict[str, np.ndarray]] = (
                dict(zip(names, batch)) for batch in batches
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    ready = out.with_name('ready.onnx')
    quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
    # Weights have a scale per channel. Without VNNI, products of 8-bit weights and unsigned
    # activations saturate 16 bits, so weights use 7 of theirs (reduce_range).
    quantize_static(
        str(ready),
        str(out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=list(LAYERS),
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
        reduce_range=True,
    )
    _copy_metadata(path, out)
    ready.unlink()


def _copy_metadata(path: Path, out: Path) -> None:
    """Copy the description, which quantization drops."""
    import onnx

    metadata = json.loads(
        {prop.key: prop.value for prop in onnx.load(path).metadata_props}[METADATA_KEY]
    )
    model = onnx.load(out)
    del model.metadata_props[:]
    prop = model.metadata_props.add()
    prop.key, prop.value = METADATA_KEY, json.dumps({**metadata, 'precision': 'int8'})
    onnx.save(model, out)


def quantize_openvino(path: Path, out: Path, batches: list[tuple[np.ndarray, ...]]) -> None:
    """Write OpenVINO's files with integer layers, by its quantizer NNCF; see above."""
    openvino = import_optional('openvino', 'openvino')
    nncf = import_optional('nncf', 'openvino-int8')
    model = load_core().read_model(path)
    metadata = json.loads(model.get_rt_info(METADATA_KEY).value)
    scope: Any = nncf.IgnoredScope(
        types=[
            'ROIAlign',
            'NonMaxSuppression',
            'TopK',
            'Gather',
            'GatherElements',
            'ScatterNDUpdate',
            'Exp',
        ],
        validate=False,
    )
    integer = nncf.quantize(
        model,
        nncf.Dataset([list(batch) for batch in batches]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(batches),
        ignored_scope=scope,
    )
    integer.set_rt_info(json.dumps({**metadata, 'precision': 'int8'}), METADATA_KEY)
    openvino.save_model(integer, out, compress_to_fp16=False)


QUANTIZERS = {'onnx': quantize_onnx, 'openvino': quantize_openvino}
"""Format -> its quantizer."""


def read_calibration_images(
    folder: str | os.PathLike, say: Callable[[str], None]
) -> list[np.ndarray]:
    """Read the first images of a folder; report files that cannot be read, and skip them.

    Raises:
        UserError: no file can be read.
    """
    found: list[np.ndarray] = []
    for source in find_sources([folder]):
        if source.video or len(found) == MAX_CALIBRATION_IMAGES:
            continue
        try:
            found.append(read_image(source.path))
        except BadImage as error:
            say(f'skipped: {error}')
    if not found:
        raise UserError(
            f'--int8 {folder}: no file of it can be read as an image; name a folder of '
            'images of the task',
            code='image.unreadable',
        )
    return found


def quantize_and_score(
    predictor: Predictor,
    to: str,
    file: Path,
    calibration: list[np.ndarray],
    max_drop: float,
    say: Callable[[str], None],
) -> tuple[Path, dict[str, dict[str, float]]]:
    """Write a file with 8-bit layers beside the given one, and score both.

    Args:
        predictor: whose config says what is scored on.
        to: the format.
        file: in float32.
        calibration: images.
        max_drop: how far the score may drop, as a fraction of 1.
        say: is called with each thing that is done.

    Returns:
        the new file, and the scores by precision.

    Raises:
        UserError: the score drops too far, or there is nothing to score on.
    """
    say(f'calibrating on {len(calibration)} images')
    out = file.with_name(f'int8{file.suffix}')
    QUANTIZERS[to](file, out, _calibration_batches(file, calibration))
    scores = {}
    for name, one in (('float32', file), ('int8', out)):
        say(f'scoring {name}')
        scores[name] = score_predictor(ExportedModel(one, 0.0, 'cpu'), predictor.config)
    name, before = find_main_score(scores['float32'])
    _, after = find_main_score(scores['int8'])
    if not before > 0:
        raise UserError(
            f'{name} of the model in float32 is 0 on these data, so that no drop can be measured; '
            'give the --data that it was trained on',
            code='export.no-score',
        )
    if not before - after <= max_drop:
        raise UserError(
            f'int8: {name} drops by {before - after:.3f}, limit {max_drop:.3f}; give more images '
            'of the task to --int8, raise --max-drop, or export --half',
            code='export.score-drop',
        )
    return out, scores


def _calibration_batches(file: Path, calibration: list[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
    """Return the inputs of a file for some images; of a sliding window, its first position."""
    model = ExportedModel(file, 0.0, 'cpu')
    window = model.metadata['window']
    batches: list[tuple[np.ndarray, ...]] = []
    for picture in calibration:
        _, (image, _) = model.prepare(picture)
        if window is not None:
            image = image[: window['size'][0], : window['size'][1]]
        batches.append(model.pad_batch(image.transpose(2, 0, 1)[None]))
    return batches
