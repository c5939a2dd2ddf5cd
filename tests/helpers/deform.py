"""Deformable convolution, one tap of one output at a time."""

import math
from collections import namedtuple
from itertools import product

import torch

Conv = namedtuple('Conv', 'stride padding dilation groups deform_groups kernel', defaults=[(3, 3)])


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def deform_twin(conv, x, offset, weight, mask=None, bias=None):
    """Reads each tap of each output by itself; Δ gets its gradient through the four shares."""
    (stride, padding, dilation), kernel = map(pair, conv[:3]), conv.kernel
    images, channels, height, width = x.shape
    per_offset, per_group = channels // conv.deform_groups, channels // conv.groups
    taps = list(product(range(kernel[0]), range(kernel[1])))
    columns = []
    for b, row, column in product(range(images), *map(range, offset.shape[2:])):
        for k, (i, j) in enumerate(taps):
            for d in range(conv.deform_groups):
                at = 2 * (d * len(taps) + k)
                y, z = offset[b, at : at + 2, row, column]
                y = y + row * stride[0] - padding[0] + i * dilation[0]
                z = z + column * stride[1] - padding[1] + j * dilation[1]
                total = x.new_zeros(per_offset)
                if -1 < y < height and -1 < z < width:
                    top, left = math.floor(y.item()), math.floor(z.item())
                    for p, q in product((top, top + 1), (left, left + 1)):
                        if 0 <= p < height and 0 <= q < width:
                            share_y = y - top if p > top else 1 - (y - top)
                            share_z = z - left if q > left else 1 - (z - left)
                            cell = x[b, d * per_offset : (d + 1) * per_offset, p, q]
                            total = total + share_y * share_z * cell
                if mask is not None:
                    total = total * mask[b, d * len(taps) + k, row, column]
                columns.append(total)
    columns = torch.stack(columns).view(images, *offset.shape[2:], len(taps), channels)
    outputs = len(weight) // conv.groups
    out = torch.cat(
        [
            torch.einsum(
                'bhwkc,okc->bohw',
                columns[..., g * per_group : (g + 1) * per_group],
                weight[g * outputs : (g + 1) * outputs].flatten(2).transpose(1, 2),
            )
            for g in range(conv.groups)
        ],
        1,
    )
    return out if bias is None else out + bias[:, None, None]
