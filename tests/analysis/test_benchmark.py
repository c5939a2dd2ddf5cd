"""The benchmark measures what it says; how fast anything is, is not tested."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.errors import check_refused, refuses

from mmresnest.analysis import benchmark, benchmark_forms
from mmresnest.analysis.benchmark_forms import BenchmarkCase, FormUnavailable
from mmresnest.cli import main

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning:torch.profiler')
OURS = ('plain', 'lean', 'fused', 'convolutions')
sys.path.append(str(Path(__file__).resolve().parents[2] / 'tools'))  # where processes look for it
kept = importlib.import_module('benchmark_kept')


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    pytest.importorskip('matplotlib')
    files = tmp_path / 'figures.json', tmp_path / 'figures.png'
    assert (
        main.main(
            [
                'benchmark',
                'resnest14',
                '--sizes',
                '1x64x64',
                '2x32x48',
                '--repeats',
                '2',
                '--forms',
                *OURS,
                '--json',
                str(files[0]),
                '--plot',
                str(files[1]),
            ]
        )
        == 0
    )
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert all(column in lines[0] for column in benchmark.COLUMNS)
    assert 'left out: fused (for inference only)' in err
    rows = json.loads(files[0].read_text())['rows']
    assert [(row['size'], row['mode'], row['form']) for row in rows] == [
        (size, mode, form)
        for size in ('1x3x64x64', '2x3x32x48')
        for mode, forms in (('inference', OURS), ('training', ('plain', 'lean', 'convolutions')))
        for form in forms
    ]
    assert len(lines) == 1 + len(rows) + 3
    for row in rows:
        low, high = row['quartiles']
        assert 0 < low <= row['median'] <= high and row['cpu'] > 0
        assert (row['saved'] is None) == (
            row['mode'] == 'inference' or row['form'] == 'convolutions'
        )
        assert row['form'] == 'convolutions' or row['peak'] > (row['saved'] or 0)
    saved = {row['form']: row['saved'] for row in rows if row['size'] == '1x3x64x64'}
    assert saved['lean'] < saved['plain']
    assert files[1].stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    'arch,type_',
    [
        ('resnest50', 'ResNeSt'),
        pytest.param('resnest101', 'ResNeSt', marks=pytest.mark.slow),
        ('res2net50_v1b_26w_4s', 'Res2Net'),
        ('seresnext50_32x4d', 'ResNeXt'),
    ],
)
def test_mmdet_s_network_is_the_same_network(arch, type_):
    """As many convolutions, of the same shapes; and the same weights where names are shared."""
    pytest.importorskip('mmdet')
    case = BenchmarkCase(arch, 'inference', (1, 64, 64), 'float32', 'cpu')
    theirs, ours = benchmark_forms.mmdet_backbone(case), benchmark_forms.our_backbone(case)
    assert type(theirs).__name__ == type_
    shapes = [
        sorted(tuple(p.shape) for p in network.parameters() if p.dim() == 4)
        for network in (theirs, ours)
    ]
    assert shapes[0] == shapes[1]
    if type_ != 'ResNeXt':
        assert all(
            bool((value == theirs.state_dict()[key]).all())
            for key, value in ours.state_dict().items()
        )


def test_where_the_time_goes(capsys):
    assert (
        main.main(
            [
                'benchmark',
                'resnest14',
                '--sizes',
                '1x64x64',
                '--profile',
                'lean',
                '--modes',
                'inference',
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert all(stage in out for stage in ('stem', 'layer1', 'layer4', 'calls'))
    assert 'mkldnn' in out or 'conv' in out


@pytest.mark.slow
def test_torch_s_profiler_writes_nothing_to_the_terminal():
    """Neither lines of kineto, which writes past Python, nor warnings."""
    code = (
        'from mmresnest.cli import main; '
        'words = "benchmark resnest14 --modes training --sizes 1x64x64".split(); '
        'main.main([*words, "--forms", "plain", "lean", "--repeats", "1"]); '
        'main.main([*words, "--profile", "lean"])'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300)
    assert run.stderr == 'resnest14, training, 1x3x64x64, float32 on cpu\n'
    assert 'lean' in run.stdout and 'calls' in run.stdout and 'USDT' not in run.stdout


def test_help_names_the_forms(capsys):
    with pytest.raises(SystemExit):
        main.main(['benchmark', '--help'])
    said = ' '.join(capsys.readouterr().out.split())
    assert f'of {", ".join(benchmark.FORMS)} (default: all)' in said


def test_a_process_that_ends_early():
    case = BenchmarkCase('resnest14', 'inference', (1, 64, 64), 'float32', 'cpu')
    form = kept.SubprocessForm('lean-kept', case)
    form.process.terminate()
    form.process.join()
    with refuses('error', 'lean-kept'):
        form.run_step()
    form.close()
    with pytest.raises(FormUnavailable, match='on CPUs'):
        kept.SubprocessForm('lean-kept', case._replace(device='meta'))


@pytest.mark.parametrize('form', ['lean-kept', 'leen', 'mmdet'])
def test_what_cannot_be_profiled(form):
    case = BenchmarkCase('resnest14', 'inference', (1, 64, 64), 'float32', 'cpu')
    with refuses('option.unknown', 'plain, lean', 'fused', repr(form)):
        benchmark.profile_form(case, form)


@pytest.mark.parametrize(
    'given, code, parts',
    [
        (dict(forms=['leaner']), 'option.unknown', ("'leaner'", 'nearest: lean')),
        (dict(modes=['train']), 'option.unknown', ("'train'", 'nearest: training')),
        (dict(dtypes=['half']), 'option.unknown', ("'half'", 'float32, bfloat16, float16')),
        (dict(repeats=0), 'option.value', ('repeats=0',)),
        (dict(archs=['resnest51']), 'argument.value', ("'resnest51'", 'nearest: resnest50')),
    ],
)
def test_what_is_unknown_is_refused(given, code, parts):
    with refuses(code, *parts):
        benchmark.benchmark(**{'archs': ['resnest14'], **given})


@pytest.mark.parametrize(
    'device, code',
    [('cuda:99', 'device.missing'), ('mps:7', 'option.unknown'), ('tpu', 'option.unknown')],
)
def test_a_device_that_is_not_here_is_refused(device, code):
    check_refused(['benchmark', 'resnest14', '--device', device], code, device)


@pytest.mark.slow
def test_forms_in_a_process_of_their_own(monkeypatch):
    monkeypatch.setattr(benchmark, 'FORMS', dict(benchmark.FORMS))
    kept.add_forms()
    said: list[str] = []
    rows = benchmark.benchmark(
        ['resnest14'],
        forms=['plain', 'lean-kept', 'fused-kept', 'convolutions-kept'],
        sizes=[(1, 64, 64)],
        modes=['training'],
        repeats=2,
        say=said.append,
    )
    assert [row.form for row in rows] == ['plain', 'lean-kept', 'convolutions-kept']
    assert all(row.median > 0 and row.cpu > 0 for row in rows) and rows[1].saved is None
    assert said[1:] == ['  left out: fused-kept (for inference only)']


def test_what_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(benchmark_forms, 'find_spec', lambda name: None)
    said: list[str] = []
    rows = benchmark.benchmark(
        ['resnest14'],
        forms=['mmdet', 'timm', 'onnxruntime', 'openvino', 'plain'],
        sizes=[(1, 32, 32)],
        modes=['inference'],
        repeats=1,
        say=said.append,
    )
    assert [row.form for row in rows] == ['plain']
    assert [line.split()[2] for line in said if 'left out' in line] == [
        'mmdet',
        'timm',
        'onnxruntime',
        'openvino',
    ]
