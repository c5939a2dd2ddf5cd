"""Find the model inside what wraps it."""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper


def unwrap_model(model: Any) -> Any:
    """Return a model without the wrappers of several processes and of augmented testing."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
