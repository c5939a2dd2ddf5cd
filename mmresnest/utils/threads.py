"""Set how many threads compute and how they wait, before torch is imported, which reads it once.

The threads of an operation wait for the slowest of them. OpenMP has them spin, by libgomp for
300,000 rounds, before they sleep: a thread that spins takes the core from the one that it waits for
if any other program uses the machine, which makes a step several times slower. A short spin costs a
quiet machine nothing, and none at all is best where others compute already. How threads wait does
not change a number. How many there are does, by the order of sums: it depends on the cores that the
process may use and on the processes of the run, never on what the machine does at the moment, so
that a run which resumes computes as before.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

SPIN_ROUNDS = 10_000
"""Rounds that a thread of libgomp spins on a quiet machine before it sleeps."""

WAITING = ('GOMP_SPINCOUNT', 'KMP_BLOCKTIME', 'OMP_WAIT_POLICY')
"""Variables that say how threads wait: libgomp's, that of Intel's and LLVM's OpenMP, both's."""
COUNTS = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')
"""Variables that say how many threads there are."""

CHOSEN = 'MMRESNEST_CHOSEN_THREADS'
"""Variable that names those which this module has set: processes started by this one, and by
tools/dist_train.sh, choose them anew."""

_PROCESSES = ('LOCAL_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_SIZE', 'MPI_LOCALNRANKS')
"""Variables of launchers with the processes on this machine."""
_SAMPLE_SECONDS = 0.05


class Machine(NamedTuple):
    """What a process finds.

    Attributes:
        cores: on which it may run; a core with two hardware threads counts once.
        quota: processors whose time it may use, by its cgroup; infinite without one.
        busy: cores of these that other programs use at the moment.
    """

    cores: int
    quota: float = float('inf')
    busy: float = 0.0


class Choice(NamedTuple):
    """What was found and set; see :func:`choose_threads`."""

    given: Mapping[str, str]
    machine: Machine
    processes: int
    chosen: Mapping[str, str]


_last: list[Choice] = []  # of this process


def choose_threads(
    environment: Mapping[str, str], machine: Machine, processes: int
) -> dict[str, str]:
    """Return the variables to set, without any that the user's environment decides.

    The number of threads is set only where OpenMP's own would be too large: it knows neither of a
    quota nor of other processes of the run.

    Args:
        environment: what the user has set.
        machine: see :class:`Machine`.
        processes: of this run on this machine.
    """
    found: dict[str, str] = {}
    threads = max(1, int(min(machine.cores, machine.quota)) // processes)
    if any(environment.get(name) for name in COUNTS):
        numbers = [_read_count(environment[name]) for name in COUNTS if environment.get(name)]
        threads = min(number or machine.cores for number in numbers)
    elif threads < machine.cores:
        found.update(dict.fromkeys(COUNTS, str(threads)))
    if not any(environment.get(name) for name in WAITING):
        crowded = threads * processes + machine.busy > machine.cores + 0.5
        found['GOMP_SPINCOUNT'] = '0' if crowded else str(SPIN_ROUNDS)
        found['KMP_BLOCKTIME'] = '0' if crowded else '1'  # milliseconds
    return found


def configure_threads() -> None:
    """Set the variables of this process, unless torch, which has read them, is imported."""
    if 'torch' in sys.modules:
        return
    ours = os.environ.pop(CHOSEN, '').split()
    for name in ours:
        os.environ.pop(name, None)
    given = dict(os.environ)
    processes = count_processes(given)
    machine = examine_machine(given)
    chosen = choose_threads(given, machine, processes)
    os.environ.update(chosen)
    if chosen:
        os.environ[CHOSEN] = ' '.join(chosen)
    _last[:] = [Choice(given, machine, processes, chosen)]


def describe_threads(threads: int) -> str:
    """Return, in a line, how many threads there are, how they wait, and why.

    Args:
        threads: those of torch.
    """
    if not _last:
        return f'{threads} threads that wait as OpenMP has it: torch was imported first'
    return f'{threads} threads, {explain_choice(_last[0])}'


def explain_choice(choice: Choice) -> str:
    """Return what decided the number of threads, and how they wait."""
    given, machine, processes, chosen = choice
    cores = f'{machine.cores} core{"s" if machine.cores > 1 else ""}'
    counted = [name for name in COUNTS if given.get(name)]
    if counted:
        number = ' '.join(f'{name}={given[name]}' for name in counted) + ' given'
    elif COUNTS[0] in chosen:
        limit = f', {machine.quota:g} by quota' if machine.quota < machine.cores else ''
        several = f' for {processes} processes' if processes > 1 else ''
        number = f'{COUNTS[0]}={chosen[COUNTS[0]]} set for {cores}{limit}{several}'
    else:
        number = f'those of {cores}'
    waiting = [f'{name}={given[name]}' for name in WAITING if given.get(name)]
    if waiting:
        return f'{number}; {" ".join(waiting)} given'
    waiting = [f'{name}={chosen[name]}' for name in WAITING if name in chosen]
    if chosen['GOMP_SPINCOUNT'] != '0':
        why = 'the cores are free'
    elif machine.busy > 0.5:
        why = f'others use {machine.busy:.1f} of the cores'
    else:
        why = 'there are more threads than cores'
    return f'{number}; {" ".join(waiting)} set, since {why}'


def count_processes(environment: Mapping[str, str]) -> int:
    """Return the processes of this run on this machine, as its launcher tells them."""
    found = (_read_count(environment.get(name, '')) for name in _PROCESSES)
    return next((number for number in found if number), 1)


def examine_machine(environment: Mapping[str, str]) -> Machine:
    """Return what this process may use and what others use, which takes 50 ms to see."""
    processors = list_processors()
    quota = read_quota()
    # srun tells each process what is its own, whether it binds the process to it or not.
    if 'SLURM_STEP_ID' in environment:
        quota = min(quota, _read_count(environment.get('SLURM_CPUS_PER_TASK', '')) or quota)
    before = read_idle_times()
    if before:
        time.sleep(_SAMPLE_SECONDS)
    busy = measure_busy(before, read_idle_times(), processors)
    return Machine(count_cores(processors), quota, busy)


def divide_threads(parts: int) -> dict[str, str]:
    """Return the variables by which each of several processes computes on its part of the cores.

    They are none where the user's environment says how many threads there are.

    Args:
        parts: how many processes there are at once.
    """
    chosen = os.environ.get(CHOSEN, '').split()
    if any(os.environ.get(name) for name in COUNTS if name not in chosen):
        return {}
    number = max(1, int(min(count_cores(list_processors()), read_quota())) // parts)
    waiting = [name for name in chosen if name not in COUNTS]  # each process chooses these anew
    return {**dict.fromkeys(COUNTS, str(number)), CHOSEN: ' '.join(waiting)}


def count_processors() -> int:
    """Return how many processes can compute at once: logical processors, within the quota."""
    return max(1, int(min(len(list_processors()), read_quota())))


def list_processors() -> list[int]:
    """Return the numbers of the logical processors that this process may run on."""
    if hasattr(os, 'sched_getaffinity'):  # macOS and Windows cannot say
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def count_cores(processors: Sequence[int], root: Path = Path('/sys/devices/system/cpu')) -> int:
    """Return on how many cores these logical processors are; MKL counts threads like this."""
    cores = set()
    for number in processors:
        try:
            cores.add((root / f'cpu{number}/topology/thread_siblings_list').read_text().strip())
        except OSError:  # another system, or a container that hides it
            cores.add(str(number))
    return max(1, len(cores))


def read_quota(
    root: Path = Path('/sys/fs/cgroup'), membership: Path = Path('/proc/self/cgroup')
) -> float:
    """Return the processors whose time the cgroups of this process may use, at least 1.

    Of version 1 and 2, in all folders from its own to the root.
    """
    quotas = [float('inf')]
    for line in _read_text(membership).splitlines():
        _, controllers, path = line.split(':', 2)
        if controllers and 'cpu' not in controllers.split(','):
            continue
        top = root / 'cpu' if controllers else root
        folder = Path(path.lstrip('/'))
        quotas += [_read_folder_quota(top / part) for part in (folder, *folder.parents)]
    return max(1.0, min(quotas))


def _read_folder_quota(folder: Path) -> float:
    """Return the quota of one cgroup, infinite where it has none."""
    words = _read_text(folder / 'cpu.max').split() or [
        _read_text(folder / 'cpu.cfs_quota_us').strip(),
        _read_text(folder / 'cpu.cfs_period_us').strip(),
    ]
    if len(words) == 2 and all(word.isdigit() and int(word) for word in words):
        return int(words[0]) / int(words[1])
    return float('inf')  # 'max', or -1


def read_idle_times(path: Path = Path('/proc/stat')) -> dict[int, tuple[int, int]]:
    """Return (idle, all) ticks of each logical processor since the start; empty but on Linux."""
    found = {}
    for number, ticks in re.findall(r'^cpu(\d+) ([\d ]+)$', _read_text(path), re.MULTILINE):
        values = [int(value) for value in ticks.split()][:8]  # those of guests are counted twice
        found[int(number)] = (sum(values[3:5]), sum(values))
    return found


def measure_busy(
    before: Mapping[int, tuple[int, int]],
    after: Mapping[int, tuple[int, int]],
    processors: Sequence[int],
) -> float:
    """Return how many of these processors were in use between two readings.

    One that was used for less than a fifth of the time counts as free, so that the small work of a
    large machine does not add up.
    """
    busy = 0.0
    for number in processors:
        if number in before and number in after:
            idle, total = (new - old for old, new in zip(before[number], after[number]))
            share = 1 - idle / total if total > 0 else 0.0
            busy += share if share >= 0.2 else 0.0
    return busy


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ''


def _read_count(text: str) -> int:
    """Return the first number of a variable such as ``8`` or ``4,2``; 0 for none."""
    number = re.match(r'\s*(\d+)', text)
    return int(number.group(1)) if number else 0
