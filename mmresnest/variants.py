"""Every published network, one row each. No torch here: data, and a lookup.

Figures of merit are the authors' (facts re-measured from the code are checked by the tests):
ResNeSt README and ablation table, Res2Net-PretrainedModels README, Cadene's pretrained-models,
timm's results tables, torchvision's model pages.
"""
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Optional

from .errors import ArgumentError, nearest


@dataclass(frozen=True)
class Family:
    """What the members of a family share."""
    type: str                       # the registered class
    trunk: Mapping[str, Any]        # what every member passes to ResTrunk


@dataclass(frozen=True)
class Weights:
    """One public file. Its name ends in the first hex digits of its sha256."""
    url: str
    layout: str                     # how its keys are spelt: a key of weights.LAYOUTS
    licence: str

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.url.rpartition('/')[2]

    @property
    def sha256(self) -> str:
        """The published prefix of the file's sha256."""
        return self.file.rpartition('.')[0].replace('_', '-').rpartition('-')[2]


@dataclass(frozen=True)
class Variant:
    """A published network."""
    name: str
    family: Family
    depths: tuple[int, int, int, int]
    differs: Mapping[str, Any]      # from its family
    params: float                   # millions, with the 1000-way classifier
    macs: float                     # billions at 224 px, with the classifier
    top1: Optional[float]           # ImageNet per cent as published, at `crop`; None: not published
    crop: Optional[int]
    weights: tuple[Weights, ...] = ()

    @property
    def type(self) -> str:
        """The registered class."""
        return self.family.type

    @property
    def trunk(self) -> dict[str, Any]:
        """The arguments of ResTrunk that make this network."""
        return dict(self.family.trunk, depths=self.depths, **self.differs)


def family(type_: str, **trunk: Any) -> Family:
    """A family whose settings nobody changes by accident."""
    return Family(type_, MappingProxyType(trunk))


R14, R26, R50, R101 = (1, 1, 1, 1), (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 23, 3)
R152, R200, R269 = (3, 8, 36, 3), (3, 24, 36, 3), (3, 30, 48, 8)

DEEP, WIDE = (32, 32, 64), (64, 64, 128)        # the three widths of a deep stem
D = dict(stem=DEEP, pooled_shortcut=True)       # the "D" form: deep stem, pooled shortcuts

RESNEST = family('ResNeSt', kind='split', **D)
FAST = family('ResNeSt', kind='split', avd_first=True, **D)
RES2NET = family('Res2Net', kind='res2')
RES2NET_V1B = family('Res2Net', kind='res2', **D)
RESNET = family('ResNet', kind='resnext')
RESNET_D = family('ResNet', kind='resnext', **D)
RESNEXT = family('ResNeXt', kind='resnext')
SERESNET = family('SEResNet', kind='se')
SERESNEXT = family('SEResNeXt', kind='se')
SERESNEXT_D = family('SEResNeXt', kind='se', **D)
# Caffe rounds the size after the stem's pool up and does not pad: shifted by one pixel.
LEGACY_SERESNET = family('SEResNet', kind='se', ceil_pool=True, stride_in_1x1=True)
LEGACY_SERESNEXT = family('SEResNeXt', kind='se', ceil_pool=True)
SENET = family('SENet', kind='se', stem=WIDE, shortcut_kernel=3, reduce_first=2)
LEGACY_SENET = family('SENet', kind='se', stem=WIDE, shortcut_kernel=3, reduce_first=2,
                      ceil_pool=True)

APACHE, BSD, NC, UNKNOWN = 'Apache-2.0', 'BSD-3-Clause', 'CC-BY-NC-SA-4.0', 'unknown'
TIMM = 'https://github.com/rwightman/pytorch-image-models/releases/download/'
GLUON = 'https://github.com/rwightman/pytorch-pretrained-gluonresnet/releases/download/v0.1/'


def resnest(name: str) -> tuple[Weights, ...]:
    """The authors' file, and timm's mirror of it."""
    official = 'https://github.com/zhanghang1989/ResNeSt/releases/download/weights_step1/'
    return tuple(Weights(f'{base}{name}.pth', 'official', APACHE)
                 for base in (official, TIMM + 'v0.1-resnest/'))


def only(url: str, layout: str, licence: str = APACHE) -> tuple[Weights, ...]:
    """A file that only one host has."""
    return (Weights(url + '.pth', layout, licence),)


