"""Build the runner of a config, and say what is wrong where mmengine cannot."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config

from ..config.inspect import dataset_configs
from ..config.load import name_of
from ..errors import UserError, nearest
from ..utils.console import is_terminal
from .hooks.progress_bar import ProgressBar
from .hooks.signals import StopOnSignal


@contextmanager
def explain_build_errors(cfg: Config) -> Iterator[None]:
    """Say what is wrong with a config while model, data sets and hooks are built."""
    try:
        yield
    except UserError:
        raise
    except (
        LookupError,
        TypeError,
        ValueError,
        AssertionError,
        ImportError,
        FileNotFoundError,
    ) as error:
        explained = _explain_build_error(cfg, error)
        if explained is None:
            raise
        raise explained from error


def build_runner(cfg: Config) -> Any:
    """Return the runner of a config, its neck and heads in the memory layout of the backbone.

    Our backbones compute in channels-last. With weights in that layout the convolutions behind them
    do so too, instead of turning every map back; on a CPU they are several times faster there.
    """
    import torch
    from mmengine.model import is_model_wrapper
    from mmengine.registry import MODELS, RUNNERS

    from ..config.hardware import UNDIVIDED, strategy_of
    from ..models.trunk import to_memory_format

    runner = RUNNERS.build(cfg)
    name = strategy_of(cfg)
    if name and isinstance(runner.model, dict):
        # FlexibleRunner would build it when training begins, and what is wrong with it would be
        # taken for a failure of the run.
        runner.model = MODELS.build(runner.model)
    backbone = getattr(runner.model, 'backbone', None)
    # DistributedDataParallel has laid out its gradients when it was built: it is left as it is.
    # What cuts weights up wants them in the order of their axes.
    if (
        getattr(backbone, 'channels_last', False)
        and name in UNDIVIDED
        and not is_model_wrapper(runner.model)
    ):
        to_memory_format(runner.model, torch.channels_last)
    return runner


def compile_parts(model: Any) -> None:
    """Compile backbone and neck of a runner's model, whatever wraps it."""
    from ..deploy import compile_backbone

    while hasattr(model, 'module'):  # of DistributedDataParallel, of augmented testing
        model = model.module
    compile_backbone(model)


def save_memory(model: Any) -> None:
    """Have the networks of ours in a model recompute in the backward pass what is cheap.

    Raises:
        UserError: there is none.
    """
    from ..models import fast
    from ..models.trunk import Trunk

    if not any(isinstance(module, Trunk) for module in model.modules()):
        raise UserError(
            "--save-memory is an option of this package's backbones (type='mmresnest....'), and "
            'the model has none; leave it out, or set with_cp=True, which most backbones know',
            code='option.conflict',
        )
    fast.enable(model, save_memory=True)


@contextmanager
def explain_run_errors(cfg: Config) -> Iterator[None]:
    """Say what is wrong with data that only training or testing has shown."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(_describe_missing_file(cfg, error), code='data.missing') from error
    except IndexError as error:  # of torch's cross entropy, on a CPU
        label = re.fullmatch(r'Target (-?\d+) is out of bounds\.?', str(error))
        if label is None:
            raise
        raise UserError(
            f'{name_of(cfg)}: the annotations hold the label '
            f'{label.group(1)}, which is beyond num_classes of a head; looked in '
            f'{", ".join(_list_data_sources(cfg))}; correct them, or num_classes',
            code='data.label-range',
        ) from error


def show_progress(runner: Any, progress: bool) -> None:
    """Show a bar on a terminal; elsewhere not even the list of hooks changes."""
    if (
        progress
        and is_terminal()
        and not any(isinstance(hook, ProgressBar) for hook in runner.hooks)
    ):
        runner.register_hook(ProgressBar())


@contextmanager
def release_on_exit(runner: Any) -> Iterator[None]:
    """Release signals, terminal and backends, whatever ends the run."""
    try:
        yield
    except BaseException:
        # mmengine closes the backends of the visualizer only after a run that went well.
        try:
            runner.visualizer.close()
        except Exception as error:  # of a backend; the error that ended the run matters more
            runner.logger.warning(f'the visualizer cannot be closed: {error}')
        raise
    finally:
        for hook in runner.hooks:
            if isinstance(hook, (StopOnSignal, ProgressBar)):
                hook.restore()


def to_floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return scores as Python's own numbers; mmseg's are numpy's."""
    return {name: float(value) for name, value in metrics.items()}


