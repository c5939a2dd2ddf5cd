"""Sweeps: what is varied, which trials run and which are ended, and what is left of them.

Trainings are a stand-in that takes a fraction of a second (``helpers/fake_training.py``) except in
the last test.
"""

import csv
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import fake_training, tiny
from helpers.errors import refuses

from mmresnest.cli.arguments import read_options
from mmresnest.cli.main import build_parser, main
from mmresnest.config.options import TrainOptions
from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.report.sweep import TrialRow, rank_trials
from mmresnest.tuning import space, training
from mmresnest.tuning import sweep as sweeps
from mmresnest.tuning.sweep import choose_environment, sweep
from mmresnest.utils import threads

pytestmark = pytest.mark.filterwarnings('ignore')
FAKE = Path(__file__).parents[1] / 'helpers' / 'fake_training.py'


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sweep')
    (folder / 'pause').write_text('0.02')
    draw_dataset(folder / 'DIR', train=4, val=2, test=0, size=(64, 64), progress=False)
    return tiny.write(folder, 'detection')


@pytest.fixture
def fake(monkeypatch, tmp_path):
    monkeypatch.setattr(training, 'PROGRAM', (sys.executable, str(FAKE)))
    monkeypatch.setattr(sweeps, 'POLL', 0.02)
    monkeypatch.setattr(training, 'ENDED', 0.02)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pause(config):
    """Sets how many seconds pass between validations."""
    yield lambda seconds: (config.parent / 'pause').write_text(str(seconds))
    (config.parent / 'pause').write_text('0.02')


def run(config, *over, folder='W', **more):
    given = dict(data=config.parent / 'DIR', work_dir=folder, over=over, pruner='none')
    return sweep(config, **{**given, **more})


def read_table(folder='W'):
    with open(Path(folder) / 'table.csv', newline='') as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    'text, expected',
    [
        ('lr=1e-4..1e-1:log', space.Parameter('lr', (), 1e-4, 0.1, True, False)),
        ('--lr=.1..0.5', space.Parameter('lr', (), 0.1, 0.5)),
        ('epochs=5..20', space.Parameter('epochs', (), 5, 20, False, True)),
        ('seed=0..123456', space.Parameter('seed', (), 0, 123456, False, True)),
        ('batch-size=4,8', space.Parameter('batch_size', ('4', '8'))),
        ('a.b=1..3:log', space.Parameter('a.b', (), 1, 3, True, True)),
        ('a.b=1..3.0', space.Parameter('a.b', (), 1, 3)),
        (
            'a.steps=[8,11],[16,22],(1,2)',
            space.Parameter('a.steps', ('[8,11]', '[16,22]', '(1,2)')),
        ),
        ('load-from=../a.pth,b.pth', space.Parameter('load_from', ('../a.pth', 'b.pth'))),
        ('amp=true,false', space.Parameter('amp', ('true', 'false'))),
    ],
)
def test_what_is_varied_is_read(text, expected):
    assert space.parse_parameter(text) == expected


@pytest.mark.parametrize(
    'texts, parts',
    [
        ([], ['--over']),
        (['lr'], ['KEY=VALUES']),
        (['lr='], ['KEY=VALUES']),
        (['lrr=1,2'], ['nearest: lr']),
        (['data=a,b'], ['data']),
        (['lr=1e-2..1e-4'], ['from low to high']),
        (['lr=0..1:log'], ['above 0']),
        (['lr=a..b'], ['no range']),
        (['lr=a,b'], ['no number']),
        (['epochs=1..2.5'], ['whole numbers']),
        (['arch=1..2'], ['list of values']),
        (['augment=light,storng'], ['nearest: strong']),
        (['amp=yes,no'], ['true']),
        (['lr=1,,2'], ['empty']),
        (['lr=1,1'], ['twice']),
        (['lr=1,2', 'lr=3,4'], ['twice']),
    ],
)
def test_what_cannot_be_varied_is_refused(texts, parts):
    with refuses('sweep.over', *parts):
        space.parse_space(texts)


def test_a_command_line_says_what_the_options_say():
    options = TrainOptions(
        data='my data', amp=True, logger=['wandb', 'mlflow'], workers=0, cfg_options={'a.b': [1, 2]}
    )
    words = space.spell_options(options)
    args = build_parser(['train', 'c', *words]).parse_args(['train', 'c', *words])
    assert read_options(args, TrainOptions) == options
    for value in ({'a': 1}, 'x,y', 'two words', '7', ['a b']):  # read as something else
        with refuses('option.settings'):
            space.spell_setting(value)


