"""Every command and every example of README.md and docs/ is run.

Those of our commands that are slow but one are run by ``make test-all``; all are parsed by both.

A command that none of the rules below knows fails. Ours run by ``cli.main`` in a folder that holds
what their lines name (``DIR``, ``CHECKPOINT``, ``photos``), with settings that make models and
images small.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from helpers import fake_hub, tiny
from helpers.documents import PAGES, ROOT, Command, blocks, commands
from helpers.tiers import mark_slow
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope, Registry
from packaging.requirements import Requirement

import mmresnest
from mmresnest import registry
from mmresnest.analysis import benchmark
from mmresnest.cli import main
from mmresnest.cli.arguments import parse_cfg_options
from mmresnest.config.inspect import import_packages
from mmresnest.config.load import load_config
from mmresnest.config.shipped import shipped_configs
from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.data.shapes.drawing import CLASSES
from mmresnest.engine.prepare import configure
from mmresnest.inference import exported
from mmresnest.inference.page import server
from mmresnest.models.weights import hub
from mmresnest.tuning import training

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('unformatted')]
COMMANDS = commands()
NAMES = set(main.COMMANDS)
DETECTOR = 'faster_rcnn_resnest50_fpn'
PIXELS = '(64,64)'

#: path of a setting -> what makes it small
SMALL = {
    re.compile(path): value
    for path, value in {
        r'model\.backbone\.arch': 'resnest14',
        r'model\.neck\.in_channels': '[64,128,256,512]',  # of stages a quarter as wide
        r'model\.decode_head\.in_channels': '512',
        r'model\.auxiliary_head\.in_channels': '256',
        r'model\.(neck|\w+_head)\..*(in|out|feat)_channels': '16',
        r'model\.(decode|auxiliary)_head\.channels': '16',
        r'model\.data_preprocessor\.size': PIXELS,
        r'model\.(train|test)_cfg\..*nms_pre': '50',
        r'model\.(train|test)_cfg\..*max_per_img': '10',
        r'model\.train_cfg\.rcnn\..*sampler\.num': '8',
        r'\w+_dataloader\.num_workers': '0',
        r'\w+_dataloader\.persistent_workers': 'False',
        r'train_dataloader\.batch_size': '2',
        r'\w+_dataloader\.dataset\.pipeline\.\d+\.scales?': PIXELS,
        r'\w+_dataloader\.dataset\.pipeline\.\d+\.crop_size': PIXELS,
        r'\w+_dataloader\.dataset\.filter_cfg\.min_size': '1',
        r'train_cfg\.max_epochs': '1',
        r'train_cfg\.max_iters': '2',
        r'train_cfg\.val_interval': '1',
        r'custom_hooks\.\d+\.num_iters': '1',
    }.items()
}

#: what else makes a command small: of a config, or of all that are so called
SMALLER = {
    'mmdet::resnest/faster-rcnn_s50_fpn_syncbn-backbone+head_ms-range-1x_coco.py': [
        'model.backbone.depth=14'
    ],
    'cascade_mask_rcnn_res2net101_v1b_fpn': ['model.backbone.arch=res2net50_v1b_26w_4s'],
}
BRIEF = {
    'export': ['--part', 'backbone'],  # a whole detector takes half a minute to trace
    'benchmark': ['--sizes', '1x64x64', '--repeats', '1', '--forms', 'plain', 'lean'],
    'profile': ['--steps', '1'],
    'demo': ['--port', '0'],
    'make-shapes': ['--train', '2', '--val', '1', '--test', '0', '--size', '64', '64'],
}
STANDS_FOR = {
    # the masks of DIR are class indices, 0 to 6
    '0=background,255=object': '0=background,' + ','.join(f'{i}=object' for i in range(1, 7)),
    '0:0:0=background,128:0:0=plane,224:224:192=ignore': ','.join(
        f'{i}:{i}:{i}={"plane" if i else "background"}' for i in range(7)
    ),
    'CONFIG': DETECTOR,
    '...': DETECTOR,
    'FILE': 'FILE.json',
    'resnest50': 'resnest14',
    'WORK_DIR': f'work_dirs/{DETECTOR}',
}

#: our tools, and what they are told: what they do at length has tests of its own, or is CI
TOOLS = {
    'table.py': '--check',
    'zoo.py': '--check',
    'exports.py': '--help',
    'growth.py': '--help',
    'benchmark_kept.py': '--help',
    'measure_threads.py': '--help',
    'measure_archs.py': '--help',
    'measure_prediction.py': '--help',
    'scale.py': '--help',
    'formats.py': '--help',
    'first_model.py': '--help',
    'check_install.py': '--help',
}

#: what is only parsed here -> the test that does so at length
AT_LENGTH = {
    '--int8': 'export/test_export.py::test_int8_is_scored',
    '--model': 'export/test_export.py::test_predicts_without_torch_and_mm',
    '--detectors': 'analysis/test_benchmark_models.py::test_forms_of_a_model',
    '--runtime': 'export/test_runtime_maps.py::test_results_and_scores_are_equal',
    '--save-txt': 'inference/test_object_files.py::test_what_is_written',
    '--slice': 'inference/test_slicing.py::test_the_command',
    '--track': 'inference/test_tracking.py::test_identities_last',
}

#: programs that another line installs -> by which name
BY_PIP = {
    'csCreateTrainIdLabelImgs': 'cityscapesscripts',
    'pre-commit': 'pre-commit',
    'tensorboard': 'mmresnest[tensorboard]',
    'twine': 'twine',
}


@cache
def settings(config: str, demo: bool = False) -> list[str]:
    """The settings of SMALL that a config has, as they are typed."""
    found = []
    for path, value in leaves(configure(config, demo=demo).to_dict()):
        wanted = next((small for pattern, small in SMALL.items() if pattern.fullmatch(path)), None)
        if wanted is not None:
            pair = isinstance(value, list) and isinstance(value[0], (list, tuple))
            found.append(f'{path}={f"[{wanted},{wanted}]" if pair else wanted}')
    return [*found, 'model.backbone.init_cfg=None', 'model.backbone.base_channels=16']


def leaves(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Path and value of every setting."""
    rows = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node if isinstance(node, (list, tuple)) else ())
    )
    for key, value in rows:
        if isinstance(node, dict):
            yield f'{path}{key}', value
        yield from leaves(value, f'{path}{key}.')


