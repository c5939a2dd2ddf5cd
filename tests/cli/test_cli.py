"""The command line: quick help, and one message with status 2 for everything a user can mend."""

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
from helpers import tiny
from helpers.errors import check_error, check_refused, refuses, run_refused

from mmresnest.cli import main as cli
from mmresnest.cli.arguments import parse_cfg_options, read_options
from mmresnest.cli.main import main
from mmresnest.config.options import PrintOptions, TestOptions, TrainOptions, read_help
from mmresnest.config.shipped import shipped_configs
from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.export.options import ExportOptions
from mmresnest.inference.options import PredictOptions
from mmresnest.models.variants import list_archs
from mmresnest.tuning.options import SweepOptions

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
DETECTOR = 'faster_rcnn_resnest50_fpn'
SEGMENTOR = 'deeplabv3_resnest50_ade20k'
OPTIONS = {
    'train': TrainOptions,
    'sweep': SweepOptions,
    'test': TestOptions,
    'predict': PredictOptions,
    'export': ExportOptions,
    'print-config': PrintOptions,
}
POSITIONAL = {
    'train': ['a'],
    'sweep': ['a'],
    'test': ['a', 'b'],
    'predict': ['a', 'b', 'c'],
    'export': ['a', 'b'],
    'print-config': ['a'],
}

# mmengine, mmdet and mmseg warn of their own future at every turn.
pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('fresh_logger')]


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    return str(draw_dataset(folder, train=4, val=2, test=0, size=(64, 64), progress=False))