def test_lists_are_gone_through_once_each(config, fake):
    result = run(config, 'lr=0.1,0.2', 'augment=none,light', trials=9)
    rows = read_table()
    assert [row['state'] for row in rows] == ['finished'] * 4
    assert {(row['lr'], row['augment']) for row in rows} == {
        (lr, augment) for lr in ('0.1', '0.2') for augment in ('none', 'light')
    }
    scores = [float(row['coco/bbox_mAP']) for row in rows]
    assert scores == pytest.approx([1.0, 0.5, 0.1, 0.05])
    assert result.best.values == {'lr': '0.2', 'augment': 'light'}
    words = shlex.split(result.command)
    assert words[:3] == ['mmresnest', 'train', str(config)] and '--seed' in words
    assert words[-4:] == ['--lr', '0.2', '--augment', 'light']
    # the state of the best alone is kept, and its report is linked where there is one
    assert {path.parent.name for path in Path('W').rglob('*.pth')} == {str(result.best.number)}
    page = result.page.read_text(encoding='utf-8')
    assert 'All trials, best first' in page and 'scores-by-trial' in page

    # The same again has nothing left to do; other values are another sweep.
    before = sorted(Path('W/trials').rglob('starts'))
    starts = [path.read_text() for path in before]
    again = run(config, 'lr=0.1,0.2', 'augment=none,light', trials=9)
    assert again.trials == result.trials
    assert [path.read_text() for path in before] == starts and len(starts) == 4
    with refuses('sweep.other', '--over', 'W'):
        run(config, 'lr=0.1,0.3', 'augment=none,light')


def test_ranges_draw_others_each_time_and_go_on(config, fake):
    run(config, 'lr=1e-3..1e-1:log', trials=2)
    result = run(config, 'lr=1e-3..1e-1:log', trials=5)
    drawn = [float(row.values['lr']) for row in result.trials]
    assert len(set(drawn)) == 5 and all(1e-3 <= value <= 1e-1 for value in drawn)
    assert [row.number for row in rank_trials(result.trials)] != [0, 1, 2, 3, 4]
    # and the same ones for the same seed
    again = run(config, 'lr=1e-3..1e-1:log', trials=2, folder='V')
    assert {row.number: row.values for row in again.trials} == {
        row.number: row.values for row in result.trials if row.number < 2
    }


def test_hopeless_trials_are_ended(config, fake, pause):
    pause(0.3)
    result = run(config, 'lr=0.3,0.2,0.1,0.01,0.02', pruner='median', trials=5)
    states = {row.values['lr']: row.state for row in result.trials}
    pruned = [row for row in result.trials if row.state == 'pruned']
    assert pruned and all(len(row.scores) < fake_training.VALIDATIONS for row in pruned)
    assert all(row.reason == f'after validation {len(row.scores)}' for row in pruned)
    assert states[result.best.values['lr']] == 'finished'
    assert not [path for row in pruned for path in (Path('W') / row.folder).glob('*.pth')]


def test_a_trial_that_fails_does_not_end_the_sweep(config, fake):
    result = run(config, 'batch-size=2,3,4')
    reasons = {row.values['batch-size']: (row.state, row.reason) for row in result.trials}
    assert reasons == {
        '2': ('finished', ''),
        '3': ('failed', 'the data folder is not what it was'),
        '4': ('finished', ''),
    }


def test_where_all_fail_the_cause_is_said_and_the_next_call_begins_anew(config, fake):
    with refuses('sweep.failed', 'the data folder is not what it was', 'log.txt'):
        run(config, 'lr=1e-3..1e-1', trials=8, batch_size=3)
    rows = read_table()
    assert len(rows) == sweeps.ALIKE and {row['state'] for row in rows} == {'failed'}
    with refuses('sweep.failed'):
        run(config, 'lr=1e-3..1e-1', trials=2, batch_size=3)
    assert len(read_table()) == 2


def test_a_score_that_is_not_computed_ends_it_at_once(config, fake):
    with refuses('sweep.failed', 'coco/bbox_mAP'):
        run(config, 'lr=1e-3..1e-1', trials=8, metric='bbox_mAPP')
    assert len(read_table()) == 1


