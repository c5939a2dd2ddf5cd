"""Whatever is done to the modules of a network is obeyed by every form of it.

Each kind of tampering is done to a tiny network of each kind, once in each form: by the definition,
by the fast form, by the form that saves memory and by the fused one. In double precision all give
the value of the definition, and those that train its gradients and buffers, too.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from helpers.tiers import mark_slow
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.modules import module as global_hooks
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel

from mmresnest import deploy
from mmresnest.models import fast
from mmresnest.models.blocks import Bottleneck, DropPath, SplitAttention, SqueezeExcite
from mmresnest.models.trunk import ResTrunk

OWN = dict(
    resnext=dict(stem=16, groups=2, base_width=32),
    se=dict(reduction=4),
    res2=dict(base_width=16, pooled_shortcut=True),
    split=dict(pooled_shortcut=True),
    sk=dict(min_hidden=8, split_input=True),
)
DEEP = dict(stem=(8, 8, 16))
SEED = 3


def build(kind: str) -> ResTrunk:
    """A network of two blocks, with no value at a default that would hide a mistake."""
    torch.manual_seed(0)
    network = ResTrunk(
        kind,
        (2,),
        base_channels=16,
        strides=(1,),
        dilations=(1,),
        out_indices=(0,),
        zero_init_residual=False,
        **{**DEEP, **OWN[kind]},
    ).double()
    for norm in norms_of(network):
        nn.init.uniform_(norm.running_mean, -0.1, 0.1)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.1, 0.1)
    return network


def image() -> Tensor:
    return torch.randn(2, 3, 49, 52, generator=torch.Generator().manual_seed(1)).double()


def norms_of(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def convs_of(network: nn.Module) -> list[nn.Conv2d]:
    """Those with a norm behind them; the gates' have none."""
    return [
        module for module in network.modules() if type(module) is nn.Conv2d and module.bias is None
    ]


def replace_all(network: nn.Module, old: type, make: Callable[[nn.Module], nn.Module]) -> None:
    """Put another module in the place of each of a type."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is old and not isinstance(parent, Wrapper):
                setattr(parent, name, make(child))


class Wrapper(nn.Module):
    """A module around another; the base of those that do something to it."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class LoRA(Wrapper):
    """A convolution and a low-rank one of the same geometry."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__(conv)
        self.down = nn.Conv2d(
            conv.in_channels,
            2,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            bias=False,
        ).double()
        self.up = nn.Conv2d(2, conv.out_channels, 1, bias=False).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.up(self.down(x))


class FakeQuantized(Wrapper):
    """A module whose input and output are rounded, with gradients that pass straight through."""

    @staticmethod
    def quantize(x: Tensor) -> Tensor:
        return x + ((x * 8).round() / 8 - x).detach()

    def forward(self, x: Tensor) -> Tensor:
        return self.quantize(self.inner(self.quantize(x)))


class Doubled(nn.Module):
    """A parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


class ScaledNorm(nn.BatchNorm2d):
    """A norm whose walk is another."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 1.5


class StandardizedConv(nn.Conv2d):
    """A convolution whose weights are standardized as they are used."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(input, weight, self.bias)


class HardExcite(SqueezeExcite):
    """Another gate."""

    def excitation(self, z: Tensor) -> Tensor:
        return F.hardsigmoid(self.fc2(F.relu(self.fc1(z))))


class Tempered(SplitAttention):
    """Another attention."""

    def attention(self, s: Tensor) -> Tensor:
        return super().attention(s * 3)


