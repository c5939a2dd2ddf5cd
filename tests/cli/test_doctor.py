"""Every kind of finding, on machines that are shown to the doctor."""

import json
import ssl
import urllib.error
import urllib.request
from types import ModuleType, SimpleNamespace

import pytest

from mmresnest.cli import doctor
from mmresnest.cli.doctor import Finding
from mmresnest.compat import mmcv_ext
from mmresnest.utils.env import TRUST

ONEDL = {
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmsegmentation': '1.4.2',
}
OPENMMLAB = {
    'mmengine': '0.10.7',
    'mmcv-lite': '2.1.0',
    'mmdet': '3.3.0',
    'mmsegmentation': '1.2.2',
}


@pytest.fixture
def machine(monkeypatch):
    """Shows the doctor a machine: the distributions, owners and modules that are given."""

    def show(there=None, owners=None, modules=None):
        if there is not None:
            monkeypatch.setattr(doctor, 'list_distributions', lambda: there)
        if owners is not None:
            monkeypatch.setattr(doctor, 'find_owners', lambda module: owners.get(module, []))
        if modules is not None:
            monkeypatch.setattr(doctor, 'try_import', modules.get)

    return show


def fake(name: str = 'fake', **attributes: object) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(attributes)
    return module


def fake_torch(version='2.13.0', cuda=None, gpus=(), mps=False, threads=1) -> ModuleType:
    return fake(
        'torch',
        __version__=version,
        version=SimpleNamespace(cuda=cuda),
        get_num_threads=lambda: threads,
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
        cuda=SimpleNamespace(
            is_available=lambda: bool(gpus),
            device_count=lambda: len(gpus),
            get_device_name=lambda index: gpus[index],
            get_device_properties=lambda index: SimpleNamespace(total_memory=8 * 2**30),
        ),
    )


def one(check) -> Finding:
    """The one finding that is neither ok nor a note."""
    bad = [finding for finding in check() if finding.level in ('warning', 'error')]
    assert len(bad) == 1 and bad[0].remedy, bad
    return bad[0]


def levels(check) -> set[str]:
    return {finding.level for finding in check()}


# This machine ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_is_wrong_where_the_tests_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    findings = doctor.run_checks()
    assert not [finding for finding in findings if finding.level == 'error']
    text = doctor.format_findings(findings)
    assert 'mmresnest 0.1.0' in text and 'torch' in text and 'stack o' in text
    assert sum('is not at' in finding.what for finding in findings) == len(doctor.DATA)
    assert doctor.print_findings(as_json=True) == 0
    assert {row['level'] for row in json.loads(capsys.readouterr().out)} <= set(doctor.LEVELS)


def test_the_probes_see_what_is_here():
    there = doctor.list_distributions()
    assert there['pytest'] == pytest.__version__
    assert doctor.find_owners('pytest') == ['pytest'] and doctor.find_owners('no_such_module') == []
    assert doctor.try_import('no_such_module') is None
    assert doctor.try_import('json') is json
    assert isinstance(doctor.try_import('json.no_such_part'), ModuleNotFoundError)
    assert doctor.parse_release('2.13.0+cpu') == (2, 13, 0) and doctor.parse_release(
        '2.0.0rc4'
    ) == (2, 0, 0)


# Each finding ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'there, level, words',
    [
        (ONEDL, 'ok', ''),
        (OPENMMLAB, 'ok', ''),
        ({**OPENMMLAB, 'mmcv': '2.1.0'}, 'ok', ''),
        ({}, 'error', 'no mm libraries'),
        ({**ONEDL, 'mmdet': '3.3.0'}, 'error', 'both stacks'),
        ({name: ONEDL[name] for name in list(ONEDL)[:2]}, 'warning', 'mmdet, mmseg is missing'),
        ({'mmdet': '3.3.0', 'mmsegmentation': '1.2.2'}, 'error', 'mmengine, mmcv is missing'),
    ],
)
def test_stacks_whole_partial_mixed_and_absent(there, level, words, machine):
    machine(there)
    if level == 'ok':
        assert levels(doctor.check_stack) == {'ok'}
    else:
        found = one(doctor.check_stack)
        assert found.level == level and words in found.what and 'pip' in found.remedy


