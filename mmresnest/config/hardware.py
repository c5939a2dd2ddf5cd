"""Adapt a config to the hardware: norms, data loaders, wrappers, strategies, compilers."""

from __future__ import annotations

import copy
import importlib.util
import os
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import UserError
from ..models.norms import replace_sync_norms
from ..utils.threads import count_processes, count_processors
from .defaults import CHECKED, TYPES
from .inspect import LOADERS, iterate_transforms, model_of
from .load import name_of


def configure_norms(cfg: Config, distributed: bool) -> int:
    """Replace SyncBN by BN where it cannot run: on a CPU, or in a single process.

    Args:
        cfg: the config, changed in place.
        distributed: whether several processes train together.

    Returns:
        how many norms were changed; if any, the log says so once.
    """
    if distributed and torch.cuda.is_available():
        return 0

    changed = replace_sync_norms(model_of(cfg))
    if changed:
        why = 'on a CPU' if not torch.cuda.is_available() else 'in one process'
        print_log(f'SyncBN has nothing to synchronize {why}: the model is built with BN', 'current')
    return changed


def configure_loaders(
    cfg: Config, workers: int | None = None, given: Mapping[str, Any] | None = None
) -> None:
    """Set worker processes by the cores, and have their transforms waste no time.

    Args:
        cfg: the config, changed in place.
        workers: the option of that name, which is obeyed.
        given: settings that override the config, likewise.
    """
    limit = max(1, count_processors() // count_processes(os.environ))
    for name in LOADERS:
        loader = cfg.get(name)
        if loader is None:
            continue
        asked = workers is not None or any(key.startswith(name) for key in given or ())
        if not asked and (loader.get('num_workers') or 0) > limit:
            loader['num_workers'] = limit
        if not loader.get('num_workers'):  # torch refuses the other settings then
            loader['num_workers'] = 0
            for key in ('persistent_workers', 'prefetch_factor'):
                loader.pop(key, None)
    for node in iterate_transforms(cfg):  # mmdet's transform of that name has no such ratio
        if node['type'] in ('RandomCrop', 'mmseg.RandomCrop') and 'cat_max_ratio' in node:
            node['type'] = 'mmresnest.RandomCrop'


def configure_scoring(cfg: Config, fuse: bool) -> None:
    """Have our loops score the model as it is defined, if they are not to fold its norms.

    Args:
        cfg: the config with our loops in it; changed in place. Other loops fold nothing.
        fuse: what is wanted.
    """
    for name in ('val_cfg', 'test_cfg'):
        loop = cfg.get(name)
        if not fuse and loop and loop.get('type') in (TYPES['ValLoop'], TYPES['TestLoop']):
            loop['fused'] = False


OURS = 'mmresnest.FSDPStrategy'

STRATEGIES: dict[str, dict[str, Any]] = {
    # Torch alone, 2.6 or newer. Checkpoints are whole files: test them, and resume from them, with
    # or without this.
    'fsdp': dict(type=OURS),
    # ZeRO stage 3. A checkpoint is a folder that only DeepSpeed resumes from; zero_to_fp32.py
    # beside it makes one file of it.
    'deepspeed': dict(
        type='DeepSpeedStrategy',
        # DeepSpeed has tried itself with Adam only, and asks to be told that SGD is meant.
        config=dict(zero_allow_untested_optimizer=True),
        # So that the best checkpoint is one whole file.
        zero_optimization=dict(stage=3, stage3_gather_16bit_weights_on_model_save=True),
    ),
}
"""Names of --strategy -> what divides weights, gradients and momentum among the processes."""

UNDIVIDED = ('', 'SingleDeviceStrategy')
"""Strategies that leave the model to one process; '' is none at all."""

WHOLE = dict(runner_type='Runner', strategy=None)
"""Options for one process that holds the whole model, however many train it."""


def set_strategy(cfg: Config, name: str) -> None:
    """Divide the model among the processes by one of :data:`STRATEGIES`."""
    cfg.runner_type, cfg.strategy = 'FlexibleRunner', copy.deepcopy(STRATEGIES[name])


def strategy_of(cfg: Config) -> str:
    """Return the name of a config's strategy, '' for the ordinary runner.

    Raises:
        UserError: a strategy under a runner that would ignore it.
    """
    strategy = cfg.get('strategy')
    if cfg.get('runner_type', 'Runner') != 'FlexibleRunner':
        if strategy is not None:
            raise UserError(
                f'{name_of(cfg)} has a strategy, which only '
                "FlexibleRunner obeys; add runner_type = 'FlexibleRunner', or take the "
                'strategy out',
                code='strategy.runner',
            )
        return ''
    default = 'SingleDeviceStrategy' if cfg.launcher == 'none' else 'DDPStrategy'
    name = default if strategy is None else strategy.get('type', '')
    return name if isinstance(name, str) else name.__name__


def configure_strategy(cfg: Config) -> None:
    """Set up the config's strategy for this machine.

    Args:
        cfg: the config, ``launcher`` set; changed in place.

    Raises:
        UserError: the strategy needs what is not there.
    """
    name = strategy_of(cfg)
    if not name:
        return
    if cfg.launcher == 'none' and name != 'SingleDeviceStrategy':
        raise UserError(
            f'{name} divides a training among processes, and this is one by itself; '
            'start several with tools/dist_train.sh CONFIG PROCESSES or '
            'tools/slurm_train.sh, or set strategy=None',
            code='strategy.one-process',
        )
    if cfg.get('env_cfg') is None:
        cfg.env_cfg = dict(dist_cfg=dict(backend='nccl'))  # what mmengine's own default is
    if name == 'DDPStrategy':
        strategy = dict(cfg.get('strategy') or dict(type=name))
        if cfg.get('model_wrapper_cfg'):  # set for machines without a GPU
            strategy.setdefault('model_wrapper', cfg.model_wrapper_cfg)
        cfg.strategy = strategy
    elif name == 'FSDPStrategy':
        if not has_accelerator():
            raise UserError(
                f"mmengine's FSDPStrategy runs on GPUs only; set strategy.type to "
                f"'{OURS}', which runs on CPUs too",
                code='strategy.device',
            )
        if cfg.get('resume'):
            raise UserError(
                "mmengine's FSDPStrategy cannot resume with this torch "
                f"({torch.__version__}); set strategy.type to '{OURS}'",
                code='strategy.resume',
            )
    elif name == 'DeepSpeedStrategy':
        _configure_deepspeed(cfg)


def _configure_deepspeed(cfg: Config) -> None:
    # mmengine imports DeepSpeed's one-bit optimizers, which 0.19.0 has and 0.19.8 no longer.
    here = importlib.util.find_spec('deepspeed') is not None
    if not here or importlib.util.find_spec('deepspeed.runtime.fp16.onebit') is None:
        wrong = 'of a version that mmengine cannot import' if here else 'not installed'
        raise UserError(
            f'{name_of(cfg)} has strategy DeepSpeedStrategy, and '
            f"DeepSpeed is {wrong}: pip install 'deepspeed<0.19.1'; or set "
            f"strategy.type to '{OURS}', which needs torch alone",
            code='package.broken' if here else 'package.missing',
        )
    wrapper = cfg.optim_wrapper
    if wrapper.get('type', 'OptimWrapper') in ('OptimWrapper', CHECKED['OptimWrapper']):
        wrapper.type = 'DeepSpeedOptimWrapper'
        clip = wrapper.pop('clip_grad', None)
        if clip is not None:
            if set(clip) - {'max_norm', 'norm_type'} or clip.get('norm_type', 2) != 2:
                raise UserError(
                    f'DeepSpeed clips the gradient by its 2-norm only, and clip_grad '
                    f'is {dict(clip)}; leave max_norm alone in it',
                    code='strategy.clip-grad',
                )
            cfg.strategy.setdefault('gradient_clipping', clip['max_norm'])
    scale: Any = cfg.get('auto_scale_lr') or {}
    if scale.get('enable'):
        # Every other strategy does this itself.
        from mmengine.dist import get_world_size
        from mmengine.runner.utils import _get_batch_size

        batch = get_world_size() * _get_batch_size(cfg.train_dataloader)
        wrapper.optimizer.lr *= batch / scale.base_batch_size
        scale.enable = False


def configure_model_wrapper(cfg: Config) -> None:
    """Have the model wrapped without a device of its own where there are only CPUs."""
    if cfg.launcher == 'none' or has_accelerator():
        return
    wrapper = dict(cfg.get('model_wrapper_cfg') or {})
    wrapper.setdefault('type', 'MMDistributedDataParallel')
    wrapper.update(device_ids=None)
    # What mmengine passes where the config says nothing.
    wrapper.setdefault('broadcast_buffers', False)
    wrapper.setdefault('find_unused_parameters', cfg.get('find_unused_parameters', False))
    cfg.model_wrapper_cfg = wrapper


def has_accelerator() -> bool:
    """Return whether mmengine's launchers have something to select."""
    from mmengine.device import is_mlu_available, is_musa_available, is_npu_available

    return (
        torch.cuda.is_available() or is_npu_available() or is_mlu_available() or is_musa_available()
    )


def check_compiler(cfg: Config) -> None:
    """Refuse a run that ``torch.compile`` cannot serve, before anything is built.

    Raises:
        UserError: torch is too old, something divides the model among processes, or the C++
            compiler is missing that compiled code for CPUs goes through.
    """
    from ..deploy import one_graph_for_all_sizes
    from .hardware import UNDIVIDED, has_accelerator, strategy_of

    one_graph_for_all_sizes()
    name = strategy_of(cfg)
    if name not in (*UNDIVIDED, 'DDPStrategy'):
        raise UserError(
            f'--compile: {name} divides the model among processes, and what it divides '
            'is not compiled; leave --compile or the strategy out',
            code='option.conflict',
        )
    if has_accelerator():
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise UserError(
            '--compile: on CPUs torch.compile writes C++, and no compiler for it is '
            'here; install one (Debian, Ubuntu: apt install g++), or leave --compile '
            'out: the network is fast without',
            code='package.no-compiler',
        ) from error
