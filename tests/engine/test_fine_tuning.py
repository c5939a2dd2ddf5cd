"""``--load-from``: heads of every kind keep the rows of classes of the same name."""

import copy

import pytest
import torch
from helpers import tiny
from helpers.detectors import DETECTORS
from helpers.errors import refuses
from helpers.tiers import mark_slow
from mmengine.registry import MODELS, DefaultScope

from mmresnest.analysis.memory import make_sample
from mmresnest.config.inspect import import_packages, model_of
from mmresnest.config.load import load_config
from mmresnest.config.retarget import set_classes
from mmresnest.config.shipped import published_checkpoints
from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.data.shapes.drawing import CLASSES
from mmresnest.engine import fine_tuning
from mmresnest.engine.checkpoints import read_checkpoint
from mmresnest.engine.fine_tuning import (
    ClassPairs,
    describe,
    find_checkpoint,
    fit_classes,
    match_heads,
    set_start,
)
from mmresnest.engine.train import train
from mmresnest.export.compare import LIMITS, compare_outputs
from mmresnest.models.norms import replace_sync_norms

pytestmark = pytest.mark.filterwarnings('ignore')

OLD = ('person', 'cat', 'dog', 'bus')
NEW = ('dog', 'zebra', 'Person')
PAIRS = {0: OLD.index('dog'), 2: OLD.index('person')}  # new label -> old label
STUFF_OLD, STUFF_NEW = ('sky', 'sea'), ('road', 'sea', 'sky')


def tune(text, name, tmp_path):
    path = tmp_path / f'{name}.py'
    path.write_text(text)
    return load_config(path)


CASCADE = """
_base_ = 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'
model = dict(backbone=dict(_delete_=True, type='mmresnest.ResNeSt', arch='resnest14'))
"""
RETINANET = """
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
model = dict(backbone=dict(_delete_=True, type='mmresnest.ResNeSt', arch='resnest14'))
"""
DINO = """
_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
model = dict(backbone=dict(
    _delete_=True, type='mmresnest.ResNeSt', arch='resnest14', out_indices=(1, 2, 3)))
"""
TEXTS = dict(tiny.TEXTS, cascade=CASCADE, retinanet=RETINANET, dino=DINO)

# kind: key of a weight -> how many rows a class has, one after another; 0 for one per anchor
HEADS = {
    'detection': {'roi_head.bbox_head.fc_cls': 1, 'roi_head.bbox_head.fc_reg': 4},
    'instance': {
        'roi_head.bbox_head.fc_cls': 1,
        'roi_head.bbox_head.fc_reg': 4,
        'roi_head.mask_head.conv_logits': 1,
    },
    'cascade': {
        **{f'roi_head.bbox_head.{stage}.fc_cls': 1 for stage in range(3)},
        **{f'roi_head.mask_head.{stage}.conv_logits': 1 for stage in range(3)},
    },
    'retinanet': {'bbox_head.retina_cls': 0},
    'dino': {'bbox_head.cls_branches.0': 1, 'dn_query_generator.label_embedding': 1},
    'panoptic': {'roi_head.bbox_head.fc_cls': 1, 'roi_head.mask_head.conv_logits': 1},
    'semantic': {'decode_head.conv_seg': 1, 'auxiliary_head.conv_seg': 1},
}


def build(kind, tmp_path, things, stuff=0, seed=0):
    cfg = tune(TEXTS[kind], kind, tmp_path)
    set_classes(model_of(cfg), things, stuff)
    replace_sync_norms(cfg.model)
    import_packages(cfg)
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def case(kind, tmp_path):
    """An old checkpoint, a new model, and what is said of the new data."""
    panoptic = kind == 'panoptic'
    stuff_old, stuff_new = (STUFF_OLD, STUFF_NEW) if panoptic else ((), ())
    old = build(kind, tmp_path, len(OLD), len(stuff_old), seed=1)
    new = build(kind, tmp_path, len(NEW), len(stuff_new), seed=2)
    meta = dict(classes=(*OLD, *stuff_old))
    metainfo = dict(classes=(*NEW, *stuff_new))
    if panoptic:
        meta['thing_classes'], metainfo['thing_classes'] = OLD, NEW
    content = dict(state_dict=old.state_dict(), meta=dict(dataset_meta=meta))
    return content, new, metainfo