def test_two_distributions_of_one_import_name(machine):
    machine(there={}, owners={'mmcv': ['mmcv', 'onedl-mmcv']})
    found = one(doctor.check_owners)
    assert found.level == 'error' and 'both provide mmcv' in found.what
    assert found.remedy.startswith('pip uninstall mmcv onedl-mmcv')


def test_two_opencvs_hurt_only_in_two_versions(machine):
    both = {'cv2': ['opencv-python', 'opencv-python-headless']}
    machine({'opencv-python': '4.12', 'opencv-python-headless': '4.12'}, both)
    assert not list(doctor.check_owners())
    machine({'opencv-python': '4.12', 'opencv-python-headless': '4.9'}, both)
    assert one(doctor.check_owners).level == 'warning'


@pytest.mark.parametrize(
    'there, refused',
    [
        (OPENMMLAB, False),
        (ONEDL, False),
        ({'mmdet': '3.3.0', 'mmcv': '2.2.0'}, True),
        ({'mmsegmentation': '1.2.2', 'mmcv': '1.7.1'}, True),
        ({'mmcv': '2.2.0'}, False),
    ],
)
def test_an_mmcv_that_mmdet_refuses(there, refused, machine):
    machine(there)
    if refused:
        assert there['mmcv'] in one(doctor.check_version_gates).what
    else:
        assert not list(doctor.check_version_gates())


def test_torch_absent_broken_and_old(machine):
    machine(modules={})
    assert 'not installed' in one(doctor.check_torch).what
    machine(modules={'torch': OSError('libcudart.so.12: cannot open\nmore')})
    assert one(doctor.check_torch).what == 'torch is broken: OSError: libcudart.so.12: cannot open'
    machine(modules={'torch': fake_torch('2.1.2')})
    found = one(doctor.check_torch)
    assert found.level == 'warning' and 'code' in found.what


def test_what_torch_can_compute_on(machine):
    machine(modules={'torch': fake_torch(cuda='12.8', gpus=['H200', 'H200'])})
    [found] = doctor.check_torch()
    assert found.what.endswith('CUDA 12.8, H200 (8 GiB), H200 (8 GiB)')
    machine(modules={'torch': fake_torch(mps=True)})
    assert next(doctor.check_torch()).what.endswith('MPS')
    machine(modules={'torch': fake_torch(cuda='12.8')})
    assert [found.level for found in doctor.check_torch()] == ['ok', 'note']


def test_operators_compiled_broken_and_stood_in_for(machine, monkeypatch):
    mmcv = fake('mmcv')
    machine(modules={})
    assert not list(doctor.check_operators())
    machine(modules={'mmcv': mmcv, 'torch': fake_torch(cuda='12.8', gpus=['H200'])})
    monkeypatch.setattr(
        mmcv_ext, 'operator_sources', lambda: {'nms': 'torchvision', 'softnms': 'torch'}
    )
    found = list(doctor.check_operators())
    assert [one.level for one in found] == ['ok', 'note']
    assert '1 in torch; 1 in torchvision' in found[0].what
    monkeypatch.setattr(mmcv_ext, 'operator_sources', lambda: {'nms': 'compiled mmcv'})
    assert levels(doctor.check_operators) == {'ok'}

    def undefined() -> None:
        raise ImportError('_ext.so: undefined symbol: _ZN2at4_ops10zeros_like4callE')

    monkeypatch.setattr(mmcv_ext, 'operator_sources', undefined)
    found = one(doctor.check_operators)
    assert found.level == 'error' and 'undefined symbol' in found.what and 'mmcv' in found.remedy


def test_torchvision_absent_fine_and_broken(machine):
    machine(modules={})
    assert levels(doctor.check_torchvision) == {'ok'}
    machine(modules={'torchvision': fake(__version__='0.28')})
    assert levels(doctor.check_torchvision) == {'ok'}
    machine(modules={'torchvision': RuntimeError('operator torchvision::nms does not exist')})
    assert 'torchvision::nms' in one(doctor.check_torchvision).what


@pytest.mark.parametrize(
    'module, error, remedy',
    [
        ('pycocotools.mask', ValueError('numpy.dtype size changed, may'), 'another numpy'),
        ('cv2', ImportError('numpy._core.multiarray failed to import'), 'another numpy'),
        ('cv2', ImportError('libGL.so.1: cannot open shared object file'), 'headless'),
        ('mmseg.apis', ModuleNotFoundError("No module named 'ftfy'", name='ftfy'), 'ftfy regex'),
        ('mmdet.apis', ModuleNotFoundError("No module named 'six'", name='six'), 'install six'),
        ('mmcv.ops', AttributeError('no attribute'), 'install mmcv anew'),
    ],
)
def test_libraries_that_cannot_be_imported(module, error, remedy, machine):
    machine(modules={'numpy': fake(__version__='2.2.6'), module: error})
    found = one(doctor.check_imports)
    assert found.level == 'error' and module in found.what and remedy in found.remedy


