"""Configs read as data: a config of Python without executing it.

A config is a program.  :func:`parse` evaluates by itself the part of the language that configs are
written in: assignments, literals and ``dict()``, names, arithmetic, comprehensions, ``if`` and
``for``, methods such as ``update`` of dictionaries, inheritance and templates.  Whatever is beyond
it is refused by file and line, and so is what would take memory or time without end.  What is read
is what mmengine reads, or nothing: inheriting and merging are mmengine's own.

What a config *names* is part of it, too.  mmengine imports the package before the dot of a
``type``, and what no registry has it takes for a module and what is in it:
``dict(type='os.system', command=...)``.  So a ``type`` may name what the registries of six packages
have, see :mod:`mmresnest.security.registries`, and nothing that evaluates its arguments.
``custom_imports`` may name modules of those packages.

A config that is read so still decides which files are read and written and which weights are
fetched.
"""

from __future__ import annotations

import ast
import json
import operator
import os
import re
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import Config, ConfigDict
from mmengine.fileio import load
from mmengine.utils import import_modules_from_strings

from ..errors import UserError
from .pickles import check_nesting
from .registries import SCOPES

LONGEST_FILE, MOST_FILES, DEEPEST = 2**19, 256, 32
"""Characters of a config, files that it inherits from, and how far one is from the first."""

EFFORT = 2 * 10**6
"""Steps of all files, and the parts and characters of all that they make."""

LONGEST_INT = 4096  # bits

#: registered names whose classes hand arguments to eval()
EVALUATING = ('CameraMotionCompensation', 'RFSearchHook')

Scalar = (str, bytes, int, float, complex, type(None))


def parse(path: str | os.PathLike) -> Config:
    """Reads a config without executing it.

    Args:
        path: a file, .py, .json or .yml.

    Returns:
        what ``Config.fromfile`` would return.

    Raises:
        UserError: the file, or one that it inherits from, is missing or broken, or holds what is
            not data.
    """
    file = Path(path).expanduser().absolute()
    files = _Files()
    content, text = files.read(file, 0)
    try:
        cfg = Config(content, cfg_text=text, filename=str(path), env_variables=files.environment)
    except KeyError as error:
        raise UserError(f'the config {file}: {error.args[0]}') from error
    _check_names(content, str(file))
    if content.get('custom_imports'):
        _import(content['custom_imports'], str(file))
    return cfg


def _import(wanted: Any, where: str) -> None:
    """Imports what the config asks for, of the packages whose registries it may name."""
    names = wanted.get('imports') if isinstance(wanted, dict) else None
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)) or not all(
        isinstance(name, str) and name.partition('.')[0] in SCOPES for name in names
    ):
        raise UserError(
            f'{where}: custom_imports would import {names!r:.80}, and the config is '
            f'read as data; accepted are modules of {", ".join(SCOPES)}: look at that '
            'code, and leave --safe-config out if you trust it'
        )
    try:
        import_modules_from_strings(list(names), bool(wanted.get('allow_failed_imports')))
    except ImportError as error:
        raise UserError(f'{where}: custom_imports cannot be imported: {error}') from error


def _check_names(value: Any, where: str) -> None:
    """Refuses what would import or evaluate code when something is built of it."""
    if isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            _check_names(item, f'{where}: {number}')
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key in ('_scope_', 'default_scope') and item is not None and item not in SCOPES:
            raise UserError(
                f'{where}: {key}={item!r:.80} would import that package, and the '
                f'config is read as data; accepted: {", ".join(SCOPES)}'
            )
        if key == 'type' and isinstance(item, str):
            _check_type(item, where)
        _check_names(item, f'{where}: {key}')


def _check_type(name: str, where: str) -> None:
    scope, dot, rest = name.rpartition('.')
    if not re.fullmatch(r'\w+', rest) or (dot and scope not in SCOPES) or rest in EVALUATING:
        raise UserError(
            f'{where}: type={name!r:.80} is no name of a registry of '
            f'{", ".join(SCOPES)} that takes data only, and the config is read as '
            'data; if you trust the config, leave --safe-config out'
        )


