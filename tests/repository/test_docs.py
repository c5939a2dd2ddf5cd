"""README.md, docs/ and the site of them: what they name exists, and what they quote is said.

docs/archs.md and the base configs of backbones: what the table of variants says, and no more.
"""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pytest
from helpers import published
from helpers.documents import PAGES, PROGRAMS, ROOT, anchors, blocks, links, rows, spans

from mmresnest.cli import main
from mmresnest.models.variants import ALIASES, TABLE, VARIANTS

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
    run = subprocess.run(
        [sys.executable, SCRIPT, '--check'], capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, '', '')


@pytest.mark.slow
def test_the_check_finds_what_is_changed_missing_or_left_over(table):
    table.main(['--check'])
    table.DOCS.write_text(TEXT.replace('81.03 @ 224', '81.30 @ 224'), encoding='utf-8')
    (table.BACKBONES / 'resnest50.py').unlink()
    (table.BACKBONES / 'resnest51.py').write_text(f'# {table.WRITTEN}\n')
    with pytest.raises(SystemExit) as failure:
        table.main(['--check'])
    for words in ('archs.md differs', 'resnest50.py is missing', 'resnest51.py is inherited by no'):
        assert words in str(failure.value)
    table.main([])
    table.main(['--check'])


@pytest.mark.slow
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
        strides = {
            int(case['output_stride']) for case in published.CASES.values() if case['arch'] == name
        }
        said = re.search(r'yes: features, stride ([\d, ]+) \|$', line)
        assert (set(map(int, said[1].split(','))) if said else set()) == strides
        assert bool(said) != line.endswith('no: parameters and MACs only |')


def test_every_base_config_is_of_a_network_with_weights():
    assert {path.stem for path in BACKBONES} <= {row.name for row in TABLE if row.weights}


@pytest.mark.parametrize('path', BACKBONES, ids=lambda path: path.stem)
def test_base_config_names_its_network(path):
    config: dict = {}
    exec(compile(path.read_text(encoding='utf-8'), path, 'exec'), {}, config)
    row = VARIANTS[path.stem]
    assert set(config) == {'backbone', 'pixels'}
    assert config['backbone'] == dict(
        type='mmresnest.' + row.type,
        arch=row.name,
        init_cfg=dict(type='Pretrained', checkpoint='mmresnest://' + row.name),
    )
    mean, std = config['pixels']['mean'], config['pixels']['std']
    assert all(100 < value < 130 for value in mean) and all(57 < value < 59 for value in std)
    assert mean[0] > mean[1] > mean[2]  # RGB, not BGR


# ---- what all pages name -------------------------------------------------------------------------

#: options of other programs
THEIRS = {
    '--signals-to-handle',
    '--kill-on-bad-exit',
    '--check',
    '--measure',
    '--plot',
    '--same',
    '--strict',
    '--logdir',
    '--backend-store-uri',
}


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    for link in links(PAGES[page]):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme in ('http', 'https') and '.' in parts.netloc, link
            continue
        place = os.path.normpath(PurePosixPath(page).parent / parts.path) if parts.path else page
        assert (ROOT / place).is_file(), link
        if parts.fragment and place in PAGES and place != 'docs/api.md':
            assert parts.fragment in anchors(PAGES[place]), link


@pytest.mark.parametrize('page', PAGES)
def test_blocks_are_closed_and_of_a_known_kind(page):
    found = blocks(PAGES[page])
    assert len(re.findall('^```', PAGES[page], re.MULTILINE)) == 2 * len(found)
    assert {language for language, _ in found} <= {'bash', 'sh', 'python', 'text'}


def test_files_and_tests_that_they_name_are_there():
    folders = ('configs/', 'constraints/', 'mmresnest/', 'tests/', 'tools/')
    named = {
        word.rstrip('.,;:')
        for text in PAGES.values()
        for span in [*spans(text), *(block for _, block in blocks(text))]
        for word in span.split()
        if word.startswith(folders) and '<' not in word
    }
    assert len(named) > 80
    for name in named:
        file, _, function = name.replace('ARCH', 'resnest50').partition('::')
        assert any(ROOT.glob(file.rstrip('/'))), name
        if function:
            tree = ast.parse((ROOT / file).read_text(encoding='utf-8'))
            assert function in {
                node.name for node in tree.body if isinstance(node, ast.FunctionDef)
            }, name


def test_options_that_they_explain_exist(capsys):
    said = ''
    for words in (*([command] for command in main.COMMANDS), ['benchmark', '--gpu-check', 'OUT']):
        with pytest.raises(SystemExit):
            main.main([*words, '--help'])
        said += capsys.readouterr().out
    for page, text in PAGES.items():
        for span in spans(text):
            ours = span.startswith('mmresnest ') or not re.match(f'{PROGRAMS} ', span)
            for option in re.findall(r'(?<!\S)--[a-z0-9-]+', span) if ours else ():
                assert option in THEIRS or re.search(rf'(?<!\S){option}\b', said), (page, option)