class TaggedTensor(Tensor):
    """A tensor that convolves otherwise, as quantized ones do."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        result = super().__torch_function__(func, types, args, kwargs or {})
        if func is F.conv2d or func is torch.conv2d:
            return (result * 2).as_subclass(Tensor)
        return result


def as_subclass(module: nn.Module, cls: type[nn.Module]) -> nn.Module:
    """The module's state in an object of a subclass, as users' own networks have it."""
    other = copy.copy(module)
    other.__class__ = cls
    return other


def scale(factor: float = 1.5) -> Callable:
    """A hook that changes what is returned."""
    return lambda module, args, output: output * factor


def on_each(modules: Callable[[nn.Module], list], do: Callable[[nn.Module], object]) -> Callable:
    """Tampering with each of some modules."""

    def tamper(network: nn.Module) -> None:
        for module in modules(network):
            do(module)

    return tamper


def every(cls: type | tuple) -> Callable[[nn.Module], list]:
    return lambda network: [module for module in network.modules() if isinstance(module, cls)]


def last_norm(network: ResTrunk) -> list[nn.Module]:
    return [network.layer1[1].bn3]


def middle_norm(network: ResTrunk) -> list[nn.Module]:
    return [network.layer1[1].bn1]


def downsamples(network: ResTrunk) -> list[nn.Module]:
    return [network.layer1[0].downsample]


def gates(network: ResTrunk) -> list[nn.Module]:
    """What a kind has beside convolutions and norms."""
    found = every((SqueezeExcite, SplitAttention))(network)
    return found or [network.layer1[0], network.layer1[1]]


def gate_layers(network: ResTrunk) -> list[nn.Module]:
    found = [module for name, module in network.named_modules() if name.endswith(('fc1', 'fc2'))]
    return found or [network.layer1[1].conv3]


def pooled_norms(network: ResTrunk) -> list[nn.Module]:
    """The norms of split attention's hidden layer, which see one value of each image."""
    found = [module.bn1 for module in every(SplitAttention)(network)]
    return found or last_norm(network)


def stems(network: ResTrunk) -> list[nn.Module]:
    return every(nn.ReLU)(network)


def set_forward(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], None]:
    """Set ``forward`` on the object, as accelerate does."""

    def tamper(module: nn.Module) -> None:
        walk = module.forward
        module.forward = lambda x: change(walk(x))

    return tamper


def offload(module: nn.Module) -> None:
    """Keep weights elsewhere, and have them in place during the call alone."""
    weights = {name: p.detach().clone() for name, p in module.named_parameters(recurse=False)}
    for p in module.parameters(recurse=False):
        p.data = torch.full_like(p, float('nan'))
    walk = type(module).forward

    def forward(x: Tensor) -> Tensor:
        with torch.no_grad():
            for name, value in weights.items():
                module.get_parameter(name).data = value
        return walk(module, x)

    module.forward = forward


def freeze_statistics(norm: nn.BatchNorm2d) -> None:
    norm.eval().requires_grad_(False)


def without_statistics(norm: nn.BatchNorm2d) -> None:
    norm.track_running_stats = False
    norm.running_mean = norm.running_var = norm.num_batches_tracked = None


def without_affine(norm: nn.BatchNorm2d) -> None:
    norm.weight = norm.bias = None
    norm.affine = False


def stop_tracking(norm: nn.BatchNorm2d) -> None:
    norm.track_running_stats = False


def set_attributes(**values) -> Callable[[nn.Module], None]:
    def tamper(module: nn.Module) -> None:
        for name, value in values.items():
            setattr(module, name, value)

    return tamper


def pad_by_reflection(conv: nn.Conv2d) -> None:
    if conv.kernel_size != (1, 1):
        conv.padding_mode = 'reflect'


def add_bias(conv: nn.Conv2d) -> None:
    bias = torch.linspace(-1, 1, conv.out_channels).double()
    conv.bias = nn.Parameter(bias)


def prune_weights(network: ResTrunk) -> None:
    network.channels_last = False  # torch's pruning takes weights as one row
    network.to(memory_format=torch.contiguous_format)
    for conv in convs_of(network):
        prune.l1_unstructured(conv, 'weight', amount=0.5)


def share_weights(network: ResTrunk) -> None:
    network.layer1[1].conv3 = network.layer1[0].conv3


