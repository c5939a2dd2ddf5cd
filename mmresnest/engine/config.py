"""Configs: found and parsed, pointed at a user's data, and checked against the machine.

Everything here works on any mmdet or mmseg config, not only on ours, and changes it in place.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import logging
import os
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..compat.registries import configs_are_data
from ..data.folder import DataFolder, read_folder
from ..errors import UserError, nearest
from ..shipped import shipped_configs, shipped_folder
from . import safe_config

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
SYNC_NORMS = ('SyncBN', 'MMSyncBN', 'NaiveSyncBN')

INSTALL = (
    'install one stack, pip install "mmresnest[onedl]" or pip install '
    '"mmresnest[openmmlab]"; `mmresnest doctor` says what is there'
)


# ---- finding and parsing -------------------------------------------------------------------------


def load_config(
    name_or_path: str | os.PathLike,
    options: Mapping[str, Any] | None = None,
    safe: bool | None = None,
) -> Config:
    """Loads a config.

    Args:
        name_or_path: a file, the name of a config that comes with mmresnest (with or without
            ``.py``), or ``package::path`` for one of mmdet, mmseg or mmresnest.
        options: settings to override, dotted names to values.
        safe: read it as data, see :mod:`mmresnest.engine.safe_config`; by default where the
            environment asks for it, as under ``--safe-config``.

    Returns:
        the parsed config, options merged.

    Raises:
        UserError: if there is no such config, or it cannot be parsed; then with file and line.
    """
    path = find_config(name_or_path)
    try:
        data_only = configs_are_data() if safe is None else safe
        cfg = safe_config.parse(path) if data_only else Config.fromfile(str(path))
    except UserError:
        raise
    except Exception as error:  # a config is a program: it can fail in every way there is
        raise _explain(path, error) from error
    merge(cfg, options)
    return cfg


def merge(cfg: Config, options: Mapping[str, Any] | None) -> None:
    """Overrides settings of a config, dotted names to values.

    Raises:
        UserError: if a name goes through something that is no dictionary or list of the config.
    """
    try:
        cfg.merge_from_dict(dict(options or {}))
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, AssertionError) as error:
        raise UserError(
            f'the options {dict(options or {})} cannot be merged into '
            f'{cfg.filename or "the config"}: {_said(error)}; write them as '
            'key.subkey=value, and list entries by their number'
        ) from error


def find_config(name_or_path: str | os.PathLike) -> Path:
    """The file that a config's name or path means.

    Raises:
        UserError: if there is none, with the nearest names.
    """
    text = os.fspath(name_or_path)
    if '::' in text:
        return _foreign(text)
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f'{path} is a folder, and a config is a file')
    shipped = shipped_configs()
    if path.parent.as_posix() in ('.', 'configs') and path.name.removesuffix('.py') in shipped:
        return shipped[path.name.removesuffix('.py')]
    siblings = {other.stem for other in path.parent.glob('*.py')} if path.parent.is_dir() else set()
    names = sorted(siblings | set(shipped))
    raise UserError(
        f'there is no config {text}: neither the file {path.absolute()} nor a config '
        f'of mmresnest by that name; {nearest(path.stem, names)}'
    )


def _foreign(text: str) -> Path:
    """Looks up ``package::path`` without installing anything, as mmengine would."""
    package, _, inner = text.partition('::')
    inner = inner if inner.endswith('.py') else inner + '.py'
    if package == 'mmresnest':
        folder = shipped_folder()
    else:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or spec.origin is None:
            raise UserError(
                f'the config {text} is of the package {package!r}, which is not '
                'installed; install it, or correct its name'
            )
        folder = Path(spec.origin).parent / '.mim' / 'configs'
    if (folder / inner).is_file():
        return folder / inner
    every = {path.relative_to(folder).as_posix() for path in folder.glob('*/*.py')} | {
        path.name for path in folder.glob('*.py')
    }
    if not every:
        raise UserError(
            f'{package} came without configs ({folder} is missing); install it from a wheel'
        )
    raise UserError(f'{package} has no config {inner}; {nearest(inner, sorted(every))}')


def _said(error: BaseException) -> str:
    return f'{type(error).__name__}: {error}'


def _bases(path: Path, tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The entries of a config's ``_base_`` and the line it stands in."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == '_base_' for target in node.targets
        ):
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                continue
            for entry in [value] if isinstance(value, str) else value:
                yield str(entry), node.lineno


def _explain(path: Path, error: Exception) -> UserError:
    """Turns whatever mmengine raised for a config into file, line and remedy."""
    queue, seen = [path], set()
    while queue:
        current = queue.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.suffix != '.py':
            continue
        try:
            tree = ast.parse(current.read_text(encoding='utf-8'), str(current))
        except SyntaxError as syntax:
            return UserError(
                f'{current}, line {syntax.lineno}: {syntax.msg}'
                + (f': {syntax.text.strip()}' if syntax.text else '')
            )
        except (OSError, UnicodeDecodeError, ValueError) as reading:
            return UserError(f'the config {current} cannot be read: {_said(reading)}')
        for entry, line in _bases(current, tree):
            if '::' in entry:
                try:
                    queue.append(_foreign(entry))
                except UserError as gone:
                    # mmengine also knows names by a package's model index, so that only a package
                    # that is missing altogether is certain to be the cause.
                    if 'not installed' in str(gone):
                        return UserError(f'{current}, line {line}: {gone}')
                continue
            base = Path(os.path.normpath(current.parent / entry))
            if not base.is_file():
                siblings = [other.name for other in base.parent.glob('*.py')]
                missing = f'there is no folder {base.parent}'
                hint = nearest(base.name, siblings) if siblings else missing
                return UserError(
                    f'{current}, line {line}: its _base_ {base} does not exist; {hint}'
                )
            queue.append(base)
    frames = traceback.extract_tb(error.__traceback__)
    own = {os.path.abspath(file) for file in seen}
    for frame in reversed(frames):
        if os.path.abspath(frame.filename) in own:
            return UserError(f'{frame.filename}, line {frame.lineno}: {_said(error)}')
    if path.suffix not in ('.py', '.json', '.yml', '.yaml'):
        return UserError(f'{path} is not a config: its name must end in .py, .json or .yml')
    return UserError(f'the config {path} cannot be parsed: {_said(error)}')


# ---- what a config is for ------------------------------------------------------------------------


def task_of(cfg: Config) -> str:
    """What the model of a config does: ``detection``, ``instance``, ``panoptic`` or ``semantic``.

    Seen by its heads, since class names differ between packages.
    """
    model = model_of(cfg)
    if 'decode_head' in model or model.get('type', '').endswith('EncoderDecoder'):
        return 'semantic'
    if 'panoptic_fusion_head' in model or ('semantic_head' in model and 'roi_head' in model):
        return 'panoptic'
    heads = [model, model.get('roi_head') or {}]
    if any('mask_head' in head for head in heads):
        return 'instance'
    return 'detection'


def model_of(cfg: Config) -> dict:
    """The model itself, without what wraps it for augmented testing.

    Raises:
        UserError: the config has none.
    """
    model = cfg.get('model')
    if not isinstance(model, dict):
        raise UserError(
            f'the config {cfg.filename or ""} has no model; give a whole config, not '
            'one of the pieces under configs/_base_'
        )
    while isinstance(model.get('module'), dict):
        model = model['module']
    return model


def scope_of(cfg: Config) -> str:
    """The package whose names the config uses without prefix."""
    return cfg.get('default_scope') or ('mmseg' if task_of(cfg) == 'semantic' else 'mmdet')


def register(cfg: Config) -> None:
    """Imports the package that a config needs, and sets its ``default_scope`` if it has none.

    Raises:
        UserError: if the package is missing or refuses to load.
    """
    cfg.default_scope = scope_of(cfg)
    for name in ('mmcv', cfg.default_scope):
        try:
            with warnings.catch_warnings():
                # mmdet tells everyone of an optional package that none of our configs uses.
                warnings.filterwarnings('ignore', message='faster_coco_eval is not installed')
                importlib.import_module(name)
                if name != 'mmcv' and importlib.util.find_spec(f'{name}.utils') is not None:
                    utils = importlib.import_module(f'{name}.utils')
                    if hasattr(utils, 'register_all_modules'):
                        utils.register_all_modules(init_default_scope=False)
        except ModuleNotFoundError as error:
            raise UserError(
                f'the config {cfg.filename or ""} needs the package {name!r}, and '
                f'{error.name!r} is not installed: {INSTALL}'
            ) from error
        except (ImportError, AssertionError) as error:  # mmdet asserts the version of mmcv
            raise UserError(
                f'the package {name!r} is installed and cannot be imported: {error}; '
                '`mmresnest doctor` says what does not fit'
            ) from error


# ---- a user's data -------------------------------------------------------------------------------

KINDS = {'semantic': 'ade20k', 'panoptic': 'panoptic', 'instance': 'coco', 'detection': 'coco'}
"""Task -> the layout of data that serves it."""


def use_data(cfg: Config, folder: DataFolder | str | os.PathLike) -> DataFolder:
    """Points a config at a data folder: paths, classes, heads and evaluators.

    Args:
        cfg: config of a detector or segmentor, changed in place.
        folder: the data, read or yet to be read.  Where a folder holds both boxes and semantic
            masks, the config's task decides.

    Returns:
        what the folder holds.

    Raises:
        UserError: if the folder cannot serve the config's task.
    """
    task = task_of(cfg)
    kind = KINDS[task]
    if not isinstance(folder, DataFolder):
        folder = read_folder(folder, kind)
    if folder.kind != kind:
        raise UserError(
            f'{cfg.filename or "the config"} is for {task} and needs data of the kind '
            f'{kind}, and {folder.root} was read as {folder.kind}; take a config for '
            'such data, or name another folder'
        )
    if task == 'semantic':
        _use_semantic(cfg, folder)
    else:
        if task == 'instance' and not folder.has_masks:
            raise UserError(
                f'{cfg.filename or "the config"} learns instance masks, and '
                f'{folder.maskless}; add the masks, or choose a config that needs '
                'boxes only, such as faster_rcnn_resnest50_fpn'
            )
        _use_detection(cfg, folder, task)
    print_log(
        f'data: {folder}: {", ".join(folder.classes[:20])}'
        + (' ...' if folder.classes[20:] else ''),
        'current',
    )
    return folder


def palette(count: int) -> list[tuple[int, ...]]:
    """That many colours that are easily told apart; the ones of our own pictures."""
    from ..report.drawing import class_colour

    return [tuple(round(255 * part) for part in class_colour(label)) for label in range(count)]


def dataset_leaves(dataset: Any) -> list[Any]:
    """The data sets proper inside wrappers such as ``RepeatDataset`` and ``ConcatDataset``."""
    inner = dataset.get('dataset')
    if isinstance(inner, dict):
        return dataset_leaves(inner)
    several = dataset.get('datasets')
    if isinstance(several, (list, tuple)):
        return [leaf for one in several for leaf in dataset_leaves(one)]
    return [dataset]


def _drop_further_parts(dataset: dict) -> None:
    """Keeps the first of concatenated sets: each would become the user's data once more."""
    if isinstance(dataset.get('dataset'), dict):
        _drop_further_parts(dataset['dataset'])
    elif isinstance(dataset.get('datasets'), (list, tuple)):
        dataset['datasets'] = list(dataset['datasets'][:1])
        _drop_further_parts(dataset['datasets'][0])


