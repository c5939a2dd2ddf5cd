"""The language that configs are written in, evaluated by walking over its syntax tree.

It is what the configs of mmdet, mmseg and this package use: assignments, ``del``, literals and
``dict()``, names, arithmetic, f-strings, comprehensions, methods such as ``update`` of
dictionaries. Of 3,559 of those configs none needs loops, conditions or comparisons. Whatever is
beyond it is refused by file and line, and so is what would take memory or time without end.
"""

import ast
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import ConfigDict

from ..errors import UserError
from .nesting import check_nesting
from .pickles import BROKEN

EFFORT = 2 * 10**6
"""Steps of all files of a config, and the parts and characters of all that they make."""

LONGEST_INT = 4096  # bits

Scalar = (str, bytes, int, float, complex, type(None))


class Budget:
    """What the evaluation of a config may still take, over all its files."""

    def __init__(self) -> None:
        self.left = EFFORT


class Program:
    """A config's code.

    Args:
        text: the code.
        path: its file, for messages.
        budget: what counts the effort.
    """

    def __init__(self, text: str, path: Path, budget: Budget) -> None:
        self.path, self.budget = path, budget
        self.scopes: list[dict[str, Any]] = [{}]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', SyntaxWarning)
                self.body = ast.parse(text, str(path)).body
        except SyntaxError as error:
            raise UserError(
                f'{path}, line {error.lineno}: {error.msg}', code='config.unparsable'
            ) from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise UserError(
                f'the config {path} cannot be parsed: {str(error) or type(error).__name__}',
                code='config.unparsable',
            ) from error

    def read_bases(self) -> Any:
        """Return the value of ``_base_``."""
        bases = [node for node in self.body if isinstance(node, ast.Assign) and _is_base(node)]
        return self._guard(self.evaluate, bases[0].value) if bases else []

    def run(self, inherited: ConfigDict) -> dict[str, Any]:
        """Return the names that the code assigns, and their values."""
        self.scopes = [{'_base_': inherited}]
        for node in self.body:
            self._guard(self.run_statement, node)
        names = {
            name: value
            for name, value in self.scopes[0].items()
            if name != '_base_' and not name.startswith('__')
        }
        check_nesting(names, str(self.path))
        self._check_data(names)
        return names

    def _guard(self, function: Callable[[Any], Any], node: ast.AST) -> Any:
        try:
            return function(node)
        except UserError:
            raise
        except BROKEN as error:
            raise self.error(node, f'{type(error).__name__}: {error}') from error

    def _check_data(self, names: dict[str, Any]) -> None:
        """Refuse iterators and views, which another reading would not find equal."""
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
                    f'{self.path}: a setting is a {type(value).__name__}; make a list of it',
                    code='config.unsafe',
                )

    def error(self, node: ast.AST, message: str) -> UserError:
        """Return an error with file and line."""
        return UserError(
            f'{self.path}, line {getattr(node, "lineno", "?")}: {message}', code='config.unsafe'
        )

    def refuse(self, node: ast.AST, what: str = '') -> NoReturn:
        """Refuse what is not data."""
        known = {
            'ImportFrom': 'an import',
            'Import': 'an import',
            'With': 'with (a config of read_base() is Python to the core)',
        }
        name = type(node).__name__
        raise self.error(
            node,
            f'{known.get(name, what or name)} is not evaluated where a config is read as data; '
            'write it out, or leave --safe-config out if you trust the config',
        )

    def spend(self, value: Any, node: ast.AST) -> Any:
        """Count a value and what it took; return it."""
        size = 1
        if isinstance(value, (str, bytes, list, tuple, dict, set, range)):
            size += len(value)
        elif isinstance(value, int) and value.bit_length() > LONGEST_INT:
            raise self.error(node, f'a number of more than {LONGEST_INT} bits')
        self.check_budget(size, node)
        self.budget.left -= size
        return value

    def check_budget(self, size: float, node: ast.AST) -> None:
        """Refuse something before it is made, if it is more than is left."""
        if size > self.budget.left:
            raise self.error(node, f'this takes more than a config needs ({EFFORT} parts)')

    def run_statement(self, node: ast.stmt) -> None:
        """Carry out a statement."""
        self.spend(None, node)
        if isinstance(node, ast.Assign):
            if _is_base(node):
                return
            value = self.evaluate(node.value)
            for target in node.targets:
                self.assign(target, value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self.assign(node.target, self.evaluate(node.value))
        elif isinstance(node, ast.Expr):
            self.evaluate(node.value)
        elif isinstance(node, ast.Delete):
            for target in node.targets:
                self.delete(target)
        elif not isinstance(node, ast.Pass):
            self.refuse(node)

    def assign(self, target: ast.expr, value: Any) -> None:
        """Bind a name, several, or an item."""
        if isinstance(target, ast.Name):
            self.scopes[-1][target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            values = list(value) if isinstance(value, (list, tuple)) else []
            if len(values) != len(target.elts):
                self.refuse(target, 'this assignment to several names')
            for one, item in zip(target.elts, values):
                self.assign(one, item)
        elif isinstance(target, (ast.Subscript, ast.Attribute)):
            owner, key = self.find_item(target)
            self.check_copied(owner, value, target)
            owner[key] = value
        else:
            self.refuse(target)

    def delete(self, target: ast.expr) -> None:
        """Unbind a name or an item."""
        if isinstance(target, ast.Name):
            del self.scopes[-1][target.id]
        elif isinstance(target, (ast.Subscript, ast.Attribute)):
            owner, key = self.find_item(target)
            del owner[key]
        else:
            self.refuse(target)

    def find_item(self, target: ast.Subscript | ast.Attribute) -> tuple[Any, Any]:
        """Return a container and a key or number in it."""
        owner = self.evaluate(target.value)
        if isinstance(target, ast.Attribute):
            if not isinstance(owner, ConfigDict) or hasattr(ConfigDict, target.attr):
                self.refuse(target, f'.{target.attr}')
            return owner, target.attr
        key = self.evaluate(target.slice)
        if not (
            isinstance(owner, dict)
            and self.is_key(key)
            or isinstance(owner, list)
            and isinstance(key, int)
        ):
            self.refuse(target, 'this place')
        return owner, key

    def check_copied(self, owner: Any, value: Any, node: ast.AST) -> None:
        """Go through what is given to a ConfigDict, which copies it."""
        if isinstance(owner, ConfigDict):
            parts = check_nesting(value, f'{self.path}, line {getattr(node, "lineno", "?")}')
            self.check_budget(parts, node)
            self.budget.left -= parts

    def evaluate(self, node: ast.AST) -> Any:
        """Return the value of an expression."""
        method = self.EXPRESSIONS.get(type(node))
        if method is None:
            self.refuse(node)
        return self.spend(method(self, node), node)

    def evaluate_constant(self, node: ast.Constant) -> Any:
        """Return a number, a text, None, True or False."""
        return node.value if isinstance(node.value, Scalar) else self.refuse(node, '...')

    def evaluate_name(self, node: ast.Name) -> Any:
        """Return what a name was assigned."""
        for scope in reversed(self.scopes):
            if node.id in scope:
                return scope[node.id]
        raise self.error(
            node,
            f'the name {node.id} is not defined in this file; settings of a '
            'base are written {{_base_.' + node.id + '}}',
        )

    def evaluate_items(self, nodes: list[ast.expr]) -> list[Any]:
        """Return the parts of a display or a call, ``*these`` unpacked."""
        values: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                values.extend(self.evaluate_iterable(node.value))
            else:
                values.append(self.evaluate(node))
        return values

    def evaluate_display(self, node: ast.List | ast.Tuple | ast.Set) -> Any:
        """Return a list, tuple or set."""
        values = self.evaluate_items(node.elts)
        if isinstance(node, ast.Set):
            return {self.check_key(value, node) for value in values}
        return values if isinstance(node, ast.List) else tuple(values)

    def evaluate_dict(self, node: ast.Dict) -> dict:
        """Return a dictionary."""
        result: dict = {}
        for key, value in zip(node.keys, node.values):
            if key is None:
                result.update(self.evaluate_mapping(value))
            else:
                result[self.check_key(self.evaluate(key), key)] = self.evaluate(value)
        return result

    def evaluate_mapping(self, node: ast.expr) -> dict:
        """Return what ``**`` stands before."""
        value = self.evaluate(node)
        return value if isinstance(value, dict) else self.refuse(node, '** of another thing')

    @staticmethod
    def is_key(value: Any) -> bool:
        """Return whether a value is a scalar or a tuple of them: hashing reads all levels."""
        return isinstance(value, Scalar) or (
            isinstance(value, tuple) and all(isinstance(item, Scalar) for item in value)
        )

    def check_key(self, value: Any, node: ast.AST) -> Any:
        """Return a key of a dictionary, or refuse it."""
        return value if self.is_key(value) else self.refuse(node, 'a nested key')

    def evaluate_unary(self, node: ast.UnaryOp) -> Any:
        """Return ``-x`` or ``+x``."""
        value = self.evaluate(node.operand)
        if not isinstance(value, (int, float)) or not isinstance(node.op, (ast.USub, ast.UAdd)):
            self.refuse(node, type(node.op).__name__)
        return -value if isinstance(node.op, ast.USub) else +value

    def evaluate_binary(self, node: ast.BinOp) -> Any:
        """Return the result of an operator, where its size can be told before."""
        op, left, right = node.op, self.evaluate(node.left), self.evaluate(node.right)
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if isinstance(op, ast.Add) and any(
            isinstance(left, kind) and isinstance(right, kind) for kind in (str, list, tuple)
        ):
            self.check_budget(len(left) + len(right), node)
            return left + right
        if isinstance(op, ast.Mult) and not numbers:
            long, times = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(long, (str, list, tuple)) and isinstance(times, int):
                self.check_budget(len(long) * times, node)
                return long * times
        if (
            isinstance(op, ast.Pow)
            and isinstance(left, int)
            and isinstance(right, int)
            and left.bit_length() * abs(right) > LONGEST_INT
        ):
            raise self.error(node, f'a number of more than {LONGEST_INT} bits')
        if not numbers or type(op) not in OPERATORS:
            self.refuse(
                node, f'{type(op).__name__} of a {type(left).__name__} and a {type(right).__name__}'
            )
        return OPERATORS[type(op)](left, right)

    def evaluate_fstring(self, node: ast.JoinedStr) -> str:
        """Return an f-string of scalars."""
        return ''.join(str(self.evaluate(part)) for part in node.values)

    def evaluate_formatted(self, node: ast.FormattedValue) -> str:
        """Return the text of a value within an f-string."""
        value = self.evaluate(node.value)
        form = '' if node.format_spec is None else self.evaluate(node.format_spec)
        if not isinstance(value, Scalar) or not re.fullmatch(
            r'[<>=^]?[-+ ]?0?\d{0,2},?(\.\d{1,2})?[bdeEfFgGosxX%]?', form
        ):
            self.refuse(node, 'this part of an f-string')
        value = {-1: value, 115: str(value), 114: repr(value), 97: ascii(value)}[node.conversion]
        return format(value, form)

    def evaluate_subscript(self, node: ast.Subscript) -> Any:
        """Return an item or a slice."""
        owner = self.evaluate(node.value)
        if isinstance(node.slice, ast.Slice):
            if not isinstance(owner, (str, bytes, list, tuple, range)):
                self.refuse(node, 'this slice')
            bounds = [
                None if part is None else self.evaluate(part)
                for part in (node.slice.lower, node.slice.upper, node.slice.step)
            ]
            return owner[slice(*bounds)]
        key = self.check_key(self.evaluate(node.slice), node)
        if not isinstance(owner, (str, bytes, list, tuple, range, dict)):
            self.refuse(node, 'this subscript')
        return owner[key]

    def evaluate_attribute(self, node: ast.Attribute) -> Any:
        """Return ``_base_.model.backbone``: settings of what was inherited, and nothing else."""
        owner = self.evaluate(node.value)
        if not isinstance(owner, ConfigDict) or hasattr(ConfigDict, node.attr):
            self.refuse(node, f'.{node.attr}')
        return owner[node.attr]

    def evaluate_comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Any:
        """Return a comprehension; of a generator, the list of what it would generate."""
        values = [self.evaluate(node.elt) for _ in self.run_loops(node.generators)]
        if isinstance(node, ast.SetComp):
            return {self.check_key(value, node) for value in values}
        return values

    def evaluate_dict_comprehension(self, node: ast.DictComp) -> dict:
        """Return a dictionary made by a comprehension."""
        return {
            self.check_key(self.evaluate(node.key), node): self.evaluate(node.value)
            for _ in self.run_loops(node.generators)
        }

    def run_loops(self, generators: list[ast.comprehension]) -> Iterator[None]:
        """Run through the loops of a comprehension, its names bound."""
        first, rest = generators[0], generators[1:]
        if first.ifs:
            self.refuse(first.ifs[0], 'a condition')
        items = self.evaluate_iterable(first.iter)
        self.scopes.append({})
        try:
            for item in items:
                self.assign(first.target, item)
                yield from self.run_loops(rest) if rest else (None,)
        finally:
            self.scopes.pop()

    def evaluate_iterable(self, node: ast.expr) -> list[Any]:
        """Return what a loop runs over."""
        value = self.evaluate(node)
        if isinstance(value, Scalar) and not isinstance(value, str):
            self.refuse(node, 'a loop over this')
        return self.spend(list(value), node)

    def evaluate_call(self, node: ast.Call) -> Any:
        """Return the result of a function or method of the lists below."""
        arguments = self.evaluate_items(node.args)
        named: dict[str, Any] = {}
        for part in node.keywords:
            more = (
                self.evaluate_mapping(part.value)
                if part.arg is None
                else {part.arg: self.evaluate(part.value)}
            )
            if more.keys() & named.keys() or not all(isinstance(key, str) for key in more):
                raise self.error(
                    part, 'an argument is given twice, or by something else than its name'
                )
            named.update(more)
        if isinstance(node.func, ast.Attribute):
            return self.call_method(node.func, arguments, named)
        word = node.func.id if isinstance(node.func, ast.Name) else ''
        if word not in FUNCTIONS or any(word in scope for scope in self.scopes):
            self.refuse(node, f'a call of {word or "this"}')
        self.check_arguments(word, arguments, node)
        return FUNCTIONS[word](*arguments, **named)

    def check_arguments(self, word: str, arguments: list[Any], node: ast.Call) -> None:
        """Refuse arguments of which a function would go through more than their own parts."""
        if word == 'dict':
            for part in arguments:
                pairs = isinstance(part, (list, tuple))
                for key in [pair[0] for pair in part] if pairs else part:
                    self.check_key(key, node)
        elif node.keywords and word != 'enumerate':
            self.refuse(node, f'{word}() with names')
        elif word in ('int', 'float', 'str') and not all(
            isinstance(value, Scalar) for value in arguments
        ):
            self.refuse(node, f'{word}() of a container')
        elif word == 'range':
            self.check_budget(len(range(*arguments)), node)
        elif word in ('sum', 'min', 'max'):
            parts = arguments[0] if len(arguments) == 1 else arguments
            if not all(isinstance(part, (int, float)) for part in parts):
                self.refuse(node, f'{word}() of what is not numbers')

    def call_method(self, node: ast.Attribute, arguments: list[Any], named: dict[str, Any]) -> Any:
        """Return the result of a method of a dictionary or list."""
        owner = self.evaluate(node.value)
        kind = dict if isinstance(owner, dict) else list if type(owner) is list else None
        if kind is None or node.attr not in METHODS[kind]:
            self.refuse(node, f'a call of .{node.attr}()')
        if kind is dict and node.attr in ('pop', 'get'):
            self.check_key(arguments[0], node)
        self.check_copied(owner, (arguments, named), node)
        if node.attr == 'update' and not all(isinstance(one, dict) for one in arguments):
            self.refuse(node, 'update() by what is no dictionary')
        return getattr(owner, node.attr)(*arguments, **named)

    EXPRESSIONS: Mapping[type, Callable[[Any, Any], Any]] = {
        ast.Constant: evaluate_constant,
        ast.Name: evaluate_name,
        ast.List: evaluate_display,
        ast.Tuple: evaluate_display,
        ast.Set: evaluate_display,
        ast.Dict: evaluate_dict,
        ast.UnaryOp: evaluate_unary,
        ast.BinOp: evaluate_binary,
        ast.JoinedStr: evaluate_fstring,
        ast.FormattedValue: evaluate_formatted,
        ast.Subscript: evaluate_subscript,
        ast.Attribute: evaluate_attribute,
        ast.ListComp: evaluate_comprehension,
        ast.SetComp: evaluate_comprehension,
        ast.GeneratorExp: evaluate_comprehension,
        ast.DictComp: evaluate_dict_comprehension,
        ast.Call: evaluate_call,
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

# fmt: off
FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        dict, list, tuple, len, range, sum, min, max, int, float, str, enumerate, zip
    )
}
# fmt: on

METHODS: dict[type, tuple[str, ...]] = {
    dict: ('update', 'pop', 'get', 'copy', 'keys', 'values', 'items'),
    list: ('append', 'extend', 'copy'),
}


def _is_base(node: ast.Assign) -> bool:
    """Return whether mmengine takes an assignment for the ``_base_`` of its file."""
    target = node.targets[0]
    return isinstance(target, ast.Name) and target.id == '_base_'
