"""Open the page of a model: ``mmresnest demo``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...config.options import build_options
from ...errors import UserError
from ..base import BasePredictor, check_score
from ..runtimes import SESSIONS
from .options import PageOptions
from .server import PageServer, open_server
from .session import LEAST_SCORE, PageSession


def open_page(
    source: str | os.PathLike,
    checkpoint: str | os.PathLike | None = None,
    options: PageOptions | None = None,
    /,
    *,
    tell: Callable[[str], None] = lambda line: None,
    **given: Any,
) -> PageServer:
    """Load a model, and return the server of its page; ``serve_forever`` runs it.

    Args:
        source: the work folder of a training, or an ``.onnx`` or ``.xml`` of ``mmresnest export``,
            which needs neither torch nor an mm library.
        checkpoint: of the work folder; None for its best.
        options: what is asked for, see :class:`~.options.PageOptions`.
        tell: is given each line that the user should know of.
        **given: options by keyword, such as ``port=8000``.

    Raises:
        UserError: the model cannot be used, or the address cannot be had.
    """
    options = build_options(PageOptions, options, given)
    check_score(options.score_thr)
    check_source(Path(source).expanduser(), checkpoint)
    server = open_server(options.host, options.port)
    try:
        tell(f'loading {source}')
        model = load_model(source, checkpoint, options)
        title = Path(source).expanduser().resolve().name  # not where it lies
        server.session = PageSession(model, title, options.score_thr)
    except BaseException:
        server.server_close()
        raise
    return server


def check_source(source: Path, checkpoint: str | os.PathLike | None) -> None:
    """Refuse what is neither a work folder nor an exported file.

    Raises:
        UserError: with what to give instead.
    """
    if source.is_dir():
        return
    if source.suffix not in SESSIONS:
        raise UserError(
            f'{source} is neither the work folder of a training nor an exported file '
            f'({", ".join(SESSIONS)}); of a config and a checkpoint give the folder that holds '
            'both, or a file that `mmresnest export` made of them',
            code='page.source',
        )
    if checkpoint is not None:
        raise UserError(
            f'--checkpoint goes with a work folder, and {source} has its weights in it; leave '
            '--checkpoint out',
            code='option.conflict',
        )


def load_model(
    source: str | os.PathLike, checkpoint: str | os.PathLike | None, options: PageOptions
) -> BasePredictor:
    """Return a predictor that leaves out no object that the page may show.

    Raises:
        UserError: the model cannot be used.
    """
    least = min(LEAST_SCORE, options.score_thr)
    if Path(source).suffix in SESSIONS and not Path(source).expanduser().is_dir():
        from ..exported import ExportedModel

        return ExportedModel(source, least, options.device)
    from ...engine.trained_run import resolve_run
    from ..predictor import Predictor

    run = resolve_run(source, checkpoint)
    return Predictor(run.config, run.checkpoint, options.device, least)
