"""Networks of timm as backbones: maps by stride, in B C H W.

timm numbers the maps of a network as they come: index 0 is stride 2 in one and stride 4 in
another. Here index i is stride 4 * 2^i in all, as in mmdet and mmseg.

What a map depends on is read off the graph of a pass without data (torch's meta device), whatever
the modules of a network are called. It decides what is frozen, and what no map needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ArgumentError, UserError
from .norms import can_synchronize
from .timm_probe import create_network, get_settings, probe_network
from .weights.hub import locate_checkpoint
from .weights.reader import parse_checkpoint, tensors_of, unwrap_checkpoint

HUB = 'timm'  # as a checkpoint: the weights that timm publishes for the network


class TimmNetwork(nn.Module):
    """A network of timm without its classifier: one map per stride asked for.

    Args:
        arch: timm's name of the network, with the tag of its weights or without:
            ``'convnext_tiny.in12k_ft_in1k'``.
        in_channels: of the image.
        out_indices: maps returned: 0 is stride 4, 1 is 8, 2 is 16, 3 is 32. Where
            ``output_stride`` dilates a stage, it keeps the index that it has without.
        frozen_stages: -1 freezes nothing, 0 the stem, i what the map of index i - 1 depends on.
        norm_cfg: dict with ``type`` BN (the network's own norms) or SyncBN (its batch norms are
            synchronized, where that can run); ``requires_grad=False`` freezes their weights.
        norm_eval: keep batch norm in evaluation mode while training.
        with_cp: timm's gradient checkpointing, which counts a batch twice in running statistics.
        **options: arguments of timm's network, such as ``output_stride, drop_path_rate``.

    Raises:
        UserError: timm is not there, the network gives no maps or not those of a stride, or it is
            a network of this package.
        ArgumentError: an argument that is unknown or cannot be obeyed.
    """

    def __init__(
        self,
        arch: str,
        *,
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_cfg: Mapping[str, Any] | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        **options: Any,
    ):
        super().__init__()
        norm = dict(norm_cfg or {})
        if norm.get('type', 'BN') not in ('BN', 'BN2d', 'SyncBN'):
            raise ArgumentError(
                f'norm_cfg={norm} is not supported: timm/{arch} has norms of its own; '
                'legal types: BN, SyncBN',
                code='argument.value',
            )
        if frozen_stages not in range(-1, 5):
            raise ArgumentError(
                f'frozen_stages={frozen_stages} is not a stage; legal: -1, 0, 1, 2, 3, 4',
                code='argument.value',
            )
        probe = probe_network(arch, dict(options, in_chans=in_channels))
        self.arch, self.options, self.out_indices = arch, probe.options, tuple(out_indices)
        self.norm_eval, self.is_channels_last = norm_eval, probe.is_channels_last
        chosen = [probe.find_map(index) for index in self.out_indices]
        if not chosen or sorted(set(chosen)) != chosen:
            raise ArgumentError(
                f'out_indices={self.out_indices} must name maps in order, each once',
                code='argument.value',
            )
        #: names of parameters
        self.frozen: frozenset[str] = frozenset()
        if frozen_stages >= 0:
            stage = probe.find_map(frozen_stages - 1) if frozen_stages else None
            self.frozen = probe.stem if stage is None else probe.needs[stage]
        self.net = create_network(arch, probe.options, features_only=True, out_indices=chosen)
        #: channels of the maps returned, for necks that ask
        self.out_channels = tuple(probe.channels[index] for index in chosen)
        if with_cp:
            self.set_checkpointing()
        if not norm.get('requires_grad', True):
            for module in self.batch_norms():
                module.requires_grad_(False)
        needed = frozenset().union(*(probe.needs[index] for index in chosen))
        for name, parameter in self.net.named_parameters():
            if name not in needed or name in self.frozen:
                parameter.requires_grad_(False)  # what has no gradient stops distributed training
        if norm.get('type') == 'SyncBN' and can_synchronize():
            from timm.layers import convert_sync_batchnorm

            self.net = convert_sync_batchnorm(self.net)
        self.train()

    def set_checkpointing(self) -> None:
        """Compute maps again in the backward pass, as far as timm can."""
        for module in (self.net, getattr(self.net, 'model', None)):
            set_checkpointing = getattr(module, 'set_grad_checkpointing', None)
            if callable(set_checkpointing):
                set_checkpointing(True)
                return
        raise ArgumentError(
            f'with_cp=True: timm/{self.arch} has no gradient checkpointing; legal: False',
            code='argument.value',
        )

    def batch_norms(self) -> Iterator[nn.Module]:
        """Iterate over the batch norms, timm's that are fused with activations included."""
        return (module for module in self.modules() if isinstance(module, _BatchNorm))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """B 3 H W -> one B C H/s W/s per out_index."""
        maps = self.net(image)
        return tuple(x.permute(0, 3, 1, 2) for x in maps) if self.is_channels_last else tuple(maps)

    def train(self, mode: bool = True) -> TimmNetwork:
        """Set the mode, keeping what is frozen (and, with ``norm_eval``, norms) in evaluation."""
        super().train(mode)
        for prefix, module in self.net.named_modules():
            names = [f'{prefix}.{name}'.lstrip('.') for name, _ in module.named_parameters()]
            if names and self.frozen.issuperset(names):
                module.eval()
        if self.norm_eval:
            for module in self.batch_norms():
                module.eval()
        return self

    def load_weights(self, checkpoint: str | os.PathLike) -> None:
        """Load weights of the whole network strictly, as timm spells them.

        Args:
            checkpoint: ``'timm'`` for those that timm publishes, fetched by its hub, or the path
                or URL of a file of them.

        Raises:
            UserError: there are none, they cannot be fetched, or they are another network's.
        """
        source, settings = os.fspath(checkpoint), get_settings(self.arch)
        overlay = None
        if source != HUB:
            file = locate_checkpoint(source)[0]
            overlay = dict(state_dict=tensors_of(unwrap_checkpoint(parse_checkpoint(file), source)))
        elif not (settings.hf_hub_id or settings.url):
            raise UserError(
                f'timm publishes no weights for {self.arch}; give the path of a file, or train '
                'with --from-scratch',
                code='weights.unpublished',
            )
        try:
            whole = create_network(
                self.arch, self.options, pretrained=True, pretrained_cfg_overlay=overlay
            )
        except OSError as error:
            hub = f'https://huggingface.co/{settings.hf_hub_id}/resolve/main/'
            url = hub + (settings.hf_hub_filename or 'model.safetensors')
            if not settings.hf_hub_id:
                url = settings.url
            raise UserError(
                f'timm cannot fetch the weights of {self.arch} ({type(error).__name__}). Fetch '
                f'{url} on a machine that is online and give its path as checkpoint, or train '
                'with --from-scratch',
                code='weights.download-failed',
            ) from error
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(
                f'{source} does not fit timm/{self.arch}: {reason}; give weights of this network',
                code='weights.misfit',
            ) from error
        # A network of maps joins the first names of the whole one by "_" instead of ".".
        found = {key.replace('.', '_'): value for key, value in whole.state_dict().items()}
        self.net.load_state_dict(
            {
                key: found[key.removeprefix('model.').replace('.', '_')]
                for key in self.net.state_dict()
            }
        )
