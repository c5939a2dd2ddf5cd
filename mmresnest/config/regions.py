"""Limit how many regions a detector of two stages looks at when it is scored or predicts."""

from mmengine.config import Config

from ..errors import UserError
from .inspect import model_of
from .load import name_of


def limit_regions(cfg: Config, most: int | None) -> None:
    """Have the second stage look at the ``most`` regions with the highest scores of the first.

    Training is not concerned. Each region goes through the heads alone, so that those which are
    looked at have the results they always have; what only a region beyond them shows is not found.

    Args:
        cfg: the config, changed in place.
        most: how many; None for as many as the config says, which is never raised.

    Raises:
        UserError: a number below 1, or a detector without a second stage.
    """
    if most is None:
        return
    if most < 1:
        raise UserError(
            f'--max-regions {most}: at least one region is looked at', code='option.value'
        )
    model = model_of(cfg)
    rpn = (model.get('test_cfg') or {}).get('rpn')
    if 'roi_head' not in model or not isinstance(rpn, dict):
        raise UserError(
            f'--max-regions limits the second stage of a detector, and {name_of(cfg)} has none; '
            'leave it out',
            code='option.conflict',
        )
    rpn['max_per_img'] = min(most, rpn.get('max_per_img', most))
