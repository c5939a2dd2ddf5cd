"""docs/archs.md and the base configs of backbones: what the table of variants says, and no more."""
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import published
import pytest

from mmresnest.variants import ALIASES, TABLE, VARIANTS

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / 'tools' / 'table.py'
TEXT = (ROOT / 'docs' / 'archs.md').read_text(encoding='utf-8')
LINES = {match[1]: match[0] for match in re.finditer(r'^\| `(\w+)` \| \d.*$', TEXT, re.MULTILINE)}
BACKBONES = sorted((ROOT / 'configs' / '_base_' / 'backbones').glob('*.py'))


@pytest.fixture
def table(tmp_path, monkeypatch):
    """tools/table.py as a module, at work in another folder."""
    spec = importlib.util.spec_from_file_location('table', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'ROOT', tmp_path)
    monkeypatch.setattr(module, 'DOCS', tmp_path / 'archs.md')
    monkeypatch.setattr(module, 'BACKBONES', tmp_path / 'backbones')
    module.BACKBONES.mkdir()
    module.DOCS.write_text(TEXT, encoding='utf-8')
    module.main([])
    return module


def test_generated_files_are_up_to_date():
    run = subprocess.run([sys.executable, SCRIPT, '--check'], capture_output=True, text=True,
                         timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, '', '')


def test_the_check_finds_what_is_changed_missing_or_left_over(table):
    table.main(['--check'])
    table.DOCS.write_text(TEXT.replace('81.03 @ 224', '81.30 @ 224'), encoding='utf-8')
    (table.BACKBONES / 'resnest50.py').unlink()
    (table.BACKBONES / 'resnest51.py').write_text(f'# {table.WRITTEN}\n')
    with pytest.raises(SystemExit) as failure:
        table.main(['--check'])
    for words in ('archs.md differs', 'resnest50.py is missing', 'resnest51.py is of no row'):
        assert words in str(failure.value)
    table.main([])
    table.main(['--check'])


def test_prose_is_kept_and_a_lost_mark_is_named(table):
    table.DOCS.write_text(TEXT.replace('# Published networks', '# Networks'), encoding='utf-8')
    table.main([])
    assert table.DOCS.read_text(encoding='utf-8').startswith('# Networks\n')
    table.DOCS.write_text('nothing', encoding='utf-8')
    with pytest.raises(SystemExit, match='begin: networks'):
        table.main([])


def test_every_network_has_a_line_with_its_figures():
    assert set(LINES) == set(VARIANTS)
    for row in TABLE:
        line = LINES[row.name]
        assert f'| {row.params:.2f} | {row.macs:.2f} |' in line
        assert ('not published' in line) == (row.top1 is None)
        assert all(f'({weights.url})' in line for weights in row.weights)
        assert not any(weights.url in line for weights in row.alternatives)
        assert all(f'({weights.url})' in TEXT for weights in row.alternatives)
    for alias, name in ALIASES.items():
        assert f'| `{alias}` | `{name}` |' in TEXT


def test_verified_says_what_the_tests_of_features_do():
    for name, line in LINES.items():
        strides = {int(case['output_stride']) for case in published.CASES.values()
                   if case['arch'] == name}
        said = re.search(r'yes: features, stride ([\d, ]+) \|$', line)
        assert (set(map(int, said[1].split(','))) if said else set()) == strides
        assert bool(said) != line.endswith('no: parameters and MACs only |')


def test_the_example_runs():
    code, = re.findall(r'^```python\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)
    exec(compile(code, 'docs/archs.md', 'exec'), {})


def test_files_that_the_text_names_are_there():
    named = {name.replace('ARCH', 'resnest50')
             for name in re.findall(r'`((?:configs|mmresnest|tools|tests)/\S+?\.py)`', TEXT)}
    assert len(named) >= 2
    assert all((ROOT / name).is_file() for name in named), named


def test_every_network_with_weights_has_a_base_config():
    assert {path.stem for path in BACKBONES} == {row.name for row in TABLE if row.weights}


@pytest.mark.parametrize('path', BACKBONES, ids=lambda path: path.stem)
def test_base_config_names_its_network(path):
    config: dict = {}
    exec(compile(path.read_text(encoding='utf-8'), path, 'exec'), {}, config)
    row = VARIANTS[path.stem]
    assert set(config) == {'backbone', 'pixels'}
    assert config['backbone'] == dict(
        type='mmresnest.' + row.type, arch=row.name,
        init_cfg=dict(type='Pretrained', checkpoint='mmresnest://' + row.name))
    mean, std = config['pixels']['mean'], config['pixels']['std']
    assert all(100 < value < 130 for value in mean) and all(57 < value < 59 for value in std)
    assert mean[0] > mean[1] > mean[2]              # RGB, not BGR