def tag_weights(conv: nn.Conv2d) -> None:
    conv.weight = nn.Parameter(conv.weight.detach().as_subclass(TaggedTensor))


def override_stem(network: ResTrunk) -> None:
    class Own(ResTrunk):
        def forward_stem(self, image: Tensor) -> Tensor:
            return super().forward_stem(image) * 1.5

    network.__class__ = Own


def override_mix(network: ResTrunk) -> None:
    for block in network.layer1:
        kind = type(block)
        block.__class__ = type(
            'Own',
            (kind,),
            dict(spatial_mix=lambda self, x, kind=kind: kind.spatial_mix(self, x) * 2),
        )


def override_kind(network: ResTrunk) -> None:
    """Subclasses of the gate or of split attention; of the block where a kind has none."""
    kinds = {SqueezeExcite: HardExcite, SplitAttention: Tempered}
    if not every(tuple(kinds))(network):
        return override_mix(network)
    for old, new in kinds.items():
        replace_all(network, old, lambda module, new=new: as_subclass(module, new))
    return None


def average(network: ResTrunk) -> Callable:
    """Walk by a moving average of the weights."""
    mean = AveragedModel(network, avg_fn=lambda old, new, count: 0.5 * old + 0.5 * new)
    mean.update_parameters(network)
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(1.1)
    mean.update_parameters(network)
    network.averaged = mean
    return lambda x: mean.train(network.training)(x)


def call_functionally(network: ResTrunk) -> Callable:
    """Walk with other weights than are in the network."""
    return lambda x: torch.func.functional_call(
        network, {name: p * 1.1 for name, p in network.named_parameters()}, (x,)
    )


def call_twice(network: ResTrunk) -> Callable:
    """One set of weights is freed before the other comes, maybe to the same address."""

    def call(x: Tensor):
        for factor in (0.9, 1.1):
            weights = {name: p * factor for name, p in network.named_parameters()}
            maps = torch.func.functional_call(network, weights, (x,))
            del weights
        return maps

    return call


@contextmanager
def globally(register: Callable, hook: Callable) -> Iterator[None]:
    handle = register(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def patched_class() -> Iterator[None]:
    """As libraries do that count or quantize."""
    walk = nn.BatchNorm2d.forward
    nn.BatchNorm2d.forward = lambda self, x: walk(self, x) * 1.5
    try:
        yield
    finally:
        nn.BatchNorm2d.forward = walk


def scale_norms(module: nn.Module, args, output):
    return output * 1.5 if isinstance(module, nn.BatchNorm2d) else None


def scale_convs(module: nn.Module, args):
    return (args[0] * 1.5,) if isinstance(module, nn.Conv2d) else None


def scale_gradients(module: nn.Module, inputs, outputs):
    # not of norms: torch refuses such a hook where a ReLU writes into place, in any network
    return tuple(g * 1.5 for g in inputs) if isinstance(module, nn.Conv2d) else None


def hook_gradient(module: nn.Module, args, output: Tensor) -> None:
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient * 1.5)


def write_in_place(module: nn.Module, args, output: Tensor) -> None:
    output.mul_(1.5)


class Way(NamedTuple):
    """A kind of tampering."""

    tamper: Callable = lambda network: None
    around: Callable = nullcontext  # in which all is called
    changes: str = 'value'  # what it changes of the network; '' nothing


