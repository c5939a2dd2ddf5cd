"""Two processes on CPUs, over gloo, started as a user starts them."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from helpers import tiny
from helpers.processes import HELPERS, environment, start

from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.engine import checkpoints
from mmresnest.engine.test import test as score

pytestmark = pytest.mark.filterwarnings('ignore')


# ---- equal to one process ------------------------------------------------------------------------


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    """What two processes found, and one on the union of their data: see two.py."""
    file = tmp_path_factory.mktemp('two') / 'found.pth'
    env = environment()
    run = subprocess.run(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--nproc_per_node=2',
            f'--master_port={env["PORT"]}',
            HELPERS / 'two.py',
            file,
        ],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return torch.load(file, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['frozen_norms', 'synchronised_norms', 'precise_bn'])
def test_two_are_one(found, name):
    """Gradients and statistics, in double precision: nothing but the order of sums differs."""
    two, one = found[name]
    assert two.keys() == one.keys() and len(two) > 30
    for key in two:
        torch.testing.assert_close(two[key], one[key], rtol=1e-9, atol=1e-11, msg=key)


@pytest.mark.slow
def test_the_comparison_can_fail(found):
    """Norms that do not synchronise are told from those that do."""
    two, one = found['own_norms']
    different = [
        key for key in two if not torch.allclose(two[key].double(), one[key].double(), rtol=1e-3)
    ]
    assert len(different) > 30
    synced = found['synchronised_norms'][1]
    for key in one:  # and the plain words are those of torch, in one process
        torch.testing.assert_close(
            one[key], synced[key], rtol=1e-7, atol=1e-9, msg=key
        ) if 'num_batches' not in key else None


# ---- trainings -----------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return draw_dataset(
        tmp_path_factory.mktemp('shapes'), train=8, val=3, test=2, size=(64, 64), progress=False
    )


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """The folder of a training under DistributedDataParallel, its config, and what it said."""
    folder = tmp_path_factory.mktemp('trained')
    config = tiny.write(folder, 'detection')
    # Shards are contiguous, and their kernels round otherwise than those of channels_last.
    config.write_text(config.read_text() + 'model["backbone"]["channels_last"] = False\n')
    run = start(
        'dist_train.sh',
        config,
        2,
        '--data',
        shapes,
        '--work-dir',
        folder / 'work',
        '--seed',
        0,
        '--auto-scale-lr',
    )
    return folder / 'work', config, run


def read_logs(work):
    """Return the log files of a run, which have what the terminal does not show."""
    return ''.join(path.read_text(encoding='utf-8') for path in sorted(work.glob('*/*.log')))


@pytest.mark.slow
def test_train_and_test(shapes, trained, tmp_path):
    work, config, run = trained
    said = run.stdout + run.stderr
    assert run.returncode == 0, said[-3000:]
    assert 'Distributed training: True' in read_logs(work)
    assert said.count('the model is built with BN') == 1, 'what both know is said once'
    assert run.stdout.count('coco/bbox_mAP: ') >= 1 and run.stdout.count('wall time: ') == 1
    # 8 images by 2 a step are 4 steps of one process, and 2 of each of two.
    content = checkpoints.read_checkpoint(checkpoints.find_last(work))
    assert content['meta']['iter'] == 2
    # The learning rate is for 16 images a step, and 2 processes take 2 each.
    assert content['optimizer']['param_groups'][0]['initial_lr'] == pytest.approx(0.02 * 4 / 16)

    run = start(
        'dist_test.sh',
        config,
        checkpoints.find_last(work),
        2,
        '--data',
        shapes,
        '--work-dir',
        tmp_path,
        '--out',
        tmp_path / 'found.json',
    )
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    assert 'coco/bbox_mAP: ' in run.stdout and (tmp_path / 'found.json').is_file()


@pytest.fixture(scope='module')
def sharded(trained, shapes):
    """The same training with the model in shards: its folder, and what it said."""
    work, config, _ = trained
    work = work.with_name('sharded')
    run = start(
        'dist_train.sh',
        config,
        2,
        '--data',
        shapes,
        '--work-dir',
        work,
        '--seed',
        0,
        '--auto-scale-lr',
        '--strategy',
        'fsdp',
    )
    return work, run


@pytest.mark.slow
def test_a_model_in_shards_learns_the_same(trained, sharded):
    work, run = sharded
    said = run.stdout + run.stderr
    assert run.returncode == 0, said[-3000:]
    assert 'strategy = dict(' in read_logs(work) and 'FSDPStrategy' in read_logs(work)
    assert (work / 'predictions.png').is_file() and (work / 'curves.png').is_file()
    whole, shards = (
        checkpoints.read_checkpoint(folder / 'epoch_1.pth') for folder in (trained[0], work)
    )
    assert whole['meta']['epoch'] == shards['meta']['epoch'] == 1
    assert whole['state_dict'].keys() == shards['state_dict'].keys()
    for name, value in whole['state_dict'].items():
        torch.testing.assert_close(
            shards['state_dict'][name], value, rtol=1e-4, atol=1e-6, msg=name
        )
    one, two = whole['optimizer'], shards['optimizer']
    assert one['param_groups'] == two['param_groups'] and one['state'].keys() == two['state'].keys()
    for index, state in one['state'].items():
        torch.testing.assert_close(
            two['state'][index]['momentum_buffer'], state['momentum_buffer'], rtol=1e-3, atol=1e-5
        )


@pytest.mark.slow
def test_go_on_in_shards_from_whole_and_back(trained, shapes, tmp_path):
    whole, config, _ = trained
    shutil.copytree(whole, tmp_path / 'work')
    config = config.with_name('precise.py')
    config.write_text(f"""
