"""What a config may say of runner and strategy, in one process; see also test_two_processes.py."""

import sys

import pytest
import torch
from helpers import tiny
from helpers.errors import refuses
from mmengine.config import Config
from torch import nn

from mmresnest import build_backbone
from mmresnest.config import options
from mmresnest.config.hardware import STRATEGIES, configure_strategy, set_strategy, strategy_of
from mmresnest.config.load import load_config
from mmresnest.config.retarget import use_data
from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.engine import checkpoints
from mmresnest.engine.strategies import FSDPStrategy, backbone_blocks, full_tensor, local_shard
from mmresnest.engine.test import test as score
from mmresnest.engine.train import train
from mmresnest.models.blocks import SplitAttentionBottleneck

pytestmark = pytest.mark.filterwarnings('ignore')

FLEXIBLE = dict(runner_type='FlexibleRunner')


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return draw_dataset(
        tmp_path_factory.mktemp('shapes'), train=2, val=1, test=1, size=(64, 64), progress=False
    )


def settle(launcher='pytorch', **settings):
    cfg = Config(dict(launcher=launcher, **{**FLEXIBLE, **settings}))
    configure_strategy(cfg)
    return cfg


def test_names_of_the_command_line():
    names = dict(fsdp='mmresnest.FSDPStrategy', deepspeed='DeepSpeedStrategy')
    assert {name: strategy['type'] for name, strategy in STRATEGIES.items()} == names
    assert tuple(STRATEGIES) == options.STRATEGIES
    for name, type_ in names.items():
        cfg = Config(dict(launcher='pytorch'))
        set_strategy(cfg, name)
        assert strategy_of(cfg) == type_


def test_names():
    assert strategy_of(Config(dict(launcher='none'))) == ''
    assert strategy_of(Config(dict(FLEXIBLE, launcher='none'))) == 'SingleDeviceStrategy'
    assert strategy_of(Config(dict(FLEXIBLE, launcher='slurm'))) == 'DDPStrategy'
    with refuses('strategy.runner', "runner_type = 'FlexibleRunner'"):
        strategy_of(Config(dict(launcher='none', strategy=dict(type='mmresnest.FSDPStrategy'))))


def test_one_process_shards_nothing():
    with refuses('strategy.one-process', 'tools/dist_train.sh CONFIG PROCESSES'):
        settle(launcher='none', strategy=dict(type='mmresnest.FSDPStrategy'))


def test_the_one_of_mmengine_needs_a_gpu(monkeypatch):
    monkeypatch.setattr('mmresnest.config.hardware.has_accelerator', lambda: False)
    with refuses('strategy.device', 'strategy.type', "'mmresnest.FSDPStrategy'"):
        settle(strategy=dict(type='FSDPStrategy'))


def test_the_one_of_mmengine_cannot_resume(monkeypatch):
    monkeypatch.setattr('mmresnest.config.hardware.has_accelerator', lambda: True)
    settle(strategy=dict(type='FSDPStrategy'))
    with refuses('strategy.resume', torch.__version__, "'mmresnest.FSDPStrategy'"):
        settle(strategy=dict(type='FSDPStrategy'), resume=True)


def test_deepspeed_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, 'deepspeed', None)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with refuses('package.missing', "'deepspeed<0.19.1'"):
        settle(strategy=dict(type='DeepSpeedStrategy'))
    monkeypatch.setattr(
        'importlib.util.find_spec', lambda name: None if name.endswith('onebit') else name
    )
    with refuses('package.broken', "'deepspeed<0.19.1'"):
        settle(strategy=dict(type='DeepSpeedStrategy'))


def test_deepspeed_is_told_what_the_config_says(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name)
    optimizer = dict(type='SGD', lr=0.02)
    more = dict(
        strategy=dict(type='DeepSpeedStrategy'),
        train_dataloader=dict(batch_size=4),
        auto_scale_lr=dict(enable=True, base_batch_size=16),
    )
    cfg = settle(optim_wrapper=dict(optimizer=optimizer, clip_grad=dict(max_norm=35)), **more)
    assert cfg.optim_wrapper == dict(
        type='DeepSpeedOptimWrapper', optimizer=dict(type='SGD', lr=0.02 * 4 / 16)
    )
    assert cfg.strategy.gradient_clipping == 35 and not cfg.auto_scale_lr.enable
    with refuses('strategy.clip-grad', '2-norm'):
        settle(
            optim_wrapper=dict(optimizer=optimizer, clip_grad=dict(max_norm=1, norm_type=1)), **more
        )


def test_whole_processes_on_cpus():
    cfg = settle(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None))
    assert cfg.strategy == dict(type='DDPStrategy', model_wrapper=cfg.model_wrapper_cfg)


def test_blocks_and_shards():
    model = nn.Module()
    assert list(backbone_blocks(model)) == []
    model.backbone = build_backbone('resnest14', pretrained=False)
    assert [isinstance(block, SplitAttentionBottleneck) for block in backbone_blocks(model)] == [
        True
    ] * 4
    weight = torch.ones(3, requires_grad=True)
    assert full_tensor(7) == 7 and torch.equal(full_tensor(weight), weight.detach())
    assert local_shard(weight, weight) is weight and local_shard(weight, None) is weight


