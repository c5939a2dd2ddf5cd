"""The bar of a training or test: on a terminal, beside the log, and nowhere else."""

import io
import os
import re
import struct
import subprocess
import sys
from types import SimpleNamespace

import pytest
from helpers.processes import HELPERS

from mmresnest.cli import main
from mmresnest.engine.hooks import progress_bar as hooks
from mmresnest.engine.hooks.progress_bar import Pace, ProgressBar
from mmresnest.errors import UserError
from mmresnest.utils import console
from mmresnest.utils.console import BarState

WATCHED = HELPERS / 'watched.py'
CONTROL = re.compile(r'\x1b\[[\d;?]*[A-Za-z]')
BAR = '{} +[\u2501\u2578\u257a]+ +{}'  # as rich draws it: a title, the bar, the count


def on_a_terminal(process, columns=90):
    """What a process writes to a terminal that is its own; ``process`` starts it."""
    fcntl, termios = pytest.importorskip('fcntl'), pytest.importorskip('termios')
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 30, columns, 0, 0))
    running = process(stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b''
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so that nobody writes any more
            part = b''
        if not part:
            break
        said += part
    os.close(ours)
    assert running.wait(60) == 0, said.decode()
    return said.decode()


@pytest.fixture(scope='module')
def said(tmp_path_factory):
    """What the trainings of watched.py print: to a pipe, and to a terminal."""
    folder = tmp_path_factory.mktemp('watched')
    environment = {key: value for key, value in os.environ.items() if key != 'NO_COLOR'}
    environment.update(TERM='xterm', COLUMNS='', OMP_NUM_THREADS='1', PYTHONIOENCODING='utf-8')

    def process(name, **streams):
        return subprocess.Popen(
            [sys.executable, str(WATCHED), str(folder / name)], env=environment, **streams
        )

    plain = process(
        'plain', stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding='utf-8'
    )
    watched = on_a_terminal(lambda **streams: process('watched', **streams))
    out = plain.communicate(timeout=120)[0]
    assert plain.returncode == 0, out
    return out, watched


def frames(watched, name):
    """The rows of bars of one of the trainings, as they were drawn."""
    part = watched.partition(f'begins {name}')[2].partition(f'result {name}')[0]
    return [row for row in re.split(r'[\r\n]+', CONTROL.sub('', part)) if '\u2501' in row]


def logged(text):
    """The log, but for its numbers; each line from its beginning, as the terminal shows it."""
    text = CONTROL.sub('', text).replace('\r\n', '\n').replace('to stderr', '')
    lines = [line.rpartition('\r')[2] for line in text.split('\n')]
    return [
        re.sub(r'[\d.]+(e-\d+)?', '0', line).replace('/watched/', '/plain/')
        for line in lines
        if ' - mmengine - ' in line
    ]


@pytest.mark.slow
def test_the_bar_says_how_far_how_long_how_fast_and_how_good(said):
    rows = frames(said[1], 'whole')
    whole = (
        BAR.format(r'training', r'(\d+)/10') + r' +\d:\d\d:\d\d left, [\d.e+]+ img/s, mIoU 0\.\d+ *'
    )
    found = [match for row in rows if (match := re.fullmatch(whole, row))]
    assert found and max(len(row) for row in rows) <= 90
    assert any(re.fullmatch(BAR.format('training', '0/10') + ' *', row) for row in rows)
    assert any(
        re.match(BAR.format('validation', r'\d/6') + r' +0:00:0\d left, [\d.e+]+ img/s', row)
        for row in rows
    )
    assert any(re.search('6/6 +scoring', row) for row in rows)
    assert any(row.startswith('epoch 1 of 2') for row in frames(said[1], 'epochs'))


@pytest.mark.slow
def test_a_run_that_goes_on_shows_where_it_is_and_its_score(said):
    shown = BAR.format('training', '6/10') + r' +mIoU 0\.\d+ *'
    assert re.fullmatch(shown, frames(said[1], 'resumed')[0])


@pytest.mark.slow
def test_the_log_is_whole_and_the_same(said):
    plain, watched = map(logged, said)
    assert watched == plain and len(plain) > 60
    text = CONTROL.sub('', said[1])
    assert text.count('a long line ' + '*' * 300 + ' its end\r\n') == 4
    assert len(re.findall(r'\rprinted amid an iteration\r$', text, re.MULTILINE)) == 4
    assert len(re.findall(r'\rto stderr\r?$', text, re.MULTILINE)) == 4  # without a line's end


@pytest.mark.slow
def test_whatever_ends_a_run_takes_the_bar_away(said):
    for name in ('whole', 'failed', 'resumed', 'epochs'):
        before, _, after = said[1].partition(f'result {name}')
        assert before.rpartition('\x1b[?25')[2].startswith('h')  # the cursor is shown
        assert '\u2501' not in after.partition('begins')[0]


@pytest.mark.slow
def test_training_is_the_same_to_the_bit(said):
    results = [
        re.findall(r'result (.+?)\r?$', CONTROL.sub('', text), re.MULTILINE) for text in said
    ]
    assert results[0] == results[1]
    whole, failed, resumed, epochs = (line.split() for line in results[0])
    assert failed[1] == 'ZeroDivisionError' and epochs[1] == 'Stopped'
    assert resumed[1:] == whole[1:]


@pytest.mark.slow
def test_without_a_terminal_nothing_moves_a_cursor(said):
    assert '\x1b' not in said[0] and '\r' not in said[0] and '\u2501' not in said[0]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    'out, err, kind, watched',
    [
        (Terminal, Terminal, 'xterm', True),
        (Terminal, Terminal, 'dumb', False),
        (io.StringIO, Terminal, 'xterm', False),
        (Terminal, io.StringIO, 'xterm', False),
    ],
)
def test_what_is_a_terminal(monkeypatch, out, err, kind, watched):
    monkeypatch.setattr(sys, 'stdout', out())
    monkeypatch.setattr(sys, 'stderr', err())
    monkeypatch.setenv('TERM', kind)
    assert console.is_terminal() is watched


