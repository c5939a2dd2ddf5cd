"""What keeps a run safe, put into any config: ours have it by themselves.

Checkpoints that survive, loops that are taken up to the bit, an end on a signal, numbers that are
watched, bad images that are left out.
"""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

#: name in default_hooks -> the hook; where a config has the key, as None too, it is as it says
HOOKS = {
    'signals': 'mmresnest.StopOnSignal',
    'numbers': 'mmresnest.CheckNumbers',
    'images': 'mmresnest.SkipBadImages',
}
#: types of mmengine -> ours, which takes the same arguments
TYPES = {
    name: f'mmresnest.{name}'
    for name in ('CheckpointHook', 'EpochBasedTrainLoop', 'IterBasedTrainLoop')
}


def settle_safety(cfg: Config) -> None:
    """Puts our loop, checkpoint hook and further hooks in place, where the config has mmengine's.

    Args:
        cfg: changed in place.
    """
    # mmengine's setdefault keeps a copy and returns what it was given.
    cfg.setdefault('default_hooks', {})
    hooks = cfg.default_hooks
    for name, kind in HOOKS.items():
        if name not in hooks:
            hooks[name] = dict(type=kind)
        elif hooks[name] is None:  # mmengine lets nothing but its own be None
            del hooks[name]
    hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    checkpoint = hooks['checkpoint']
    loop: Any = cfg.get('train_cfg') or {}
    if 'type' not in loop and 'by_epoch' in loop:
        loop['type'] = f'{"Epoch" if loop.pop("by_epoch") else "Iter"}BasedTrainLoop'
    for part in (checkpoint, loop):
        kind = (part or {}).get('type', '')
        if isinstance(kind, type) and kind.__module__.startswith('mmengine.'):
            kind = kind.__name__  # as new-style configs have it
        kind = str(kind).removeprefix('mmengine.')
        if kind in TYPES:
            part['type'] = TYPES[kind]
