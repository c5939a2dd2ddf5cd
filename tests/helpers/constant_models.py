"""Exported models that give constants, and what they give."""

import json

import numpy as np

from mmresnest.inference.metadata import METADATA_KEY

SIZE = 40, 64
DETECTOR = dict(
    version=1,
    part='model',
    task='detection',
    names=['a', 'b'],
    outputs=['boxes', 'scores', 'labels'],
    input=dict(batch=None, height=None, width=None, divisor=1, least=1),
    resize=None,
    window=None,
    mask_threshold=0.5,
    align_corners=False,
)
SEGMENTOR = dict(DETECTOR, task='semantic', outputs=['logits', 'labels'])
BOXES = np.array([[[1, 2, 30, 20], [5, 5, 9, 9]]], np.float32)
SCORES = np.array([[0.9, 0.8]], np.float32)
LABELS = np.array([[0, 1]], np.int64)
MASKS = np.full((1, 2, 4, 4), 0.9, np.float32)
LOGITS = np.random.default_rng(0).random((1, 2, *SIZE), np.float32)
CLASSES = LOGITS.argmax(1)


def write_model(path, outputs, metadata=DETECTOR, nodes=None, **more):
    """Write a file that gives constants, whatever the image is."""
    from onnx import TensorProto, helper, numpy_helper

    image = helper.make_tensor_value_info('image', TensorProto.UINT8, ['b', 3, 'h', 'w'])
    size = helper.make_tensor_value_info('size', TensorProto.INT64, ['b', 2])
    given = {f'out{number}': np.asarray(value) for number, value in enumerate(outputs)}
    graph = helper.make_graph(
        nodes
        or [
            helper.make_node('Constant', [], [name], value=numpy_helper.from_array(value))
            for name, value in given.items()
        ],
        'g',
        [image, size],
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None)
            for name, value in given.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    if metadata is not None:
        prop = model.metadata_props.add()
        prop.key = METADATA_KEY
        prop.value = metadata if isinstance(metadata, str) else json.dumps(metadata)
    content = model.SerializeToString()
    path.write_bytes(content[: more.get('bytes', len(content))])
    return path