@pytest.mark.parametrize('kind', mark_slow(HEADS, lambda kind: kind == 'semantic'))
def test_rows_of_the_same_names(kind, tmp_path):
    content, model, metainfo = case(kind, tmp_path)
    before = copy.deepcopy(model.state_dict())
    found = fit_classes('old.pth', content, model, metainfo, {})
    model.load_state_dict(found)
    assert found.keys() == model.state_dict().keys()
    old, heads = content['state_dict'], HEADS[kind]
    for layer, rows in heads.items():
        for key in found.keys() & {f'{layer}.weight', f'{layer}.bias'}:
            anchors = 9 if rows == 0 else 1
            for anchor in range(anchors):
                for label in range(len(NEW)):
                    for row in range(rows or 1):
                        at = anchor * len(NEW) + label * (rows or 1) + row
                        there = before[key][at]
                        if label in PAIRS:
                            former = anchor * len(OLD) + PAIRS[label] * (rows or 1)
                            there = old[key][former + row]
                        assert torch.equal(found[key][at], there), (key, at)
            if layer.endswith('fc_cls'):
                assert torch.equal(found[key][-1], old[key][-1]), 'the background'
    others = [
        key
        for key in found
        if key.rpartition('.')[0] not in heads
        and not any(part in key for part in ('fc_cls', 'fc_reg', 'cls_branches', 'conv_logits'))
    ]
    assert others and all(torch.equal(found[key], old[key]) for key in others)


KINDS = {
    'mmdet': (
        *DETECTORS,
        'boxinst/boxinst_r50_fpn_ms-90k_coco',
        'double_heads/dh-faster-rcnn_r50_fpn_1x_coco',
        'free_anchor/freeanchor_r50_fpn_1x_coco',
        'guided_anchoring/ga-retinanet_r50_fpn_1x_coco',
        'maskformer/maskformer_r50_ms-16xb1-75e_coco',
        'queryinst/queryinst_r50_fpn_1x_coco',
        'rtmdet/rtmdet_tiny_8xb32-300e_coco',
        'sabl/sabl-faster-rcnn_r50_fpn_1x_coco',
        'seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1',
        'ssd/ssd300_coco',
        'yolo/yolov3_d53_8xb8-320-273e_coco',
        'yolox/yolox_s_8xb8-300e_coco',
    ),
    'mmseg': (
        'danet/danet_r50-d8_4xb4-80k_ade20k-512x512',
        'ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024',
        'encnet/encnet_r50-d8_4xb4-80k_ade20k-512x512',
        'fastfcn/fastfcn_r50-d32_jpu_psp_4xb4-80k_ade20k-512x512',
        'knet/knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512',
        'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512',
        'maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512',
        'ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024',
        'pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes',
        'point_rend/pointrend_r50_4xb4-160k_ade20k-512x512',
        'sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512',
        'upernet/upernet_r50_4xb4-80k_ade20k-512x512',
    ),
}
"""Heads of every kind that mmdet and mmseg have."""
NAMES = [f'{package}::{name}' for package, names in KINDS.items() for name in names]
REFUSED = ('point_rend', 'ssd/', 'yolo/')
"""Those in which classes are inputs, too, or rows beside others of a box: they are refused."""