# ---- docs/faq.md ---------------------------------------------------------------------------------

FAQ = PAGES['docs/faq.md']


def written(node: ast.AST) -> str | None:
    """A text of the source, ``...`` where something is put into it; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return ''.join(written(part) or '...' for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (written(node.left) or '...') + (written(node.right) or '...')
    return None


@pytest.fixture(scope='module')
def messages() -> list[str]:
    """All texts of the package."""
    trees = [
        ast.parse(path.read_text(encoding='utf-8'))
        for path in (ROOT / 'mmresnest').rglob('*.py')
        if '.mim' not in path.parts
    ]
    return [text for tree in trees for node in ast.walk(tree) if (text := written(node))]


@pytest.mark.slow
def test_every_message_of_ours_is_said(messages):
    ours, _, _ = FAQ.partition('## Of the libraries underneath')
    quoted = [quote for row in rows(ours) for quote in re.findall('`([^`]+)`', row[0])]
    assert len(quoted) > 30
    for quote in quoted:
        pattern = re.compile('.*'.join(map(re.escape, quote.split('...'))))
        assert any(map(pattern.search, messages)), quote


def test_a_message_that_is_not_said_is_found(messages):
    pattern = re.compile(re.escape('no data: everything'))
    assert not any(map(pattern.search, messages))


def test_every_message_of_others_is_theirs():
    others = FAQ.partition('## Of the libraries underneath')[2].partition('\n## ')[0]
    assert len(rows(others)) > 3
    for message, of, _ in rows(others):
        module = re.match('`([^`]+)`$', of)
        if module:  # else Python's, or of the other stack
            source = Path(importlib.util.find_spec(module[1]).origin).read_text(encoding='utf-8')
            assert message.strip('`') in source, message


# ---- the site ------------------------------------------------------------------------------------

BUILD = """
import socket, sys
sys.modules.update(dict.fromkeys(('torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg')))
def refuse(self, address): raise AssertionError(f'the network was asked for {address}')
socket.socket.connect = refuse
from mkdocs.__main__ import cli
cli(['build', '--strict', '--quiet', '--site-dir', sys.argv[1]])
"""


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    """The site, built without torch and without a network."""
    folder = tmp_path_factory.mktemp('built') / 'site'
    run = subprocess.run(
        [sys.executable, '-c', BUILD, folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env=dict(os.environ, NO_MKDOCS_2_WARNING='1'),
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, '', '')
    return folder


@pytest.mark.slow
def test_nothing_of_the_site_is_fetched(site):
    """No script, style, font, picture or frame of another host, on any page."""
    pages = list(site.glob('*.html'))
    assert len(pages) > 15
    for page in pages:
        text = page.read_text(encoding='utf-8')
        loading = re.findall(r'<(?:script|link|img|iframe|source)\b[^>]*', text)
        elsewhere = re.compile(r'(src|href)="?(https?:)?//')
        assert loading and not list(filter(elsewhere.search, loading))
    styles = list(site.rglob('*.css'))
    assert styles and not [
        style
        for style in styles
        if re.search(r'(@import|url\()[\s"\']*(https?:)?//', style.read_text())
    ]


@pytest.mark.slow
def test_the_site_links_to_what_it_has(site):
    for page in site.glob('*.html'):
        if page.name == '404.html':  # whose links begin at the root of a server
            continue
        for link in re.findall(r'(?:href|src)="?([^" >#]+)', page.read_text(encoding='utf-8')):
            parts = urlsplit(link)
            if not parts.scheme and not parts.netloc and parts.path not in ('', '.'):
                assert (site / parts.path).exists(), (page.name, link)


@pytest.mark.slow
def test_the_first_page_is_the_readme(site):
    text = (site / 'index.html').read_text(encoding='utf-8')
    for heading in anchors(PAGES['README.md']):
        assert f'id="{heading}"' in text or f'id={heading}' in text, heading


def test_the_command_line_is_on_its_page(site):
    text = (site / 'commands.html').read_text(encoding='utf-8')
    for command in main.COMMANDS:
        assert f'mmresnest {command} [OPTIONS]' in text
    for option in ('--auto-scale-lr', '--score-thr', '--launcher {none,pytorch,slurm,mpi}'):
        assert f'<code>{option}' in text


def test_every_registered_class_and_public_name_is_in_the_reference(site):
    text = (site / 'api.html').read_text(encoding='utf-8')
    ids = set(re.findall(r'id="?(mmresnest[\w.]+)', text))
    names = {place.rpartition('.')[2] for place in ids}
    registered = {
        node.name
        for path in (ROOT / 'mmresnest').rglob('*.py')
        if '.mim' not in path.parts
        for node in ast.parse(path.read_text(encoding='utf-8')).body
        if isinstance(node, ast.ClassDef)
        and any(
            re.match(r'[A-Z]+\.register_module', ast.unparse(one)) for one in node.decorator_list
        )
    }
    assert len(registered) > 15
    assert registered | {'Predictor', 'build_backbone', 'list_archs'} <= names
