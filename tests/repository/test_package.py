"""What is shipped: versions that agree, files that are there, a Makefile that says what lacks."""

import ast
import configparser
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import mmresnest

ROOT = Path(__file__).resolve().parents[2]
STACKS = ('onedl', 'openmmlab')


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding='utf-8')


def run(*command: object, **options: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300, **options
    )


# Versions and names ------------------------------------------------------------------------------


def test_all_places_name_the_same_version():
    assert re.fullmatch(r'\d+\.\d+\.\d+', mmresnest.__version__)
    cited = re.search(r'^version: (\S+)$', read('CITATION.cff'), re.M).group(1)
    newest = re.findall(r'^## \[(\d\S*)\]', read('CHANGELOG.md'), re.M)[0]
    assert cited == newest == mmresnest.__version__


def test_the_licence_is_the_one_that_is_named():
    text = read('LICENSE')
    assert 'Apache License' in text and 'Version 2.0, January 2004' in text
    assert 'The mmresnest authors' in text and '[yyyy]' not in text
    assert 'license: Apache-2.0' in read('CITATION.cff')


def test_every_paper_of_a_block_is_cited():
    for paper in ('2004.08955', '1904.01169', '1709.01507', '1611.05431'):
        assert f'arXiv:{paper}' in read('CITATION.cff')


def test_lazy_attributes_are_there_and_unknown_ones_are_not():
    assert callable(mmresnest.build_backbone) and callable(mmresnest.list_archs)
    assert {'build_backbone', 'list_archs', '__version__'} <= set(dir(mmresnest))
    with pytest.raises(AttributeError, match='no_such_name'):
        mmresnest.no_such_name  # noqa: B018


def test_what_a_release_takes_is_there():
    text = read('RELEASING.md')
    goals = re.search(r'^\.PHONY: (.*)$', read('Makefile'), re.M).group(1).split()
    named = re.findall(r'\bmake ([\w-]+)', text)
    assert len(named) > 3 and set(named) <= set(goals)
    files = re.findall(r'(?:tools|tests|mmresnest|\.ci)/[\w./]+', text)
    assert len(files) > 4 and not [name for name in files if not (ROOT / name).is_file()]
    for script, option in re.findall(r'python (tools/\w+\.py) .*?(--\w+)', text):
        assert f"'{option}'" in read(script), (script, option)


# What is required --------------------------------------------------------------------------------


def pins(stack: str) -> dict[str, Requirement]:
    """Distribution -> what constraints/ holds it at."""
    lines = [
        line
        for line in read(f'constraints/{stack}.txt').splitlines()
        if line and not line.startswith('#')
    ]
    return {re.sub('[-_.]+', '-', pin.name).lower(): pin for pin in map(Requirement, lines)}


def requirements(metadata: Message, extra: str = '') -> list[Requirement]:
    """The requirements of the package alone, or those that an extra adds."""
    found = [Requirement(text) for text in metadata.get_all('Requires-Dist')]
    return [
        one for one in found if (one.marker.evaluate({'extra': extra}) if one.marker else not extra)
    ]


@pytest.mark.slow
@pytest.mark.parametrize('stack', STACKS)
def test_what_was_tested_lies_in_the_ranges_that_are_supported(stack, metadata):
    held = pins(stack)
    for wanted in (
        *requirements(metadata),
        *requirements(metadata, stack),
        *requirements(metadata, 'dev'),
    ):
        pin = held[re.sub('[-_.]+', '-', wanted.name).lower()]
        [specifier] = pin.specifier
        assert specifier.operator == '==' and wanted.specifier.contains(specifier.version), wanted


def test_a_platform_is_not_pinned():
    assert not re.search(r'==\S*\+', ''.join(read(f'constraints/{stack}.txt') for stack in STACKS))


@pytest.mark.slow
def test_no_mm_library_is_required_without_being_asked_for(metadata):
    assert {one.name for one in requirements(metadata)} == {'torch', 'numpy'}
    names = {stack: {one.name for one in requirements(metadata, stack)} for stack in STACKS}
    assert names['onedl'] and names['openmmlab'] and not names['onedl'] & names['openmmlab']
    assert metadata['Requires-Python'] == '>=3.10'