def res2net(name: str, mirrored: bool = True) -> tuple[Weights, ...]:
    """The authors' file, and timm's mirror of all but v1b."""
    official = 'https://shanghuagao.oss-cn-beijing.aliyuncs.com/res2net/'
    mirrors = (official, TIMM + 'v0.1-res2net/') if mirrored else (official,)
    return tuple(Weights(f'{base}{name}.pth', 'official', NC) for base in mirrors)


def cadene(name: str) -> tuple[Weights, ...]:
    """A file of Cadene's pretrained-models."""
    return only('http://data.lip6.fr/cadene/pretrainedmodels/' + name, 'cadene', BSD)


def torchvision(name: str) -> tuple[Weights, ...]:
    """A file of torchvision's."""
    return only('https://download.pytorch.org/models/' + name, 'official', BSD)


X32x4 = dict(groups=32, base_width=4)
X64x4 = dict(groups=64, base_width=4)
X32x8 = dict(groups=32, base_width=8)

# One row a line, wider than the house's 100 columns: a table is read down its columns.
# fmt: off
TABLE = (
    Variant('resnest14',               RESNEST,     R14,  {},                                             10.612,  2.749, 75.75, 224, only(TIMM + 'v0.1-weights/gluon_resnest14-9c8fe254', 'official')),
    Variant('resnest26',               RESNEST,     R26,  {},                                             17.069,  3.623, 78.68, 224, only(TIMM + 'v0.1-weights/gluon_resnest26-50eb607c', 'official')),
    Variant('resnest50',               RESNEST,     R50,  {},                                             27.483,  5.371, 81.03, 224, resnest('resnest50-528c19ca')),
    Variant('resnest101',              RESNEST,     R101, dict(stem=WIDE),                                48.275, 10.201, 82.83, 256, resnest('resnest101-22405ba7')),
    Variant('resnest200',              RESNEST,     R200, dict(stem=WIDE),                                70.202, 17.408, 83.84, 320, resnest('resnest200-75117900')),
    Variant('resnest269',              RESNEST,     R269, dict(stem=WIDE),                               110.929, 22.434, 84.54, 416, resnest('resnest269-0cc87c48')),
    Variant('resnest50_fast_1s1x64d',  FAST,        R50,  dict(radix=1),                                  26.218,  4.329, 80.33, 224, resnest('resnest50_fast_1s1x64d-d8fbf808')[:1]),
    Variant('resnest50_fast_2s1x64d',  FAST,        R50,  dict(radix=2),                                  27.483,  4.331, 80.53, 224, resnest('resnest50_fast_2s1x64d-44938639')[:1]),
    Variant('resnest50_fast_4s1x64d',  FAST,        R50,  dict(radix=4),                                  31.913,  4.335, 80.76, 224, resnest('resnest50_fast_4s1x64d-f74f3fc3')[:1]),
    Variant('resnest50_fast_1s2x40d',  FAST,        R50,  dict(radix=1, groups=2, base_width=40),         25.947,  4.365, 80.59, 224, resnest('resnest50_fast_1s2x40d-32830b84')[:1]),
    Variant('resnest50_fast_2s2x40d',  FAST,        R50,  dict(radix=2, groups=2, base_width=40),         26.944,  4.366, 80.61, 224, resnest('resnest50_fast_2s2x40d-9d126481')[:1]),
    Variant('resnest50_fast_4s2x40d',  FAST,        R50,  dict(radix=4, groups=2, base_width=40),         30.418,  4.369, 81.14, 224, resnest('resnest50_fast_4s2x40d-41d14ed0')),
    Variant('resnest50_fast_1s4x24d',  FAST,        R50,  dict(radix=1, groups=4, base_width=24),         25.677,  4.400, 80.99, 224, resnest('resnest50_fast_1s4x24d-d4a4f76f')),

    Variant('res2net50_48w_2s',        RES2NET,     R50,  dict(base_width=48, scales=2),                  25.287,  4.160, 77.32, 224, res2net('res2net50_48w_2s-afed724a')),
    Variant('res2net50_26w_4s',        RES2NET,     R50,  dict(base_width=26, scales=4),                  25.699,  4.255, 77.99, 224, res2net('res2net50_26w_4s-06e79181')),
    Variant('res2net50_14w_8s',        RES2NET,     R50,  dict(base_width=14, scales=8),                  25.060,  4.179, 78.14, 224, res2net('res2net50_14w_8s-6527dddc')),
    Variant('res2net50_26w_6s',        RES2NET,     R50,  dict(base_width=26, scales=6),                  37.051,  6.296, 78.58, 224, res2net('res2net50_26w_6s-19041792')),
    Variant('res2net50_26w_8s',        RES2NET,     R50,  dict(base_width=26, scales=8),                  48.404,  8.336, 79.20, 224, res2net('res2net50_26w_8s-2c7c9f12')),
    Variant('res2net101_26w_4s',       RES2NET,     R101, dict(base_width=26, scales=4),                  45.207,  8.067, 79.19, 224, res2net('res2net101_26w_4s-02a759a1')),
    Variant('res2next50',              RES2NET,     R50,  dict(base_width=4, scales=4, groups=8),         24.671,  4.173, 78.24, 224, res2net('res2next50_4s-6ef7e7bf')),
    Variant('res2net50_v1b_26w_4s',    RES2NET_V1B, R50,  dict(base_width=26, scales=4),                  25.718,  4.495, 80.27, 224, res2net('res2net50_v1b_26w_4s-3cf99910', mirrored=False)),
    Variant('res2net101_v1b_26w_4s',   RES2NET_V1B, R101, dict(base_width=26, scales=4),                  45.226,  8.307, 81.23, 224, res2net('res2net101_v1b_26w_4s-0812c246', mirrored=False)),
    Variant('res2net152_v1b_26w_4s',   RES2NET_V1B, R152, dict(base_width=26, scales=4),                  61.294, 12.118, None,  None),

    Variant('legacy_seresnet50',       LEGACY_SERESNET, R50,  {},                                         28.088,  3.860, 77.64, 224, cadene('se_resnet50-ce0d4300')),
    Variant('legacy_seresnet101',      LEGACY_SERESNET, R101, {},                                         49.327,  7.575, 78.40, 224, cadene('se_resnet101-7e38fcc6')),
    Variant('legacy_seresnet152',      LEGACY_SERESNET, R152, {},                                         66.822, 11.289, 78.66, 224, cadene('se_resnet152-d17c99b7')),
    Variant('legacy_seresnext26_32x4d',  LEGACY_SERESNEXT, R26,  X32x4,                                   16.790,  2.472, 77.10, 224, only(TIMM + 'v0.1-weights/seresnext26_32x4d-65ebdb501', 'cadene')),
    Variant('legacy_seresnext50_32x4d',  LEGACY_SERESNEXT, R50,  X32x4,                                   27.560,  4.233, 79.08, 224, cadene('se_resnext50_32x4d-a260b3a4')),
    Variant('legacy_seresnext101_32x4d', LEGACY_SERESNEXT, R101, X32x4,                                   48.955,  7.975, 80.24, 224, cadene('se_resnext101_32x4d-3b2fe3d8')),
    Variant('legacy_senet154',         LEGACY_SENET, R152, X64x4,                                        115.089, 20.688, 81.30, 224, cadene('senet154-c7b49a05')),
    Variant('seresnet50',              SERESNET,    R50,  {},                                             28.088,  4.092, None,  None),
    Variant('seresnet101',             SERESNET,    R101, {},                                             49.327,  7.806, None,  None),
    Variant('seresnet152',             SERESNET,    R152, {},                                             66.822, 11.520, None,  None),
    Variant('seresnext26d_32x4d',      SERESNEXT_D, R26,  X32x4,                                          16.810,  2.712, 77.59, 224, only(TIMM + 'v0.1-weights/seresnext26d_32x4d-80fa48a3', 'official')),
    Variant('seresnext26t_32x4d',      SERESNEXT_D, R26,  dict(X32x4, stem=(24, 32, 64)),                 16.807,  2.680, 77.98, 224, only(TIMM + 'v0.1-weights/seresnext26tn_32x4d-569cb627', 'official')),
    Variant('seresnext50_32x4d',       SERESNEXT,   R50,  X32x4,                                          27.560,  4.233, 81.27, 224, only(TIMM + 'v0.1-weights/seresnext50_32x4d_racm-a304a460', 'official') + only(GLUON + 'gluon_seresnext50_32x4d-90cf2d6e', 'official')),
    Variant('seresnext101_32x4d',      SERESNEXT,   R101, X32x4,                                          48.955,  7.975, 80.89, 224, only(GLUON + 'gluon_seresnext101_32x4d-cf52900d', 'official')),
    Variant('seresnext101_64x4d',      SERESNEXT,   R101, X64x4,                                          88.233, 15.465, 80.88, 224, only(GLUON + 'gluon_seresnext101_64x4d-f9926f93', 'official')),
    Variant('seresnext101_32x8d',      SERESNEXT,   R101, X32x8,                                          93.569, 16.419, 83.62, 224, only(TIMM + 'v0.1-tpu-weights/seresnext101_32x8d_ah-e6bc4c0a', 'official')),
    Variant('seresnext50d_32x4d',      SERESNEXT_D, R50,  X32x4,                                          27.579,  4.473, None,  None),
    Variant('seresnext101d_32x4d',     SERESNEXT_D, R101, X32x4,                                          48.975,  8.214, None,  None),
    Variant('seresnext101d_32x8d',     SERESNEXT_D, R101, X32x8,                                          93.588, 16.658, 83.70, 224, only(TIMM + 'v0.1-tpu-weights/seresnext101d_32x8d_ah-191d7b94', 'official')),
    Variant('senet154',                SENET,       R152, X64x4,                                         115.089, 20.688, 81.26, 224, only(GLUON + 'gluon_senet154-70a1a3c0', 'official')),

    Variant('resnet50',                RESNET,      R50,  {},                                             25.557,  4.089, 76.13, 224, torchvision('resnet50-0676ba61')),
    Variant('resnet101',               RESNET,      R101, {},                                             44.549,  7.801, 77.37, 224, torchvision('resnet101-63fe2227')),
    Variant('resnet152',               RESNET,      R152, {},                                             60.193, 11.514, 78.31, 224, torchvision('resnet152-394f9c45')),
    Variant('resnet50d',               RESNET_D,    R50,  {},                                             25.576,  4.329, 80.53, 224, only(TIMM + 'v0.1-weights/resnet50d_ra2-464e36ba', 'official')),
    Variant('resnet101d',              RESNET_D,    R101, {},                                             44.568,  8.041, None,  None, only(TIMM + 'v0.1-weights/resnet101d_ra2-2803ffab', 'official')),
    Variant('resnet152d',              RESNET_D,    R152, {},                                             60.212, 11.753, None,  None, only(TIMM + 'v0.1-weights/resnet152d_ra2-5cac0439', 'official')),
    Variant('resnext50_32x4d',         RESNEXT,     R50,  X32x4,                                          25.029,  4.230, 77.62, 224, torchvision('resnext50_32x4d-7cdf4587')),
    Variant('resnext101_32x4d',        RESNEXT,     R101, X32x4,                                          44.178,  7.970, None,  None),
    Variant('resnext101_64x4d',        RESNEXT,     R101, X64x4,                                          83.455, 15.460, 83.25, 224, torchvision('resnext101_64x4d-173b62eb')),
    Variant('resnext101_32x8d',        RESNEXT,     R101, X32x8,                                          88.791, 16.414, 79.31, 224, torchvision('resnext101_32x8d-8ba56ff5')),
)
# fmt: on

