"""Exported files of strangers: one message and status 2, whatever they hold, and no hang."""

import json

import numpy as np
import pytest
from helpers.errors import refuses, run_refused

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
from helpers.constant_models import (  # noqa: E402
    BOXES,
    CLASSES,
    DETECTOR,
    LABELS,
    LOGITS,
    MASKS,
    SCORES,
    SEGMENTOR,
    SIZE,
    write_model,
)
from onnx import TensorProto, helper  # noqa: E402

from mmresnest.cli.main import main  # noqa: E402
from mmresnest.inference import output_checks, runtimes  # noqa: E402
from mmresnest.inference.exported import ExportedModel  # noqa: E402
from mmresnest.inference.metadata import METADATA_CHECKS, read_metadata  # noqa: E402


@pytest.fixture
def image(tmp_path):
    import cv2

    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))
    return path


def predict(path, image, out, *more):
    return main(['predict', '--model', str(path), str(image), '--out', str(out), *more])


def test_files_that_tell_the_truth(tmp_path, image):
    """That what is refused below is refused for what is wrong with it."""
    for number, (outputs, metadata) in enumerate(
        [
            ([BOXES, SCORES, LABELS], DETECTOR),
            ([BOXES, SCORES, LABELS, MASKS], dict(DETECTOR, task='instance')),
            ([LOGITS, CLASSES], SEGMENTOR),
            ([BOXES, SCORES, LABELS + 7], dict(DETECTOR, names=[])),
        ]
    ):
        path = write_model(tmp_path / 'a.onnx', outputs, metadata)
        assert predict(path, image, tmp_path / f'out{number}') == 0
        assert (tmp_path / f'out{number}' / 'predictions.json').exists()


LIES = {
    'no outputs': ([], DETECTOR),
    'one output less': ([BOXES, SCORES], DETECTOR),
    'an output more': ([BOXES, SCORES, LABELS, MASKS], DETECTOR),
    'no masks': ([BOXES, SCORES, LABELS], dict(DETECTOR, task='instance')),
    'boxes of 5 numbers': ([np.zeros((1, 2, 5), np.float32), SCORES, LABELS], DETECTOR),
    'boxes without a batch': ([BOXES[0], SCORES, LABELS], DETECTOR),
    'fewer scores': ([BOXES, SCORES[:, :1], LABELS], DETECTOR),
    'scalars': ([np.float32(1), np.float32(1), np.int64(1)], DETECTOR),
    'two images': ([np.repeat(one, 2, 0) for one in (BOXES, SCORES, LABELS)], DETECTOR),
    'fractions as labels': ([BOXES, SCORES, LABELS.astype(np.float32)], DETECTOR),
    'whole boxes': ([BOXES.astype(np.int64), SCORES, LABELS], DETECTOR),
    'a class too many': ([BOXES, SCORES, LABELS + 1], DETECTOR),
    'a class out of reach': ([BOXES, SCORES, LABELS + 2**40], dict(DETECTOR, names=[])),
    'nan': ([BOXES * np.float32(np.nan), SCORES, LABELS], DETECTOR),
    'infinite': ([BOXES, SCORES * np.float32(np.inf), LABELS], DETECTOR),
    'text': ([np.array([['x']], object), SCORES, LABELS], DETECTOR),
    'oblong masks': ([BOXES, SCORES, LABELS, MASKS[:, :, :3]], dict(DETECTOR, task='instance')),
    'empty masks': ([BOXES, SCORES, LABELS, MASKS[:, :, :0, :0]], dict(DETECTOR, task='instance')),
    'masks of another number': (
        [BOXES, SCORES, LABELS, MASKS[:, :1]],
        dict(DETECTOR, task='instance'),
    ),
    'a smaller map': ([LOGITS[:, :, :10], CLASSES[:, :10]], SEGMENTOR),
    'no channels': ([LOGITS[:, :0], CLASSES], SEGMENTOR),
    'other classes': ([np.concatenate([LOGITS, LOGITS], 1), CLASSES], SEGMENTOR),
    'pixels of no class': ([LOGITS, CLASSES - 1], SEGMENTOR),
    'pixels of a class too many': ([LOGITS, CLASSES + 5], SEGMENTOR),
    'a detector for a segmentor': ([BOXES, SCORES, LABELS], SEGMENTOR),
    'a neck': ([LOGITS], dict(DETECTOR, part='neck')),
    'a panoptic model': ([BOXES, SCORES, LABELS], dict(DETECTOR, task='panoptic')),
    'none of ours': ([BOXES, SCORES, LABELS], None),
    'empty': ([BOXES, SCORES, LABELS], ''),
    'no json': ([BOXES, SCORES, LABELS], '{'),
    'deep json': ([BOXES, SCORES, LABELS], '[' * 100_000),
    'long json': ([BOXES, SCORES, LABELS], '{"a": "' + 'a' * 5_000_000 + '"}'),
    'a list': ([BOXES, SCORES, LABELS], '[1]'),
    'a later version': ([BOXES, SCORES, LABELS], dict(DETECTOR, version=2)),
    'a version of another type': ([BOXES, SCORES, LABELS], dict(DETECTOR, version=[1])),
}
WRONG = {
    'task': ['cooking', 5, ['detection'], {}],
    'part': [None, 'tail', {}],
    'names': [None, 'ab', [1], ['a' * 10**4], dict(a=1)],
    'outputs': [[], None, [1]],
    'input': [
        None,
        dict(batch=-1, height=64, width=64, divisor=1, least=1),
        dict(batch=10**4, height=16384, width=16384, divisor=1, least=1),
        dict(batch=None, height=None, width=None, divisor=0, least=1),
        dict(batch=None, height=None, width=None, divisor=1, least=10**6),
        dict(batch=None, height=None, width=None, divisor=1.5, least=1),
        dict(batch=1, height=None, width=64, divisor=1, least=1),
        dict(height=None, width=None, divisor=1, least=1),
        dict(batch=True, height=64, width=64, divisor=1, least=1),
    ],
    'resize': [
        dict(scale=[-5, 5], keep_ratio=True),
        dict(scale=[10**9, 10**9], keep_ratio=True),
        dict(scale=[64, 64], keep_ratio='yes'),
        dict(scale='64', keep_ratio=True),
        [],
    ],
    'window': [
        dict(size=[40, 40], stride=[1, 1]),
        dict(size=[40, 40], stride=[80, 40]),
        dict(size=[40], stride=[40]),
        dict(size=[0, 0], stride=[0, 0]),
    ],
    'mask_threshold': [None, '0.5', 2.0, float('nan')],
    'align_corners': [None, 1, 'no'],
}


