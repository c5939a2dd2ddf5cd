"""Divide a model among processes, by mmengine's FlexibleRunner and its strategies.

A config chooses them by ``runner_type = 'FlexibleRunner'`` and ``strategy = dict(type=...)``:

    mmresnest.FSDPStrategy    weights, gradients and optimizer states in shards, by torch alone
    DeepSpeedStrategy         the same by DeepSpeed, where that is installed
    DDPStrategy, none         whole models, as under the ordinary runner

mmengine has an FSDPStrategy of its own, over the first FSDP of torch. With torch 2.1 and later it
cannot resume (it gives ``optim_state_dict_to_load`` its arguments in the order of torch 2.0), and
it cannot run on CPUs. Ours is over the second, ``fully_shard``, and leaves the model its class, so
that hooks and loops find what they find under the ordinary runner.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from mmengine._strategy.distributed import DDPStrategy
from mmengine._strategy.single_device import SingleDeviceStrategy
from mmengine.dist import is_distributed, is_main_process
from torch import Tensor, nn

from ..config.hardware import OURS
from ..errors import ArgumentError, UserError
from ..models.trunk import to_memory_format
from ..registry import STRATEGIES
from .wrappers import unwrap_model


@STRATEGIES.register_module()
class FSDPStrategy(DDPStrategy):
    """Divide weights, gradients and optimizer states among all processes (torch's fully_shard).

    Each process keeps its share. The weights of a block of the backbone are collected when the
    block runs, those of neck and heads for as long as the model runs. Gradients are averaged as
    under DistributedDataParallel, and the step is the same to rounding. Checkpoints are whole, in
    the layout of the ordinary runner: a run may resume under either.

    Args:
        reshard_after_forward: free a block's weights again after its forward pass. False keeps
            them until the backward pass, which costs their memory and saves the second collection.
        cpu_offload: keep shards, gradients and optimizer states in the memory of the host.
        sync_bn: as mmengine's DDPStrategy takes it.
        **base: what every strategy of mmengine takes.

    Raises:
        UserError: torch is older than 2.6, the first with ``fully_shard``.
        ArgumentError: ``model_wrapper``: nothing is wrapped.
    """

    def __init__(
        self,
        *,
        reshard_after_forward: bool = True,
        cpu_offload: bool = False,
        sync_bn: str | None = None,
        **base: Any,
    ) -> None:
        if 'model_wrapper' in base:
            raise ArgumentError(
                f'{OURS} wraps no model and takes no model_wrapper; legal: '
                'reshard_after_forward, cpu_offload, sync_bn'
            )
        if importlib.util.find_spec('torch.distributed.fsdp._fully_shard') is None:
            raise UserError(
                f'{OURS} needs torch 2.6 or newer, and this is {torch.__version__}; '
                'update torch, or train with the ordinary runner: '
                'runner_type=Runner strategy=None',
                code='package.too-old',
            )
        super().__init__(sync_bn=sync_bn, **base)
        self.reshard_after_forward = reshard_after_forward
        self.cpu_offload = cpu_offload

    def _wrap_model(self, model: nn.Module) -> Any:
        from mmengine.device import get_device
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

        device = torch.device(get_device()).type
        model = self.convert_model(model.to(get_device()))
        # fully_shard cuts along the first axis and takes contiguous weights only, so channels-last
        # weights are converted first.
        to_memory_format(model, torch.contiguous_format)
        options: dict[str, Any] = dict(
            mesh=init_device_mesh(device, (self.world_size,)),
            reshard_after_forward=self.reshard_after_forward,
        )
        if self.cpu_offload:
            options['offload_policy'] = CPUOffloadPolicy()
        for block in backbone_blocks(model):
            fully_shard(block, **options)
        return fully_shard(model, **options)

    def save_checkpoint(self, filename: str, *, save_optimizer: bool = True, **more: Any) -> None:
        """Collect the whole state, for which all processes must call; the first one writes it."""
        if is_main_process():
            SingleDeviceStrategy.save_checkpoint(
                self, filename, save_optimizer=save_optimizer, **more
            )
        else:
            self.model_state_dict()
            if save_optimizer and hasattr(self, 'optim_wrapper'):
                self.optim_state_dict()

    def model_state_dict(self) -> dict:
        """Return the whole weights, on the first process; all must call."""
        return {name: full_tensor(value) for name, value in self.model.state_dict().items()}

    def optim_state_dict(self) -> dict:
        """Return the whole state of the optimizer, on the first process; all must call."""
        state = self.optim_wrapper.state_dict()
        return dict(
            state,
            state={
                index: {name: full_tensor(value) for name, value in one.items()}
                for index, one in state['state'].items()
            },
        )

    def load_checkpoint(
        self, filename: str, *, map_location: str | Callable = 'cpu', **more: Any
    ) -> dict:
        """Read a whole checkpoint into the memory of the host: a GPU has room for a shard only."""
        if map_location == 'default':
            map_location = 'cpu'
        return super().load_checkpoint(filename, map_location=map_location, **more)

    def load_model_state_dict(self, state_dict: dict, **more: Any) -> None:
        """Load this process's shards of whole weights."""
        own = dict(self.model.state_dict())
        for name, value in state_dict.items():
            state_dict[name] = local_shard(value, own.get(name.removeprefix('module.')))
        super().load_model_state_dict(state_dict, **more)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load this process's shards of the whole state of an optimizer."""
        # A state is numbered as its weight is, counted through the groups.
        weights = [
            weight
            for group in self.optim_wrapper.optimizer.param_groups
            for weight in group['params']
        ]
        state = {
            index: {name: local_shard(value, weights[index]) for name, value in one.items()}
            for index, one in state_dict['state'].items()
        }
        super().load_optim_state_dict(dict(state_dict, state=state))


def backbone_blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the residual blocks of a backbone: the modules whose weights are collected together.

    A neck or head is none of them: it is run by other methods than its ``forward``, of which
    ``fully_shard`` would not know.
    """
    for name, stage in getattr(model, 'backbone', nn.Module()).named_children():
        if name.startswith('layer') and isinstance(stage, nn.Sequential):
            yield from stage


def full_tensor(value: Any) -> Any:
    """Return a sharded tensor as one, on the host; None on all processes but the first."""
    from torch.distributed.tensor import DTensor

    if not isinstance(value, Tensor):
        return value
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.detach().cpu() if not is_distributed() or is_main_process() else None


def local_shard(value: Any, like: Any) -> Any:
    """Return this process's shard of a whole tensor, divided as another of its shape is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(value, Tensor) or not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def _zero_stage(strategy: Any) -> int:
    """Return what DeepSpeed divides: 1 optimizer states, 2 also gradients, 3 also weights."""
    config = getattr(strategy, 'config', None)
    return config.get('zero_optimization', {}).get('stage', 0) if isinstance(config, dict) else 0


def whole_model(runner: Any) -> nn.Module | None:
    """Return the trained model, able to run on the first process alone; all processes must call.

    Returns:
        the model; None on the other processes, and where DeepSpeed or mmengine's own FSDPStrategy
        holds the weights in shards.
    """
    from mmengine.registry import MODELS

    strategy = getattr(runner, 'strategy', None)
    if isinstance(strategy, FSDPStrategy):
        weights: Mapping[str, Tensor] = strategy.model_state_dict()
        if runner.rank != 0:
            return None
        model = MODELS.build(runner.cfg.model)
        model.load_state_dict(weights)
        return model
    if _zero_stage(strategy) == 3:
        return None
    if 'FullyShardedDataParallel' in type(runner.model).__name__:
        return None
    return unwrap_model(runner.model) if runner.rank == 0 else None
