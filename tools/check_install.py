"""Builds wheel and sdist, installs both into empty environments and uses them there.

``make check-install`` prints what was run, what it said in the end and how long it took. Nothing of
the clone is in reach of the environments but the constraints. The one of the sdist borrows the
dependencies that were installed with the wheel, since the files of ours are compared with those of
the wheel; with ``--full`` it installs its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from filecmp import cmpfiles
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'faster_rcnn_resnest50_fpn'
USE = """
import sys, mmresnest
assert mmresnest.__file__.startswith(sys.prefix), mmresnest.__file__
import torch
backbone = mmresnest.build_backbone('resnest50').eval()
print([tuple(one.shape) for one in backbone(torch.zeros(1, 3, 64, 64))])
print(len(mmresnest.list_archs()), 'networks')
"""
DRAW = ('make-shapes', 'shapes', '--train', '8', '--val', '2', '--test', '0', '--layouts', 'coco')
TRAIN = (
    'train',
    CONFIG,
    '--data',
    'shapes',
    '--demo',
    '--cfg-options',
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=2',
    'default_hooks.checkpoint.interval=2',
)


@dataclass(frozen=True)
class Environment:
    """An environment of its own, without pip: this one's installs into it."""

    folder: Path
    elsewhere: Path  # where its programs run

    @property
    def programs(self) -> Path:
        """Return the folder of its programs."""
        return self.folder / ('Scripts' if os.name == 'nt' else 'bin')

    @property
    def packages(self) -> Path:
        """Return the folder of its packages."""
        code = 'import sysconfig; print(sysconfig.get_path("purelib"))'
        return Path(
            subprocess.check_output([self.programs / 'python', '-c', code], text=True).strip()
        )

    def make_empty(self) -> None:
        """Make it, empty."""
        run_command(sys.executable, '-m', 'venv', '--without-pip', self.folder, cwd=self.elsewhere)

    def install_packages(self, *arguments: object) -> None:
        """Install packages; Python compiles them when they are imported, as a part of the check."""
        run_command(
            sys.executable,
            '-m',
            'pip',
            '--disable-pip-version-check',
            '--python',
            self.folder,
            'install',
            '--quiet',
            '--no-compile',
            *arguments,
            cwd=self.elsewhere,
        )

    def run_first_steps(self, train: bool) -> None:
        """Run the first commands of a new user."""
        program = self.programs / 'mmresnest'
        for command in (('--version',), ('doctor',), ('print-config', CONFIG)):
            run_command(program, *command, cwd=self.elsewhere)
        run_command(self.programs / 'python', '-c', USE, cwd=self.elsewhere)
        if train:
            run_command(program, *DRAW, cwd=self.elsewhere)
            run_command(program, *TRAIN, cwd=self.elsewhere)


def run_command(*command: object, cwd: Path) -> None:
    """Run a command and print it; one that fails ends the check with its output."""
    words = [str(word) for word in command]
    shown = [Path(words[0]).name, *('...' if '\n' in word else word for word in words[1:])]
    print_line('$ ' + ' '.join(shown))
    # Neither the clone nor a developer's settings are to help.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(('PYTHON', 'MMRESNEST_'))
    }
    start = time.monotonic()
    done = subprocess.run(
        words,
        cwd=cwd,
        env=environment,
        text=True,
        encoding='utf-8',
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    lines = done.stdout.splitlines()
    for line in lines if done.returncode else lines[-4:]:
        print_line('    ' + line[:120])
    print_line(f'    ({time.monotonic() - start:.1f} s)')
    if done.returncode:
        sys.exit(f'check_install: {shown[0]} ended with status {done.returncode}, see above')


def print_line(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + '\n')
    sys.stdout.flush()


def find_single(folder: Path, pattern: str) -> Path:
    """Return the one file of a folder that matches."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        sys.exit(f'check_install: {folder} holds {len(found)} files {pattern}, not one')
    return found[0]


def compare_packages(one: Path, other: Path) -> None:
    """End the check unless two folders of packages hold the same files of ours."""
    names = [
        {
            str(path.relative_to(folder))
            for path in (folder / 'mmresnest').rglob('*')
            if path.is_file() and '__pycache__' not in path.parts
        }
        for folder in (one, other)
    ]
    _, differing, unread = cmpfiles(one, other, names[0] | names[1], shallow=False)
    if differing or unread:
        sys.exit('check_install: wheel and sdist differ in ' + ', '.join(differing + unread))
    print_line(f'{len(names[0])} files of mmresnest, the same from wheel and sdist')


def main() -> None:
    """Build, install and use."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument(
        '--stack',
        choices=('onedl', 'openmmlab'),
        default='onedl',
        help='the extra to install (default: onedl)',
    )
    parser.add_argument(
        '--full', action='store_true', help='install the dependencies of the sdist anew'
    )
    parser.add_argument(
        '--dist',
        type=Path,
        metavar='DIR',
        help='the wheel and the sdist in this folder, instead of building them',
    )
    args = parser.parse_args()
    start = time.monotonic()
    with TemporaryDirectory(prefix='check-install-') as name:
        folder = Path(name).resolve()
        elsewhere = folder / 'elsewhere'
        elsewhere.mkdir()
        dist = args.dist.resolve() if args.dist else folder / 'dist'
        if not args.dist:
            run_command(sys.executable, '-m', 'build', '--outdir', dist, ROOT, cwd=elsewhere)
        wheel, sdist = find_single(dist, '*.whl'), find_single(dist, '*.tar.gz')
        constraints = ('--constraint', ROOT / 'constraints' / f'{args.stack}.txt')

        first = Environment(folder / 'of_wheel', elsewhere)
        first.make_empty()
        first.install_packages(*constraints, f'{wheel}[{args.stack}]')
        first.run_first_steps(train=True)

        second = Environment(folder / 'of_sdist', elsewhere)
        second.make_empty()
        if args.full:
            second.install_packages(*constraints, f'{sdist}[{args.stack}]')
        else:
            borrowed = second.packages / 'borrowed.pth'  # behind its own packages
            borrowed.write_text(f'{first.packages}\n', encoding='utf-8')
            second.install_packages('--no-deps', '--ignore-installed', sdist)
        compare_packages(first.packages, second.packages)
        second.run_first_steps(train=False)
    print_line(f'wheel and sdist install and run ({time.monotonic() - start:.0f} s)')


if __name__ == '__main__':
    main()
