"""Ours in the place of mmdet's and mmseg's: their configs, attributes, and tools around them.

``data/mm_backbones.json`` has the distinct backbones of all their configs that name a class which
we also have, each with the first config that has it.
"""

import json
import re
from copy import deepcopy
from pathlib import Path

import mmdet.models
import mmseg.models
import pytest
import torch
from helpers.errors import refuses
from helpers.tiers import mark_slow
from mmengine.config import Config
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, prune, vector_to_parameters

import mmresnest
from mmresnest.models import backbones

CONFIGS: list[tuple[str, dict]] = [
    (name, backbone)
    for name, backbone in json.loads(
        (Path(__file__).parents[1] / 'data' / 'mm_backbones.json').read_text()
    )
]
SMALL = dict(base_channels=8, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))


def both(theirs: type, ours: type, **arguments) -> tuple[nn.Module, nn.Module]:
    """Their network and ours, in double precision, with one set of weights."""
    torch.manual_seed(0)
    one, two = theirs(**arguments).double(), ours(**arguments).double()
    for name, value in one.state_dict().items():
        if name.endswith('running_var'):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point():
            value.add_(0.1 * torch.randn_like(value))
    two.load_state_dict(one.state_dict())
    return one, two


def step(network: nn.Module, size: int = 64) -> dict[str, Tensor]:
    """Features, and what one training step leaves behind."""
    image = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1)).double()
    network.eval()  # theirs returns None
    with torch.no_grad():
        found = dict(enumerate(network(image)))
    network.train()
    maps = network(image)
    sum((m * torch.linspace(-1, 1, m.numel()).double().view_as(m)).mean() for m in maps).backward()
    found.update({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    return {str(key): value.detach() for key, value in found.items()} | dict(
        network.named_buffers()
    )


def far_apart(one: nn.Module, two: nn.Module) -> list[str]:
    """What differs in features or after a step, by more than rounding."""
    # they name a norm by its kind, we always write bn
    theirs = {re.sub(r'\bgn(\d)', r'bn\1', name): value for name, value in step(one).items()}
    ours = step(two)
    assert theirs.keys() == ours.keys()
    return [
        name
        for name, value in theirs.items()
        if (ours[name] - value).double().norm() > 1e-8 * (value.double().norm() + 1e-3)
    ]


@pytest.mark.parametrize('name', ['ResNet', 'ResNeXt'])
@pytest.mark.parametrize('toolbox', [mmdet, mmseg], ids=['mmdet', 'mmseg'])
def test_dilated_and_narrow_as_theirs(name, toolbox):
    """Theirs is the published form: no half dilation in first blocks, a stem as wide as blocks."""
    theirs = getattr(toolbox.models, name)
    more = dict(groups=4, base_width=4) if name == 'ResNeXt' else {}
    if toolbox is mmseg:  # whose stem does not follow base_channels
        more['stem_channels'] = 8
    one, two = both(theirs, getattr(backbones, name), depth=50, **SMALL, **more, norm_eval=False)
    assert one.conv1.out_channels == two.conv1.out_channels == 8
    assert not far_apart(one, two)


def refused(backbone: dict) -> str | None:
    """The argument that ours cannot obey: docs/migration.md lists them."""
    if backbone['depth'] < 50:
        return 'depth'
    given = [name for name in ('plugins', 'conv_cfg') if backbone.get(name) is not None]
    return given[0] if given else None


def form_of(backbone: dict) -> tuple:
    """What decides how a backbone is walked, but for its depth."""
    named = {'type', 'dcn', 'dilations', 'groups', 'contract_dilation', 'norm_cfg', 'deep_stem'}
    kept = {key: backbone[key] for key in named & backbone.keys()}
    return tuple(sorted((key, str(value)) for key, value in kept.items())), refused(backbone)


def is_first(case: tuple[str, dict]) -> bool:
    return case == next(one for one in CONFIGS if form_of(one[1]) == form_of(case[1]))


@pytest.mark.filterwarnings('ignore:"deformable_groups" is deprecated')  # mmcv's, of old configs
@pytest.mark.parametrize(
    'name, backbone', mark_slow(CONFIGS, is_first), ids=lambda value: str(value)[:60]
)
def test_every_config_of_theirs(name, backbone):
    """Prefixed, it is their network: features, and all that a training step leaves behind.

    Two blocks in the first stage and one in each other, and narrow: nothing here depends on that.
    """
    toolbox, given = name.partition('::')[0], deepcopy(backbone)  # theirs pops from `dcn`
    cls, wrong = given.pop('type'), refused(backbone)
    ours = getattr(backbones, cls)
    if wrong:
        with refuses('argument.value', wrong, 'legal: '):
            ours(**given)
        return
    theirs = getattr(dict(mmdet=mmdet, mmseg=mmseg)[toolbox].models, cls)
    block = theirs.arch_settings[given['depth']][0]
    short = type('Short', (theirs,), dict(arch_settings={given['depth']: (block, (2, 1, 1, 1))}))
    norm = dict(given.get('norm_cfg') or dict(type='BN'))
    if norm['type'] == 'SyncBN':  # which neither can run here
        norm['type'] = 'BN'
    if norm['type'] == 'BN' and 'stem_channels' not in given:
        given['base_channels'] = 8
        if toolbox == 'mmseg':
            given['stem_channels'] = 8
    given['norm_cfg'] = norm
    # docs/migration.md: the one default that differs, and the pools that theirs lack
    given.setdefault('norm_eval', toolbox == 'mmdet')
    compat = cls == 'Res2Net' or cls == 'ResNeSt' and 'dilations' in given
    more = dict(compat='mm') if compat else {}
    one, two = both(
        short, lambda **arguments: ours(**arguments, **more, depths=(2, 1, 1, 1)), **given
    )
    assert not far_apart(one, two)


@pytest.mark.slow
def test_the_list_of_their_backbones_is_whole():
    """One config in twenty is looked up; the list was drawn from all."""
    known = [backbone for _, backbone in CONFIGS]
    found = 0
    for toolbox in (mmdet, mmseg):
        root = Path(toolbox.__file__).parent / '.mim' / 'configs'
        for file in sorted(root.rglob('*.py'))[::20]:
            if '_base_' in file.parts:
                continue
            try:
                model = Config.fromfile(file).get('model') or {}
            except (ImportError, OSError):  # of packages that are not here
                continue
            backbone = dict(model.get('backbone') or {})
            if backbone.get('type') in ('ResNet', 'ResNeXt', 'Res2Net', 'ResNeSt'):
                for key in ('init_cfg', 'pretrained'):
                    backbone.pop(key, None)
                found += 1
                assert json.loads(json.dumps(backbone)) in known, file
    assert found > 20


def test_contraction_is_what_is_asked_for():
    dilated = dict(depth=50, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    with torch.device('meta'):
        first = {
            (name, str(more)): getattr(backbones, name)(**dilated, **more).layer4[0].conv2
            for name in ('ResNet', 'SEResNet', 'ResNeSt')
            for more in ({}, dict(contract_dilation=True), dict(contract_dilation=False))
        }
    found = {key: getattr(conv, 'conv', conv).dilation[0] for key, conv in first.items()}
    assert [found[name, '{}'] for name in ('ResNet', 'SEResNet', 'ResNeSt')] == [4, 2, 2]
    for name in ('ResNet', 'SEResNet', 'ResNeSt'):
        assert found[name, "{'contract_dilation': True}"] == 2
        assert found[name, "{'contract_dilation': False}"] == 4


def test_compat_is_to_the_bit_as_it_is():
    """Without another argument: also the memory layout is theirs."""
    torch.manual_seed(0)
    one, two = mmdet.models.ResNet(50), backbones.ResNet(50, compat='mm')
    two.load_state_dict(one.state_dict())
    image = torch.randn(1, 3, 64, 65)
    assert not two.channels_last
    with torch.no_grad():
        one.eval()  # which returns None
        assert all(map(torch.equal, one(image), two.eval()(image)))
    assert backbones.ResNet(50, compat='mm', channels_last=True).channels_last


def test_depth_by_position():
    with torch.device('meta'):
        assert len(backbones.ResNet(101).layer3) == 23
        assert backbones.ResNeSt('resnest50').arch == 'resnest50'
        assert backbones.ResNeSt('resnest50', frozen_stages=1).arch == 'resnest50'
        with refuses('argument.conflict', 'arch=50', 'depth=101'):
            backbones.ResNet(50, depth=101)
        with refuses('argument.value', 'depth=18', 'ResNet', 'legal: 50, 101, 152'):
            backbones.ResNet(18)


def test_stage_with_dcn_of_the_stages_that_are_built():
    dcn = dict(type='DCNv2', deform_groups=1)
    built = backbones.ResNet(
        50, num_stages=3, out_indices=(2,), dcn=dcn, stage_with_dcn=(False, False, True)
    )
    assert hasattr(built.layer3[1].conv2, 'conv_offset')
    assert not hasattr(built.layer2[1].conv2, 'conv_offset')
    for wrong in ((True,), (True,) * 5):
        with refuses('argument.value', f'stage_with_dcn={wrong}', '3 stages'):
            backbones.ResNet(50, num_stages=3, out_indices=(2,), dcn=dcn, stage_with_dcn=wrong)


@pytest.mark.parametrize(
    'cls, given, named',
    [
        ('ResNeXt', 'width_per_group', 'base_width'),
        ('ResNeSt', 'cardinality', 'groups'),
        ('Res2Net', 'scale', 'scales'),
    ],
)
def test_the_names_of_other_libraries_are_known(cls, given, named):
    with refuses('argument.unknown', f"'{given}'", cls, f"'{named}'"):
        getattr(backbones, cls)(50, **{given: 4})


def test_attributes_of_theirs():
    """For whoever asks a backbone for its parts, as distillers and pruners of mmdet do."""
    three = dict(num_stages=3, out_indices=(2,), strides=(1, 2, 2), dilations=(1, 1, 1))
    with torch.device('meta'):
        for name, given in (
            ('ResNet', {}),
            ('ResNet', three),
            ('ResNet', dict(base_channels=32)),
            ('ResNeSt', {}),
        ):
            one = getattr(mmdet.models, name)(depth=50, **given)
            two = getattr(backbones, name)(50, **given)
            assert two.feat_dim == one.feat_dim
            assert two.stem_channels == one.stem_channels
            for name in ('norm1', 'relu', 'conv1', 'bn1'):
                found = [type(getattr(network, name, None)) for network in (one, two)]
                assert found[0] is found[1], (name, found)
    assert two.feat_dim == two.out_channels[-1] == 2048  # of ResNeSt


@pytest.mark.parametrize('cls', ['ResNet', 'SEResNet', 'Res2Net', 'ResNeSt', 'SKNet', 'DLA'])
@pytest.mark.parametrize('zero', [True, False])
def test_norms_without_weights(cls, zero):
    """And with them fused: such a norm stays."""
    with torch.no_grad():
        built = getattr(backbones, cls)(
            depth=60 if cls == 'DLA' else 50,
            depths=(1, 1, 1, 1),
            norm_cfg=dict(type='BN', affine=False),
            zero_init_residual=zero,
        )
        built.init_weights()
        assert built.blocks[0].bn3.weight is None
        image = torch.randn(2, 3, 64, 64)
        assert all(m.isfinite().all() for m in built(image))
        fused = mmresnest_fuse(built)
        for one, two in zip(built.eval()(image), fused(image)):
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-4)


def mmresnest_fuse(model: nn.Module) -> nn.Module:
    from mmresnest.deploy import fuse

    return fuse(model.eval())


class Adapted(nn.Module):
    """A convolution with an adapter, by the names that PEFT gives them."""

    def __init__(self, base: nn.Conv2d):
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict(dict(default=nn.Conv2d(base.in_channels, 2, 1, bias=False)))
        self.lora_B = nn.ModuleDict(dict(default=nn.Conv2d(2, base.out_channels, 1, bias=False)))

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.lora_B['default'](self.lora_A['default'](x))


def adapted() -> nn.Module:
    """A network in which some convolutions have adapters, below the prefix that PEFT gives it."""
    network = mmresnest.build_backbone('resnest14', depths=(1, 1, 1, 1))
    for stage in network.stages:
        stage[0].conv3 = Adapted(stage[0].conv3)
    outer = nn.Module()
    outer.model = network
    return outer


def test_adapters_are_loaded_without_the_network():
    """As ``PeftModel.from_pretrained`` does: a part, by names that no published network has."""
    first, second = adapted(), adapted()
    own = {key: value for key, value in first.state_dict().items() if 'lora_' in key}
    missing, unexpected = second.load_state_dict(own, strict=False)
    assert not unexpected and len(own) == 8
    assert all(torch.equal(second.state_dict()[key], value) for key, value in own.items())
    second.load_state_dict(first.state_dict())  # all of it, too
    assert all(map(torch.equal, second.state_dict().values(), first.state_dict().values()))
    part = {key: value for key, value in first.state_dict().items() if 'layer1' in key}
    with refuses('weights.misfit', '105 tensors', 'stem.0.weight'):
        second.load_state_dict(part, strict=False)


def test_weights_of_torchvision_without_torchvision(monkeypatch):
    monkeypatch.setattr(backbones, 'find_spec', lambda name: None)
    for name, remedy in (
        ('resnet50', "pip install torchvision or write 'mmresnest://resnet50'"),
        ('swin_t', 'pip install torchvision'),
    ):
        built = backbones.ResNet(
            50,
            depths=(1, 1, 1, 1),
            init_cfg=dict(type='Pretrained', checkpoint=f'torchvision://{name}'),
        )
        with refuses('package.missing', f'torchvision://{name}') as caught:
            built.init_weights()
        assert str(caught.value).endswith(remedy)


def test_tools_that_take_weights_as_one_row():
    """docs/migration.md: torch's own refuse the channels-last layout, which one argument leaves."""
    last = mmresnest.build_backbone('resnet50', depths=(1, 1, 1, 1))
    with pytest.raises(RuntimeError, match='view size is not compatible'):
        parameters_to_vector(last.parameters())
    network = mmresnest.build_backbone('resnet50', depths=(1, 1, 1, 1), channels_last=False)
    vector = parameters_to_vector(network.parameters())
    vector_to_parameters(vector * 0.5, network.parameters())
    assert torch.equal(parameters_to_vector(network.parameters()), vector * 0.5)
    image = torch.randn(1, 3, 64, 64)
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = network(image)[-1].square().mean()
        loss.backward()
        return loss

    before = closure().item()
    optimizer.step(closure)
    assert closure().item() < before
    prune.l1_unstructured(network.conv1, 'weight', amount=0.5)
    assert (network.conv1.weight == 0).float().mean() >= 0.5
