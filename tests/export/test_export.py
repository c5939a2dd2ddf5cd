"""Exported files give the model's results; what cannot be exported is said, and leaves nothing."""

import json
import shutil
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import tiny
from helpers.errors import check_refused, refuses
from helpers.tiers import mark_slow

from mmresnest.config import load as configs_load
from mmresnest.config import retarget as configs_retarget
from mmresnest.data.request import DataRequest
from mmresnest.data.shapes.drawing import draw_sample
from mmresnest.export import compare, exporter, options, quantize
from mmresnest.export.compare import LIMITS, Difference, Selection, compare_outputs
from mmresnest.export.exporter import export
from mmresnest.export.formats import FORMATS, Shapes
from mmresnest.export.graphs import build_graph
from mmresnest.export.plan import build_metadata, fit_image, plan_shapes, resize_rule
from mmresnest.export.verify import EagerSession
from mmresnest.inference import rescale, runtimes
from mmresnest.inference.exported import ExportedModel
from mmresnest.inference.metadata import read_metadata
from mmresnest.inference.predictor import Predictor
from mmresnest.inference.results import Detections

pytestmark = [
    pytest.mark.filterwarnings('ignore'),
    pytest.mark.usefixtures('unformatted', 'fresh_logger'),
]

KINDS = ('detection', 'instance', 'semantic')
STRICT = LIMITS['float32']


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """Config and checkpoint of a kind, made once; the config may be changed."""
    folder, made = tmp_path_factory.mktemp('models'), {}

    def make(kind, more=''):
        if (kind, more) not in made:
            path = tiny.write(folder, kind)
            if more:
                base, path = path.name, folder / f'{kind}_{len(made)}.py'
                path.write_text(f"_base_ = './{base}'\n{more}\n")
            cfg = configs_load.load_config(path)
            configs_retarget.use_data(cfg, shapes)
            made[kind, more] = str(path), tiny.save_random(cfg, folder / f'{path.stem}.pth')
        return made[kind, more]

    return make


@pytest.fixture(scope='module')
def asked(trained, shapes):
    """A predictor of a kind on plain layers, made once."""
    made = {}

    def make(kind, more=''):
        if (kind, more) not in made:
            made[kind, more] = Predictor(
                *trained(kind, more), 'cpu', 0.0, data=str(shapes), fused=False
            )
        return made[kind, more]

    return make


@pytest.fixture(scope='module')
def exported(trained, shapes, tmp_path_factory):
    """What exporter returns, and the file, done once."""
    folder, made = tmp_path_factory.mktemp('exported'), {}

    def make(kind, to='onnx', **more):
        key = kind, to, tuple(sorted(more.items()))
        if key not in made:
            out = folder / f'{len(made)}{FORMATS[to].suffix}'
            made[key] = export(*trained(kind), format=to, out=out, data=str(shapes), **more)
        return made[key], made[key].files[0]

    return make


def pictures():
    return [
        draw_sample(1, 'val', number, size).image
        for number, size in enumerate([(64, 64), (100, 66), (70, 90)])
    ]


def differences_of(one, other):
    """Of results that are short of the most that are kept, or of full ones."""
    most = len(one.labels) if len(one.labels) == len(other.labels) else 10**6
    return compare.compare_results(one, other, STRICT, Selection(0.0, most))


# ---- the graph -----------------------------------------------------------------------------------

CASCADE = """
head = dict(type='Shared2FCBBoxHead', in_channels=16, fc_out_channels=16, roi_feat_size=7,
            num_classes=80, reg_class_agnostic=True, loss_cls=dict(type='CrossEntropyLoss'),
            loss_bbox=dict(type='SmoothL1Loss', beta=1.0))
coder = dict(type='DeltaXYWHBBoxCoder', target_means=[0., 0., 0., 0.])
model = dict(train_cfg=None, roi_head=dict(
    type='CascadeRoIHead', num_stages=2, stage_loss_weights=[1, 0.5],
    bbox_head=[dict(**head, bbox_coder=dict(**coder, target_stds=[0.1, 0.1, 0.2, 0.2])),
               dict(**head, bbox_coder=dict(**coder, target_stds=[0.05, 0.05, 0.1, 0.1]))]))
"""
VARIANTS = {
    'faster_rcnn': ('detection', ''),
    'class-agnostic boxes': (
        'detection',
        """
model = dict(roi_head=dict(bbox_head=dict(reg_class_agnostic=True)))""",
    ),
    'few proposals': (
        'detection',
        """
model = dict(test_cfg=dict(rpn=dict(nms_pre=7, max_per_img=4), rcnn=dict(max_per_img=50)))""",
    ),
    'no smallest box': (
        'detection',
        """
model = dict(test_cfg=dict(rpn=dict(min_bbox_size=-1)))""",
    ),
    'softmax RPN': (
        'detection',
        """
model = dict(rpn_head=dict(loss_cls=dict(use_sigmoid=False)))""",
    ),
    'BGR': (
        'detection',
        """
model = dict(data_preprocessor=dict(bgr_to_rgb=False, mean=[103.5, 116.3, 123.7],
                                    std=[57.4, 57.1, 58.4]))""",
    ),
    'mask_rcnn': ('instance', ''),
    'class-agnostic masks': (
        'instance',
        """
model = dict(roi_head=dict(mask_head=dict(class_agnostic=True)))""",
    ),
    'cascade_mask_rcnn': ('instance', CASCADE),
    'deeplabv3': ('semantic', ''),
    'align_corners': (
        'semantic',
        """
model = dict(decode_head=dict(align_corners=True))""",
    ),
    'window': (
        'semantic',
        """
model = dict(test_cfg=dict(mode='slide', crop_size=(40, 48), stride=(24, 32)))""",
    ),
}


