"""Whole models are measured as they say; how fast anything is, is not tested."""

import json

import pytest
from helpers.errors import check_refused

from mmresnest.analysis import benchmark_models
from mmresnest.cli import main


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'name, parts',
    [
        ('retinanet', {'before', 'backbone', 'neck', 'dense head', 'after'}),
        (
            'mask-rcnn',
            {'before', 'backbone', 'neck', 'dense head', 'proposals'}
            | {'RoIAlign', 'box head', 'mask head', 'after'},
        ),
        ('deeplabv3', {'before', 'backbone', 'decode head', 'after'}),
    ],
)
def test_forms_of_a_model(name, parts, tmp_path, capsys):
    file = tmp_path / 'figures.json'
    words = ['--detectors', name, '--sizes', '1x64x96', '--repeats', '1', '--json', str(file)]
    assert main.main(['benchmark', *words]) == 0
    out = capsys.readouterr().out
    rows = json.loads(file.read_text())['rows']
    assert [row['form'] for row in rows] == list(benchmark_models.FORMS)
    for row in rows:
        assert set(row['parts']) == parts and f'{row["median"]:.0f}' in out
        assert sum(row['parts'].values()) == pytest.approx(row['median'], rel=0.1)
        assert row['objects'] > 10 and row['difference'] < 1e-4


@pytest.mark.parametrize(
    'words, code, named',
    [
        (['--detectors', 'faster'], 'option.unknown', 'nearest: faster-rcnn'),
        (['--detectors', '--forms', 'lean'], 'option.unknown', 'nearest: plain'),
        (['--detectors', '--repeats', '0'], 'option.value', '--repeats 0'),
        (['--detectors', '--plot', 'a.png'], 'option.conflict', '--plot'),
        (['--detectors', '--device', 'cuda'], 'option.conflict', '--device'),
        (['--sizes', '1x64x64', '1x64x96', '--detectors'], 'option.conflict', '--sizes'),
    ],
)
def test_what_cannot_be_measured_is_refused(words, code, named, capsys):
    check_refused(['benchmark', *words], code, named)
    assert 'Traceback' not in capsys.readouterr().err