@pytest.mark.parametrize('first, terminal', [(True, False), (False, True)])
def test_the_hook_does_nothing_where_nobody_watches(monkeypatch, first, terminal):
    monkeypatch.setattr(hooks, 'is_main_process', lambda: first)
    monkeypatch.setattr(hooks, 'is_terminal', lambda: terminal)
    monkeypatch.setattr(hooks, 'RunBars', None)
    bar, runner = (
        ProgressBar(),
        SimpleNamespace(train_loop=None, val_dataloader=[], test_dataloader=[]),
    )
    bar.before_train(runner)
    bar.before_train_epoch(runner)
    bar.after_train_iter(runner, 0)
    bar.before_val(runner)
    bar.after_val_iter(runner, 0, outputs=[1])
    bar.after_val(runner)
    bar.before_test(runner)
    bar.after_test_iter(runner, 0, outputs=[1])
    bar.after_test(runner)
    bar.after_train(runner)
    assert bar.bars is None


def show_on(monkeypatch, columns, *states):
    """What bars of these states write to a terminal of so many columns."""
    stream = Terminal()
    for name in ('stdout', 'stderr'):
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setenv('COLUMNS', str(columns))
    monkeypatch.setenv('TERM', 'dumber')
    bars = console.RunBars([])
    assert sys.stdout is not stream
    for number, state in enumerate(states):
        bars.show(str(number), state)
    bars.close()
    assert sys.stdout is stream and sys.stderr is stream
    return stream.getvalue()


@pytest.mark.parametrize('columns, length', [(90, 40), (60, 21), (46, 7)])
def test_a_bar_takes_what_its_texts_leave(monkeypatch, columns, length):
    said = show_on(monkeypatch, columns, BarState('training', 3, 10, '0:00:07 left, [2] img/s'))
    row = next(row for row in re.split(r'[\r\n]+', CONTROL.sub('', said)) if '3/10' in row)
    assert len(row) <= columns and row.startswith('training ') and '[2] img/s' in row
    assert sum(letter in '\u2501\u2578\u257a' for letter in row) == length


def test_a_bar_of_no_steps(monkeypatch):
    assert '0/0' in show_on(monkeypatch, 60, BarState('empty', 0, 0))


def test_rests_are_no_part_of_the_pace(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(hooks.time, 'monotonic', lambda: now[0])
    pace = Pace()
    for rest in (0, 100, 0):
        now[0] += rest
        pace.restart()
        now[0] += 2
        pace.step()
    assert pace.format_rate(left=30, images=8) == '0:01:00 left, 4 img/s'


def test_forked_processes_write_past_the_bar():
    code = """
import multiprocessing, sys
from mmresnest.utils.console import BarState, RunBars

def work():
    print('of a worker', flush=True)
    sys.stderr.write('its error\\n')

bars = RunBars([])
bars.show('one', BarState('training', 3, 10, 'note'))
worker = multiprocessing.get_context('fork').Process(target=work)
worker.start()
worker.join()
print('of the parent')
bars.close()
print('after it')
"""
    environment = dict(os.environ, TERM='xterm', COLUMNS='', PYTHONIOENCODING='utf-8')
    environment.pop('NO_COLOR', None)
    text = on_a_terminal(
        lambda **streams: subprocess.Popen([sys.executable, '-c', code], env=environment, **streams)
    )
    before, _, after = text.partition('of a worker')
    theirs, _, rest = after.partition('of the parent')
    assert CONTROL.sub('', theirs).strip() == 'its error'  # no bar of theirs
    assert '3/10' in before and '3/10' in rest
    assert '3/10' not in rest.partition('after it')[2]


@pytest.mark.parametrize('command', ['train config', 'test config checkpoint'])
def test_the_switch(monkeypatch, command):
    seen = []
    module = f'mmresnest.engine.{command.split()[0]}'

    def run(*given):
        (options,) = [one for one in given if hasattr(one, 'progress')]
        seen.append(options.progress)
        raise UserError('enough')

    monkeypatch.setattr(f'{module}.{command.split()[0]}', run)
    assert main.main(command.split()) == main.main([*command.split(), '--no-progress']) == 2
    assert seen == [True, False]
