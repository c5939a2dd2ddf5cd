"""Every published network, one row each. No torch here: data, and a lookup.

Parameters and multiply-adds are re-derived by the tests. Accuracies cannot be: they are the
publishers', and the comment above each family says where they stand. What could not be found in a
publisher's own words is None.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..errors import ArgumentError, nearest


@dataclass(frozen=True)
class Family:
    """What the members of a family share."""

    type: str  # the registered class
    trunk: Mapping[str, Any]  # what every member passes to ResTrunk


@dataclass(frozen=True)
class Weights:
    """One public file. Its name ends in the first hex digits of its sha256."""

    url: str
    layout: str  # how its keys are spelt: a key of weights.LAYOUTS
    license: str
    top1: float | None = None  # where it is not its row's, as published, at `crop`
    crop: int | None = None
    note: str = ''  # who trained it, or made it of what

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
    differs: Mapping[str, Any]  # from its family
    params: float  # millions, with the 1000-way classifier
    macs: float  # billions at 224 px, with the classifier
    top1: float | None  # ImageNet per cent of `weights`, at `crop`; None: not published
    crop: int | None
    weights: tuple[Weights, ...] = ()  # one set of weights, on several hosts: any may be fetched

    @property
    def type(self) -> str:
        """The registered class."""
        return self.family.type

    @property
    def alternatives(self) -> tuple[Weights, ...]:
        """Other weights of the same network: never fetched unless asked for by URL."""
        return ALTERNATIVES.get(self.name, ())

    @property
    def trunk(self) -> dict[str, Any]:
        """The arguments of ResTrunk that make this network."""
        return dict(self.family.trunk, depths=self.depths, **self.differs)


def family(type_: str, **trunk: Any) -> Family:
    """Build a family whose settings nobody changes by accident."""
    return Family(type_, MappingProxyType(trunk))


R14, R26, R50, R101 = (1, 1, 1, 1), (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 23, 3)
D60, D102 = (1, 2, 3, 1), (1, 3, 4, 1)  # depths of DLA's trees
R152, R200, R269 = (3, 8, 36, 3), (3, 24, 36, 3), (3, 30, 48, 8)

DEEP, WIDE = (32, 32, 64), (64, 64, 128)  # the three widths of a deep stem
D = dict(stem=DEEP, pooled_shortcut=True)  # the "D" form: deep stem, pooled shortcuts

RESNEST = family('ResNeSt', kind='split', **D)
FAST = family('ResNeSt', kind='split', avd_first=True, **D)
RES2NET = family('Res2Net', kind='res2')
RES2NET_V1B = family('Res2Net', kind='res2', **D)
RESNET = family('ResNet', kind='resnext')
RESNET_D = family('ResNet', kind='resnext', **D)
RESNEXT = family('ResNeXt', kind='resnext')
RESNEXT_D = family('ResNeXt', kind='resnext', **D)
SERESNET = family('SEResNet', kind='se')
SERESNET_D = family('SEResNet', kind='se', **D)
SERESNEXT = family('SEResNeXt', kind='se')
SERESNEXT_D = family('SEResNeXt', kind='se', **D)
SKNET = family('SKNet', kind='sk', split_input=True, min_hidden=8)
SKNET_D = family('SKNet', kind='sk', split_input=True, min_hidden=8, **D)
SKNEXT = family('SKNet', kind='sk')
DLA = family('DLA', kind='dla')
DLA_RES2 = family('DLA', kind='dla_res2')
# Caffe rounds the size after the stem's pool up and does not pad: shifted by one pixel.
LEGACY_SERESNET = family('SEResNet', kind='se', ceil_pool=True, stride_in_1x1=True)
LEGACY_SERESNEXT = family('SEResNeXt', kind='se', ceil_pool=True)
SENET = family('SENet', kind='se', stem=WIDE, shortcut_kernel=3, reduce_first=2)
LEGACY_SENET = family(
    'SENet', kind='se', stem=WIDE, shortcut_kernel=3, reduce_first=2, ceil_pool=True
)

APACHE, BSD, UNKNOWN = 'Apache-2.0', 'BSD-3-Clause', 'unknown'
NC = 'CC-BY-NC-SA-4.0'  # Res2Net's authors: commercial use needs their permission
NC4 = 'CC-BY-NC-4.0'  # Facebook's weights that learnt from Instagram and YFCC-100M
TIMM = 'https://github.com/rwightman/pytorch-image-models/releases/download/'
GLUON = 'https://github.com/rwightman/pytorch-pretrained-gluonresnet/releases/download/v0.1/gluon_'
PYTORCH = 'https://download.pytorch.org/models/'
FACEBOOK = 'https://dl.fbaipublicfiles.com/semiweaksupervision/model_files/'
OPENMMLAB = 'https://download.openmmlab.com/'


def single_host(url: str, layout: str = 'official', license: str = APACHE) -> tuple[Weights, ...]:
    """Describe a file that only one host has."""
    return (Weights(url + '.pth', layout, license),)


def resnest(name: str, mirrored: bool = True) -> tuple[Weights, ...]:
    """Describe the authors' file, and timm's mirror of some."""
    official = 'https://github.com/zhanghang1989/ResNeSt/releases/download/weights_step1/'
    mirrors = (official, TIMM + 'v0.1-resnest/') if mirrored else (official,)
    return tuple(Weights(f'{base}{name}.pth', 'official', APACHE) for base in mirrors)


def res2net(name: str, mirrored: bool = True) -> tuple[Weights, ...]:
    """Describe the authors' file, and timm's mirror of all but v1b."""
    official = 'https://shanghuagao.oss-cn-beijing.aliyuncs.com/res2net/'
    mirrors = (official, TIMM + 'v0.1-res2net/') if mirrored else (official,)
    return tuple(Weights(f'{base}{name}.pth', 'official', NC) for base in mirrors)


def cadene(name: str, resaved: str = '') -> tuple[Weights, ...]:
    """Cadene's port of the Caffe weights, and timm's copy: the same file, or saved anew.

    That a copy saved anew holds the same weights is inferred: the same network, credited to Cadene,
    and the top-1 that timm measures is within 0.01 of Cadene's.
    """
    original = Weights(f'http://data.lip6.fr/cadene/pretrainedmodels/{name}.pth', 'cadene', BSD)
    if resaved:
        return original, Weights(
            f'{TIMM}v0.1-weights/{resaved}.pth', 'cadene', BSD, note='saved anew by timm'
        )
    # the same file comes over https from GitHub, over plain http from the university
    return Weights(f'{TIMM}v0.1-cadene/{name}.pth', 'cadene', BSD), original


def dla(name: str, resaved: str) -> tuple[Weights, ...]:
    """Describe the authors' file, and timm's copy, saved anew without what nothing reads."""
    original = Weights(f'http://dl.yf.io/dla/models/imagenet/{name}.pth', 'dla', BSD)
    copy = f'{TIMM}v0.1-weights/{resaved}.pth'
    return original, Weights(copy, 'dla', BSD, note='saved anew by timm')


def torchvision(name: str) -> tuple[Weights, ...]:
    """Describe a file of torchvision's."""
    return single_host(PYTORCH + name, 'official', BSD)


