"""Read a config as data: a config of Python without executing it.

A config is a program. :func:`read_config` finds the files that it inherits from, fills in their
templates and evaluates them by :mod:`.config_language`. What is read is what mmengine reads, or
nothing: inheriting and merging are mmengine's own. What a config *names* is part of it, too, and is
checked by :mod:`.config_names`.

A config that is read so still decides which files are read and written and which weights are
fetched.
"""

import json
import os
import re
import uuid
import warnings
from io import StringIO
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.fileio import load

from ..errors import UserError
from .config_language import Budget, Program
from .config_names import check_names, import_packages
from .nesting import check_nesting

LONGEST_FILE, MOST_FILES, DEEPEST = 2**19, 256, 32
"""Characters of a config, files that it inherits from, and how far one is from the first."""


def read_config(path: str | os.PathLike) -> Config:
    """Read a config without executing it.

    Args:
        path: a file, .py, .json or .yml.

    Returns:
        what ``Config.fromfile`` would return.

    Raises:
        UserError: the file, or one that it inherits from, is missing or broken, or holds what is
            not data.
    """
    file = Path(path).expanduser().absolute()
    files = _ConfigFiles()
    content, text = files.read(file, 0)
    try:
        cfg = Config(content, cfg_text=text, filename=str(path), env_variables=files.environment)
    except KeyError as error:
        raise UserError(f'the config {file}: {error.args[0]}', code='config.unparsable') from error
    check_names(content, str(file))
    if content.get('custom_imports'):
        import_packages(content['custom_imports'], str(file))
    return cfg


class _ConfigFiles:
    """The files of one config: each read by the rules of mmengine, all within one limit."""

    def __init__(self) -> None:
        self.count, self.budget = 0, Budget()
        self.environment: dict[str, str] = {}

    def read(self, path: Path, depth: int) -> tuple[dict, str]:
        """Return a file's settings, merged into those it inherits, and the text of all files."""
        self.count += 1
        if self.count > MOST_FILES or depth > DEEPEST:
            raise UserError(
                f'{path}: this config inherits from more than {MOST_FILES} files or '
                f'over more than {DEEPEST} others; it may inherit from itself',
                code='config.unsafe',
            )
        source = _read_text(path)
        text, places = self._fill_templates(source, path)
        python = path.suffix == '.py'
        program = Program(text, path, self.budget) if python else None
        content = {} if python else _parse_plain(text, path)
        bases = program.read_bases() if program else content.get('_base_', [])
        inherited, texts = ConfigDict(), []
        for base in bases if isinstance(bases, list) else [bases]:
            found, scope = _find_base(base, path)
            one, one_text = self.read(found, depth + 1)
            twice = inherited.keys() & one.keys()
            if twice:
                raise UserError(
                    f'{path}: its bases have settings of one name: '
                    f'{", ".join(sorted(map(str, twice)))}',
                    code='config.base-conflict',
                )
            inherited.update(Config._dict_to_config_dict(one, scope))
            texts.append(one_text)
        if program:
            content = program.run(inherited)
        self.budget.left -= check_nesting(content, str(path))
        return self._merge(content, inherited, places, path), '\n'.join(
            [*texts, f'{path}\n{source}']
        )

    def _merge(self, content: dict, inherited: ConfigDict, places: dict, path: Path) -> dict:
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
                f'{type(error).__name__}: {error}',
                code='config.base-conflict',
            ) from error
        self.budget.left -= check_nesting(merged, str(path))
        if self.budget.left < 0:
            raise UserError(
                f'the config {path} makes more than a config needs', code='config.unsafe'
            )
        return {key: value for key, value in merged.items() if not key.startswith('__')}

    def _fill_templates(self, text: str, path: Path) -> tuple[str, dict[str, str]]:
        """Return the text, its templates filled in, and the marks that wait for the bases."""
        for key, value in (
            ('fileDirname', str(path.parent)),
            ('fileBasename', path.name),
            ('fileBasenameNoExtension', path.stem),
            ('fileExtname', path.suffix),
        ):
            value = value.replace('\\', '/')
            text = re.sub(rf'\{{\{{\s{{0,20}}{key}\s{{0,20}}\}}\}}', value, text)
        text = re.sub(
            r'\{\{[\'"]?\s{0,20}\$(\w{1,100})\s{0,20}:\s{0,20}(\S{0,300}?)\s{0,20}[\'"]?\}\}',
            lambda found: self._read_variable(found[1], found[2], path),
            text,
        )
        places: dict[str, str] = {}

        def mark(found: re.Match) -> str:
            name = f'_{found[1]}_{uuid.uuid4().hex[:6]}'
            places[name] = found[1]
            return f'"{name}"'

        return re.sub(r'\{\{\s{0,20}_base_\.([\w.]{1,300})\s{0,20}\}\}', mark, text), places

    def _read_variable(self, name: str, default: str, path: Path) -> str:
        if name in os.environ:
            self.environment[name] = os.environ[name]
        value = os.environ.get(name, default)
        if not value:
            raise UserError(
                f'{path} takes a setting from the environment variable {name}, which '
                'is not set; set it',
                code='config.unparsable',
            )
        return value


def _read_text(path: Path) -> str:
    if path.suffix not in ('.py', '.json', '.yml', '.yaml'):
        raise UserError(
            f'{path} is not a config: its name must end in .py, .json or .yml', code='config.suffix'
        )
    try:
        if path.stat().st_size > LONGEST_FILE:
            raise UserError(
                f'the config {path} is longer than {LONGEST_FILE} bytes', code='config.unsafe'
            )
        return path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f'the config {path} cannot be read: {error}', code='config.unparsable'
        ) from error


def _parse_plain(text: str, path: Path) -> dict:
    try:
        content = (
            json.loads(text) if path.suffix == '.json' else load(StringIO(text), file_format='yaml')
        )
    except Exception as error:  # of a yaml library that is mmengine's to choose
        raise UserError(
            f'the config {path} cannot be parsed: {error}', code='config.unparsable'
        ) from error
    if not isinstance(content, dict):
        raise UserError(f'the config {path} holds no settings by name', code='config.unparsable')
    return content


def _find_base(base: Any, path: Path) -> tuple[Path, str | None]:
    """Return the file that an entry of ``_base_`` means, and the package of its parts."""
    if not isinstance(base, str):
        raise UserError(f'{path}: its _base_ {base!r:.80} is no text', code='config.base-missing')
    try:
        found, scope = Config._get_cfg_path(base, str(path))
    except UserError:
        raise
    except Exception as error:  # a package's index of models may fail in any way
        raise UserError(
            f'{path}: its _base_ {base:.200} is not found: {type(error).__name__}: {error}',
            code='config.base-missing',
        ) from error
    file = Path(os.path.normpath(found))
    if not file.is_file():
        raise UserError(f'{path}: its _base_ {file} does not exist', code='config.base-missing')
    return file, scope
