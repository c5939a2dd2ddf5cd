"""The registered classes, in the words of mmdet's and mmseg's configs."""

import inspect
import logging

import pytest
import torch
from helpers.errors import refuses
from helpers.networks import FORMS
from helpers.tiers import mark_slow
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmresnest.models import backbones
from mmresnest.models.variants import TABLE

CLASSES = [
    backbones.ResNet,
    backbones.ResNeXt,
    backbones.SEResNet,
    backbones.SEResNeXt,
    backbones.SENet,
    backbones.Res2Net,
    backbones.ResNeSt,
    backbones.SKNet,
    backbones.DLA,
]


def build(type_: str, **arguments):
    return MODELS.build(dict(type='mmresnest.' + type_, **arguments))


def resnest(**arguments):
    return build('ResNeSt', **{'depth': 14, **arguments})


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
@pytest.mark.parametrize('cls', CLASSES, ids=lambda cls: cls.__name__)
def test_builds_from_other_scopes_and_shadows_nothing(cls, scope):
    with DefaultScope.overwrite_default_scope(scope), torch.device('meta'):
        depth = next(iter(cls.networks))
        assert type(build(cls.__name__, depth=depth)) is cls
        theirs = MODELS.get(cls.__name__)
        assert theirs is None or not theirs.__module__.startswith('mmresnest')


@pytest.mark.parametrize(
    'row', mark_slow(TABLE, lambda row: row in FORMS), ids=lambda row: row.name
)
def test_every_row_builds_by_arch(row):
    with torch.device('meta'):
        built = build(row.type, arch=row.name)
    assert len(built.out_channels) == 4


@pytest.mark.slow
@pytest.mark.parametrize('cls', CLASSES, ids=lambda cls: cls.__name__)
def test_every_depth_builds(cls):
    for depth in cls.networks:
        with torch.device('meta'):
            assert cls(depth=depth).out_channels[-1] == (1024 if cls is backbones.DLA else 2048)


def mm_arguments(cls) -> set[str]:
    """The argument names of an mm class, those of its parents included."""
    names: set[str] = set()
    for base in cls.__mro__:
        if base.__module__.startswith(('mmdet', 'mmseg')):
            names |= {
                name
                for name, parameter in inspect.signature(base.__init__).parameters.items()
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            }
    return names - {'self'}


def test_every_argument_of_mm_is_known():
    import mmdet.models
    import mmseg.models

    for theirs in (
        mmdet.models.ResNeSt,
        mmdet.models.Res2Net,
        mmdet.models.ResNet,
        mmdet.models.ResNeXt,
        mmseg.models.ResNeSt,
        mmseg.models.ResNeXt,
    ):
        ours = getattr(backbones, theirs.__name__)
        kind = ours.network(None, 50)['kind']
        assert not mm_arguments(theirs) - ours.dialect(kind), theirs


def mm_twin(theirs, ours, image, **arguments):
    """Both networks on the same weights, through their own state dicts."""
    torch.manual_seed(0)
    one = theirs(**arguments)
    for name, value in one.state_dict().items():
        if name.endswith('running_var'):
            value.uniform_(0.5, 1.5)
        elif value.dtype.is_floating_point:
            value.add_(0.1 * torch.randn_like(value))
    two = ours(**arguments, compat='mm', channels_last=False)
    two.load_state_dict(one.state_dict(), strict=True)
    one.eval()
    two.eval()
    with torch.no_grad():
        return one(image), two(image)


@pytest.mark.slow
@pytest.mark.parametrize('dilated', [{}, dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))])
def test_compat_equals_mmdet_and_mmseg_to_the_bit(dilated):
    import mmdet.models
    import mmseg.models

    image = torch.randn(2, 3, 65, 97)
    for theirs, ours in (
        (mmdet.models.ResNeSt, backbones.ResNeSt),
        (mmdet.models.Res2Net, backbones.Res2Net),
        (mmseg.models.ResNeSt, backbones.ResNeSt),
    ):
        for one, two in zip(*mm_twin(theirs, ours, image, depth=50, **dilated), strict=True):
            assert torch.equal(one, two), theirs