X32x4 = dict(groups=32, base_width=4)
X64x4 = dict(groups=64, base_width=4)
X32x8 = dict(groups=32, base_width=8)

# One row a line, wider than the house's 100 columns: a table is read down its columns.
# fmt: off
TABLE = (
    # ResNeSt. Top-1 of PyTorch weights and crop: the authors' README and ablation.md; of 14 and 26, which only
    # Gluon has trained, gluon-cv's model zoo (timm measures 75.51 and 78.48 on its ports of them). Mirrors: timm's
    # resnest.py before the files moved to its hub. Left out: Gluon's zips, PyTorch-Encoding's and detectron2's
    # backbones, whose hosts are closed.
    Variant('resnest14',               RESNEST,     R14,  {},                                             10.612,  2.749, 75.75, 224, single_host(TIMM + 'v0.1-weights/gluon_resnest14-9c8fe254')),
    Variant('resnest26',               RESNEST,     R26,  {},                                             17.069,  3.623, 78.68, 224, single_host(TIMM + 'v0.1-weights/gluon_resnest26-50eb607c')),
    Variant('resnest50',               RESNEST,     R50,  {},                                             27.483,  5.371, 81.03, 224, resnest('resnest50-528c19ca')),
    Variant('resnest101',              RESNEST,     R101, dict(stem=WIDE),                                48.275, 10.201, 82.83, 256, resnest('resnest101-22405ba7')),
    Variant('resnest200',              RESNEST,     R200, dict(stem=WIDE),                                70.202, 17.408, 83.84, 320, resnest('resnest200-75117900')),
    Variant('resnest269',              RESNEST,     R269, dict(stem=WIDE),                               110.929, 22.434, 84.54, 416, resnest('resnest269-0cc87c48')),
    Variant('resnest50_fast_1s1x64d',  FAST,        R50,  dict(radix=1),                                  26.218,  4.329, 80.33, 224, resnest('resnest50_fast_1s1x64d-d8fbf808', mirrored=False)),
    Variant('resnest50_fast_2s1x64d',  FAST,        R50,  dict(radix=2),                                  27.483,  4.331, 80.53, 224, resnest('resnest50_fast_2s1x64d-44938639', mirrored=False)),
    Variant('resnest50_fast_4s1x64d',  FAST,        R50,  dict(radix=4),                                  31.913,  4.335, 80.76, 224, resnest('resnest50_fast_4s1x64d-f74f3fc3', mirrored=False)),
    Variant('resnest50_fast_1s2x40d',  FAST,        R50,  dict(radix=1, groups=2, base_width=40),         25.947,  4.365, 80.59, 224, resnest('resnest50_fast_1s2x40d-32830b84', mirrored=False)),
    Variant('resnest50_fast_2s2x40d',  FAST,        R50,  dict(radix=2, groups=2, base_width=40),         26.944,  4.366, 80.61, 224, resnest('resnest50_fast_2s2x40d-9d126481', mirrored=False)),
    Variant('resnest50_fast_4s2x40d',  FAST,        R50,  dict(radix=4, groups=2, base_width=40),         30.418,  4.369, 81.14, 224, resnest('resnest50_fast_4s2x40d-41d14ed0')),
    Variant('resnest50_fast_1s4x24d',  FAST,        R50,  dict(radix=1, groups=4, base_width=24),         25.677,  4.400, 80.99, 224, resnest('resnest50_fast_1s4x24d-d4a4f76f')),

    # Res2Net. 100 - error as in the authors' README, which has no crop but the usual 224, and no v1b-152.
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

    # SE networks in Caffe's form: Cadene's README, all at 224; 26 layers: timm, who trained it in this form.
    Variant('legacy_seresnet50',       LEGACY_SERESNET, R50,  {},                                         28.088,  3.860, 77.64, 224, cadene('se_resnet50-ce0d4300')),
    Variant('legacy_seresnet101',      LEGACY_SERESNET, R101, {},                                         49.327,  7.575, 78.40, 224, cadene('se_resnet101-7e38fcc6')),
    Variant('legacy_seresnet152',      LEGACY_SERESNET, R152, {},                                         66.822, 11.289, 78.66, 224, cadene('se_resnet152-d17c99b7')),
    Variant('legacy_seresnext26_32x4d',  LEGACY_SERESNEXT, R26,  X32x4,                                   16.790,  2.472, 77.10, 224, single_host(TIMM + 'v0.1-weights/seresnext26_32x4d-65ebdb501', 'cadene')),
    Variant('legacy_seresnext50_32x4d',  LEGACY_SERESNEXT, R50,  X32x4,                                   27.560,  4.233, 79.08, 224, cadene('se_resnext50_32x4d-a260b3a4', 'legacy_se_resnext50_32x4d-f3651bad')),
    Variant('legacy_seresnext101_32x4d', LEGACY_SERESNEXT, R101, X32x4,                                   48.955,  7.975, 80.24, 224, cadene('se_resnext101_32x4d-3b2fe3d8', 'legacy_se_resnext101_32x4d-37725eac')),
    Variant('legacy_senet154',         LEGACY_SENET, R152, X64x4,                                        115.089, 20.688, 81.30, 224, cadene('senet154-c7b49a05', 'legacy_senet154-e9eb9fe6')),
    # SE networks in timm's and Gluon's form: timm's results-imagenet.csv, at the size it tests them at; at 224
    # of the 26-layer, 50_32x4d and 32x8d ones, as timm gives both sizes. None: nobody has published weights.
    Variant('seresnet50',              SERESNET,    R50,  {},                                             28.088,  4.092, 81.28, 288, single_host(TIMM + 'v0.1-weights/seresnet50_ra_224-8efdb4bb')),
    Variant('seresnet101',             SERESNET,    R101, {},                                             49.327,  7.806, None,  None),
    Variant('seresnet152',             SERESNET,    R152, {},                                             66.822, 11.520, None,  None),
    Variant('seresnet152d',            SERESNET_D,  R152, {},                                             66.841, 11.760, 84.36, 320, single_host(TIMM + 'v0.1-weights/seresnet152d_ra2-04464dd2')),
    Variant('seresnext26_32x4d',       SERESNEXT,   R26,  X32x4,                                          16.790,  2.472, None,  None),
    Variant('seresnext26d_32x4d',      SERESNEXT_D, R26,  X32x4,                                          16.810,  2.712, 77.59, 224, single_host(TIMM + 'v0.1-weights/seresnext26d_32x4d-80fa48a3')),
    Variant('seresnext26t_32x4d',      SERESNEXT_D, R26,  dict(X32x4, stem=(24, 32, 64)),                 16.807,  2.680, 77.98, 224, single_host(TIMM + 'v0.1-weights/seresnext26tn_32x4d-569cb627')),
    Variant('seresnext50_32x4d',       SERESNEXT,   R50,  X32x4,                                          27.560,  4.233, 81.27, 224, single_host(TIMM + 'v0.1-weights/seresnext50_32x4d_racm-a304a460')),
    Variant('seresnext101_32x4d',      SERESNEXT,   R101, X32x4,                                          48.955,  7.975, 80.89, 224, single_host(GLUON + 'seresnext101_32x4d-cf52900d')),
    Variant('seresnext101_64x4d',      SERESNEXT,   R101, X64x4,                                          88.233, 15.465, 80.88, 224, single_host(GLUON + 'seresnext101_64x4d-f9926f93')),
    Variant('seresnext101_32x8d',      SERESNEXT,   R101, X32x8,                                          93.569, 16.419, 83.62, 224, single_host(TIMM + 'v0.1-tpu-weights/seresnext101_32x8d_ah-e6bc4c0a')),
    Variant('seresnext50d_32x4d',      SERESNEXT_D, R50,  X32x4,                                          27.579,  4.473, None,  None),
    Variant('seresnext101d_32x4d',     SERESNEXT_D, R101, X32x4,                                          48.975,  8.214, None,  None),
    Variant('seresnext101d_64x4d',     SERESNEXT_D, R101, X64x4,                                          88.252, 15.705, None,  None),
    Variant('seresnext101d_32x8d',     SERESNEXT_D, R101, X32x8,                                          93.588, 16.658, 83.70, 224, single_host(TIMM + 'v0.1-tpu-weights/seresnext101d_32x8d_ah-191d7b94')),
    Variant('senet154',                SENET,       R152, X64x4,                                         115.089, 20.688, 81.26, 224, single_host(GLUON + 'senet154-70a1a3c0')),

    # SKNet. timm's results-imagenet.csv; of the first two nobody has published weights. skresnext50_32x4d is the
    # paper's SKNet-50 with a dilated 3x3 for its 5x5; in the others each kernel sees half of the channels.
    Variant('skresnet50',              SKNET,       R50,  {},                                             25.803,  4.089, None,  None),
    Variant('skresnet50d',             SKNET_D,     R50,  {},                                             25.822,  4.329, None,  None),
    Variant('skresnext50_32x4d',       SKNEXT,      R50,  X32x4,                                          27.480,  4.463, 80.17, 224, single_host(TIMM + 'v0.1-weights/skresnext50_ra-f40e40bf')),

    # DLA. timm's results-imagenet.csv, which tests the authors' weights; those with Res2Net are its authors'.
    Variant('dla60',                   DLA,         D60,  {},                                             22.037,  4.236, 77.04, 224, dla('dla60-24839fc4', 'dla60-9e91bd4d')),
    Variant('dla60x',                  DLA,         D60,  X32x4,                                          17.352,  3.517, 78.23, 224, dla('dla60x-d15cacda', 'dla60x-6818f6bb')),
    Variant('dla102',                  DLA,         D102, dict(root_shortcut=True),                       33.269,  7.165, 78.02, 224, dla('dla102-d94d9790', 'dla102-21f57b54')),
    Variant('dla60_res2net',           DLA_RES2,    D60,  dict(base_width=28, scales=4),                  20.848,  4.123, 78.48, 224, single_host(TIMM + 'v0.1-res2net/res2net_dla60_4s-d88db7f9', 'dla', NC)),
    Variant('dla60_res2next',          DLA_RES2,    D60,  dict(base_width=4, scales=4, groups=8),         17.033,  3.459, 78.49, 224, single_host(TIMM + 'v0.1-res2net/res2next_dla60_4s-d327927b', 'dla', NC)),

    # ResNet and ResNeXt. torchvision: acc@1 of IMAGENET1K_V1 in its resnet.py. The D forms and 101_32x4d: timm's
    # results-imagenet.csv, at the size it tests them at.
    Variant('resnet50',                RESNET,      R50,  {},                                             25.557,  4.089, 76.13, 224, torchvision('resnet50-0676ba61')),
    Variant('resnet101',               RESNET,      R101, {},                                             44.549,  7.801, 77.37, 224, torchvision('resnet101-63fe2227')),
    Variant('resnet152',               RESNET,      R152, {},                                             60.193, 11.514, 78.31, 224, torchvision('resnet152-394f9c45')),
    Variant('resnet50d',               RESNET_D,    R50,  {},                                             25.576,  4.329, 81.36, 288, single_host(TIMM + 'v0.1-weights/resnet50d_ra2-464e36ba')),
    Variant('resnet101d',              RESNET_D,    R101, {},                                             44.568,  8.041, 83.02, 320, single_host(TIMM + 'v0.1-weights/resnet101d_ra2-2803ffab')),
    Variant('resnet152d',              RESNET_D,    R152, {},                                             60.212, 11.753, 83.68, 320, single_host(TIMM + 'v0.1-weights/resnet152d_ra2-5cac0439')),
    Variant('resnext50_32x4d',         RESNEXT,     R50,  X32x4,                                          25.029,  4.230, 77.62, 224, torchvision('resnext50_32x4d-7cdf4587')),
    Variant('resnext50d_32x4d',        RESNEXT_D,   R50,  X32x4,                                          25.048,  4.470, 80.66, 288, single_host(TIMM + 'v0.1-weights/resnext50d_32x4d-103e99f8')),
    Variant('resnext101_32x4d',        RESNEXT,     R101, X32x4,                                          44.178,  7.970, 80.34, 224, single_host(GLUON + 'resnext101_32x4d-b253c8c4')),
    Variant('resnext101_64x4d',        RESNEXT,     R101, X64x4,                                          83.455, 15.460, 83.25, 224, torchvision('resnext101_64x4d-173b62eb')),
    Variant('resnext101_32x8d',        RESNEXT,     R101, X32x8,                                          88.791, 16.414, 79.31, 224, torchvision('resnext101_32x8d-8ba56ff5')),
)
# fmt: on


