"""Who may import whom: CONTRIBUTING.md, "Where things are", read off the source.

A module is named by its path below ``mmresnest`` (``blocks.se``), a package by its folder.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import mmresnest

ROOT = Path(mmresnest.__file__).parents[1]
PACKAGE = ROOT / 'mmresnest'
MM = {'mmengine', 'mmcv', 'mmdet', 'mmseg'}
EQUATIONS = ('blocks', 'stem', 'trunk')
NETWORKS = (
    *EQUATIONS,
    'ops',
    'deploy',
    'variants',
    'models',
    'registry',
    'weights',
    'layouts',
    'download',
    'safetensors',
    'zoo',
)
ROOMS = ('compat', 'data', 'engine', 'export', 'heads', 'report', 'cli', 'doctor', 'benchmark')
LIGHT = (
    '',
    'errors',
    'variants',
    'version',
    'cli',
    'completion',
    'doctor',
    'compat',
    'compat.checkpoints',
    'compat.data_files',
    'compat.ext',
    'compat.panoptic',
    'compat.quiet',
    'compat.registries',
    'compat.resuming',
    'compat.stacks',
    'shipped',
    'switches',
)  # imported before anybody asked for torch


class Import(NamedTuple):
    """One import: what, of ours or not, and whether only when a function runs."""

    what: str
    ours: bool
    late: bool


def sources() -> dict[str, Path]:
    """Module -> file, of all of the package but what .mim links to."""
    found = {}
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = path.relative_to(PACKAGE).with_suffix('').parts
        if parts[0] != '.mim':
            found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


SOURCES = sources()


def imports(module: str) -> list[Import]:
    """Every import of a module, but those only for type checkers."""
    path = SOURCES[module]
    package = ('mmresnest.' + module).rstrip('.').split('.')
    if path.name != '__init__.py':
        package.pop()
    return list(_walk(ast.parse(path.read_text(encoding='utf-8')), package, late=False))


def _walk(node: ast.AST, package: list[str], late: bool) -> Iterator[Import]:
    if isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        start = package[: len(package) - node.level + 1] if node.level else []
        base = '.'.join([*start, *([node.module] if node.module else [])])
        # `from .blocks import se` names a module, `from .errors import UserError` what is in one
        names = [
            f'{base}.{alias.name}'
            if base.startswith('mmresnest')
            and f'{base}.{alias.name}'.removeprefix('mmresnest.') in SOURCES
            else base
            for alias in node.names
        ]
    else:
        late = late or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from _walk(child, package, late)
        return
    for name in names:
        ours = name.partition('.')[0] == 'mmresnest'
        yield Import(
            name.removeprefix('mmresnest').lstrip('.') if ours else name.partition('.')[0],
            ours,
            late,
        )


def within(module: str, rooms: tuple[str, ...]) -> bool:
    """Whether a module is one of these, or in one of these packages."""
    return any(module == room or module.startswith(room + '.') for room in rooms)


def members(rooms: tuple[str, ...]) -> list[str]:
    return [module for module in SOURCES if within(module, rooms)]


def test_the_reader_reads():
    """That the rules below cannot pass by seeing nothing."""
    assert Import('numpy', False, False) not in imports('errors')
    assert Import('difflib', False, False) in imports('errors')
    assert Import('errors', True, False) in imports('compat.stacks')
    assert Import('compat.ext', True, False) in imports('compat')
    assert Import('mmengine', False, True) in imports('compat.checkpoints')
    assert Import('zoo', True, True) in imports('')
    assert Import('zoo', True, False) not in imports('')
    assert set(EQUATIONS + NETWORKS + LIGHT) <= set(SOURCES)


@pytest.mark.parametrize('module', SOURCES)
def test_imports_are_of_this_package_and_exist(module):
    for found in imports(module):
        assert not found.ours or found.what in SOURCES, f'{module} imports {found.what}'
        assert found.what not in ('tools', 'tests', 'configs')


def test_the_table_of_variants_knows_only_our_errors():
    assert {found.what for found in imports('variants') if found.ours} <= {'errors'}


@pytest.mark.parametrize('module', ['storage', 'claims', 'switches'])
def test_files_know_only_our_errors(module):
    for found in imports(module):
        assert not found.ours or found.what == 'errors', found
        assert found.ours or found.late or found.what in sys.stdlib_module_names, found


@pytest.mark.parametrize('module', members(EQUATIONS))
def test_equations_know_torch_and_each_other(module):
    for found in imports(module):
        if found.ours:
            below = {'blocks': ('blocks',), 'stem': ('blocks',), 'trunk': EQUATIONS}
            # no definition knows of ops or deploy
            assert within(found.what, (*below[module.partition('.')[0]], 'errors')), found
        else:
            assert found.what == 'torch' or found.what in sys.stdlib_module_names, found


@pytest.mark.parametrize('module', members(('ops', 'deploy')))
def test_twins_know_definitions_and_torch(module):
    for found in imports(module):
        if found.ours:
            own = ('ops',) if module.startswith('ops') else ('ops', 'deploy')
            assert within(found.what, (*EQUATIONS, 'errors', *own)), found
        else:
            assert found.what == 'torch' or found.what in sys.stdlib_module_names, found


@pytest.mark.parametrize('module', members(NETWORKS))
def test_networks_know_nothing_of_what_is_done_with_them(module):
    for found in imports(module):
        assert not (found.ours and within(found.what, ROOMS)), found
        assert found.what not in ('mmdet', 'mmseg'), found
        if module not in ('models', 'registry'):
            assert found.what not in MM or found.late, found


@pytest.mark.parametrize('module', members(('compat', 'data', 'report')))
def test_rooms_do_not_reach_into_the_networks_or_the_command_line(module):
    above = (*NETWORKS, 'engine', 'cli', 'doctor')
    for found in imports(module):
        assert not (found.ours and within(found.what, above)), found


@pytest.mark.parametrize('module', members(('heads',)))
def test_heads_know_the_registry_and_the_toolbox_they_extend(module):
    for found in imports(module):
        assert not found.ours or found.what in ('', 'registry', 'errors'), found
        # The package is imported whenever a backbone is looked up; a module of it is asked for.
        assert module != 'heads' or found.what not in ('mmdet', 'mmseg'), found


def test_exported_files_run_without_torch_and_mm():
    """Whatever the runner imports, and what that imports."""
    waiting, seen = ['export.runtime', 'engine.predict'], set()
    while waiting:
        module = waiting.pop()
        for found in imports(module):
            # What is late is for predictions by the framework, or asked for by a method.
            assert found.late or found.what not in {'torch', *MM}, (module, found)
            if found.ours and not found.late and found.what not in seen:
                seen.add(found.what)
                waiting.append(found.what)
    assert {'engine.asking', 'engine.results', 'engine.sources', 'data.files'} <= seen


@pytest.mark.parametrize('module', LIGHT)
def test_what_is_imported_first_is_light(module):
    for found in imports(module):
        assert found.late or found.ours or found.what in sys.stdlib_module_names, found
        assert found.late or not found.ours or found.what in LIGHT, found


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'configs').rglob('*.py')), ids=lambda path: path.name
)
def test_configs_import_nothing(path):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]


def test_the_command_line_starts_without_torch():
    code = (
        'import sys, mmresnest.cli.main, mmresnest.cli.doctor; '
        'print(sorted({"torch", "numpy", "mmengine", "mmcv"} & set(sys.modules)))'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == '[]', run.stderr
