"""The compiled operators of mmcv, in PyTorch: by name, with mmcv's calling conventions."""
from typing import Callable

from . import nms, roi_align

TABLE: dict[str, Callable] = {op.__name__: op for op in (
    nms.nms,
    roi_align.roi_align_forward, roi_align.roi_align_backward,
)}
