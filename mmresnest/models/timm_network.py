"""Networks of timm as backbones: maps by stride, in B C H W.

timm numbers the maps of a network as they come: index 0 is stride 2 in one and stride 4 in
another. Here index i is stride 4 * 2^i in all, as in mmdet and mmseg. What a map depends on is
found by autograd in a pass without data (torch's meta device), whatever its modules are called.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ArgumentError, UserError, check_indices, nearest
from ..utils.packages import import_optional
from .norms import can_synchronize
from .variants import ALIASES, VARIANTS
from .weights.reader import read_checkpoint, tensors_of, unwrap_checkpoint

PREFIX = 'timm/'  # of a name that is timm's
HUB = 'timm'  # as a checkpoint: the weights that timm publishes for the network
STRIDES = (2, 4, 8, 16, 32)  # of the stem, and of the maps 0 to 3
ANY_SIZE = (dict(strict_img_size=False), dict(dynamic_img_size=True))  # for what is of one, as Swin


class TimmNetwork(nn.Module):
    """A network of timm without its classifier: one map per stride asked for.

    Args:
        arch: its name, and the tag of its weights or none: ``'convnext_tiny.in12k_ft_in1k'``.
        in_channels, norm_eval: as for ``ResTrunk``.
        out_indices: maps returned, 0 to 3 of strides 4 to 32; if dilated they keep their index.
        frozen_stages: -1 freezes nothing, 0 the stem, i what the map of index i - 1 depends on.
        norm_cfg: SyncBN synchronizes batch norms where that can run, BN leaves all norms as they
            are; ``requires_grad=False`` freezes the weights of batch norms.
        with_cp: timm's gradient checkpointing, which counts a batch twice in running statistics.
        **options: arguments of timm's network, such as ``output_stride, drop_path_rate``.

    Raises:
        UserError: timm is not there, the network is ours or lacks a map, an argument is wrong.
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
        self.out_indices = check_indices('out_indices', out_indices)
        self.arch, self.norm_eval, norm = arch, norm_eval, dict(norm_cfg or {})
        ordered = sorted({0, 1, 2, 3} & set(self.out_indices))
        self.check('norm_cfg.type', norm.get('type', 'BN'), ['BN', 'BN2d', 'SyncBN'])
        self.check('frozen_stages', frozen_stages, range(-1, 5))
        self.check('out_indices', self.out_indices, [tuple(ordered or range(4))])
        (timm, _), maps = find_network(arch), Maps(arch, dict(options, in_chans=in_channels))
        chosen, self.out_channels, needs = zip(*(maps[STRIDES[1 + index]] for index in ordered))
        self.frozen = maps[STRIDES[frozen_stages]][2] if frozen_stages >= 0 else frozenset()
        self.options = maps.options
        self.net = timm.create_model(arch, **maps.options, features_only=True, out_indices=chosen)
        if with_cp:
            try:
                getattr(self.net, 'model', self.net).set_grad_checkpointing(True)
            except (AttributeError, AssertionError):  # timm's ways to say that there is none
                self.check('with_cp', True, [False])
        learned = frozenset().union(*needs) - self.frozen
        for name, parameter in self.net.named_parameters():
            # What has no gradient would stop distributed training.
            parameter.requires_grad_(name in learned)
        for module in self.net.modules():
            if isinstance(module, _BatchNorm) and not norm.get('requires_grad', True):
                module.requires_grad_(False)
        if norm.get('type') == 'SyncBN' and can_synchronize():
            self.net = timm.layers.convert_sync_batchnorm(self.net)
        self.train()

    def check(self, name: str, value: Any, legal: Sequence[Any]) -> None:
        """Refuse an argument that cannot be obeyed."""
        if value not in legal:
            text = f'{name}={value} is not supported; legal: {", ".join(map(str, legal))}'
            raise ArgumentError(f'timm/{self.arch}: {text}', code='argument.value')

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """B 3 H W -> one B C H/s W/s per out_index."""
        is_channels_last = 'NHWC' in str(getattr(self.net, 'output_fmt', '')).upper()
        return tuple(x.permute(0, 3, 1, 2) if is_channels_last else x for x in self.net(image))

    def train(self, mode: bool = True) -> TimmNetwork:
        """Set the mode, keeping what is frozen (and, with ``norm_eval``, norms) in evaluation."""
        super().train(mode)
        for prefix, module in self.net.named_modules():
            names = {f'{prefix}.{name}'.lstrip('.') for name, _ in module.named_parameters()}
            if self.norm_eval and isinstance(module, _BatchNorm) or set() < names <= self.frozen:
                module.eval()
        return self

    def load_weights(self, checkpoint: str | os.PathLike) -> None:
        """Load a file, a URL or what timm publishes (``HUB``), strictly, or raise a UserError."""
        (timm, settings), source, overlay = find_network(self.arch), os.fspath(checkpoint), None
        hub = f'https://huggingface.co/{settings.hf_hub_id}/resolve/main/'
        hub += settings.hf_hub_filename or 'model.safetensors'
        url = hub if settings.hf_hub_id else settings.url
        if source != HUB:
            state = unwrap_checkpoint(read_checkpoint(source), source)
            overlay = dict(state_dict=tensors_of(state))
        elif not url:
            text = f'timm publishes no weights for {self.arch}; --from-scratch trains without'
            raise UserError(text, code='weights.unpublished')
        try:
            whole = timm.create_model(
                self.arch, **self.options, pretrained=True, pretrained_cfg_overlay=overlay
            )
        except Exception as error:  # of whatever fetches and reads them
            if overlay is not None:
                text = f'{source} does not fit timm/{self.arch} ({error!r:.300}); give its weights'
                raise UserError(text, code='weights.misfit') from error
            text = (
                f'timm cannot fetch the weights of {self.arch} ({error!r:.99}). Fetch {url} on a '
            )
            text += 'machine that is online and give its path as checkpoint, or train from scratch'
            raise UserError(text, code='weights.download-failed') from error
        # A network of maps joins the first names of the whole one by "_", or begins all with one.
        values = {key.replace('.', '_'): value for key, value in whole.state_dict().items()}
        state = self.net.state_dict()
        for key in state:
            state[key] = values[key.removeprefix('model.').removeprefix('body.').replace('.', '_')]
        self.net.load_state_dict(state)