# Files and what they inherit ---------------------------------------------------------------------


class _Files:
    """The files of one config: each read by the rules of mmengine, all within one limit."""

    def __init__(self) -> None:
        self.count, self.left = 0, EFFORT
        self.environment: dict[str, str] = {}

    def read(self, path: Path, depth: int) -> tuple[dict, str]:
        """The settings of a file, merged into those it inherits, and the text of all of them."""
        self.count += 1
        if self.count > MOST_FILES or depth > DEEPEST:
            raise UserError(
                f'{path}: this config inherits from more than {MOST_FILES} files or '
                f'over more than {DEEPEST} others; it may inherit from itself'
            )
        source = _text_of(path)
        text, places = self._substituted(source, path)
        python = path.suffix == '.py'
        program = _Program(text, path, self) if python else None
        content = {} if python else _plain_content(text, path)
        bases = program.bases() if program else content.get('_base_', [])
        inherited, texts = ConfigDict(), []
        for base in bases if isinstance(bases, list) else [bases]:
            found, scope = _locate(base, path)
            one, one_text = self.read(found, depth + 1)
            twice = inherited.keys() & one.keys()
            if twice:
                raise UserError(
                    f'{path}: its bases have settings of one name: '
                    f'{", ".join(sorted(map(str, twice)))}'
                )
            inherited.update(Config._dict_to_config_dict(one, scope))
            texts.append(one_text)
        if program:
            content = program.run(inherited)
        self.left -= check_nesting(content, str(path))
        return self._merged(content, inherited, places, path), '\n'.join(
            [*texts, f'{path}\n{source}']
        )

    def _merged(self, content: dict, inherited: ConfigDict, places: dict, path: Path) -> dict:
        outdated = content.pop('_deprecation_', None)
        if outdated:
            warnings.warn(
                f'the config {path} is deprecated: {outdated}', DeprecationWarning, stacklevel=2
            )
        try:
            content = Config._substitute_base_vars(content, places, inherited)
            content.pop('_base_', None)
            merged = Config._merge_a_into_b(content, inherited)
        except (TypeError, KeyError, AttributeError, IndexError) as error:
            raise UserError(
                f'the config {path} cannot be merged with those it inherits from: '
                f'{type(error).__name__}: {error}'
            ) from error
        self.left -= check_nesting(merged, str(path))
        if self.left < 0:
            raise UserError(f'the config {path} makes more than a config needs')
        return {key: value for key, value in merged.items() if not key.startswith('__')}

    def _substituted(self, text: str, path: Path) -> tuple[str, dict[str, str]]:
        """The text with its templates filled in, and the marks of those that wait for the bases."""
        for key, value in (
            ('fileDirname', str(path.parent)),
            ('fileBasename', path.name),
            ('fileBasenameNoExtension', path.stem),
            ('fileExtname', path.suffix),
        ):
            value = value.replace('\\', '/')
            text = re.sub(rf'\{{\{{\s*{key}\s*\}}\}}', value, text)
        text = re.sub(
            r'\{\{[\'"]?\s*\$(\w{1,100})\s*:\s*(\S{0,300}?)\s*[\'"]?\}\}',
            lambda found: self._variable(found[1], found[2], path),
            text,
        )
        places: dict[str, str] = {}

        def mark(found: re.Match) -> str:
            name = f'_{found[1]}_{uuid.uuid4().hex[:6]}'
            places[name] = found[1]
            return f'"{name}"'

        return re.sub(r'\{\{\s*_base_\.([\w.]+)\s*\}\}', mark, text), places

    def _variable(self, name: str, default: str, path: Path) -> str:
        if name in os.environ:
            self.environment[name] = os.environ[name]
        value = os.environ.get(name, default)
        if not value:
            raise UserError(
                f'{path} takes a setting from the environment variable {name}, which '
                'is not set; set it'
            )
        return value