_KEPT = (
    'pipeline',
    'filter_cfg',
    'test_mode',
    'backend_args',
    'lazy_init',
    'serialize_data',
    'max_refetch',
)


def _retarget(cfg: Config, make: Callable[[str], dict]) -> None:
    """Gives every data set of the config new contents, keeping pipelines, filters and wrappers.

    Args:
        cfg: the config.
        make: returns the settings of a split's data set.
    """
    if cfg.get('test_dataloader') is None and cfg.get('val_dataloader') is not None:
        cfg.test_dataloader = cfg.val_dataloader.to_dict()
        cfg.test_evaluator = cfg.get('val_evaluator')
        cfg.test_cfg = cfg.get('test_cfg') or dict(type='TestLoop')
    for name in LOADERS:
        loader = cfg.get(name)
        if loader is None:
            continue
        _drop_further_parts(loader['dataset'])
        for leaf in dataset_leaves(loader['dataset']):
            kept = {key: leaf[key] for key in _KEPT if key in leaf}
            leaf.clear()
            leaf.update(make(name.split('_')[0]))
            leaf.update(kept)


def _evaluators(
    cfg: Config, package: str, type_: str, make: Callable[[str], dict], default: dict
) -> None:
    """Keeps the evaluator of the one fitting type, or puts one in place, for val and test."""
    for split in ('val', 'test'):
        if cfg.get(f'{split}_dataloader') is None:
            continue
        given = cfg.get(f'{split}_evaluator') or {}
        several = given if isinstance(given, (list, tuple)) else [given]
        fitting = [dict(one) for one in several if type_of(one) in (type_, f'Fast{type_}')]
        one = fitting[0] if fitting else dict(default)
        for key in ('outfile_prefix', 'format_only'):
            one.pop(key, None)  # what was written for a test server is of the former data
        ours = str(one.get('type')).startswith('mmresnest.')
        one.update(type=one['type'] if ours else f'{package}.{type_}', **make(split))
        cfg[f'{split}_evaluator'] = one