#: other names of the same network -> the name of its row
ALIASES = {
    'resnest50d': 'resnest50',
    'resnest101e': 'resnest101',
    'resnest200e': 'resnest200',
    'resnest269e': 'resnest269',
    # mmdet's name for v1b; the authors say that only the stem's keys differ
    'res2net50_v1d_26w_4s': 'res2net50_v1b_26w_4s',
    'res2net101_v1d_26w_4s': 'res2net101_v1b_26w_4s',
    'res2net152_v1d_26w_4s': 'res2net152_v1b_26w_4s',
    'res2next50_4s': 'res2next50',
}
VARIANTS: Mapping[str, Variant] = MappingProxyType({row.name: row for row in TABLE})


def list_archs(type: Optional[str] = None) -> list[str]:
    """The names that ``arch=`` accepts.

    Args:
        type: only those of this registered class, ``'ResNeSt'`` say.
    """
    return [row.name for row in TABLE if type in (None, row.type)]


def variant(arch: str, type: Optional[str] = None) -> Variant:
    """The row of a network.

    Args:
        arch: its name, or an alias.
        type: the registered class that must own it, where that matters.

    Raises:
        ArgumentError: no such network, or it is another class's.
    """
    row = VARIANTS.get(ALIASES.get(arch, arch)) if isinstance(arch, str) else None
    if row is None:
        raise ArgumentError(f'arch={arch!r} is unknown; {nearest(arch, list_archs(type))}')
    if type not in (None, row.type):
        raise ArgumentError(f"arch={arch!r} is a {row.type}, not a {type}; "
                            f"write type='mmresnest.{row.type}'")
    return row