def _text_of(path: Path) -> str:
    if path.suffix not in ('.py', '.json', '.yml', '.yaml'):
        raise UserError(f'{path} is not a config: its name must end in .py, .json or .yml')
    try:
        if path.stat().st_size > LONGEST_FILE:
            raise UserError(f'the config {path} is longer than {LONGEST_FILE} bytes')
        return path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'the config {path} cannot be read: {error}') from error


def _plain_content(text: str, path: Path) -> dict:
    try:
        content = (
            json.loads(text) if path.suffix == '.json' else load(StringIO(text), file_format='yaml')
        )
    except Exception as error:  # of a yaml library that is mmengine's to choose
        raise UserError(f'the config {path} cannot be parsed: {error}') from error
    if not isinstance(content, dict):
        raise UserError(f'the config {path} holds no settings by name')
    return content


def _locate(base: Any, path: Path) -> tuple[Path, str | None]:
    """The file that an entry of ``_base_`` means, and the package of its parts."""
    if not isinstance(base, str):
        raise UserError(f'{path}: its _base_ {base!r:.80} is no text')
    try:
        found, scope = Config._get_cfg_path(base, str(path))
    except UserError:
        raise
    except Exception as error:  # a package's index of models may fail in any way
        raise UserError(
            f'{path}: its _base_ {base:.200} is not found: {type(error).__name__}: {error}'
        ) from error
    file = Path(os.path.normpath(found))
    if not file.is_file():
        raise UserError(f'{path}: its _base_ {file} does not exist')
    return file, scope


# The language ------------------------------------------------------------------------------------


