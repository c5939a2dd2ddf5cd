"""Only ``compat/`` replaces methods, classes or attributes of other libraries' live objects.

Elsewhere a type is registered. Read off the source: assignments, ``setattr`` and ``vars(x)[...]``.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / 'mmresnest'
OWNERS = {
    'torch.nn': ('Module', 'Sequential'),
    'torch.nn.modules.batchnorm': ('_BatchNorm',),
    'torch.optim': ('Optimizer',),
    'torch.utils.data': ('DataLoader', 'Dataset', 'BatchSampler'),
    'mmengine.dataset': ('BaseDataset', 'Compose'),
    'mmengine.evaluator': ('BaseMetric', 'Evaluator'),
    'mmengine.hooks': ('Hook', 'CheckpointHook'),
    'mmengine.model': ('BaseModel',),
    'mmengine.optim': ('OptimWrapper', 'AmpOptimWrapper'),
    'mmengine.runner': ('Runner', 'EpochBasedTrainLoop', 'IterBasedTrainLoop', 'ValLoop'),
    'mmengine.visualization': ('Visualizer',),
    'mmcv.transforms': ('BaseTransform',),
}
"""Module -> classes whose methods nobody replaces on an object."""
MODULES = ('sys', 'os', 'builtins', 'warnings', 'logging', 'torch', 'mmengine', 'mmcv', 'mmdet')
"""Modules, of which nobody replaces an attribute."""
KEYS = {'type', 'resume', '__cause__'}
"""Names of methods that are keys of configs, too; and what an exception is given."""
EXTRA = {'worker_init_fn', 'collate_fn', 'pickle_module', '_compiled_call_impl'}
"""Attributes that are called though they are no methods."""
# fmt: off
EXCEPTIONS = {  # file -> what it may replace
    'analysis/gpu_check/equality.py': (                      # settings, in processes of its own
        'torch.backends.cudnn.allow_tf32', 'torch.backends.cuda.matmul.allow_tf32'),
    'cli/arguments.py': ("vars(action)['old_values']",),     # argparse has no place for it
    'cli/completion.py': ("vars(action)['complete']",),      # where shtab looks
    'models/weights/conversion.py': ("vars(state)['_metadata']",),  # of a state dict just made
}
# fmt: on


@pytest.fixture(scope='module')
def methods() -> set[str]:
    """Names of all that a class of a library does when it is called."""
    found = set(EXTRA)
    for module, names in OWNERS.items():
        for name in names:
            owner = getattr(__import__(module, fromlist=names), name)
            found |= {key for key in dir(owner) if callable(getattr(owner, key, None))}
    return found - KEYS


def find_patches(tree: ast.AST, methods: set[str]) -> Iterator[str]:
    """Yield what a source replaces of objects that are not its own."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = [part for target in targets for part in unpack(target)]
            yield from filter(None, (judge_target(part, methods) for part in parts))
        elif isinstance(node, ast.Delete):
            yield from filter(None, (judge_target(part, methods) for part in node.targets))
        elif isinstance(node, ast.Call):
            yield from filter(None, [judge_call(node, methods)])


def unpack(target: ast.expr) -> list[ast.expr]:
    """Return the targets of an assignment to several."""
    if isinstance(target, (ast.Tuple, ast.List)):
        return [part for one in target.elts for part in unpack(one)]
    return [target]


def judge_target(target: ast.expr, methods: set[str]) -> str:
    """Return what an assignment to a target replaces, or nothing."""
    text = ast.unparse(target)
    if isinstance(target, ast.Attribute):
        own = isinstance(target.value, ast.Name) and target.value.id in ('self', 'cls')
        root = text.partition('.')[0]
        special = target.attr[:2] == target.attr[-2:] == '__' and target.attr not in KEYS
        replaces = (special or target.attr in methods) and not own
        if target.attr == '__class__' or replaces or root in MODULES:
            return text
    if isinstance(target, ast.Subscript) and is_namespace(target.value):
        return '' if text.startswith('vars(self)[') else text
    return ''


def judge_call(call: ast.Call, methods: set[str]) -> str:
    """Return what ``setattr(x, 'name', ...)`` or ``vars(x).update(...)`` replaces, or nothing."""
    name = ast.unparse(call.func)
    if name == 'setattr' and isinstance(call.args[1], ast.Constant):
        attribute = ast.Attribute(call.args[0], str(call.args[1].value), ast.Store())
        return judge_target(attribute, methods)
    if isinstance(call.func, ast.Attribute) and is_namespace(call.func.value):
        return name if call.func.attr in ('update', 'pop', 'setdefault', 'clear') else ''
    return ''


def is_namespace(node: ast.expr) -> bool:
    """Whether an expression is ``vars(x)`` or ``x.__dict__``."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) == 'vars'
    return isinstance(node, ast.Attribute) and node.attr == '__dict__'


def test_only_compat_replaces_what_is_not_its_own(methods):
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob('*.py')):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith(('compat/', '.mim/')):
            continue
        patches = list(find_patches(ast.parse(path.read_text(encoding='utf-8')), methods))
        if set(patches) - set(EXCEPTIONS.get(name, ())):
            found[name] = patches
    assert found == {}


@pytest.mark.parametrize(
    'source',
    [
        'module.forward = fast_forward',
        'module.__class__ = Fast',
        'self.__class__ = Fast',
        'wrapper.step, wrapper.backward = a, b',
        'loader.worker_init_fn = shield',
        'dataset.__getitems__ = fetch',
        'dataset.prepare_data = careful',
        'step.transform = careful',
        'model._compiled_call_impl = None',
        'sys.stdout = above',
        'torch.load = safe_load',
        "setattr(model, 'parse_losses', listen)",
        "vars(model)['parse_losses'] = listen",
        'vars(self).update(vars(loader))',
        "model.__dict__.pop('forward')",
        'del model.forward',
    ],
)
def test_each_kind_of_patch_is_found(source, methods):
    assert list(find_patches(ast.parse(source), methods)), source


@pytest.mark.parametrize(
    'source', ['dataset.pipeline = checked', 'self.step = 3', 'guard.refused = True', 'x[0] = 1']
)
def test_what_is_no_patch(source, methods):
    assert list(find_patches(ast.parse(source), methods)) == []