def timm(name: str, top1: float, crop: int) -> Weights:
    """Describe a file of timm's own training."""
    return Weights(f'{TIMM}v0.1-{name}.pth', 'official', APACHE, top1, crop, 'timm')


def gluon(name: str, top1: float) -> Weights:
    """Describe a file of Gluon's training, ported by timm's author."""
    return Weights(f'{GLUON}{name}.pth', 'official', APACHE, top1, 224, 'Gluon')


def torchvision2(name: str, top1: float) -> Weights:
    """Describe a file of torchvision's second recipe."""
    return Weights(f'{PYTORCH}{name}.pth', 'official', BSD, top1, 224, 'torchvision V2')


def mmpretrain(name: str, top1: float, converted: bool = False) -> Weights:
    """Describe a file of OpenMMLab's: of its own training, or the first choice's weights, converted."""
    license = NC if converted and 'res2net' in name else APACHE
    return Weights(
        f'{OPENMMLAB}mmclassification/v0/{name}.pth',
        'mmpretrain',
        license,
        top1,
        224,
        "mmpretrain, from the authors'" if converted else 'mmpretrain',
    )


def third_party(name: str, license: str, note: str) -> Weights:
    """Describe a backbone that OpenMMLab keeps for its detectors and has not scored on ImageNet."""
    layout = 'official' if name.startswith('resnext') else 'mmdet'
    return Weights(f'{OPENMMLAB}pretrain/third_party/{name}.pth', layout, license, None, None, note)