@pytest.mark.parametrize(
    'kind, more', mark_slow(VARIANTS.values(), lambda case: not case[1]), ids=VARIANTS
)
def test_graph_equals_framework(asked, kind, more):
    """From the pixels to the result: mmdet's and mmseg's own prediction, and ours."""
    predictor = asked(kind, more)
    metadata = build_metadata(
        predictor,
        Shapes(None, None, None, 32 if kind != 'semantic' else 1, 64),
        'model',
        'float32',
        __file__,
    )
    ours = ExportedModel(
        EagerSession(build_graph(predictor.model, 'model', torch.float32), metadata), 0.0
    )
    seen = 0
    for image in pictures():
        one, other = predictor(image), ours(image)
        assert type(one) is type(other) and one.size == other.size and one.names == other.names
        for each in differences_of(one, other):
            assert each.passes, (image.shape, each)
        seen += len(np.unique(one.labels))
    assert seen >= 3, 'random weights see something on every picture'


@pytest.mark.slow
def test_one_stage_equals_framework(trained, shapes, tmp_path):
    """RetinaNet, in a file: classes that share an anchor do not suppress each other."""
    path = tmp_path / 'retinanet.py'
    path.write_text("""
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(_delete_=True, type='mmresnest.ResNeSt', arch='resnest14'),
    neck=dict(out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1),
    test_cfg=dict(nms_pre=60, max_per_img=20, score_thr=0.009))
resize = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 64), keep_ratio=True),
          dict(type='PackDetInputs',
               meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
test_dataloader = dict(dataset=dict(pipeline=resize))
val_dataloader = test_dataloader
""")
    cfg = configs_load.load_config(path)
    configs_retarget.use_data(cfg, shapes)
    checkpoint = tiny.save_random(cfg, tmp_path / 'a.pth')
    predictor = Predictor(str(path), checkpoint, 'cpu', 0.0, data=str(shapes), fused=False)
    done = export(path, checkpoint, out=tmp_path / 'a.onnx', dynamic=True, data=str(shapes))
    assert done.objects
    ours = ExportedModel(done.files[0], 0.0)
    for image in pictures():
        one, other = predictor(image), ours(image)
        assert len(one) == 20 and len(set(one.labels.tolist())) > 1
        assert all(each.passes for each in differences_of(one, other))


@pytest.mark.parametrize('kind', KINDS)
def test_padding_is_none_of_the_image(asked, kind):
    """What lies beyond an image's size is not seen, whatever is there."""
    graph = build_graph(asked(kind).model, 'model', torch.float32)
    placed, true = fit_image(pictures()[1], (96, 128))
    one = torch.from_numpy(placed)[None]
    other = one.clone()
    other[:, :, true[0] :] = 255
    other[:, :, :, true[1] :] = 77
    size = torch.tensor([true])
    with torch.inference_mode():
        for left, right in zip(graph(one, size), graph(other, size)):
            assert torch.equal(left, right)


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    'kind, more', [('detection', dict(dynamic=True)), ('semantic', dict(size=(64, 64)))]
)
def test_onnx_equals_framework(asked, exported, kind, more):
    """At any size, or where a picture fills the one there is."""
    result, file = exported(kind, **more)
    assert result.objects and all(
        each.passes for found in result.differences.values() for each in found
    )
    assert len(result.differences) == (3 if 'dynamic' in more else 2)
    assert set(result.milliseconds) == {'PyTorch', 'PyTorch, fused', 'onnx'}
    predictor, ours = asked(kind), ExportedModel(file, 0.0)
    assert ours.names == predictor.names and ours.task == predictor.task
    shown = pictures() if 'dynamic' in more else pictures()[:1]
    for image, found in zip(shown, ours(shown, batch_size=2)):
        for each in differences_of(predictor(image), found):
            assert each.passes, each


