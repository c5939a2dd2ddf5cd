"""What is installed, what is wrong with it, and what to do about each.

A check is a function that yields :class:`Finding`s. It looks at the machine through the functions
at the top, so that tests can show it any machine.
"""

import argparse
import importlib
import json
import os
import platform
import re
import shutil
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path
from textwrap import wrap
from types import ModuleType
from urllib.parse import urlsplit

from ..compat import mmcv_ext
from ..utils.env import TRUST, is_on
from ..utils.threads import describe_threads, list_processors
from ..version import __version__
from .arguments import Command, Parser

STACKS = {
    'onedl': {
        'mmengine': 'onedl-mmengine',
        'mmcv': 'onedl-mmcv',
        'mmdet': 'onedl-mmdetection',
        'mmseg': 'onedl-mmsegmentation',
    },
    'openmmlab': {
        'mmengine': 'mmengine',
        'mmcv': 'mmcv',
        'mmdet': 'mmdet',
        'mmseg': 'mmsegmentation',
    },
}
"""Import name -> distribution, of each stack."""

ALSO_MMCV = ('mmcv-lite', 'mmcv-full')  # other distributions of OpenMMLab's mmcv

DATA = {  # where the configs look
    'COCO 2017': ('data/coco', 'annotations/instances_train2017.json'),
    'ADE20K': ('data/ade/ADEChallengeData2016', 'images/training'),
    'Cityscapes': ('data/cityscapes', 'leftImg8bit/train'),
}

LEVELS = {'ok': '32', 'note': '36', 'warning': '33', 'error': '31'}  # with their colors


@dataclass(frozen=True)
class Finding:
    """One thing seen: how bad it is, what it is, and what to do."""

    level: str
    what: str
    remedy: str = ''


def list_distributions() -> dict[str, str]:
    """Map distribution to version, for everything that pip knows."""
    return {
        found.metadata['Name'].lower().replace('_', '-'): found.version
        for found in metadata.distributions()
        if found.metadata['Name']
    }


@cache
def find_providers() -> Mapping[str, list[str]]:
    """Map import name to distributions; read once, since it opens the records of all of them."""
    return metadata.packages_distributions()


def find_owners(module: str) -> list[str]:
    """Return the distributions that say they provide an import name."""
    return sorted(set(find_providers().get(module, [])))


def try_import(module: str) -> ModuleType | Exception | None:
    """Return the module, or why it cannot be imported, or None where it is not installed."""
    try:
        if util.find_spec(module.partition('.')[0]) is None:
            return None
        with warnings.catch_warnings():  # what they deprecate among themselves is no finding
            warnings.simplefilter('ignore')
            return importlib.import_module(module)
    except Exception as error:  # a broken library raises what it likes
        return error


def first_line(error: object) -> str:
    """Return what an error says, in one line."""
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__


def parse_release(version: str) -> tuple[int, ...]:
    """Read ``'2.13.0+cpu'`` as ``(2, 13, 0)``."""
    numbers = re.match(r'\d+(?:\.\d+)*', version)
    return tuple(map(int, numbers.group().split('.'))) if numbers else ()


def check_python() -> Iterator[Finding]:
    """Show the interpreter and the machine."""
    what = f'mmresnest {__version__}, Python {platform.python_version()}, {platform.platform()}'
    yield Finding('ok', what)


def check_stack() -> Iterator[Finding]:
    """Check which of the two stacks is installed, and whether it is whole and alone."""
    there = list_distributions()
    found = {
        name: {
            module: f'{distribution} {there[distribution]}'
            for module, distribution in modules.items()
            if distribution in there
        }
        for name, modules in STACKS.items()
    }
    for other in ALSO_MMCV:
        if other in there:
            found['openmmlab'].setdefault('mmcv', f'{other} {there[other]}')
    present = [name for name, modules in found.items() if modules]
    if not present:
        yield Finding(
            'error',
            'no mm libraries are installed: the networks work, training not',
            "pip install 'mmresnest[onedl]'",
        )
    elif len(present) == 2:
        listed = '; '.join(f'{name}: {", ".join(found[name].values())}' for name in present)
        known = {*ALSO_MMCV, *(name for modules in STACKS.values() for name in modules.values())}
        yield Finding(
            'error',
            f'libraries of both stacks are installed ({listed})',
            f'pip uninstall {" ".join(sorted(known & set(there)))}; '
            "then pip install 'mmresnest[onedl]'",
        )
    for name in present:
        missing = [module for module in STACKS[name] if module not in found[name]]
        yield Finding('ok', f'stack {name}: {", ".join(found[name].values())}')
        if missing and len(present) == 1:
            essential = {'mmengine', 'mmcv'} & set(missing)
            yield Finding(
                'error' if essential else 'warning',
                f'of the {name} stack, {", ".join(missing)} is missing',
                f"pip install 'mmresnest[{name}]'",
            )


