"""The configs that come with mmresnest. Listing them takes neither torch nor mmengine."""

from pathlib import Path


def shipped_folder() -> Path:
    """Return where the configs of mmresnest are: in the package, or in a clone beside it."""
    package = Path(__file__).resolve().parents[1]
    inside = package / '.mim' / 'configs'
    return inside if inside.is_dir() else package.parent / 'configs'


def published_checkpoints() -> dict[str, str]:
    """Return the URL of the checkpoint of each config of mmresnest whose result has one."""
    import yaml

    text = (shipped_folder() / 'metafile.yml').read_text(encoding='utf-8')
    models = yaml.safe_load(text)['Models']
    return {model['Name']: model['Weights'] for model in models if 'Weights' in model}


def shipped_configs() -> dict[str, Path]:
    """Return the configs that come with mmresnest, by their names without ``.py``."""
    return {path.stem: path for path in sorted(shipped_folder().glob('*.py'))}
