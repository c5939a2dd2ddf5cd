"""docs/migration.md: what it says of mmdet's and mmseg's backbones, and of ours."""

import importlib
import inspect
import re

import pytest
import torch
from helpers.documents import PAGES, rows
from helpers.errors import refuses

from mmresnest.models import backbones

MIGRATION = PAGES['docs/migration.md']


def theirs(name: str) -> list[type]:
    """The classes of mmdet and mmseg by that name."""
    found = [
        importlib.import_module(f'{package}.models.backbones') for package in ('mmdet', 'mmseg')
    ]
    return [getattr(module, name) for module in found if hasattr(module, name)]


def defaults(cls: type) -> dict:
    """The arguments of a class of mm, those of its parents included, with their defaults."""
    found: dict = {}
    for base in cls.__mro__:
        if base.__module__.startswith(('mmdet', 'mmseg')) and '__init__' in vars(base):
            for name, parameter in inspect.signature(base.__init__).parameters.items():
                if name != 'self' and parameter.kind is not parameter.VAR_KEYWORD:
                    found.setdefault(name, parameter.default)
    return found


def test_every_argument_of_theirs_has_a_row():
    section = MIGRATION.partition('## Which argument')[2].partition('\n## ')[0]
    named = {name for row in rows(section) for name in re.findall(r'`(\w+)`', row[0])}
    given = {
        name
        for which in ('ResNeSt', 'Res2Net', 'ResNet', 'ResNeXt')
        for cls in theirs(which)
        for name in defaults(cls)
    }
    assert named == given


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ResNet', 'ResNeXt', 'ResNeSt', 'Res2Net'])
def test_names_of_tensors_are_theirs(name):
    """Their checkpoints load; with the groups of the published ResNeXt, or their 101's stem."""
    ours = getattr(backbones, name)
    with torch.device('meta'):
        for cls in theirs(name):
            for depth in (50, 101):
                given = dict(
                    depth=depth,
                    **dict(
                        ResNeXt=dict(groups=32, base_width=4), ResNeSt=dict(stem_channels=64)
                    ).get(name, {}),
                )
                one, two = cls(**given).state_dict(), ours(**given).state_dict()
                assert {key: value.shape for key, value in one.items()} == {
                    key: value.shape for key, value in two.items()
                }


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', ['ResNet', 'ResNeXt', 'ResNeSt', 'Res2Net'])
def test_the_same_network_to_rounding(name):
    image = torch.randn(1, 3, 64, 64)
    for cls in theirs(name):
        given = dict(depth=50, **(dict(groups=32, base_width=4) if name == 'ResNeXt' else {}))
        one, two = cls(**given), getattr(backbones, name)(**given)
        two.load_state_dict(one.state_dict())
        one.eval(), two.eval()
        with torch.no_grad():
            far = [
                float((a - b).abs().max() / b.abs().max()) for a, b in zip(one(image), two(image))
            ]
        assert (min(far) > 1e-3) if name == 'Res2Net' else (max(far) < 1e-5), far


def test_other_names_of_their_classes():
    with torch.device('meta'):
        for cls, ours in (
            (theirs('ResNetV1c'), backbones.ResNet(depth=50, deep_stem=True)),
            (theirs('ResNetV1d'), backbones.ResNet(arch='resnet50d')),
        ):
            assert cls
            for one in cls:
                assert {key: value.shape for key, value in one(depth=50).state_dict().items()} == {
                    key: value.shape for key, value in ours.state_dict().items()
                }


def test_defaults_that_differ_are_those_of_the_page():
    with torch.device('meta'):
        mmdet, mmseg = (cls(depth=50) for cls in theirs('ResNeSt'))
        ours = backbones.ResNeSt(depth=50)
        assert (mmdet.norm_eval, mmseg.norm_eval, ours.norm_eval) == (True, False, False)
        assert all(cls(depth=50).layer1[0].conv2.groups == 1 for cls in theirs('ResNeXt'))
        assert backbones.ResNeXt(depth=50).layer1[0].conv2.groups == 32
        width = {
            name: made.layer1[0].conv1.out_channels
            for name, made in dict(
                theirs=theirs('ResNeSt')[0](depth=50, base_width=32),
                ours=backbones.ResNeSt(depth=50, base_width=32),
                compat=backbones.ResNeSt(depth=50, base_width=32, compat='mm'),
            ).items()
        }
        assert width == dict(theirs=64, ours=32, compat=64)
        assert theirs('ResNeSt')[0](depth=50, style='caffe')
        for wrong, named in (
            (dict(style='caffe'), "style='caffe'"),
            (dict(plugins=[dict()]), 'plugins'),
            (dict(stem_channels=63), 'stem_channels=63'),
            (dict(conv_cfg=dict(type='DCN')), "conv_cfg={'type': 'DCN'}"),
            (dict(norm_cfg=dict(type='LN')), "norm_cfg={'type': 'LN'}"),
        ):
            with refuses('argument.value', named):
                backbones.ResNeSt(depth=50, **wrong)