@pytest.mark.parametrize(
    'more, code, parts',
    [
        (dict(over=['lr=0..1']), 'option.value', ['lr']),
        (dict(lr=0.1), 'option.conflict', ['lr']),
        (dict(trials=0), 'option.value', ['--trials']),
        (dict(timeout=-1.0), 'option.value', ['--timeout']),
        (dict(over=['arch=resnest50,resnest51']), 'argument.value', ['resnest51']),
        (dict(over=['train_cfg.max_epoch=1,2']), 'option.unread', ['max_epochs']),
        (dict(data='nowhere'), 'data.missing', ['nowhere']),
    ],
)
def test_nothing_is_written_where_no_trial_could_run(config, fake, more, code, parts):
    with refuses(code, *parts):
        run(config, *more.pop('over', ['lr=0.1,0.2']), **more)
    assert not Path('W').exists()


def test_an_interrupted_sweep_goes_on_with_the_same_trial(config, fake, pause):
    pause(0.4)
    result = run(config, 'lr=0.1,0.2', timeout=0.9)
    pause(0.02)
    assert result.stopped == '--timeout' and result.best is None
    first = result.trials[0]
    assert (first.number, first.state) == (0, 'interrupted')
    result = run(config, 'lr=0.1,0.2')
    assert result.stopped == '' and [row.state for row in result.trials] == ['finished'] * 2
    assert {row.number: row.values for row in result.trials}[0] == first.values
    starts = Path('W/trials/0/starts').read_text().splitlines()
    assert len(starts) == 2 and starts[0] == starts[1]
    assert all(len(row.scores) == fake_training.VALIDATIONS for row in result.trials)


def test_two_trainings_at_once(config, fake):
    result = run(config, 'lr=0.1,0.2,0.3,0.4', jobs=2)
    assert len(result.trials) == 4


def test_trainings_at_once_share_gpus_and_cores(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,5')
    assert [choose_environment(slot, 3) for slot in range(3)] == [
        {'CUDA_VISIBLE_DEVICES': name} for name in '252'
    ]
    assert choose_environment(0, 1) == {}
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    for name in (*threads.COUNTS, threads.CHOSEN):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, 'count_cores', lambda processors: 8)
    monkeypatch.setattr(threads, 'read_quota', lambda: 100.0)
    part = dict.fromkeys(threads.COUNTS, '2')
    assert choose_environment(1, 3) == {**part, threads.CHOSEN: ''}
    # What this process has chosen for itself is not the user's; its trainings would drop the part.
    monkeypatch.setenv('OMP_NUM_THREADS', '8')
    monkeypatch.setenv('GOMP_SPINCOUNT', '0')
    monkeypatch.setenv(threads.CHOSEN, 'OMP_NUM_THREADS GOMP_SPINCOUNT')
    assert choose_environment(1, 3) == {**part, threads.CHOSEN: 'GOMP_SPINCOUNT'}
    monkeypatch.delenv(threads.CHOSEN)
    assert choose_environment(1, 3) == {}


def test_a_study_that_is_broken_is_named(config, fake):
    Path('W').mkdir()
    Path('W/study.journal').write_text('{"no journal": 1}\n{}\n')
    with refuses('sweep.study', 'study.journal'):
        run(config, 'lr=0.1,0.2')


def test_names_are_escaped_on_the_page(config, fake):
    row = TrialRow(0, 'failed', None, {'lr': '<b>'}, [], 1.0, '<script>', 'trials/0')
    from mmresnest.report.page import render_sections
    from mmresnest.report.sections import Table
    from mmresnest.report.sweep import build_sections

    text = render_sections(
        't', '', [], build_sections([row], {'lr': 'category'}, 's', Path()), Table('f', [''], [])
    )
    assert '&lt;b&gt;' in text and '&lt;script&gt;' in text and '<td><script>' not in text


@pytest.mark.slow
def test_a_signal_saves_what_runs_and_real_trainings_are_scored(config, tmp_path):
    """The command, with trainings as they are: interrupted, and continued to its end."""
    command = [sys.executable, '-m', 'mmresnest', 'sweep', config, '--data', config.parent / 'DIR']
    command += ['--over', 'lr=1e-3,1e-2', '--epochs', '3', '--work-dir', tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not list(tmp_path.glob('trials/0/epoch_1.pth')):
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 75
    assert [row['state'] for row in read_table(tmp_path)] == ['interrupted']
    assert main([str(word) for word in command[3:]]) == 0
    assert [row['state'] for row in read_table(tmp_path)] == ['finished'] * 2
    assert (tmp_path / 'trials/0/report.html').is_file()
