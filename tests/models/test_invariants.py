"""What holds for every published network, enumerated over the variant table.

A row is tested with one block a stage (two in the first, so that a block which is not the first of
its stage is among them) and a quarter of its width: no invariant here depends on either, but the
channels of the maps, for which it has its own widths. Rows that differ in depth alone are one test.
What traces or compiles depends on the form of the network only, and is tested on one row of each.
"""

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
import torch._inductor.cpp_builder
from helpers.networks import FORMS, KINDS, ROWS, SIZINGS, build, image, loss
from helpers.tiers import mark_slow
from torch import nn
from torch.export import Dim

from mmresnest.models import fast
from mmresnest.models.blocks import DropPath
from mmresnest.models.blocks.pool import CeilAvgPool2d, CeilMaxPool2d
from mmresnest.models.dla import DLATrunk
from mmresnest.models.trunk import Trunk

SIZES = [(64, 64), (65, 97)]
TWO_STAGES = dict(depths=(1, 1), out_indices=(0, 1))  # what compiles grows with the stages


@pytest.fixture(
    scope='module', params=mark_slow(ROWS, lambda row: row in KINDS), ids=lambda row: row.name
)
def original(request):
    """One network per row, built once; the tests that change it change a copy."""
    return build(request.param)


@pytest.fixture
def network(original):
    return copy.deepcopy(original)


# a fixture's rows, narrowed down to one of each
per_form, per_kind = (
    pytest.mark.parametrize(
        'original',
        mark_slow(rows, lambda row: row in KINDS),
        ids=lambda row: row.name,
        indirect=True,
    )
    for rows in (FORMS, KINDS)
)
sizings = pytest.mark.parametrize('row', SIZINGS, ids=lambda row: row.name)
forms, few_sizings = (  # `make test` takes one row of each kind
    pytest.mark.parametrize(
        'row', mark_slow(rows, lambda row: row in KINDS), ids=lambda row: row.name
    )
    for rows in (FORMS, SIZINGS)
)
kinds = pytest.mark.parametrize('row', KINDS, ids=lambda row: row.trunk['kind'])


def assert_equal(ones, others) -> None:
    for one, other in zip(ones, others, strict=True):
        assert torch.equal(one, other)


def assert_close(ones, others) -> None:
    for one, other in zip(ones, others, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)