class _Program:
    """A config's code, evaluated by walking over it.

    Args:
        text: the code.
        path: its file, for messages.
        files: what counts the effort.
    """

    def __init__(self, text: str, path: Path, files: _Files) -> None:
        self.path, self.files = path, files
        self.scopes: list[dict[str, Any]] = [{}]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', SyntaxWarning)
                self.body = ast.parse(text, str(path)).body
        except SyntaxError as error:
            raise UserError(f'{path}, line {error.lineno}: {error.msg}') from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise UserError(
                f'the config {path} cannot be parsed: {error or type(error).__name__}'
            ) from error

    def bases(self) -> Any:
        """The value of ``_base_``."""
        given = [node for node in self.body if isinstance(node, ast.Assign) and _is_base(node)]
        return self._guarded(self.value, given[0].value) if given else []

    def run(self, inherited: ConfigDict) -> dict[str, Any]:
        """The names that the code assigns."""
        self.scopes = [{'_base_': inherited}]
        for node in self.body:
            self._guarded(self.statement, node)
        names = {
            name: value
            for name, value in self.scopes[0].items()
            if name != '_base_' and not name.startswith('__')
        }
        check_nesting(names, str(self.path))
        self._check_data(names)
        return names

    def _guarded(self, run: Callable[[Any], Any], node: ast.AST) -> Any:
        try:
            return run(node)
        except (
            TypeError,
            ValueError,
            LookupError,
            ArithmeticError,
            AttributeError,
            RecursionError,
            MemoryError,
        ) as error:
            if isinstance(error, UserError):
                raise
            raise self.error(node, f'{type(error).__name__}: {error}') from error

    def _check_data(self, names: dict[str, Any]) -> None:
        """Refuses iterators and views, which another reading would not find equal."""
        stack: list[Any] = [names]
        seen = set()
        while stack:
            value = stack.pop()
            if isinstance(value, (dict, list, tuple, set)):
                if id(value) not in seen:
                    seen.add(id(value))
                    stack.extend(value.values() if isinstance(value, dict) else value)
            elif not isinstance(value, (*Scalar, range)):
                raise UserError(
                    f'{self.path}: a setting is a {type(value).__name__}; make a list of it'
                )

    def error(self, node: ast.AST, said: str) -> UserError:
        """An error with file and line."""
        return UserError(f'{self.path}, line {getattr(node, "lineno", "?")}: {said}')

    def unsupported(self, node: ast.AST, why: str = '') -> NoReturn:
        """Refuses what is not data."""
        what = {
            'ImportFrom': 'an import',
            'Import': 'an import',
            'With': 'with (a config of read_base() is Python to the core)',
        }.get(type(node).__name__, why or (f'{type(node).__name__}'))
        raise self.error(
            node,
            f'{what} is not evaluated where a config is read as data; write it '
            'out, or leave --safe-config out if you trust the config',
        )

    def spend(self, value: Any, node: ast.AST) -> Any:
        """Counts a value and what it took."""
        size = 1
        if isinstance(value, (str, bytes, list, tuple, dict, set, range)):
            size += len(value)
        elif isinstance(value, int) and value.bit_length() > LONGEST_INT:
            raise self.error(node, f'a number of more than {LONGEST_INT} bits')
        self.afford(size, node)
        self.files.left -= size
        return value

    def afford(self, size: float, node: ast.AST) -> None:
        """Makes sure, before something is made, that it may be."""
        if size > self.files.left:
            raise self.error(node, f'this takes more than a config needs ({EFFORT} parts)')

    # Statements

    def statement(self, node: ast.stmt) -> None:
        """Carries out a statement."""
        self.spend(None, node)
        if isinstance(node, ast.Assign):
            if _is_base(node):
                return
            value = self.value(node.value)
            for target in node.targets:
                self.assign(target, value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self.assign(node.target, self.value(node.value))
        elif isinstance(node, ast.AugAssign):
            self.augment(node)
        elif isinstance(node, ast.Expr):
            self.value(node.value)
        elif isinstance(node, ast.If):
            for inner in node.body if self.value(node.test) else node.orelse:
                self.statement(inner)
        elif isinstance(node, ast.For) and not node.orelse:
            for item in self.iterable(node.iter):
                self.assign(node.target, item)
                for inner in node.body:
                    self.statement(inner)
        elif isinstance(node, ast.Delete):
            for target in node.targets:
                self.delete(target)
        elif not isinstance(node, ast.Pass):
            self.unsupported(node)

    def assign(self, target: ast.expr, value: Any) -> None:
        """Binds a name, several, or an item."""
        if isinstance(target, ast.Name):
            self.scopes[-1][target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            values = list(value) if isinstance(value, (list, tuple)) else []
            if len(values) != len(target.elts):
                self.unsupported(target, 'this assignment to several names')
            for one, item in zip(target.elts, values):
                self.assign(one, item)
        elif isinstance(target, (ast.Subscript, ast.Attribute)):
            owner, key = self.place(target)
            self.settle(owner, value, target)
            owner[key] = value
        else:
            self.unsupported(target)

    def delete(self, target: ast.expr) -> None:
        """Unbinds a name or an item."""
        if isinstance(target, ast.Name):
            del self.scopes[-1][target.id]
        elif isinstance(target, (ast.Subscript, ast.Attribute)):
            owner, key = self.place(target)
            del owner[key]
        else:
            self.unsupported(target)

    def place(self, target: ast.Subscript | ast.Attribute) -> tuple[Any, Any]:
        """A container and a key or number in it."""
        owner = self.value(target.value)
        if isinstance(target, ast.Attribute):
            if not isinstance(owner, ConfigDict) or hasattr(ConfigDict, target.attr):
                self.unsupported(target, f'.{target.attr}')
            return owner, target.attr
        key = self.value(target.slice)
        if not (
            isinstance(owner, dict)
            and self.is_key(key)
            or isinstance(owner, list)
            and isinstance(key, int)
        ):
            self.unsupported(target, 'this place')
        return owner, key

    def settle(self, owner: Any, value: Any, node: ast.AST) -> None:
        """A ConfigDict copies what it is given, so that it must be looked over before."""
        if isinstance(owner, ConfigDict):
            parts = check_nesting(value, f'{self.path}, line {getattr(node, "lineno", "?")}')
            self.afford(parts, node)
            self.files.left -= parts

    def augment(self, node: ast.AugAssign) -> None:
        """``+=`` and its like; of a list it changes the list."""
        if not isinstance(node.target, ast.Name):
            self.unsupported(node, 'this assignment')
        old = self.name(node.target)
        new = self.value(node.value)
        result = self.operation(node, node.op, old, new)
        if isinstance(old, list):
            old[:] = result
            result = old
        self.assign(node.target, result)

    # Expressions

    def value(self, node: ast.AST) -> Any:
        """Evaluates an expression."""
        method = self.EXPRESSIONS.get(type(node))
        if method is None:
            self.unsupported(node)
        return self.spend(method(self, node), node)

    def constant(self, node: ast.Constant) -> Any:
        """A number, a text, None, True or False."""
        return node.value if isinstance(node.value, Scalar) else self.unsupported(node, '...')

    def name(self, node: ast.Name) -> Any:
        """What a name was assigned."""
        for scope in reversed(self.scopes):
            if node.id in scope:
                return scope[node.id]
        raise self.error(
            node,
            f'the name {node.id} is not defined in this file; settings of a '
            'base are written {{_base_.' + node.id + '}}',
        )

    def several(self, nodes: list[ast.expr]) -> list[Any]:
        """The parts of a display or a call, ``*these`` unpacked."""
        values: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                values.extend(self.iterable(node.value))
            else:
                values.append(self.value(node))
        return values

    def display(self, node: ast.List | ast.Tuple | ast.Set) -> Any:
        """A list, tuple or set."""
        values = self.several(node.elts)
        if isinstance(node, ast.Set):
            return set(map(self.key, values, [node] * len(values)))
        return values if isinstance(node, ast.List) else tuple(values)

    def dictionary(self, node: ast.Dict) -> dict:
        """A dictionary's display."""
        result: dict = {}
        for key, value in zip(node.keys, node.values):
            if key is None:
                result.update(self.mapping(value))
            else:
                result[self.key(self.value(key), key)] = self.value(value)
        return result

    def mapping(self, node: ast.expr) -> dict:
        """What ``**`` stands before."""
        value = self.value(node)
        return value if isinstance(value, dict) else self.unsupported(node, '** of another thing')

    @staticmethod
    def is_key(value: Any) -> bool:
        """Scalars, and tuples of them: hashing goes through whatever is nested."""
        return isinstance(value, Scalar) or (
            isinstance(value, tuple) and all(isinstance(item, Scalar) for item in value)
        )

    def key(self, value: Any, node: ast.AST) -> Any:
        """A key of a dictionary."""
        return value if self.is_key(value) else self.unsupported(node, 'a nested key')

    def unary(self, node: ast.UnaryOp) -> Any:
        """``-x``, ``+x``, ``not x``."""
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            return not value
        if not isinstance(value, (int, float)) or isinstance(node.op, ast.Invert):
            self.unsupported(node)
        return -value if isinstance(node.op, ast.USub) else +value

    def binary(self, node: ast.BinOp) -> Any:
        """Arithmetic."""
        return self.operation(node, node.op, self.value(node.left), self.value(node.right))

    def operation(self, node: ast.AST, op: ast.operator, left: Any, right: Any) -> Any:
        """The result of an operator, where its size can be told before."""
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if isinstance(op, ast.Add) and any(
            isinstance(left, kind) and isinstance(right, kind) for kind in (str, list, tuple)
        ):
            self.afford(len(left) + len(right), node)
            return left + right
        if isinstance(op, ast.Mult) and not numbers:
            long, times = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(long, (str, list, tuple)) and isinstance(times, int):
                self.afford(len(long) * times, node)
                return long * times
        if (
            isinstance(op, ast.Pow)
            and isinstance(left, int)
            and isinstance(right, int)
            and (left.bit_length() * abs(right) > LONGEST_INT)
        ):
            raise self.error(node, f'a number of more than {LONGEST_INT} bits')
        if not numbers or type(op) not in OPERATORS:
            self.unsupported(
                node, f'{type(op).__name__} of a {type(left).__name__} and a {type(right).__name__}'
            )
        return OPERATORS[type(op)](left, right)

    def either(self, node: ast.BoolOp) -> Any:
        """``and``, ``or``: the first that decides."""
        for part in node.values:
            value = self.value(part)
            if bool(value) is isinstance(node.op, ast.Or):
                break
        return value

    def choice(self, node: ast.IfExp) -> Any:
        """``a if b else c``."""
        return self.value(node.body if self.value(node.test) else node.orelse)

    def comparison(self, node: ast.Compare) -> bool:
        """Comparisons of scalars: others would go through whatever is nested."""
        left = self.value(node.left)
        for op, part in zip(node.ops, node.comparators):
            right = self.value(part)
            within = isinstance(op, (ast.In, ast.NotIn))
            if not isinstance(left, Scalar) or not (
                isinstance(right, (str, list, tuple, dict, set, range))
                if within
                else isinstance(right, Scalar)
            ):
                self.unsupported(node, 'this comparison')
            if within:
                self.afford(len(right), node)
                self.files.left -= len(right)
            if not COMPARISONS[type(op)](left, right):
                return False
            left = right
        return True

    def text(self, node: ast.JoinedStr) -> str:
        """An f-string of scalars."""
        return ''.join(map(str, map(self.value, node.values)))

    def formatted(self, node: ast.FormattedValue) -> str:
        """A value within an f-string."""
        value = self.value(node.value)
        form = '' if node.format_spec is None else self.value(node.format_spec)
        if not isinstance(value, Scalar) or not re.fullmatch(
            r'[<>=^]?[-+ ]?0?\d{0,2},?(\.\d{1,2})?[bdeEfFgGosxX%]?', form
        ):
            self.unsupported(node, 'this part of an f-string')
        value = {-1: value, 115: str(value), 114: repr(value), 97: ascii(value)}[node.conversion]
        return format(value, form)

    def subscript(self, node: ast.Subscript) -> Any:
        """An item or a slice."""
        owner = self.value(node.value)
        if isinstance(node.slice, ast.Slice):
            if not isinstance(owner, (str, bytes, list, tuple, range)):
                self.unsupported(node, 'this slice')
            bounds = [
                None if part is None else self.value(part)
                for part in (node.slice.lower, node.slice.upper, node.slice.step)
            ]
            return owner[slice(*bounds)]
        key = self.key(self.value(node.slice), node)
        if not isinstance(owner, (str, bytes, list, tuple, range, dict)):
            self.unsupported(node, 'this subscript')
        return owner[key]

    def attribute(self, node: ast.Attribute) -> Any:
        """``_base_.model.backbone``: settings of what was inherited, and nothing else."""
        owner = self.value(node.value)
        if not isinstance(owner, ConfigDict) or hasattr(ConfigDict, node.attr):
            self.unsupported(node, f'.{node.attr}')
        return owner[node.attr]

    def comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Any:
        """A comprehension; of a generator, the list of what it would generate."""
        values = [self.value(node.elt) for _ in self.loops(node.generators)]
        return (
            set(map(self.key, values, [node] * len(values)))
            if isinstance(node, ast.SetComp)
            else values
        )

    def dictionary_comprehension(self, node: ast.DictComp) -> dict:
        """A dictionary's."""
        return {
            self.key(self.value(node.key), node): self.value(node.value)
            for _ in self.loops(node.generators)
        }

    def loops(self, generators: list[ast.comprehension]) -> Iterator[None]:
        """Runs through the loops of a comprehension, its names bound."""
        first, rest = generators[0], generators[1:]
        items = self.iterable(first.iter)
        self.scopes.append({})
        try:
            for item in items:
                self.assign(first.target, item)
                if all(self.value(test) for test in first.ifs):
                    yield from self.loops(rest) if rest else (None,)
        finally:
            self.scopes.pop()

    def iterable(self, node: ast.expr) -> list[Any]:
        """What a loop runs over."""
        value = self.value(node)
        if isinstance(value, Scalar) and not isinstance(value, str):
            self.unsupported(node, 'a loop over this')
        return self.spend(list(value), node)

    # Calls

    def call(self, node: ast.Call) -> Any:
        """A call of a function or method of the lists below."""
        arguments = self.several(node.args)
        named: dict[str, Any] = {}
        for part in node.keywords:
            more = (
                self.mapping(part.value) if part.arg is None else {part.arg: self.value(part.value)}
            )
            if more.keys() & named.keys() or not all(isinstance(key, str) for key in more):
                raise self.error(
                    part, 'an argument is given twice, or by something else than its name'
                )
            named.update(more)
        if isinstance(node.func, ast.Attribute):
            return self.method(node.func, arguments, named)
        word = node.func.id if isinstance(node.func, ast.Name) else ''
        if word not in FUNCTIONS or any(word in scope for scope in self.scopes):
            self.unsupported(node, f'a call of {word or "this"}')
        self.check_arguments(word, arguments, node)
        return FUNCTIONS[word](*arguments, **named)

    def check_arguments(self, word: str, arguments: list[Any], node: ast.Call) -> None:
        """That a function will not run through more than its arguments' own parts."""
        if word in ('dict', 'set'):
            for part in arguments:
                keys = (
                    [pair[0] for pair in part]
                    if isinstance(part, (list, tuple)) and (word == 'dict')
                    else part
                )
                for key in keys:
                    self.key(key, node)
        elif word in ('int', 'float', 'str', 'abs', 'round') and not all(
            isinstance(value, Scalar) for value in arguments
        ):
            self.unsupported(node, f'{word}() of a container')
        elif word == 'range':
            self.afford(len(range(*arguments)), node)
        elif word in ('sum', 'min', 'max'):
            parts = arguments[0] if len(arguments) == 1 else arguments
            if node.keywords or not all(isinstance(part, (int, float)) for part in parts):
                self.unsupported(node, f'{word}() of what is not numbers')
        elif node.keywords and word not in ('enumerate',):
            self.unsupported(node, f'{word}() with names')

    def method(self, node: ast.Attribute, arguments: list[Any], named: dict[str, Any]) -> Any:
        """A method of a dictionary or list."""
        owner = self.value(node.value)
        kind = dict if isinstance(owner, dict) else list if type(owner) is list else None
        if kind is None or node.attr not in METHODS[kind]:
            self.unsupported(node, f'a call of .{node.attr}()')
        if kind is dict and node.attr in ('pop', 'get'):
            self.key(arguments[0], node)
        self.settle(owner, (arguments, named), node)
        if node.attr == 'update' and not all(isinstance(one, dict) for one in arguments):
            self.unsupported(node, 'update() by what is no dictionary')
        return getattr(owner, node.attr)(*arguments, **named)

    EXPRESSIONS: Mapping[type, Callable[[Any, Any], Any]] = {
        ast.Constant: constant,
        ast.Name: name,
        ast.List: display,
        ast.Tuple: display,
        ast.Set: display,
        ast.Dict: dictionary,
        ast.UnaryOp: unary,
        ast.BinOp: binary,
        ast.BoolOp: either,
        ast.IfExp: choice,
        ast.Compare: comparison,
        ast.JoinedStr: text,
        ast.FormattedValue: formatted,
        ast.Subscript: subscript,
        ast.Attribute: attribute,
        ast.ListComp: comprehension,
        ast.SetComp: comprehension,
        ast.GeneratorExp: comprehension,
        ast.DictComp: dictionary_comprehension,
        ast.Call: call,
    }


OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}

COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda item, whole: item in whole,
    ast.NotIn: lambda item, whole: item not in whole,
}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        dict,
        list,
        tuple,
        set,
        len,
        range,
        sum,
        min,
        max,
        abs,
        int,
        float,
        str,
        bool,
        round,
        enumerate,
        zip,
    )
}

METHODS: dict[type, tuple[str, ...]] = {
    dict: ('update', 'pop', 'get', 'copy', 'keys', 'values', 'items'),
    list: ('append', 'extend', 'copy'),
}


def _is_base(node: ast.stmt) -> bool:
    """Whether mmengine takes a statement for the ``_base_`` of its file."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == '_base_'
    )