@pytest.mark.parametrize('name', LIES)
def test_a_file_that_lies(name, tmp_path, image, capsys):
    outputs, metadata = LIES[name]
    try:
        path = write_model(tmp_path / 'a.onnx', outputs, metadata)
    except (TypeError, ValueError, KeyError):
        pytest.skip('onnx writes no such file')
    refused(path, image, tmp_path, capsys)


def refused(path, image, folder, capsys):
    line = ['predict', '--model', str(path), str(image), '--out', str(folder / 'out')]
    error = run_refused(line)
    assert error.code.startswith('exported.'), error.code
    out, err = capsys.readouterr()
    messages = [line for line in err.splitlines() if line.startswith('mmresnest: error: ')]
    assert len(messages) == 1 and 'Traceback' not in out + err, err
    assert str(path) in messages[0] or 'exported file' in messages[0] or 'the file' in messages[0]
    assert not (folder / 'out').exists(), 'nothing is left behind'


@pytest.mark.parametrize(
    'key, value', [(key, value) for key, values in WRONG.items() for value in values]
)
def test_a_description_that_lies(key, value, tmp_path):
    assert set(WRONG) == set(METADATA_CHECKS)
    right = json.dumps(dict(SEGMENTOR, window=dict(size=[40, 40], stride=[20, 20])))
    assert read_metadata(right, tmp_path)['task'] == 'semantic'
    without = {name: one for name, one in DETECTOR.items() if name != key}
    for description in (dict(DETECTOR, **{key: value}), without):
        with refuses('exported.damaged', tmp_path, f' {key};'):
            read_metadata(json.dumps(description), tmp_path)