def test_mim_without_pkg_resources(machine, monkeypatch):
    monkeypatch.setattr(doctor.util, 'find_spec', lambda name: None)
    machine({'openmim': '0.3.9'})
    assert 'setuptools<81' in one(doctor.check_setuptools).remedy
    machine({})
    assert not list(doctor.check_setuptools())


@pytest.mark.parametrize('name', [TRUST, 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'])
def test_protection_switched_off(name, monkeypatch):
    assert not list(doctor.check_trust())
    monkeypatch.setenv(name, '1')
    assert one(doctor.check_trust).what.startswith(name)


def test_data_absent_present_and_of_another_layout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert levels(doctor.check_data_sets) == {'note'}
    (tmp_path / 'data/coco').mkdir(parents=True)
    (tmp_path / 'data/cityscapes/leftImg8bit/train').mkdir(parents=True)
    assert 'annotations/instances_train2017.json' in one(doctor.check_data_sets).what
    assert [found.level for found in doctor.check_data_sets()] == ['warning', 'note', 'ok']


def test_little_room_and_too_many_threads(machine, monkeypatch):
    monkeypatch.setattr(doctor.shutil, 'disk_usage', lambda path: SimpleNamespace(free=2**30))
    machine(modules={'torch': fake_torch(threads=1)})
    assert '1.0 GiB' in one(doctor.check_disk).what
    monkeypatch.setattr(doctor.shutil, 'disk_usage', lambda path: SimpleNamespace(free=2**40))
    machine(modules={'torch': fake_torch(threads=10**6)})
    assert 'OMP_NUM_THREADS' in one(doctor.check_disk).remedy


def test_hosts_are_asked_only_on_request(monkeypatch):
    asked = []

    def answer(request, timeout):
        host = request.host
        asked.append(host)
        if 'github' in host:
            raise urllib.error.HTTPError(request.full_url, 404, 'no such page', {}, None)
        if 'pytorch' in host:
            raise urllib.error.URLError(ssl.SSLCertVerificationError('certificate has expired'))
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(urllib.request, 'urlopen', answer)
    monkeypatch.setattr(doctor, 'CHECKS', ())
    assert doctor.run_checks() == [] and asked == []
    found = {finding.what.split()[0]: finding for finding in doctor.run_checks(with_network=True)}
    assert set(found) == set(asked) and len(asked) > 2
    assert found['github.com'].level == 'ok'
    assert 'certificate has expired' in found['download.pytorch.org'].what


# The report --------------------------------------------------------------------------------------


def test_a_check_that_fails_is_a_finding_itself(monkeypatch):
    def broken():
        yield Finding('ok', 'fine so far')
        raise KeyError('unforeseen')

    monkeypatch.setattr(doctor, 'CHECKS', (broken,))
    found = doctor.run_checks()
    assert "'broken' failed itself (KeyError" in found[-1].what and found[-1].level == 'warning'


def test_the_report_is_aligned_and_coloured_only_when_asked():
    findings = [
        Finding('ok', 'word ' * 40),
        Finding('error', 'bad', 'do this'),
        Finding('warning', 'odd', 'do that ' * 30),
    ]
    plain = doctor.format_findings(findings, width=80)
    assert '\033' not in plain and max(map(len, plain.splitlines())) <= 80
    assert plain.splitlines()[-1] == '1 error, 1 warning'
    assert '         -> do this' in plain
    assert '\033[31merror' in doctor.format_findings(findings, color=True)
    assert doctor.format_findings([]).endswith('Nothing is wrong.')


def test_the_exit_status_is_one_only_for_errors(monkeypatch, capsys):
    for level, status in (('ok', 0), ('note', 0), ('warning', 0), ('error', 1)):
        monkeypatch.setattr(doctor, 'CHECKS', (lambda level=level: [Finding(level, 'x')],))
        assert doctor.print_findings() == status
    assert '\033' not in capsys.readouterr().out