# ---- a folder with all that is named -------------------------------------------------------------

few = partial(draw_dataset, train=4, val=2, test=2, size=(64, 64))


@pytest.fixture(scope='module', autouse=True)
def metafiles_read_once():
    """For each ``_base_`` of a package mmengine reads all metafiles of it, which takes a second."""
    from mmengine.config import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, 'load', cache(utils.load))
        yield


def close_loggers() -> None:
    """mmengine keeps loggers by name, with the file and the captured stream of their test."""
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
    MMLogger._instance_dict.clear()


@pytest.fixture(autouse=True)
def loggers_closed():
    """Each test has loggers of its own."""
    close_loggers()
    yield
    close_loggers()


@pytest.fixture(scope='module')
def workshop(tmp_path_factory) -> Path:
    """Data in all the places, images, a film, a network's checkpoint and a finished training."""
    folder = tmp_path_factory.mktemp('workshop')
    data = few(folder / 'DIR', progress=False)
    shutil.copytree(data, folder / 'drawn')
    shutil.copytree(data, folder / 'data' / 'shapes')
    as_coco(data, folder / 'data' / 'coco')
    as_ade20k(data, folder / 'data' / 'ade' / 'ADEChallengeData2016')
    shutil.copytree(data / 'val', folder / 'photos')
    picture = next((data / 'val').glob('*.jpg'))
    shutil.copy(picture, folder / 'street.jpg')
    (folder / 'more' / 'inner').mkdir(parents=True)
    cv2.imwrite(str(folder / 'more' / 'inner' / 'one.png'), cv2.imread(str(picture)))
    film = cv2.VideoWriter(str(folder / 'film.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 5, (64, 64))
    for _ in range(3):
        film.write(cv2.imread(str(picture)))
    film.release()
    torch.save(mmresnest.build_backbone('resnest14').state_dict(), folder / 'IN.pth')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert (
            main.main(['train', DETECTOR, '--data', 'DIR', '--cfg-options', *settings(DETECTOR)])
            == 0
        )
    runs = folder / 'work_dirs'
    for name in (f'{DETECTOR}_demo', 'other'):
        shutil.copytree(runs / DETECTOR, runs / name, copy_function=linked)
    return folder


def linked(source: str, target: str) -> None:
    """A copy; checkpoints, which are large and never written into, are the same file."""
    (os.link if source.endswith('.pth') else shutil.copy)(source, target)


def as_coco(data: Path, folder: Path) -> None:
    """Drawn data under COCO's names of files and classes."""
    from mmdet.datasets import CocoDataset

    (folder / 'annotations').mkdir(parents=True)
    names = [
        dict(id=number, name=name) for number, name in enumerate(CocoDataset.METAINFO['classes'], 1)
    ]
    for split in ('train', 'val'):
        shutil.copytree(data / split, folder / f'{split}2017')
        read = json.loads((data / f'{split}.json').read_text())
        for row in read['annotations']:
            x, y, width, height = row['bbox']
            row['segmentation'] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        (folder / 'annotations' / f'instances_{split}2017.json').write_text(
            json.dumps(dict(read, categories=names))
        )


def as_ade20k(data: Path, folder: Path) -> None:
    """Drawn data under ADE20K's names of folders."""
    for kind in ('images', 'annotations'):
        for split, name in (('train', 'training'), ('val', 'validation')):
            shutil.copytree(data / kind / split, folder / kind / name)


@pytest.fixture
def here(workshop, tmp_path, monkeypatch) -> Path:
    """A copy of the workshop, to work in."""
    folder = shutil.copytree(workshop, tmp_path / 'here', copy_function=linked)
    monkeypatch.chdir(folder)
    monkeypatch.setattr('mmresnest.deploy.keep_memory', lambda: None)  # of the whole process
    monkeypatch.setattr('mmresnest.data.shapes.dataset.draw_dataset', few)
    return folder


@pytest.fixture
def hub_server(monkeypatch):
    """A stand-in for the Hugging Face hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True)
    monkeypatch.setenv('HF_TOKEN', fake_hub.TOKEN)
    with fake_hub.serve() as server:
        monkeypatch.setenv('HF_ENDPOINT', server.address)
        yield server


# ---- commands ------------------------------------------------------------------------------------


def read_ours(command: Command) -> tuple[str, list[str]] | None:
    """Return the name and the words of a command of ours that is run; None for all others."""
    program, *words = command.words
    if Path(program).name in ('python', 'python3') and words[0].startswith('tools/'):
        name, *words = Path(words[0]).stem.replace('_', '-'), *words[1:]
        if name not in NAMES or not words:
            return None
    elif program == 'mmresnest':
        name, *words = words
    else:
        return None
    if name in ('test', 'export') and '...' in words:
        at = words.index('...')
        words[at : at + 1] = ['CONFIG', 'CHECKPOINT']
    is_name = not command.whole and name != 'doctor'  # of a command, in a sentence
    if words == ['--help'] or is_name and all(word.startswith('--') for word in words):
        return None
    return None if any(option in words for option in AT_LENGTH) else (name, words)


#: the shortest line of each of our commands
SHORTEST = {
    read_ours(command)[0]: command
    for command in sorted(COMMANDS, key=lambda command: -len(command.words))
    if read_ours(command)
}


def is_fast(command: Command) -> bool:
    return not read_ours(command) or SHORTEST[read_ours(command)[0]] == command


@pytest.mark.parametrize(
    'command', mark_slow(COMMANDS, is_fast), ids=lambda command: ' '.join(command.words)
)
def test_command(command, request, monkeypatch, tmp_path):
    for name, value in command.environment:
        monkeypatch.setenv(name, value)
    program, page = Path(command.words[0]).name, COMMANDS[command]
    if program.endswith('.sh'):
        return start(command, tmp_path)
    if program in BY_PIP:
        assert any(
            ['pip', 'install', BY_PIP[program]] == [Path(other.words[0]).name, *other.words[1:]]
            for other in COMMANDS
        )
        return None
    assert program in RULES, f'{page}: no rule of this test knows {" ".join(command.words)}'
    return RULES[program](command, request)


def test_our_commands_are_understood(tmp_path, monkeypatch):
    """Of every line: the command, its options, the config or the work folder."""
    monkeypatch.chdir(tmp_path)
    Path(STANDS_FOR['WORK_DIR']).mkdir(parents=True)  # a folder is what tells it from a config
    known = {*shipped_configs(), *STANDS_FOR}
    seen = set()
    for command in COMMANDS:
        if not read_ours(command):
            continue
        name, words = read_ours(command)
        seen.add(name)
        args = parsed(name, ['x' if word.startswith('$(') else meant(word) for word in words])
        config = getattr(args, 'config', None)
        assert (
            config is None
            or config in known
            or '::' in config
            or Path(config).exists()
            or config.endswith('.py')
            and not config.startswith(str(ROOT))
        ), command
    assert seen == set(SHORTEST) and len(seen) > 10


def ours(command: Command, request) -> None:
    """One of ``mmresnest``: it is run."""
    name, *words = command.words[1:]
    assert name in NAMES
    if read_ours(command):
        name, words = read_ours(command)
    if words == ['--help']:
        with pytest.raises(SystemExit) as ended:
            main.main([name, *words])
        assert ended.value.code == 0
        return
    if not command.whole and name != 'doctor' and all(word.startswith('--') for word in words):
        return  # the name of a command, in a sentence
    for option, test in AT_LENGTH.items():
        if option in words:
            assert parsed(name, words)
            file, _, name = test.partition('::')
            assert f'def {name}(' in (ROOT / 'tests' / file).read_text(encoding='utf-8')
            return
    if '--gpu-check' in words:
        assert parsed(name, words)  # test_gpu_check runs it, at toy sizes
        return
    here = request.getfixturevalue('here')
    words = [*map(meant, words), *BRIEF.get(name, ())]
    words = ['resnest14', *words] if name == 'benchmark' and 'resnest14' not in words else words
    args = parsed(name, words)
    if getattr(args, 'config', None) and not Path(args.config).is_dir():
        if '--epochs' in words:  # plain options say what the settings would
            for option, value in dict(epochs=1, batch_size=2, img_size=64).items():
                flag = '--' + option.replace('_', '-')
                if flag in words:
                    words[words.index(flag) + 1] = str(value)
        said = ('train_cfg.', 'train_dataloader.batch_size') if '--epochs' in words else ()
        words += [
            '--cfg-options',
            *(
                one
                for one in settings(args.config, getattr(args, 'demo', False))
                if not one.startswith(said)
            ),
            *SMALLER.get(args.config, ()),
        ]
        args = parsed(name, words)
    if 'checkpoint' in args and args.checkpoint and not Path(args.checkpoint).exists():
        write_weights(args, name)
    if name == 'make-shapes':
        shutil.rmtree(here / args.folder)
    if getattr(args, 'fix', None):
        spoil(here / args.data / 'train.json')
    begun = time.time()
    if name == 'sweep':  # how trainings are run is tested in tests/tuning/
        fake = ROOT / 'tests' / 'helpers' / 'fake_training.py'
        Path('pause').write_text('0')  # beside the config
        request.getfixturevalue('monkeypatch').setattr(
            training, 'PROGRAM', (sys.executable, str(fake))
        )
    if name == 'demo':  # what it serves is tested in tests/inference/test_page.py
        request.getfixturevalue('monkeypatch').setattr(
            server.PageServer, 'serve_forever', interrupt
        )
    if name in ('push', 'pull'):
        request.getfixturevalue('hub_server')
    if name == 'pull':
        assert main.main(['push', STANDS_FOR['WORK_DIR'], words[0]]) == 0
    status = main.main([name, *words])
    assert status == 0 or name in ('doctor', 'check-data') and status == 1
    check_result(name, args, begun)
    for attribute in ('out', 'json', 'fix', 'report', 'show_dir', 'target'):
        written = getattr(args, attribute, None)
        assert not isinstance(written, str) or Path(written).exists() or status == 1, written


def interrupt(server: object) -> None:
    """Do as the user who ends a server."""
    raise KeyboardInterrupt


def check_result(name: str, args: Namespace, begun: float) -> None:
    """What a command leaves in the folder holds what it is for."""

    def find(pattern: str) -> Path:
        files = [path for path in Path().rglob(pattern) if path.stat().st_mtime >= begun]
        assert files, pattern
        return max(files, key=lambda path: path.stat().st_mtime)

    if name == 'train':
        checkpoint = Path(find('last_checkpoint').read_text())
        weights = torch.load(checkpoint, weights_only=False)['state_dict'].values()
        assert all(value.isfinite().all() for value in weights if value.is_floating_point())
    if name == 'predict':
        table = Path(args.json or 'predictions.json')
        assert isinstance(json.loads(find(table.name).read_text()), list)
        assert json.loads(find(f'{table.stem}.images.json').read_text())
    if name == 'test' and args.out and args.out.endswith('.json'):
        assert isinstance(json.loads(Path(args.out).read_text()), list)
    if name == 'report':
        assert 'mAP' in find('*.html').read_text(encoding='utf-8')
    if name == 'sweep':
        assert 'finished' in find('table.csv').read_text()
    if name == 'convert':
        assert mmresnest.build_backbone('resnest14', pretrained=args.target)
    if name == 'make-shapes':
        assert len(json.loads((Path(args.folder) / 'train.json').read_text())['images']) == 2


def spoil(file: Path) -> None:
    """Gives annotations something to mend."""
    read = json.loads(file.read_text())
    read['annotations'].append(dict(read['annotations'][0], id=10**6, bbox=[5, 5, 0, 0]))
    file.write_text(json.dumps(read))


def parsed(name: str, words: Iterable[str]) -> Namespace:
    """What a command is told."""
    words = [name, *words]
    return main.build_parser(words).parse_args(words)


def meant(word: str) -> str:
    """What stands for a word of a line."""
    if word.startswith('configs/'):
        return str(ROOT / word)
    if match := re.fullmatch(r'\$\(cat (\S+)\)', word):
        return Path(match[1]).read_text().strip()
    if re.fullmatch(r'\w+(\|\w+)+', word):
        return word.partition('|')[0]
    return STANDS_FOR.get(word, word)


def write_weights(args: Namespace, command: str) -> None:
    """A checkpoint of the model that the line is about."""
    of_drawn = command == 'predict'  # whose checkpoint names the classes
    cfg = configure(
        args.config,
        cfg_options=parse_cfg_options(args.cfg_options),
        demo=args.demo,
        data='DIR' if of_drawn else args.data,
    )
    import_packages(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for node in (cfg.model, *cfg.model.values()):
            if isinstance(node, dict) and isinstance(node.get('norm_cfg'), dict):
                node.norm_cfg.type = 'BN'
        model = MODELS.build(cfg.model)
    meta = dict(dataset_meta=dict(classes=CLASSES)) if of_drawn else {}
    torch.save(dict(state_dict=model.state_dict(), meta=meta), args.checkpoint)


def python(command: Command, request) -> None:
    """``python tools/...``: the command of that name, or a script of its own; or a module."""
    path, *words = command.words[1:]
    if path == '-m':
        assert importlib.util.find_spec(words[0]) is not None
        return
    assert (ROOT / path).is_file()
    name = Path(path).stem.replace('_', '-')
    if name in NAMES:
        if words:
            ours(Command(command.environment, ('mmresnest', name, *words), True), request)
        return
    option = TOOLS[Path(path).name]
    # The first word may be a part of the script, with options of its own.
    part = [word for word in words[:1] if option == '--help' and word.isidentifier()]
    run = subprocess.run(
        [sys.executable, ROOT / path, *part, option], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    if option == '--help':
        assert all(word in run.stdout for word in words if word.startswith('--'))


def start(command: Command, folder: Path) -> None:
    """A script that starts processes: with a stand-in for Python, Slurm's srun and sbatch."""
    for name in ('python', 'srun'):
        (folder / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (folder / name).chmod(0o755)
    run = subprocess.run(
        [ROOT / command.words[0], *command.words[1:]],
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(
            os.environ,
            PYTHON=str(folder / 'python'),
            PATH=f'{folder}{os.pathsep}{os.environ["PATH"]}',
        ),
    )
    assert run.returncode == 0, run.stderr
    handed = run.stdout.splitlines()
    place = next(at for at, word in enumerate(handed) if re.search(r'tools/\w+\.py$', word))
    understood(Path(handed[place]).stem, handed[place + 1 :])


def understood(name: str, words: list[str]) -> None:
    """A command whose run would take GPUs: parsed, and its config found."""
    args = parsed(name, map(meant, words))
    assert load_config(args.config).model


def sbatch(command: Command, request) -> None:
    """A job of Slurm's, of which ``tests/engine/test_signals.py`` plays the cluster."""
    script, *words = [word for word in command.words[1:] if not word.startswith('--')]
    assert os.access(ROOT / script, os.X_OK)
    understood('train', words)


def pip(command: Command, request) -> None:
    """What it installs is ours, by an extra that exists, or named as pip wants it."""
    setup = (ROOT / 'setup.py').read_text(encoding='utf-8')
    action, *words = command.words[1:]
    assert action in ('install', 'uninstall')
    for option, word in zip(['', *words], words):
        if option == '-c':
            assert (ROOT / word).is_file()
        elif not word.startswith('-') and word != '.':
            wanted = Requirement(re.sub(r'^\.\[', 'mmresnest[', word).replace('X.Y.Z', '1.0'))
            assert all(f"'{extra}': [" in setup for extra in wanted.extras), word


def make(command: Command, request) -> None:
    """A target that there is; what it does at length runs elsewhere."""
    if shutil.which('make') is None:
        pytest.skip('there is no make')
    run = subprocess.run(
        ['make', '-n', *command.words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr


def git(command: Command, request) -> None:
    """In a repository of its own, with one to push to, after the lines of Git that stand before."""
    here = request.getfixturevalue('tmp_path')

    def run(*words: str) -> None:
        subprocess.run(
            ['git', '-c', 'user.name=a', '-c', 'user.email=a@b.c', *words],
            cwd=here,
            check=True,
            capture_output=True,
        )

    for words in (
        'init',
        'init --bare other',
        'remote add origin other',
        'commit --allow-empty -m one',
    ):
        run(*words.split())
    lines = [one for one in COMMANDS if one.words[0] == 'git' and one.whole]
    for one in lines[: lines.index(command) + 1]:
        run(*one.words[1:])


def ci(command: Command, request) -> None:
    """What CI runs."""
    script = ROOT / command.words[0]
    assert os.access(script, os.X_OK)
    assert subprocess.run(['bash', '-n', script]).returncode == 0


def mim(command: Command, request) -> None:
    """Of ``mim``, which CI has not: a command and a config that exist."""
    assert {*command.words[1].split('|')} <= {'train', 'test', 'download'}
    assert all((ROOT / 'configs' / word).is_file() for word in command.words[3:])


RULES = dict(
    mmresnest=ours,
    python=python,
    python3=python,
    sbatch=sbatch,
    pip=pip,
    make=make,
    git=git,
    mim=mim,
    run=ci,
)


def test_the_rules_refuse_what_they_should(request, here):
    for words in (
        ('mmresnest', 'trian', 'x'),
        ('mmresnest', 'test', DETECTOR, 'nowhere/x.pth'),
        ('pip', 'install', 'mmresnest[nothing]'),
        ('make', 'nothing'),
        ('python', 'tools/nothing.py'),
        ('mim', 'fly', 'mmresnest'),
    ):
        with pytest.raises((AssertionError, OSError, RuntimeError)):
            RULES[words[0]](Command((), words, True), request)


def test_forms_that_lines_measure_are_known():
    named = {
        form
        for one in COMMANDS
        if one.words[:2] == ('mmresnest', 'benchmark')
        for form in getattr(parsed(*one.words[1:2], one.words[2:]), 'forms', None) or ()
    }
    assert len(named) > 5 and named <= {*benchmark.FORMS}


# ---- examples in Python --------------------------------------------------------------------------

EXAMPLES = [
    (page, block)
    for page, text in PAGES.items()
    for language, block in blocks(text)
    if language == 'python'
]
IS_CONFIG = {block: 'import ' not in block for _, block in EXAMPLES}


def first_line(value: str) -> str:
    """An example's name."""
    return value.partition('\n')[0] if isinstance(value, str) else ''


@pytest.mark.parametrize(
    'page, block', [one for one in EXAMPLES if not IS_CONFIG[one[1]]], ids=first_line
)
def test_script(page, block, here, monkeypatch):
    monkeypatch.setattr(hub, 'fetch_published', lambda row: here / 'IN.pth')
    monkeypatch.setattr(hub, 'verify_hash', lambda *_: None)
    config = tiny.write(here, 'detection')
    if 'Predictor(' in block or 'ExportedModel(' in block:
        args = Namespace(
            config=str(config), cfg_options=[], data='DIR', demo=False, checkpoint='epoch_12.pth'
        )
        write_weights(args, 'predict')
        monkeypatch.setattr(
            exported,
            'ExportedModel',  # whose results are a Predictor's: tests/export/test_export.py
            lambda file, score_thr: mmresnest.Predictor(config, args.checkpoint, 'cpu', score_thr),
        )
    for name, stand_in in (
        (f"'{DETECTOR}'", repr(str(config))),
        ("'resnest50'", "'resnest14'"),
        ("'configs/", f"'{ROOT}/configs/"),
        ("hub.load('.'", f"hub.load('{ROOT}'"),
        ('224', '64'),
    ):
        block = block.replace(name, stand_in)
    exec(compile(block, page, 'exec'), {})


@pytest.mark.parametrize(
    'page, block', [one for one in EXAMPLES if IS_CONFIG[one[1]]], ids=first_line
)
def test_config(page, block, tmp_path):
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    path = tmp_path / 'configs' / 'example.py'
    path.write_text(block)
    cfg = Config.fromfile(path)
    named = re.findall(r"type='mmresnest\.(\w+)'", block)
    assert named or '_base_' in block
    known = {name for one in registries() for name in one.module_dict}
    assert set(named) <= known
    if 'model' in cfg:
        with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
            backbone = MODELS.build(cfg.model.backbone)
        assert type(backbone).__module__ == 'mmresnest.models.backbones'
        assert list(backbone.out_channels) == [256, 512, 1024, 2048]


def registries() -> list[Registry]:
    """Our own, filled."""
    found = [
        one
        for one in vars(registry).values()
        if isinstance(one, Registry) and one.scope == 'mmresnest'
    ]
    for one in found:
        one.import_from_location()
    return found
