"""Shipped configs pointed at data of the user, and changes of their data sets."""

from pathlib import Path

from mmengine.config import Config

from mmresnest.config.inspect import LOADERS, dataset_configs
from mmresnest.config.load import load_config
from mmresnest.data.shapes.drawing import CLASSES

LEAVES = {
    'detection': 'faster_rcnn_resnest50_fpn',
    'cascade': 'cascade_rcnn_resnest50_fpn',
    'instance': 'mask_rcnn_resnest50_fpn',
    'panoptic': 'panoptic_fpn_resnest50_fpn',
    'semantic': 'deeplabv3_resnest50_ade20k',
    'cityscapes': 'deeplabv3_resnest50_cityscapes',
}


SEMANTIC = ('semantic', 'cityscapes')


NAMES = ('background', *CLASSES)  # of pixels; of panoptic segments, the background is last


COUNT = len(CLASSES)


def options(kind: str, root: Path) -> dict:
    """What a user writes, to --cfg-options or in a config, to use data of their own."""
    found = {}
    for split in ('train', 'val', 'test'):
        if kind in SEMANTIC:
            city = kind == 'cityscapes'
            prefix = (
                dict(img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}')
                if city
                else dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}')
            )
            settings = dict(
                type='BaseSegDataset',
                reduce_zero_label=False,
                data_prefix=prefix,
                metainfo=dict(classes=NAMES),
            )
            settings.update(
                dict(img_suffix='_leftImg8bit.png', seg_map_suffix='_gtFine_labelTrainIds.png')
                if city
                else {}
            )
        elif kind == 'panoptic':
            settings = dict(
                ann_file=f'panoptic_{split}.json',
                data_prefix=dict(img=split, seg=f'panoptic_{split}'),
                metainfo=dict(
                    classes=(*CLASSES, 'background'),
                    thing_classes=CLASSES,
                    stuff_classes=('background',),
                ),
            )
            if split != 'train':
                found[f'{split}_evaluator.ann_file'] = str(root / f'panoptic_{split}.json')
                found[f'{split}_evaluator.seg_prefix'] = str(root / f'panoptic_{split}')
        else:
            settings = dict(
                ann_file=f'{split}.json',
                data_prefix=dict(img=split),
                metainfo=dict(classes=CLASSES),
            )
            if split != 'train':
                found[f'{split}_evaluator.ann_file'] = str(root / f'{split}.json')
        for key, value in dict(settings, data_root=str(root)).items():
            found[f'{split}_dataloader.dataset.{key}'] = value
    head = 'model.roi_head.{}_head.num_classes'
    numbers = {
        'detection': {head.format('bbox'): COUNT},
        'cascade': {f'model.roi_head.bbox_head.{stage}.num_classes': COUNT for stage in range(3)},
        'instance': {head.format('bbox'): COUNT, head.format('mask'): COUNT},
        'panoptic': {
            head.format('bbox'): COUNT,
            head.format('mask'): COUNT,
            **{
                f'model.{part}.num_{group}_classes': count
                for part in ('semantic_head', 'panoptic_fusion_head')
                for group, count in (('things', COUNT), ('stuff', 1))
            },
        },
        'semantic': {
            f'model.{part}_head.num_classes': COUNT + 1 for part in ('decode', 'auxiliary')
        },
    }
    return {**found, **numbers['semantic' if kind == 'cityscapes' else kind]}


LOADED: dict[str, Config] = {}


def pointed(kind: str, root: Path, change=None) -> Config:
    """A shipped config at its full size, pointed at the data by plain options."""
    if kind not in LOADED:
        LOADED[kind] = load_config(LEAVES[kind])
    cfg = Config(LOADED[kind].to_dict(), filename=LOADED[kind].filename)
    cfg.merge_from_dict(options(kind, root))
    for node in annotations_of(cfg):  # the data set's word counts
        node.pop('reduce_zero_label', None)
        if kind == 'instance':  # as --data does: the masks drawn are run lengths
            node['poly2mask'] = True
    (change or (lambda cfg: None))(cfg)
    return cfg


def leaves(cfg):
    return [leaf for name in LOADERS for leaf in dataset_configs(cfg[name].dataset)]


def annotations_of(cfg):
    return [
        step for leaf in leaves(cfg) for step in leaf.pipeline if step['type'] == 'LoadAnnotations'
    ]


def put(path, value):
    return lambda cfg: cfg.merge_from_dict({path: value})


def each_set(**settings):
    """Sets something of every data set; what is in metainfo, there."""

    def change(cfg):
        for leaf in leaves(cfg):
            for key, value in settings.items():
                owner = leaf.metainfo if key in ('classes', 'thing_classes', 'palette') else leaf
                owner[key] = value

    return change
