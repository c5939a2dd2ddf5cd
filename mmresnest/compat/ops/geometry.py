"""Geometry of sampling operators: deformable convolution and RoIAlign."""

from typing import NamedTuple

from torch import Tensor


class RoIGeometry(NamedTuple):
    """What both directions of RoIAlign are told besides tensors; the names are mmcv's."""

    aligned_height: int
    aligned_width: int
    spatial_scale: float
    sampling_ratio: int
    pool_mode: int
    aligned: bool


class ConvGeometry(NamedTuple):
    """What a deformable convolution is told besides tensors; pairs are (vertical, horizontal)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    deform_groups: int

    @property
    def taps(self) -> int:
        """The number of taps of the kernel."""
        return self.kernel[0] * self.kernel[1]


class Gradients(NamedTuple):
    """Buffers that the gradients are added to; None where one is not wanted."""

    input: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    offset: Tensor | None = None
    mask: Tensor | None = None
