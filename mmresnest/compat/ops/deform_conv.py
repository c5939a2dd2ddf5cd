"""Deformable convolution, v1 (Dai et al., 2017) and v2, modulated (Zhu et al., 2019).

    out[b, :, p] = Σ_k W_k · m_k(p) · x[b, :, p·stride - pad + k·dilation + Δ_k(p)]  (+ bias)

Tap k of the kernel reads the map at its usual place plus a learned offset Δ_k, by bilinear
interpolation with zeros outside, and v2 scales what it reads by a learned m_k.  Channels fall into
deformable groups, each with offsets of its own, and into groups of the convolution.

Reading is a sum of four weighted rows (``rows``), which gives one row of columns per output place;
what remains is a matrix product.  The gradient for Δ and m flows through the four weights alone.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from . import torchvision
from .geometry import ConvGeometry, Gradients
from .sparse import Entries, sum_rows, sum_rows_transposed, working_dtype

# Values of the columns held at once: 256 MB of float32.
COLUMNS = 1 << 26


def sampling_locations(
    offset: Tensor, geometry: ConvGeometry, shape: tuple[int, int]
) -> tuple[list[Tensor], Tensor]:
    """Return where the taps read.

    Args:
        offset: (images, deform_groups · taps · 2, out_height, out_width), y before x.
        geometry: see there.
        shape: height and width of the map.

    Returns:
        y and x, and whether something is read there, each (images, out_height, out_width, taps,
        deform_groups).
    """
    images, _, *out = offset.shape
    taps, groups = geometry.taps, geometry.deform_groups
    moved = offset.view(images, groups, taps, 2, *out).permute(3, 0, 4, 5, 2, 1)  # 2 B OH OW K D
    axes = []
    for axis in (0, 1):
        along = [-1 if axis == other else 1 for other in (0, 1)]
        start, tap = (
            torch.arange(count, device=offset.device, dtype=offset.dtype).view(along) * step
            for count, step in (
                (out[axis], geometry.stride[axis]),
                (geometry.kernel[axis], geometry.dilation[axis]),
            )
        )
        tap = tap.expand(geometry.kernel).reshape(taps, 1)
        axes.append(moved[axis] + (start[..., None, None] - geometry.padding[axis] + tap))
    # On the line at -1 compiled mmcv reads nothing, so that Δ gets no gradient there, although
    # interpolation would be continuous: with Δ = 0 every padded tap lies on that line.
    y, x = axes
    return axes, (y > -1) & (y < shape[0]) & (x > -1) & (x < shape[1])


def bilinear_entries(
    offset: Tensor, mask: Tensor | None, geometry: ConvGeometry, shape: tuple[int, int]
) -> Entries:
    """Find the four cells about every place read, and their weights.

    Args:
        offset: as in ``sampling_locations``.
        mask: (images, deform_groups · taps, out_height, out_width), or None for v1.
        geometry: see there.
        shape: height and width of the map.

    Returns:
        a bag of four for each value of a column, in the order image, place, tap, deformable group;
        the weights are functions of offset and mask.
    """
    images, groups = len(offset), geometry.deform_groups
    axes, inside = sampling_locations(offset, geometry, shape)
    corners = []
    for value, length in zip(axes, shape, strict=True):
        value = value.where(inside, value.new_tensor(-1.0))
        lower = value.detach().floor()
        share = value - lower
        corners.append(
            [
                (cell.clamp(0, length - 1).int(), weight * ((cell >= 0) & (cell < length) & inside))
                for cell, weight in ((lower, 1 - share), (lower + 1, share))
            ]
        )
    image = torch.arange(images, device=offset.device, dtype=torch.int32).view(-1, 1, 1, 1, 1)
    group = torch.arange(groups, device=offset.device, dtype=torch.int32)
    row, weight = [], []
    for y, weight_y in corners[0]:
        for x, weight_x in corners[1]:
            row.append(((image * shape[0] + y) * shape[1] + x) * groups + group)
            weight.append(weight_y * weight_x)
    if mask is not None:
        mask = mask.unflatten(1, (groups, geometry.taps)).permute(0, 3, 4, 2, 1)  # B OH OW K D
        weight = [value * mask for value in weight]
    return Entries(
        torch.stack(row, -1).flatten(),
        torch.stack(weight, -1).flatten(),
        row[0].new_full((row[0].numel(),), 4),
    )


def group_columns(columns: Tensor, channels: int, geometry: ConvGeometry) -> Tensor:
    """Return columns as (groups, places, taps · channels of a group); a view for one group."""
    columns = columns.view(-1, geometry.taps, geometry.groups, channels // geometry.groups)
    return columns.permute(2, 0, 1, 3).flatten(2)


def group_kernel(weight: Tensor, groups: int) -> Tensor:
    """Return the kernel as (groups, taps · channels of a group, outputs of a group)."""
    weight = weight.permute(2, 3, 1, 0).flatten(0, 2)  # KC' O
    return weight.view(len(weight), groups, -1).transpose(0, 1)


def to_table(input: Tensor, geometry: ConvGeometry) -> Tensor:
    """Return one row per cell and deformable group."""
    return input.permute(0, 2, 3, 1).reshape(-1, input.shape[1] // geometry.deform_groups)


def split_images(input: Tensor, offset: Tensor, geometry: ConvGeometry) -> Iterator[slice]:
    """Cut a batch so that the columns of a piece stay within ``COLUMNS``."""
    size = input.shape[1] * geometry.taps * offset.shape[2] * offset.shape[3]
    step = max(1, COLUMNS // max(1, size))
    for first in range(0, len(input), step):
        yield slice(first, first + step)


def sampled_convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor,
    mask: Tensor | None,
    output: Tensor,
    geometry: ConvGeometry,
) -> None:
    """Write the convolution into ``output``."""
    if not output.numel():
        return
    if torchvision.can_run('deform_conv', input):
        torchvision.deform_conv(input, weight, bias, offset, mask, output, geometry)
        return
    dtype = working_dtype(input.dtype)
    kernel = group_kernel(weight.to(dtype), geometry.groups)
    for part in split_images(input, offset, geometry):
        read = bilinear_entries(
            offset[part].to(dtype),
            None if mask is None else mask[part].to(dtype),
            geometry,
            (input.shape[2], input.shape[3]),
        )
        columns = sum_rows(to_table(input[part].to(dtype), geometry), read)
        rows = group_columns(columns, input.shape[1], geometry) @ kernel  # G BP O'
        value = rows.transpose(0, 1).reshape(-1, *output.shape[2:], len(weight)).permute(0, 3, 1, 2)
        output[part] = value if bias is None else value + bias.to(dtype)[:, None, None]


def sampled_convolution_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor,
    mask: Tensor | None,
    grad_output: Tensor,
    to: Gradients,
    geometry: ConvGeometry,
    scale: float = 1.0,
) -> None:
    """Add the gradients to buffers; those of kernel and bias times ``scale``."""
    if not grad_output.numel():
        return
    if torchvision.can_run('deform_conv', input):
        inside = sampling_locations(offset.float(), geometry, (input.shape[2], input.shape[3]))[1]
        inside = inside.permute(0, 4, 3, 1, 2).unsqueeze(3).expand(-1, -1, -1, 2, -1, -1)
        torchvision.deform_conv_backward(
            input,
            weight,
            bias,
            offset,
            mask,
            grad_output,
            to,
            geometry,
            scale,
            inside.reshape(offset.shape),
        )
        return
    dtype = working_dtype(input.dtype)
    kernel = group_kernel(weight.to(dtype), geometry.groups)
    total_kernel = torch.zeros_like(kernel)
    for part in split_images(input, offset, geometry):
        _add_gradients(
            input[part].to(dtype),
            offset[part].to(dtype),
            None if mask is None else mask[part].to(dtype),
            grad_output[part].to(dtype),
            kernel,
            total_kernel,
            Gradients(
                *(
                    None if value is None else value[part]
                    for value in to._replace(weight=None, bias=None)
                )
            ),
            geometry,
        )
    if to.weight is not None:
        outputs, channels, *size = weight.shape
        total = total_kernel.transpose(0, 1).reshape(*size, channels, outputs).permute(3, 2, 0, 1)
        to.weight.add_(total.to(weight.dtype), alpha=scale)
    if to.bias is not None:
        to.bias.add_(grad_output.to(dtype).sum((0, 2, 3)).to(to.bias.dtype), alpha=scale)


def _add_gradients(
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    grad: Tensor,
    kernel: Tensor,
    total_kernel: Tensor,
    to: Gradients,
    geometry: ConvGeometry,
) -> None:
    """Add the gradients of a few images; ``total_kernel`` takes the kernel's."""
    table = to_table(input, geometry)
    offset = offset.detach().requires_grad_()
    mask = None if mask is None else mask.detach().requires_grad_()
    with torch.enable_grad():
        read = bilinear_entries(offset, mask, geometry, (input.shape[2], input.shape[3]))
        columns = sum_rows(table, read)
    per_group = grad.permute(0, 2, 3, 1).reshape(-1, geometry.groups, kernel.shape[2])
    per_group = per_group.transpose(0, 1)  # G BP O'
    grouped = group_columns(columns.detach(), input.shape[1], geometry)  # G BP KC'
    total_kernel += grouped.transpose(1, 2) @ per_group
    if to.input is None and to.offset is None:
        return
    grad_columns = per_group @ kernel.transpose(1, 2)  # G BP KC'
    grad_columns = grad_columns.unflatten(2, (geometry.taps, -1)).permute(1, 2, 0, 3)
    grad_columns = grad_columns.reshape(columns.shape)
    wanted = [
        (buffer, value)
        for buffer, value in ((to.offset, offset), (to.mask, mask))
        if buffer is not None and value is not None
    ]
    gradients = (
        torch.autograd.grad(columns, [value for _, value in wanted], grad_columns) if wanted else ()
    )
    for (buffer, _), value in zip(wanted, gradients, strict=True):
        buffer.add_(value.to(buffer.dtype))
    if to.input is not None:
        read = read._replace(weight=read.weight.detach())
        touched, rows = sum_rows_transposed(grad_columns, read)
        total = torch.zeros_like(table)
        total[touched.long()] = rows
        total = total.view(len(input), *input.shape[2:], input.shape[1])
        to.input.add_(total.permute(0, 3, 1, 2).to(to.input.dtype))


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write DCNv1 into ``output``, as compiled mmcv is called.

    ``columns``, ``ones`` and ``im2col_step`` serve its scratch space and are not needed here.
    """
    geometry = ConvGeometry(
        (kH, kW), (dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group
    )
    sampled_convolution(input, weight, None, offset, None, output, geometry)


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Add to the gradients of DCNv1's input and offsets."""
    geometry = ConvGeometry(
        (kH, kW), (dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group
    )
    sampled_convolution_backward(
        input,
        weight,
        None,
        offset,
        None,
        gradOutput,
        Gradients(input=gradInput, offset=gradOffset),
        geometry,
    )


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the gradient of DCNv1's kernel."""
    geometry = ConvGeometry(
        (kH, kW), (dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group
    )
    # The kernel's gradient does not depend on the kernel, only on its shape.
    sampled_convolution_backward(
        input,
        gradWeight,
        None,
        offset,
        None,
        gradOutput,
        Gradients(weight=gradWeight),
        geometry,
        scale,
    )


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """DCNv2 into ``output``, as compiled mmcv is called; ``ones`` and ``columns`` are unused."""
    geometry = ConvGeometry(
        (kernel_h, kernel_w),
        (stride_h, stride_w),
        (pad_h, pad_w),
        (dilation_h, dilation_w),
        group,
        deformable_group,
    )
    sampled_convolution(input, weight, bias if with_bias else None, offset, mask, output, geometry)


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Add to all the gradients of DCNv2."""
    geometry = ConvGeometry(
        (kernel_h, kernel_w),
        (stride_h, stride_w),
        (pad_h, pad_w),
        (dilation_h, dilation_w),
        group,
        deformable_group,
    )
    sampled_convolution_backward(
        input,
        weight,
        bias if with_bias else None,
        offset,
        mask,
        grad_output,
        Gradients(
            grad_input, grad_weight, grad_bias if with_bias else None, grad_offset, grad_mask
        ),
        geometry,
    )
