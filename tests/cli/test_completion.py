"""Completion: what the scripts offer, asked of the shells themselves where they are installed."""

import shutil
import subprocess
import sys

import pytest
from helpers.errors import check_refused

from mmresnest.analysis import benchmark, check_data
from mmresnest.cli import completion, main
from mmresnest.config.shipped import shipped_configs
from mmresnest.data.shapes import dataset
from mmresnest.models.variants import list_archs
from mmresnest.models.weights.layouts import LAYOUTS, OTHER_NAMES

DETECTOR = 'faster_rcnn_resnest50_fpn'

ASK = {  # what a shell answers to Tab, a line each
    'bash': '''source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function=$(complete -p mmresnest | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function mmresnest "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"''',
    'fish': ('source $argv[1]; complete -C (string join " " -- $argv[2..]) | string split -f1 \\t'),
}


@pytest.fixture(scope='module')
def scripts(tmp_path_factory):
    """The script of every shell, in a folder with a config and a checkpoint of a user's."""
    folder = tmp_path_factory.mktemp('completion')
    for shell in completion.SHELLS:
        (folder / f'for.{shell}').write_text(completion.write_script(main.build_parser(), shell))
    for name in ('mine.py', 'epoch_12.pth'):
        (folder / name).touch()
    (folder / 'photos').mkdir()
    return folder


def needs(shell):
    """Bash is wherever this is developed; the others may not be."""
    if shell != 'bash' and shutil.which(shell) is None:
        pytest.skip(f'there is no {shell}')


def offered(shell, scripts, line):
    needs(shell)
    words = ['mmresnest', *line.split(' ')]
    call = ['-c', ASK[shell], *(['bash'] if shell == 'bash' else []), f'for.{shell}', *words]
    done = subprocess.run([shell, *call], cwd=scripts, capture_output=True, text=True, timeout=60)
    assert not done.stderr
    return {word.rstrip('/') for word in done.stdout.split()}


@pytest.mark.parametrize('shell', ASK)
@pytest.mark.parametrize(
    'line, some',
    [
        ('pri', {'print-config'}),
        ('train --fast', {'--fast-eval'}),
        (f'train {DETECTOR} --launcher py', {'pytorch'}),
        (f'train {DETECTOR[:-5]}', {DETECTOR, f'{DETECTOR}_dcn'}),
        ('train mi', {'mine.py'}),
        (f'train {DETECTOR} --data ph', {'photos'}),
        (f'test {DETECTOR} ep', {'epoch_12.pth'}),
        ('benchmark resnest14 resnest2', {'resnest26', 'resnest200', 'resnest269'}),
        (f'browse-data {DETECTOR} --split va', {'val'}),
        ('completion ba', {'bash'}),
        (f'export {DETECTOR} a.pth --format o', {'onnx', 'openvino'}),
        ('convert a b --to ti', {'timm'}),
    ],
)
def test_tab_offers(shell, line, some, scripts):
    found = offered(shell, scripts, line)
    assert some <= found
    assert all(word.startswith(line.split(' ')[-1]) for word in found)


def test_every_command_is_offered(scripts):
    assert set(main.COMMANDS) <= offered('bash', scripts, '')


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'fish'])
def test_the_shell_reads_its_script(shell, scripts):
    needs(shell)
    done = subprocess.run(
        [shell, '-n', f'for.{shell}'], cwd=scripts, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize('shell', completion.SHELLS)
def test_every_script_knows_commands_configs_and_networks(shell, scripts):
    text = (scripts / f'for.{shell}').read_text()
    for word in ('browse-data', 'fast-eval', 'slurm', *shipped_configs(), *list_archs()):
        assert word in text


def test_words_are_those_that_are_accepted():
    words = completion.WORDS
    assert set(words['modes']) == set(benchmark.MODES)
    assert set(words['dtypes']) == set(benchmark.DTYPES)
    assert tuple(words['split']) == check_data.SPLITS
    assert tuple(words['layouts']) == dataset.LAYOUTS
    assert set(words['to']) <= set(LAYOUTS) | set(OTHER_NAMES)
    dests = {action.dest for action in completion._iterate_actions(main.build_parser())}
    assert set(words) <= dests


def test_printing_a_script_starts_no_torch():
    code = (
        'import sys\nfrom mmresnest.cli.main import main\n'
        'assert main(["completion", "bash"]) == 0\n'
        'print(sorted({"torch", "numpy", "mmengine"} & set(sys.modules)))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert done.stdout.rstrip().endswith('[]'), done.stderr


def test_without_shtab_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, 'shtab', None)
    remedy = 'pip install "mmresnest[completion]"'
    check_refused(['completion', 'bash'], 'package.missing', remedy)
