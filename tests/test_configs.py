"""Every leaf config, by glob: its header, and one step at demo size."""
import ast
import re
import warnings
from pathlib import Path

import pytest
import tiny  # noqa: F401  imports the stack with its warnings silenced
import torch

from mmresnest.data.shapes import draw
from mmresnest.engine import demo
from mmresnest.engine.building import build_runner
from mmresnest.engine.config import LOADERS, load_config, shipped_folder, task_of
from mmresnest.engine.train import prepare
from mmresnest.variants import VARIANTS

CONFIGS = sorted(shipped_folder().glob('*.py'))
each = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)

# mmengine, mmdet and mmseg warn of their own future at every turn.
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    return draw(folder, train=4, val=2, test=0, size=(192, 192), progress=False)


def test_there_are_configs():
    assert {'faster_rcnn_resnest50_fpn', 'deeplabv3_resnest50_ade20k',
            'faster_rcnn_res2net50_v1b_fpn', 'faster_rcnn_seresnext50_32x4d_fpn'} <= {
                path.stem for path in CONFIGS}


@each
def test_header_and_length(path):
    """It says how to run it and what to expect, and holds only what differs."""
    text = path.read_text(encoding='utf-8')
    header = ast.get_docstring(ast.parse(text))
    assert f'mmresnest train configs/{path.name}' in header
    expected = header.partition('Expect:')[2]
    assert 'no published result' in expected or re.search(r'\d+\.\d+.*\(', expected, re.DOTALL)
    assert len(text.splitlines()) <= 30


@each
def test_backbone_is_a_published_network_with_its_weights(path):
    backbone = load_config(path).model.backbone
    row = VARIANTS[backbone.arch]
    assert backbone.type == 'mmresnest.' + row.type
    assert backbone.init_cfg.checkpoint == 'mmresnest://' + row.name and row.weights


@each
def test_one_step_and_one_prediction_at_demo_size(path, shapes, tmp_path):
    cfg = prepare(path, ('train', 'val'), data=shapes, demo=True, work_dir=tmp_path,
                  options={'log_level': 'WARNING'})
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        runner = build_runner(cfg)
        loader, model = runner.train_dataloader, runner.model
        loader = runner.build_dataloader(loader) if isinstance(loader, dict) else loader
        batch = model.data_preprocessor(next(iter(loader)), training=True)
        losses, logged = model.parse_losses(model(**batch, mode='loss'))
        losses.backward()
        images = model.backbone(batch['inputs'])
        evaluation = runner.build_dataloader(cfg.val_dataloader)
        model.eval()
        with torch.no_grad():
            results = model.val_step(next(iter(evaluation)))
    assert losses.isfinite() and logged
    assert all(map_.is_contiguous(memory_format=torch.channels_last) for map_ in images)
    parts = {name.split('.')[0] for name, parameter in model.named_parameters()
             if parameter.grad is not None and parameter.grad.abs().sum() > 0}
    wanted = {name for name, _ in model.named_children() if name != 'data_preprocessor'}
    assert parts == wanted
    kind = 'pred_sem_seg' if task_of(cfg) == 'semantic' else 'pred_instances'
    assert all(hasattr(result, kind) for result in results)


@each
def test_demo_keeps_the_structure(path, shapes):
    """Same modules, narrower: nothing is taken out to be fast."""
    def kinds(cfg):
        return [node.get('type') for node in demo.walk(cfg.model)]
    full, small = load_config(path), load_config(path)
    full.model.backbone.init_cfg = None         # the demo starts from random weights
    demo.shrink(small)
    assert kinds(full) == kinds(small)
    assert small.model.backbone.arch == full.model.backbone.arch
    assert small.model.backbone.init_cfg is None
    assert small.model.backbone.get('frozen_stages', -1) == -1
    recipe = demo.SEMANTIC if task_of(small) == 'semantic' else demo.DETECTION
    sizes = {tuple(node.scale) for name in LOADERS for node in demo.walk(small[name].dataset)
             if node.get('type') in demo.RESIZES}
    assert sizes == {(recipe.size, recipe.size)}
    assert small.train_cfg.max_iters == recipe.iterations
