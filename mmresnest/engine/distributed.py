"""Join the processes that train together, on GPUs or on CPUs.

mmengine's launchers select a GPU before they do anything else, which fails where there is none.  On
such machines the process group is set up here, over gloo, before the runner looks for one.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..config.hardware import has_accelerator
from ..config.options import LAUNCHERS
from ..errors import UserError

GLOO_TEARDOWN_SECONDS = 0.5
"""Time in which a thread of gloo releases the last exchange."""

_NAMES = {
    'pytorch': ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'),
    'slurm': ('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE'),
}
"""Launcher -> its variables of rank, local rank and number of processes."""
_STARTERS = {
    'pytorch': 'torchrun, or tools/dist_train.sh CONFIG PROCESSES',
    'slurm': 'srun, or tools/slurm_train.sh',
    'mpi': 'mpirun',
}


def rank_and_world_size(launcher: str) -> tuple[int, int, int]:
    """Return rank, local rank and number of processes, as the launcher tells them.

    Raises:
        UserError: if this process was not started by that launcher.
    """
    if launcher not in LAUNCHERS:
        raise UserError(
            f'unknown launcher {launcher!r}; legal: {", ".join(LAUNCHERS)}', code='option.unknown'
        )
    if launcher == 'none':
        return 0, 0, 1
    try:
        rank, local, world = (int(os.environ[name]) for name in _NAMES[launcher])
    except (KeyError, ValueError) as error:
        raise UserError(
            f'--launcher {launcher} reads the environment variable {error}, which is '
            f'not set: start the processes with {_STARTERS[launcher]}',
            code='launcher.environment',
        ) from None
    return rank, local, world


@contextmanager
def process_group(launcher: str) -> Iterator[None]:
    """Join the process group where mmengine could not, and leave it at the end.

    Raises:
        UserError: if this process was not started by that launcher.
    """
    from torch import distributed

    rank, local, world = rank_and_world_size(launcher)
    joined = distributed.is_available() and distributed.is_initialized()
    if launcher != 'none' and not joined and not has_accelerator():
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(local), WORLD_SIZE=str(world))
        os.environ.setdefault('MASTER_PORT', '29500')
        if 'MASTER_ADDR' not in os.environ:
            os.environ['MASTER_ADDR'] = _first_host(launcher)
        distributed.init_process_group('gloo')
    try:
        yield
    finally:
        if launcher != 'none' and not joined and distributed.is_initialized():
            leave_process_group()


def leave_process_group() -> None:
    """Leave the process group, so that this process can end.

    A thread of gloo may still hold the last exchange, and needs Python's lock to release it. A
    thread that asks for the lock while Python ends is killed inside C++ code, which aborts the
    process after its work is done.
    """
    from torch import distributed

    gloo = distributed.get_backend() != 'nccl'
    distributed.destroy_process_group()
    if gloo:
        time.sleep(GLOO_TEARDOWN_SECONDS)


def _first_host(launcher: str) -> str:
    nodes = os.environ.get('SLURM_NODELIST', '')
    if launcher == 'slurm' and nodes:
        try:
            listed = subprocess.run(
                ['scontrol', 'show', 'hostname', nodes], capture_output=True, text=True, check=True
            ).stdout.split()
            if listed:
                return listed[0]
        except (OSError, subprocess.CalledProcessError):
            pass  # no scontrol inside many containers: one node is the likely case
    if int(os.environ.get('SLURM_NNODES', '1')) > 1:
        raise UserError(
            'the processes run on several nodes, and MASTER_ADDR does not name the '
            f'first of them; set it (this one is {socket.gethostname()})',
            code='launcher.environment',
        )
    return '127.0.0.1'
