"""A training that is told to stop: saved, ended with its status, and taken up."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from helpers import noisy, tiny
from helpers.errors import refuses
from helpers.processes import HELPERS, TOOLS, environment
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmresnest.config.defaults import configure_safety
from mmresnest.config.options import TrainOptions
from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.engine import checkpoints, train
from mmresnest.engine.hooks import checkpoint, signals
from mmresnest.engine.hooks.signals import STOPPED, StopOnSignal, Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SCRIPT = HELPERS / 'signalled.py'

# mmengine's schedulers expect a step of the optimiser in each iteration.
pytestmark = pytest.mark.filterwarnings('ignore:Detected call of `scheduler.step')


@HOOKS.register_module()
class Send(Hook):
    """Has the process send itself signals in an iteration, or in a batch of its validation."""

    def __init__(self, iteration, numbers, batch=None):
        self.iteration, self.numbers, self.batch = iteration, numbers, batch

    def send(self):
        for number in self.numbers:
            os.kill(os.getpid(), number)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.batch is None and runner.iter + 1 == self.iteration:
            self.send()

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if self.batch == batch_idx and runner.iter == self.iteration:
            self.send()


@HOOKS.register_module()
class Call(Hook):
    """Has something done in the second iteration."""

    function = None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1:
            type(self).function()


@pytest.fixture(autouse=True)
def handlers():
    """Each test leaves signals to whom they went before."""
    for number in SIGNALS:  # trainings of other tests that raised have left their own
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )
    before = list(map(signal.getsignal, SIGNALS))
    yield
    after = list(map(signal.getsignal, SIGNALS))
    for number, handler in zip(SIGNALS, before):
        signal.signal(number, handler)
    assert after == before


def again(settings, **more):
    """The settings for another runner: mmengine keeps what belongs to one by its name."""
    return dict(settings, experiment_name=f'toy_{random.SystemRandom().random()}', **more)


def with_hook(settings, kind, **given):
    return again(settings, custom_hooks=[*settings['custom_hooks'], dict(type=kind, **given)])


def stopped(settings, iteration, numbers=(signal.SIGTERM,), batch=None, run=noisy.train, **more):
    """Trains until signals come; the checkpoint that is left, which must be of that iteration."""
    settings = with_hook(settings, 'Send', iteration=iteration, numbers=list(numbers), batch=batch)
    with pytest.raises(Stopped) as stop:
        run(settings, **more)
    assert stop.value.code == STOPPED == 75
    left = checkpoints.find_last(Path(settings['work_dir']))
    assert str(left) == stop.value.checkpoint
    assert torch.load(left, weights_only=False)['meta']['iter'] == iteration
    return left


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The last states of trainings that nobody stopped, by what they count."""
    found = {}
    for name, given in dict(
        epochs=dict(epochs=3),
        iterations=dict(iterations=17),
        accumulating=dict(iterations=17, accumulate=3),
    ).items():
        folder = tmp_path_factory.mktemp(name)
        noisy.train(noisy.config(folder, interval=17, **given))
        found[name] = noisy.state(checkpoints.find_last(folder))
    return found


# ---- in one process ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'numbers',
    [*([one] for one in SIGNALS), [signal.SIGTERM] * 2, SIGNALS],
    ids=lambda numbers: ' '.join(one.name for one in numbers),
)
def test_each_signal_saves_after_its_iteration(numbers, tmp_path, capfd):
    """More than one within a second are one, such as GNU timeout's."""
    left = stopped(noisy.config(tmp_path, iterations=17, interval=17), 4, numbers)
    assert left.name == 'iter_4.pth' and [path.name for path in tmp_path.glob('*.pth')] == [
        'iter_4.pth'
    ]
    said = ''.join(capfd.readouterr())
    assert f'stopped by {numbers[0].name} after iteration 4; the state is saved in {left}' in said
    assert '--resume' in said and 'status of this process is 75' in said