@pytest.mark.slow
def test_a_run_under_the_flexible_runner(shapes, tmp_path):
    """One process: training, pictures, resuming, testing; and what is wrong is explained."""
    path = tiny.write(tmp_path, 'detection')
    options = {'runner_type': 'FlexibleRunner'}
    result = train(
        path,
        data=shapes,
        work_dir=tmp_path / 'work',
        seed=0,
        cfg_options=options,
        auto_scale_lr=True,
    )
    assert 'coco/bbox_mAP' in result.metrics
    assert {picture.name for picture in result.pictures} == {'predictions.png', 'curves.png'}
    content = checkpoints.read_checkpoint(result.checkpoint)
    # It was the best so far and thus rewritten when the next epoch had been counted.
    assert content['meta']['epoch'] == 1 and content['meta']['iter'] == 1
    assert content['optimizer']['param_groups'][0]['initial_lr'] == pytest.approx(0.02 * 2 / 16)
    plain = train(path, data=shapes, work_dir=tmp_path / 'plain', seed=0, auto_scale_lr=True)
    other = checkpoints.read_checkpoint(plain.checkpoint)
    for name, value in other['state_dict'].items():
        torch.testing.assert_close(content['state_dict'][name], value, msg=name)

    cfg = load_config(path, {**options, 'train_cfg.max_epochs': 2})
    use_data(cfg, shapes)
    again = train(cfg, work_dir=tmp_path / 'work', seed=0, resume='auto')
    assert (
        checkpoints.read_checkpoint(again.checkpoint)['meta'].items()
        >= dict(epoch=2, iter=2).items()
    )
    assert 'coco/bbox_mAP' in score(cfg, again.checkpoint, work_dir=tmp_path / 'scored').metrics

    for wrong, code, *parts in (
        ({'model.backbone.radixx': 3}, 'argument.unknown', "'radixx'", 'nearest: radix'),
        (
            {'runner_type': 'FlexibleRuner'},
            'config.type-unknown',
            "'FlexibleRuner'",
            'nearest: FlexibleRunner',
        ),
        (
            {'strategy.type': 'SingleDeviceStrategi'},
            'strategy.one-process',
            'SingleDeviceStrategi',
            'tools/dist_train.sh',
        ),
    ):
        with refuses(code, *parts):
            train(path, data=shapes, work_dir=tmp_path / 'no', cfg_options={**options, **wrong})


def test_shards_of_deepspeed(tmp_path):
    folder = tmp_path / 'epoch_3.pth'
    folder.mkdir()
    assert checkpoints.find_last(tmp_path) is None
    (folder / 'zero_pp_rank_0_mp_rank_00_model_states.pt').touch()
    (tmp_path / 'last_checkpoint').write_text(str(folder))
    assert checkpoints.find_last(tmp_path) == folder
    with refuses('checkpoint.sharded', 'zero_to_fp32.py', '--tag epoch_3.pth'):
        checkpoints.read_checkpoint(folder)


@pytest.mark.parametrize('processes', [1, 4])
def test_deepspeed_scales_the_rate_by_all_processes(monkeypatch, processes):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name)
    monkeypatch.setattr('mmengine.dist.get_world_size', lambda: processes)
    cfg = settle(
        strategy=dict(type='DeepSpeedStrategy'),
        train_dataloader=dict(batch_size=4),
        auto_scale_lr=dict(enable=True, base_batch_size=16),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.02)),
    )
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.02 * 4 * processes / 16)


def test_shards_are_of_all_processes(monkeypatch):
    """The mesh over which weights are divided has as many places as there are processes."""
    if not hasattr(torch.distributed, 'device_mesh'):
        pytest.skip('torch has no device mesh')
    meshes, divided = [], []
    monkeypatch.setattr(
        'torch.distributed.device_mesh.init_device_mesh', lambda *how: meshes.append(how) or how
    )
    monkeypatch.setattr(
        'torch.distributed.fsdp.fully_shard',
        lambda module, **how: divided.append((module, how['mesh'])) or module,
        raising=False,
    )
    monkeypatch.setattr('torch.distributed.fsdp.CPUOffloadPolicy', object, raising=False)
    model = nn.Module()
    model.backbone = build_backbone('resnest14', pretrained=False)
    monkeypatch.setattr(FSDPStrategy, 'world_size', 6)
    strategy = FSDPStrategy.__new__(FSDPStrategy)
    strategy.reshard_after_forward, strategy.cpu_offload = True, False
    monkeypatch.setattr(FSDPStrategy, 'convert_model', lambda self, model: model)
    assert strategy._wrap_model(model) is model
    assert [how[1] for how in meshes] == [(6,)]
    assert [module for module, _ in divided] == [*backbone_blocks(model), model]
    assert {mesh for _, mesh in divided} == set(meshes)
