"""Maps without values, by torch's meta device: do they fit the parts that read them?"""

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmresnest.config.inspect import import_packages, task_of
from mmresnest.models.norms import replace_sync_norms


def backbone_of(cfg: Config) -> dict:
    model = cfg.model
    return (model.get('detector') or model).get('backbone') or {}


def build(cfg: Config, device: str = 'cpu'):
    replace_sync_norms(cfg.model)
    import_packages(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(device):
        return MODELS.build(cfg.model)


MAPS: dict[str, tuple[torch.Tensor, ...]] = {}
"""Settings of a backbone -> its maps, which have no values: it runs once for all models."""


def check_maps(cfg: Config) -> None:
    """The maps go through the neck, and in a segmentor through the heads, in shape.

    The network has few blocks, of which no shape depends: some segmentors dilate three in the last.
    """
    backbone = backbone_of(cfg)
    backbone.depths = (1, 1, 1, 3)[: backbone.get('num_stages', 4)]
    model = build(cfg, 'meta').eval()
    model = getattr(model, 'detector', None) or getattr(model, 'student', None) or model
    image = torch.empty(2, 3, 128, 128, device='meta')
    with torch.device('meta'), torch.no_grad():
        if (key := str(backbone)) not in MAPS:
            MAPS[key] = model.backbone(image)
        maps = MAPS[key]
        model.backbone.forward = lambda image: MAPS[key]
        if getattr(model, 'neck', None) is not None and hasattr(model, 'with_neck'):
            maps = model.neck(maps)
        if task_of(cfg) == 'semantic':
            size = dict(img_shape=(128, 128), ori_shape=(128, 128), pad_shape=(128, 128))
            model.encode_decode(image, [size, size])
            heads = getattr(model, 'auxiliary_head', None)
            for head in heads if isinstance(heads, torch.nn.ModuleList) else [heads]:
                if head is not None:
                    head(maps)