@pytest.mark.slow
def test_openvino_equals_the_graph(exported, asked):
    """Also where pictures are scaled and padded into the only size."""
    result, file = exported('instance', 'openvino', size=(64, 96))
    assert file.suffix == '.xml' and file.with_suffix('.bin').is_file()
    same = EagerSession(
        build_graph(asked('instance').model, 'model', torch.float32), result.metadata
    )
    same.metadata = result.metadata
    for image in pictures():
        one, other = ExportedModel(file, 0.0)(image), ExportedModel(same, 0.0)(image)
        assert all(each.passes for each in differences_of(one, other))
        assert len(one)


@pytest.mark.slow
def test_float16_is_near_and_smaller(exported):
    half, file = exported('semantic', 'torchscript', size=(64, 64), half=True)
    _, whole = exported('semantic', size=(64, 64))
    assert half.metadata['precision'] == 'float16'
    assert file.stat().st_size < 0.6 * whole.stat().st_size
    largest = half.differences['file and graph, 1x3x64x64'][0]
    assert 1e-5 < largest.value < LIMITS['float16'].maps, 'half precision, and not none'


@pytest.mark.slow
def test_float16_of_a_detector(exported):
    """Objects that lie together may fall out otherwise; the rest is where it was."""
    half, file = exported('detection', size=(64, 96), half=True)
    assert half.metadata['precision'] == 'float16' and half.objects
    found = {each.what: each for each in half.differences['file and graph, 1x3x64x96']}
    assert found['scores'].value > 1e-6, 'half precision, and not none'
    seen = [result for image in pictures() for result in ExportedModel(file, 0.0)(image).scores]
    assert seen and all(isinstance(score, np.float32) for score in seen)


@pytest.mark.slow
def test_a_file_of_two_images_at_once(exported, asked):
    """What is left over fills half of it, and is as if it were alone."""
    result, file = exported('detection', size=(64, 64), batch=2)
    assert result.metadata['input']['batch'] == 2
    alone = EagerSession(
        build_graph(asked('detection').model, 'model', torch.float32), result.metadata
    )
    images = [draw_sample(1, 'val', number, (64, 64)).image for number in range(3)]
    together = ExportedModel(file, 0.0)(images, batch_size=3)
    assert len(together) == 3
    for image, found in zip(images, together):
        assert len(found.labels)
        for each in differences_of(ExportedModel(alone, 0.0)(image), found):
            assert each.passes, each


@pytest.mark.slow
@pytest.mark.parametrize('to', ['torch-export', 'torchscript'])
def test_formats_of_torch(exported, asked, to):
    """They load without mmresnest, and hold whole segmentors and parts of detectors."""
    _, file = exported('detection', to, part='neck', size=(64, 96))
    graph = build_graph(asked('detection').model, 'neck', torch.float32)
    x = torch.randn(1, 3, 64, 96)
    np.save(file.with_suffix('.npy'), x.numpy())
    code = (
        f'import sys, numpy, torch\nx = numpy.load({str(file.with_suffix(".npy"))!r})\n'
        'x = torch.from_numpy(x)\n'
        + (
            f'm = torch.export.load({str(file)!r}).module()\n'
            if to == 'torch-export'
            else f'm = torch.jit.load({str(file)!r})\n'
        )
        + 'assert "mmresnest" not in sys.modules and "mmdet" not in sys.modules\n'
        f'numpy.savez({str(file.with_suffix(""))!r}, *[y.detach().numpy() for y in m(x)])'
    )
    subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, timeout=300)
    maps = np.load(file.with_suffix('.npz'))
    with torch.inference_mode():
        for number, one in enumerate(graph(x)):
            np.testing.assert_allclose(maps[f'arr_{number}'], one.numpy(), rtol=1e-4, atol=1e-5)
    with refuses('export.no-operator', to, 'torchvision', '--format onnx', '--part neck'):
        exported('detection', to)


@pytest.mark.slow
def test_the_file_says_what_it_is(exported, trained):
    _, file = exported('detection', dynamic=True)
    metadata = runtimes.open_session(file).metadata
    assert metadata['names'] == ['disk', 'ring', 'square', 'triangle', 'star', 'cross']
    assert metadata['input'] == dict(batch=None, height=None, width=None, divisor=32, least=33)
    assert metadata['normalize']['order'] == 'RGB' and len(metadata['normalize']['mean']) == 3
    assert metadata['resize'] == dict(scale=[64, 64], keep_ratio=True)
    from mmresnest.utils.files import sha256_of

    assert metadata['checkpoint']['sha256'] == sha256_of(trained('detection')[1])
    assert metadata['outputs'] == ['boxes', 'scores', 'labels']