def _explain_build_error(cfg: Config, error: Exception) -> UserError | None:
    text = str(error.args[0]) if error.args else str(error)
    where = f'the config {cfg.filename}' if cfg.filename else 'the config'
    if isinstance(error, FileNotFoundError):
        return UserError(_describe_missing_file(cfg, error), code='data.missing')
    unknown = re.search(r'(\S+) is not in the (?:(\w+)::)?([\w ]+?) registry', text)
    if unknown:
        name, scope, registry = unknown.groups()
        return UserError(
            f'{where} names the type {name!r}, which the registry {registry!r} of '
            f'{scope or "mmengine"} does not have; '
            f'{nearest(name, _registered_names(registry))}. A type of another package needs '
            'its prefix, such as mmresnest.ResNeSt',
            code='config.type-unknown',
        )
    if isinstance(error, KeyError) and 'must contain the key "type"' in text:
        part = text.partition('but got ')[2].splitlines()[0]
        return UserError(
            f'{where} has a part without a type ({part}); give a whole config, not '
            'one of the pieces under configs/_base_',
            code='config.incomplete',
        )
    wrong = r'__init__\(\) (got an unexpected|missing \d+)'
    if isinstance(error, TypeError) and re.search(wrong, text):
        keyword = re.search(r"keyword argument '(\w+)'", text)
        owner = text.partition('.__init__')[0].removeprefix('class ').strip("` '")
        legal = _argument_names(owner) if keyword and 'unexpected' in text else []
        hint = f'; {nearest(keyword.group(1), legal)}' if keyword and legal else ''
        return UserError(f'{where} cannot be built: {text}{hint}', code='config.unbuildable')
    if isinstance(error, ValueError) and 'need at least one array to concatenate' in text:
        return UserError(
            f'{where}: no image of a data set is left to use: none is listed, or none '
            'has an object of the classes, or all are filtered by size; looked in '
            f'{", ".join(_list_data_sources(cfg))}',
            code='data.no-images',
        )
    if isinstance(error, (AssertionError, ImportError)) and text:
        return UserError(f'{where} cannot be built: {text}', code='config.unbuildable')
    return None


def _registered_names(kind: str) -> set[str]:
    """Return all names of one kind of registry, with prefix where it takes one."""
    from mmengine import registry as registries

    names: set[str] = set()
    for candidate in vars(registries).values():
        if getattr(candidate, 'name', None) == kind and hasattr(candidate, 'module_dict'):
            names.update(candidate.module_dict)
            for scope, child in getattr(candidate, 'children', {}).items():
                names.update(f'{scope}.{name}' for name in child.module_dict)
                names.update(child.module_dict)
    return names


def _argument_names(owner: str) -> list[str]:
    """Return the arguments of a registered class, its parents' included."""
    import inspect

    from mmengine import registry as registries

    name = owner.rpartition('.')[2]
    for root in (
        registries.MODELS,
        registries.DATASETS,
        registries.TRANSFORMS,
        registries.HOOKS,
        registries.METRICS,
        registries.OPTIMIZERS,
        registries.OPTIM_WRAPPERS,
        registries.STRATEGIES,
    ):
        for table in [root.module_dict, *(child.module_dict for child in root.children.values())]:
            if name in table and inspect.isclass(table[name]):
                parameters: set[str] = set()
                for parent in table[name].__mro__:
                    if parent is not object and '__init__' in vars(parent):
                        parameters.update(inspect.signature(parent.__init__).parameters)
                return sorted(parameters - {'self', 'args', 'kwargs'})
    return []


def _list_data_sources(cfg: Config) -> list[str]:
    sources = []
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        for leaf in dataset_configs(loader['dataset']) if loader else ():
            prefix = leaf.get('data_prefix') or {}
            part = leaf.get('ann_file') or next(iter(prefix.values()), '')
            source = os.path.join(leaf.get('data_root') or '', part)
            if source not in sources:
                sources.append(source)
    return sources


def _describe_missing_file(cfg: Config, error: FileNotFoundError) -> str:
    # Out of a worker process the error comes back as text, the original one in its last line.
    text = error.filename or str(error).strip().splitlines()[-1]
    found = re.search(r"'([^']+)'\s*$", str(text))
    path = found.group(1) if found else text
    return (
        f'the file {path} does not exist, and {name_of(cfg)} needs it; put it '
        'there or take it out of the annotations'
    )
