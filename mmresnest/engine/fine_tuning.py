"""Begin from a model that was trained on other classes: ``--load-from``.

The whole network is taken, and of the layers that have rows for classes (:data:`LAYERS`) the rows
of the classes of the same name. A row is what a layer holds for a class: one row of a classifier,
four of a regression of boxes, one for each anchor of a dense head. Rows beyond those of classes,
such as the background's, are taken as they are; a new class keeps the row that it was initialized
with. Whatever else differs, in name or shape, is refused.
"""

from __future__ import annotations

import copy
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..config.hardware import UNDIVIDED, strategy_of
from ..config.load import name_of
from ..config.retarget import drop_weights, set_classes
from ..config.shipped import published_checkpoints
from ..errors import UserError, nearest
from ..models.norms import replace_sync_norms
from ..models.weights import loading, locate_checkpoint, reader
from .checkpoints import read_checkpoint
from .class_order import recorded_classes
from .wrappers import unwrap_model

OWN = 'published'
"""The checkpoint that the config itself names."""

LAYERS = {
    'rows': (
        'fc_cls',
        'conv_logits',
        'conv_seg',
        'pam_conv_seg',  # of DANet, beside its conv_seg
        'cam_conv_seg',
        'aux_cls_seg',  # of DDRNet
        'p_cls_seg',  # of PIDNet
        'cls_embed',
        'fc_mask_iou',
        'label_embedding',  # of the noised queries of DINO and its kind
        'center_prior',  # of AutoAssign
        'heatmap_head.2',  # of CenterNet
        'segm_conv',  # of YOLACT
        'glbctx_head.fc',  # of SCNet
        'se_layer',  # of EncNet
        'cum_samples',  # of Seesaw loss
    ),
    'boxes': ('fc_reg',),
    'anchors': (
        'retina_cls',
        'atss_cls',
        'gfl_cls',
        'vfnet_cls',
        'tood_cls',
        'conv_cls',
        'cls_score',
        'cls_branches',
        'aux_cls_branches',  # of DDQ
        'reppoints_cls_out',
        'rtm_cls',
        'multi_level_conv_cls',
    ),
}
"""How rows are arranged: one a class; four coordinates a class; all classes of each anchor.

Of two names with a dot between them the first is the module that the second stands in.
"""
CLASSLESS = ('backbone', 'rpn_head', 'roi_head.semantic_head')
MAX_NAMES = 5  # of new classes that a line lists
ARRANGEMENTS = {name: kind for kind, names in LAYERS.items() for name in names}


def set_start(cfg: Config, source: str, resume: str | None, from_scratch: bool | None) -> None:
    """Have a training begin from the weights of another one.

    Args:
        cfg: the config, its work folder searched for what is to be resumed.
        source: a file, a URL, the name of a config of ours whose checkpoint is published, or
            :data:`OWN`.
        resume: of the training.
        from_scratch: likewise.

    Raises:
        UserError: options that exclude each other, or there is no such checkpoint.
    """
    if from_scratch or resume not in (None, 'if-any'):
        other = '--from-scratch' if from_scratch else '--resume'
        raise UserError(
            f'--load-from begins from the weights of another training, and {other} does not; '
            'leave one of them out',
            code='option.conflict',
        )
    if cfg.get('resume'):  # something was there
        return
    strategy = strategy_of(cfg)
    if strategy not in (*UNDIVIDED, 'DDPStrategy'):
        raise UserError(
            f'--load-from takes rows of whole layers, and {strategy} divides them among '
            'processes; train an iteration without --strategy, and resume from it with',
            code='option.conflict',
        )
    path, _ = locate_checkpoint(find_checkpoint(cfg, source))
    read_checkpoint(path)
    drop_weights(cfg)  # the checkpoint has the backbone's
    cfg.load_from = str(path)


def find_checkpoint(cfg: Config, source: str) -> str:
    """Return the path or URL of a checkpoint.

    Raises:
        UserError: the config has none that is published, or there is no file and no such config.
    """
    known = published_checkpoints()
    if source == OWN:
        name = os.path.splitext(os.path.basename(cfg.filename or ''))[0]
        if name not in known:
            siblings = [
                f'{name}{tail}' for tail in ('_mmdet', '_mmseg') if f'{name}{tail}' in known
            ]
            raise UserError(
                f'--load-from: no checkpoint of {name_of(cfg)} was published; '
                + (
                    f'one of this network is, of {siblings[0]}: train that config instead'
                    if siblings
                    else 'give a file, a URL or the name of a config with one; '
                    + nearest(name, known)
                ),
                code='weights.unpublished',
            )
        return known[name]
    if source in known:
        return known[source]
    if '://' in source or os.path.exists(os.path.expanduser(source)):
        return source
    raise UserError(
        f'--load-from {source}: there is no such file, and no config of that name whose '
        f'checkpoint is published; {nearest(source, known)}',
        code='checkpoint.missing',
    )