@pytest.mark.slow
def test_predicts_without_torch_and_mm(exported, tmp_path):
    """The command, where importing torch or an mm library fails."""
    _, file = exported('detection', dynamic=True)
    import cv2

    for number, image in enumerate(pictures()):
        cv2.imwrite(str(tmp_path / f'{number}.png'), image[:, :, ::-1])
    code = (
        'import sys\n'
        'class Refuse:\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        "        if name.split('.')[0] in ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg'):\n"
        "            raise AssertionError(f'{name} was imported')\n"
        'sys.meta_path.insert(0, Refuse())\n'
        'from mmresnest.cli.main import main\n'
        f'sys.exit(main(["predict", "--model", {str(file)!r}, {str(tmp_path)!r}, "--out", '
        f'{str(tmp_path / "out")!r}, "--score-thr", "0"]))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    expected = [
        row
        for number, image in enumerate(pictures())
        for row in ExportedModel(file, 0.0)(image).to_coco(number + 1)
    ]
    assert len(rows) == len(expected) > 0
    for one, other in zip(rows, expected):
        assert one['category_id'] == other['category_id']
        np.testing.assert_allclose(one['bbox'], other['bbox'], atol=1e-3)
    assert len(list((tmp_path / 'out' / 'pictures').iterdir())) == 3


class FarEnough(Exception):
    """Ends an export where what is to be seen has been seen."""


def test_int8_of_a_demo_is_scored_on_what_it_drew(trained, tmp_path, monkeypatch):
    """Which is where it was trained, and not the data of the config."""
    (tmp_path / 'calibration').mkdir()
    import cv2

    cv2.imwrite(str(tmp_path / 'calibration' / 'a.png'), pictures()[0])
    asked_for = []

    def stop(*_, data, demo, **__):
        asked_for.append((data, demo))
        raise FarEnough

    monkeypatch.setattr(
        exporter, 'choose_data_folder', lambda cfg, data: data or f'drawn for {cfg.filename}'
    )
    monkeypatch.setattr(exporter, 'Predictor', stop)
    config, checkpoint = trained('detection')
    for data in (None, 'mine'):
        with pytest.raises(FarEnough):
            export(
                config,
                checkpoint,
                demo=True,
                data=data,
                int8=tmp_path / 'calibration',
                out=tmp_path / 'a.onnx',
            )
    assert asked_for == [(f'drawn for {config}', True), (DataRequest('mine'), True)]
    monkeypatch.setattr(
        exporter, 'choose_data_folder', lambda *_: pytest.fail('nothing is drawn for it')
    )
    with refuses('checkpoint.missing', 'gone.pth'):
        export(
            config, 'gone.pth', demo=True, int8=tmp_path / 'calibration', out=tmp_path / 'a.onnx'
        )


@pytest.mark.slow
def test_int8_is_scored(trained, exported, shapes, tmp_path):
    """And is smaller. The model says background, as random weights may be right nowhere."""
    _, whole = exported('semantic', size=(64, 64))
    config, checkpoint = trained('semantic')
    content = torch.load(checkpoint, weights_only=False)
    content['state_dict']['decode_head.conv_seg.bias'][0] += 10
    torch.save(content, tmp_path / 'background.pth')
    (tmp_path / 'calibration').mkdir()
    for path in (shapes / 'images' / 'val').iterdir():
        shutil.copy(path, tmp_path / 'calibration')
    (tmp_path / 'calibration' / 'broken.png').write_bytes(b'no picture')
    said = []
    result = export(
        config,
        tmp_path / 'background.pth',
        size=(64, 64),
        data=str(shapes),
        out=tmp_path / 'a.onnx',
        int8=tmp_path / 'calibration',
        say=said.append,
    )
    file = result.files[0]
    assert [line for line in said if 'broken.png' in line]
    assert set(result.scores) == {'float32', 'int8'}
    assert all('mIoU' in scores for scores in result.scores.values())
    assert file.stat().st_size < 0.4 * whole.stat().st_size
    assert runtimes.open_session(file).metadata['precision'] == 'int8'