class Maps(dict[int, tuple[int, int, frozenset[str]]]):
    """Stride -> timm's index, channels, and names of what it depends on; 2 is that of the stem."""

    def __init__(self, arch: str, options: Mapping[str, Any]):
        (timm, settings), self.arch = find_network(arch), arch
        with torch.device('meta'), torch.enable_grad():
            for more in (*(ANY_SIZE if settings.fixed_input_size else ()), {}):
                self.options = {**options, **more}
                try:
                    net = timm.create_model(arch, **self.options, features_only=True).eval()
                    maps = net(torch.zeros(1, options['in_chans'], *settings.input_size[1:]))
                    break
                except Exception as error:  # of whatever it checks
                    given = {k: v for k, v in options.items() if (k, v) != ('in_chans', 3)}
                    text = f'cannot obey {given}: leave it out' if given else 'gives no maps'
                    text = f'timm/{arch} {text} ({error!r})'
                    if given and not more:
                        raise ArgumentError(text, code='argument.value') from error
                    if not more:
                        raise UserError(text, code='timm.maps') from error
            names, weights = zip(*(one for one in net.named_parameters() if one[1].requires_grad))
            grads = [grad(x.sum(), weights, retain_graph=True, allow_unused=True) for x in maps]
        needs = [frozenset(n for n, g in zip(names, some) if g is not None) for some in grads]
        info = net.feature_info
        strides = info.reduction()
        if options.get('output_stride'):  # what is dilated counts with the stride that it had
            strides = [*accumulate(strides, lambda last, stride: max(stride, 2 * last))]
        own = f'_{info.module_name()[0]}_'.replace('.', '_')
        stem = frozenset(name for name in needs[0] if own not in f'_{name}'.replace('.', '_'))
        self[2] = -1, 0, stem  # unless there is a map of that stride
        self.update(zip(strides, zip(info.out_indices, info.channels(), needs)))

    def __missing__(self, stride: int) -> Any:
        legal = [f'{index} (stride {s})' for index, s in enumerate(STRIDES[1:]) if s in self]
        raise UserError(
            f'timm/{self.arch} has no map of stride {stride}, index {STRIDES.index(stride) - 1}; '
            f'legal: {", ".join(legal) or "none, take another network"}',
            code='timm.stride',
        )


def find_network(arch: str) -> tuple[Any, Any]:
    """Return timm, and its settings of a network's weights: where they are, sizes, statistics."""
    name, _, tag = arch.partition('.')
    own = ALIASES.get(name, name)
    if own in VARIANTS:
        raise UserError(
            f'timm/{arch} is a network of this package, where its values are its '
            f"authors' at every size: write arch {own} (type='mmresnest.{VARIANTS[own].type}')",
            code='timm.own-network',
        )
    timm = import_optional('timm', 'timm')
    try:
        return timm, timm.models.get_pretrained_cfg(arch, allow_unregistered=False)
    except RuntimeError as error:
        text = f'timm {timm.__version__} has no network {arch!r}; '
        text += nearest(arch, timm.list_models(pretrained=bool(tag)))
        raise ArgumentError(text, code='argument.value') from error