_base_ = '{trained[1].name}'
custom_hooks = [dict(type='mmresnest.PreciseBN')]
runner_type = 'FlexibleRunner'
strategy = dict(type='mmresnest.FSDPStrategy')
""")
    run = start(
        'dist_train.sh',
        config,
        2,
        '--data',
        shapes,
        '--work-dir',
        tmp_path / 'work',
        '--seed',
        0,
        '--auto-scale-lr',
        '--amp',
        '--resume',
        '--cfg-options',
        'train_cfg.max_epochs=2',
    )
    said = run.stdout + run.stderr
    assert run.returncode == 0, said[-3000:]
    assert 'resumed epoch: 1, iter: 2' in said and 'bfloat16' in said
    assert 'PreciseBN: averaging the statistics' in said
    before, after = (
        checkpoints.read_checkpoint(tmp_path / 'work' / f'epoch_{epoch}.pth') for epoch in (1, 2)
    )
    assert after['meta']['epoch'] == 2 and after['meta']['iter'] == 4
    moved = [
        name
        for name, value in before['state_dict'].items()
        if not torch.equal(value, after['state_dict'][name])
    ]
    assert 'rpn_head.rpn_conv.bias' in moved and 'backbone.layer4.0.bn3.bias' in moved
    assert not any(name.startswith('backbone.layer1') for name in moved), 'it is frozen'
    # One process tests it, and the strategy in the config is not in its way.
    scored = score(config, tmp_path / 'work' / 'epoch_2.pth', data=shapes, work_dir=tmp_path)
    assert 'coco/bbox_mAP' in scored.metrics


SRUN = """#!/bin/bash
# Slurm's part: takes srun's own arguments away, starts two tasks, and tells each which it is.
while [[ $1 == --* ]]; do shift; done
export SLURM_NTASKS=2 SLURM_NNODES=1 SLURM_NODELIST=here
SLURM_PROCID=1 SLURM_LOCALID=1 "$@" & other=$!
SLURM_PROCID=0 SLURM_LOCALID=0 "$@"; code=$?
wait $other && exit $code
"""


@pytest.mark.slow
def test_slurm(shapes, trained, tmp_path, monkeypatch):
    """The same training, started the other way, is the same training."""
    (tmp_path / 'srun').write_text(SRUN)
    (tmp_path / 'srun').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    run = start(
        'slurm_train.sh',
        'partition',
        'job',
        trained[1],
        '--data',
        shapes,
        '--work-dir',
        tmp_path / 'work',
        '--seed',
        0,
        '--auto-scale-lr',
    )
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    one, two = (
        checkpoints.read_checkpoint(checkpoints.find_last(work))
        for work in (trained[0], tmp_path / 'work')
    )
    assert two['meta']['iter'] == 2
    for name, value in one['state_dict'].items():
        torch.testing.assert_close(two['state_dict'][name], value, msg=name)


@pytest.mark.slow
def test_what_is_wrong_ends_all_of_them(tmp_path):
    config = tiny.write(tmp_path, 'detection')
    run = start('dist_train.sh', config, 2, '--data', tmp_path / 'nowhere')
    assert run.returncode != 0
    assert 'nowhere does not exist' in run.stderr
    assert 'in main\n' not in run.stderr.partition('mmresnest: error')[0]
