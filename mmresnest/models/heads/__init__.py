"""What the authors' recipes need of heads, and mmdet and mmseg do not have.

    bbox_roi_extractor=dict(type='mmresnest.ScaledGradient', scale=1 / 3,
                            extractor=dict(type='mmdet.SingleRoIExtractor', ...))

:mod:`.aspp` needs mmseg, and is imported by the configs that use it (``custom_imports``).
"""

from typing import Any

from mmengine.registry import MODELS as ROOT
from torch import Tensor, nn

from ...errors import ArgumentError
from ...registry import MODELS


@MODELS.register_module()
class ScaledGradient(nn.Module):
    """A region feature extractor whose features hand back only a part of their gradient.

        y = extract(x, rois)        dL/dx = scale * (dy/dx) dL/dy

    A cascade of n box heads that all have weight 1 reads the same maps n times; detectron2 lets
    each contribute 1 / n of its gradient to them, where mmdet lowers the weights of the later
    heads' losses instead (1, 1/2, 1/4), which slows those heads down, too.

    Args:
        extractor: config of the extractor proper; it is used as it is in evaluation.
        scale: share of the gradient, above 0 and at most 1.

    Raises:
        ArgumentError: a scale outside that range.
    """

    def __init__(self, extractor: dict, scale: float):
        super().__init__()
        if not 0 < scale <= 1:
            raise ArgumentError(
                f'scale={scale} is a share of the gradient; legal: above 0, at most 1',
                code='argument.value',
            )
        self.extractor = ROOT.build(extractor)
        self.scale = scale

    @property
    def num_inputs(self) -> int:
        """Return how many levels of the pyramid are read; the heads ask for it."""
        return self.extractor.num_inputs

    @property
    def out_channels(self) -> int:
        """Return the channels of a region's features."""
        return self.extractor.out_channels

    @property
    def featmap_strides(self) -> list[int]:
        """Return the strides of the levels, in pixels."""
        return self.extractor.featmap_strides

    def forward(self, feats: tuple[Tensor, ...], rois: Tensor, *args: Any) -> Tensor:
        """Extract features: maps, each B C H W, and R 5 regions -> R C h w."""
        y = self.extractor(feats, rois, *args)  # R C h w
        if y.requires_grad and self.scale < 1:
            y.register_hook(self.scale_gradient)
        return y

    def scale_gradient(self, gradient: Tensor) -> Tensor:
        """Scale a gradient: R C h w -> the same."""
        return gradient * self.scale

    def extra_repr(self) -> str:
        """Return the scale, for ``print``."""
        return f'scale={self.scale:.3f}'
