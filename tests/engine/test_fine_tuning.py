"""``--load-from``: heads of every kind keep the rows of classes of the same name."""

import copy

import pytest
import torch
from helpers import tiny
from helpers.errors import refuses
from helpers.tiers import mark_slow
from mmengine.registry import MODELS, DefaultScope

from mmresnest.config.inspect import import_packages, model_of
from mmresnest.config.load import load_config
from mmresnest.config.retarget import set_classes
from mmresnest.config.shipped import published_checkpoints
from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.data.shapes.drawing import CLASSES
from mmresnest.engine.checkpoints import read_checkpoint
from mmresnest.engine.fine_tuning import ClassPairs, find_checkpoint, fit_classes, set_start
from mmresnest.engine.train import train
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
    found = fit_classes('old.pth', content, model, metainfo)
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


def test_regions_of_a_panoptic_model(tmp_path):
    """Stuff by its own names; the last row is of all things."""
    content, model, metainfo = case('panoptic', tmp_path)
    key, old = 'semantic_head.conv_logits.weight', content['state_dict']
    before = model.state_dict()[key].clone()
    found = fit_classes('old.pth', content, model, metainfo)[key]
    assert torch.equal(found[0], before[0])
    assert torch.equal(found[1], old[key][1]) and torch.equal(found[2], old[key][0])
    assert torch.equal(found[3], old[key][2])


@pytest.mark.slow
def test_the_same_classes_are_taken_whole(tmp_path):
    content, model, _ = case('detection', tmp_path)
    model = build('detection', tmp_path, len(OLD), seed=3)
    found = fit_classes('old.pth', content, model, dict(classes=OLD))
    assert all(torch.equal(found[key], value) for key, value in content['state_dict'].items())
    moved = fit_classes('old.pth', content, model, dict(classes=OLD[::-1]))
    key = 'roi_head.bbox_head.fc_cls.bias'
    assert torch.equal(moved[key][:4], content['state_dict'][key][:4].flip(0))


def test_pairs():
    assert ClassPairs.match(OLD, NEW) == ClassPairs(4, 3, ((2, 0), (0, 2)))
    assert ClassPairs.match(OLD, OLD).same and not ClassPairs.match(OLD, OLD[::-1]).same


def test_what_differs_in_more_is_refused(tmp_path):
    content, model, metainfo = case('detection', tmp_path)

    def fit(**changes):
        state = {**content['state_dict'], **changes.pop('state', {})}
        for key in changes.pop('without', ()):
            del state[key]
        return fit_classes('old.pth', {**content, 'state_dict': state, **changes}, model, metainfo)

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
def test_trains_from_another_training(tmp_path):
    """The classes that both data have are known from the first step on."""
    shapes = draw_dataset(
        tmp_path / 'shapes', train=2, val=1, test=1, size=(64, 64), progress=False
    )
    path = tiny.write(tmp_path, 'detection')
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
