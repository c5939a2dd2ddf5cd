"""Configs: found and parsed, pointed at a user's data, and checked against the machine.

Everything here works on any mmdet or mmseg config, not only on ours, and changes it in place.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..errors import UserError, nearest
from ..security import config_reader
from ..security.config_names import configs_are_data
from .shipped import shipped_configs, shipped_folder

INSTALL = (
    'install one stack, pip install "mmresnest[onedl]" or pip install '
    '"mmresnest[openmmlab]"; `mmresnest doctor` says what is there'
)


def load_config(
    name_or_path: str | os.PathLike,
    options: Mapping[str, Any] | None = None,
    safe: bool | None = None,
) -> Config:
    """Load a config.

    Args:
        name_or_path: a file, the name of a config that comes with mmresnest (with or without
            ``.py``), or ``package::path`` for one of mmdet, mmseg or mmresnest.
        options: settings to override, dotted names to values.
        safe: read it as data, see :mod:`mmresnest.security.config_reader`; by default where the
            environment asks for it, as under ``--safe-config``.

    Returns:
        the parsed config, options merged.

    Raises:
        UserError: if there is no such config, or it cannot be parsed; then with file and line.
    """
    path = find_config(name_or_path)
    try:
        data_only = configs_are_data() if safe is None else safe
        cfg = config_reader.read_config(path) if data_only else Config.fromfile(str(path))
    except UserError:
        raise
    except Exception as error:  # a config is a program: it can fail in every way there is
        raise _explain_config_error(path, error) from error
    merge_options(cfg, options)
    return cfg


def merge_options(cfg: Config, options: Mapping[str, Any] | None) -> None:
    """Override settings of a config, dotted names to values.

    Raises:
        UserError: if a name goes through something that is no dictionary or list of the config.
    """
    try:
        cfg.merge_from_dict(dict(options or {}))
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, AssertionError) as error:
        raise UserError(
            f'the options {dict(options or {})} cannot be merged into '
            f'{name_of(cfg)}: {format_error(error)}; write them as '
            'key.subkey=value, and list entries by their number',
            code='option.settings',
        ) from error


def find_config(name_or_path: str | os.PathLike) -> Path:
    """Return the file that a config's name or path means.

    Raises:
        UserError: if there is none, with the nearest names.
    """
    text = os.fspath(name_or_path)
    if '::' in text:
        return _find_in_package(text)
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f'{path} is a folder, and a config is a file', code='config.missing')
    shipped = shipped_configs()
    if path.parent.as_posix() in ('.', 'configs') and path.name.removesuffix('.py') in shipped:
        return shipped[path.name.removesuffix('.py')]
    siblings = {other.stem for other in path.parent.glob('*.py')} if path.parent.is_dir() else set()
    names = sorted(siblings | set(shipped))
    raise UserError(
        f'there is no config {text}: neither the file {path.absolute()} nor a config '
        f'of mmresnest by that name; {nearest(path.stem, names)}',
        code='config.missing',
    )


def _find_in_package(text: str) -> Path:
    """Find ``package::path`` without installing anything, as mmengine would."""
    package, _, inner = text.partition('::')
    inner = inner if inner.endswith('.py') else inner + '.py'
    if package == 'mmresnest':
        folder = shipped_folder()
    else:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or spec.origin is None:
            raise UserError(
                f'the config {text} is of the package {package!r}, which is not '
                'installed; install it, or correct its name',
                code='package.missing',
            )
        folder = Path(spec.origin).parent / '.mim' / 'configs'
    if (folder / inner).is_file():
        return folder / inner
    every = {path.relative_to(folder).as_posix() for path in folder.glob('*/*.py')} | {
        path.name for path in folder.glob('*.py')
    }
    if not every:
        raise UserError(
            f'{package} came without configs ({folder} is missing); install it from a wheel',
            code='package.no-configs',
        )
    raise UserError(
        f'{package} has no config {inner}; {nearest(inner, sorted(every))}', code='config.missing'
    )


def format_error(error: BaseException) -> str:
    """Return the type and the message of an error."""
    return f'{type(error).__name__}: {error}'


def name_of(cfg: Config) -> str:
    """Return what messages call a config."""
    return cfg.filename or 'the config'


def config_files(path: Path) -> Iterator[Path]:
    """Iterate over a config and the files it inherits from, without running them.

    Raises:
        UserError: one does not parse, or a base does not exist; with file and line.
    """
    waiting, seen = [path], set()
    while waiting:
        file = waiting.pop()
        if file in seen or file.suffix != '.py':
            continue
        seen.add(file)
        tree = _parse_file(file)
        yield file
        for entry, line in _read_bases(tree):
            base = _find_base(file, entry, line)
            if base is not None:
                waiting.append(base)


def _parse_file(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding='utf-8'), str(file))
    except SyntaxError as error:
        raise UserError(
            f'{file}, line {error.lineno}: {error.msg}'
            + (f': {error.text.strip()}' if error.text else ''),
            code='config.unparsable',
        ) from error
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(
            f'the config {file} cannot be read: {format_error(error)}', code='config.unparsable'
        ) from error


def _read_bases(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Iterate over the entries of ``_base_``, and the line where it stands."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == '_base_' for target in node.targets
        ):
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                continue
            for entry in [value] if isinstance(value, str) else value:
                yield str(entry), node.lineno


def _find_base(file: Path, entry: str, line: int) -> Path | None:
    """Return the file of an entry of ``_base_``; None where only mmengine can find it."""
    if '::' in entry:
        try:
            return _find_in_package(entry)
        except UserError as error:
            # mmengine also knows names by a package's model index, so that only a package that is
            # missing altogether is certain to be the cause.
            if error.code == 'package.missing':
                raise UserError(
                    f'{file}, line {line}: {error}', code='config.base-missing'
                ) from error
            return None
    base = Path(os.path.normpath(file.parent / entry))
    if not base.is_file():
        siblings = [other.name for other in base.parent.glob('*.py')]
        missing = f'there is no folder {base.parent}'
        hint = nearest(base.name, siblings) if siblings else missing
        raise UserError(
            f'{file}, line {line}: its _base_ {base} does not exist; {hint}',
            code='config.base-missing',
        )
    return base


def _explain_config_error(path: Path, error: Exception) -> UserError:
    """Turn whatever mmengine raised for a config into file, line and remedy."""
    try:
        own = {os.path.abspath(file) for file in config_files(path)}
    except UserError as found:
        return found
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if os.path.abspath(frame.filename) in own:
            return UserError(
                f'{frame.filename}, line {frame.lineno}: {format_error(error)}',
                code='config.unparsable',
            )
    if path.suffix not in ('.py', '.json', '.yml', '.yaml'):
        return UserError(
            f'{path} is not a config: its name must end in .py, .json or .yml', code='config.suffix'
        )
    return UserError(
        f'the config {path} cannot be parsed: {format_error(error)}', code='config.unparsable'
    )
