"""Replace synchronized norms where there is nothing to synchronize."""

from __future__ import annotations

from typing import Any

import torch

SYNC_NORMS = ('SyncBN', 'MMSyncBN', 'NaiveSyncBN')


def can_synchronize() -> bool:
    """Return whether SyncBN has something to synchronize and can do so."""
    distributed = torch.distributed
    return (
        torch.cuda.is_available()
        and distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def replace_sync_norms(node: Any) -> int:
    """Replace every SyncBN of a part of a config by BN; return how many there were."""
    if isinstance(node, (list, tuple)):
        return sum(map(replace_sync_norms, node))
    if not isinstance(node, dict):
        return 0
    changed = sum(replace_sync_norms(value) for value in list(node.values()))
    if node.get('type') in SYNC_NORMS:
        node['type'] = 'BN'
        changed += 1
    return changed
