"""The fast form against the definitions: value, gradient, statistics, and what is saved."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from helpers.networks import FORMS, KINDS, build, image, loss
from helpers.tiers import mark_slow
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from mmresnest.models import fast
from mmresnest.models.blocks import DropPath
from mmresnest.models.fast import recompute
from mmresnest.models.fast.attention import MeanFunction, SplitAttentionFunction
from mmresnest.models.fast.convolution import Moments, PackedConv2d, ScaledConv
from mmresnest.models.trunk import ResTrunk

forms = pytest.mark.parametrize(
    'row', mark_slow(FORMS, lambda row: row in KINDS), ids=lambda row: row.name
)
kinds = pytest.mark.parametrize('row', KINDS, ids=lambda row: row.trunk['kind'])
split_first = pytest.mark.parametrize(  # `make test` takes the kind that overrides most steps
    'row',
    mark_slow(KINDS, lambda row: row.trunk['kind'] == 'split'),
    ids=lambda row: row.trunk['kind'],
)
SIZE = (129, 97)  # odd, and large enough for the moments to be worth it


def both(row, dtype=torch.double, **more) -> tuple[ResTrunk, ResTrunk]:
    """The definition, and the same network in the form that saves memory.

    In single precision at its own widths: how rounding errors grow depends on them.
    """
    widths = dict(base_channels=64) if dtype == torch.float else {}
    one = fast.disable(build(row, **widths, **more)).to(dtype)
    return one, fast.enable(copy.deepcopy(one), save_memory=True)


def results(network: ResTrunk, x: torch.Tensor, seed: int = 0) -> dict[str, torch.Tensor]:
    """All that a training step leaves behind."""
    torch.manual_seed(seed)
    x = x.clone().requires_grad_()
    maps = network(x)
    sum(
        (m * torch.linspace(-1, 1, m.numel(), dtype=m.dtype).view_as(m)).mean() + m.square().mean()
        for m in maps
    ).backward()
    found = {f'map {index}': m.detach() for index, m in enumerate(maps)}
    found.update({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    found.update(network.named_buffers())
    return found | {'image': x.grad}


def assert_same(ones, others, tolerance: float = 1e-8) -> None:
    """Equal names, and tensors equal as a whole: an element may be a rounding error itself."""
    assert ones.keys() == others.keys()
    for name, one in ones.items():
        scale = one.double().norm() + 1e-4  # the gradient of a bias before a norm is zero
        assert (others[name].double() - one.double()).norm() <= tolerance * scale, name


@forms
@pytest.mark.parametrize(
    'mode', mark_slow(['train', 'norm_eval', 'eval'], lambda mode: mode == 'train')
)
def test_values_gradients_and_statistics(row, mode):
    pair = [
        results(network.train(mode != 'eval'), image(size=SIZE).double())
        for network in both(row, norm_eval=mode == 'norm_eval')
    ]
    assert_same(*pair)


@forms
@torch.no_grad()
def test_without_gradients(row):
    """In single precision, where oneDNN takes norm, sum and ReLU along."""
    one, twin = both(row, torch.float)
    for training in (False, True):
        for size in ((64, 64), SIZE):
            for batch in (1, 2):
                maps = [network.train(training)(image(batch, size)) for network in (one, twin)]
                for index, (expected, found) in enumerate(zip(*maps)):
                    torch.testing.assert_close(
                        found, expected, rtol=2e-3, atol=2e-3
                    ) if training else torch.testing.assert_close(
                        found, expected, rtol=1e-4, atol=1e-4
                    )
                    assert found.stride() == expected.stride(), index


@split_first
@pytest.mark.parametrize(
    'more',
    [
        dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
        dict(drop_path_rate=0.5),
        dict(with_cp=True),
        dict(frozen_stages=2),
        dict(channels_last=False),
        dict(norm=lambda channels: nn.GroupNorm(4, channels)),
    ],
    ids=lambda more: next(iter(more)),
)
def test_whatever_the_trunk_is_asked_for(row, more):
    if more.get('drop_path_rate'):
        assert isinstance(build(row, **more).blocks[-1].drop_path, DropPath)
    pair = [results(network.train(), image(size=SIZE).double()) for network in both(row, **more)]
    for found in pair:
        found.pop('image')  # nothing reaches it through frozen stages' weights alone
    assert_same(*pair)


@split_first
def test_devices_whose_statistics_are_taken_again(row, monkeypatch):
    monkeypatch.setattr(recompute, 'KEEP_STATISTICS', ())
    assert_same(*(results(network.train(), image(size=SIZE).double()) for network in both(row)))


@kinds
def test_single_precision(row):
    """One block, to 1e-5 of what double precision says, or no farther from it than the definition.

    Some gradients are small sums of large terms; for these single precision has fewer digits.
    """
    one, twin = both(row, torch.float)
    channels = one.out_channels[0]
    x = F.relu(
        image(2, (48, 48)).repeat(1, 86, 1, 1)[:, :channels, ::2, ::2]
        + torch.randn(1, channels, 24, 24)
    ).contiguous(memory_format=torch.channels_last)
    found = []
    for network in (copy.deepcopy(one).double(), one, twin):
        block = network.blocks[1].train()
        leaf = x.to(block.conv1.weight.dtype).clone().requires_grad_()
        y = block(leaf)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        found.append(
            {
                'out': y.detach(),
                'x': leaf.grad,
                **dict(block.named_buffers()),
                **{
                    name: p.grad
                    for name, p in block.named_parameters()
                    if not name.endswith('fc1.bias')
                },
            }
        )  # zero but for rounding
    for name, truth in found[0].items():
        errors = [
            ((other[name].double() - truth.double()).norm() / truth.double().norm()).item()
            for other in found[1:]
        ]
        assert errors[1] <= max(1e-5, 2 * errors[0]), (name, errors)


@split_first
@pytest.mark.parametrize('kind_of_image', ['noise', 'offset', 'constant', 'large'])
def test_no_digits_are_lost_where_variances_are_small(row, kind_of_image):
    """A variance as a difference of moments could lose them: errors are those of the definition."""
    drawn = image(2, (160, 160))
    x = {
        'noise': drawn,
        'offset': 5 + 0.05 * drawn,
        'constant': torch.ones_like(drawn),
        'large': 1000 * drawn,
    }[kind_of_image]
    plain_net, twin = both(row, torch.float)
    exact = copy.deepcopy(plain_net).double()
    truth, *found = [
        [
            *network.train()(x.to(next(network.parameters()).dtype)),
            *(value for name, value in network.named_buffers() if 'running' in name),
        ]
        for network in (exact, plain_net, twin)
    ]
    of_plain, of_twin = [
        [(one.double() - true).norm() / true.norm() for one, true in zip(values, truth)]
        for values in found
    ]
    assert max(of_twin) <= 3 * max(of_plain) + 1e-5


def test_gradients_of_the_functions():
    torch.manual_seed(0)
    x, weight, bias, scale, u, a = (
        torch.randn(*shape, dtype=torch.double, requires_grad=True)
        for shape in ((2, 3, 4, 5), (6, 3, 1, 1), (6,), (2, 6, 1, 1), (2, 6, 3, 4), (2, 6, 1, 1))
    )

    def attention(u, a):
        v, means = MeanFunction.apply(u)
        return SplitAttentionFunction.apply(v, a * means, 3)

    for function, inputs in (
        (Moments.apply, (x,)),
        (ScaledConv.apply, (x, weight, bias, scale)),
        (attention, (u, a)),
    ):
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)
    torch.testing.assert_close(
        ScaledConv.apply(x, weight, bias, scale), scale * F.conv2d(x, weight, bias)
    )
    means, squares = Moments.apply(x)
    rows = x.permute(0, 2, 3, 1).reshape(-1, 3)
    torch.testing.assert_close(squares, rows.T @ rows)
    torch.testing.assert_close(means, x.mean((2, 3)))


@pytest.mark.parametrize('momentum', [0.1, None])
def test_a_norm_behind_a_1x1_sees_the_batch_it_would_see(momentum):
    torch.manual_seed(0)
    conv, x = nn.Conv2d(4, 8, 1, bias=False).double(), torch.rand(2, 4, 5, 5).double() + 1
    one = nn.BatchNorm2d(8, momentum=momentum).double()
    two = copy.deepcopy(one)
    for _ in range(2):
        step = fast.FoldedForm(True).conv_norm_act(conv, two, x, (), None, None)
        torch.testing.assert_close(step, one(conv(x)))
    for name, buffer in one.named_buffers():
        torch.testing.assert_close(two.get_buffer(name), buffer)


@kinds
def test_differentiating_twice(row):
    norms = []
    for network in both(row):
        torch.manual_seed(0)
        x = torch.rand(2, network.out_channels[0], 12, 12, dtype=torch.double, requires_grad=True)
        y = network.blocks[1].train()(x)
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        gradient.square().sum().backward()
        norms.append(
            {
                name: p.grad
                for name, p in network.blocks[1].named_parameters()
                if not name.endswith('fc1.bias')
            }
            | {'x': x.grad}
        )
    assert_same(*norms, tolerance=1e-6)


def saved(network: nn.Module, x: torch.Tensor) -> int:
    """Bytes that a forward pass leaves allocated, its outputs among them."""
    network.train()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        maps = network(x)
    del maps
    return sum(
        event.nbytes()
        for event in seen.profiler.kineto_results.events()
        if event.name() == '[memory]'
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    'arch,most', [('resnest50', 0.6), ('res2net50_v1b_26w_4s', 0.6), ('seresnext50_32x4d', 0.7)]
)
def test_bytes_saved_for_the_backward_pass(arch, most):
    """Of those of mmdet's classes; SE-ResNeXt's against its ResNeXt with plain gates."""
    pytest.importorskip('mmdet')
    from mmresnest.analysis import benchmark_forms

    case = benchmark_forms.BenchmarkCase(arch, 'training', (1, 320, 320), 'float32', 'cpu')
    x = image(1, (320, 320))
    ours = fast.enable(benchmark_forms.our_backbone(case), save_memory=True)
    assert saved(ours, x) <= most * saved(benchmark_forms.mmdet_backbone(case), x)


@split_first
def test_half_precision(row):
    one, twin = both(row, torch.float)
    gradients = []
    for network in (one, twin):
        with torch.autocast('cpu', torch.bfloat16):
            value = loss(network.train()(image()))
        value.backward()
        gradients.append(value.item())
        assert all(p.grad.isfinite().all() for p in network.parameters())
    assert gradients[1] == pytest.approx(gradients[0], rel=0.05)


@kinds
def test_frozen_stages_follow_their_weights(row):
    """What is folded is folded anew each time: nothing has to be told of a change."""
    one, twin = both(row, torch.float, frozen_stages=4, norm_eval=True)
    other = {
        key: value * 1.1 if value.is_floating_point() else value
        for key, value in one.state_dict().items()
    }
    for network in (one, twin):
        network.train()(image())
        network.load_state_dict(other)
    for expected, found in zip(one(image()), twin(image())):
        assert not found.requires_grad
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@kinds
def test_the_switch(row):
    one, twin = both(row, torch.float)
    types = [type(module) for module in one.modules()]
    assert list(one.state_dict()) == list(twin.state_dict())
    assert vars(one).keys() | {'fast'} == vars(twin).keys() | {'fast'}
    for again in (twin, copy.deepcopy(twin), pickle.loads(pickle.dumps(twin))):
        assert [type(m) for m in again.modules()] == types
        assert again.fast == again.blocks[0].fast == fast.FoldedForm(save_memory=True)
        assert all(map(torch.equal, again.eval()(image()), twin.eval()(image())))
    assert fast.enable(twin) is twin and twin.fast == twin.blocks[0].fast == fast.FoldedForm()
    assert fast.disable(twin) is twin and twin.fast is twin.blocks[0].fast is None


@kinds
@torch.no_grad()
def test_who_watches_meets_the_definition(row):
    one, twin = (network.eval() for network in both(row, torch.float))
    counted = []
    for network in (one, twin):
        with FlopCounterMode(display=False) as counter:
            network(image())
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1] > 0
    seen = []
    for module in (twin.blocks[0].conv1, twin.blocks[1].bn3):
        module.register_forward_hook(lambda *call: seen.append(call[0]))
    twin(image())
    assert len(seen) == 2
    for expected, found in zip(
        *(torch.func.jvp(network, (image(),), (image(seed=1),))[1] for network in (one, twin))
    ):
        assert torch.equal(expected, found)


@pytest.mark.slow
@kinds
def test_graphs_that_are_kept_and_packers_of_others(row):
    _, twin = both(row)
    twin.train()
    maps = twin(image(size=SIZE).double())
    kept = []
    for _ in range(2):
        twin.zero_grad()
        loss([m.float() for m in maps]).backward(retain_graph=True)
        kept.append([p.grad.clone() for p in twin.parameters()])
    twin.zero_grad()
    with torch.autograd.graph.save_on_cpu():
        maps = twin(image(size=SIZE).double())
    loss([m.float() for m in maps]).backward()
    for first, second, packed in zip(*kept, [p.grad for p in twin.parameters()]):
        assert torch.equal(first, second)
        torch.testing.assert_close(packed, first, rtol=1e-6, atol=1e-9)


def test_a_norm_changed_before_the_backward_pass_is_refused():
    twin = both(KINDS[0])[1].train()
    maps = twin(image(size=SIZE).double())
    with torch.no_grad():
        twin.blocks[0].bn1.weight.mul_(2)
    with pytest.raises(RuntimeError, match='modified by an inplace'):
        loss([m.float() for m in maps]).backward()


@pytest.mark.slow
@kinds
def test_one_graph_when_compiled(row):
    few = dict(depths=(2, 1), out_indices=(0, 1))  # what compiles grows with the stages
    one, twin = (network.eval() for network in both(row, torch.float, **few))
    compiled = torch.compile(twin, backend='eager', fullgraph=True, dynamic=True)
    for expected, found in zip(one(image()), compiled(image())):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()


def test_distributed(tmp_path):
    torch.distributed.init_process_group('gloo', f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        pair = []
        for network in both(KINDS[0]):
            wrapped = nn.parallel.DistributedDataParallel(network.train())
            loss([m.float() for m in wrapped(image(size=SIZE).double())]).backward()
            pair.append(
                {
                    name: p.grad
                    for name, p in network.named_parameters()
                    if not name.endswith('fc1.bias')
                }
            )
        assert_same(*pair, tolerance=1e-5)
    finally:
        torch.distributed.destroy_process_group()


@torch.no_grad()
def test_packed_weights_follow_the_weights():
    conv = nn.Conv2d(8, 8, 3, padding=1)
    packed = PackedConv2d.from_conv(copy.deepcopy(conv))
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    for _ in range(2):
        torch.testing.assert_close(packed(x), conv(x), rtol=1e-4, atol=1e-5)
        for module in (conv, packed):
            module.weight.mul_(2)
    twin = pickle.loads(pickle.dumps(packed))
    assert 'packed' not in twin.__dict__ and 'packed' not in copy.deepcopy(packed).__dict__
    torch.testing.assert_close(twin(x), packed(x))