@pytest.mark.slow
@pytest.mark.parametrize(
    'kind, iteration', [('epochs', 6), ('epochs', 18), ('iterations', 5), ('iterations', 17)]
)
def test_in_the_last_iteration_of_something(kind, iteration, whole, tmp_path):
    """Of an epoch, before a validation, or of the training, which is then complete."""
    given = dict(epochs=3) if kind == 'epochs' else dict(iterations=17)
    left = stopped(noisy.config(tmp_path, interval=17, **given), iteration)
    runner = noisy.train(noisy.config(tmp_path, interval=17, **given), resume=str(left))
    assert runner.iter == (18 if kind == 'epochs' else 17)
    assert noisy.same(whole[kind], noisy.state(checkpoints.find_last(tmp_path))) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    'kind, iteration, batch, saved',
    [
        ('iterations', 5, 0, False),
        ('iterations', 5, 3, True),
        ('epochs', 12, 3, False),
        ('epochs', 12, 0, True),
    ],
)
def test_in_a_validation(kind, iteration, batch, saved, whole, tmp_path):
    """The trained weights are saved, though the averaged ones are in their place."""
    given = dict(epochs=3) if kind == 'epochs' else dict(iterations=17)
    settings = noisy.config(tmp_path, interval=iteration if saved else 17, **given)
    assert settings['custom_hooks'] == [dict(type='EMAHook')]
    left = stopped(settings, iteration, batch=batch)
    assert [path.name for path in tmp_path.glob('*.pth')] == [left.name]
    noisy.train(again(settings, work_dir=str(tmp_path / 'resumed')), resume=str(left))
    last = checkpoints.find_last(tmp_path / 'resumed')
    states = whole[kind], noisy.state(last)
    assert noisy.same(*states) == []


@pytest.mark.slow
def test_under_the_flexible_runner(tmp_path):
    from mmengine.runner._flexible_runner import FlexibleRunner

    def run(settings, **resume):
        FlexibleRunner.from_cfg(again(settings, env_cfg={}, **resume)).train()

    # FlexibleRunner loads before EMAHook is ready for it, so that mmengine cannot resume with it.
    settings = noisy.config(tmp_path, iterations=10, interval=10, custom_hooks=[])
    left = stopped(settings, 3, run=run)
    left = stopped(settings, 5, batch=2, run=run, resume=True, load_from=str(left))
    run(settings, resume=True, load_from=str(left))
    assert checkpoints.find_last(tmp_path).name == 'iter_10.pth'


@pytest.mark.slow
def test_without_a_hook_that_saves(whole, tmp_path):
    """Gradients that wait for more of a step are saved there, too."""
    settings = noisy.config(tmp_path, iterations=17, accumulate=3, interval=17)
    hooks = settings['default_hooks']
    left = stopped(dict(settings, default_hooks=dict(hooks, checkpoint=None)), 4)
    assert left == tmp_path / 'iter_4.pth'
    noisy.train(again(settings), resume=str(left))
    assert noisy.same(whole['accumulating'], noisy.state(tmp_path / 'iter_17.pth')) == []


@pytest.mark.slow
def test_after_the_end_and_after_an_exception(tmp_path, monkeypatch):
    """As ``mmresnest.train`` runs it, which scores the last state if that is not done yet."""

    def run(settings, resume=''):
        more = dict(resume=True, load_from=resume) if resume else {}
        cfg = Config(again(settings, **more))
        return train._run_training(cfg, TrainOptions(progress=False), collected=False)[1]

    def fail():
        assert all(
            signal.getsignal(one) not in (before, signal.SIG_DFL)
            for one, before in zip(SIGNALS, earlier)
        )
        raise OverflowError

    settings = noisy.config(tmp_path, iterations=5, interval=5)
    left = stopped(settings, 5, run=run)
    assert left == stopped(settings, 5, batch=1, run=run, resume=str(left))
    assert 'mean' in run(settings, resume=str(left)).metrics

    earlier = list(map(signal.getsignal, SIGNALS))
    monkeypatch.setattr(Call, 'function', fail)
    with pytest.raises(OverflowError):
        run(with_hook(settings, 'Call'))
    assert list(map(signal.getsignal, SIGNALS)) == earlier


def test_a_training_begins_untold(tmp_path):
    """Whatever came before it, and however often it begins."""
    runner = Runner.from_cfg(noisy.config(tmp_path, iterations=2, workers=1))
    runner.train()
    [stop] = [hook for hook in runner.hooks if isinstance(hook, StopOnSignal)]
    stop.received = signal.SIGINT
    stop.before_train(runner)
    assert stop.received is None
    stop.before_train(runner)
    stop.restore()


def test_processes_of_others_can_be_ended(tmp_path, monkeypatch):
    """A pool ends its processes by SIGTERM; one that is forked has all handlers of this one."""
    context, codes = multiprocessing.get_context('fork'), []
    begun = context.Event()

    def stay():
        begun.set()
        time.sleep(20)

    def end():
        process = context.Process(target=stay)
        process.start()
        begun.wait(20)  # Python forgets what arrives amid a fork
        process.terminate()
        process.join()
        codes.append(process.exitcode)

    monkeypatch.setattr(Call, 'function', end)
    noisy.train(with_hook(noisy.config(tmp_path, iterations=3), 'Call'))
    assert codes == [-signal.SIGTERM]