def check_owners() -> Iterator[Finding]:
    """Check whether two distributions have written over each other's files."""
    for module in STACKS['onedl']:
        several = find_owners(module)
        if len(several) > 1:
            yield Finding(
                'error',
                f'{" and ".join(several)} both provide {module}: the one that '
                'was installed last has overwritten files of the other',
                f'pip uninstall {" ".join(several)}; then install the one you want',
            )
    several = find_owners('cv2')
    versions = {list_distributions().get(name) for name in several}
    if len(versions) > 1:
        yield Finding(
            'warning',
            f'{" and ".join(several)} both provide cv2, in different versions',
            f'pip uninstall {" ".join(several)}; then pip install opencv-python',
        )


def check_version_gates() -> Iterator[Finding]:
    """Check whether OpenMMLab's mmdet 3 and mmseg 1 accept this mmcv: not 2.2 and later."""
    there = list_distributions()
    if not {'mmdet', 'mmsegmentation'} & set(there):
        return
    for name in ('mmcv', *ALSO_MMCV):
        version = there.get(name)
        if version and not (2, 0) <= parse_release(version) < (2, 2):
            yield Finding(
                'error',
                f'{name} {version}: mmdet and mmsegmentation accept mmcv from '
                '2.0 up to, not including, 2.2',
                f"pip install '{name}>=2.1,<2.2'",
            )


def check_torch() -> Iterator[Finding]:
    """torch, and what it can compute on."""
    torch = try_import('torch')
    if not isinstance(torch, ModuleType):
        what = 'not installed' if torch is None else f'broken: {first_line(torch)}'
        yield Finding('error', f'torch is {what}', 'install it as https://pytorch.org says')
        return
    device = 'no GPU'
    if torch.cuda.is_available():
        device = ', '.join(
            f'{torch.cuda.get_device_name(index)} '
            f'({torch.cuda.get_device_properties(index).total_memory / 2**30:.0f} GiB)'
            for index in range(torch.cuda.device_count())
        )
    elif torch.backends.mps.is_available():
        device = 'MPS'
    yield Finding('ok', f'torch {torch.__version__}, CUDA {torch.version.cuda or "none"}, {device}')
    if torch.version.cuda and device == 'no GPU':
        yield Finding(
            'note',
            'this torch can use a GPU, but sees none',
            'if there is one: is its driver as new as that CUDA (nvidia-smi)?',
        )
    if parse_release(torch.__version__) < (2, 6):
        yield Finding(
            'warning',
            f'torch {torch.__version__} runs whatever code a checkpoint brings along',
            'load only what you trust, or use torch 2.6 or later',
        )


