"""A part of a GPU check in which everything happens that can: see test_gpu_check."""

import os
import time

from mmresnest.analysis.gpu_check.items import CheckFailed, Item, LeftOut


def list_items(plan):
    """Items that pass, differ, raise, die and hang; the last one is reached all the same."""
    return [
        Item('passes', lambda run: dict(error='0.0', tolerance=1.0, where='x', compared=1)),
        Item('differs', differ),
        Item('raises', lambda run: 1 // 0),
        Item('cannot', leave_out),
        Item('dies', lambda run: os._exit(9)),
        Item('hangs', hang, 1.0),
        Item(
            'comes last', lambda run: dict(error='0.0', tolerance=1.0, where='x', compared=1), 1e6
        ),
    ]


def differ(run):
    raise CheckFailed('x differs', dict(error='2.0', tolerance=1.0, where='x', compared=1))


def leave_out(run):
    raise LeftOut('not here')


def hang(run):
    run.note_values(dict(error='0.5', tolerance=1.0, where='x', compared=1))
    time.sleep(600)