def test_compat_follows_mmseg_s_contraction():
    import mmseg.models

    dilated = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True)
    pairs = mm_twin(
        mmseg.models.ResNeSt, backbones.ResNeSt, torch.randn(1, 3, 64, 64), depth=50, **dilated
    )
    assert all(map(torch.equal, *pairs))


def test_the_words_of_mmdet():
    config = dict(
        stem_channels=64,
        depth=50,
        radix=2,
        reduction_factor=4,
        avg_down_stride=True,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_eval=False,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        style='pytorch',
    )
    built = build('ResNeSt', **config)
    assert built.stem[0].out_channels == 32 and built.stem[6].out_channels == 64
    assert isinstance(built.layer2[0].avd, nn.AvgPool2d)
    assert isinstance(resnest(avg_down_stride=False).layer2[0].avd, nn.Identity)
    assert isinstance(build('ResNet', depth=50, deep_stem=True, avg_down=True).stem, nn.Sequential)
    assert build('ResNet', depth=50, style='caffe').layer2[0].conv1.stride == (2, 2)
    three = build('ResNet', depth=50, num_stages=3, out_indices=(2,))
    assert three.out_channels == (1024,) and not hasattr(three, 'layer4')


def test_published_stem_by_depth():
    """mmdet gives 64 channels to every depth, and warns of the shapes of the weights."""
    with torch.device('meta'):
        assert backbones.ResNeSt(depth=101).stem[6].out_channels == 128
        assert backbones.ResNeSt(depth=50).stem[6].out_channels == 64


