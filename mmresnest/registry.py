"""The package's own scope in the OpenMMLab registries.

A child scope, because the names are taken: a ``ResNeSt`` registered at mmengine's root would be
silently shadowed by mmdet's and mmseg's own, and registered in theirs it is refused. With
``locations``, ``type='mmresnest.ResNeSt'`` builds from any mmdet or mmseg config as it is.
"""

from importlib.util import find_spec

from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import FUNCTIONS as ROOT_FUNCTIONS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import LOOPS as ROOT_LOOPS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPERS as ROOT_OPTIM_WRAPPERS
from mmengine.registry import STRATEGIES as ROOT_STRATEGIES
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import VISBACKENDS as ROOT_VISBACKENDS
from mmengine.registry import Registry

MODELS = Registry(
    'model',
    parent=ROOT_MODELS,
    scope='mmresnest',
    locations=['mmresnest.models.backbones', 'mmresnest.models.heads'],
)
HOOKS = Registry(
    'hook',
    parent=ROOT_HOOKS,
    scope='mmresnest',
    locations=[
        'mmresnest.engine.hooks.bad_images',
        'mmresnest.engine.hooks.checkpoint',
        'mmresnest.engine.hooks.live_pictures',
        'mmresnest.engine.hooks.nan_guard',
        'mmresnest.engine.hooks.precise_bn',
        'mmresnest.engine.hooks.progress_bar',
        'mmresnest.engine.hooks.scores',
        'mmresnest.engine.hooks.signals',
        'mmresnest.export.runtime_maps',
    ],
)
DATASETS = Registry(
    'dataset', parent=ROOT_DATASETS, scope='mmresnest', locations=['mmresnest.engine.image_guard']
)
OPTIM_WRAPPERS = Registry(
    'optim_wrapper',
    parent=ROOT_OPTIM_WRAPPERS,
    scope='mmresnest',
    locations=['mmresnest.engine.optim_wrappers'],
)
FUNCTIONS = Registry(
    'function',
    parent=ROOT_FUNCTIONS,
    scope='mmresnest',
    locations=['mmresnest.engine.hooks.signals'],
)
LOOPS = Registry(
    'loop',
    parent=ROOT_LOOPS,
    scope='mmresnest',
    locations=['mmresnest.engine.loops', 'mmresnest.engine.scoring_loops'],
)
STRATEGIES = Registry(
    'strategy', parent=ROOT_STRATEGIES, scope='mmresnest', locations=['mmresnest.engine.strategies']
)
TRANSFORMS = Registry(
    'transform',
    parent=ROOT_TRANSFORMS,
    scope='mmresnest',
    locations=['mmresnest.engine.random_crop'] if find_spec('mmseg') else [],
)
VISBACKENDS = Registry(
    'vis_backend',
    parent=ROOT_VISBACKENDS,
    scope='mmresnest',
    locations=['mmresnest.visualization.backends'],
)
METRICS = Registry(
    'metric',
    parent=ROOT_METRICS,
    scope='mmresnest',
    locations=[
        f'mmresnest.evaluation.{module}'
        for toolbox, module in (('mmdet', 'coco_metric'), ('mmseg', 'iou_metric'))
        if find_spec(toolbox)
    ],
)  # either toolbox serves without the other
