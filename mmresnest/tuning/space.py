"""What a sweep varies: options of ``train`` and settings of its config, each with its values.

    --over lr=1e-4..1e-1:log arch=resnest50,res2net50_v1b train_cfg.val_interval=1,2

A list has a value after each comma; ``LOW..HIGH`` is a range, of whole numbers where both ends are,
and ``:log`` draws from it evenly on a logarithmic scale.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields
from typing import Any

from mmengine.config import DictAction

from ..config.options import TrainOptions
from ..errors import UserError, nearest

SWEPT = (
    'arch',
    'lr',
    'epochs',
    'batch_size',
    'img_size',
    'augment',
    'schedule',
    'patience',
    'load_from',
    'from_scratch',
    'auto_scale_lr',
    'amp',
    'save_memory',
    'workers',
    'seed',
)
"""Options of ``train`` that can be varied; the others say where things are."""
GRID = 10_000  # combinations at most that are gone through one by one
PLAIN: dict[str, Field[Any]] = {one.name: one for one in fields(TrainOptions)}
NUMBER = r'[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?'


@dataclass(frozen=True)
class Parameter:
    """What is varied: a list of values, as they are typed, or the two ends of a range.

    The ends of a range of whole numbers are whole: none is rounded to the digits of a fraction.
    ``key`` is the name of a field of :class:`~mmresnest.config.options.TrainOptions`, or a path in
    the config, which has a dot.
    """

    key: str
    values: tuple[str, ...] = ()
    low: Any = 0
    high: Any = 0
    log: bool = False
    whole: bool = False

    @property
    def name(self) -> str:
        """Return how it is typed."""
        return self.key if self.is_setting else self.key.replace('_', '-')

    @property
    def is_setting(self) -> bool:
        """Return whether it is one of the config, and no option."""
        return '.' in self.key

    @property
    def grid(self) -> Sequence[Any] | None:
        """Return all values that it can have; None of a range of fractions."""
        if self.values:
            return self.values
        return range(self.low, self.high + 1) if self.whole else None

    @property
    def samples(self) -> Sequence[Any]:
        """Return what to check before anything is run: a list, or the ends of a range."""
        return self.values or (self.low, self.high)

    def suggest_value(self, trial: Any) -> Any:
        """Return the value that Optuna has for this in a trial."""
        if self.values:
            return trial.suggest_categorical(self.key, self.values)
        if self.whole:
            return trial.suggest_int(self.key, self.low, self.high, log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)

    def spell_value(self, value: Any) -> str:
        """Return a value as it is typed; a fraction has four digits."""
        return f'{value:.4g}' if isinstance(value, float) else str(value)


def parse_space(texts: Sequence[str]) -> list[Parameter]:
    """Read what ``--over`` was given.

    Raises:
        UserError: it is not of this form, or there is no such option.
    """
    if not texts:
        raise UserError(
            'a sweep needs --over with what is varied, such as --over lr=1e-4..1e-2:log '
            'arch=resnest50,res2net50_v1b_26w_4s',
            code='sweep.over',
        )
    space = [parse_parameter(text) for text in texts]
    keys = [one.key for one in space]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(
                f'--over has {key.replace("_", "-")} twice; give all its values at once',
                code='sweep.over',
            )
    return space


def parse_parameter(text: str) -> Parameter:
    """Read one ``KEY=VALUES``; see :func:`parse_space`."""
    name, equals, right = text.partition('=')
    key = name if '.' in name else name.lstrip('-').replace('-', '_')
    if not name or not equals or not right:
        raise UserError(
            f'--over {text}: write KEY=VALUES, such as lr=1e-4..1e-2:log or batch-size=4,8',
            code='sweep.over',
        )
    if '.' not in key and key not in SWEPT:
        legal = [one.replace('_', '-') for one in SWEPT]
        raise UserError(
            f'--over {text}: {name!r} is not varied by a sweep; {nearest(name, legal)}; or a '
            'setting of the config with its whole path, such as '
            'optim_wrapper.optimizer.weight_decay=1e-4..1e-2:log',
            code='sweep.over',
        )
    found = re.fullmatch(rf'({NUMBER})\.\.({NUMBER})(:log)?', right)
    if found is None and '..' in right and '/' not in right:
        raise UserError(
            f'--over {text}: {right!r} is no range; write LOW..HIGH or LOW..HIGH:log with two '
            'numbers',
            code='sweep.over',
        )
    if found is None:
        values = tuple(re.split(r',(?![^\[(]*[\])])', right))  # none within brackets
        if '' in values or len(set(values)) < len(values):
            raise UserError(
                f'--over {text}: {"a value is empty" if "" in values else "a value is there twice"}'
                '; give each value once, with a comma between',
                code='sweep.over',
            )
        parameter = Parameter(key, values)
    else:
        parameter = _parse_range(text, key, *found.groups())
    if not parameter.is_setting:
        for value in parameter.samples:
            parse_option(parameter, value)
    return parameter


def _parse_range(text: str, key: str, low: str, high: str, log: str | None) -> Parameter:
    kind = 'float' if '.' in key else _type_of(key)
    whole = all(re.fullmatch(r'[+-]?\d+', end) for end in (low, high))
    if kind not in ('int', 'float') or kind == 'int' and not whole:
        raise UserError(
            f'--over {text}: {key.replace("_", "-")} takes '
            f'{"whole numbers" if kind == "int" else "a list of values, with commas between"}',
            code='sweep.over',
        )
    whole = whole and (kind == 'int' or '.' in key)
    first, last = map(int if whole else float, (low, high))
    if not first < last:
        raise UserError(f'--over {text}: a range goes from low to high', code='sweep.over')
    if log and first <= 0:
        raise UserError(f'--over {text}: a logarithmic range begins above 0', code='sweep.over')
    return Parameter(key, (), first, last, bool(log), whole)


def _type_of(key: str) -> str:
    given = PLAIN[key].metadata['argument'].get('type')
    return {int: 'int', float: 'float'}.get(given, 'int' if key == 'batch_size' else 'text')


def parse_option(parameter: Parameter, value: Any) -> Any:
    """Return a value of an option as ``train`` takes it.

    Raises:
        UserError: the option does not take it.
    """
    one = PLAIN[parameter.key]
    argument, text = one.metadata['argument'], parameter.spell_value(value)
    name = parameter.key.replace('_', '-')
    if isinstance(one.default, bool):
        if text not in ('true', 'false'):
            raise UserError(f'--over {name}: {text!r} is neither true nor false', 'sweep.over')
        return text == 'true'
    if text not in argument.get('choices', [text]):
        raise UserError(
            f'--over {name}: there is no {text!r}; {nearest(text, argument["choices"])}',
            code='sweep.over',
        )
    try:
        return argument.get('type', str)(text)
    except ValueError as error:
        raise UserError(f'--over {name}: {text!r} is no number', code='sweep.over') from error


def list_combinations(space: Sequence[Parameter], seed: int) -> list[dict[str, Any]] | None:
    """Return all combinations of values in random order; None where there are too many."""
    grids = [one.grid for one in space]
    count = 1
    for grid in grids:
        if grid is None:
            return None
        count *= len(grid)
    if count > GRID:
        return None
    keys = [one.key for one in space]
    combinations = [
        dict(zip(keys, values)) for values in itertools.product(*(grid or () for grid in grids))
    ]
    random.Random(seed).shuffle(combinations)
    return combinations


def spell_trial(space: Sequence[Parameter], chosen: Mapping[str, str]) -> list[str]:
    """Return the words of a command line that set what was chosen."""
    words, settings = [], []
    for one in space:
        text = chosen[one.name]
        if one.is_setting:
            settings.append(f'{one.key}={text}')
        elif not isinstance(PLAIN[one.key].default, bool):
            words += [_spell_flag(one.key), text]
        elif text == 'true':
            words.append(_spell_flag(one.key))
    return [*words, *(['--cfg-options', *settings] if settings else [])]


def spell_options(options: TrainOptions) -> list[str]:
    """Return the words of a command line that ask for what options of ``train`` ask for."""
    words, settings = [], []
    for name, one in PLAIN.items():
        value = getattr(options, name)
        if 'argument' not in one.metadata or value in (None, (), {}, one.default):
            continue
        if name == 'cfg_options':
            settings = [f'{key}={spell_setting(value)}' for key, value in value.items()]
        elif isinstance(one.default, bool):
            words.append(_spell_flag(name))
        elif isinstance(value, (list, tuple)):
            words += [_spell_flag(name), *map(str, value)]
        else:
            words += [_spell_flag(name), str(value)]
    return [*words, *(['--cfg-options', *settings] if settings else [])]


def spell_setting(value: Any) -> str:
    """Return a setting as ``--cfg-options`` reads it.

    Raises:
        UserError: there is no spelling of it, as of a dictionary, or of a text with a comma.
    """
    text = str(value)
    if isinstance(value, (list, tuple)):
        inner = ','.join(map(spell_setting, value))
        text = f'[{inner}]' if isinstance(value, list) else f'({inner})'
    if DictAction._parse_iterable(text) != value:
        raise UserError(
            f'cfg_options {value!r}: a sweep types the settings of its trials, and mmengine would '
            f'read {text} otherwise; give single settings by their whole path, and in the config '
            'what has no spelling',
            code='option.settings',
        )
    return text


def _spell_flag(name: str) -> str:
    return '--' + name.replace('_', '-')