def sizes_of(network: Trunk, size: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes of the four maps: every halving rounds up, Caffe's pool of the stem down."""
    up = lambda size: tuple(-(-side // 2) for side in size)
    size = up(size)
    is_caffe = getattr(getattr(network, 'maxpool', None), 'ceil_mode', False)
    size = tuple(side // 2 for side in size) if is_caffe else up(size)
    sizes = [size]
    for _ in range(3):
        sizes.append(size := up(size))
    return sizes


@pytest.mark.parametrize('row', mark_slow(ROWS, lambda row: row in KINDS), ids=lambda row: row.name)
@torch.no_grad()
def test_shapes_layout_and_empty_batch(row):
    original = build(row, base_channels=64).eval()
    for size in SIZES:
        for batch in (0, 1, 2):
            maps = original(image(batch, size))
            first = 128 if isinstance(original, DLATrunk) else 256
            assert [tuple(m.shape) for m in maps] == [
                (batch, first << stage, *side)
                for stage, side in enumerate(sizes_of(original, size))
            ]
            if batch > 0:  # else there is no layout
                assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)
            assert all(m.isfinite().all() for m in maps)


@per_form
@torch.no_grad()
def test_evaluation_is_a_function_of_each_image(original):
    """No state, no sample that sees another, and not what training computes."""
    original.eval()
    before = {key: value.clone() for key, value in original.state_dict().items()}
    both = original(image())
    assert_equal(both, original(image()))
    assert_close(both, map(torch.cat, zip(original(image()[:1]), original(image()[1:]))))
    assert_equal(before.values(), original.state_dict().values())
    assert not torch.allclose(copy.deepcopy(original).train()(image())[0], both[0], atol=1e-3)


@per_form
@torch.no_grad()
def test_both_memory_layouts_agree(original, network):
    original.eval()
    network.channels_last = False
    network.to(memory_format=torch.contiguous_format).eval()
    assert_close(original(image()), network(image()))
    assert all(m.is_contiguous() for m in network(image()))
    last = image().contiguous(memory_format=torch.channels_last)
    assert_equal(original(image()), original(last))


def test_training_reaches_every_parameter_and_every_statistic(network):
    network.train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    loss(network(image(size=(96, 96)))).backward()
    for name, parameter in network.named_parameters():
        # A bias in front of a norm is subtracted again: its gradient is zero but for rounding.
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name.endswith('fc1.bias'), name
    assert not [
        name for name, buffer in network.named_buffers() if torch.equal(buffer, before[name])
    ]


def test_a_batch_of_one_trains(network):
    network.train()
    maps = network(image(1, (96, 96)))
    loss(maps).backward()
    assert all(m.isfinite().all() for m in maps)
    assert all(p.grad.isfinite().all() for p in network.parameters())
    single = [
        name
        for name, norm in network.named_modules()
        if isinstance(norm, nn.BatchNorm2d) and norm.num_batches_tracked == 0
    ]
    # One value per channel has no variance: the attention's norm used its running statistics.
    assert all(name.endswith('conv2.bn1') for name in single)


@per_form
def test_checkpointing_changes_nothing(original, network):
    results = []
    for with_cp, one in ((False, copy.deepcopy(original)), (True, network)):
        one.with_cp = with_cp
        maps = one.train()(image())
        loss(maps).backward()
        results.append((maps, [p.grad for p in one.parameters()], list(one.buffers())))
    (maps, gradients, buffers), (again, anew, same) = results
    assert_equal(maps, again)
    assert_equal(buffers, same)
    assert_close(gradients, anew)


@per_kind
def test_checkpointing_replays_stochastic_depth(network):
    for block in network.blocks:
        if block.downsample is not None or isinstance(network, DLATrunk):
            block.drop_path = DropPath(0.5)
    gradients = []
    for with_cp in (False, True):
        one = copy.deepcopy(network).train()
        one.with_cp = with_cp
        torch.manual_seed(3)
        loss(one(image())).backward()
        gradients.append([p.grad for p in one.parameters()])
    assert_close(*gradients)


@per_form
def test_freezing(network):
    parts = [network.stem_modules, *([stage] for stage in network.stages)]
    for frozen in (4, 3, 2, 0, -1, 1):
        network.requires_grad_(True)
        network.frozen_stages = frozen
        network.eval()
        network.train()
        for index, modules in enumerate(parts):
            for module in modules:
                assert {p.requires_grad for p in module.parameters()} == {index > frozen}
                assert {m.training for m in module.modules()} == {index > frozen}
    assert network.training
    network.norm_eval = True
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    loss(network(image())).backward()
    assert {
        name.partition('.')[0] for name, p in network.named_parameters() if p.grad is not None
    } == set(network.stage_names[1:])
    assert_equal(before.values(), network.state_dict().values())


@per_form
@torch.no_grad()
def test_zero_init_makes_residual_blocks_identities(original):
    original.eval()
    block = copy.deepcopy(original.blocks[1])
    x = torch.rand(2, block.conv1.in_channels, 16, 16)
    assert not torch.equal(block(x), x)
    block.bn3.weight.zero_()
    block.bn3.bias.zero_()
    assert torch.equal(block(x), x)


@torch.no_grad()
def test_copies(original):
    original.eval()
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    for twin in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert_equal(original(image(1)), twin.eval()(image(1)))
        assert twin.load_state_dict(torch.load(file, weights_only=True)) is not None
        file.seek(0)


@per_form
@torch.no_grad()
def test_precisions(original, network):
    original.eval()
    single = original(image())
    double = network.double().eval()(image().double())
    assert all(m.dtype == torch.double for m in double)
    assert_close([m.float() for m in double], single)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast('cpu', dtype):
            half = original(image())
        for one, other in zip(half, single):
            assert one.isfinite().all()
            assert (one.float() - other).abs().mean() < 0.1 * other.abs().mean()


@kinds
def test_training_in_bfloat16(row):
    network = build(row)
    with torch.autocast('cpu', torch.bfloat16):
        loss(network(image())).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


@forms
def test_zero_init_is_obeyed(row):
    network = build(row, zero_init_residual=True)
    for block in network.blocks:
        assert not block.bn3.weight.any() and block.bn1.weight.all()


@forms
@torch.no_grad()
def test_drop_path_has_effect_and_rests_in_evaluation(row):
    network = build(row, drop_path_rate=0.5, norm_eval=True)
    rates = [
        block.drop_path.rate if isinstance(block.drop_path, DropPath) else 0.0
        for block in network.blocks
    ]
    last = len(rates) - 1
    assert rates == pytest.approx([0.5 * index / last for index in range(last + 1)])
    network.train()
    drawn = [network(image(8))[-1] for _ in range(2)]
    assert not torch.equal(*drawn)
    network.eval()
    assert_equal(network(image()), build(row).eval()(image()))


@per_form
@torch.no_grad()
def test_dilated(request, original):
    """The weights fit, and all before the first stride that is taken away is as it was."""
    row = request.node.callspec.params['original']
    maps = original.eval()(image(1))
    for stride, same, strides, dilations in (
        (8, 2, (1, 2, 1, 1), (1, 1, 2, 4)),
        (16, 3, (1, 2, 2, 1), (1, 1, 1, 2)),
    ):
        dilated = build(row, strides=strides, dilations=dilations).eval()
        dilated.load_state_dict(original.state_dict())
        fine = dilated(image(1))
        assert [m.shape[-1] for m in fine] == [16, 8, 64 // min(16, stride), 64 // stride]
        assert_equal(maps[:same], fine[:same])


@kinds
@torch.no_grad()
def test_weights_for_other_image_channels(row):
    """A gray image answers as its RGB copy, whatever the number of its copies."""
    original = build(row).eval()
    gray = image()[:, :1]
    expected = original(gray.expand(-1, 3, -1, -1))
    for channels in (1, 6):
        network = build(row, in_channels=channels).eval()
        network.load_state_dict(original.state_dict())
        assert_close(expected, network(gray.expand(-1, channels, -1, -1)))


@kinds
@torch.no_grad()
def test_group_norms(row):
    network = build(row, norm=lambda channels: nn.GroupNorm(1, channels))
    assert not [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert_close(network.eval()(image()), network.train()(image()))


@forms
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_symbolic_trace(row, training):
    ours = build(row).train(training)
    traced = torch.fx.symbolic_trace(copy.deepcopy(ours))
    fast.disable(ours)  # what is traced is the definition
    for batch, size in zip((2, 1), SIZES):
        assert_equal(ours(image(batch, size)), traced(image(batch, size)))
    assert_equal(
        ours.state_dict().values(), [traced.state_dict()[key] for key in ours.state_dict()]
    )


@forms
@torch.no_grad()
def test_jit_trace(row):
    ours = build(row).eval()
    traced = torch.jit.trace(ours, image())
    for batch, size in ((2, SIZES[0]), (1, SIZES[1])):
        assert_close(ours(image(batch, size)), traced(image(batch, size)))


@pytest.mark.slow
@few_sizings
@torch.no_grad()
def test_export_with_dynamic_batch_height_and_width(row):
    """All stages of each kind, two of its other forms."""
    ours = build(row, **({} if row in KINDS else TWO_STAGES)).eval()
    program = torch.export.export(
        ours,
        (image(2, (96, 128)),),
        dynamic_shapes=({0: Dim('batch'), 2: Dim('height', min=64), 3: Dim('width', min=64)},),
    )
    for batch, size in zip((2, 1), SIZES):
        assert_close(ours(image(batch, size)), program.module()(image(batch, size)))


def compiled(network: Trunk, backend: str | Callable = 'eager'):
    """The whole network as one graph for all sizes; another graph for another size is an error."""
    torch._dynamo.reset()
    whole = torch.compile(network, fullgraph=True, backend=backend)

    def call(x: torch.Tensor):
        for dimension in (0, 2, 3):
            torch._dynamo.mark_dynamic(x, dimension)  # raises where the graph fixes it
        with torch._dynamo.config.patch(error_on_recompile=True):
            return whole(x)

    call.whole = whole
    return call


def assert_same_steps(ours: Trunk, other: Trunk, graph, images) -> None:
    """Outputs, gradients and buffers, equal to the bit, image after image."""
    for x in images:
        maps, again = ours(x), graph(x.clone())
        assert_equal(maps, again)
        if ours.training:
            loss(maps).backward()
            loss(again).backward()
            for one, two in zip(ours.parameters(), other.parameters(), strict=True):
                assert torch.equal(one.grad, two.grad)
        assert_equal(ours.state_dict().values(), other.state_dict().values())


# Dynamo fixes equal sizes to be equal if the first image is a square: this one is none.
COMPILED_SIZES = ((2, (64, 96)), (3, (65, 97)), (4, (96, 96)))


# Each kind in both modes, and of its other forms every second one in either.
COMPILED = [
    (row, training)
    for number, row in enumerate(FORMS)
    for training in (False, True)
    if row in KINDS or training == bool(number % 2)
]


@pytest.mark.slow
@pytest.mark.parametrize(
    'row, training',
    COMPILED,
    ids=[f'{"train" if training else "eval"}-{row.name}' for row, training in COMPILED],
)
def test_compiles_into_one_graph_for_all_sizes(row, training):
    """No break and no second graph, but for a batch of one, which dynamo always makes apart.

    The first graph of a training of each kind goes through AOTAutograd: functionalised, forward and
    backward as graphs.
    """
    ours = build(row, **TWO_STAGES).train(training)
    other = copy.deepcopy(ours)
    fast.disable(ours)  # what is compiled is the definition
    backends = iter(['aot_eager'] if training and row in KINDS else [])
    graph = compiled(
        other, lambda *graph: torch._dynamo.lookup_backend(next(backends, 'eager'))(*graph)
    )
    with torch.set_grad_enabled(training):
        assert_same_steps(ours, other, graph, [image(*size) for size in COMPILED_SIZES])
        assert next(backends, None) is None
        if row in KINDS:
            assert_same_steps(ours, other, graph.whole, [image(1)])


@pytest.mark.slow
def test_inductor_trains_the_last_split_s_pool(tmp_path, monkeypatch):
    """Of Res2Net, which torch 2.13 has to be helped with; where there is a C++ compiler."""
    try:
        torch._inductor.cpp_builder.get_cpp_compiler()
    except torch._inductor.exc.InvalidCxxCompiler:
        pytest.skip('inductor finds no C++ compiler')
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))
    (row,) = (row for row in KINDS if row.trunk['kind'] == 'res2')
    ours = build(row, depths=(1,), out_indices=(0,), norm=lambda channels: nn.Identity())
    other = copy.deepcopy(ours)
    torch._dynamo.reset()
    # No workers are left over, and no vectors are written, which takes as long again.
    with torch._inductor.config.patch({'compile_threads': 1, 'cpp.simdlen': 1}):
        # one size: for others inductor compiles its convolutions anew, by guards of its own
        again = torch.compile(other, fullgraph=True, dynamic=True)(image(2, (64, 96)))
        maps = ours(image(2, (64, 96)))
        assert_close(maps, again)
        loss(maps).backward()
        loss(again).backward()
    for one, two in zip(ours.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_compiled_checkpointing_stores_less_and_counts_once():
    row, stored = KINDS[0], {}
    ours = build(row, **TWO_STAGES)
    for with_cp in (False, True):
        other = build(row, with_cp=with_cp, **TWO_STAGES)
        twin = fast.disable(copy.deepcopy(ours))
        graph = compiled(other, 'aot_eager')
        sizes = stored[with_cp] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x
        ):
            maps = graph(image(2, (64, 96)))
        loss(maps).backward()
        loss(twin(image(2, (64, 96)))).backward()
        for one, two in zip(twin.parameters(), other.parameters(), strict=True):
            assert torch.equal(one.grad, two.grad)
        assert_equal(twin.state_dict().values(), other.state_dict().values())
    assert sum(stored[True]) < 0.8 * sum(stored[False])


@pytest.mark.parametrize(
    'pool,size', [(CeilAvgPool2d(2), 2), (CeilAvgPool2d(3), 3), (CeilMaxPool2d(3, 2), 3)], ids=repr
)
def test_a_graph_s_pools_are_the_pools(pool, size, monkeypatch):
    """Without the branch on the size: the same value and gradient for every remainder."""
    for height in range(size, 9):
        for width in range(size, 9):
            results = []
            for compiling in (False, True):
                monkeypatch.setattr(torch.compiler, 'is_compiling', lambda now=compiling: now)
                x = torch.randn(
                    2,
                    3,
                    height,
                    width,
                    dtype=torch.double,
                    generator=torch.Generator().manual_seed(5),
                ).requires_grad_()
                y = pool(x)
                y.square().sum().backward()
                results.append((y, x.grad))
            assert_close(*results)
