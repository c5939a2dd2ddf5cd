"""Time forms that keep freed memory: ``mmresnest benchmark`` with the forms ``...-kept`` added.

``mmresnest.deploy.keep_memory()`` is for a whole process and for good, so that each of these forms
runs in a process of its own: ``mmdet-kept``, ``lean-kept``, ``fused-kept``, ``convolutions-kept``.
All options are those of the command.
"""

from __future__ import annotations

import multiprocessing
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

KEPT = '-kept'


class SubprocessForm:
    """A form in a process of its own, which keeps its memory.

    Args:
        form: its name.
        case: what is run.

    Raises:
        FormUnavailable: the form cannot be run.
    """

    def __init__(self, form: str, case: Any) -> None:
        import torch

        from mmresnest.analysis.benchmark_forms import FormUnavailable

        if torch.device(case.device).type != 'cpu':
            raise FormUnavailable('memory is kept on CPUs only')
        self.form = form
        context = multiprocessing.get_context('spawn')
        self.pipe, child_pipe = context.Pipe()
        self.process = context.Process(
            target=serve_steps,
            daemon=True,
            args=(child_pipe, form.removesuffix(KEPT), case, torch.get_num_threads()),
        )
        self.process.start()
        child_pipe.close()
        try:
            reason = self.pipe.recv()
        except EOFError:
            reason = 'its process ended early, see above'
        if reason:
            self.close()
            raise FormUnavailable(reason)

    def run_step(self) -> tuple[float, float]:
        """Do a step there, and return its seconds; see ``benchmark_forms.time_step``."""
        from mmresnest.errors import UserError

        try:
            self.pipe.send(True)
            seconds: tuple[float, float] = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise UserError(
                f'the process of {self.form} ended early, see above; leave the form '
                'out, or give it more memory'
            ) from error
        return seconds

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):  # it may have ended by itself
            self.pipe.send(False)
        self.process.join()


def serve_steps(pipe: Any, form: str, case: Any, threads: int) -> None:
    """Run steps in the process of a form, one for each message."""
    import torch

    from mmresnest.analysis.benchmark_forms import (
        FormUnavailable,
        make_step,
        prepare_form,
        time_step,
    )
    from mmresnest.deploy import keep_memory
    from mmresnest.errors import UserError

    torch.set_num_threads(threads)
    try:
        keep_memory()
        step = make_step(*prepare_form(form, case, case.make_image()), case)
    except (FormUnavailable, UserError) as reason:
        pipe.send(str(reason))
        return
    pipe.send('')
    while pipe.recv():
        pipe.send(time_step(step, case.device))


def start_in_subprocess(form: str, case: Any) -> Any:
    """Start a form in a process of its own, and warm it up."""
    from mmresnest.analysis.benchmark import StartedForm, warm_up

    started = SubprocessForm(form, case)
    warm_up(started.run_step)
    return StartedForm(started.run_step, close=started.close)


def add_forms() -> None:
    """Add the forms to those of the benchmark."""
    from mmresnest.analysis.benchmark import FORMS

    for form in ('mmdet', 'lean', 'fused', 'convolutions'):
        FORMS[form + KEPT] = start_in_subprocess


def main() -> int:
    """Run the command."""
    from mmresnest.cli.main import main as run_command

    add_forms()
    return run_command(['benchmark', *sys.argv[1:]])


if __name__ == '__main__':
    sys.exit(main())