def test_a_drop_that_is_not_allowed(trained, shapes, tmp_path, monkeypatch):
    """And a score of nothing, from which there is no drop."""
    scores = iter([dict(mIoU=50.0), dict(mIoU=40.0), dict(mIoU=0.0), dict(mIoU=0.0)])
    monkeypatch.setattr(quantize, 'score_predictor', lambda *_: next(scores))
    monkeypatch.setattr(quantize, 'QUANTIZERS', dict(onnx=lambda *_: None))
    monkeypatch.setattr(quantize, '_calibration_batches', lambda *_: [])
    monkeypatch.setattr(quantize, 'ExportedModel', lambda *_: None)
    predictor = SimpleNamespace(config=None)
    for code, *parts in (
        ('export.score-drop', 'int8', 'mIoU', 0.1, 0.02, '--max-drop'),
        ('export.no-score', 'mIoU', 'float32', '--data'),
    ):
        with refuses(code, *parts):
            quantize.quantize_and_score(
                predictor, 'onnx', tmp_path / 'a.onnx', [], 0.02, lambda _: None
            )


# ---- the runner beside the libraries -------------------------------------------------------------


@pytest.mark.parametrize(
    'rule',
    [
        dict(scale=(1333, 800), keep_ratio=True),
        dict(scale=(2048, 512), keep_ratio=True),
        dict(scale=(64, 96), keep_ratio=False),
    ],
)
def test_images_are_scaled_as_mmcv_does(rule):
    from mmcv.transforms import Resize

    metadata = dict(
        resize=dict(rule, scale=list(rule['scale'])),
        window=None,
        input=dict(height=None, width=None),
    )
    random = np.random.default_rng(0)
    for _ in range(20):
        image = random.integers(0, 256, (*random.integers(20, 300, 2), 3), dtype=np.uint8)
        size = rescale.scaled_size(image.shape[:2], metadata)
        np.testing.assert_array_equal(
            rescale.resize_image(image, size), Resize(**rule)(dict(img=image))['img']
        )


def test_masks_are_pasted_as_mmdet_does():
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    random = np.random.default_rng(0)
    masks = random.random((30, 28, 28), np.float32)
    low = random.uniform(-20, 80, (30, 2))
    boxes = np.concatenate([low, low + random.uniform(25, 60, (30, 2))], 1).astype(np.float32)
    boxes[0, 2] = boxes[0, 0]  # without a side
    expected = np.zeros((30, 90, 110), bool)
    for number in range(30):  # one by one, as on a CPU
        here = slice(number, number + 1)
        shares, where = _do_paste_mask(
            torch.from_numpy(masks[here, None]), torch.from_numpy(boxes[here]), 90, 110
        )
        expected[(number, *where)] = shares[0].numpy() >= 0.5
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        found = rescale.paste_masks(masks, boxes, (90, 110), 0.5)
    assert (found != expected).mean() < 1e-5 and expected.any(axis=(1, 2)).sum() > 20


@pytest.mark.parametrize('align_corners', [False, True])
def test_classes_are_scaled_back_as_mmseg_does(align_corners):
    logits = np.random.default_rng(0).standard_normal((5, 17, 23), np.float32)
    for size in ((40, 31), (9, 60), (17, 23)):
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(logits)[None], size, mode='bilinear', align_corners=align_corners
        )
        found = rescale.best_classes(logits, size, align_corners)
        assert (found != expected[0].argmax(0).numpy()).mean() < 1e-3


# ---- what differs is seen ------------------------------------------------------------------------


def outputs(**changes):
    values = dict(
        boxes=np.array([[[0, 0, 9, 9], [20, 20, 40, 40], [0, 0, 0, 0]]], np.float32),
        scores=np.array([[0.9, 0.6, 0]], np.float32),
        labels=np.array([[1, 0, -1]]),
    )
    for name, change in changes.items():
        values[name] = values[name] + np.asarray(change, values[name].dtype)
    return list(values.values())


@pytest.mark.parametrize(
    'changes, wrong',
    [
        ({}, ''),
        (dict(scores=[[0, 0.05, 0]]), 'scores'),
        (dict(boxes=[[[0, 0, 0, 0.1]] * 3]), 'boxes'),
        (dict(labels=[[1, 0, 0]]), 'objects'),  # another class
        (dict(labels=[[0, -1, 0]]), 'objects'),  # one object less
        (dict(labels=[[-2, -1, 0]]), 'objects'),  # none
        (dict(boxes=[[[50, 0, 50, 0]] * 3]), 'objects'),
        (dict(scores=[[np.nan, 0, 0]]), ''),
    ],
)
def test_differences_of_objects(changes, wrong):
    for one, other in ((outputs(), outputs(**changes)), (outputs(**changes), outputs())):
        found = compare_outputs(['boxes', 'scores', 'labels'], one, other, STRICT)
        failed = [each.what for each in found if not each.passes]
        if changes:
            assert failed and (wrong in ' '.join(failed))
        else:
            assert not failed