def facebook(url: str, top1: float, data: str) -> Weights:
    """Describe a file of Facebook's, which has learnt from pictures of ``data`` first."""
    return Weights(f'{url}.pth', 'official', NC4, top1, 224, f'Facebook, {data}')


# Other weights of the same networks. Hashes and URLs of timm, Gluon, torchvision V2 and Facebook: timm's resnet.py;
# top-1 and size: timm's results-imagenet.csv, of torchvision V2 its own resnet.py. mmpretrain: the metafiles and
# READMEs of its configs/resnet, resnext, seresnet, res2net, and its archived model zoo for ResNeSt, which it tests at
# 224 whatever they were made for. third_party: mmengine's hub/openmmlab.json.
# fmt: off
ALTERNATIVES: Mapping[str, tuple[Weights, ...]] = MappingProxyType({
    'resnest50': (
        mmpretrain('resnest/resnest50_imagenet_converted-1ebf0afe', 81.13, converted=True),
        third_party('resnest50_d2-7497a55b', APACHE, 'the authors for detectron2'),
    ),
    'resnest101': (
        mmpretrain('resnest/resnest101_imagenet_converted-032caa52', 82.32, converted=True),
        third_party('resnest101_d2-f3b931b2', APACHE, 'the authors for detectron2'),
    ),
    'resnest200': (
        mmpretrain('resnest/resnest200_imagenet_converted-581a60f2', 82.41, converted=True),
        third_party('resnest200_d2-ca88e41f', APACHE, 'the authors for detectron2'),
    ),
    'resnest269': (
        mmpretrain('resnest/resnest269_imagenet_converted-59930960', 82.7, converted=True),
    ),
    'res2net50_14w_8s': (
        mmpretrain('res2net/res2net50-w14-s8_3rdparty_8xb32_in1k_20210927-bc967bf1', 78.14, converted=True),
    ),
    'res2net50_26w_8s': (
        mmpretrain('res2net/res2net50-w26-s8_3rdparty_8xb32_in1k_20210927-f547a94b', 79.2, converted=True),
    ),
    'res2net101_26w_4s': (
        mmpretrain('res2net/res2net101-w26-s4_3rdparty_8xb32_in1k_20210927-870b6c36', 79.19, converted=True),
    ),
    'res2net101_v1b_26w_4s': (
        third_party('res2net101_v1d_26w_4s_mmdetv2-f0a600f9', NC, 'the authors for mmdet, as v1d'),
    ),
    'seresnet50': (
        timm('rsb-weights/seresnet50_a1_0-ffa00869', 81.10, 288),
        timm('rsb-weights/seresnet50_a2_0-850de0d9', 81.11, 288),
        timm('rsb-weights/seresnet50_a3_0-317ecd56', 77.03, 224),
        mmpretrain('se-resnet/se-resnet50_batch256_imagenet_20200804-ae206104', 77.74),
    ),
    'seresnet101': (
        mmpretrain('se-resnet/se-resnet101_batch256_imagenet_20200804-ba5b51d4', 78.26),
    ),
    'seresnext50_32x4d': (
        gluon('seresnext50_32x4d-90cf2d6e', 79.92),
    ),
    'resnet50': (
        torchvision2('resnet50-11ad3fa6', 80.86),
        timm('rsb-weights/resnet50_a1_0-14fe96d1', 81.21, 288),
        timm('rsb-weights/resnet50_a1h2_176-001a1197', 80.68, 224),
        timm('rsb-weights/resnet50_a2_0-a2746f79', 80.77, 288),
        timm('rsb-weights/resnet50_a3_0-59cae1ef', 78.05, 224),
        timm('rsb-weights/resnet50_b1k-532a802a', 80.71, 288),
        timm('rsb-weights/resnet50_b2k-1ba180c1', 80.45, 288),
        timm('rsb-weights/resnet50_c1-5ba5e060', 80.91, 288),
        timm('rsb-weights/resnet50_c2-d01e05b2', 80.87, 288),
        timm('rsb-weights/resnet50_d-f39db8af', 80.97, 288),
        timm('weights/resnet50_ram-a26f946b', 79.98, 288),
        timm('weights/resnet50_am-6c502b37', 79.00, 224),
        timm('weights/resnet50_ra-85ebb6e5', 79.84, 288),
        timm('weights/rw_resnet50-86acaeed', 79.64, 288),
        gluon('resnet50_v1b-0ebe02e2', 77.58),
        mmpretrain('resnet/resnet50_8xb32_in1k_20210831-ea4938fc', 76.55),
        mmpretrain('resnet/resnet50_8xb256-rsb-a1-600e_in1k_20211228-20e21305', 80.12),
        mmpretrain('resnet/resnet50_8xb256-rsb-a2-300e_in1k_20211228-0fd8be6e', 79.55),
        mmpretrain('resnet/resnet50_8xb256-rsb-a3-100e_in1k_20211228-3493673c', 78.3),
        facebook(FACEBOOK + 'semi_supervised_resnet50-08389792', 79.23, 'YFCC-100M'),
        facebook(FACEBOOK + 'semi_weakly_supervised_resnet50-16a12f1b', 81.18, 'Instagram'),
    ),
    'resnet101': (
        torchvision2('resnet101-cd907fc2', 81.89),
        timm('rsb-weights/resnet101_a1h-36d3f2aa', 82.78, 288),
        timm('rsb-weights/resnet101_a1_0-cdcb52a9', 82.32, 288),
        timm('rsb-weights/resnet101_a2_0-6edb36c7', 82.24, 288),
        timm('rsb-weights/resnet101_a3_0-1db14157', 79.81, 224),
        gluon('resnet101_v1b-3b017079', 79.31),
        mmpretrain('resnet/resnet101_8xb32_in1k_20210831-539c63f8', 77.97),
    ),
    'resnet152': (
        torchvision2('resnet152-f82ba261', 82.28),
        timm('rsb-weights/resnet152_a1h-dc400468', 83.45, 288),
        timm('rsb-weights/resnet152_a1_0-2eee8a7a', 82.73, 288),
        timm('rsb-weights/resnet152_a2_0-b4c6978f', 82.61, 288),
        timm('rsb-weights/resnet152_a3_0-134d4688', 80.55, 224),
        gluon('resnet152_v1b-c1edb0dd', 79.69),
        mmpretrain('resnet/resnet152_8xb32_in1k_20210901-4d7582fa', 78.48),
    ),
    'resnet50d': (
        timm('rsb-weights/resnet50d_a1_0-e20cff14', 81.45, 288),
        timm('rsb-weights/resnet50d_a2_0-a3adc64d', 81.16, 288),
        timm('rsb-weights/resnet50d_a3_0-403fdfad', 78.72, 224),
        gluon('resnet50_v1d-818a1b1b', 79.08),
        mmpretrain('resnet/resnetv1d50_b32x8_imagenet_20210531-db14775a', 77.54),
    ),
    'resnet101d': (
        gluon('resnet101_v1d-0f9c8644', 80.43),
        mmpretrain('resnet/resnetv1d101_b32x8_imagenet_20210531-6e13bcd3', 78.93),
    ),
    'resnet152d': (
        gluon('resnet152_v1d-bd354e12', 80.48),
        mmpretrain('resnet/resnetv1d152_b32x8_imagenet_20210531-278cf22a', 79.41),
    ),
    'resnext50_32x4d': (
        torchvision2('resnext50_32x4d-1a0047aa', 81.2),
        timm('rsb-weights/resnext50_32x4d_a1h-0146ab0a', 82.01, 288),
        timm('rsb-weights/resnext50_32x4d_a1_0-b5a91a1d', 81.47, 288),
        timm('rsb-weights/resnext50_32x4d_a2_0-efc76add', 81.30, 288),
        timm('rsb-weights/resnext50_32x4d_a3_0-3e450271', 79.27, 224),
        timm('weights/resnext50_32x4d_ra-d733960d', 80.70, 288),
        gluon('resnext50_32x4d-e6a097c1', 79.36),
        mmpretrain('resnext/resnext50_32x4d_b32x8_imagenet_20210429-56066e27', 77.9),
        third_party('resnext50-32x4d-0ab1a123', UNKNOWN, 'OpenMMLab, of unknown origin'),
        facebook(FACEBOOK + 'semi_supervised_resnext50_32x4-ddb3e555', 80.34, 'YFCC-100M'),
        facebook(FACEBOOK + 'semi_weakly_supervised_resnext50_32x4-72679e44', 82.17, 'Instagram'),
    ),
    'resnext101_32x4d': (
        mmpretrain('resnext/resnext101_32x4d_b32x8_imagenet_20210506-e0fa3dd5', 78.61),
        third_party('resnext101_32x4d-a5af3160', UNKNOWN, 'OpenMMLab, of unknown origin'),
        facebook(FACEBOOK + 'semi_supervised_resnext101_32x4-dc43570a', 80.92, 'YFCC-100M'),
        facebook(FACEBOOK + 'semi_weakly_supervised_resnext101_32x4-3f87e46b', 83.23, 'Instagram'),
    ),
    'resnext101_64x4d': (
        timm('tpu-weights/resnext101_64x4d_c-0d0e0cc0', 83.16, 288),
        gluon('resnext101_64x4d-f9a8e184', 80.60),
        third_party('resnext101_64x4d-ee2c6f71', UNKNOWN, 'OpenMMLab, of unknown origin'),
    ),
    'resnext101_32x8d': (
        torchvision2('resnext101_32x8d-110c445d', 82.83),
        mmpretrain('resnext/resnext101_32x8d_b32x8_imagenet_20210506-23a247d5', 79.27),
        third_party('resnext101_32x8d-1516f1aa', UNKNOWN, 'OpenMMLab, of detectron2'),
        facebook(PYTORCH + 'ig_resnext101_32x8-c38310e5', 82.7, 'Instagram'),
        facebook(FACEBOOK + 'semi_supervised_resnext101_32x8-2cfe2f8b', 81.61, 'YFCC-100M'),
        facebook(FACEBOOK + 'semi_weakly_supervised_resnext101_32x8-b4712904', 84.3, 'Instagram'),
    ),
})
# fmt: on