class TakeOver(Hook):
    """Fit the checkpoint that a training begins from to its classes.

    Args:
        source: the checkpoint, for messages.
    """

    priority = 'HIGHEST'  # before EMAHook, which takes the weights, too

    def __init__(self, source: str) -> None:
        self.source = source

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Put weights into the checkpoint that fit the model."""
        if runner._resume:
            return
        metainfo = runner.train_loop.dataloader.dataset.metainfo
        model = unwrap_model(runner.model)
        checkpoint['state_dict'] = fit_classes(
            self.source, checkpoint, model, metainfo, runner.cfg.model
        )


@dataclass(frozen=True)
class ClassPairs:
    """Classes of a head, before and now.

    Attributes:
        old: how many there were.
        new: how many there are.
        pairs: old and new label of each that has the same name.
    """

    old: int
    new: int
    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def match(cls, old: Sequence[str], new: Sequence[str]) -> ClassPairs:
        """Match names: as they are, or else whatever their case, spaces, hyphens, underscores."""
        exact = {name: label for label, name in reversed([*enumerate(old)])}
        counts = Counter(map(fold_name, exact))
        folded = {fold_name(name): label for name, label in exact.items()}
        pairs = []
        for label, name in enumerate(new):
            short = fold_name(name)
            former = exact.get(name, folded[short] if counts[short] == 1 else None)
            if former is not None:
                pairs.append((former, label))
        return cls(len(old), len(new), tuple(pairs))

    @property
    def same(self) -> bool:
        """Return whether every label means what it meant."""
        every = tuple((label, label) for label in range(self.new))
        return self.old == self.new and self.pairs == every


def fold_name(name: str) -> str:
    """Return what of a class's name counts where it is spelled in several ways."""
    return re.sub(r'[\s_-]', '', name.casefold()) or name


