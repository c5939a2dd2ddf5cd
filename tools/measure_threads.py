"""Time training steps under several settings of OpenMP, on a quiet machine and beside busy ones.

``python tools/measure_threads.py`` starts the busy processes itself. Each sample is a process of
its own, since OpenMP reads its variables once; settings take turns, so that what else the machine
does meets all of them. It ends with the two ratios that the choice of mmresnest.utils.threads is
made for.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmresnest.utils import threads

UNSET, CHOSEN, SINGLE = 'unset', 'chosen', 'one-thread'


class Sample(NamedTuple):
    """The steps of one process.

    Attributes:
        setting: ``unset``, ``chosen``, ``one-thread`` or ``spin=N``.
        beside: how many busy processes ran.
        seconds: of each counted step.
        spin: what GOMP_SPINCOUNT was.
    """

    setting: str
    beside: int
    seconds: list[float]
    spin: str


def select_variables(setting: str) -> dict[str, str]:
    """Return what a setting puts into the environment.

    Raises:
        argparse.ArgumentTypeError: there is no such setting.
    """
    if setting in (UNSET, CHOSEN):
        return {}
    if setting == SINGLE:
        return {'OMP_NUM_THREADS': '1'}
    name, _, rounds = setting.partition('=')
    if name != 'spin' or not rounds.isdigit():
        raise argparse.ArgumentTypeError(
            f'{setting} is no setting; legal: {UNSET}, {CHOSEN}, {SINGLE}, spin=N'
        )
    return {'GOMP_SPINCOUNT': rounds}


def check_setting(setting: str) -> str:
    """Return a setting that there is."""
    select_variables(setting)
    return setting


def clear_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without anything that OpenMP or the choice reads."""
    decisive = {*threads.COUNTS, *threads.WAITING, threads.CHOSEN}
    return {name: value for name, value in environment.items() if name not in decisive}


@contextmanager
def run_busy(number: int) -> Iterator[None]:
    """Have processes compute in Python, each on one core, and end them."""
    started = [
        subprocess.Popen([sys.executable, '-c', 'while True: pass'], stdin=subprocess.DEVNULL)
        for _ in range(number)
    ]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def take_sample(setting: str, beside: int, args: argparse.Namespace) -> Sample:
    """Time steps in a process of its own."""
    command = [
        *(sys.executable, __file__, '--sample', setting, '--arch', args.arch),
        *('--size', 'x'.join(map(str, args.size)), '--steps', str(args.steps)),
    ]
    environment = {**clear_variables(os.environ), **select_variables(setting)}
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return Sample(setting, beside, **json.loads(run.stdout.splitlines()[-1]))


def time_steps(args: argparse.Namespace) -> dict[str, Any]:
    """Time training steps of a network in this process, after one that is not counted."""
    if args.sample == CHOSEN:
        threads.configure_threads()
    from mmresnest.analysis.benchmark_forms import BenchmarkCase, make_step, prepare_form, time_step

    case = BenchmarkCase(args.arch, 'training', args.size, 'float32', 'cpu')
    step = make_step(*prepare_form('plain', case, case.make_image()), case)
    step()
    seconds = [time_step(step, case.device)[0] for _ in range(args.steps)]
    return dict(seconds=seconds, spin=os.environ.get('GOMP_SPINCOUNT', '-'))


def take_samples(args: argparse.Namespace) -> list[Sample]:
    """Take all samples, in turn."""
    found = []
    for number in range(args.rounds):
        for beside in args.beside:
            with run_busy(beside):
                for place in range(len(args.settings)):
                    setting = args.settings[(place + number) % len(args.settings)]
                    found.append(take_sample(setting, beside, args))
                    sys.stderr.write(
                        f'round {number + 1} of {args.rounds}, beside {beside}, {setting}: '
                        f'{statistics.median(found[-1].seconds):.2f} s\n'
                    )
    return found


def median_of(samples: Sequence[Sample], setting: str, beside: int) -> float | None:
    """Return the median over processes of the medians of their steps."""
    own = [
        statistics.median(sample.seconds)
        for sample in samples
        if (sample.setting, sample.beside) == (setting, beside)
    ]
    return statistics.median(own) if own else None


def format_table(samples: Sequence[Sample]) -> str:
    """Return medians (least to greatest sample) in seconds, a row for each setting."""
    settings = list(dict.fromkeys(sample.setting for sample in samples))
    besides = sorted({sample.beside for sample in samples})
    lines = ['| setting | ' + ' | '.join(f'beside {beside}' for beside in besides) + ' |']
    lines.append('|---' * (len(besides) + 1) + '|')
    for setting in settings:
        cells = []
        for beside in besides:
            own = [one for one in samples if (one.setting, one.beside) == (setting, beside)]
            medians = [statistics.median(one.seconds) for one in own]
            spins = '/'.join(sorted({one.spin for one in own}))
            cells.append(
                f'{statistics.median(medians):.3f} ({min(medians):.3f} to {max(medians):.3f}), '
                f'spin {spins}'
            )
        lines.append(f'| {setting} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def compare_with_goals(samples: Sequence[Sample]) -> list[str]:
    """Return the chosen setting's ratios: to the unset one if quiet, to one thread if busy."""
    lines = []
    for beside in sorted({sample.beside for sample in samples}):
        other, most = (SINGLE, 1.3) if beside else (UNSET, 1.03)
        own, reference = (median_of(samples, name, beside) for name in (CHOSEN, other))
        if own and reference:
            lines.append(
                f'beside {beside}: {CHOSEN} takes {own / reference:.2f} of {other}, '
                f'the goal is at most {most}'
            )
    return lines


def main() -> int:
    """Measure, or take one sample."""
    from mmresnest.cli.benchmark import parse_shape

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--settings',
        nargs='+',
        type=check_setting,
        default=[UNSET, CHOSEN, SINGLE],
        metavar='SETTING',
        help=f'of {UNSET}, {CHOSEN}, {SINGLE}, spin=N (default: the first three)',
    )
    parser.add_argument(
        '--beside', nargs='+', type=int, default=[0, 1, 2], metavar='N', help='busy processes'
    )
    parser.add_argument('--rounds', type=int, default=3, help='processes of each (default: 3)')
    parser.add_argument('--steps', type=int, default=5, help='counted in each (default: 5)')
    parser.add_argument('--arch', default='resnest50')
    parser.add_argument('--size', type=parse_shape, default=(4, 192, 192), metavar='BxHxW')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all samples')
    parser.add_argument('--sample', type=check_setting, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min(args.rounds, args.steps) < 1 or min(args.beside) < 0:
        parser.error('at least one round and one step are needed, beside no or some processes')
    if args.sample:
        sys.stdout.write(json.dumps(time_steps(args)) + '\n')
        return 0
    samples = take_samples(args)
    sys.stdout.write('\n'.join([format_table(samples), *compare_with_goals(samples), '']))
    if args.json:
        args.json.write_text(json.dumps([one._asdict() for one in samples], indent=2))
    return 0


if __name__ == '__main__':
    sys.exit(main())
