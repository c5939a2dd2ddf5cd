"""Every leaf config, by glob: its header, its network, its demo form, one step, one prediction.

``make test`` takes the latter three of some recipes, their network shallow; ``make test-all`` of
each recipe, and of each network as deep as it is; ``make configs`` of every config.

Loading a config takes half a second: one test of a config goes through all that can be said of it.
``make configs-full`` takes it at the data set's published size, through heads of full width.
"""

import ast
import os
import re
import warnings
from pathlib import Path

import pytest
import torch
from helpers.tiers import mark_slow
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmresnest.config import demo
from mmresnest.config.inspect import LOADERS, iterate_dicts, task_of
from mmresnest.config.load import load_config, shipped_folder
from mmresnest.config.options import TrainOptions
from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.engine.prepare import prepare
from mmresnest.engine.train import train
from mmresnest.models.variants import VARIANTS

CONFIGS = sorted(shipped_folder().glob('*.py'))
PIECES = sorted((shipped_folder() / '_base_').rglob('*.py'))
NAMES = {path.stem for path in CONFIGS}
FULL = bool(os.environ.get('MMRESNEST_FULL_CONFIGS'))
EVERY = FULL or bool(os.environ.get('MMRESNEST_EVERY_CONFIG'))
each = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)

# mmengine, mmdet and mmseg warn of their own future at every turn.
pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('kept_bases')]

BOTH = (
    'resnest50',
    'resnest101',
    'res2net50_v1b',
    'res2net101_v1b',
    'seresnext50_32x4d',
    'seresnext101_32x4d',
    'resnet50d',
    'resnet101d',
)


def parts_of(name: str) -> tuple[str, str]:
    """The network and the recipe that a name is made of."""
    arch = re.search(r'_(res\w+?|seres\w+?)_(fpn|ade20k|cityscapes)', name)[1]
    return arch, name.replace(arch, '*')


def one_of_each_network() -> set[str]:
    """One config of each network, of a small recipe; test_recipe has the recipes."""
    first: dict[str, str] = {}
    for name in sorted(
        NAMES, key=lambda name: (not name.startswith('faster_rcnn'), 'mask' in name, name)
    ):
        first.setdefault(parts_of(name)[0], name)
    return {*first.values()}


STEPPED = NAMES if EVERY else one_of_each_network()
SHALLOW = {'model.backbone.depths': [1, 1, 1, 3]}
"""A network with as few blocks as there are; some recipes set the dilation of three in the last."""


def list_recipes() -> list[Path]:
    """List one config of each recipe, a small network first."""
    first: dict[str, Path] = {}
    for path in sorted(CONFIGS, key=lambda path: 'resnest50' not in path.stem):
        first.setdefault(parts_of(path.stem)[1], path)
    return list(first.values())


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    return draw_dataset(folder, train=4, val=2, test=0, size=(192, 192), progress=False)


def test_every_pair_has_its_config():
    wanted = {
        f'{detector}_{arch}_fpn'
        for detector in ('faster_rcnn', 'cascade_rcnn', 'mask_rcnn', 'cascade_mask_rcnn')
        for arch in BOTH
    }
    wanted |= {f'deeplabv3_{arch}_{data}' for data in ('ade20k', 'cityscapes') for arch in BOTH}
    wanted |= {
        'cascade_rcnn_resnest200_fpn',
        'cascade_mask_rcnn_resnest200_fpn_3x',
        'cascade_mask_rcnn_resnest200_fpn_dcn_3x',
        'deeplabv3_resnet50d_ade20k_encoding',  # the baselines of its authors' table
        'deeplabv3_resnet101d_ade20k_encoding',
        'faster_rcnn_resnest50_fpn_dcn',
        'htc_res2net101_v1b_fpn',
        'panoptic_fpn_resnest50_fpn',
        'panoptic_fpn_resnest200_fpn_3x',
    }
    assert wanted <= NAMES, sorted(wanted - NAMES)
    others = {path.stem for path in CONFIGS if 'no published result' in header_of(path)}
    assert others <= wanted, f'--arch gives what has no published result: {sorted(others - wanted)}'


