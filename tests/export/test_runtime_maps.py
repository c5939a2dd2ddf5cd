"""Backbone and neck by a runtime, behind the heads of mmdet and mmseg in the same process."""

import sys

import pytest
import torch
from helpers import tiny
from helpers.errors import refuses

from mmresnest import Predictor
from mmresnest.config.load import load_config
from mmresnest.engine.prepare import configure
from mmresnest.engine.test import test as score
from mmresnest.export.runtime_maps import ExportedMaps, RunExported

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('fresh_logger')]


@pytest.mark.slow
@pytest.mark.parametrize('kind, runtime', [('detection', 'onnxruntime'), ('semantic', 'openvino')])
def test_results_and_scores_are_equal(kind, runtime, shapes, tmp_path, monkeypatch):
    pytest.importorskip(runtime)
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    path = tiny.write(tmp_path, kind)
    every = {'model.test_cfg.rcnn.score_thr': 0.0} if kind == 'detection' else None
    checkpoint = tiny.save_random(configure(load_config(path), data=shapes), tmp_path / 'it.pth')
    images = sorted((shapes / 'val').glob('*.*'))[:2] or sorted(shapes.rglob('*.jpg'))[:2]
    plain, exported = (
        Predictor(path, checkpoint, 'cpu', 0.0, data=shapes, options=every, runtime=one)
        for one in (None, runtime)
    )
    assert type(exported.model.backbone) is ExportedMaps
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / 'hub').rglob('*.*')}
    assert files
    for size in ((64, 64), (70, 130)):
        x = torch.randn(2, 3, *(-(-side // 32) * 32 for side in size))
        with torch.no_grad():
            maps = plain.model.extract_feat(x), exported.model.extract_feat(x)
        for one, two in zip(*maps, strict=True):
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-4)
    for one, two in zip(plain([*map(str, images)]), exported([*map(str, images)])):
        if kind == 'detection':
            torch.testing.assert_close(
                *map(torch.tensor, (two.scores, one.scores)), atol=1e-5, rtol=0
            )
        else:
            assert (one.labels == two.labels).mean() > 0.999
    scores = [
        score(
            path,
            checkpoint,
            data=shapes,
            work_dir=tmp_path / str(one),
            cfg_options=every,
            runtime=one,
        ).metrics
        for one in (None, runtime)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    assert files == {file: file.stat().st_mtime_ns for file in (tmp_path / 'hub').rglob('*.*')}


def test_what_cannot_be_is_refused(monkeypatch):
    with refuses('option.unknown', '--runtime', 'openvino'):
        RunExported('openvina')
    with refuses('option.conflict', '--compile', '--runtime'):
        score('faster_rcnn_resnest50_fpn', 'none.pth', runtime='openvino', compile=True)
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with refuses('package.missing', 'onnxruntime'):
        score('faster_rcnn_resnest50_fpn', 'none.pth', runtime='onnxruntime')