norms, convs, blocks = norms_of, convs_of, every(Bottleneck)
WAYS = {
    # hooks of every kind
    'hook on norms': Way(on_each(norms, lambda m: m.register_forward_hook(scale()))),
    'hook on one norm': Way(on_each(last_norm, lambda m: m.register_forward_hook(scale()))),
    'hook on a norm before a ReLU': Way(
        on_each(middle_norm, lambda m: m.register_forward_hook(scale()))
    ),
    'hook on norms that writes in place': Way(
        on_each(norms, lambda m: m.register_forward_hook(write_in_place))
    ),
    'hook on convolutions': Way(on_each(convs, lambda m: m.register_forward_hook(scale()))),
    'hook with keywords': Way(
        on_each(
            convs, lambda m: m.register_forward_hook(lambda m, a, k, y: y * 1.5, with_kwargs=True)
        )
    ),
    'hook that is always called': Way(
        on_each(norms, lambda m: m.register_forward_hook(scale(), always_call=True))
    ),
    'hook before convolutions': Way(
        on_each(convs, lambda m: m.register_forward_pre_hook(lambda m, args: (args[0] * 1.5 + 1,)))
    ),
    'hook before norms': Way(
        on_each(norms, lambda m: m.register_forward_pre_hook(lambda m, args: args[0] * 1.5 + 1))
    ),
    'hook on gates': Way(on_each(gates, lambda m: m.register_forward_hook(scale()))),
    'hook on layers of gates': Way(
        on_each(gate_layers, lambda m: m.register_forward_hook(scale()))
    ),
    'hook on norms of pooled maps': Way(
        on_each(pooled_norms, lambda m: m.register_forward_hook(scale()))
    ),
    'hook on stochastic depth': Way(
        on_each(every(nn.Identity), lambda m: m.register_forward_hook(scale()))
    ),
    'hook on the ReLU of the stem': Way(on_each(stems, lambda m: m.register_forward_hook(scale()))),
    'hook on shortcuts': Way(on_each(downsamples, lambda m: m.register_forward_hook(scale()))),
    'hook on blocks': Way(on_each(blocks, lambda m: m.register_forward_hook(scale()))),
    'hook on the stage': Way(lambda network: network.layer1.register_forward_hook(scale())),
    'hook on gradients of convolutions': Way(
        on_each(convs, lambda m: m.register_full_backward_hook(scale_gradients)), changes='gradient'
    ),
    'hook before gradients of convolutions': Way(
        on_each(convs, lambda m: m.register_full_backward_pre_hook(lambda m, g: (g[0] * 1.5,))),
        changes='gradient',
    ),
    'hook on the tensors behind norms': Way(
        on_each(norms, lambda m: m.register_forward_hook(hook_gradient)), changes='gradient'
    ),
    'hook on a state dict': Way(
        on_each(convs, lambda m: m.register_state_dict_pre_hook(lambda *_: None)), changes=''
    ),
    'global hook': Way(
        around=lambda: globally(global_hooks.register_module_forward_hook, scale_norms)
    ),
    'global hook before': Way(
        around=lambda: globally(global_hooks.register_module_forward_pre_hook, scale_convs)
    ),
    # subclasses and replaced modules
    'norms of a subclass': Way(
        lambda network: replace_all(network, nn.BatchNorm2d, lambda m: as_subclass(m, ScaledNorm))
    ),
    'convolutions of a subclass': Way(
        lambda network: replace_all(network, nn.Conv2d, lambda m: as_subclass(m, StandardizedConv))
    ),
    'gates of a subclass': Way(override_kind),
    'blocks of a subclass': Way(override_mix),
    'a stem walked otherwise': Way(override_stem),
    'stochastic depth replaced': Way(
        lambda network: on_each(blocks, set_attributes(drop_path=nn.Hardtanh()))(network)
    ),
    'stochastic depth added': Way(
        lambda network: on_each(blocks, set_attributes(drop_path=DropPath(0.5)))(network),
        changes='training',
    ),
    'the ReLU of the stem replaced': Way(
        lambda network: replace_all(network, nn.ReLU, lambda m: nn.LeakyReLU(0.1))
    ),
    'norms taken out': Way(
        lambda network: on_each(blocks, set_attributes(bn1=nn.Identity()))(network)
    ),
    'group norm': Way(
        lambda network: replace_all(
            network, nn.BatchNorm2d, lambda m: nn.GroupNorm(2, m.num_features).double()
        )
    ),
    'LoRA': Way(
        lambda network: replace_all(network, nn.Conv2d, lambda m: LoRA(m) if m.groups == 1 else m)
    ),
    'quantization-aware preparation': Way(
        lambda network: replace_all(network, nn.Conv2d, FakeQuantized)
    ),
    'blocks in a checkpointing wrapper': Way(
        lambda network: replace_all(network.layer1, type(network.layer1[0]), checkpoint_wrapper),
        changes='',
    ),
    'shared weights': Way(share_weights),
    # what is set on the object
    'forward of norms set': Way(on_each(norms, set_forward(lambda y: y * 1.5))),
    'forward of convolutions set': Way(on_each(convs, set_forward(lambda y: y + 1))),
    'forward of gates set': Way(on_each(gates, set_forward(lambda y: y * 1.5))),
    'forward of the ReLU set': Way(on_each(stems, set_forward(lambda y: y * 1.5))),
    'weights offloaded': Way(
        lambda network: [offload(m) for m in (*convs_of(network), *norms_of(network))] and None,
        changes='',
    ),
    'a convolution as set': Way(
        on_each(
            convs,
            lambda m: set_attributes(
                _conv_forward=lambda x, w, b: type(m)._conv_forward(m, x, w * 1.5, b) + 1
            )(m),
        )
    ),
    'the class patched': Way(around=patched_class),
    # weights that are computed
    'parametrization': Way(
        on_each(convs, lambda m: parametrize.register_parametrization(m, 'weight', Doubled())),
        changes='training',  # in evaluation, too; batch norm behind it takes it back in training
    ),
    'parametrization of norms': Way(
        on_each(norms, lambda m: parametrize.register_parametrization(m, 'weight', Doubled()))
    ),
    'weight norm': Way(on_each(convs, parametrizations.weight_norm), changes=''),
    'spectral norm': Way(on_each(convs, parametrizations.spectral_norm)),
    'spectral norm by hooks': Way(on_each(convs, nn.utils.spectral_norm)),
    'pruning': Way(prune_weights),
    'pruning of norms': Way(
        on_each(norms, lambda m: prune.l1_unstructured(m, 'weight', amount=0.5))
    ),
    'weights of a subclass of tensors': Way(on_each(convs, tag_weights)),
    'EMA': Way(average),
    'functional_call': Way(call_functionally),
    'functional_call twice': Way(call_twice),
    # settings
    'norms frozen': Way(on_each(norms, freeze_statistics), changes='training'),
    'one norm frozen': Way(on_each(last_norm, freeze_statistics), changes='training'),
    'statistics no longer tracked': Way(on_each(norms, stop_tracking), changes='buffers'),
    'norms without statistics': Way(on_each(norms, without_statistics)),
    'norms without weights': Way(on_each(norms, without_affine)),
    'momentum': Way(on_each(norms, set_attributes(momentum=0.7)), changes='buffers'),
    'momentum of all batches': Way(
        on_each(norms, set_attributes(momentum=None)), changes='buffers'
    ),
    'eps': Way(on_each(norms, set_attributes(eps=0.5))),
    'eps of norms of pooled maps': Way(on_each(pooled_norms, set_attributes(eps=0.5))),
    'padding by reflection': Way(on_each(convs, pad_by_reflection)),
    'biases added': Way(on_each(convs, add_bias), changes='buffers'),
    'weights without gradients': Way(
        on_each(convs, lambda m: m.requires_grad_(False)), changes='gradient'
    ),
}


