"""Configs of each kind at a size of seconds, over real ones, as a user would write them.

The networks have one block a stage and a quarter of their width.
"""

from pathlib import Path

import torch
from mmengine.registry import MODELS, DefaultScope

from mmresnest.config import hardware as configs_hardware
from mmresnest.config import inspect as configs_inspect

DETECTION = """
_base_ = 'mmresnest::faster_rcnn_resnest50_fpn.py'
model = dict(
    backbone=dict(arch='resnest14', base_channels=16, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=16, conv_out_channels=16)),
    test_cfg=dict(rpn=dict(max_per_img=20, nms_pre=100), rcnn=dict(max_per_img=5)))
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
resize = dict(type='Resize', scale=(64, 64), keep_ratio=True)
pack = dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
few = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=2, **few,
    dataset=dict(
        filter_cfg=dict(min_size=1),
        pipeline=[*load, resize, dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]))
val_dataloader = dict(**few, dataset=dict(pipeline=[load[0], resize, load[1], pack]))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
"""

INSTANCE = """
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        _delete_=True, type='mmresnest.ResNeSt', arch='resnest14', base_channels=16,
        norm_cfg=dict(type='SyncBN', requires_grad=True)),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        mask_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=16),
        mask_head=dict(num_convs=1, in_channels=16, conv_out_channels=16)),
    test_cfg=dict(rpn=dict(max_per_img=20, nms_pre=100), rcnn=dict(max_per_img=5)))
load = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
resize = dict(type='Resize', scale=(64, 64), keep_ratio=True)
pack = dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
few = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=2, **few,
    dataset=dict(filter_cfg=dict(min_size=1), pipeline=[*load, resize, dict(type='PackDetInputs')]))
val_dataloader = dict(**few, dataset=dict(pipeline=[load[0], resize, load[1], pack]))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
"""

PANOPTIC = """
_base_ = 'mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        _delete_=True, type='mmresnest.ResNeSt', arch='resnest14', base_channels=16,
        norm_cfg=dict(type='SyncBN', requires_grad=True)),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        mask_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=16),
        mask_head=dict(num_convs=1, in_channels=16, conv_out_channels=16)),
    semantic_head=dict(
        in_channels=16, inner_channels=16,
        norm_cfg=dict(type='GN', num_groups=4, requires_grad=True)),
    test_cfg=dict(rpn=dict(max_per_img=20, nms_pre=100), rcnn=dict(max_per_img=5)))
load = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPanopticAnnotations', backend_args=None)]
resize = dict(type='Resize', scale=(64, 64), keep_ratio=True)
pack = dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
few = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=2, **few,
    dataset=dict(filter_cfg=dict(min_size=1), pipeline=[*load, resize, dict(type='PackDetInputs')]))
val_dataloader = dict(**few, dataset=dict(pipeline=[load[0], resize, load[1], pack]))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
"""

SEMANTIC = """
_base_ = 'mmresnest::deeplabv3_resnest50_ade20k.py'
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(arch='resnest14', base_channels=16, init_cfg=None),
    decode_head=dict(in_channels=512, channels=16),
    auxiliary_head=dict(in_channels=256, channels=16))
resize = dict(type='Resize', scale=(64, 64), keep_ratio=True)
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)]
few = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=2, **few,
    dataset=dict(pipeline=[*load, resize, dict(type='PackSegInputs')]))
val_dataloader = dict(**few, dataset=dict(pipeline=[load[0], resize, load[1],
                                                    dict(type='PackSegInputs')]))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2))
"""

TEXTS = {'detection': DETECTION, 'instance': INSTANCE, 'panoptic': PANOPTIC, 'semantic': SEMANTIC}


def write(folder: Path, kind: str) -> Path:
    """Writes the config of a kind, and returns its path."""
    path = folder / f'tiny_{kind}.py'
    path.write_text(TEXTS[kind])
    return path


def save_random(cfg, path, **meta):
    """A checkpoint of a config's model, its weights and the statistics of its norms random."""
    torch.manual_seed(0)
    configs_hardware.replace_sync_norms(cfg.model)
    configs_inspect.import_packages(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            torch.nn.init.uniform_(module.weight, 0.8, 1.2)
    leaf = configs_inspect.dataset_configs(cfg.test_dataloader.dataset)[0]
    meta = meta or dict(dataset_meta=leaf.metainfo.to_dict())
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return str(path)