def python(*args, **more):
    return subprocess.run(
        [sys.executable, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **more,
    )


# ---- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('command', ['', *cli.COMMANDS])
def test_help_loads_nothing_heavy(command):
    code = (
        'import sys\nfrom mmresnest.cli.main import main\n'
        'try: main(sys.argv[1:])\n'
        'finally: print(sorted({"torch", "numpy", "mmengine", "mmcv"} & set(sys.modules)))'
    )
    run = python('-c', code, *command.split(), '--help')
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith('usage: mmresnest') and run.stdout.rstrip().endswith('[]')


def test_help_is_there_at_once():
    """Beside what Python itself takes to start, so that a busy machine is no failure."""

    def seconds(*args):
        starts = []
        for _ in range(3):
            start = time.perf_counter()
            assert python(*args).returncode == 0
            starts.append(time.perf_counter() - start)
        return min(starts)

    assert seconds('-m', 'mmresnest.cli.main', '--help') < min(1, 20 * seconds('-c', 'pass'))


def test_scripts_need_no_installation(tmp_path):
    # -S and -I leave out site-packages and the current folder: only the script's own path remains.
    for script, command in dict(
        train='train',
        test='test',
        print_config='print-config',
        doctor='doctor',
        convert_checkpoint='convert',
        check_data='check-data',
        browse_data='browse-data',
        predict='predict',
    ).items():
        run = python('-I', '-S', TOOLS / f'{script}.py', '--help', cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        assert f'mmresnest {command}' in run.stdout


@pytest.mark.parametrize(
    'script, arguments',
    [
        ('dist_train', 'CONFIG PROCESSES'),
        ('dist_test', 'CONFIG CHECKPOINT PROCESSES'),
        ('slurm_train', 'PARTITION JOB_NAME CONFIG'),
        ('slurm_test', 'PARTITION JOB_NAME CONFIG CHECKPOINT'),
    ],
)
def test_shell_scripts_say_how_they_are_used(script, arguments):
    path = TOOLS / f'{script}.sh'
    assert os.access(path, os.X_OK)
    run = subprocess.run([path], capture_output=True, text=True, check=False)
    assert run.returncode == 2 and f'{script}.sh {arguments}' in run.stderr


def test_slurm_script_asks_for_what_it_was_given(tmp_path):
    fake = tmp_path / 'srun'
    fake.write_text('#!/bin/sh\necho "$MASTER_PORT" "$@"\n')
    fake.chmod(0o755)
    env = {
        **os.environ,
        'PATH': f'{tmp_path}:{os.environ["PATH"]}',
        'GPUS': '4',
        'PORT': '29507',
        'SRUN_ARGS': '--qos=high --time=5',
        'PYTHON': 'python3',
    }
    run = subprocess.run(
        [TOOLS / 'slurm_train.sh', 'gpu', 'name', 'a.py', '--amp'],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    for part in (
        '29507',
        '--partition=gpu',
        '--job-name=name',
        '--ntasks=4',
        '--ntasks-per-node=4',
        '--gres=gpu:4',
        '--qos=high --time=5',
        'tools/train.py a.py --launcher slurm --amp',
    ):
        assert part in run.stdout


# ---- what a user can mend ------------------------------------------------------------------------


def over(text):
    return f"_base_ = 'mmresnest::{DETECTOR}.py'\n{text}\n"


FILES = {
    'unparsable.py': 'model = dict(\n',
    'orphan.py': "_base_ = 'nowhere.py'\n",
    'arch.py': over("model = dict(backbone=dict(arch='resnest51'))"),
    'depth.py': over(
        "model = dict(backbone=dict(_delete_=True, type='mmresnest.ResNet', depth=51))"
    ),
    'keyword.py': over('model = dict(backbone=dict(radixx=2))'),
    'theirs.py': over('model = dict(neck=dict(num_out=5))'),
    'type.py': over("model = dict(backbone=dict(_delete_=True, type='mmresnest.ResNest'))"),
    'hook.py': over("custom_hooks = [dict(type='NumClassCheckHok')]"),
    'text.pth': 'weights, promised',
}


@pytest.mark.parametrize(
    'line, code, parts',
    [
        (
            f'train {DETECTOR}',
            'data.missing',
            ['data/coco/annotations/instances_train2017.json', 'cocodataset', '--data', '--demo'],
        ),
        (f'train {SEGMENTOR}', 'data.missing', ['ADEChallengeData2016', '--demo']),
        ('train nowhere.py', 'config.missing', ['nowhere.py']),
        (
            'train faster_rcnn_resnet50_fpn',
            'config.missing',
            ['nearest: ', 'faster_rcnn_resnest50_fpn'],
        ),
        ('train unparsable.py', 'config.unparsable', ['unparsable.py, line 1']),
        ('train orphan.py', 'config.base-missing', ['orphan.py, line 1', 'nowhere.py']),
        ('train arch.py --data SHAPES', 'argument.value', ['resnest51', 'nearest: resnest50']),
        ('train depth.py --data SHAPES', 'argument.value', ['depth=51', 'legal: 50, 101, 152']),
        ('train keyword.py --data SHAPES', 'argument.unknown', ["'radixx'", 'nearest: radix']),
        ('train theirs.py --data SHAPES', 'config.unbuildable', ["'num_out'", 'nearest: num_outs']),
        (
            'train type.py --data SHAPES',
            'config.type-unknown',
            ["'mmresnest.ResNest'", 'nearest: mmresnest.ResNeSt'],
        ),
        (
            'train hook.py --data SHAPES',
            'config.type-unknown',
            ["'NumClassCheckHok'", 'nearest: NumClassCheckHook'],
        ),
        (f'train {DETECTOR} --data nowhere', 'data.missing', ['nowhere', '--data']),
        (f'train {DETECTOR} --data nowhere --demo', 'data.missing', ['nowhere', '--data']),
        (f'train {DETECTOR} --data empty', 'data.no-annotations', ['empty', 'train.json']),
        (f'train {SEGMENTOR} --data empty', 'data.no-annotations', ['empty', 'images/train']),
        (
            f'train {DETECTOR} --data imageless',
            'data.image-missing',
            ['4 images', 'imageless/train/'],
        ),
        (f'train {DETECTOR} --data SHAPES --resume', 'resume.nothing', ['work_dirs', '--resume']),
        (
            f'train {DETECTOR} --data SHAPES --resume text.pth',
            'checkpoint.unreadable',
            ['text.pth'],
        ),
        (
            f'train {DETECTOR} --data SHAPES --launcher pytorch',
            'launcher.environment',
            ["'RANK'", 'torchrun'],
        ),
        (
            f'train {DETECTOR} --data SHAPES --cfg-options nonsense',
            'option.settings',
            ['nonsense', 'key=value'],
        ),
        (
            f'train {DETECTOR} --data SHAPES --cfg-options model.type.a.b=1',
            'option.settings',
            ['model.type.a.b', DETECTOR],
        ),
        (
            f'train {DETECTOR} --data SHAPES --work-dir text.pth/a',
            'file.unwritable',
            ['text.pth/a', '--work-dir'],
        ),
        (
            f'test {DETECTOR} nowhere.pth --data SHAPES',
            'checkpoint.missing',
            ['nowhere.pth', 'text.pth'],
        ),
        (f'test {DETECTOR} text.pth --data SHAPES', 'checkpoint.unreadable', ['text.pth']),
        ('print-config nowhere', 'config.missing', ['nowhere']),
        ('make-shapes SHAPES --layouts voc', 'option.unknown', ["'voc'", 'legal: coco']),
    ],
)
def test_one_message_and_status_2(shapes, tmp_path, monkeypatch, capsys, line, code, parts):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('RANK', raising=False)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'imageless').mkdir()
    for name in ('train.json', 'val.json'):
        (tmp_path / 'imageless' / name).write_bytes((Path(shapes) / name).read_bytes())

    error = run_refused([str(shapes) if word == 'SHAPES' else word for word in line.split()])
    check_error(error, code, *parts)
    out, err = capsys.readouterr()
    messages = [text for text in err.splitlines() if text.startswith('mmresnest: error: ')]
    assert messages == [f'mmresnest: error: {error}'], err
    assert 'Traceback' not in out + err


def test_debug_shows_the_traceback(capsys):

    with refuses('config.missing'):
        main(['print-config', 'nowhere', '--debug'])


def test_other_errors_keep_their_traceback(monkeypatch):
    def fail(*args, **more):
        raise ZeroDivisionError

    monkeypatch.setattr('mmresnest.engine.prepare.configure', fail)
    with pytest.raises(ZeroDivisionError):
        main(['print-config', DETECTOR])


def test_missing_package(monkeypatch):
    def fail(*args, **more):
        raise ModuleNotFoundError("No module named 'mmdet'", name='mmdet')

    monkeypatch.setattr('mmresnest.engine.prepare.configure', fail)
    check_refused(['print-config', DETECTOR], 'package.missing', "'mmdet'", 'pip install')


def test_interrupted(monkeypatch, capsys):
    def fail(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmresnest.engine.prepare.configure', fail)
    assert main(['print-config', DETECTOR]) == 130
    assert 'interrupted' in capsys.readouterr().err


@pytest.mark.parametrize(
    'line', ['', 'fly', 'train', f'train {DETECTOR} --launcher ray', f'test {DETECTOR}']
)
def test_lines_that_do_not_parse(line, capsys):
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    assert caught.value.code == 2 and 'usage: mmresnest' in capsys.readouterr().err


@pytest.mark.parametrize(
    'line, said',
    [
        ('trian x', "COMMAND: there is no 'trian'; nearest: train"),
        ('fly', "COMMAND: there is no 'fly'; legal: train, sweep, test, "),
        ('--verison', "no argument '--verison' here; nearest: --version"),
        ('train x --dta y', "mmresnest train: error: there is no argument '--dta' here; nearest:"),
        ('test x y --fast-evla', 'nearest: --fast-eval'),
        ('train x --data y z', "there is no argument 'z' here; --help lists all"),
        ('predict x y z --scorethr=1', "'--scorethr=1' here; nearest: --score-thr"),
        ('train x --launcher slrum', "--launcher: there is no 'slrum'; nearest: slurm"),
        ('benchmark --sizes 320x320', '320x320 is not batch x height x width, as 2x320x320'),
        ('train x --seed one', "--seed: invalid int value: 'one'"),
    ],
)
def test_what_is_nearest_to_a_mistyped_word(line, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    assert caught.value.code == 2 and said in capsys.readouterr().err


def test_list_finds_by_words(capsys):
    assert main(['list']) == 0
    everything = capsys.readouterr().out
    for name in (*shipped_configs(), *list_archs()):
        assert f'  {name} ' in everything
    assert main(['list', 'ResNeSt101', 'ade20k_mmseg']) == 0
    found = capsys.readouterr().out
    assert 'deeplabv3_resnest101_ade20k_mmseg' in found and 'mIoU 45.71' in found
    assert 'https://' in found and 'cityscapes' not in found and 'networks' not in found
    with refuses('option.unknown', 'resnst50', 'resnest50'):
        main(['list', 'resnst50', '--debug'])


@pytest.mark.parametrize(
    'option, said',
    [
        ('--weight-decay', 'optim_wrapper.optimizer.weight_decay'),
        ('--max_epochs=3', 'train_cfg.max_epochs'),
        ('--epoch-s', '--epochs'),
    ],
)
def test_options_of_other_tools(option, said, capsys):
    with pytest.raises(SystemExit):
        main(['train', 'x', option])
    assert said in capsys.readouterr().err


def test_a_missing_folder_is_refused_at_once(tmp_path):
    (tmp_path / 'datas').mkdir()
    code = (
        'import sys\nfrom mmresnest.cli.main import main\nstatus = main(sys.argv[1:])\n'
        'print(status, sorted({"torch", "numpy", "mmengine"} & set(sys.modules)))'
    )
    run = python('-c', code, 'train', DETECTOR, '--data', tmp_path / 'data')
    assert run.stdout.strip() == '2 []', run.stderr
    assert str(tmp_path / 'data') in run.stderr and 'nearest: datas' in run.stderr


def test_a_long_list_of_what_is_legal_is_cut_short():
    said = str(run_refused(['print-config', 'qqqq']))
    assert 'legal: cascade_mask_rcnn_res2net101_v1b_fpn, ' in said
    assert re.search(r', and \d+ more$', said.strip()) and said.count(',') < 20


# ---- what works ----------------------------------------------------------------------------------


def test_version(capsys):
    from mmresnest import __version__

    with pytest.raises(SystemExit) as caught:
        main(['--version'])
    assert caught.value.code == 0 and capsys.readouterr().out == f'mmresnest {__version__}\n'


def test_as_a_module():
    from mmresnest import __version__

    done = subprocess.run(
        [sys.executable, '-m', 'mmresnest', '--version'], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, f'mmresnest {__version__}\n'), done.stderr


@pytest.mark.parametrize(
    'program, name',
    [
        ('/a/bin/mmresnest', 'mmresnest'),
        ('/a/mmresnest/__main__.py', 'mmresnest'),
        ('tools/train.py', 'tools/train.py'),
        ('/a/other/__main__.py', '/a/other/__main__.py'),
    ],
)
def test_the_command_that_a_report_shows(program, name, monkeypatch):
    from mmresnest.engine.prepare import format_command

    monkeypatch.setattr(sys, 'argv', [program, 'train', 'my config.py'])
    assert format_command() == f"{name} train 'my config.py'"


@pytest.mark.parametrize(
    'line, kind, options, said',
    [
        (
            'export a b --to openvino --part whole --try c d',
            ExportOptions,
            ExportOptions(format='openvino', sample_images=['c', 'd']),
            ['--to is called --format', 'part whole is called part model', '--sample-images'],
        ),
        (
            'predict a b c --every=3 --no-pictures',
            PredictOptions,
            PredictOptions(vid_stride=3, vis=False),
            ['--every is called --vid-stride', '--no-pictures is called --no-vis'],
        ),
        (
            'train a --live wandb mlflow --accept-changes --keep-memory',
            TrainOptions,
            TrainOptions(logger=['wandb', 'mlflow'], allow_mismatch=True),
            ['--logger', '--allow-mismatch', '--no-malloc-trim'],
        ),
    ],
)
def test_former_names_of_options_do_what_they_did(line, kind, options, said, caplog):
    words = line.split()
    args = cli.build_parser(words).parse_args(words)
    assert read_options(args, kind) == options
    for part in said:
        assert sum(part in record.message for record in caplog.records) == 1, part


def test_former_names_are_not_shown(capsys):
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit):
            main([command, '--help'])
    words = set(re.findall(r'--[a-z-]+', capsys.readouterr().out))
    former = {'--live', '--accept-changes', '--keep-memory', '--every', '--no-pictures', '--try'}
    assert not former & words and {'--logger', '--vid-stride', '--num-images'} <= words


def test_every_option_of_a_command_is_a_field_with_a_description():
    for command, kind in OPTIONS.items():
        args = vars(cli.build_parser([command]).parse_args([command, *POSITIONAL[command]]))
        named = {one.name for one in fields(kind) if 'argument' in one.metadata}
        assert named <= set(args) and len(named) >= 6, command
        assert {one.name for one in fields(kind)} <= set(read_help(kind)), command
        assert read_options(argparse.Namespace(**args), kind) == kind(), command


def test_print_config(shapes, capsys):
    assert (
        main(
            [
                'print-config',
                DETECTOR,
                '--data',
                shapes,
                '--cfg-options',
                'train_cfg.max_epochs=3',
                'model.neck.in_channels=[1,2,3,4]',
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    for part in ('max_epochs=3', shapes, "type='mmresnest.ResNeSt'", '1,\n'):
        assert part in printed


def test_options_are_read_as_mmengine_reads_them():
    assert parse_cfg_options(['a.b=1', 'c=[1,2]', 'd=x', 'e=1e-3', 'f=None']) == {
        'a.b': 1,
        'c': [1, 2],
        'd': 'x',
        'e': 1e-3,
        'f': None,
    }


def test_draw_train_and_test(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = str(tiny.write(tmp_path, 'detection'))
    line = 'draw-data mine --train 2 --val 1 --test 1 --size 64 64 --layouts coco'
    assert main(line.split()) == 0
    assert 'drawn: mine' in capsys.readouterr().out
    assert (
        main(
            [
                'train',
                config,
                '--data',
                'mine',
                '--seed',
                '3',
                '--deterministic',
                '--cfg-options',
                'default_hooks.logger.interval=1',
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    for part in (
        'coco/bbox_mAP: ',
        'checkpoint: ',
        'epoch_1.pth',
        'predictions.png',
        'wall time: ',
    ):
        assert part in out
    checkpoint = tmp_path / 'work_dirs' / 'tiny_detection' / 'epoch_1.pth'
    assert main(['test', config, str(checkpoint), '--data', 'mine', '--out', 'found.json']) == 0
    out = capsys.readouterr().out
    assert 'coco/bbox_mAP: ' in out and 'written: found.json' in out
    assert (tmp_path / 'found.json').is_file()