@pytest.mark.parametrize('share', [0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file(share, tmp_path, image, capsys):
    path = write_model(tmp_path / 'a.onnx', [BOXES, SCORES, LABELS])
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, image, tmp_path, capsys)


def test_random_bytes(tmp_path, image, capsys):
    random = np.random.default_rng(0)
    content = write_model(tmp_path / 'a.onnx', [BOXES, SCORES, LABELS]).read_bytes()
    for number in range(30):
        spoilt = np.frombuffer(content, np.uint8).copy()
        at = random.integers(0, len(spoilt), 8)
        spoilt[at] = random.integers(0, 256, 8)
        (tmp_path / 'a.onnx').write_bytes(spoilt.tobytes())
        status = predict(tmp_path / 'a.onnx', image, tmp_path / f'out{number}')
        said = capsys.readouterr().err
        assert status in (0, 2) and 'Traceback' not in said, said


@pytest.mark.parametrize('place', ['/etc/passwd', '../../etc/passwd', 'weights.bin', '/dev/zero'])
def test_weights_in_other_files(place, tmp_path, image, capsys):
    path = write_model(tmp_path / 'a.onnx', [BOXES, SCORES, LABELS])
    (tmp_path / 'weights.bin').write_bytes(b'0' * 64)
    model = onnx.load(path)
    tensor = model.graph.initializer.add(name='w', data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key='location', value=place)
    path.write_bytes(model.SerializeToString())
    assert predict(path, image, tmp_path / 'out') == 2
    assert 'its weights lie in other files' in capsys.readouterr().err


def endless_loop():
    """A loop whose condition stays true, around nothing."""
    bool_, int_ = TensorProto.BOOL, TensorProto.INT64
    body = helper.make_graph(
        [
            helper.make_node('Identity', ['on'], ['on_out']),
            helper.make_node('Add', ['v', 'v'], ['w']),
        ],
        'body',
        [
            helper.make_tensor_value_info('i', int_, []),
            helper.make_tensor_value_info('on', bool_, []),
            helper.make_tensor_value_info('v', int_, []),
        ],
        [
            helper.make_tensor_value_info('on_out', bool_, []),
            helper.make_tensor_value_info('w', int_, []),
        ],
    )
    shape = helper.make_node('Shape', ['image'], ['s'])
    start = helper.make_node('ReduceMax', ['s'], ['v0'], keepdims=0)
    on = helper.make_node(
        'Constant', [], ['true'], value=helper.make_tensor('t', bool_, [], [True])
    )
    return [shape, start, on, helper.make_node('Loop', ['', 'true', 'v0'], ['out0'], body=body)]


def test_a_loop_without_end(tmp_path, image, capsys, monkeypatch):
    monkeypatch.setattr(runtimes, 'MAX_SECONDS', 1)
    path = write_model(tmp_path / 'a.onnx', [np.int64(0)], nodes=endless_loop())
    refused(path, image, tmp_path, capsys)


def test_masks_and_windows_that_no_memory_holds(tmp_path, monkeypatch):
    """The image is named and skipped, the others are predicted on."""
    monkeypatch.setattr(output_checks, 'MAX_BYTES', 2 * SIZE[0] * SIZE[1])
    path = write_model(
        tmp_path / 'a.onnx', [BOXES, SCORES, LABELS, MASKS], dict(DETECTOR, task='instance')
    )
    model, bad = ExportedModel(path), []
    images = [np.zeros((*size, 3), np.uint8) for size in (SIZE, (SIZE[0] + 1, SIZE[1]), SIZE)]
    found = list(model.stream(enumerate(images), 1, lambda *one: bad.append(one)))
    assert [key for key, _ in found] == [0, 2] and bad[0][0] == 1 and 'GiB' in bad[0][1]
    assert all(len(result.masks) == 2 for _, result in found)
    windowed = dict(SEGMENTOR, window=dict(size=[8, 8], stride=[1, 1]))
    model = ExportedModel(write_model(tmp_path / 'b.onnx', [LOGITS, CLASSES], windowed))
    monkeypatch.setattr('mmresnest.inference.exported.MAX_WINDOWS', 9)
    with refuses('image.too-large', '64 x 40', '1881 windows'):
        model(images[0])


OPENVINO = {
    'garbage': 'garbage',
    'empty': '',
    'no layers': '<net name="x" version="11"><layers></layers><edges></edges></net>',
    'a version to come': '<net version="99"/>',
    'deep': '<a>' * 100_000,
    'entities': '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + ''.join(f'<!ENTITY {chr(98 + at)} "{("&" + chr(97 + at) + ";") * 10}">' for at in range(9))
    + ']><net>&j;</net>',
    'negative sides': '<net name="x" version="11"><layers><layer id="0" name="p" type="Parameter" '
    'version="opset1"><data shape="-5,99999999999999" element_type="f32"/><output>'
    '<port id="0"><dim>-5</dim></port></output></layer></layers><edges><edge from-layer="0" '
    'from-port="0" to-layer="7" to-port="0"/></edges></net>',
}


@pytest.mark.parametrize('name', OPENVINO)
def test_files_for_openvino(name, tmp_path, image, capsys):
    pytest.importorskip('openvino')
    (tmp_path / 'a.xml').write_text(OPENVINO[name])
    refused(tmp_path / 'a.xml', image, tmp_path, capsys)
