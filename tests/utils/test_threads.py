"""The variables that OpenMP reads: what is set in which case, and what the user's decide."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmresnest.cli import main
from mmresnest.utils import threads
from mmresnest.utils.threads import CHOSEN, SPIN_ROUNDS, Choice, Machine, choose_threads

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
SPIN = {'GOMP_SPINCOUNT': str(SPIN_ROUNDS), 'KMP_BLOCKTIME': '1'}
SLEEP = {'GOMP_SPINCOUNT': '0', 'KMP_BLOCKTIME': '0'}


def count(number):
    return {'OMP_NUM_THREADS': str(number), 'MKL_NUM_THREADS': str(number)}


# fmt: off
@pytest.mark.parametrize(
    'environment, machine, processes, expected, said',
    [
        ({}, Machine(2), 1, SPIN, 'those of 2 cores; GOMP_SPINCOUNT=10000 KMP_BLOCKTIME=1 set'),
        ({}, Machine(1), 1, SPIN, 'those of 1 core;'),
        ({}, Machine(2, busy=0.4), 1, SPIN, 'since the cores are free'),
        ({}, Machine(2, busy=1.0), 1, SLEEP, 'since others use 1.0 of the cores'),
        ({}, Machine(16, busy=15.0), 1, SLEEP, 'since others use 15.0 of the cores'),
        ({}, Machine(16), 4, {**count(4), **SPIN}, '=4 set for 16 cores for 4 processes'),
        ({}, Machine(16, busy=3.0), 5, {**count(3), **SLEEP}, ''),  # 15 of ours and 3 of others
        ({}, Machine(2), 2, {**count(1), **SPIN}, 'for 2 processes'),
        ({}, Machine(2), 8, {**count(1), **SLEEP}, 'since there are more threads than cores'),
        ({}, Machine(8, 3.5), 1, {**count(3), **SPIN}, 'set for 8 cores, 3.5 by quota'),
        ({}, Machine(8, 3.5, 4.0), 1, {**count(3), **SPIN}, ''),  # the quota is all that is used
        ({}, Machine(8, 8.0), 1, SPIN, 'those of 8 cores;'),
        ({}, Machine(8, 1.0), 2, {**count(1), **SPIN}, ''),
        ({'OMP_NUM_THREADS': '2'}, Machine(8, busy=4.0), 2, SPIN, 'OMP_NUM_THREADS=2 given;'),
        ({'OMP_NUM_THREADS': '4'}, Machine(2), 1, SLEEP, 'since there are more threads than cores'),
        ({'OMP_NUM_THREADS': '4', 'MKL_NUM_THREADS': '1'}, Machine(2, busy=1.0), 1, SPIN, ''),
        ({'MKL_NUM_THREADS': '3'}, Machine(8), 4, SLEEP, 'MKL_NUM_THREADS=3 given;'),
        ({'OMP_NUM_THREADS': ''}, Machine(4), 2, {**count(2), **SPIN}, ''),
        ({'GOMP_SPINCOUNT': '7'}, Machine(2, busy=2.0), 1, {}, 'GOMP_SPINCOUNT=7 given'),
        ({'KMP_BLOCKTIME': '200'}, Machine(4), 2, count(2), 'KMP_BLOCKTIME=200 given'),
        ({'OMP_WAIT_POLICY': 'active'}, Machine(2), 1, {}, 'OMP_WAIT_POLICY=active given'),
    ],
)
# fmt: on
def test_what_is_set(environment, machine, processes, expected, said):
    chosen = choose_threads(environment, machine, processes)
    assert chosen == expected
    assert said in threads.explain_choice(Choice(environment, machine, processes, chosen))


def test_the_number_of_threads_does_not_depend_on_others():
    """Bit-exact resuming needs the same number again, whatever the machine does by then."""
    for cores, quota, processes in [(2, 2.0, 1), (16, 5.0, 1), (16, 16.0, 3)]:
        numbers = {
            choose_threads({}, Machine(cores, quota, busy), processes).get('OMP_NUM_THREADS')
            for busy in (0.0, 1.0, 16.0)
        }
        assert len(numbers) == 1


def test_processes_of_launchers():
    count = threads.count_processes
    assert count({}) == 1 and count({'LOCAL_WORLD_SIZE': 'many'}) == 1
    assert count({'LOCAL_WORLD_SIZE': '4', 'OMPI_COMM_WORLD_LOCAL_SIZE': '2'}) == 4
    assert count({'OMPI_COMM_WORLD_LOCAL_SIZE': '2'}) == count({'MPI_LOCALNRANKS': '2'}) == 2


def test_a_task_of_slurm_has_its_own_processors(monkeypatch):
    monkeypatch.setattr(threads, 'read_quota', lambda: 6.0)
    monkeypatch.setattr(threads, '_SAMPLE_SECONDS', 0)
    given = {'SLURM_STEP_ID': '0', 'SLURM_CPUS_PER_TASK': '5'}
    assert threads.examine_machine(given).quota == 5.0
    assert threads.examine_machine({'SLURM_STEP_ID': '0'}).quota == 6.0
    assert threads.examine_machine({'SLURM_CPUS_PER_TASK': '5'}).quota == 6.0  # not by srun


# fmt: off
@pytest.mark.parametrize(
    'membership, files, expected',
    [
        ('0::/\n', {}, float('inf')),
        ('0::/\n', {'cpu.max': 'max 100000\n'}, float('inf')),
        ('0::/\n', {'cpu.max': '250000 100000\n'}, 2.5),
        ('0::/\n', {'cpu.max': '50000 100000\n'}, 1.0),  # one thread is the least
        ('0::/a/b\n', {'a/b/cpu.max': 'max 100000', 'a/cpu.max': '300000 100000'}, 3.0),
        ('0::/a\n', {'b/cpu.max': '300000 100000'}, float('inf')),
        ('4:cpu,cpuacct:/x\n3:memory:/\n', {'cpu/cpu.cfs_quota_us': '-1',
                                           'cpu/cpu.cfs_period_us': '100000'}, float('inf')),
        ('4:cpu,cpuacct:/x\n0::/\n', {'cpu/x/cpu.cfs_quota_us': '400000',
                                      'cpu/x/cpu.cfs_period_us': '100000'}, 4.0),
        ('2:cpuset:/x\n', {'cpu/x/cpu.cfs_quota_us': '400000',
                           'cpu/x/cpu.cfs_period_us': '100000'}, float('inf')),
    ],
)
# fmt: on
def test_quotas_of_cgroups(membership, files, expected, tmp_path):
    for name, text in files.items():
        path = tmp_path / 'root' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / 'membership').write_text(membership)
    assert threads.read_quota(tmp_path / 'root', tmp_path / 'membership') == expected
    assert threads.read_quota(tmp_path / 'root', tmp_path / 'nothing') == float('inf')


def test_hardware_threads_of_a_core_count_once(tmp_path):
    for number in range(4):
        path = tmp_path / f'cpu{number}/topology/thread_siblings_list'
        path.parent.mkdir(parents=True)
        path.write_text(f'{number % 2},{number % 2 + 2}\n')
    assert threads.count_cores([0, 1, 2, 3], tmp_path) == 2
    assert threads.count_cores([0, 2], tmp_path) == 1
    assert threads.count_cores([0, 1], tmp_path / 'nothing') == 2


def test_time_that_others_use(tmp_path):
    path = tmp_path / 'stat'
    path.write_text('cpu  9 9 9 9\ncpu0 100 0 0 300 50 0 0 50 7 7\ncpu1 1 2 3 4 0 0 0 0\nintr 5\n')
    before = threads.read_idle_times(path)
    assert before == {0: (350, 500), 1: (4, 10)}
    assert threads.read_idle_times(tmp_path / 'nothing') == {}
    after = {0: (350 + 2, 500 + 5), 1: (4 + 9, 10 + 10)}
    assert threads.measure_busy(before, after, [0]) == pytest.approx(0.6)
    assert threads.measure_busy(before, after, [0, 1, 7]) == pytest.approx(0.6)  # a tenth is none
    assert threads.measure_busy(before, before, [0, 1]) == 0


def run_python(code, **variables):
    kept = {name: value for name, value in os.environ.items() if name not in DECISIVE}
    run = subprocess.run(
        [sys.executable, '-c', code],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return run.stdout.split()


DECISIVE = {*threads.COUNTS, *threads.WAITING, *threads._PROCESSES, CHOSEN}


def test_a_command_sets_them_before_torch_and_processes_choose_anew():
    """What the process before has set is chosen again, what its user has set is left alone."""
    code = (
        'import os, sys; from mmresnest.cli import main; '
        'from mmresnest.cli.arguments import Command; '
        'show = lambda args: print("torch" in sys.modules, *(os.environ.get(name, "-") '
        'for name in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS"))) or 0; '
        'main.load_command = lambda name: Command(lambda parser: None, show); '
        'main.main([sys.argv[1] if sys.argv[1:] else "list"]); main.main(["train"])'
    )
    spins = {'0', str(SPIN_ROUNDS)}
    found = run_python(code)
    assert found[:3] == ['False', '-', '-'] and found[3] == 'False' and found[4] in spins
    marked = {CHOSEN: 'GOMP_SPINCOUNT OMP_NUM_THREADS'}
    found = run_python(
        code, GOMP_SPINCOUNT='5', OMP_NUM_THREADS='777', LOCAL_WORLD_SIZE='10000', **marked
    )
    assert found[:3] == ['False', '5', '777'] and found[4] == '0' and found[5] == '1'
    found = run_python(code, GOMP_SPINCOUNT='5', OMP_NUM_THREADS='777', LOCAL_WORLD_SIZE='2')
    assert found[4:] == ['5', '777']


def test_where_torch_is_imported_nothing_is_changed(monkeypatch):
    for name in DECISIVE:
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    threads.configure_threads()
    assert dict(os.environ) == before
    assert 'torch was imported first' in threads.describe_threads(3)
    assert set(main.COMPUTING) <= set(main.COMMANDS)


@pytest.mark.parametrize('script, positions', [('dist_train.sh', 1), ('dist_test.sh', 2)])
def test_launchers_mark_what_is_not_the_user_s(script, positions, tmp_path):
    fake = tmp_path / 'python'
    fake.write_text(f'#!/bin/sh\necho "$OMP_NUM_THREADS,${CHOSEN}"\n')
    fake.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name not in DECISIVE}

    def launch(**variables):
        command = [TOOLS / script, *['x'] * positions, '2']
        return subprocess.run(
            command, env={**kept, 'PYTHON': str(fake), **variables}, stdout=subprocess.PIPE
        ).stdout.decode()

    assert launch() == '1,OMP_NUM_THREADS\n'
    assert launch(OMP_NUM_THREADS='6') == '6,\n'


def test_a_resumed_run_says_that_its_number_of_threads_differs(caplog):
    from mmresnest.engine.loops import EpochBasedTrainLoop

    logger = logging.getLogger('threads')
    loop = SimpleNamespace(runner=SimpleNamespace(logger=logger))
    here = torch.get_num_threads()
    for record in ({}, {'threads': here}):
        EpochBasedTrainLoop._check_threads(loop, record)
    assert caplog.records == []
    EpochBasedTrainLoop._check_threads(loop, {'threads': here + 1})
    assert f'OMP_NUM_THREADS={here + 1}' in caplog.text and f'now {here}' in caplog.text