def test_nothing_is_imported_that_neither_we_nor_a_stack_brings():
    brought = {
        'torch',
        'numpy',
        'mmengine',
        'mmcv',
        'mmdet',
        'mmseg',
        'mmresnest',
        'cv2',
        'PIL',
        'matplotlib',
        'pycocotools',
        'tqdm',
        'rich',
        'yaml',
        'filelock',  # of torch
    }
    optional = {
        'torchvision',
        'safetensors',
        'IPython',
        'faster_coco_eval',
        'timm',
        'onnxruntime',
        'openvino',
        'plotly',
        'httpx2',  # of huggingface_hub
        'huggingface_hub',
        'jinja2',
        'optuna',
        'supervision',
        'shtab',
        'wandb',
        'mlflow',
        'onnx',
        'onnxscript',
        'nncf',
        'markupsafe',
    }  # asked for only where they are there
    for path in (ROOT / 'mmresnest').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            for name in names:
                name = name.partition('.')[0]
                assert name in brought | optional | set(sys.stdlib_module_names), (path, name)


# What is built -----------------------------------------------------------------------------------


UNWANTED = (
    '.venv/lib/other.py',
    '.venv-openmmlab/pyvenv.cfg',
    '.git/config',
    '.ruff_cache/tag',
    'data/shapes/train.json',
    'data/coco.py',
    'work_dirs/run/epoch_1.pth',
    'site/index.html',
    'shared/table.json',
    'notes.py',
    'mmresnest/__pycache__/cli.cpython-311.pyc',
    'configs/__pycache__/other.cpython-311.pyc',
    'examples/first_hour/run/epoch_1.pth',
    'examples/yolo_to_model/yolo/data.yaml',
)
"""What lies about in a clone that was worked in."""


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """The sdist of a copy of the source, unpacked, and the wheels of both; nothing is fetched."""
    folder = tmp_path_factory.mktemp('built')
    source = folder / 'source'
    source.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    for name in ('configs', 'constraints', 'docs', 'examples', 'mmresnest', 'tests', 'tools'):
        shutil.copytree(
            ROOT / name,
            source / name,
            symlinks=True,
            ignore=shutil.ignore_patterns('__pycache__', 'first_hour', 'yolo_to_model'),
        )
    for name in UNWANTED:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text('left behind')
    made = run(
        sys.executable,
        '-c',
        f'from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})',
        cwd=source,
    )
    assert made.returncode == 0, made.stderr
    [archive] = folder.glob('*.tar.gz')
    with tarfile.open(archive) as packed:
        assert not [member.name for member in packed if member.issym() or member.islnk()]
        # Python 3.10 and 3.11 have filters from their later patches on.
        safely = dict(filter='data') if hasattr(tarfile, 'data_filter') else {}
        packed.extractall(folder / 'sdist', **safely)
    [unpacked] = (folder / 'sdist').iterdir()
    wheels = []
    for tree in (source, archive):
        made = run(
            sys.executable,
            '-m',
            'pip',
            'wheel',
            '--quiet',
            '--no-deps',
            '--no-build-isolation',
            '--wheel-dir',
            folder / f'wheel{len(wheels)}',
            tree,
        )
        assert made.returncode == 0, made.stderr
        wheels += (folder / f'wheel{len(wheels)}').glob('*.whl')
    return unpacked, wheels


@pytest.fixture(scope='module')
def metadata(built):
    _, [wheel, _] = built
    with zipfile.ZipFile(wheel) as packed:
        [name] = [name for name in packed.namelist() if name.endswith('.dist-info/METADATA')]
        return Parser().parsestr(packed.read(name).decode())