class Result(NamedTuple):
    """What a network computes, in evaluation and in a step of training."""

    value: dict[str, Tensor]
    training: dict[str, Tensor]
    gradient: dict[str, Tensor]
    buffers: dict[str, Tensor]


def compute(network: ResTrunk, way: Way) -> Result:
    """Tamper with a network, and call it."""
    torch.manual_seed(SEED)
    call = way.tamper(network)
    call = call if callable(call) else network
    modes = [(module, module.training) for module in network.modules()]
    with way.around():
        network.eval()
        with torch.no_grad():
            value = call(image())
        for module, training in modes:
            module.training = training
        torch.manual_seed(SEED)
        x = image().requires_grad_()
        maps = call(x)
        sum(
            (m * torch.linspace(-1, 1, m.numel()).double().view_as(m)).sum() for m in maps
        ).backward()
    gradient = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    number = lambda maps: {str(index): m.detach() for index, m in enumerate(maps)}
    return Result(
        number(value), number(maps), gradient | {'image': x.grad}, dict(network.named_buffers())
    )


def differ(
    ones: dict[str, Tensor], others: dict[str, Tensor], tolerance: float = 1e-9
) -> list[str]:
    """The names of tensors that are not equal but for rounding, as a whole."""
    assert ones.keys() == others.keys()
    largest = max((one.double().norm() for one in ones.values()), default=0)
    return [
        name
        for name, one in ones.items()
        # some are zero but for rounding: the gradient of a bias before a norm
        if not (others[name] - one).double().norm()
        <= tolerance * (one.double().norm() + 1e-3 * largest)
    ]