def test_what_half_precision_loses_weighs_by_its_score():
    """A choice between near proposals may fall otherwise, where it matters little."""
    names, half = ['boxes', 'scores', 'labels'], LIMITS['float16']
    unsure = outputs(scores=[[0, -0.5, 0]])  # the second has 0.1
    moved = outputs(scores=[[0, -0.5, 0]], boxes=[[[0] * 4, [0, 5, 0, 5], [0] * 4]])
    assert [each.what for each in compare_outputs(names, unsure, moved, STRICT) if not each.passes]
    found = compare_outputs(
        names,
        outputs(scores=[[0.1, -0.5, 0]]),
        outputs(scores=[[0.1, -0.5, 0]], boxes=[[[0] * 4, [0, 5, 0, 5], [0] * 4]]),
        half,
    )
    assert found[0].value == pytest.approx(0.2 / 2.2) and found[1].value == 0
    sure = compare_outputs(
        names, outputs(), outputs(boxes=[[[0] * 4, [0, 5, 0, 5], [0] * 4]]), half
    )
    assert [each.what for each in sure if not each.passes] == ['objects that only one finds']
    less = compare_outputs(names, outputs(), outputs(scores=[[0, 0.05, 0]]), half)
    assert [each.what for each in less if not each.passes] == ['objects that only one finds']
    # a full list of objects that are equally sure: the last of it excuses none that moved
    alike = dict(labels=[[0, 0, 2]], scores=[[-0.7, -0.4, 0.2]])
    for shift, passes in ((1, True), (5, False), (500, False)):
        found = compare_outputs(
            names,
            outputs(**alike),
            outputs(**alike, boxes=[[[0] * 4, [0, shift, 0, shift], [0, shift, 0, shift]]]),
            half,
        )
        assert all(each.passes for each in found) == passes, found
    # nor is anything excused where hardly anything is compared
    found = compare_outputs(
        names, outputs(**alike), outputs(**alike, boxes=[[[500.0] * 4] * 3]), half
    )
    assert not found[0].passes and found[0].value == 1


def test_a_neighbour_is_not_taken_for_the_object_itself():
    """In half precision the nearest may have another score, and the next but one the same."""
    one = outputs(labels=[[0, 1, 0]], boxes=[[[0] * 4, [-20, -20, -31, -31], [0] * 4]])
    other = [
        array[:, [1, 0, 2]]
        for array in outputs(
            labels=[[0, 1, 0]], boxes=[[[0, 0, 0.8, 0.8], [-20, -20, -30.8, -30.8], [0] * 4]]
        )
    ]
    found = compare_outputs(['boxes', 'scores', 'labels'], one, other, LIMITS['float16'])
    assert all(each.passes for each in found), found


def test_what_lies_at_the_cut_may_be_kept_by_one_only():
    few = dict(labels=[[0, -1, 0]])  # the second, with 0.6, is lacking
    names = ['boxes', 'scores', 'labels']
    assert all(
        each.passes for each in compare_outputs(names, outputs(), outputs(**few), STRICT, 0.6)
    )
    assert not all(
        each.passes for each in compare_outputs(names, outputs(), outputs(**few), STRICT, 0.5)
    )


def test_masks_that_are_wrong_or_not_numbers():
    names = ['boxes', 'scores', 'labels', 'masks']
    mask = np.full((1, 3, 4, 4), 0.7, np.float32)
    for other in (mask * np.nan, mask * 0):
        found = compare_outputs(names, [*outputs(), mask], [*outputs(), other], STRICT)
        assert [each.what for each in found if not each.passes] == ['masks']


def test_a_small_mask_that_is_lost():
    def result(masks):
        return Detections(
            np.array([[0, 0, 30, 30]], np.float32),
            np.ones(1, np.float32),
            np.zeros(1, int),
            ('a',),
            masks,
            (800, 1344),
        )

    mask = np.zeros((1, 800, 1344), bool)
    mask[0, :30, :30] = True
    found = differences_of(result(mask), result(np.zeros_like(mask)))
    assert [each.what for each in found if not each.passes] == ['pixels of a mask']


def test_order_of_objects_is_none_of_a_difference():
    other = [array[:, [1, 0, 2]] for array in outputs()]
    assert all(
        each.value == 0
        for each in compare_outputs(['boxes', 'scores', 'labels'], outputs(), other, STRICT)
    )


def test_nan_is_a_difference():
    maps = [np.ones((1, 2, 3, 3), np.float32)]
    assert not compare_outputs(['map0'], maps, [maps[0] * np.nan], STRICT)[0].passes
    assert not Difference('a', float('nan'), 1).passes


