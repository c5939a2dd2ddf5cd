"""Who may import whom, read off the source. Late imports count; those for type checkers do not.

A module is named by its path below ``mmresnest`` (``models.blocks.se``), a package by its folder.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / 'mmresnest'

# fmt: off
RULE = {  # folder: may import, besides errors, version and registry; of torch and mm libraries, too
    'utils':         '',
    'security':      'utils torch mmengine',
    'compat':        'utils security data torch mmdet',
    'models':        'utils security torch mmengine mmcv mmseg',
    'data':          'utils',
    'visualization': 'utils torch mmengine',
    'evaluation':    'utils compat visualization torch mmengine mmdet mmseg',
    'report':        'utils visualization evaluation',
    'config':        'utils security models data visualization torch mmengine mmseg',
    'engine':        'utils security models data visualization evaluation report config torch mm',
    'tuning':        'utils models config engine report torch mmengine',
    'sharing':       'utils evaluation report config engine torch mmengine',
    'inference':     'utils models data visualization config engine torch mmengine',
    'export':        'utils models data config engine inference torch mmengine mmcv',
    'analysis':      'utils compat models data visualization config engine inference torch mm',
}  # cli may import everything, but late; nothing imports cli
# fmt: on
ANY = ('errors', 'version', 'registry')
MM = ('mmengine', 'mmcv', 'mmdet', 'mmseg')
ALONE = ('__main__', 'deploy', 'cli')
"""What else is at the top. ``deploy``, a public name, has the rule of ``models``."""


class Import(NamedTuple):
    """One import: what, of ours or not, whether only when a function runs, and its line."""

    what: str
    ours: bool
    late: bool
    line: int = 0


def find_sources() -> dict[str, Path]:
    """Map module to file, for all of the package but what .mim links to."""
    found = {}
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = path.relative_to(PACKAGE).with_suffix('').parts
        if parts[0] != '.mim':
            found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


SOURCES = find_sources()


@cache
def read_imports(module: str) -> tuple[Import, ...]:
    """List every import of a module, but those only for type checkers."""
    path = SOURCES[module]
    package = ('mmresnest.' + module).rstrip('.').split('.')
    if path.name != '__init__.py':
        package.pop()
    return tuple(_walk(ast.parse(path.read_text(encoding='utf-8')), package, late=False))


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
        what = name.removeprefix('mmresnest').lstrip('.') if ours else name.partition('.')[0]
        yield Import(what, ours, late, node.lineno)


def has_import(module: str, what: str, late: bool) -> bool:
    """Return whether a module has such an import, of ours or of others."""
    return any((found.what, found.late) == (what, late) for found in read_imports(module))


def is_within(module: str, rooms: Iterable[str]) -> bool:
    """Return whether a module is one of these, or in one of these packages."""
    return any(module == room or module.startswith(room + '.') for room in rooms)


def list_members(*rooms: str) -> list[str]:
    """List the modules of rooms; each room has some."""
    for room in rooms:
        assert any(is_within(module, [room]) for module in SOURCES), room
    return [module for module in SOURCES if is_within(module, rooms)]


def find_faults(modules: Iterable[str], allowed) -> list[str]:
    """List the imports of modules that are not allowed, each with its place.

    Args:
        modules: whose imports are looked at.
        allowed: ``(module, import) -> bool``.
    """
    return [
        f'{SOURCES[module].relative_to(ROOT)}:{found.line} imports {found.what}'
        for module in modules
        for found in read_imports(module)
        if not allowed(module, found)
    ]


def is_standard(found: Import) -> bool:
    return not found.ours and found.what in sys.stdlib_module_names


def test_the_reader_reads():
    """That the rules below cannot pass by seeing nothing."""
    assert not has_import('errors', 'numpy', False) and has_import('errors', 'difflib', False)
    assert has_import('compat.patches', 'errors', False)
    assert has_import('compat', 'compat.mmcv_ext', False)
    assert has_import('security.torch_load', 'torch', True)
    assert has_import('', 'models.factory', True) and not has_import('', 'models.factory', False)
    assert find_faults(['errors'], lambda module, found: False)
    assert len(SOURCES) > 100


def test_the_top_of_the_package_is_what_the_rule_names():
    assert {module.partition('.')[0] for module in SOURCES} - {''} == {*ANY, *ALONE, *RULE}


def test_folders_import_what_the_rule_says():
    def get_room(module):
        top = module.partition('.')[0]
        return 'models' if top == 'deploy' else top

    def is_allowed(module, found):
        room = get_room(module)
        if room not in RULE or (not found.ours and found.what not in ('torch', *MM)):
            return True
        legal = {*ANY, room, *RULE[room].split(), *(MM if RULE[room].endswith(' mm') else ())}
        return (get_room(found.what) if found.ours else found.what) in legal

    assert find_faults([module for module in SOURCES if module], is_allowed) == []


def test_folders_do_not_import_each_other():
    arrows = {
        (module.partition('.')[0], found.what.partition('.')[0])
        for module in SOURCES
        for found in read_imports(module)
        if found.ours and module
    }
    assert [pair for pair in sorted(arrows) if pair[0] < pair[1] and pair[::-1] in arrows] == []


def test_no_circle_of_files():
    """However late the imports: what reaches itself is one thing in several files."""
    arrows = {
        module: {found.what for found in read_imports(module) if found.ours} - {module, ''}
        for module in SOURCES
        # The package of a module hands its names on; only modules count.
        if SOURCES[module].name != '__init__.py'
    }

    def reach(module):
        waiting, seen = [module], set()
        while waiting:
            for other in arrows.get(waiting.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        return seen

    assert [module for module in arrows if module in reach(module)] == []


def test_each_folder_says_what_lives_there():
    missing = [
        module
        for module, path in SOURCES.items()
        if path.name == '__init__.py'
        and not ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))
    ]
    assert missing == []
    silent = [
        room
        for room in (*RULE, 'cli')
        if 'mports ' not in ast.get_docstring(ast.parse(SOURCES[room].read_text(encoding='utf-8')))
    ]
    assert silent == [], 'the docstring of a folder says what it may import'


def test_imports_are_of_this_package_and_exist():
    def is_allowed(module, found):
        exists = not found.ours or found.what in SOURCES
        return exists and found.what not in ('tools', 'tests', 'configs')

    assert find_faults(SOURCES, is_allowed) == []


def test_only_the_command_line_imports_the_command_line():
    def is_allowed(module, found):
        return not found.ours or not is_within(found.what, ['cli'])

    others = [module for module in SOURCES if not is_within(module, ['cli', '__main__'])]
    assert find_faults(others, is_allowed) == []


def test_the_table_of_variants_imports_only_our_errors():
    def is_allowed(module, found):
        return not found.ours or found.what == 'errors'

    assert find_faults(['models.variants'], is_allowed) == []


def test_files_import_only_our_errors():
    def is_allowed(module, found):
        return found.what == 'errors' if found.ours else found.late or is_standard(found)

    assert find_faults(['utils.files', 'utils.env'], is_allowed) == []


def test_equations_import_torch_and_each_other():
    """No definition knows of fast forms, weights or deploy."""
    blocks = ('models.blocks', 'errors')
    equations = {
        **dict.fromkeys(list_members('models.blocks'), blocks),
        'models.stem': blocks,
        'models.trunk': (*blocks, 'models.stem', 'models.trunk'),
        'models.dla': (*blocks, 'models.trunk'),
    }

    def is_allowed(module, found):
        if found.ours:
            return is_within(found.what, equations[module])
        return found.what == 'torch' or is_standard(found)

    assert find_faults(equations, is_allowed) == []


def test_fast_forms_import_definitions_and_torch():
    definitions = ('models.blocks', 'models.stem', 'models.trunk', 'models.dla', 'errors')

    def is_allowed(module, found):
        if found.ours:
            own = ('models.fast', 'deploy') if module == 'deploy' else ('models.fast',)
            return is_within(found.what, (*definitions, *own))
        # mmcv's ConvModule has a fast form, which is imported where one is met
        theirs = 'mmcv' if module == 'models.fast.conv_module' else 'torch'
        return found.what in ('torch', theirs) or is_standard(found)

    assert find_faults(list_members('models.fast', 'deploy'), is_allowed) == []


def test_networks_need_torch_alone():
    """Registered classes need mmengine and mmcv, and one head mmseg: nothing else does."""
    registered = ('models.backbones', 'models.heads', 'models.fast.conv_module')

    def is_allowed(module, found):
        return found.what not in MM or (found.late and found.what in ('mmengine', 'mmcv'))

    networks = [
        module for module in list_members('models', 'deploy') if not is_within(module, registered)
    ]
    assert find_faults(networks, is_allowed) == []
    assert find_faults(['models.backbones'], lambda _, found: found.what != 'mmseg') == []


def test_heads_import_the_registry_and_the_toolbox_they_extend():
    def is_allowed(module, found):
        # The package is imported whenever a backbone is looked up; a module of it is asked for.
        if not found.ours:
            return module != 'models.heads' or found.what not in ('mmdet', 'mmseg')
        return found.what in ('', 'registry', 'errors')

    assert find_faults(list_members('models.heads'), is_allowed) == []


CONFIG_MODULES = ('security.config_reader', 'security.config_language', 'security.config_names')


def test_of_security_only_configs_need_mmengine():
    def is_allowed(module, found):
        return found.late or is_standard(found) or found.ours

    others = [module for module in list_members('security') if module not in CONFIG_MODULES]
    assert find_faults(others, is_allowed) == []


def follow_imports(*starts: str) -> set[str]:
    """Return these modules and all of ours that importing them imports, packages included."""
    waiting, seen = list(starts), set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        waiting += [found.what for found in read_imports(module) if found.ours and not found.late]
        if module:
            waiting.append(module.rpartition('.')[0])
    return seen


def test_exported_files_run_without_torch_and_mm():
    """Whatever the runner imports at once; what is late is for predictions by the framework."""

    def is_allowed(module, found):
        return found.late or found.what not in ('torch', *MM)

    seen = follow_imports('inference.exported', 'inference.predict')
    assert find_faults(seen, is_allowed) == []
    assert {'inference.base', 'inference.results', 'inference.inputs', 'data.checks.images'} <= seen


def test_what_is_imported_first_is_light():
    """``import mmresnest``, the command line and what guards files: the standard library."""
    guards = [
        module
        for module in list_members('compat', 'security')
        if not is_within(module, ['compat.ops', *CONFIG_MODULES])
    ]
    first = follow_imports('', *list_members('cli'), *guards, 'config.shipped')
    assert {'errors', 'version', 'utils.env', 'models.variants'} <= first

    def is_allowed(module, found):
        return found.late or found.ours or is_standard(found)

    assert find_faults(first, is_allowed) == []


def test_configs_import_nothing():
    paths = sorted((ROOT / 'configs').rglob('*.py'))
    assert len(paths) > 150
    found = [
        path.name
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    assert found == []


def test_the_command_line_starts_without_torch():
    code = (
        'import sys, mmresnest.cli.main, mmresnest.cli.doctor; '
        'print(sorted({"torch", "numpy", "mmengine", "mmcv"} & set(sys.modules)))'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == '[]', run.stderr