def test_in_another_thread(tmp_path, capfd):
    before = list(map(signal.getsignal, SIGNALS))
    heard = []
    thread = threading.Thread(
        target=lambda: heard.append(noisy.train(noisy.config(tmp_path, iterations=3)).iter)
    )
    thread.start()
    thread.join()
    assert heard == [3] and list(map(signal.getsignal, SIGNALS)) == before
    assert 'does not run in the main thread' in ''.join(capfd.readouterr())


def test_a_handler_of_a_library_in_c(monkeypatch):
    """Python cannot put it back, and says None of it."""
    stop = StopOnSignal(signals=['SIGUSR1'])
    monkeypatch.setattr(stop, 'before', {signal.SIGUSR1: None})
    stop.restore()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@pytest.mark.parametrize(
    'given, parts',
    [
        (dict(signals=['SIGTREM']), ("'SIGTREM'", 'nearest: SIGTERM')),
        (dict(interval=0), ('interval=0 ', 'legal: whole numbers from 1')),
        (dict(interval=1.5), ('interval=1.5 ', 'legal: whole numbers from 1')),
    ],
)
def test_what_is_wrong_is_said(given, parts):
    with refuses('argument', *parts):
        StopOnSignal(**given)


def test_intervals(tmp_path, monkeypatch):
    assert StopOnSignal()._check_interval() == 1 and StopOnSignal(interval=3)._check_interval() == 3
    monkeypatch.setattr(signals, 'is_distributed', lambda: True)
    monkeypatch.setattr('mmresnest.config.hardware.has_accelerator', lambda: True)
    assert StopOnSignal()._check_interval() == 10
    monkeypatch.undo()
    settings = noisy.config(tmp_path, iterations=17, interval=17)
    settings['default_hooks']['signals']['interval'] = 2
    with pytest.raises(Stopped):
        noisy.train(with_hook(settings, 'Send', iteration=3, numbers=[signal.SIGTERM]))
    assert checkpoints.find_last(tmp_path).name == 'iter_4.pth'