def build_empty(name, things, stuff=0):
    """A model of any config, without values, and the settings of it."""
    cfg = load_config(name)
    for part in (cfg.model, cfg.model.backbone):
        for key in ('pretrained', 'init_cfg'):
            part.pop(key, None)
    set_classes(cfg.model, things, stuff)
    replace_sync_norms(cfg.model)
    import_packages(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return fine_tuning.build_empty(cfg.model), cfg


def fill(module, keys):
    """Random values of some tensors, of a model without any."""
    for key in keys:
        owner, _, name = key.rpartition('.')
        owner = module.get_submodule(owner)
        values = torch.randn(getattr(owner, name).shape)
        if name in owner._parameters:
            values = torch.nn.Parameter(values)
        setattr(owner, name, values)


@pytest.mark.parametrize('name', mark_slow(NAMES, lambda name: 'retinanet_r50' in name))
def test_every_tensor_of_classes(name, uninitialized):
    """Of whatever grows with the classes: what was learned of a name is where the name is now."""
    old, _ = build_empty(name, len(OLD))
    new, cfg = build_empty(name, len(NEW))
    shapes = {key: value.shape for key, value in old.state_dict().items()}
    keys = [key for key, value in new.state_dict().items() if value.shape != shapes[key]]
    keys = [key for key in keys if 'roi_head.semantic_head' not in key]  # of regions
    assert keys
    fill(old, keys), fill(new, keys)
    before = {key: value.clone() for key, value in new.state_dict().items() if key in keys}
    content = dict(state_dict=old.state_dict(), meta=dict(dataset_meta=dict(classes=OLD)))
    regions = [key for key in shapes if 'roi_head.semantic_head' in key]
    for key in regions:
        content['state_dict'][key] = new.state_dict()[key]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        if any(part in name for part in REFUSED):
            with refuses('checkpoint.other-shapes', 'old.pth'):
                fit_classes('old.pth', content, new, dict(classes=NEW), cfg.model)
            _, cfg = build_empty(name, len(OLD))  # where no shape tells
            with refuses('checkpoint.other-shapes', 'old.pth'):
                fit_classes('old.pth', content, old, dict(classes=OLD[::-1]), cfg.model)
            return
        found = fit_classes('old.pth', content, new, dict(classes=NEW), cfg.model)
    for key in keys:
        own, former, given = (tensors[key] for tensors in (found, before, content['state_dict']))
        step = len(given) - len(own)  # rows of a class
        assert len(OLD) - len(NEW) == 1 and own.shape[1:] == given.shape[1:]
        per_class = 4 if 'fc_reg' in key else 1
        repeats = step // per_class
        own, former, given = (
            tensor.reshape(repeats, -1, per_class, *own.shape[1:])
            for tensor in (own, former, given)
        )
        for label in range(own.shape[1]):
            if label in PAIRS:
                right = given[:, PAIRS[label]]
            elif label < len(NEW):
                right = former[:, label]
            else:
                right = given[:, label - len(NEW) + len(OLD)]  # the background, or objectness
            assert torch.equal(own[:, label], right), (key, label)


OUTPUTS = ('boxes', 'scores', 'labels')


@pytest.mark.parametrize(
    'kind', mark_slow(['semantic', 'detection', 'retinanet'], lambda kind: kind == 'semantic')
)
@torch.no_grad()
def test_the_same_is_predicted_by_other_numbers(kind, tmp_path):
    """A model of the same classes in another order sees what the first one sees."""
    order = [2, 0, 3, 1]
    names = [OLD[label] for label in order]
    old, new = (build(kind, tmp_path, len(OLD), seed=seed).eval() for seed in (1, 2))
    for name, parameter in old.named_parameters():
        parameter.mul_(1 if name.endswith('fc_cls.weight') else 0.1)
    cfg = tune(TEXTS[kind], kind, tmp_path)
    set_classes(model_of(cfg), len(OLD))
    content = dict(state_dict=old.state_dict(), meta=dict(dataset_meta=dict(classes=OLD)))
    image = torch.randn(1, 3, 64, 64)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        new.load_state_dict(fit_classes('old.pth', content, new, dict(classes=names), cfg.model))
        if kind == 'semantic':
            one, two = (model(image, mode='tensor') for model in (old, new))
            torch.testing.assert_close(two, one[:, order])
            return
        sample = make_sample('detection', 64, 64, len(OLD))
        found = []
        for model in (old, new):
            part = model.bbox_head if kind == 'retinanet' else model.roi_head
            # Suppression adds an offset by label to boxes, whose rounding decides near its border.
            part.test_cfg.update(score_thr=0.0, max_per_img=40)
            part.test_cfg.nms.iou_threshold = 1.0
            (result,) = model(image, [copy.deepcopy(sample)], mode='predict')
            result.pred_instances.boxes = result.pred_instances.pop('bboxes')
            found.append(result.pred_instances)
    one, two = found
    assert len(one) > 3 and len(set(one.labels.tolist())) > 1
    two.labels = torch.tensor(order)[two.labels]
    arrays = [[seen[key][None].numpy() for key in OUTPUTS] for seen in (one, two)]
    assert all(each.passes for each in compare_outputs(OUTPUTS, *arrays, LIMITS['float32']))


def test_regions_of_a_panoptic_model(tmp_path):
    """Stuff by its own names; the last row is of all things."""
    content, model, metainfo = case('panoptic', tmp_path)
    key, old = 'semantic_head.conv_logits.weight', content['state_dict']
    before = model.state_dict()[key].clone()
    found = fit_classes('old.pth', content, model, metainfo, {})[key]
    assert torch.equal(found[0], before[0])
    assert torch.equal(found[1], old[key][1]) and torch.equal(found[2], old[key][0])
    assert torch.equal(found[3], old[key][2])


@pytest.mark.slow
def test_the_same_classes_are_taken_whole(tmp_path):
    content, model, _ = case('detection', tmp_path)
    model = build('detection', tmp_path, len(OLD), seed=3)
    found = fit_classes('old.pth', content, model, dict(classes=OLD), {})
    assert all(torch.equal(found[key], value) for key, value in content['state_dict'].items())
    cfg = tune(TEXTS['detection'], 'detection', tmp_path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        moved = fit_classes('old.pth', content, model, dict(classes=OLD[::-1]), cfg.model)
    key = 'roi_head.bbox_head.fc_cls.bias'
    assert torch.equal(moved[key][:4], content['state_dict'][key][:4].flip(0))


def test_pairs():
    assert ClassPairs.match(OLD, NEW) == ClassPairs(4, 3, ((2, 0), (0, 2)))
    assert ClassPairs.match(OLD, OLD).same and not ClassPairs.match(OLD, OLD[::-1]).same


@pytest.mark.parametrize(
    'old, new, pairs',
    [
        (('dining table', 'tv'), ('diningtable', 'tvmonitor'), ((0, 0),)),
        (('traffic_light', 'stop sign'), ('Traffic light', 'stop-sign'), ((0, 0), (1, 1))),
        (('cat', 'Cat'), ('Cat', 'CAT', 'cat'), ((1, 0), (0, 2))),  # CAT may be either
        (('cat', 'dog'), ('cat', 'Cat'), ((0, 0), (0, 1))),
        (('cat', 'dog', 'cat'), ('cat',), ((0, 0),)),
        (('-', ' '), (' ', '-'), ((1, 0), (0, 1))),
        (('cat',), ('dog',), ()),
        (('a b',), (), ()),
    ],
)
def test_spellings(old, new, pairs):
    """Exactly, or else whatever case and gaps; other words are other classes."""
    assert ClassPairs.match(old, new) == ClassPairs(len(old), len(new), pairs)


def test_what_is_said(tmp_path):
    content, model, _ = case('detection', tmp_path)
    heads = match_heads(content, dict(classes=NEW), unified=False)
    said = describe('old.pth', heads, dict(classes=NEW))
    assert said.endswith('2 of 3 classes taken over by name, 1 new (zebra)')
    content['meta']['dataset_meta'] = dict(classes=(*OLD, 'sky', 'sea'), thing_classes=OLD)
    metainfo = dict(classes=(*NEW, 'road', 'sea', 'sky'), thing_classes=NEW)
    said = describe('old.pth', match_heads(content, metainfo, unified=False), metainfo)
    assert said.endswith(
        '2 of 3 classes taken over by name, 1 new (zebra); '
        '2 of 3 regions taken over by name, 1 new (road)'
    )
    none = [f'class {number}' for number in range(7)]
    said = describe('old.pth', match_heads(content, dict(classes=none), False), dict(classes=none))
    assert said.endswith(f'0 of 7 classes taken over by name, 7 new ({", ".join(none[:5])}, ...)')


@pytest.mark.parametrize('before', ['thing_classes', 'classes'])
def test_one_head_of_things_and_regions(before, uninitialized):
    """Mask2Former's, from a panoptic model and from one of things alone."""
    name = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic'
    meta = dict(classes=(*OLD, *STUFF_OLD), thing_classes=OLD)
    if before == 'classes':
        meta = dict(classes=(*STUFF_OLD, *OLD))
    old, _ = build_empty(name, len(OLD), len(STUFF_OLD))
    new, cfg = build_empty(name, len(NEW), len(STUFF_NEW))
    keys = ['panoptic_head.cls_embed.weight', 'panoptic_head.cls_embed.bias']
    fill(old, keys), fill(new, keys)
    own, given = new.state_dict(), old.state_dict()
    content = dict(state_dict=given, meta=dict(dataset_meta=meta))
    metainfo = dict(classes=(*NEW, *STUFF_NEW), thing_classes=NEW)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        found = fit_classes('old.pth', content, new, metainfo, cfg.model)
    for key in keys:
        for label, word in enumerate((*NEW, *STUFF_NEW)):
            former = [one.lower() for one in meta['classes']]
            known = word.lower() in former
            right = given[key][former.index(word.lower())] if known else own[key][label]
            assert torch.equal(found[key][label], right), (key, word)
        assert torch.equal(found[key][-1], given[key][-1]), 'no object'


@pytest.mark.parametrize(
    'prefix', ['module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.']
)
def test_weights_of_wrapped_models(prefix, tmp_path):
    """Saved by DistributedDataParallel, or compiled."""
    content, model, metainfo = case('semantic', tmp_path)
    found = fit_classes('old.pth', content, model, metainfo, {})
    wrapped = {prefix + key: value for key, value in content['state_dict'].items()}
    inner = {
        key.replace('backbone.', 'backbone._orig_mod.'): value
        for key, value in content['state_dict'].items()
    }
    for state in (wrapped, inner):
        again = fit_classes('old.pth', {**content, 'state_dict': state}, model, metainfo, {})
        assert again.keys() == found.keys()
        assert all(torch.equal(again[key], value) for key, value in found.items())


def test_boxes_of_each_class_and_of_all(tmp_path):
    """One is not the other, whatever the number of classes."""
    content, model, metainfo = case('detection', tmp_path)
    key = 'roi_head.bbox_head.fc_reg.weight'
    agnostic = {**content['state_dict'], key: torch.zeros(4, 16)}
    agnostic[key.replace('weight', 'bias')] = torch.zeros(4)
    with refuses('checkpoint.other-shapes', 'fc_reg'):
        fit_classes('old.pth', {**content, 'state_dict': agnostic}, model, metainfo, {})
    model.roi_head.bbox_head.reg_class_agnostic = True
    with refuses('checkpoint.other-shapes', 'fc_reg'):
        fit_classes('old.pth', content, model, metainfo, {})


def test_what_differs_in_more_is_refused(tmp_path):
    content, model, metainfo = case('detection', tmp_path)

    def fit(**changes):
        state = {**content['state_dict'], **changes.pop('state', {})}
        for key in changes.pop('without', ()):
            del state[key]
        return fit_classes(
            'old.pth', {**content, 'state_dict': state, **changes}, model, metainfo, {}
        )

    key = 'neck.lateral_convs.0.conv.weight'
    with refuses('checkpoint.other-model', key):
        fit(without=[key])
    with refuses('checkpoint.other-model', 'neck.more'):
        fit(state={'neck.more': torch.zeros(1)})
    with refuses('checkpoint.other-shapes', key):
        fit(state={key: torch.zeros(8, 256, 1, 1)})
    with refuses('checkpoint.other-shapes', 'fc_cls.weight'):
        fit(state={'roi_head.bbox_head.fc_cls.weight': torch.zeros(9, 16)})
    with refuses('checkpoint.no-classes', 'old.pth'):
        fit(meta={})


def test_where_it_begins(tmp_path):
    known = published_checkpoints()
    cfg = load_config('faster_rcnn_resnest50_fpn_mmdet')
    url = known['faster_rcnn_resnest50_fpn_mmdet']
    assert find_checkpoint(cfg, 'published') == url
    assert find_checkpoint(cfg, 'mask_rcnn_resnest50_fpn_mmdet') != url
    with refuses('weights.unpublished', 'faster_rcnn_resnest50_fpn_mmdet'):
        find_checkpoint(load_config('faster_rcnn_resnest50_fpn'), 'published')
    with refuses('checkpoint.missing', 'faster_rcnn_resnest50_fpn_mmdet'):
        find_checkpoint(cfg, 'faster_rcnn_resnest50_fpn_mmdett')
    for given in (dict(from_scratch=True), dict(resume='auto')):
        with refuses('option.conflict', '--load-from'):
            set_start(cfg, url, given.get('resume'), given.get('from_scratch'))


@pytest.mark.slow
@pytest.mark.parametrize('averages', [False, True])
def test_trains_from_another_training(averages, tmp_path, capsys):
    """The classes that both data have are known from the first step on; averages begin there."""
    shapes = draw_dataset(
        tmp_path / 'shapes', train=2, val=1, test=1, size=(64, 64), progress=False
    )
    path = tiny.write(tmp_path, 'detection')
    if averages:
        path.write_text(path.read_text() + "custom_hooks = [dict(type='EMAHook')]\n")
    content, _, _ = case('detection', tmp_path)
    content['meta']['dataset_meta']['classes'] = (CLASSES[1], 'cat', CLASSES[0], 'bus')
    torch.save(content, tmp_path / 'old.pth')
    result = train(
        path,
        data=shapes,
        load_from=str(tmp_path / 'old.pth'),
        work_dir=tmp_path / 'work',
        cfg_options={'optim_wrapper.optimizer.lr': 0.0},
    )
    found = read_checkpoint(result.checkpoint)['state_dict']
    key = 'roi_head.bbox_head.fc_cls.weight'
    assert torch.equal(found[key][0], content['state_dict'][key][2])
    assert torch.equal(found[key][1], content['state_dict'][key][0])
    assert torch.equal(found[key][-1], content['state_dict'][key][-1])
    log = next((tmp_path / 'work').rglob('*.log')).read_text()
    assert f'2 of {len(CLASSES)} classes taken over by name, {len(CLASSES) - 2} new' in log
    assert 'size mismatch' not in log + capsys.readouterr().out
