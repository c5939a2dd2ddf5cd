"""Convolutions in 8-bit integers, by the quantiser of the runtime that will compute them.

Scales are found from what flows through the network on pictures of a user's. What lies behind the
network's last layers, where boxes are told apart, stays in floating point.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..inference import exported

LAYERS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
"""Operators of ONNX that are computed in integers."""


def quantise_onnx(path: Path, out: Path, batches: list[tuple[np.ndarray, ...]]) -> None:
    """Writes an ONNX file with integer layers, by ONNX Runtime's static quantisation.

    Args:
        path: the file in floating point.
        out: the file to write.
        batches: inputs to find scales from.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    names = [one.name for one in onnx.load(path).graph.input]

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds: Iterator[dict[str, np.ndarray]] = (
                dict(zip(names, batch)) for batch in batches
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    ready = out.with_name('ready.onnx')
    quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
    # Weights have a scale for each channel; activations are unsigned, of which CPUs without VNNI
    # would lose a bit if weights took all of theirs.
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
    _say_int8(path, out)
    ready.unlink()


def _say_int8(path: Path, out: Path) -> None:
    """Takes over the description, which quantisation leaves out."""
    import onnx

    about = json.loads({one.key: one.value for one in onnx.load(path).metadata_props}[exported.KEY])
    model = onnx.load(out)
    del model.metadata_props[:]
    held = model.metadata_props.add()
    held.key, held.value = exported.KEY, json.dumps({**about, 'precision': 'int8'})
    onnx.save(model, out)


def quantise_openvino(path: Path, out: Path, batches: list[tuple[np.ndarray, ...]]) -> None:
    """Writes OpenVINO's files with integer layers, by its quantiser NNCF; see above."""
    openvino = exported.needed('openvino', 'openvino')
    nncf = exported.needed('nncf', 'openvino-int8')
    core = openvino.Core()
    core.set_property({'ENABLE_MMAP': False})  # Windows does not move a file that is mapped
    model = core.read_model(path)
    about = json.loads(model.get_rt_info(exported.KEY).value)
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
    integer.set_rt_info(json.dumps({**about, 'precision': 'int8'}), exported.KEY)
    openvino.save_model(integer, out, compress_to_fp16=False)


QUANTISERS = {'onnx': quantise_onnx, 'openvino': quantise_openvino}
