"""Learn some of the classes of a data set: ``--classes cat,dog``."""

from __future__ import annotations

from mmengine.config import Config

from ..errors import UserError, nearest
from .checks.part import Names
from .inspect import LOADERS, dataset_configs, import_packages, model_of, task_of
from .load import name_of
from .retarget import make_palette, set_classes


def select_classes(cfg: Config, classes: str) -> None:
    """Have a detector learn some classes: annotations of the others are not read.

    Args:
        cfg: a config with its data; changed in place.
        classes: names, with commas between them; labels have their order.

    Raises:
        UserError: a name is not of the data, or stands twice; or pixels of the other classes would
            have to be something.
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
    if task_of(cfg) not in ('detection', 'instance'):
        mapping = ','.join(
            f'{value}={name if name in wanted else "ignore"}' for value, name in enumerate(known)
        )
        raise UserError(
            '--classes leaves out the boxes of other classes, and each pixel of a mask is of some '
            f'class; say what becomes of the others: --mask-values {mapping} leaves them out, and '
            'one name for several values joins these',
            code='option.conflict',
        )
    for leaf in leaves:
        leaf['metainfo'] = dict(classes=wanted, palette=make_palette(len(wanted)))
    set_classes(model_of(cfg), len(wanted))