def expected() -> set[str]:
    """What a wheel has to carry, read off the source."""
    modules = {
        str(path.relative_to(ROOT))
        for path in (ROOT / 'mmresnest').rglob('*.py')
        if '.mim' not in path.parts
    }
    linked = {
        f'mmresnest/.mim/{path.relative_to(ROOT)}'
        for folder in ('configs', 'tools')
        for path in (ROOT / folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }
    pages = {
        str(path.relative_to(ROOT))
        for folder in ('report/templates', 'inference/page/static')
        for path in (ROOT / 'mmresnest' / folder).iterdir()
    }
    return modules | linked | pages | {'mmresnest/py.typed', 'mmresnest/.mim/model-index.yml'}


def contents(wheel: Path) -> dict[str, bytes]:
    """File -> what is in it."""
    with zipfile.ZipFile(wheel) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def test_a_wheel_carries_the_modules_the_configs_and_the_tools(built):
    _, [wheel, _] = built
    files = contents(wheel)
    assert {name for name in files if '.dist-info/' not in name} == expected()
    assert [name for name, held in files.items() if not held] == ['mmresnest/py.typed']


@pytest.mark.slow
def test_the_wheel_of_an_sdist_is_that_of_the_source_to_the_byte(built):
    _, wheels = built
    of_source, of_sdist = map(contents, wheels)
    assert of_source.keys() == of_sdist.keys()
    assert not [name for name in of_source if of_source[name] != of_sdist[name]]


def test_links_of_a_clone_are_files_in_a_wheel(built):
    _, wheels = built
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as packed:
            assert not [
                entry.filename
                for entry in packed.infolist()
                if stat.S_ISLNK(entry.external_attr >> 16)
            ]
            for name in (
                'configs/metafile.yml',
                'model-index.yml',
                'tools/train.py',
                'configs/_base_/backbones/resnest50.py',
            ):
                held = packed.read(f'mmresnest/.mim/{name}')
                assert held == (ROOT / name).read_bytes()


def test_nothing_that_lies_about_is_packed(built):
    unpacked, wheels = built
    folders = {
        'configs',
        'constraints',
        'docs',
        'examples',
        'mmresnest',
        'mmresnest.egg-info',
        'tests',
        'tools',
    }
    assert {path.name for path in unpacked.iterdir() if path.is_dir()} == folders
    assert not [name for name in UNWANTED if (unpacked / name).exists()]
    assert not list(unpacked.rglob('__pycache__'))
    for wheel in wheels:
        assert {name.split('/')[0] for name in contents(wheel)} == {
            'mmresnest',
            f'mmresnest-{mmresnest.__version__}.dist-info',
        }


def test_an_sdist_carries_all_that_is_needed_to_build_and_test(built):
    unpacked, _ = built
    for name in (
        'setup.py',
        'pyproject.toml',
        'MANIFEST.in',
        'Makefile',
        'LICENSE',
        'README.md',
        'CHANGELOG.md',
        'RELEASING.md',
        'examples/first_hour.ipynb',
        'examples/yolo_to_model.ipynb',
        'constraints/onedl.txt',
        'tests/repository/test_package.py',
        'tools/train.py',
        'configs/faster_rcnn_resnest50_fpn.py',
        'configs/metafile.yml',
        'model-index.yml',
        'docs/zoo.md',
        'docs/complexity.json',
        'mmresnest/.mim/model-index.yml',
        'mmresnest/.mim/configs/faster_rcnn_resnest50_fpn.py',
    ):
        assert (unpacked / name).is_file(), name


def test_the_wheel_names_its_command_its_licence_and_its_version(built, metadata):
    _, [wheel, _] = built
    with zipfile.ZipFile(wheel) as packed:
        [name] = [name for name in packed.namelist() if name.endswith('entry_points.txt')]
        points = configparser.ConfigParser()
        points.read_string(packed.read(name).decode())
        assert [name for name in packed.namelist() if name.endswith('licenses/LICENSE')]
    assert dict(points['console_scripts']) == {'mmresnest': 'mmresnest.cli.main:main'}
    assert metadata['Name'] == 'mmresnest' and metadata['Version'] == mmresnest.__version__
    assert metadata['License'] == 'Apache-2.0'
    assert Version(metadata['Version']) >= Version('0.1.0')


@pytest.mark.slow
def test_a_wheel_s_configs_are_inherited_from_a_user_s_folder(built, tmp_path):
    """With the wheel in place and the clone out of reach, on whichever stack runs the tests."""
    _, [wheel, _] = built
    place, folder = tmp_path / 'installed', tmp_path / 'user'
    made = run(
        sys.executable,
        '-m',
        'pip',
        'install',
        '--quiet',
        '--no-deps',
        '--no-index',
        '--target',
        place,
        wheel,
    )
    assert made.returncode == 0, made.stderr
    folder.mkdir()
    for name in ('faster_rcnn_resnest50_fpn', 'deeplabv3_resnest50_cityscapes'):
        (folder / f'{name}_mine.py').write_text(
            f"_base_ = 'mmresnest::{name}.py'\ntrain_dataloader = dict(batch_size=3)\n"
        )
    code = (
        'import mmresnest, sys\nfrom pathlib import Path\n'
        'from mmengine.config import Config\n'
        'assert Path(mmresnest.__file__).is_relative_to(sys.argv[1]), mmresnest.__file__\n'
        'for path in sorted(Path().glob("*.py")):\n'
        '    cfg = Config.fromfile(path)\n'
        '    print(cfg.model.backbone.arch, cfg.train_dataloader.batch_size)\n'
    )
    done = run(
        sys.executable,
        '-W',
        'ignore',
        '-c',
        code,
        place,
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(place)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ['resnest50', '3'] * 2


def test_every_folder_of_modules_is_a_package():
    for path in (ROOT / 'mmresnest').rglob('*.py'):
        assert '.mim' in path.parts or (path.parent / '__init__.py').is_file(), path


# The Makefile ------------------------------------------------------------------------------------


def make(*arguments: object) -> subprocess.CompletedProcess:
    if shutil.which('make') is None:
        pytest.skip('there is no make')
    # `make test STACK=...` hands its variables on to every make below it, this one too.
    handed_on = ('MAKEFLAGS', 'MAKEOVERRIDES', 'MFLAGS', 'MAKELEVEL', 'STACK', 'VENV', 'PYTHON')
    return run('env', *(f'-u{name}' for name in handed_on), 'make', '-C', ROOT, *arguments)


@pytest.mark.parametrize(
    'script, said',
    [
        (None, 'there is no'),
        ('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.8.1\nexit 1\n', 'Python 3.8.1 is too old'),
        ('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\n', 'cannot create environments'),
    ],
)
def test_a_python_that_will_not_do_is_named(script, said, tmp_path):
    path = tmp_path / 'python3'
    if script:
        path.write_text(script)
        path.chmod(0o755)
    done = make('env', f'PYTHON={path}', f'VENV={tmp_path / "venv"}')
    assert done.returncode == 2 and said in done.stderr
    assert not (tmp_path / 'venv').exists()


def test_an_unknown_stack_is_named(tmp_path):
    done = make('env', 'STACK=other', f'VENV={tmp_path / "venv"}')
    assert done.returncode == 2 and 'other' in done.stderr


def environment(tmp_path: Path, *stamps: str) -> Path:
    """What an environment looks like to make, with its installations done."""
    folder = tmp_path / 'venv'
    (folder / 'bin').mkdir(parents=True)
    for name in ('python', *stamps):
        (folder / 'bin' / name).touch()
    return folder


def test_a_second_run_installs_nothing(tmp_path):
    folder = environment(tmp_path, '.env-onedl', '.dev-onedl')
    assert 'Nothing to be done' in make('env', f'VENV={folder}').stdout
    for goal in ('test', 'demo'):
        assert 'pip' not in make('--dry-run', goal, f'VENV={folder}').stdout
    assert 'pip' in make('--dry-run', 'env', f'VENV={folder}', '--what-if=setup.py').stdout


def test_two_stacks_do_not_share_an_environment(tmp_path):
    folder = environment(tmp_path, '.env-onedl')
    done = make('env', 'STACK=openmmlab', f'VENV={folder}')
    assert done.returncode == 2 and 'holds another stack' in done.stderr


def test_help_names_every_goal():
    said = make('help').stdout
    for goal in re.search(r'^\.PHONY: (.*)$', read('Makefile'), re.M).group(1).split():
        assert goal == 'help' or f'make {goal}' in said