def test_a_file_that_differs_is_not_left(trained, shapes, tmp_path, monkeypatch):
    real = FORMATS['torchscript']

    def wrong(path):
        run = real.load(path)
        return lambda *inputs: [run(*inputs)[0] * 1.01, *run(*inputs)[1:]]

    monkeypatch.setitem(
        FORMATS,
        'torchscript',
        FORMATS['torchscript'].__class__(real.suffix, real.detects, real.write, wrong),
    )
    with refuses('export.differs', 'map0'):
        export(
            *trained('detection'),
            format='torchscript',
            part='backbone',
            data=str(shapes),
            out=tmp_path / 'a' / 'x.pt',
            size=(64, 64),
        )
    assert not list(tmp_path.iterdir())


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'words, code, parts',
    [
        (['--batch', '0'], 'option.value', ['--batch 0']),
        (['--size', '8x64'], 'option.value', ['--size 8x64', 33]),
        (['--dynamic', '--size', '64x64'], 'option.conflict', ['--dynamic', '--size']),
        (['--half', '--int8', '.'], 'option.conflict', ['--half', '--int8']),
        (['--int8', '.', '--part', 'neck'], 'option.conflict', ['--int8', '--part neck']),
        (['--out', 'a.pt'], 'option.suffix', ['--out a.pt', '.onnx']),
        (['--max-drop', '0.1'], 'option.conflict', ['--max-drop', '--int8']),
        (['--size', '100x100'], 'option.value', ['--size 100x100', '128x128']),
        (['--sample-images', 'film.avi'], 'option.value', ['--sample-images film.avi']),
        (['--out', 'file/a.onnx'], 'file.unwritable', ['--out file']),
        (['--int8', 'empty'], 'image.missing', ['empty', '.jpg']),
        (['--format', 'torchscript'], 'export.no-operator', ['torchscript', '--format onnx']),
    ],
)
def test_what_is_asked_for_is_looked_at_first(trained, tmp_path, monkeypatch, words, code, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').touch()
    video(tmp_path / 'film.avi')
    check_refused(['export', *trained('detection'), *words], code, *parts)
    assert {path.name for path in tmp_path.iterdir()} == {'empty', 'file', 'film.avi'}


def test_formats_and_parts_are_known():
    assert tuple(FORMATS) == options.FORMATS
    with refuses('option.unknown', 'nearest: onnx'):
        export('any', 'any', format='onx')
    with refuses('option.unknown', 'legal: model, neck, backbone'):
        export('any', 'any', part='head')


def video(path):
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 5, (64, 64))
    for _ in range(3):
        writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()


def test_an_old_file_is_kept(trained, tmp_path):
    file = tmp_path / 'a.onnx'
    file.write_text('mine')
    with refuses('option.exists', '--force'):
        export(*trained('detection'), out=file)
    assert file.read_text() == 'mine'


def test_a_segmentor_wants_its_size(asked):
    with refuses('option.needed', '--dynamic'):
        plan_shapes(asked('semantic'), 'onnx', 'model', None, 1, False)


def test_a_window_wants_any_size(asked):
    predictor = asked(*VARIANTS['window'])
    with refuses('option.needed', '--dynamic'):
        plan_shapes(predictor, 'onnx', 'model', (64, 64), 1, False)
    assert plan_shapes(predictor, 'onnx', 'neck', (64, 64), 1, False).height == 64


@pytest.mark.parametrize(
    'claim, value',
    [
        ('task', 'cooking'),
        ('names', 5),
        ('input', dict(divisor=0)),
        ('outputs', None),
        ('resize', dict(scale=[10**7, 3], keep_ratio=True)),
        ('align_corners', 'no'),
        ('window', dict(size=[8, 8], stride=[0, 8])),
        ('input', dict(batch=1, height=10**7, width=64, divisor=32, least=33)),
    ],
)
def test_a_description_by_a_stranger(exported, claim, value, tmp_path):
    _, file = exported('semantic', size=(64, 64))
    metadata = runtimes.open_session(file).metadata
    assert read_metadata(json.dumps(metadata), file) == metadata
    with refuses('exported.damaged', file, f' {claim};'):
        read_metadata(json.dumps({**metadata, claim: value}), file)
    for text, code in (
        ('', 'exported.foreign'),
        ('[]', 'exported.damaged'),
        ('no json', 'exported.damaged'),
        (json.dumps({**metadata, 'version': 99}), 'exported.version'),
    ):
        with refuses(code, file):
            read_metadata(text, file)


def test_a_file_with_other_outputs(exported):
    _, file = exported('semantic', size=(64, 64))
    model = ExportedModel(file)
    model.task = 'detection'
    with refuses('exported.outputs', '2 outputs'):
        model(pictures()[0])