#: other names of the same network -> the name of its row
ALIASES = {
    # timm's names, where they are others
    'resnest14d': 'resnest14',
    'resnest26d': 'resnest26',
    'resnest50d': 'resnest50',
    'resnest50d_4s2x40d': 'resnest50_fast_4s2x40d',
    'resnest50d_1s4x24d': 'resnest50_fast_1s4x24d',
    'resnest101e': 'resnest101',
    'resnest200e': 'resnest200',
    'resnest269e': 'resnest269',
    'res2net50d': 'res2net50_v1b_26w_4s',
    'res2net101d': 'res2net101_v1b_26w_4s',
    # Cadene's names; its senet154 is legacy_senet154 here, as in timm
    'se_resnet50': 'legacy_seresnet50',
    'se_resnet101': 'legacy_seresnet101',
    'se_resnet152': 'legacy_seresnet152',
    'se_resnext50_32x4d': 'legacy_seresnext50_32x4d',
    'se_resnext101_32x4d': 'legacy_seresnext101_32x4d',
    # mmdet's name for v1b; the authors say that only the stem's keys differ
    'res2net50_v1d_26w_4s': 'res2net50_v1b_26w_4s',
    'res2net101_v1d_26w_4s': 'res2net101_v1b_26w_4s',
    'res2net152_v1d_26w_4s': 'res2net152_v1b_26w_4s',
    'res2next50_4s': 'res2next50',
}
VARIANTS: Mapping[str, Variant] = MappingProxyType({row.name: row for row in TABLE})

