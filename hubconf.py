"""Entry points of torch.hub: each network of docs/archs.md by its name.

>>> import torch
>>> backbone = torch.hub.load('FOLDER OF A CLONE', 'resnest50', source='local', pretrained=True)
"""

from collections.abc import Callable
from typing import Any

from mmresnest.models import factory as _factory

dependencies = ['torch', 'numpy']


def _make_entry(arch: str) -> Callable[..., Any]:
    def build(pretrained: bool | str = False, **trunk: Any) -> Any:
        return _factory.build_backbone(arch, pretrained=pretrained, **trunk)

    build.__name__ = build.__qualname__ = arch
    build.__doc__ = f"""Build {arch}, which returns one map per stage.

    Args:
        pretrained: True for the published weights, or the path or URL of a checkpoint.
        **trunk: other arguments of ``mmresnest.build_backbone``, such as ``out_indices``.
    """
    return build


globals().update({arch: _make_entry(arch) for arch in _factory.list_archs()})