def test_workers_of_every_loader_of_a_training_are_shielded(tmp_path):
    from mmresnest.engine.hooks.precise_bn import _build_second_loader

    settings = noisy.config(tmp_path, iterations=2, workers=2)
    del settings['train_dataloader']['worker_init_fn']
    settings['val_dataloader']['num_workers'] = 1
    cfg = Config(settings)
    configure_safety(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    second = _build_second_loader(runner)
    for loader in (runner.train_dataloader, runner.val_dataloader, second):
        assert loader.worker_init_fn.func is signals.init_worker


@pytest.mark.slow
def test_workers_that_are_not_shielded_are_warned_of(tmp_path, capfd):
    settings = noisy.config(tmp_path, iterations=2, workers=1)
    noisy.train(settings)
    assert 'worker_init_fn' not in ''.join(capfd.readouterr())
    del settings['train_dataloader']['worker_init_fn']
    noisy.train(settings)
    assert "set train_dataloader.worker_init_fn=dict(type='mmresnest.init_worker')" in ''.join(
        capfd.readouterr()
    )


def test_what_a_worker_calls_first():
    """The function that a config names runs in place of seeding; ours is put around it once."""
    called = []
    signals.init_worker(
        3, inner=dict(type=lambda worker, **more: called.append((worker, more)), a=1)
    )
    assert called == [(3, dict(a=1))]
    loader = dict(num_workers=2, worker_init_fn=dict(type='x'), disable_subprocess_warning=True)
    cfg = Config(dict(train_dataloader=loader))
    configure_safety(cfg)
    configure_safety(cfg)
    assert cfg.train_dataloader.to_dict() == dict(
        num_workers=2,
        worker_init_fn=dict(
            type='mmresnest.init_worker', inner=dict(type='x'), disable_subprocess_warning=True
        ),
    )


# ---- processes -----------------------------------------------------------------------------------


def begin(said, *jobs, command=()):
    """Starts trainings, see signalled.py."""
    with said.open('w') as file:
        return subprocess.Popen(
            [sys.executable, *command, SCRIPT, *map(json.dumps, jobs)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(),
        )


def until(condition, process=None, seconds=120):
    """Waits for something; the process may not end meanwhile."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'it did not come'
        assert process is None or process.poll() is None, process.returncode
        time.sleep(0.02)


@pytest.mark.slow
def test_signals_to_all_processes_and_a_second_one(tmp_path):
    """As Ctrl-C in a terminal and schedulers send them, workers included."""
    kinds = {
        'persistent': (signal.SIGTERM, 9),
        'anew each epoch': (signal.SIGINT, 9),
        'twice': (signal.SIGTERM, -3),
    }
    for name in kinds:
        (tmp_path / name).mkdir()
    begun = begin(
        tmp_path / 'said',
        *(
            dict(
                folder=str(tmp_path / name / 'work'),
                wait=wait,
                epochs=3,
                workers=2,
                persistent=name != 'anew each epoch',
            )
            for name, (_, wait) in kinds.items()
        ),
    )
    numbers = {}
    for name, (number, _) in kinds.items():
        file = tmp_path / name / 'work' / 'waits_0'
        until(lambda file=file: file.exists() and file.read_text(), begun)
        numbers[name] = int(file.read_text())
        os.killpg(numbers[name], number)
    time.sleep(signals.GRACE + 0.2)
    assert not (tmp_path / 'twice' / 'code').exists()
    os.kill(numbers['twice'], signal.SIGTERM)
    assert begun.wait(120) == 0, (tmp_path / 'said').read_text()
    code, said = (
        {name: (tmp_path / name / file).read_text() for name in kinds} for file in ('code', 'said')
    )
    for name in ('persistent', 'anew each epoch'):
        assert code[name] == '75', said[name]
        assert 'DataLoader worker' not in said[name] and 'Traceback' not in said[name], said[name]
        assert checkpoints.find_last(tmp_path / name / 'work').name == 'iter_9.pth'
    assert code['twice'] == str(-signal.SIGTERM), said['twice']
    assert checkpoints.find_last(tmp_path / 'twice' / 'work').name == 'iter_2.pth'

    def gone():
        try:
            os.killpg(numbers['twice'], 0)
        except ProcessLookupError:
            return True
        return False

    until(gone, seconds=20)  # torch's workers look every five seconds who is there


@pytest.mark.slow
def test_torchrun_hands_the_signal_on(tmp_path):
    """It ends with 1 where its processes end with 75, and has them stop together."""
    command = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2']
    job = dict(folder=str(tmp_path / 'work'), launcher='pytorch', iterations=6, interval=6)
    process = begin(tmp_path / 'said', dict(job, wait=3), command=command)
    until(lambda: len(list((tmp_path / 'work').glob('waits_*'))) == 2, process)
    process.terminate()
    assert process.wait(120) == 1
    said = (tmp_path / 'said').read_text()
    assert 'SignalException: Process' in said and 'got signal: 15' in said, said
    assert said.count('stopped by SIGTERM after iteration 3') == 1, said
    left = checkpoints.find_last(tmp_path / 'work')
    assert left.name == 'iter_3.pth'
    process = begin(tmp_path / 'said', dict(job, wait=0, resume=str(left)), command=command)
    assert process.wait(120) == 0, (tmp_path / 'said').read_text()
    assert checkpoints.find_last(tmp_path / 'work').name == 'iter_6.pth'


# ---- the command line, and Slurm -----------------------------------------------------------------


@pytest.fixture
def command(tmp_path):
    """Arguments of ``mmresnest train`` for a training of 24 short iterations."""
    shapes = draw_dataset(
        tmp_path / 'shapes',
        train=24,
        val=2,
        test=1,
        size=(64, 64),
        layouts=['coco'],
        progress=False,
    )
    return [
        tiny.write(tmp_path, 'detection'),
        '--data',
        shapes,
        '--seed',
        '0',
        '--cfg-options',
        'train_dataloader.batch_size=1',
    ]


def iterates(work, runs):
    """Whether the logs of so many runs have a line of an iteration."""
    return lambda: sum('Epoch(train)' in log.read_text() for log in work.glob('*/*.log')) == runs


SRUN = """#!/bin/bash
# Slurm's part: takes srun's own arguments away, starts a task, and hands signals on to it.
while [[ $1 == --* ]]; do shift; done
export SLURM_NTASKS=1 SLURM_NNODES=1 SLURM_NODELIST=here SLURM_PROCID=0 SLURM_LOCALID=0
"$@" & task=$!
echo $task > "$FAKE/task"
trap 'kill -USR1 $task' USR1
while told=; wait $task; code=$?; [ -n "$told" ] || kill -0 $task 2> /dev/null; do :; done
exit $code
"""
SCONTROL = """#!/bin/bash
echo "$@" >> "$FAKE/scontrol.log"
[ "$1 $2" != 'show job' ] || echo "   JobState=$(cat "$FAKE/state") Reason=None Dependency=(null)"
"""


@pytest.mark.slow
def test_the_command_line_and_a_job_that_is_queued_again(command, tmp_path):
    """Signalled before its limit, queued again, stopped by hand, complete; srun is simulated."""
    for name, text in dict(srun=SRUN, scontrol=SCONTROL).items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / 'state').write_text('RUNNING')
    spooled = tmp_path / 'slurm_script'  # where sbatch copies it, away from its folder
    spooled.write_bytes((TOOLS / 'slurm_requeue.sh').read_bytes())
    spooled.chmod(0o755)
    env = {
        name: value
        for name, value in environment().items()
        if name not in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
    }
    env.update(PATH=f'{tmp_path}{os.pathsep}{env["PATH"]}', FAKE=str(tmp_path), SLURM_JOB_ID='42')
    work = tmp_path / 'work'
    arguments = [*command, '--work-dir', work]

    def run(*line, send=None, runs=0):
        process = subprocess.Popen(
            [*line],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            if send is not None:
                until(iterates(work, runs), process)
                send(process)
            said, _ = process.communicate(timeout=240)
        except BaseException:  # the training is not this process, and would stay
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        assert 'Traceback' not in said, said
        asked = [
            one
            for one in (tmp_path / 'scontrol.log').read_text().splitlines()
            if 'hostname' not in one
        ]
        return process.returncode, said, asked

    def by_slurm(process):  # to the step, and to the shell as by --signal=B:USR1
        os.kill(int((tmp_path / 'task').read_text()), signal.SIGUSR1)
        process.send_signal(signal.SIGUSR1)

    code, said, asked = run(spooled, *arguments, send=by_slurm, runs=1)
    assert code == 75, said[-3000:]
    assert 'holds no checkpoint: the run starts from the beginning' in said
    assert 'stopped by SIGUSR1' in said and 'job 42 is queued again' in said
    assert asked == ['show job 42', 'requeue 42']
    left = checkpoints.find_last(work)
    assert left.name.startswith('iter_')

    code, said, _ = run(
        sys.executable,
        '-m',
        'mmresnest',
        'train',
        *arguments,
        '--resume',
        send=subprocess.Popen.terminate,
        runs=2,
    )
    assert code == 75, said[-3000:]
    assert f'resumes from {left}' in said
    assert 'stopped by SIGTERM' in said and 'give the same command with --resume' in said
    assert left != (left := checkpoints.find_last(work))

    code, said, asked = run(spooled, *arguments)
    assert code == 0, said[-3000:]
    assert f'resumes from {left}' in said and asked == ['show job 42', 'requeue 42']
    assert [path.name for path in work.glob('*.pth') if 'best' not in path.name] == ['epoch_1.pth']


def test_what_slurm_does_not_queue_again(tmp_path):
    """A training that failed, or whose job was cancelled."""
    for name, text in dict(
        srun='#!/bin/bash\nexit $(cat "$FAKE/code")\n', scontrol=SCONTROL
    ).items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    env = dict(os.environ, PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}', FAKE=str(tmp_path))

    def run(*words, code=0, state='RUNNING', **more):
        (tmp_path / 'code').write_text(str(code))
        (tmp_path / 'state').write_text(state)
        done = subprocess.run(
            [TOOLS / 'slurm_requeue.sh', *words],
            env=dict(env, **more),
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.returncode, 'queued again' in done.stdout, done.stderr

    job = dict(SLURM_JOB_ID='42')
    assert run('config', code=75, **job)[:2] == (75, True)
    assert run('config', code=75, state='COMPLETING', **job)[:2] == (75, False)
    for code in (0, 1, 2, 137):
        assert run('config', code=code, **job)[:2] == (code, False)
    for words, given in ((['config'], {}), ([], job)):
        code, again, said = run(*words, **given)
        assert (code, again) == (2, False) and 'slurm_requeue.sh CONFIG' in said


def test_processes_wait_for_each_other_before_one_ends(tmp_path, monkeypatch):
    """torchrun kills the others when one ends, and the first has yet to note the checkpoint."""
    order = []
    monkeypatch.setattr(signals, 'barrier', lambda: order.append('barrier'))
    write, end = checkpoint.write_whole, StopOnSignal._end_run

    def note(path, *how):
        order.append(path.name)
        return write(path, *how)

    def leave(self, *how):
        order.append('end')
        end(self, *how)

    monkeypatch.setattr(checkpoint, 'write_whole', note)
    monkeypatch.setattr(StopOnSignal, '_end_run', leave)
    settings = noisy.config(tmp_path, epochs=1, interval=9)
    with pytest.raises(Stopped):
        noisy.train(with_hook(settings, 'Send', iteration=3, numbers=[signal.SIGTERM]))
    assert order == ['last_checkpoint', 'barrier', 'end']