IMAGENET_PIXELS = MappingProxyType(
    dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
)
DETECTOR_PIXELS = MappingProxyType(
    {'ResNeSt': dict(mean=[123.68, 116.779, 103.939], std=[58.393, 57.12, 57.375])}
)
"""What the authors' detectors of a family subtract and divide by, where it is not ImageNet's."""


def pixel_statistics(type: str, detects: bool) -> dict[str, list[float]]:
    """Return mean and standard deviation of pixels from 0 to 255, RGB.

    Args:
        type: the registered class of the network.
        detects: for a detector; segmentors take ImageNet's, as in mmseg.
    """
    chosen = DETECTOR_PIXELS.get(type, IMAGENET_PIXELS) if detects else IMAGENET_PIXELS
    return {name: list(values) for name, values in chosen.items()}


def list_archs(type: str | None = None) -> list[str]:
    """List the names that ``arch=`` accepts.

    Args:
        type: only those of this registered class, ``'ResNeSt'`` say.
    """
    return [row.name for row in TABLE if type in (None, row.type)]


def variant(arch: str, type: str | None = None) -> Variant:
    """Return the row of a network.

    Args:
        arch: its name, or an alias.
        type: the registered class that must own it, where that matters.

    Raises:
        ArgumentError: no such network, or it is another class's.
    """
    row = VARIANTS.get(ALIASES.get(arch, arch)) if isinstance(arch, str) else None
    if row is None:
        raise ArgumentError(
            f'arch={arch!r} is unknown; {nearest(arch, list_archs(type))}; networks of timm are '
            'timm/NAME',
            code='argument.value',
        )
    if type not in (None, row.type):
        raise ArgumentError(
            f"arch={arch!r} is a {row.type}, not a {type}; write type='mmresnest.{row.type}'",
            code='argument.value',
        )
    return row