def fit_classes(
    source: object,
    content: Mapping[str, Any],
    model: nn.Module,
    metainfo: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Return the whole state dict of a model, from a checkpoint of other classes.

    Args:
        source: the checkpoint, for messages.
        content: of the checkpoint.
        model: initialized.
        metainfo: of the data set that it will be trained on.
        settings: the config of the model.

    Raises:
        UserError: another model, or a layer that differs in more than its classes.
    """
    given = loading.adapt_state_dict(model, reader.tensors_of(content['state_dict']))
    own = {key: value.detach().clone() for key, value in model.state_dict().items()}
    check_names(source, own, given)
    heads = match_heads(content, metainfo, any(key.startswith('panoptic_head.') for key in own))
    every = heads['']
    if not every.old and any(own[key].shape != given[key].shape for key in own if key in given):
        raise UserError(
            f'{source} does not name its classes, and not all of its weights fit: which rows are '
            'of which class cannot be told; give a checkpoint with the names in its meta '
            '(dataset_meta), or weights of the backbone alone in init_cfg',
            code='checkpoint.no-classes',
        )
    modules = dict(model.named_modules())
    if every.old == every.new and not every.same:  # shapes do not tell
        check_arrangement(source, settings, own, modules, metainfo)
    for key, value in given.items():
        if key not in own:
            continue
        part = 'semantic_head' if key.startswith('semantic_head.') else ''
        pairs = heads.get(part, every)
        arrangement = arrange(key, modules) if every.old else None
        if arrangement is not None and not pairs.same:
            own[key] = take_rows(source, key, own[key], value, arrangement, pairs)
        elif own[key].shape == value.shape:
            own[key] = value
        else:
            raise unfit(source, key, own[key], value)
    print_log(describe(source, heads, metainfo), 'current')
    return own


def match_heads(
    content: Mapping[str, Any], metainfo: Mapping[str, Any], unified: bool
) -> dict[str, ClassPairs]:
    """Match the classes of heads: '' of all, ``semantic_head`` of a panoptic model's regions.

    Args:
        content: of the checkpoint.
        metainfo: of the data set.
        unified: one head has things and regions, as MaskFormer's.
    """
    new, things = metainfo.get('classes') or (), metainfo.get('thing_classes') or ()
    old, former = recorded_classes(content), recorded_classes(content, 'thing_classes')
    if unified or not things:
        return {'': ClassPairs.match(old, new)}
    return {
        '': ClassPairs.match(former, things),
        'semantic_head': ClassPairs.match(old[len(former) :], new[len(things) :]),
    }


def describe(source: object, heads: Mapping[str, ClassPairs], metainfo: Mapping[str, Any]) -> str:
    """Return what was taken over, in a line, with the names of the classes that were not."""
    if not heads[''].old:
        return f'{source} does not name its classes: all rows are taken over by number'
    names, said = list(metainfo.get('classes') or ()), []
    for part, classes in heads.items():
        own, names = names[: classes.new], names[classes.new :]
        known = {label for _, label in classes.pairs}
        fresh = [name for label, name in enumerate(own) if label not in known]
        shown = f' ({", ".join(fresh[:MAX_NAMES])}{", ..." * (len(fresh) > MAX_NAMES)})'
        said.append(
            f'{len(known)} of {classes.new} {"regions" if part else "classes"} taken over by name, '
            f'{len(fresh)} new{shown if fresh else ""}'
        )
    return f'begins from {source}: {"; ".join(said)}'


def check_arrangement(
    source: object,
    settings: Mapping[str, Any],
    own: Mapping[str, Tensor],
    modules: Mapping[str, nn.Module],
    metainfo: Mapping[str, Any],
) -> None:
    """Refuse a model with a layer of classes whose rows are not known, by another of its kind.

    Args:
        source: the checkpoint, for messages.
        settings: the config of the model.
        own: its weights.
        modules: its modules.
        metainfo: of the data set.

    Raises:
        UserError: a layer that :func:`arrange` does not know depends on the number of classes.
    """
    things = len(metainfo.get('thing_classes') or metainfo['classes'])
    stuff = len(metainfo['classes']) - things
    larger = copy.deepcopy(settings)
    set_classes(larger, things + 1, stuff + 1 if stuff else 0)
    replace_sync_norms(larger)
    for key, value in build_empty(larger).state_dict().items():
        if key not in own or own[key].shape == value.shape or is_classless(key):
            continue
        if arrange(key, modules) is None:
            raise UserError(
                f'{source} has other classes, and {key} depends on them in a way that is not '
                'known here: its rows cannot be taken over by name. Give a checkpoint of the same '
                'classes, or weights of the backbone alone in init_cfg',
                code='checkpoint.other-shapes',
            )


def build_empty(settings: Any) -> nn.Module:
    """Return a model without values, or with any where it needs some to be built."""
    try:
        with torch.device('meta'):
            return MODELS.build(copy.deepcopy(settings))
    except Exception:
        return MODELS.build(settings)


def check_names(source: object, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint that lacks weights of the model, or has others."""
    lacking = [key for key in own if key not in given and not key.endswith('num_batches_tracked')]
    # The semantic branch of HTC is left out where the data have no semantic masks.
    beside = [key for key in given if key not in own and 'roi_head.semantic_head.' not in key]
    if lacking or beside:
        said = [
            f'{what} {", ".join(sorted(keys)[:3])}' + (' ...' if len(keys) > 3 else '')
            for what, keys in (('lacks', lacking), ('has besides', beside))
            if keys
        ]
        raise UserError(
            f'{source} is of another model: it {" and ".join(said)}; begin with the config that '
            'it was trained with',
            code='checkpoint.other-model',
        )


def is_classless(key: str) -> bool:
    """Return whether a tensor is of a part that knows nothing of the classes of objects."""
    return any(f'.{part}.' in f'.{key}' for part in CLASSLESS)


def arrange(key: str, modules: Mapping[str, nn.Module]) -> tuple[str, int] | None:
    """Return how the rows of a tensor are arranged and how many classes each repeats beyond.

    None where it has no rows for classes.
    """
    names = key.split('.')
    found = [
        (index, layer)
        for index in range(len(names))
        for layer in (names[index], '.'.join(names[index : index + 2]))
        if layer in ARRANGEMENTS
    ]
    if not found or is_classless(key):
        return None
    index, layer = found[-1]
    head: Any = modules['.'.join(names[:index])]
    kind = ARRANGEMENTS[layer]
    if kind == 'boxes' and getattr(head, 'reg_class_agnostic', True):  # DETR's, for one
        return None
    if getattr(head, 'class_agnostic', False) or getattr(head, 'out_channels', 0) == 1:
        return None
    if kind != 'anchors':
        return kind, 0
    return kind, getattr(head, 'cls_out_channels', head.num_classes) - head.num_classes


def take_rows(
    source: object,
    key: str,
    new: Tensor,
    old: Tensor,
    arrangement: tuple[str, int],
    classes: ClassPairs,
) -> Tensor:
    """Return a tensor with the rows of the classes that have them, and the others as they were.

    Args:
        source: the checkpoint, for messages.
        key: of the tensor.
        new: rows of the model, for (anchors of) classes and what is beyond.
        old: rows of the checkpoint, likewise.
        arrangement: see :func:`arrange`.
        classes: which rows go where.

    Raises:
        UserError: more differs than the number of classes.
    """
    kind, beyond = arrangement
    if kind == 'rows':
        beyond = len(new) - classes.new
    per_class = 4 if kind == 'boxes' else 1
    repeats, rest = divmod(len(new), (classes.new + beyond) * per_class)
    size = repeats * (classes.old + beyond) * per_class
    if rest or beyond < 0 or len(old) != size or old.shape[1:] != new.shape[1:]:
        raise unfit(source, key, new, old)
    inside = new.shape[1:]
    result = new.clone().view(repeats, classes.new + beyond, per_class, *inside)
    rows = old.reshape(repeats, classes.old + beyond, per_class, *inside)
    for former, label in classes.pairs:
        result[:, label] = rows[:, former]
    result[:, classes.new :] = rows[:, classes.old :]
    return result.view(new.shape)


def unfit(source: object, key: str, new: Tensor, old: Tensor) -> UserError:
    """Return the error of a tensor that differs in more than its classes."""
    return UserError(
        f'{source} does not fit this model: {key} is {tuple(old.shape)} in the file and '
        f'{tuple(new.shape)} in the model, which is more than other classes; begin with the '
        'config that it was trained with',
        code='checkpoint.other-shapes',
    )
