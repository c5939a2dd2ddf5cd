"""Focal loss (Lin et al., 2017) over sigmoid and over softmax, with mmcv's gradients.

With p the probability given to what is true, class c weighted by w_c:

    sigmoid: L_nc = -α (1-p)^γ log p where c is the label of n, else -(1-α) p^γ log(1-p)
    softmax: L_n = -α (1-p)^γ log p of the label; 0 where the label is negative
"""

import torch
from torch import Tensor

from .sparse import working_dtype

# mmcv takes no logarithm below the least normal float.
LEAST = torch.finfo(torch.float32).tiny


def class_weight(weight: Tensor, target: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weight of each label: 1 where there are none, or where the label is no class.

    The background of mmdet is the label one past the classes, which compiled mmcv would look up
    behind the end of the list.
    """
    classes = len(weight)
    if not classes:
        return torch.ones_like(target, dtype=dtype)
    known = (target >= 0) & (target < classes)
    found = weight.to(dtype)[target.clamp(0, classes - 1)]
    return found.where(known, found.new_tensor(1))


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of every score into ``output``.

    Args:
        input: (boxes, classes) scores before the sigmoid.
        target: (boxes,) labels; one that is no class is background.
        weight: (classes,), or empty.
        output: (boxes, classes).
        gamma: how much easy scores are discounted.
        alpha: weight of positives against negatives.
    """
    p = input.to(working_dtype(input.dtype)).sigmoid()
    one = (1 - p) ** gamma * p.clamp(min=LEAST).log() * -alpha
    zero = p**gamma * (1 - p).clamp(min=LEAST).log() * (alpha - 1)
    _write_case(output, one, zero, target, weight)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of every loss by its score into ``grad_input``; see the forward."""
    p = input.to(working_dtype(input.dtype)).sigmoid()
    one = (1 - p) ** gamma * (1 - p - gamma * p * p.clamp(min=LEAST).log()) * -alpha
    zero = p**gamma * (gamma * (1 - p) * (1 - p).clamp(min=LEAST).log() - p) * (alpha - 1)
    _write_case(grad_input, one, zero, target, weight)


def _write_case(output: Tensor, one: Tensor, zero: Tensor, target: Tensor, weight: Tensor) -> None:
    """Write the case of the sigmoid loss that the label picks, weighted."""
    label = torch.arange(output.shape[1], device=output.device) == target[:, None]
    output.copy_(one.where(label, zero) * class_weight(weight, target, one.dtype)[:, None])


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of every box into ``output``.

    Args:
        input: (boxes, classes) probabilities, after the softmax.
        target: (boxes,) labels; negative ones are ignored.
        weight: (classes,), or empty.
        output: (boxes,).
        gamma: how much easy boxes are discounted.
        alpha: a factor of the whole.
    """
    p, counted = _gather_label(input, target, weight)
    output.copy_(-alpha * (1 - p) ** gamma * p.clamp(min=LEAST).log() * counted)


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the derivative of every box's loss by its scores before the softmax.

    Args:
        input: as in the forward.
        target: as in the forward.
        weight: as in the forward.
        buff: (boxes,) scratch of mmcv; takes p · dL/dp.
        grad_input: (boxes, classes).
        gamma: as in the forward.
        alpha: as in the forward.
    """
    p, counted = _gather_label(input, target, weight)
    rest = 1 - p
    # The base is kept off zero, since γ - 1 may be negative; log p is zero there anyway.
    slope = gamma * rest.clamp(min=LEAST) ** (gamma - 1) * p * p.clamp(min=LEAST).log()
    factor = alpha * (slope - rest**gamma) * counted
    label = torch.arange(input.shape[1], device=input.device) == target[:, None]
    buff.copy_(factor)
    grad_input.copy_(factor[:, None] * (label.to(p.dtype) - input.to(p.dtype)))


def _gather_label(input: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probability of each label, and the weight it counts with: 0 for an ignored box."""
    p = input.to(working_dtype(input.dtype)).gather(1, target.clamp(min=0)[:, None])[:, 0]
    return p, class_weight(weight, target, p.dtype) * (target >= 0)