@pytest.mark.parametrize(
    'arguments, kind, parts',
    [
        (dict(arch='resnest50', depth=50), 'conflict', ["arch='resnest50'", 'depth=50']),
        (dict(), 'needed', ['arch=', 'depth=']),
        (dict(depth=18), 'value', ['depth=18', 'legal: 14, 26, 50, 101, 152, 200, 269']),
        (dict(arch='resnet50'), 'value', ["arch='resnet50'", "type='mmresnest.ResNet'"]),
        (dict(depth=50, frozen_stage=1), 'unknown', ["'frozen_stage'", 'nearest: frozen_stages']),
        (dict(depth=50, plugins=[dict()]), 'value', ['plugins', 'legal: None']),
        (dict(depth=50, conv_cfg=dict(type='ConvWS')), 'value', ["conv_cfg={'type': 'ConvWS'}"]),
        (dict(depth=50, norm_cfg=dict(type='LN')), 'value', ["norm_cfg={'type': 'LN'}", 'GN']),
        (
            dict(depth=50, norm_cfg=dict(type='GN', num_groups=48)),
            'value',
            ["norm_cfg={'type': 'GN', 'num_groups': 48}", '32 channels'],
        ),
        (dict(depth=50, style='tensorflow'), 'value', ["style='tensorflow'", "'pytorch', 'caffe'"]),
        (dict(depth=50, style='caffe'), 'value', ["style='caffe'", "legal: 'pytorch'"]),
        (dict(depth=50, stem_channels=7), 'value', ['stem_channels=7']),
        (dict(depth=50, num_stages=5), 'value', ['num_stages=5', 'legal: 1, 2, 3, 4']),
        (dict(depth=50, scales=4), 'unknown', ["'scales'", 'legal: arch']),
        (dict(depth=50, dcn=dict(type='DCNv3')), 'value', ['DCNv3', 'DCN, DCNv2']),
        (
            dict(depth=50, stage_with_dcn=(False, True, True, True)),
            'conflict',
            ['stage_with_dcn', "dcn=dict(type='DCNv2', deform_groups=1)"],
        ),
        (
            dict(depth=50, dcn=dict(type='DCN', deform_groups=1), stage_with_dcn=(True,)),
            'value',
            ['stage_with_dcn=(True,)', '4 stages'],
        ),
        (
            dict(
                depth=50, pretrained='a.pth', init_cfg=dict(type='Pretrained', checkpoint='a.pth')
            ),
            'conflict',
            ['pretrained', 'init_cfg'],
        ),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name(arguments, kind, parts):
    with refuses(f'argument.{kind}', *parts):
        backbones.ResNeSt(**arguments)


def test_the_registry_keeps_the_message():
    with pytest.raises(ValueError, match='nearest: resnest50'):
        build('ResNeSt', arch='resnest-50')


def test_sync_bn_becomes_bn_and_says_so_once(caplog):
    backbones._said.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            built = resnest(norm_cfg=dict(type='SyncBN', requires_grad=True))
    assert type(built.layer1[0].bn1) is nn.BatchNorm2d
    assert len(backbones._said) == 1


def test_norm_cfg_is_obeyed_and_left_alone():
    config = dict(type='BN', requires_grad=False, eps=1e-3)
    built = resnest(norm_cfg=config)
    assert config == dict(type='BN', requires_grad=False, eps=1e-3)
    norms = [m for m in built.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.eps == 1e-3 and not m.weight.requires_grad for m in norms)
    built = resnest(norm_cfg=dict(type='GN', num_groups=32))
    assert isinstance(built.layer1[0].bn1, nn.GroupNorm)


@pytest.mark.parametrize(
    'type_',
    mark_slow(
        ['ResNet', 'ResNeXt', 'SEResNeXt', 'Res2Net', 'ResNeSt', 'SKNet', 'DLA'],
        lambda type_: type_ in ('ResNet', 'ResNeXt', 'Res2Net', 'ResNeSt'),
    ),
)
@pytest.mark.parametrize('dcn', ['DCN', 'DCNv2'])
def test_deformable_stages(type_, dcn):
    config = dict(type=dcn, deform_groups=1, fallback_on_stride=True)
    depth, last = (60, 'level5') if type_ == 'DLA' else (50, 'layer4')
    built = build(type_, depth=depth, dcn=config, stage_with_dcn=(False, False, False, True))
    assert config['fallback_on_stride'] is True  # nothing was popped from the caller's
    offsets = [name for name, _ in built.named_modules() if name.endswith('conv_offset')]
    assert offsets and all(name.startswith(last) for name in offsets)
    # strided 3x3 stay plain; ResNeSt's pools leave it none
    first = f'{last}.tree1' if type_ == 'DLA' else f'{last}.0'
    assert any(name.startswith(first) for name in offsets) is (type_ == 'ResNeSt')
    built.init_weights()
    for name, module in built.named_modules():
        if name.endswith('conv_offset'):
            assert not module.weight.any() and not module.bias.any()
    maps = built(torch.randn(1, 3, 64, 64))
    assert maps[3].isfinite().all()


def test_zero_offsets_are_a_plain_convolution():
    plain = build('ResNeSt', depth=14).eval()
    deformable = build(
        'ResNeSt',
        depth=14,
        dcn=dict(type='DCN', deform_groups=1),
        stage_with_dcn=(False, True, True, True),
    ).eval()
    missing = deformable.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing and all('conv_offset' in key for key in missing)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for one, two in zip(plain(image), deformable(image)):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_init_cfg_of_mmengine_is_obeyed():
    built = resnest(init_cfg=dict(type='Constant', layer='Conv2d', val=0.25, bias=0.5))
    built.init_weights()
    assert (built.layer1[0].conv1.weight == 0.25).all()


def test_survives_a_config_s_round_trip():
    config = Config(
        dict(
            model=dict(
                type='mmresnest.ResNeSt',
                arch='resnest14',
                norm_cfg=dict(type='BN'),
                out_indices=[0, 3],
            )
        )
    )
    again = Config.fromstring(config.pretty_text, '.py')
    assert MODELS.build(again.model).out_channels == (256, 2048)