def _pipelines(cfg: Config) -> Iterator[tuple[dict, str]]:
    """Every pipeline of the config, as the dictionary that owns it and its key there."""

    def walk(owner: Any) -> Iterator[tuple[dict, str]]:
        for name, value in list(owner.items()):
            if name.endswith('pipeline') and isinstance(value, list):
                yield owner, name
            elif isinstance(value, dict):
                yield from walk(value)
            elif name == 'datasets':
                for one in value:
                    yield from walk(one)

    yield from walk({name: cfg[name] for name in LOADERS if cfg.get(name) is not None})
    for name in list(cfg.keys()):
        if name.endswith('pipeline') and isinstance(cfg[name], list):
            yield cfg, name


def walk(node: Any) -> Iterator[Any]:
    """Every dict in a part of a config, outermost first."""
    if isinstance(node, dict):
        yield node
        for value in list(node.values()):
            yield from walk(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from walk(value)


def _transforms(cfg: Config) -> Iterator[dict]:
    """Every transform of every pipeline, also those nested in others."""
    for owner, name in _pipelines(cfg):
        yield from (node for node in walk(owner[name]) if 'type' in node)


def type_of(node: Mapping) -> str:
    """The name of a type without its package; types may stand in a config as classes."""
    type_ = node.get('type', '')
    return type_.rpartition('.')[2] if isinstance(type_, str) else getattr(type_, '__name__', '')


def _use_detection(cfg: Config, folder: DataFolder, task: str) -> None:
    panoptic = task == 'panoptic'
    if not panoptic:
        without_semantic_branch(cfg)
    metainfo: dict[str, Any] = dict(classes=folder.classes, palette=palette(len(folder.classes)))
    if panoptic:
        metainfo = dict(
            thing_classes=folder.classes[: folder.things],
            stuff_classes=folder.classes[folder.things :],
            **metainfo,
        )

    def dataset(name: str) -> dict:
        split = folder.split(name)
        prefix = dict(img=split.images)
        if panoptic:
            prefix['seg'] = split.masks
        return dict(
            type='mmdet.CocoPanopticDataset' if panoptic else 'mmdet.CocoDataset',
            data_root=str(folder.root),
            ann_file=split.annotations,
            data_prefix=prefix,
            metainfo=dict(metainfo),
            test_mode=name != 'train',
        )

    def evaluator(name: str) -> dict:
        split = folder.split(name)
        path = dict(ann_file=str(folder.root / split.annotations))
        return dict(path, seg_prefix=str(folder.root / split.masks)) if panoptic else path

    _retarget(cfg, dataset)
    if panoptic:
        _evaluators(cfg, 'mmdet', 'CocoPanopticMetric', evaluator, {})
    else:
        metric = ['bbox', 'segm'] if task == 'instance' else 'bbox'
        _evaluators(cfg, 'mmdet', 'CocoMetric', evaluator, dict(metric=metric))
        wanted = [node for node in _transforms(cfg) if node.get('with_mask')]
        if not folder.has_masks and wanted:
            for node in wanted:  # a detector has no use for what its pipeline happens to load
                node['with_mask'] = False
    if folder.coded_masks:  # which mmdet passes over where it is to keep polygons
        for node in _transforms(cfg):
            if node.get('poly2mask') is False:
                node['poly2mask'] = True
    things = folder.things if panoptic else len(folder.classes)
    set_classes(model_of(cfg), things, stuff=len(folder.classes) - things)


def without_semantic_branch(cfg: Config) -> None:
    """Takes the branch off HTC that learns from semantic masks, which a COCO file does not have."""
    head = model_of(cfg).get('roi_head') or {}
    if head.get('semantic_head'):
        for key in ('semantic_head', 'semantic_roi_extractor', 'semantic_fusion'):
            head.pop(key, None)
        print_log(
            'the data have no semantic masks: the semantic branch of the head is left out',
            'current',
            logging.WARNING,
        )
    for node in _transforms(cfg):
        if node.get('with_seg') and type_of(node).startswith('Load'):
            node['with_seg'] = False
    for owner, name in _pipelines(cfg):
        owner[name] = [step for step in owner[name] if type_of(step) != 'SegRescale']


def _use_semantic(cfg: Config, folder: DataFolder) -> None:
    metainfo = dict(classes=folder.classes, palette=palette(len(folder.classes)))

    def dataset(name: str) -> dict:
        split = folder.split(name)
        return dict(
            type='mmseg.BaseSegDataset',
            data_root=str(folder.root),
            metainfo=dict(metainfo),
            data_prefix=dict(img_path=split.images, seg_map_path=split.annotations),
            img_suffix=folder.img_suffix,
            seg_map_suffix=folder.seg_map_suffix,
            reduce_zero_label=False,
            test_mode=name != 'train',
        )

    _retarget(cfg, dataset)
    _evaluators(cfg, 'mmseg', 'IoUMetric', lambda name: {}, dict(iou_metrics=['mIoU']))
    for node in _transforms(cfg):
        node.pop('reduce_zero_label', None)  # the data set's word counts, and it says no
    set_classes(model_of(cfg), len(folder.classes))


_HEADS = ('bbox_head', 'mask_head', 'decode_head', 'auxiliary_head')
"""Heads that know the number of classes even where the config leaves it to a default."""
_CLASSLESS = (
    'backbone',
    'neck',
    'rpn_head',
    'train_cfg',
    'test_cfg',
    'data_preprocessor',
    'init_cfg',
)


def set_classes(node: Any, things: int, stuff: int = 0, inside: str = '') -> None:
    """Sets the number of classes in every head below a part of the model.

    Args:
        node: the part.
        things: classes that boxes and instance masks may have, or all classes of a segmentor.
        stuff: further classes of a panoptic model.
        inside: the key the part stands under.
    """
    if isinstance(node, (list, tuple)):
        for item in node:
            set_classes(item, things, stuff, inside)
        return
    if not isinstance(node, dict):
        return
    is_loss = inside.startswith('loss')
    if 'num_classes' in node or (inside in _HEADS and 'type' in node):
        node['num_classes'] = things + stuff if inside == 'semantic_head' else things
        if inside in ('decode_head', 'auxiliary_head'):
            _plain_channels(node)
    for key, count in (('num_things_classes', things), ('num_stuff_classes', stuff)):
        if key in node:
            node[key] = count
    weights = node.get('class_weight')
    if is_loss and isinstance(weights, (list, tuple)) and len(weights) not in (things, things + 1):
        node.pop('class_weight')  # weights of the former data's classes
        print_log(
            f'{inside}.class_weight had one weight for each former class and is left out',
            'current',
            logging.WARNING,
        )
    for key, value in list(node.items()):
        if key not in _CLASSLESS:
            set_classes(value, things, stuff, key)


def _plain_channels(head: dict) -> None:
    """Undoes a binary segmentor's single output channel: the new classes get one channel each."""
    if head.pop('out_channels', None) is None:
        return
    head.pop('threshold', None)
    losses = head.get('loss_decode') or {}
    for loss in losses if isinstance(losses, (list, tuple)) else [losses]:
        if loss.get('use_sigmoid'):
            loss['use_sigmoid'] = False


# ---- before a run --------------------------------------------------------------------------------

_SOURCES = {
    'coco': (
        'COCO 2017, from https://cocodataset.org: train2017.zip, val2017.zip and '
        'annotations_trainval2017.zip, unpacked so that there are {root}/train2017/, '
        '{root}/val2017/ and {root}/annotations/instances_train2017.json'
    ),
    'ade': (
        'ADE20K, from http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip, '
        'unpacked so that there are {root}/images/training/ and {root}/annotations/training/'
    ),
    'cityscapes': (
        'Cityscapes, from https://www.cityscapes-dataset.com: '
        'leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, label ids turned '
        'into train ids by cityscapesscripts, so that there are '
        '{root}/leftImg8bit/train/ and {root}/gtFine/train/'
    ),
}


def check_paths(cfg: Config, splits: tuple[str, ...] = ('train', 'val')) -> None:
    """Makes sure that the data a run will read is there.

    Args:
        cfg: the config.
        splits: the parts that will be read.

    Raises:
        UserError: for the first path that is missing: which, how to get the data, and what to do
            without.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        for leaf in dataset_leaves(loader['dataset']):
            for path in _paths_of(leaf):
                if not path.exists():
                    raise UserError(_no_data(cfg, leaf, path))


def _paths_of(leaf: Mapping) -> Iterator[Path]:
    root = leaf.get('data_root') or ''
    prefixes = leaf.get('data_prefix') or {}
    for part in [leaf.get('ann_file') or '', *prefixes.values()]:
        if isinstance(part, str) and (part or root) and '://' not in f'{root}{part}':
            yield Path(os.path.abspath(os.path.join(root, part)))


def _no_data(cfg: Config, leaf: Mapping, path: Path) -> str:
    root = Path(os.path.abspath(leaf.get('data_root') or '.'))
    known = root.parts[-2:] if root.name.startswith('ADE') else root.parts[-1:]
    source = next(
        (
            text
            for key, text in _SOURCES.items()
            if any(part.lower().startswith(key) for part in known)
        ),
        None,
    )
    how = f'Get {source.format(root=root)}' if source else 'Put the data there'
    return (
        f'no data: {path} does not exist (looked for by {cfg.filename or "the config"}). '
        f'{_other_kind(cfg, root)}{how}. If it is elsewhere on this machine, make {root} a '
        'link to it. To use data of your own, give --data DIR, a folder in COCO or ADE20K '
        'layout; to try mmresnest without any, give --demo, which draws a small set and learns '
        'that'
    )


def _other_kind(cfg: Config, root: Path) -> str:
    """What to say of a folder that holds data for another task than the config's."""
    tables = sorted(
        path
        for place in ('', 'annotations/')
        for split in ('train', 'val')
        for path in root.glob(f'{place}*{split}*.json')
    )
    masks = sorted(
        folder
        for folder in root.glob('annotations/*')
        if folder.is_dir() and not folder.name.startswith('panoptic')
    )
    if task_of(cfg) == 'semantic' and tables and not masks:
        return (
            f'{root} holds annotations in COCO format ({tables[0].name}), which a segmentor '
            'cannot use: choose a config of a detector, such as faster_rcnn_resnest50_fpn. '
        )
    if task_of(cfg) != 'semantic' and masks and not tables:
        return (
            f'{root} holds masks for semantic segmentation ({masks[0]}), which a detector '
            'cannot use: choose a config of a segmentor, such as deeplabv3_resnest50_ade20k. '
        )
    return ''


def without_weights(cfg: Config) -> dict:
    """Has the model fetch no weights; returns its backbone."""
    model = model_of(cfg)
    backbone = model.get('backbone')
    if not isinstance(backbone, dict):
        raise UserError(
            f'{cfg.filename or "the config"} has no backbone to train from scratch; '
            'leave --from-scratch out'
        )
    for node in (model, backbone):
        if node.get('pretrained'):
            node['pretrained'] = None
    backbone['init_cfg'] = None
    cfg.load_from = None
    return backbone


def from_scratch(cfg: Config) -> None:
    """Makes the model start from random weights: nothing is fetched, and nothing stays frozen."""
    backbone = without_weights(cfg)
    if backbone.get('frozen_stages', -1) >= 0:  # frozen at random it could learn nothing
        backbone['frozen_stages'] = -1
    if backbone.get('norm_eval'):
        backbone['norm_eval'] = False
    norm = backbone.get('norm_cfg')
    if norm and norm.get('requires_grad') is False:
        norm['requires_grad'] = True


def plain_norms(node: Any) -> int:
    """Turns every SyncBN of a part of a config into BN; returns how many there were."""
    if isinstance(node, (list, tuple)):
        return sum(map(plain_norms, node))
    if not isinstance(node, dict):
        return 0
    changed = sum(plain_norms(value) for value in list(node.values()))
    if node.get('type') in SYNC_NORMS:
        node['type'] = 'BN'
        changed += 1
    return changed


def settle_norms(cfg: Config, distributed: bool) -> int:
    """Turns SyncBN into BN where it cannot run: on a CPU, or in a single process.

    Args:
        cfg: the config, changed in place.
        distributed: whether several processes train together.

    Returns:
        how many norms were changed; if any, the log says so once.
    """
    import torch

    if distributed and torch.cuda.is_available():
        return 0

    changed = plain_norms(model_of(cfg))
    if changed:
        why = 'on a CPU' if not torch.cuda.is_available() else 'in one process'
        print_log(f'SyncBN has nothing to synchronise {why}: the model is built with BN', 'current')
    return changed


def settle_loaders(cfg: Config) -> None:
    """Drops settings of worker processes where there are none, which torch refuses."""
    for name in LOADERS:
        loader = cfg.get(name)
        if loader is not None and not loader.get('num_workers'):
            loader['num_workers'] = 0
            for key in ('persistent_workers', 'prefetch_factor'):
                loader.pop(key, None)
