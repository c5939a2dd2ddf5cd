"""Learn some of the classes of a data set: ``--classes cat,dog``.

A detector does not read the objects of the others, so that they are background to it. A segmentor
has a class for each pixel: where the data have a class called background, the pixels of the others
are of that, which is learned, too; otherwise they are left out of training and scores, as mmseg
does it. Such masks are written into the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..data.base import IGNORED, list_files
from ..data.mask_mapping import IGNORE, MaskMapping, write_index_masks
from ..errors import UserError, nearest
from .checks.part import Names
from .inspect import LOADERS, dataset_configs, import_packages, model_of, task_of, type_of
from .load import name_of
from .retarget import make_palette, set_classes

BACKGROUND = 'background'


def select_classes(cfg: Config, classes: str) -> None:
    """Have a model learn some classes.

    Args:
        cfg: a config with its data; changed in place.
        classes: names, with commas between them. A segmentor numbers them in this order, after a
            background; a detector in that of the data's categories, as mmdet does.

    Raises:
        UserError: a name is not of the data, or stands twice; or the masks cannot be written anew.
    """
    wanted = tuple(name.strip() for name in classes.split(',') if name.strip())
    leaves = [
        leaf
        for name in LOADERS
        if cfg.get(name) is not None
        for leaf in dataset_configs(cfg[name]['dataset'])
    ]
    if not leaves:
        raise UserError(f'--classes: {name_of(cfg)} has no data', code='config.incomplete')
    import_packages(cfg)
    known = Names.read(cfg, leaves[0]).classes
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        name = (unknown or [classes])[0]
        raise UserError(
            f'--classes: the data have no class {name!r}; {nearest(name, known)}',
            code='option.unknown',
        )
    if len(set(wanted)) < len(wanted):
        raise UserError(f'--classes {classes}: a class stands twice', code='option.value')
    task = task_of(cfg)
    if task == 'panoptic':
        raise UserError(
            '--classes is for boxes, instance masks and masks of classes; of panoptic data, take '
            'the segments of the others out of the files',
            code='option.conflict',
        )
    if task == 'semantic':
        wanted = _select_pixels(leaves, wanted, known)
    else:
        wanted = tuple(name for name in known if name in wanted)
    for leaf in leaves:
        leaf['metainfo'] = dict(classes=wanted, palette=make_palette(len(wanted)))
    set_classes(model_of(cfg), len(wanted))


def _select_pixels(
    leaves: Sequence[dict], wanted: tuple[str, ...], known: Sequence[str]
) -> tuple[str, ...]:
    """Have masks of some classes alone; return the classes."""
    ground = next((name for name in known if name.lower().strip('_') == BACKGROUND), None)
    if ground is not None:
        wanted = (ground, *(name for name in wanted if name != ground))
    if len(wanted) < 2:
        raise UserError(
            f'--classes {wanted[0]}: all pixels that are left would be of this class'
            + (
                '; name another beside it'
                if ground
                else f', since the data have no class {BACKGROUND}, and other pixels are left out; '
                f'name another class beside it, or say by --mask-values which are {BACKGROUND}'
            ),
            code='option.value',
        )
    rest = ground or IGNORE
    names = [name if name in wanted else rest for name in known]
    order = sorted(
        range(len(known)), key=lambda at: (names[at] == IGNORE, _rank(names[at], wanted))
    )
    mapping = MaskMapping((*((at, names[at]) for at in order), (IGNORED, IGNORE)))
    for leaf in leaves:
        _map_masks(leaf, mapping)
    print_log(
        f'of the masks {", ".join(wanted)} are learned; pixels of other classes are '
        + (f'of {ground}' if ground else 'left out'),
        'current',
    )
    return wanted


def _rank(name: str, wanted: Sequence[str]) -> int:
    return wanted.index(name) if name in wanted else len(wanted)


def _map_masks(leaf: dict[str, Any], mapping: MaskMapping) -> None:
    """Have a data set read masks with other indices, from the cache."""
    if type_of(leaf) != 'BaseSegDataset' or leaf.get('reduce_zero_label'):
        raise UserError(
            f'--classes: {leaf.get("type")} numbers the classes of its masks by itself; give their '
            'folder by --data',
            code='option.conflict',
        )
    prefix = leaf['data_prefix']
    if prefix.get('seg_map_path') is None:
        return  # a test split without annotations
    root = Path(leaf.get('data_root') or '')
    folder, tail = root / prefix['seg_map_path'], leaf.get('img_suffix', '.jpg')
    if leaf.get('ann_file'):
        names = (root / leaf['ann_file']).read_text(encoding='utf-8').splitlines()
    else:
        images = list_files(root / prefix['img_path'], (tail.lower(),))
        names = [name[: -len(tail)] for name in images]
    suffix = leaf.get('seg_map_suffix', '.png')
    written = write_index_masks([folder / (name + suffix) for name in names], folder, mapping)
    leaf['data_prefix'] = dict(prefix, seg_map_path=str(written))
    leaf['seg_map_suffix'] = Path(f'x{suffix}').stem[1:] + '.png'