def check_trust() -> Iterator[Finding]:
    """Check whether the protection against code in checkpoints is switched off."""
    for name in (TRUST, 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'):
        if is_on(name):
            yield Finding(
                'warning',
                f'{name} is set: every checkpoint may run code',
                f'unset {name}, and set it only for the one command that needs it',
            )


def check_operators() -> Iterator[Finding]:
    """Whose operators mmcv runs on."""
    if try_import('mmcv') is None:
        return
    try:
        used = mmcv_ext.operator_sources()
    except Exception as error:
        yield Finding(
            'error',
            f'the compiled operators of mmcv do not load with this torch ({first_line(error)})',
            f'install mmcv anew: {mmcv_ext.install_advice()}',
        )
        return
    by = {kind: sorted(name for name in used if used[name] == kind) for kind in set(used.values())}
    if set(by) == {'compiled mmcv'}:
        yield Finding('ok', f'mmcv has its compiled operators (those with a stand-in: {len(used)})')
        return
    listed = '; '.join(f'{len(names)} in {kind}' for kind, names in sorted(by.items()))
    yield Finding('ok', f'mmcv has no compiled operators; in their place: {listed}')
    torch = try_import('torch')
    if isinstance(torch, ModuleType) and torch.cuda.is_available():
        advice = mmcv_ext.install_advice()
        yield Finding('note', 'compiled operators would be faster on this GPU', advice)


def check_torchvision() -> Iterator[Finding]:
    """torchvision, which is not needed, but hurts when it is broken."""
    torchvision = try_import('torchvision')
    if torchvision is None:
        yield Finding('ok', 'torchvision is not installed, and not needed')
    elif isinstance(torchvision, Exception):
        yield Finding(
            'warning',
            f'torchvision does not go with this torch ({first_line(torchvision)})',
            'pip install the one released with your torch, or uninstall it',
        )
    else:
        yield Finding('ok', f'torchvision {torchvision.__version__}')


def check_imports() -> Iterator[Finding]:
    """Check whether the libraries can be imported, with compiled parts and numpy's ABI."""
    listed = []
    for module in (
        'numpy',
        'cv2',
        'pycocotools.mask',
        'mmengine',
        'mmcv.ops',
        'mmdet.apis',
        'mmseg.apis',
    ):
        found = try_import(module)
        if isinstance(found, Exception):
            yield Finding(
                'error', f'import {module} fails ({first_line(found)})', remedy_for(found, module)
            )
        elif found is not None and '.' not in module:
            listed.append(f'{module} {found.__version__}')
    yield Finding('ok', ', '.join(listed))


def remedy_for(error: Exception, module: str) -> str:
    """Return what helps against an import error, as far as its text tells."""
    said = str(error)
    name = getattr(error, 'name', None)
    if any(mark in said for mark in ('numpy.dtype size', '_ARRAY_API', 'NumPy 1.x', 'multiarray')):
        return (
            f'{module.partition(".")[0]} was compiled for another numpy: install it anew, or '
            "pip install 'numpy<2' for what has no newer release"
        )
    if isinstance(error, ModuleNotFoundError) and name in ('ftfy', 'regex'):
        return 'pip install ftfy regex (mmsegmentation imports both and does not ask for them)'
    if isinstance(error, ModuleNotFoundError) and name:
        return f'pip install {name.partition(".")[0]}'
    if 'libGL' in said or 'libgthread' in said:
        return 'pip install opencv-python-headless in place of opencv-python, or install libgl1'
    return f'install {module.partition(".")[0]} anew, in the versions of constraints/'


def check_setuptools() -> Iterator[Finding]:
    """Check for pkg_resources, which setuptools no longer has since 82."""
    if 'openmim' in list_distributions() and util.find_spec('pkg_resources') is None:
        yield Finding(
            'warning',
            'the command mim needs pkg_resources, which setuptools 82 dropped',
            "pip install 'setuptools<81'; mmresnest itself does without",
        )


def check_data_sets() -> Iterator[Finding]:
    """Check for the data sets where the configs look for them."""
    for name, (folder, part) in DATA.items():
        path = Path(folder).absolute()
        if (path / part).exists():
            yield Finding('ok', f'{name} is at {path}')
        elif path.exists():
            yield Finding(
                'warning',
                f'{path} has no {part}: it is not laid out as {name} is',
                f'docs/data.md shows how {name} is laid out',
            )
        else:
            yield Finding(
                'note',
                f'{name} is not at {path}',
                f'link {folder} to where it is; --data DIR trains on data of your own, '
                '--demo on drawn shapes',
            )


def check_disk() -> Iterator[Finding]:
    """Disk and processors."""
    free = shutil.disk_usage('.').free / 2**30
    cores = len(list_processors())
    torch = try_import('torch')
    threads = torch.get_num_threads() if isinstance(torch, ModuleType) else 0
    yield Finding('ok', f'{free:.0f} GiB free in {Path.cwd()}, {cores} cores, {threads} threads')
    if free < 5:
        yield Finding(
            'warning',
            f'only {free:.1f} GiB are free: a checkpoint of a detector takes '
            'about 0.3 GiB, and three are kept',
            'give --work-dir on a larger disk',
        )
    if threads:
        yield Finding('ok', describe_threads(threads))
    if threads > cores:
        yield Finding(
            'warning',
            f'torch uses {threads} threads on {cores} cores',
            f'export OMP_NUM_THREADS={cores}',
        )


def check_network() -> Iterator[Finding]:
    """Check whether the hosts of published weights answer; only if asked for, since it is slow."""
    from ..models.variants import VARIANTS

    hosts = {
        urlsplit(weights.url)[:2] for variant in VARIANTS.values() for weights in variant.weights
    }
    for scheme, host in sorted(hosts):
        try:
            request = urllib.request.Request(f'{scheme}://{host}/', method='HEAD')
            urllib.request.urlopen(request, timeout=5).close()
        except urllib.error.HTTPError:
            pass  # it answers
        except OSError as error:
            yield Finding(
                'warning',
                f'{host} cannot be reached ({first_line(error)})',
                'weights from there: download them elsewhere, and give the file',
            )
            continue
        yield Finding('ok', f'{host} answers')


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_stack,
    check_owners,
    check_version_gates,
    check_torch,
    check_operators,
    check_torchvision,
    check_imports,
    check_setuptools,
    check_trust,
    check_data_sets,
    check_disk,
)


