"""DeepLabV3's head as the ResNeSt authors trained it (PyTorch-Encoding), beside mmseg's.

Chen et al., arXiv:1706.05587, section 3.3: atrous spatial pyramid pooling. Both run five branches
over the map and concatenate them. mmseg's ``ASPPHead`` then has one 3x3 convolution; the authors'
has a 1x1 with dropout of whole channels, and a 3x3 after it:

    p = drop2d(relu(bn(W1 [b_1 .. b_5])))        y = classify(drop(relu(bn(W3 * p))))
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from ...registry import MODELS


@MODELS.register_module()
class EncodingASPPHead(BaseDecodeHead):
    """ASPP, a 1x1 projection, a 3x3 convolution, the classifier.

    Args:
        dilations: of the 3x3 branches; a 1x1 and an image-wide one stand beside them.
        project_dropout: chance of a channel to be dropped after the projection.
        **head: arguments of mmseg's ``BaseDecodeHead``.
    """

    def __init__(
        self, *, dilations: Sequence[int] = (12, 24, 36), project_dropout: float = 0.5, **head: Any
    ):
        super().__init__(**head)

        def layer(in_channels: int, kernel: int, dilation: int = 1) -> ConvModule:
            return ConvModule(
                in_channels,
                self.channels,
                kernel,
                dilation=dilation,
                padding=kernel // 2 * dilation,
                conv_cfg=self.conv_cfg,
                norm_cfg=self.norm_cfg,
                act_cfg=self.act_cfg,
            )

        self.branches = nn.ModuleList(
            [
                layer(self.in_channels, 1),
                *(layer(self.in_channels, 3, dilation) for dilation in dilations),
            ]
        )
        self.image_branch = layer(self.in_channels, 1)
        self.project = layer((len(dilations) + 2) * self.channels, 1)
        self.project_dropout = nn.Dropout2d(project_dropout)
        self.refine = layer(self.channels, 3)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the scores of classes: stages, B C H W each -> B classes H W."""
        x = self._transform_inputs(inputs)  # B C H W
        whole = self.image_branch(x.mean((2, 3), keepdim=True))  # B c 1 1
        parts = [
            *(branch(x) for branch in self.branches),
            F.interpolate(whole, size=x.shape[2:]),
        ]  # of one value
        y = self.project_dropout(self.project(torch.cat(parts, 1)))  # B c H W
        return self.cls_seg(self.refine(y))
