"""3x3 convolution with fewer multiplications, as products of matrices; for inference on CPUs.

    y = A^T [sum_c (G w_c G^T) * (B^T x_c B)] A        4x4 places of y from 6x6 places of x

The sum over input channels is a product of matrices for each of the 36 places of the transformed
tile: 36 multiplications where 4 * 4 * 9 = 144 are counted, and the transforms, which many channels
share. Equal to the definition but for rounding, of which there is about twice as much; the points
0, 1, -1, 1/2, -2 of the interpolation keep it that low, a fourth of that of the usual 0, ±1, ±2.

Lavin & Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308; Barabasz et al.,
Error Analysis and Improving the Accuracy of Winograd Convolution, arXiv:1803.10986 (the points).
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)  # and infinity
TILE, TAPS = 4, 3
PLACES = TILE + TAPS - 1
# Fewer channels than this in a group, and the transforms cost what the products save; fewer tiles,
# and reading the 36 transformed matrices does. Measured on CPUs with AVX2.
CHANNELS = 128
TILES = 64
# Places of all tiles for one of the map: beyond that the border costs what the products save.
MOST_PLACES = 1.7
# Tiles in work at once: their values, and the transformed weights, stay in the processor's cache.
CHUNK = 256


class Transforms(NamedTuple):
    """The three matrices, and the Kronecker squares of two of them for flattened tiles."""

    kernel: Tensor  # G: 6 3
    inputs: Tensor  # B^T x B^T: 36 36
    outputs: Tensor  # A^T x A^T: 16 36


@cache
def make_transforms() -> Transforms:
    """Return the transforms, by evaluation and interpolation of polynomials at ``POINTS``."""
    points = torch.tensor(POINTS, dtype=torch.float64, device='cpu')

    def evaluate(terms: int) -> Tensor:
        """Return what a polynomial of so many terms is at each point; at infinity its last term."""
        finite = points[:, None] ** torch.arange(terms, device='cpu')
        last = torch.eye(terms, dtype=torch.float64, device='cpu')[-1:]
        return torch.cat([finite, last])  # 6 terms

    interpolate = torch.linalg.inv(evaluate(PLACES)).t()  # 6 6
    scale = interpolate.abs().amax(1, keepdim=True)  # rows of one size round alike
    inputs, outputs = interpolate / scale, evaluate(TILE).t()
    return Transforms(
        evaluate(TAPS) * scale,
        torch.kron(inputs, inputs).float(),
        torch.kron(outputs, outputs).float(),
    )


def can_use_winograd(conv: nn.Conv2d, x: Tensor) -> bool:
    """Return whether a convolution of this map is computed in less time this way."""
    channels = min(conv.in_channels, conv.out_channels) // conv.groups
    if (
        conv.kernel_size != (3, 3)
        or conv.stride != (1, 1)
        or conv.padding != conv.dilation
        or conv.dilation[0] != conv.dilation[1]
        or channels < CHANNELS
    ):
        return False
    step = conv.dilation[0]
    batch, _, height, width = x.shape
    tiles = batch * step**2 * -(-height // (step * TILE)) * -(-width // (step * TILE))
    return tiles >= TILES and TILE**2 * tiles <= MOST_PLACES * batch * height * width


def transform_kernel(weight: Tensor, groups: int) -> Tensor:
    """Return weights in the transformed space: O I/g 3 3 -> g 36 I/g O/g."""
    G = make_transforms().kernel
    with torch.no_grad():
        one = torch.einsum('pi,qj,ocij->pqco', G, G, weight.double())  # 6 6 I/g O
        one = one.flatten(0, 1).unflatten(2, (groups, -1)).permute(2, 0, 1, 3)
        return one.to(weight.dtype).contiguous()


def convolve_winograd(
    x: Tensor, kernel: Tensor, bias: Tensor | None, add: Tensor | None = None, relu: bool = False
) -> Tensor:
    """Return relu(w * x + bias + add) for a 3x3 convolution that keeps the size of its map.

    Args:
        x: B I H W, in channels-last.
        kernel: the transformed weights, of ``transform_kernel``.
        bias: O.
        add: B O H W.
        relu: apply it.

    Returns:
        B O H W, in channels-last.
    """
    groups, out = kernel.shape[0], kernel.shape[0] * kernel.shape[3]
    batch, channels, height, width = x.shape
    transforms = make_transforms()
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = x.new_zeros(batch, TILE * rows + 2, TILE * columns + 2, channels)
    padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
    y = x.new_empty(batch, height, width, out)
    bias = x.new_zeros(out) if bias is None else bias
    image, row, column, _ = padded.stride()
    for images, tiles in split_tiles(batch, rows, columns):
        size = images.stop - images.start, tiles.stop - tiles.start, columns
        part = padded[images, TILE * tiles.start :]
        patches = part.as_strided(
            (PLACES, PLACES, *size, channels), (row, column, image, TILE * row, TILE * column, 1)
        ).reshape(PLACES**2, -1)
        inputs = torch.mm(transforms.inputs, patches).view(
            PLACES**2, -1, groups, channels // groups
        )
        here = slice(TILE * tiles.start, min(TILE * tiles.stop, height))
        target = y[images, here]
        for group in range(groups):
            product = torch.bmm(inputs[:, :, group], kernel[group])  # 36 T O/g
            tile = torch.mm(transforms.outputs, product.flatten(1)).view(
                TILE, TILE, *size, kernel.shape[3]
            )
            values = tile.permute(2, 3, 0, 4, 1, 5).reshape(
                size[0], TILE * size[1], TILE * columns, kernel.shape[3]
            )
            own = slice(group * kernel.shape[3], (group + 1) * kernel.shape[3])
            torch.add(values[:, : target.shape[1], :width], bias[own], out=target[..., own])
        if add is not None:
            target.add_(add[images, :, here].permute(0, 2, 3, 1))
        if relu:
            target.relu_()
    return y.permute(0, 3, 1, 2)


def convolve_dilated(
    x: Tensor, kernel: Tensor, bias: Tensor | None, add: Tensor | None, relu: bool, dilation: int
) -> Tensor:
    """Return the same for a dilated convolution: every d-th row and column is a map of its own."""
    batch, _, height, width = x.shape
    rows, columns = -(-height // dilation), -(-width // dilation)

    def split_phases(maps: Tensor) -> Tensor:
        """B C H W -> B d d C H/d W/d, as one batch, zeros where the map ends."""
        y = F.pad(maps, (0, columns * dilation - width, 0, rows * dilation - height))
        y = y.unflatten(3, (columns, dilation)).unflatten(2, (rows, dilation))
        y = y.permute(0, 3, 5, 2, 4, 1).reshape(-1, rows, columns, maps.shape[1])
        return y.permute(0, 3, 1, 2)

    y = convolve_winograd(
        split_phases(x), kernel, bias, None if add is None else split_phases(add), relu
    )
    y = y.permute(0, 2, 3, 1).unflatten(0, (batch, dilation, dilation))  # B d d H/d W/d O
    y = y.permute(0, 3, 1, 4, 2, 5).reshape(batch, rows * dilation, columns * dilation, -1)
    return y[:, :height, :width].contiguous().permute(0, 3, 1, 2)


def split_tiles(batch: int, rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of images, and of rows of tiles, of about ``CHUNK`` tiles."""
    if rows * columns <= CHUNK:
        step = max(1, CHUNK // (rows * columns))
        for start in range(0, batch, step):
            yield slice(start, min(start + step, batch)), slice(0, rows)
        return
    step = max(1, CHUNK // columns)
    for image in range(batch):
        for start in range(0, rows, step):
            yield slice(image, image + 1), slice(start, min(start + step, rows))
