"""``mmengine.hub`` for ``mmresnest::``: our configs and whole models by name.

mmengine's own functions want a folder in the path, which our flat names lack, and a module
``utils`` that registers everything, which is ``mmresnest.models`` here.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import UserError, nearest

PREFIX = 'mmresnest::'


def patch_hub(module: ModuleType) -> None:
    """Have ``get_config`` and ``get_model`` of :mod:`mmengine.hub` know ``mmresnest::``."""
    their_config, their_model = module.get_config, module.get_model

    def get_config(cfg_path: str, pretrained: bool = False) -> Any:
        """Return a config by ``package::path``, with ``model_path`` if weights are asked for."""
        if not cfg_path.startswith(PREFIX):
            return their_config(cfg_path, pretrained)
        name = cfg_path.removeprefix(PREFIX).removesuffix('.py')
        cfg = module.Config.fromfile(str(find_shipped(name)))
        if pretrained:
            cfg.model_path = find_published(name, module)
        return cfg

    def get_model(cfg_path: str, pretrained: bool = False, **kwargs: Any) -> Any:
        """Return the model of a config, as ``mmengine.hub.get_model`` does for other packages."""
        if not cfg_path.startswith(PREFIX):
            return their_model(cfg_path, pretrained, **kwargs)
        cfg = get_config(cfg_path, pretrained)
        toolbox = cfg.default_scope
        with module.DefaultScope.overwrite_default_scope(toolbox):
            import_module(f'{toolbox}.utils').register_all_modules()
            import_module('mmresnest.models')
            model = module.MODELS.build(cfg.model, default_args=kwargs)
            if pretrained:
                module.load_checkpoint(model, cfg.model_path)
                model._is_init = True  # mmengine's runner would draw new weights
        return model

    vars(module).update(get_config=get_config, get_model=get_model)


def find_shipped(name: str) -> Path:
    """Return the file of one of our configs.

    Raises:
        UserError: there is none of this name (``config.missing``).
    """
    folder = Path(__file__).parents[1] / '.mim' / 'configs'
    file = folder / f'{name}.py'
    if not file.is_file():
        legal = [path.stem for path in folder.glob('*.py')]
        raise UserError(
            f'mmresnest has no config {name!r}; {nearest(name, legal)}', code='config.missing'
        )
    return file


def find_published(name: str, module: ModuleType) -> str:
    """Return the address of the checkpoint that the metafile lists for a config.

    Raises:
        UserError: none is published (``weights.unpublished``).
    """
    metafile = Path(__file__).parents[1] / '.mim' / 'configs' / 'metafile.yml'
    weights = {
        Path(model['Config']).stem: model['Weights']
        for model in import_module('mmengine.fileio').load(str(metafile))['Models']
        if 'Weights' in model
    }
    if name not in weights:
        raise UserError(
            f'no checkpoint of {name} is published; {nearest(name, weights)}',
            code='weights.unpublished',
        )
    return weights[name]
