"""A stand-in for timm with networks of a few weights, where timm cannot be installed.

It has of timm what ``mmresnest.models.timm_network`` asks for, and its numbering of maps: network
``pyramid`` gives strides 2 to 32, ``patches`` 4 to 32 in B H W C, ``flat`` one stride thrice,
``late`` leaves its first map of stride 1 out unless asked, as DLA does, and ``mapless`` has none.
"""

import math
from types import ModuleType, SimpleNamespace

from torch import nn

NETWORKS = dict(pyramid=(2, 4, 8, 16, 32), patches=(4, 8, 16, 32), flat=(16, 16, 16), mapless=())
NETWORKS['late'] = (1, 2, 4, 8, 16, 32)
WEIGHTS: dict[str, dict] = {}
"""Network -> what timm's hub has of it; a network that is not here is offline."""


class FeatureInfo:
    def __init__(self, strides, channels, out_indices):
        self.strides, self.widths, self.out_indices = strides, channels, out_indices

    def reduction(self):
        return [self.strides[index] for index in self.out_indices]

    def channels(self):
        return [self.widths[index] for index in self.out_indices]

    def module_name(self):
        return [f'stages.{index}' for index in self.out_indices]


class Network(nn.Module):
    """One convolution a map, and a batch norm; without maps asked for, a classifier too."""

    def __init__(self, strides, in_chans, output_stride, layout, drop_path_rate):
        super().__init__()
        steps, reached = [], 1
        for stride in strides if len(set(strides)) > 1 else strides[:1]:
            steps.append(stride // reached if stride <= (output_stride or 32) else 1)
            reached *= steps[-1]
        steps += [1] * (len(strides) - len(steps))
        self.stem = nn.Conv2d(in_chans, 4, 1)
        self.widths = [4 * (index + 1) for index in range(len(strides))]
        self.reductions = [math.prod(steps[: index + 1]) for index in range(len(steps))]
        channels = 4
        for index, width in enumerate(self.widths):
            step = steps[index]
            layer = nn.Sequential(
                nn.Conv2d(channels, width, step, step), nn.BatchNorm2d(width), nn.Dropout(0.5)
            )
            self.add_module(f'stages_{index}', layer)
            channels = width
        self.output_fmt, self.drop_path_rate = layout, drop_path_rate
        self.recomputes = False
        self.choose(tuple(index for index, stride in enumerate(strides) if stride > 1))

    def choose(self, out_indices):
        self.out_indices = out_indices
        self.feature_info = FeatureInfo(self.reductions, self.widths, out_indices)

    def set_grad_checkpointing(self, enable):
        self.recomputes = enable

    def forward(self, x):
        x, maps = self.stem(x), []
        for index in range(max(self.out_indices) + 1):
            x = getattr(self, f'stages_{index}')(x)
            if index in self.out_indices:
                maps.append(x.permute(0, 2, 3, 1) if self.output_fmt == 'NHWC' else x)
        return maps


def create_model(
    name,
    *,
    features_only=False,
    out_indices=None,
    pretrained=False,
    pretrained_cfg_overlay=None,
    in_chans=3,
    output_stride=None,
    drop_path_rate=0.0,
    **options,
):
    """Build a network as timm's does."""
    base = name.partition('.')[0]
    if options:
        raise TypeError(f'unexpected keyword argument {[*options][0]!r}')
    if features_only and base == 'mapless':
        raise RuntimeError('features_only not implemented for this network')
    if output_stride and base == 'patches':
        raise TypeError("unexpected keyword argument 'output_stride'")
    layout = 'NHWC' if base == 'patches' else 'NCHW'
    net = Network(NETWORKS[base] or (4,), in_chans, output_stride, layout, drop_path_rate)
    if out_indices is not None:
        net.choose(tuple(out_indices))
    if pretrained:
        state = (pretrained_cfg_overlay or {}).get('state_dict') or WEIGHTS.get(base)
        if state is None:
            raise FileNotFoundError('cannot find the requested files in the local cache')
        net.load_state_dict(state)
    return net


def make_fake_timm() -> ModuleType:
    """Return the module."""

    def get_pretrained_cfg(name, allow_unregistered=True):
        base = name.partition('.')[0]
        if base not in NETWORKS:
            raise RuntimeError(f'Model architecture ({base}) has no pretrained cfg registered.')
        return SimpleNamespace(
            mean=(0.5, 0.5, 0.25),
            std=(0.5, 0.25, 0.5),
            url=None,
            hf_hub_id=None if base == 'flat' else f'timm/{base}.a_in1k',
            hf_hub_filename=None,
            input_size=(3, 64, 64),
            fixed_input_size=base == 'patches',
        )

    module = ModuleType('timm')
    module.__version__ = '0'
    module.models = SimpleNamespace(get_pretrained_cfg=get_pretrained_cfg)
    module.create_model = create_model
    module.list_models = lambda pretrained=False: [*NETWORKS]
    return module