def test_unknown_parts_are_named(asked, monkeypatch):
    predictor = asked(
        'detection',
        """
model = dict(test_cfg=dict(rcnn=dict(nms=dict(type='soft_nms', iou_threshold=0.5))))""",
    )
    with refuses('export.unknown-part', 'soft_nms'):
        build_graph(predictor.model, 'model', torch.float32)
    head = asked('detection').model.rpn_head
    monkeypatch.setattr(head, 'bbox_coder', object())
    with refuses('export.unknown-part', 'DeltaXYWHBBoxCoder'):
        build_graph(asked('detection').model, 'model', torch.float32)


def test_panoptic_is_refused(trained, shapes, tmp_path):
    with refuses('export.panoptic'):
        export(*trained('panoptic'), data=str(shapes), out=tmp_path / 'a.onnx')
    assert not list(tmp_path.iterdir())


def test_pipelines_that_the_runner_does_not_know(trained):
    cfg = configs_load.load_config(trained('detection')[0])
    pipeline = cfg.test_dataloader.dataset.pipeline
    pipeline.insert(2, dict(type='Pad', size_divisor=32))
    with refuses('export.pipeline', 'Pad'):
        resize_rule(cfg)
    pipeline.pop(2)
    pipeline[0].to_float32 = True
    with refuses('export.pipeline', 'to_float32'):
        resize_rule(cfg)


@pytest.mark.parametrize(
    'name, content, code, part',
    [
        ('a.onnx', b'no model', 'exported.damaged', 'a.onnx'),
        ('a.pt2', b'', 'option.suffix', 'torch.export.load'),
        ('a.txt', b'', 'option.suffix', '.onnx and .xml'),
        ('gone.onnx', None, 'exported.missing', 'gone.onnx'),
    ],
)
def test_a_model_that_is_none(tmp_path, name, content, code, part):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (tmp_path / 'a.png').write_bytes(b'')
    line = f'predict --model {tmp_path / name} {tmp_path / "a.png"} --out {tmp_path / "out"}'
    check_refused(line.split(), code, part)
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_a_runtime_that_is_missing(exported, monkeypatch):
    _, file = exported('detection', dynamic=True)
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with refuses('package.missing', "'onnxruntime'", 'pip install "mmresnest[onnx]"'):
        runtimes.open_session(file)


@pytest.mark.slow
def test_devices_of_the_runtimes(exported, monkeypatch):
    """A GPU that is asked for and not there is no CPU."""
    import onnxruntime

    _, file = exported('detection', dynamic=True)
    _, other = exported('instance', 'openvino', size=(64, 96))
    for path, device, code, *parts in [
        (file, 'cuda', 'device.missing', '--device cuda', 'pip install onnxruntime-gpu'),
        (file, 'gpu', 'option.unknown', "'gpu'", '.onnx', 'legal: auto, cpu, cuda'),
        (file, 'cudas', 'option.unknown', "'cudas'", '.onnx', 'legal: auto, cpu, cuda'),
        (other, 'cuda', 'option.unknown', "'cuda'", '.xml', '--format onnx'),
        (other, 'gpu', 'device.missing', '--device gpu', 'OpenVINO', 'CPU'),
    ]:
        with refuses(code, *parts):
            ExportedModel(path, device=device)
    assert runtimes.execution_providers('auto', [runtimes.CPU]) == [runtimes.CPU]
    assert runtimes.execution_providers('cpu', [runtimes.CUDA, runtimes.CPU]) == [runtimes.CPU]
    (name, how), last = runtimes.execution_providers('cuda:1', [runtimes.CUDA, runtimes.CPU])
    assert (name, how['device_id'], last) == (runtimes.CUDA, 1, runtimes.CPU)
    assert how['use_tf32'] == 0, 'TF32 is another result'
    # ONNX Runtime for GPUs on a machine without: it takes the CPU by itself, or raises
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, 'get_available_providers', lambda: [runtimes.CUDA, runtimes.CPU]
    )

    def falls_back(*args, providers, **more):
        return real(*args, providers=providers[-1:], **more)

    def fails(*args, providers, **more):
        if providers != [runtimes.CPU]:
            raise RuntimeError('no driver')
        return real(*args, providers=providers, **more)

    for session in (falls_back, fails):
        monkeypatch.setattr(onnxruntime, 'InferenceSession', session)
        for device in ('cuda', 'cuda:1'):
            with refuses('device.missing', f'--device {device}:', 'pip install onnxruntime-gpu'):
                ExportedModel(file, device=device)
        assert len(ExportedModel(file, 0.0, 'auto')(pictures()[0]))


def test_a_part_is_no_model(asked):
    with refuses('exported.part'):
        ExportedModel(
            EagerSession(
                build_graph(asked('detection').model, 'neck', torch.float32),
                dict(part='neck', input={}),
            )
        )