def run_checks(with_network: bool = False) -> list[Finding]:
    """Run all checks.

    Args:
        with_network: also ask the hosts of published weights.

    Returns:
        what was found, in the order of the checks.
    """
    findings: list[Finding] = []
    for check in (*CHECKS, check_network) if with_network else CHECKS:
        try:
            findings += check()
        except Exception as error:  # a doctor must not die of the disease
            findings.append(
                Finding(
                    'warning',
                    f'the check {check.__name__!r} failed itself ({first_line(error)})',
                    'please report this',
                )
            )
    return findings


def format_findings(findings: Sequence[Finding], color: bool = False, width: int = 100) -> str:
    """Return a readable table of findings, each remedy under its finding, and a sum at the end.

    Args:
        findings: what :func:`examine` returned.
        color: with escape codes for a terminal.
        width: of a line.

    Returns:
        the text.
    """
    lines = []
    for finding in findings:
        level = f'{finding.level:<9}'
        if color:
            level = f'\033[{LEVELS[finding.level]}m{level}\033[0m'
        for mark, text in (('', finding.what), ('-> ', finding.remedy)):
            for index, line in enumerate(
                wrap(text, width - 9 - len(mark), break_long_words=False, break_on_hyphens=False)
            ):
                start = level if not mark and index == 0 else ' ' * 9
                lines.append(start + (mark if index == 0 else ' ' * len(mark)) + line)
    counts = [
        (sum(finding.level == level for finding in findings), level)
        for level in ('error', 'warning')
    ]
    said = ', '.join(f'{count} {level}{"s" * (count > 1)}' for count, level in counts if count)
    return '\n'.join([*lines, '', said or 'Nothing is wrong.'])


def print_findings(as_json: bool = False, with_network: bool = False) -> int:
    """Examine the installation, and print what was found.

    Args:
        as_json: for programs.
        with_network: also ask the hosts of published weights.

    Returns:
        the exit status: 1 where something is wrong, else 0.
    """
    findings = run_checks(with_network)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        terminal = sys.stdout.isatty() and 'NO_COLOR' not in os.environ
        width = min(shutil.get_terminal_size((100, 24)).columns, 120)
        print(format_findings(findings, terminal, width))
    return int(any(finding.level == 'error' for finding in findings))


def add_doctor_arguments(parser: Parser) -> None:
    """Add the arguments."""
    parser.add_argument('--json', action='store_true', help='print the findings as json')
    parser.add_argument(
        '--network', action='store_true', help='also ask the hosts of published weights'
    )


def run_doctor(args: argparse.Namespace) -> int:
    """Examine the installation."""
    return print_findings(as_json=args.json, with_network=args.network)


COMMAND = Command(add_doctor_arguments, run_doctor)
