"""A training step of small models of our configs, in double precision: losses and gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...config.demo import shrink_config
from ...config.hardware import configure_norms
from ...config.inspect import import_packages, task_of
from ...config.retarget import drop_weights
from ...config.widths import NARROWER, narrow_backbone
from ...engine.prepare import configure
from ...engine.runner import explain_build_errors
from ..memory import make_sample

CONFIGS = (
    'faster_rcnn_resnest50_fpn',
    'mask_rcnn_resnest50_fpn',
    'faster_rcnn_resnest50_fpn_dcn',
    'cascade_rcnn_res2net50_v1b_fpn',
    'deeplabv3_resnest50_ade20k',
)
OBJECTS = 3  # in an image


def shrink_backbone(model: Any) -> None:
    """Let a network have few blocks and a quarter of its channels, which its readers expect."""
    if model.backbone.get('arch') == 'resnest50':
        model.backbone.arch = 'resnest14'
    if not model.backbone.get('base_channels'):  # a segmentor was narrowed as a whole
        narrow_backbone(model, NARROWER)


def build_model(cfg: Any) -> nn.Module:
    """Build the model of a config in double precision, with nothing random in its step."""
    from mmengine.registry import MODELS, DefaultScope

    with explain_build_errors(cfg), DefaultScope.overwrite_default_scope(cfg.default_scope):
        torch.manual_seed(0)
        model: nn.Module = MODELS.build(cfg.model).double().train()
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return model


def run_step(
    name: str, device: str, size: int, model: Any = None
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Do a training step of a config's model, narrowed and with a network of few blocks.

    Args:
        name: of the config.
        device: where it runs.
        size: height of the two images, which are wider.
        model: with its weights and on its device; built if it is None.

    Returns:
        the model as it was before, and losses and gradients.
    """
    from mmengine.registry import DefaultScope

    cfg = configure(name)
    drop_weights(cfg)
    shrink_config(cfg)
    shrink_backbone(cfg.model)
    import_packages(cfg)
    configure_norms(cfg, distributed=False)
    if model is None:
        model = build_model(cfg).to(device)
    height, width, task = size, size + 32, task_of(cfg)
    if task == 'semantic':
        height, width = cfg.model.data_preprocessor.size
    torch.manual_seed(1)
    batch = dict(
        inputs=[torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(2)],
        data_samples=[make_sample(task, height, width, OBJECTS) for _ in range(2)],
    )
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        torch.manual_seed(2)  # mmdet samples regions by the CPU's generator
        losses = model(**model.data_preprocessor(batch, True), mode='loss')
        total, terms = model.parse_losses(losses)
    total.backward()
    found = {f'loss {key}': value.detach() for key, value in terms.items()}
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[key], parameter.grad = parameter.grad, None
    return model, found
