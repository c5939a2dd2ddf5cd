"""What can be asked of the page. Imports nothing heavy, as :mod:`mmresnest.config.options`."""

from __future__ import annotations

from dataclasses import dataclass

from ...config.options import option


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """How a model is served on a page.

    Attributes:
        host: address that the page is reached at; only this machine reaches the default.
        port: port of that address; 0 for any free one.
        score_thr: score below which objects are hidden when the page opens.
        device: auto (a GPU if there is one), cpu or cuda; gpu (of Intel) for .xml.
        open: show the page in this machine's browser.
    """

    host: str = option('127.0.0.1', metavar='ADDRESS')
    port: int = option(7860, type=int, metavar='N')
    score_thr: float = option(0.3, type=float, metavar='S')
    device: str = option('auto')
    open: bool = option(False)