def test_small_pieces():
    """A leaf is short, and no piece says what another has said."""
    assert max(len(path.read_text(encoding='utf-8').splitlines()) for path in CONFIGS) <= 20
    bodies: dict[str, list[str]] = {}
    for path in CONFIGS + PIECES:
        for node in ast.parse(path.read_text(encoding='utf-8')).body:
            text = ast.unparse(node)
            if isinstance(node, ast.Assign) and len(text) > 300:
                bodies.setdefault(text, []).append(path.name)
    assert not {text: names for text, names in bodies.items() if len(names) > 1}


def test_every_recipe_and_every_network_takes_a_step():
    networks, recipes = ({parts_of(name)[part] for name in NAMES} for part in (0, 1))
    assert {parts_of(name)[0] for name in STEPPED} == networks
    assert {parts_of(path.stem)[1] for path in list_recipes()} == recipes
    assert EVERY or 'faster_rcnn_resnest50_fpn' in STEPPED


def test_headers():
    for path in CONFIGS:
        check_header(path)


FAST = {'faster_rcnn_resnest50_fpn', 'mask_rcnn_resnest50_fpn', 'deeplabv3_resnest50_ade20k'}


@pytest.mark.parametrize(
    'path',
    mark_slow(list_recipes(), lambda path: path.stem in FAST, on_both=True),
    ids=lambda path: path.stem,
)
def test_recipe(path, shapes, tmp_path):
    check_config(path, shapes, tmp_path, SHALLOW)


@pytest.mark.slow
@each
def test_config(path, shapes, tmp_path):
    if path.stem in STEPPED:
        check_config(path, shapes, tmp_path)
    else:
        check_backbone(path, load_config(path))


def check_config(path, shapes, tmp_path, options=None):
    """All that can be said of a config; the options are of its demo form only."""
    full = load_config(path)
    check_backbone(path, full)
    check_print(full, tmp_path)
    small = prepare(
        path,
        splits=('train', 'val'),
        data=shapes,
        demo=True,
        work_dir=tmp_path,
        cfg_options=options,
    )
    check_structure(full, small)
    check_step(
        prepare(
            path,
            TrainOptions(
                data=shapes,
                from_scratch=True,
                work_dir=tmp_path,
                cfg_options={'train_dataloader.num_workers': 0, 'val_dataloader.num_workers': 0},
            ),
        )
        if FULL
        else small
    )


def header_of(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))


def check_header(path: Path) -> None:
    """It says how to run it and what to expect."""
    header = header_of(path)
    assert re.search(rf'^Run:     mmresnest train configs/{path.name}$', header, re.MULTILINE)
    expected = header.partition('\nExpect:')[2]
    assert 'no published result' in expected or re.search(r'\d+\.\d+.*\(', expected, re.DOTALL)
    for named in re.findall(r'config named (_\w+)', expected):
        assert path.stem + named in NAMES
    if 'see the 3x config' in expected:
        assert path.stem + '_3x' in NAMES


def check_backbone(path: Path, cfg: Config) -> None:
    """A published network, with its weights, as the name of the config says."""
    backbone = cfg.model.backbone
    row = VARIANTS[backbone.arch]
    assert backbone.type == 'mmresnest.' + row.type
    assert backbone.init_cfg.checkpoint == 'mmresnest://' + row.name and row.weights
    assert re.search(r'_(res\w+?|seres\w+?)_(fpn|ade20k|cityscapes)', path.stem)[1] in row.name
    assert cfg.default_scope == ('mmseg' if task_of(cfg) == 'semantic' else 'mmdet')
    assert cfg.auto_scale_lr.base_batch_size in (8, 16)
    if task_of(cfg) == 'semantic':
        assert tuple(backbone.dilations) == (1, 1, 2, 4) and backbone.contract_dilation
        assert cfg.crop_size == cfg.model.data_preprocessor.size
    assert (backbone.get('compat') == 'mm') == (
        '_mmseg' in path.stem or '_mmdet' in path.stem and row.type == 'Res2Net'
    )