@pytest.fixture(scope='module')
def networks() -> dict[str, ResTrunk]:
    return {kind: build(kind) for kind in OWN}


@pytest.fixture(scope='module')
def clean(networks) -> dict[str, Result]:
    return {kind: compute(copy.deepcopy(network), Way()) for kind, network in networks.items()}


FORMS = {'fast': fast.enable, 'memory': lambda network: fast.enable(network, save_memory=True)}


#: ways that are like another one
SIMILAR = {
    'hook on one norm',
    'hook with keywords',
    'hook that is always called',
    'hook before norms',
    'hook on layers of gates',
    'hook on shortcuts',
    'hook on blocks',
    'hook on the stage',
    'hook before gradients of convolutions',
    'global hook before',
    'blocks of a subclass',
    'stochastic depth added',
    'the ReLU of the stem replaced',
    'norms taken out',
    'group norm',
    'shared weights',
    'forward of gates set',
    'forward of the ReLU set',
    'parametrization of norms',
    'spectral norm',
    'spectral norm by hooks',
    'pruning of norms',
    'functional_call',
    'one norm frozen',
    'momentum',
    'biases added',
    'weights without gradients',
}


@pytest.mark.parametrize('name', mark_slow(WAYS, lambda name: name not in SIMILAR))
def test_every_form_obeys(name, networks, clean):
    way, wrong = WAYS[name], {}
    for kind, network in networks.items():
        expected = compute(copy.deepcopy(network), way)
        # the tampering has the effect that it is made for: none is passed over by the definition
        if way.changes:
            same = getattr(clean[kind], way.changes), getattr(expected, way.changes)
            if same[0].keys() == same[1].keys() and not differ(*same, tolerance=1e-6):
                wrong[kind, 'definition'] = 'is as before'
        for form, put in FORMS.items():
            found = compute(put(copy.deepcopy(network)), way)
            for part in Result._fields:
                if names := differ(getattr(expected, part), getattr(found, part)):
                    wrong[kind, form, part] = names[:3]
        ready = copy.deepcopy(network)
        torch.manual_seed(SEED)
        call = way.tamper(ready)
        with way.around(), torch.no_grad():
            fused = None if callable(call) else deploy.fuse(ready.eval(), inplace=True)
            maps = (fused or (ready.eval() and call))(image())
        if names := differ(expected.value, dict(enumerate_maps(maps))):
            wrong[kind, 'fused'] = names
    assert not wrong, wrong


def enumerate_maps(maps) -> Iterator[tuple[str, Tensor]]:
    return ((str(index), m.detach()) for index, m in enumerate(maps))
