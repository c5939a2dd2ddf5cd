"""The compiled operators of mmcv, in PyTorch: by name, with mmcv's calling conventions."""

from collections.abc import Callable

from . import deform_conv, focal_loss, nms, roi_align

TABLE: dict[str, Callable] = {
    op.__name__: op
    for op in (
        nms.nms,
        nms.softnms,
        roi_align.roi_align_forward,
        roi_align.roi_align_backward,
        deform_conv.deform_conv_forward,
        deform_conv.deform_conv_backward_input,
        deform_conv.deform_conv_backward_parameters,
        deform_conv.modulated_deform_conv_forward,
        deform_conv.modulated_deform_conv_backward,
        focal_loss.sigmoid_focal_loss_forward,
        focal_loss.sigmoid_focal_loss_backward,
        focal_loss.softmax_focal_loss_forward,
        focal_loss.softmax_focal_loss_backward,
    )
}
