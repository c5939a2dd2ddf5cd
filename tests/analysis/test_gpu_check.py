"""The check of a GPU, tried on the CPU: what it finds, and what becomes of a part that breaks."""

import copy
import json
from collections import Counter

import pytest
import torch
from helpers.errors import refuses
from helpers.pretend_cuda import MixedDevices, PretendCuda, to_cpu, to_cuda
from helpers.tiers import mark_slow

from mmresnest.analysis.gpu_check import (
    CheckPlan,
    check_gpu,
    equality,
    operators,
    speed,
    steps,
    supervisor,
)
from mmresnest.analysis.gpu_check import page as pages
from mmresnest.analysis.gpu_check.items import CheckFailed, Item, ItemRun, LeftOut, Part
from mmresnest.cli import main
from mmresnest.deploy import fuse
from mmresnest.models import fast

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture
def plan(tmp_path):
    return CheckPlan(tmp_path / 'out', 'cpu', toy=True)


@pytest.fixture
def run(tmp_path):
    return ItemRun(tmp_path / 'records', 'part', 'item', float('inf'))


@pytest.mark.parametrize(
    'arguments, code, parts',
    [
        (['{out}'], 'device.missing', ['--toy']),
        (['{folder}', '--toy'], 'option.exists', ['{folder}']),
        (['{file}/out', '--toy'], 'file.unwritable', ['{file}']),
        (['{out}', '--toy', '--data', '{out}'], 'data.missing', ['{out}']),
    ],
)
def test_what_is_refused(arguments, code, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    file = tmp_path / 'file'
    file.touch()
    names = dict(out=tmp_path / 'out', folder=tmp_path, file=file)
    words = [word.format(**names) for word in arguments]
    with refuses(code, *(part.format(**names) for part in parts)):
        main.main(['benchmark', '--gpu-check', *words, '--debug'])
    assert not (tmp_path / 'out').exists()


def test_an_old_torch_is_refused(plan, monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.3.1+cu121')
    with refuses('package.too-old', '2.3.1'):
        check_gpu(plan)


def test_an_item_is_recorded_whatever_becomes_of_it(tmp_path):
    from helpers import gpu_parts

    file = tmp_path / 'records'
    for item in gpu_parts.list_items(None)[:4]:
        assert supervisor.run_item(item, ItemRun(file, 'equality', item.name, 1.0))
    found = supervisor.collect_records(file)
    assert found['failed'] == 2
    assert [one['status'] for one in found['items']] == ['passed', 'failed', 'error', 'left out']
    assert 'ZeroDivisionError' in found['items'][2]['traceback']
    result = dict(found, toy=True, budget=1.0)
    told = pages.format_page(result)
    assert 'equality, differs: failed: x differs' in told and 'ZeroDivisionError' in told
    assert '1 passed, 1 failed, 1 error, 1 left out' in told
    assert told.count(pages.NOT_MEASURED) == len(pages.GOALS) + 2


@pytest.mark.slow
def test_what_dies_or_hangs_costs_itself_only(plan, monkeypatch):
    monkeypatch.setattr(supervisor, 'GRACE', 0.5)
    parts = (Part('equality', 'helpers.gpu_parts', 0.9), Part('speed', 'helpers.no_such_part', 0.1))
    found = check_gpu(CheckPlan(plan.out, 'cpu', True, None, 600.0, parts))
    assert {one['item']: one['status'] for one in found['items']} == {
        'passes': 'passed',
        'differs': 'failed',
        'raises': 'error',
        'cannot': 'left out',
        'dies': 'error',
        'hangs': 'left out',
        'comes last': 'passed',
        'start': 'error',
    }
    assert found['failed'] == 3
    hung = next(one for one in found['items'] if one['item'] == 'hangs')
    assert hung['values']['error'] == '0.5'
    assert json.loads((plan.out / 'gpu_check.json').read_text())['failed'] == 3
    assert 'no_such_part' in (plan.out / 'log.txt').read_text()
    assert {path.name for path in plan.out.iterdir()} == {
        'gpu_check.json',
        'gpu_check.md',
        'log.txt',
    }


@pytest.mark.slow
def test_the_whole_at_toy_sizes(tmp_path, capsys):
    """On a GPU the same code runs, at other sizes: none of its minutes goes to a mistyped name."""
    out = tmp_path / 'out'
    assert main.main(['benchmark', '--gpu-check', str(out), '--toy']) == 0
    found = json.loads((out / 'gpu_check.json').read_text())
    assert Counter(one['status'] for one in found['items']).keys() == {'passed'}
    values = {(one['part'], one['item']): one['values'] for one in found['items']}
    forms = {key[1]: one['forms'] for key, one in values.items() if key[0] == 'speed'}
    for mode, dtype in (('training', 'float32'), ('inference', 'bfloat16')):
        assert set(forms[f'resnest50, {mode}, {dtype}']) == set(speed.TOY_FORMS[mode])
    trained = values['training', 'faster_rcnn, mixed precision']['training']
    assert trained['images_per_second'] > 0 and 'coco/bbox_mAP' in trained['scores']
    page = (out / 'gpu_check.md').read_text()
    assert page.count(pages.NOT_MEASURED) == len(pages.GOALS)  # of other forms
    assert not list(out.rglob('*.pth'))


def test_every_row_of_the_table_is_checked(plan):
    from helpers.networks import FORMS, KINDS

    assert equality.list_rows(by_kind=False) == FORMS
    assert equality.list_rows(by_kind=True) == KINDS
    listed = {item.name for item in equality.list_items(CheckPlan(plan.out))}
    assert all(f'{row.name}: definition, training' in listed for row in FORMS)
    assert {f'step of {config}' for config in steps.CONFIGS} <= listed


@pytest.mark.parametrize('form', equality.FORMS[:7], ids=lambda form: form.name)
def test_a_form_that_differs_fails(form, plan, run, monkeypatch):
    row = next(row for row in equality.list_rows(True) if row.name == 'resnet50')
    assert float(equality.check_form(plan, row, form, run)['error']) < equality.EXACT
    right = equality.run_network

    def change(network, *rest):
        network.blocks[0].conv3.weight.data[0, 0] += 1e-3
        return right(network, *rest)

    monkeypatch.setattr(equality, 'run_network', change)
    with pytest.raises(CheckFailed) as failed:
        equality.check_form(plan, row, form, run)
    values = failed.value.values
    assert float(values['error']) > values['tolerance'] and values['where'] in str(failed.value)


def test_a_tolerance_is_never_all_there_is():
    for form in equality.FORMS:
        assert form.floor <= 3e-2 and (form.dtype != torch.float64 or form.floor == equality.EXACT)
    assert equality.MOST < 0.5
    nan = {'map 0': torch.tensor([float('nan')])}
    errors = equality.measure_errors(nan, {'map 0': torch.ones(1)})
    with pytest.raises(CheckFailed):
        equality.judge_errors(errors, {'map 0': 0.3})


@pytest.mark.parametrize('name', operators.OPERATORS)
def test_operators_mix_no_devices(name):
    """As on a GPU: what a tensor of the CPU takes part in raises, and so does ``numpy()``."""
    operator = operators.OPERATORS[name]
    expected = operator.reference()
    for source in operators.list_sources():
        with PretendCuda(), operators.use_source(source):
            found = operator.run('cuda', max(operator.dtypes, key=lambda dtype: dtype.itemsize))
        errors = equality.measure_errors({key: to_cpu(one) for key, one in found.items()}, expected)
        assert max(errors.values()) <= 1e-4


@pytest.mark.parametrize(
    'row',
    mark_slow(equality.list_rows(True), lambda row: row.trunk['kind'] == 'split'),
    ids=lambda row: row.trunk['kind'],
)
def test_networks_mix_no_devices(row):
    for training, prepare in (
        (True, lambda network: network),
        (True, lambda network: fast.enable(network, save_memory=True)),
        (False, fuse),
    ):
        network = copy.deepcopy(equality.build_network(row.name)).double().train(training)
        form = equality.FormCheck('', training)
        with PretendCuda():
            found = equality.run_network(to_cuda(prepare(network)), equality.make_image(33), form)
        errors = equality.measure_errors(
            {key: to_cpu(one) for key, one in found.items()},
            equality.run_reference(row.name, training, 33),
        )
        assert max(errors.values()) <= equality.EXACT


@pytest.mark.slow
@pytest.mark.parametrize('config', (*steps.CONFIGS[1:3], steps.CONFIGS[4]))
def test_training_steps_mix_no_devices(config):
    pytest.importorskip('mmseg' if 'deeplab' in config else 'mmdet')
    model, expected = steps.run_step(config, 'cpu', 64)
    to_cuda(model)
    model.data_preprocessor._device = torch.device('cuda')
    with PretendCuda():
        _, found = steps.run_step(config, 'cuda', 64, model)
    errors = equality.measure_errors({key: to_cpu(one) for key, one in found.items()}, expected)
    assert max(errors.values()) <= 1e-6


def test_the_pretense_finds_what_is_mixed():
    with PretendCuda():
        x = torch.randn(2, 3).cuda()
        with pytest.raises(MixedDevices):
            x + torch.ones(3)
        with pytest.raises(MixedDevices):
            torch.ones(3)[x.long()]
        with pytest.raises(TypeError):
            x.numpy()
        assert (x + torch.ones(3, device='cuda')).device.type == x.new_tensor([1]).device.type
        assert x.cpu().device.type == 'cpu' and float(x[0, 0] + torch.tensor(1.0)) is not None


def test_sizes_are_halved_until_they_fit(plan, monkeypatch):
    tried = []

    def make(form, case, plan):
        tried.append(case.size)
        assert case.mode == 'training'
        if case.size[0] * case.size[1] > 900:
            raise torch.cuda.OutOfMemoryError('out of memory')
        return lambda: (torch.ones(1, requires_grad=True),), torch.nn.Identity()

    monkeypatch.setattr(speed, 'prepare_form', make)
    case = speed.BenchmarkCase('resnest50', 'inference', (4, 800, 1344), 'float32', 'cpu')
    assert speed.fit_case(case, plan).size == (1, 800, 1344) == tried[-1]
    assert speed.fit_case(case._replace(size=(1, 1600, 64)), plan).size == (1, 800, 32)
    monkeypatch.setattr(
        speed,
        'prepare_form',
        lambda *_: make('', case._replace(mode='training', size=(9, 900, 9)), 0),
    )
    with pytest.raises(LeftOut, match='100 x 168'):
        speed.fit_case(case, plan)
    left_out = {}
    speed.start_form('plain', case._replace(mode='training'), plan, {}, left_out)
    assert left_out == {'plain': '4x3x800x1344 does not fit the memory'}


def test_goals_are_measured_or_said_not_to_be():
    def case(mode, **forms):
        rows = {
            name.replace('_', '-'): dict(median=median, peak=peak)
            for name, (median, peak) in forms.items()
        }
        values = dict(arch='resnest50', mode=mode, dtype='bfloat16', forms=rows)
        return dict(part='speed', item=mode, values=values)

    assert {row[2] for row in pages.list_goals([])} == {pages.NOT_MEASURED}
    rows = pages.list_goals(
        [case('training', mmdet=(20.0, 100.0), plain=(10.0, 80.0), lean=(12.0, 60.0))]
    )
    assert [row[2:] for row in rows] == [
        ('2.00x, met', 'plain'),
        (pages.NOT_MEASURED, ''),
        (pages.NOT_MEASURED, ''),
        ('0.60, met', 'lean'),
    ]


def test_items_have_names_of_their_own(plan):
    for part in (equality, speed):
        names = [item.name for item in part.list_items(CheckPlan(plan.out))]
        assert len(names) == len(set(names))
    assert all(isinstance(item, Item) for item in speed.list_items(plan))
