"""Filter warnings and log lines of other projects that do not concern the user, with the reasons.

Nothing is silenced as a whole: a warning is filtered by its text and its module, a line of the log
by its text. What the user asks of Python's warnings (``-W``, ``PYTHONWARNINGS``, ``warnings``) has
precedence. Errors and our own messages are never filtered.
"""

import logging
import re
import warnings
from types import ModuleType

from ..utils.text import printable

WARNINGS = (
    # mmseg builds the losses of its own heads by its own old function
    ('``build_loss`` would be deprecated', r'mmseg\.models\.builder'),
    # mmseg's default, and the one that its published results were trained with
    ('Default ``avg_non_ignore`` is False', r'mmseg\.models\.losses\.'),
    # mmseg's base configs name this hook and leave it switched off
    ('The draw is False', r'mmseg\.engine\.hooks\.visualization_hook'),
    # CheckNumbers stands before the step of the optimizer, and the order is kept
    (r'Seems like `optimizer\.step\(\)` has been overridden', r'mmengine\.optim\.scheduler'),
)
"""How a UserWarning begins, and which module says it, both as regular expressions."""

LINES = re.compile(
    '|'.join(
        (
            # of mmengine's CheckpointHook, which makes one whatever it is told
            '"FileClient" will be deprecated in future',
            '"HardDiskBackend" is the alias of "LocalBackend"',
            # one line a frozen weight, where `frozen_stages` asks for just that
            r'\S+ is skipped since its requires_grad=False$',
            # mmseg's metric has never had one
            r'The prefix is not set in metric class \w*IoUMetric\.',
        )
    )
)
"""How a line of mmengine's log begins."""


def install() -> None:
    """Have Python ignore the warnings, after whatever the user asks of them."""
    for message, module in WARNINGS:
        warnings.filterwarnings('ignore', message, UserWarning, module, append=True)


def is_relevant(record: logging.LogRecord) -> bool:
    """Return whether a line belongs into the log."""
    return record.levelno > logging.WARNING or LINES.match(record.getMessage()) is None


def escape_record(record: logging.LogRecord) -> bool:
    """Escape the control characters of a line, which files of strangers may have brought."""
    text = record.getMessage()
    if printable(text) != text:
        record.msg, record.args = printable(text), ()
    return True


def filter_log_lines(module: ModuleType) -> None:
    """Filter lines of mmengine's loggers, and what the fork prints at import, twice.

    The fork reports an optional service that is missing, by print as no logger is named.
    """
    theirs = module.MMLogger.__init__

    def __init__(self: logging.Logger, *args: object, **kwargs: object) -> None:
        theirs(self, *args, **kwargs)
        self.addFilter(is_relevant)
        self.addFilter(escape_record)

    def print_unless_known(message: object) -> None:
        if not str(message).startswith('Could not import OneDL'):
            print(message)

    module.MMLogger.__init__ = __init__
    vars(module)['print'] = print_unless_known