def check_print(cfg: Config, folder: Path) -> None:
    """What is printed is a config again, and the same one."""
    printed = folder / 'printed.py'
    printed.write_text(Config(cfg.to_dict(), format_python_code=False).pretty_text)
    again = Config.fromfile(printed).to_dict()
    assert again['model'] == cfg.to_dict()['model']
    assert again['train_dataloader'] == cfg.to_dict()['train_dataloader']


def check_structure(full: Config, small: Config) -> None:
    """The same modules, narrower, from random weights: nothing is taken out to be fast."""

    def kinds(cfg: Config) -> list[str]:
        return [
            node['type']
            for node in iterate_dicts(cfg.model)
            if node.get('type') not in (None, 'Pretrained', 'SyncBN', 'BN')
        ]

    lacking = ('FusedSemanticHead',)  # of HTC: COCO files without semantic masks
    if not any(kind in lacking for kind in kinds(full)):
        assert kinds(full) == kinds(small)
    assert small.model.backbone.arch == full.model.backbone.arch
    assert small.model.backbone.init_cfg is None
    assert small.model.backbone.get('frozen_stages', -1) == -1
    recipe = demo.SEMANTIC if task_of(small) == 'semantic' else demo.DETECTION
    sizes = {
        tuple(node.scale)
        for name in LOADERS
        for node in iterate_dicts(small[name].dataset)
        if node.get('type') in demo.RESIZES
    }
    assert sizes == {(recipe.size, recipe.size)}
    assert small.train_cfg.max_iters == recipe.iterations


def check_step(cfg: Config) -> None:
    """A finite loss, a gradient in every part, predictions of the config's kind."""
    cfg.train_dataloader.batch_size = 2
    with warnings.catch_warnings(), DefaultScope.overwrite_default_scope(cfg.default_scope):
        warnings.simplefilter('ignore')
        torch.manual_seed(0)
        model = ROOT_MODELS.build(cfg.model).to(memory_format=torch.channels_last)
        training, evaluation = (
            Runner.build_dataloader(cfg[name], seed=0)
            for name in ('train_dataloader', 'val_dataloader')
        )
        seen = []
        model.backbone.register_forward_hook(lambda *call: seen.append(call[-1]))
        batch = model.data_preprocessor(next(iter(training)), training=True)
        losses, logged = model.parse_losses(model(**batch, mode='loss'))
        losses.backward()
        model.eval()
        with torch.no_grad():
            results = model.val_step(next(iter(evaluation)))
    assert losses.isfinite() and logged
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in seen[0])
    parts = {
        name.split('.')[0]
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }
    assert parts == {
        name for name, part in model.named_children() if next(part.parameters(), None) is not None
    }
    kind = {'semantic': 'pred_sem_seg', 'panoptic': 'pred_panoptic_seg'}.get(
        task_of(cfg), 'pred_instances'
    )
    assert results and all(hasattr(result, kind) for result in results)


SCORES = [
    ('faster_rcnn_resnest50_fpn', 'coco/bbox_mAP'),
    ('cascade_mask_rcnn_resnest50_fpn', 'coco/segm_mAP'),
    ('panoptic_fpn_resnest50_fpn', 'coco_panoptic/PQ'),
    ('deeplabv3_resnest50_ade20k', 'mIoU'),
]


@pytest.mark.slow
@pytest.mark.parametrize('name, score', SCORES)
def test_trains_and_scores_on_a_folder_at_demo_size(name, score, shapes, tmp_path):
    result = train(
        name,
        data=shapes,
        demo=True,
        work_dir=tmp_path,
        cfg_options={
            'train_cfg.max_iters': 2,
            'train_cfg.val_interval': 2,
            'model.backbone.arch': 'resnest14',
            'train_dataloader.batch_size': 2,
            'default_hooks.checkpoint.interval': 2,
        },
    )
    assert 0 <= result.metrics[score] <= 100 and result.checkpoint.is_file()
    weights = torch.load(result.checkpoint, weights_only=False)['state_dict']
    assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())
    assert {path.suffix for path in result.pictures} == {'.png'}
    assert all(path.stat().st_size > 1000 for path in result.pictures)
