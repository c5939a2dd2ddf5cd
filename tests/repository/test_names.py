"""Names: functions are verb_noun in the field's terms, spelled the American way."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / 'mmresnest'

NO_VERBS = set(
    'told said held kept left given known shown drawn made found taken written sown built meant '
    'seen done gone hidden spent met sent chosen thrown worn split_up '
    'anew apart together again beside elsewhere aside within below ahead here there once'.split()
)
"""Participles and adverbs that no ending gives away."""

VERBS = set(
    'embed feed need seed shed speed apply multiply supply reply family bring ping string'.split()
)
"""Verbs and nouns that end like a participle or an adverb."""

BRITISH = re.compile(
    'colour|behaviour|neighbour|favour|honour|centre|grey|metre(?!s)|licence|analyse|'
    'catalogue|labell|modell|cancell|travell|'
    '(?:optim|initial|recogn|quant|normal|synchron|serial|general|summar|organ|minim|maxim|'
    'parametr|real|visual|local|categor|custom|util|emphas|standard|memor|final|special)is(?:e|ing|ation)'
)

NOT_IMPERATIVE = set(
    'the a an what whether where when how who which why all each every one two no none some any '
    'this that these those its their such same only if as in on of for from with by at to and or '
    'is are was whatever whoever not number names value values'.split()
)
"""First words of a docstring that say no verb."""

VERBS_IN_S = set(
    'pass process compress address access express focus cross guess discuss suppress'.split()
)


class Function(NamedTuple):
    """A function or method of the package."""

    room: str
    place: str
    name: str
    doc: str
    is_public: bool
    is_property: bool


@cache
def parse_package() -> dict[Path, ast.Module]:
    """Map each file of the package, but what .mim links to, to its tree."""
    return {
        path.relative_to(ROOT): ast.parse(path.read_text(encoding='utf-8'))
        for path in sorted(PACKAGE.rglob('*.py'))
        if '.mim' not in path.parts
    }


def find_functions(path: Path, tree: ast.AST, is_public: bool = True) -> Iterator[Function]:
    """Yield the functions of a file, those in classes and functions included."""
    for node in ast.iter_child_nodes(tree):
        public = is_public
        if isinstance(node, ast.ClassDef):
            public = is_public and not node.name.startswith('_')
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            marks = ' '.join(ast.unparse(mark) for mark in node.decorator_list)
            yield Function(
                path.parts[1] if len(path.parts) > 2 else '.',
                f'{path}:{node.lineno}',
                node.name,
                ast.get_docstring(node) or '',
                is_public and not node.name.startswith('_'),
                bool(re.search(r'property|\.setter', marks)),
            )
            public = False
        yield from find_functions(path, node, public)


@cache
def list_functions() -> list[Function]:
    """List all functions of the package but those with double underscores."""
    return [
        function
        for path, tree in parse_package().items()
        for function in find_functions(path, tree)
        if not re.fullmatch('__.*__', function.name)
    ]


def has_one_word(name: str) -> bool:
    return '_' not in name.strip('_')


def is_participle(name: str) -> bool:
    """Return whether a name is one word that is no action, as ``attended`` and ``told``."""
    word = name.strip('_')
    if '_' in word or word in VERBS:
        return False
    return word in NO_VERBS or bool(re.search('(?:ed|ing|ly)$', word))


def is_imperative(doc: str) -> bool:
    """Return whether a docstring begins with a verb that tells the function what to do."""
    word = re.match(r'[`\w-]*', doc)[0].strip('`').lower()
    if word in VERBS_IN_S or word in VERBS:
        return True
    return bool(word) and word not in NOT_IMPERATIVE and not re.search('(?:s|ed|ing|ly)$', word)


def group_by_room(lines: Iterable[tuple[str, str]]) -> str:
    """Write what was found, room by room, for the message of a test that fails."""
    rooms = defaultdict(list)
    for room, line in lines:
        rooms[room].append(line)
    return ''.join(
        f'\n{room} ({len(found)})\n    ' + '\n    '.join(found) for room, found in rooms.items()
    )


def find_one_word_names() -> list[Function]:
    return [function for function in list_functions() if has_one_word(function.name)]


def find_participles() -> list[tuple[str, str]]:
    return [
        (function.room, f'{function.place} {function.name}')
        for function in list_functions()
        if is_participle(function.name) and not function.is_property
    ]


def find_british_names() -> list[tuple[str, str]]:
    """List identifiers: of functions, classes, arguments, variables, attributes and modules."""
    found = {}
    for path, tree in parse_package().items():
        room = path.parts[1] if len(path.parts) > 2 else '.'
        for node in ast.walk(tree):
            for field in ('id', 'attr', 'name', 'arg', 'module', 'asname'):
                name = getattr(node, field, None)
                if isinstance(name, str) and BRITISH.search(name.lower()):
                    found.setdefault((path, name), (room, f'{path}:{node.lineno} {name}'))
        if BRITISH.search(str(path)):
            found[path, ''] = room, str(path)
    return list(found.values())


def find_other_docstrings() -> list[tuple[str, str]]:
    return [
        (function.room, f'{function.place} {function.name}: {function.doc.splitlines()[0]}')
        for function in list_functions()
        if function.is_public
        and not function.is_property
        and function.doc
        and not is_imperative(function.doc)
    ]


def test_the_rules_tell_names_apart():
    """That the tests below cannot pass by seeing nothing."""
    assert len(list_functions()) > 1000
    for name in ('attended', 'lightly', '_told', 'padding', 'anew'):
        assert is_participle(name), name
    for name in ('embed', 'apply', 'seed_all', 'kept_boxes', 'forward'):
        assert not is_participle(name), name
    assert has_one_word('_read') and not has_one_word('_read_json')
    for doc in ('Return it.', 'Process a batch.', 'Read ``x``.', 'Embed.'):
        assert is_imperative(doc), doc
    for doc in ('The boxes.', 'Returns it.', 'Whether it is.', 'What is left.', 'Called once.', ''):
        assert not is_imperative(doc), doc
    assert BRITISH.search('text_colour') and BRITISH.search('optimiser')
    assert not BRITISH.search('color_type') and not BRITISH.search('noise')


def test_functions_have_more_than_one_word():
    """At most 35 % have one: of the field's libraries, 21 to 44 % do."""
    found = find_one_word_names()
    share = len(found) / len(list_functions())
    lines = [(function.room, f'{function.place} {function.name}') for function in found]
    assert share <= 0.35, f'{share:.1%}{group_by_room(lines)}'


def test_no_function_is_named_by_a_participle_or_an_adverb():
    found = find_participles()
    assert not found, group_by_room(found)


def test_identifiers_are_american():
    found = find_british_names()
    assert not found, group_by_room(found)


def test_docstrings_begin_with_an_imperative():
    found = find_other_docstrings()
    assert not found, group_by_room(found)
