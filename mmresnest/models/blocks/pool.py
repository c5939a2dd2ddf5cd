"""Pools that round sizes up, also where the size is a symbol.

    y_i = mean or max of x_j,    s i <= j < min(s i + k, n),    0 <= i < ceil((n - k) / s) + 1

The size which PyTorch computes for ``ceil_mode`` takes another branch for even and for odd n, so
that a graph exported or compiled for dynamic sizes would hold for one of the two. In a graph the
same is said without a branch: k < n, and s - 1 more rows and columns that count for nothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CeilAvgPool2d(nn.AvgPool2d):
    """``AvgPool2d(s, ceil_mode=True, count_include_pad=False)``, windows side by side."""

    def __init__(self, size: int):
        super().__init__(size, ceil_mode=True, count_include_pad=False)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> B C ceil(H/s) ceil(W/s)."""
        if not torch.compiler.is_compiling():
            return super().forward(x)
        more = (0, self.size - 1, 0, self.size - 1)
        share = F.avg_pool2d(F.pad(x.new_ones((1, 1, x.shape[2], x.shape[3])), more), self.size)
        return F.avg_pool2d(F.pad(x, more), self.size) / share


class CeilMaxPool2d(nn.MaxPool2d):
    """``MaxPool2d(k, s, ceil_mode=True)``, unpadded."""

    def __init__(self, size: int, stride: int):
        super().__init__(size, stride, ceil_mode=True)
        self.more = (0, stride - 1, 0, stride - 1)

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> B C ceil((H - k) / s) + 1 and likewise W."""
        if not torch.compiler.is_compiling():
            return super().forward(x)
        padded = F.pad(x, self.more, value=float('-inf'))
        return F.max_pool2d(padded, self.kernel_size, self.stride)
