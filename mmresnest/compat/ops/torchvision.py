"""Call the compiled kernels of torchvision, where torchvision imports and has them.

A torchvision built for another torch fails at import in many ways (OSError, RuntimeError, even
AttributeError), so any exception means "not there"; nothing here requires it.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from .geometry import ConvGeometry, Gradients, RoIGeometry

# Kernels of torchvision, by what we ask for, and the operators of mmcv that they serve. torchvision
# pools averages only; the largest sample is ours everywhere.
KERNELS = {
    'nms': ('nms',),
    'roi_align': ('roi_align', '_roi_align_backward'),
    'deform_conv': ('deform_conv2d', '_deform_conv2d_backward'),
}
# Where each is taken. On one core of a CPU ours are faster, RoIAlign 3 to 16 times and deformable
# convolution 3 to 11 times: whoever wants that there strikes 'cpu'.
DEVICES: dict[str, tuple[str, ...]] = {
    'nms': ('cpu', 'cuda'),
    'roi_align': ('cpu', 'cuda'),
    'deform_conv': ('cpu', 'cuda'),
}
SERVED = {
    'nms': ('nms',),
    'roi_align': ('roi_align_forward', 'roi_align_backward'),
    'deform_conv': (
        'deform_conv_forward',
        'deform_conv_backward_input',
        'deform_conv_backward_parameters',
        'modulated_deform_conv_forward',
        'modulated_deform_conv_backward',
    ),
}


@cache
def load_operators() -> Any:
    """Return the operators of torchvision, or None where it does not import."""
    try:
        import torchvision.ops  # noqa: F401  registers the operators
    except Exception:
        return None
    return torch.ops.torchvision


@cache
def has_kernels(name: str) -> bool:
    """Return whether torchvision here has the kernels of an op."""
    found = load_operators()
    return found is not None and all(hasattr(found, kernel) for kernel in KERNELS[name])


def replaces_mmcv_op(operator: str) -> bool:
    """Return whether an operator of mmcv, by its name there, runs on torchvision's kernels here."""
    return any(operator in served and has_kernels(name) for name, served in SERVED.items())


def can_run(name: str, value: Tensor) -> bool:
    """Return whether torchvision can run an op on tensors like this one."""
    return value.device.type in DEVICES[name] and has_kernels(name)


def nms(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Return the positions kept of boxes in falling order of score, with offset 0."""
    falling = -torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)
    return load_operators().nms(boxes, falling, iou_threshold)


def roi_align(input: Tensor, rois: Tensor, geometry: RoIGeometry, output: Tensor) -> None:
    """Run ``roi_align_forward`` of averages."""
    dtype = torch.promote_types(input.dtype, torch.float32)
    output.copy_(
        load_operators().roi_align(
            input.to(dtype),
            rois.to(dtype),
            geometry.spatial_scale,
            geometry.aligned_height,
            geometry.aligned_width,
            max(geometry.sampling_ratio, 0),
            geometry.aligned,
        )
    )


def roi_align_backward(
    grad_output: Tensor, rois: Tensor, geometry: RoIGeometry, grad_input: Tensor
) -> None:
    """Run ``roi_align_backward`` of averages."""
    dtype = torch.promote_types(grad_output.dtype, torch.float32)
    grad_input.add_(
        load_operators()
        ._roi_align_backward(
            grad_output.to(dtype),
            rois.to(dtype),
            geometry.spatial_scale,
            geometry.aligned_height,
            geometry.aligned_width,
            *grad_input.shape,
            max(geometry.sampling_ratio, 0),
            geometry.aligned,
        )
        .to(grad_input.dtype)
    )


def _deform_conv_arguments(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor,
    mask: Tensor | None,
    geometry: ConvGeometry,
) -> tuple[Any, ...]:
    """Return the arguments that both directions share; zeros stand for no mask or no bias."""
    dtype = torch.promote_types(input.dtype, torch.float32)
    tensors = (
        input,
        weight,
        offset,
        input.new_zeros(len(input), 1) if mask is None else mask,
        input.new_zeros(len(weight)) if bias is None else bias,
    )
    return (
        *(value.to(dtype).contiguous() for value in tensors),
        *geometry.stride,
        *geometry.padding,
        *geometry.dilation,
        geometry.groups,
        geometry.deform_groups,
        mask is not None,
    )


def deform_conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor,
    mask: Tensor | None,
    output: Tensor,
    geometry: ConvGeometry,
) -> None:
    """Run ``sampled_convolution`` of deformable convolution."""
    output.copy_(
        load_operators().deform_conv2d(
            *_deform_conv_arguments(input, weight, bias, offset, mask, geometry)
        )
    )


def deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor,
    mask: Tensor | None,
    grad_output: Tensor,
    to: Gradients,
    geometry: ConvGeometry,
    scale: float,
    inside: Tensor,
) -> None:
    """Run ``sampled_convolution_backward`` of deformable convolution.

    ``inside`` holds offsets whose gradient counts: torchvision gives one on the line at -1 too,
    where mmcv reads nothing.
    """
    shared = _deform_conv_arguments(input, weight, bias, offset, mask, geometry)
    gradients = load_operators()._deform_conv2d_backward(
        grad_output.to(shared[0].dtype).contiguous(), *shared
    )
    gradients = [*gradients[:2], gradients[2] * inside, *gradients[3:]]
    buffers = (to.input, to.weight, to.offset, to.mask, to.bias)
    for buffer, value, factor in zip(buffers, gradients, (1, scale, 1, 1, scale), strict=True):
        if buffer is not None:
            buffer.add_(value.to(buffer.dtype), alpha=factor)
