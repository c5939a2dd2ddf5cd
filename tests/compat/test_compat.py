"""What is mended in the mm libraries: that it is, that it stays, and that nothing else is."""

import copy
import io
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers.errors import refuses
from helpers.pickled import Call, Toy, Written, pretrained, runner
from mmdet.datasets import transforms
from mmengine.config import Config
from mmengine.hub import get_config, get_model
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint

from mmresnest import compat
from mmresnest.compat import mmcv_ext, patches
from mmresnest.security import torch_load
from mmresnest.utils.env import TRUST


def python(code: str, **environ: str) -> str:
    """What a fresh interpreter prints; for all that depends on what was imported before."""
    run = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environ},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


# The finders -------------------------------------------------------------------------------------


def test_import_is_cheap_and_a_second_install_changes_nothing():
    assert (
        python(
            'import sys, mmresnest\n'
            'from mmresnest import compat\n'
            'finders = list(sys.meta_path)\n'
            'compat.install()\n'
            'assert sys.meta_path == finders\n'
            'print([type(finder).__name__ for finder in (finders[0], finders[-1])])\n'
            'print([name for name in ("torch", "numpy", "mmengine", "mmcv") '
            'if name in sys.modules])'
        )
        == "['PatchFinder', 'ExtFinder']\n[]"
    )


def test_the_stand_in_is_asked_after_every_finder_that_may_know_a_compiled_one():
    ours = [
        index
        for index, finder in enumerate(sys.meta_path)
        if isinstance(finder, mmcv_ext.ExtFinder)
    ]
    theirs = [
        index
        for index, finder in enumerate(sys.meta_path)
        if getattr(finder, '__name__', '') == 'PathFinder'
    ]
    assert len(ours) == 1 and theirs and max(theirs) < ours[0]


@pytest.fixture
def repaired(tmp_path, monkeypatch):
    """A module on the path with a repair of its own; yields what the repair was called with."""
    seen = []
    (tmp_path / 'mended_by_test.py').write_text('count = 1\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(patches.PATCHES, 'mended_by_test', seen.append)
    yield seen
    sys.modules.pop('mended_by_test', None)


def test_a_repair_runs_once_behind_the_module_and_leaves_its_loader_be(repaired):
    import mended_by_test
    import mended_by_test as again

    assert again is mended_by_test and repaired == [mended_by_test]
    assert not isinstance(mended_by_test.__loader__, compat.PatchLoader)


def test_a_module_imported_before_us_is_mended_at_once(repaired, monkeypatch):
    monkeypatch.setattr(
        sys,
        'meta_path',
        [finder for finder in sys.meta_path if not isinstance(finder, compat.PatchFinder)],
    )
    import mended_by_test

    assert repaired == []
    monkeypatch.setattr(patches, 'PATCHES', {'mended_by_test': repaired.append})
    compat.install()
    assert repaired == [mended_by_test]


def test_a_repair_of_a_module_that_is_missing_hides_nothing(monkeypatch):
    monkeypatch.setitem(patches.PATCHES, 'no_such_module_at_all', print)
    with pytest.raises(ModuleNotFoundError, match='no_such_module_at_all'):
        __import__('no_such_module_at_all')


@pytest.mark.slow
def test_all_repairs_reach_mm_modules_that_were_imported_first():
    # get_installed_path is copied into mmengine.utils and mmengine.config.config by name
    assert (
        python(
            'import mmengine.runner, mmengine.hub\n'
            'from mmengine.config import config, utils\n'
            'import mmresnest\n'
            'from mmresnest.compat import patches\n'
            'from mmengine.utils import package_utils\n'
            'assert utils.MODULE2PACKAGE["mmresnest"] == "mmresnest"\n'
            'assert config.get_installed_path is package_utils.get_installed_path\n'
            'print("pkg_resources" in config.get_installed_path.__code__.co_names)'
        )
        == 'False'
    )


# Configs by name ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'base, kind',
    [
        ('mmdet::_base_/models/faster-rcnn_r50_fpn.py', 'FasterRCNN'),
        (
            'mmdet::resnest/faster-rcnn_s50_fpn_syncbn-backbone+head_ms-range-1x_coco.py',
            'FasterRCNN',
        ),
        ('mmseg::_base_/models/deeplabv3_r50-d8.py', 'EncoderDecoder'),
        ('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'EncoderDecoder'),
    ],
)
def test_configs_of_both_toolboxes_can_be_inherited_from(base, kind, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(f'_base_ = {base!r}\n')
    assert Config.fromfile(path).model.type == kind


@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
def test_a_config_is_found_without_reading_every_metafile(package, monkeypatch):
    from mmengine.config import utils
    from mmengine.utils import get_installed_path

    missing = f'{package}::fcn/no_such_config.py'
    with pytest.raises(FileNotFoundError, match='no_such_config'):
        Config._get_cfg_path(missing, '')
    read = []
    monkeypatch.setattr(utils, 'load', read.append)
    folder = Path(get_installed_path(package), '.mim', 'configs')
    names = sorted(str(path.relative_to(folder)) for path in folder.glob('*/*.py'))
    assert len(names) > 300
    for name in names[::20]:
        path, scope = Config._get_cfg_path(f'{package}::{name}', '')
        assert path == utils._get_external_cfg_base_path(str(folder.parents[1]), name)
        assert scope == package
    assert read == []
    with pytest.raises(TypeError):  # mmengine is asked about what is not there
        Config._get_cfg_path(missing, '')
    assert len(read) == 1


def test_a_text_is_formatted_once_for_each_state(monkeypatch):
    from yapf.yapflib import yapf_api

    formatted, real = [], yapf_api.FormatCode

    def count(text, **more):
        formatted.append(text)
        return real(text, **more)

    for module in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):
        monkeypatch.setattr(f'{module}.FormatCode', count, raising=False)
    config = Config(dict(name='test_a_text_is_formatted_once', numbers=[1, 2.5, None]))
    text = config.pretty_text
    assert text == config.pretty_text == Config(config.to_dict()).pretty_text
    assert len(formatted) == 1 and Config.fromstring(text, '.py').to_dict() == config.to_dict()
    config.numbers.append('new')
    assert "'new'" in config.pretty_text and "'new'" not in text and len(formatted) == 2
    plain = Config(config.to_dict(), format_python_code=False).pretty_text
    assert plain == formatted[1] and len(formatted) == 2
    for number in range(2, 22):  # few are kept, and what is dropped is formatted anew
        config.numbers[0] = number
        assert f' {number},\n' in config.pretty_text
    config.numbers.pop()
    config.numbers[0] = 1
    assert config.pretty_text == text and len(formatted) > 22


def test_our_configs_can_be_inherited_from_by_name(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text("_base_ = 'mmresnest::faster_rcnn_resnest50_fpn.py'\nrandomness = dict(seed=7)")
    config = Config.fromfile(path)
    assert config.randomness.seed == 7
    assert config.default_scope == 'mmdet' and config.model.get('_scope_') != 'mmresnest'
    assert config.model.backbone.type == 'mmresnest.ResNeSt'


def test_a_config_of_ours_that_is_not_there_names_the_nearest(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text("_base_ = 'mmresnest::faster_rcnn_resnest5_fpn.py'\n")
    with refuses('config.base-missing', 'faster_rcnn_resnest50_fpn.py'):
        Config.fromfile(path)


def table(**entries: str) -> ModuleType:
    module = ModuleType('table')
    module.MODULE2PACKAGE = dict(entries)
    return module


def test_only_distributions_that_are_missing_are_renamed():
    module = table(pytest='pytest', yaml='pyyaml', hypothesis='no-such-thing', absent='nothing')
    patches.patch_module2package(module)
    assert module.MODULE2PACKAGE == dict(
        pytest='pytest',
        yaml='pyyaml',
        hypothesis='hypothesis',
        absent='nothing',
        mmresnest='mmresnest',
    )


# Packages without pkg_resources ------------------------------------------------------------------


def test_packages_are_found_where_they_are_imported_from():
    import mmdet
    import mmseg

    import mmresnest

    for package in (mmdet, mmseg, mmresnest):
        assert patches.get_installed_path(package.__name__) == str(Path(package.__file__).parent)
    distribution = next(
        name for name in ('onedl-mmsegmentation', 'mmsegmentation') if patches.is_distribution(name)
    )
    assert patches.package2module(distribution) == 'mmseg'
    assert patches.get_installed_path(distribution) == str(Path(mmseg.__file__).parent)


def test_packages_that_are_not_there_are_said_not_to_be():
    assert not patches.is_installed('no-such-package') and not patches.is_installed(
        'no_such_package'
    )
    for ask in (patches.get_installed_path, patches.package2module):
        with pytest.raises(metadata.PackageNotFoundError):
            ask('no_such_package')


def test_a_namespace_package_has_no_folder(tmp_path, monkeypatch):
    (tmp_path / 'folder_only').mkdir()
    (tmp_path / 'folder_only-1.dist-info').mkdir()
    (tmp_path / 'folder_only-1.dist-info' / 'METADATA').write_text('Name: folder_only\nVersion: 1')
    (tmp_path / 'folder_only-1.dist-info' / 'top_level.txt').write_text('folder_only\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert patches.is_installed('folder_only')
    with pytest.raises(RuntimeError, match='namespace package'):
        patches.get_installed_path('folder_only')


def test_configs_are_inherited_without_pkg_resources():
    """As with setuptools 82 and later, simulated: the module is there but may not be imported."""
    assert (
        python(
            'import sys\n'
            'sys.modules["pkg_resources"] = None\n'
            'import mmresnest\n'
            'from mmengine.utils import get_installed_path, is_installed\n'
            'from mmengine.config import Config\n'
            'Config.fromfile(get_installed_path("mmdet") + "/.mim/configs/retinanet/"\n'
            '                "retinanet_r50_fpn_1x_coco.py")\n'
            'config = Config._get_cfg_path("mmdet::_base_/default_runtime.py", "")\n'
            'print(is_installed("mmdet"), is_installed("mmnothing"), config[1])'
        )
        == 'True False mmdet'
    )


# Checkpoints that run no code --------------------------------------------------------------------


def test_a_run_resumes_from_its_own_checkpoint_with_its_history(tmp_path):
    first = runner(tmp_path, 1)
    first.message_hub.update_info('best', np.float32(0.5))
    first.message_hub.update_info('palette', np.arange(6, dtype=np.uint8).reshape(2, 3))
    first.train()
    second = runner(tmp_path, 2, resume=True)
    second.train()
    assert second.epoch == 2
    loss = second.message_hub.get_scalar('train/loss')
    assert isinstance(loss, HistoryBuffer) and len(loss.data[0]) == 4
    assert loss.data[0][:2].tolist() == first.message_hub.get_scalar('train/loss').data[0].tolist()
    best = second.message_hub.get_info('best')
    assert type(best) is np.float32 and best == 0.5
    palette = second.message_hub.get_info('palette')
    assert type(palette) is np.ndarray and palette.tolist() == [[0, 1, 2], [3, 4, 5]]


def loaded(checkpoint: object, path: Path) -> object:
    torch.save(checkpoint, path)
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


def test_numbers_arrays_and_histories_survive_wherever_they_are_nested(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    checkpoint = {
        'weights': {'w': torch.ones(2)},
        'rows': array,
        'columns': np.asfortranarray(array),
        'big endian': array.astype('>f4'),
        'names': np.array(['cat', 'dogs']),
        'none': np.zeros((0, 4), np.float32),
        'flags': np.array([True, False]),
        'list': [np.int64(3), (np.float64(0.25), 'text')],
        'flag': np.bool_(True),
        'history': HistoryBuffer([1.0, 2.0], [1, 3], max_length=5),
        'dtype': np.dtype('i2'),
    }
    result = loaded(copy.deepcopy(checkpoint), tmp_path / 'nested.pth')
    for key in ('rows', 'columns', 'big endian', 'names', 'none', 'flags'):
        assert type(result[key]) is np.ndarray
        np.testing.assert_array_equal(result[key], checkpoint[key])
        assert result[key].shape == checkpoint[key].shape
        assert result[key].dtype == checkpoint[key].dtype and result[key].flags.writeable
    assert repr(result['list']) == repr(checkpoint['list']) and result['flag'] is np.True_
    assert result['dtype'] == np.int16
    assert result['history'].max_length == 5 and result['history'].mean() == 3 / 4
    assert [column.tolist() for column in result['history'].data] == [[1.0, 2.0], [1, 3]]


class Unknown:
    """A class that no list names."""


def attacks(mark: Path) -> dict[str, object]:
    """Objects that would write the file ``mark`` when unpickled, and some that lead up to it."""
    code = f'open({str(mark)!r}, "w").close()'
    builtins = Call(getattr, getattr, '__self__')
    return {
        'os.system': Call(os.system, f'touch {mark}'),
        'eval': Call(eval, code),
        'exec': {'state_dict': {'w': torch.ones(1)}, 'meta': Call(exec, code)},
        'open': Call(open, str(mark), 'w'),
        'subprocess': Call(subprocess.check_call, ['touch', str(mark)]),
        'import': Call(__import__, 'os'),
        # getattr is what mmengine's own checkpoints need. The real one leads to eval, which
        # _rebuild_from_type_v2, on torch's own list, calls.
        'getattr chain': Call(
            torch._tensor._rebuild_from_type_v2,
            Call(getattr, builtins, 'eval'),
            torch.Tensor,
            (code,),
            {},
        ),
        'getattr of the history': Call(
            getattr, Call(getattr, HistoryBuffer, 'mean'), '__globals__'
        ),
        'array of objects': np.array([Call(eval, code)], dtype=object),
        # numbers that are read as pointers
        'forged dtype': Written(
            np._core.multiarray._reconstruct,
            (np.ndarray, (0,), b'b'),
            (
                1,
                (1,),
                Written(np.dtype, ('O8', False, True), (3, '|', None, None, None, -1, -1, 0)),
                False,
                b'\1' * 8,
            ),
        ),
        'unknown class': {'model': Unknown()},
    }


ATTACKS = tuple(attacks(Path('mark')))


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('name', ATTACKS)
def test_a_checkpoint_that_would_run_code_is_refused(name, legacy, tmp_path):
    mark, path = tmp_path / 'mark', tmp_path / 'attack.pth'
    torch.save(attacks(mark)[name], path, _use_new_zipfile_serialization=not legacy)
    with refuses('checkpoint.unsafe') as caught:
        CheckpointLoader.load_checkpoint(str(path))
    assert not mark.exists()
    assert str(path) in str(caught.value) and f'{TRUST}=1' in str(caught.value)


def test_the_attacks_are_real(tmp_path):
    """Else the test above would prove nothing: with the real names on the list, they run."""
    mark, path = tmp_path / 'mark', tmp_path / 'attack.pth'
    torch.save(attacks(mark)['getattr chain'], path)
    with torch.serialization.safe_globals([getattr]), pytest.raises(AttributeError):
        torch.load(path, weights_only=True)
    assert mark.exists()


def downloaded(path: str) -> None:
    """As from the web: torch.hub, which takes a file of that name for downloaded."""
    folder = Path(torch.hub.get_dir(), 'checkpoints')
    folder.mkdir(parents=True)
    shutil.copy(path, folder / 'attack.pth')
    CheckpointLoader.load_checkpoint('https://weights.invalid/attack.pth')


@pytest.mark.parametrize(
    'load',
    [
        lambda path: load_checkpoint(Toy(), path),
        lambda path: runner(Path(path).parent, 1).load_checkpoint(path),
        lambda path: runner(Path(path).parent, 1).resume(path),
        lambda path: runner(Path(path).parent, 1, load_from=path).train(),
        pretrained,
        downloaded,
    ],
    ids=[
        'load_checkpoint',
        'Runner.load_checkpoint',
        'Runner.resume',
        'load_from',
        'Pretrained',
        'download',
    ],
)
def test_every_way_to_a_checkpoint_refuses(load, tmp_path, monkeypatch):
    mark, path = tmp_path / 'mark', tmp_path / 'attack.pth'
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    torch.save(attacks(mark)['eval'], path)
    with refuses('checkpoint.unsafe', 'attack.pth', 'eval'):
        load(str(path))
    assert not mark.exists()


def test_trust_is_asked_for_and_ends(tmp_path, monkeypatch):
    path = tmp_path / 'unknown.pth'
    torch.save({'model': Unknown()}, path)
    with torch_load.trust_checkpoints():
        assert isinstance(CheckpointLoader.load_checkpoint(str(path))['model'], Unknown)
    with refuses('checkpoint.unsafe', path, 'test_compat.Unknown'):
        CheckpointLoader.load_checkpoint(str(path))
    monkeypatch.setenv(TRUST, '1')
    assert isinstance(CheckpointLoader.load_checkpoint(str(path))['model'], Unknown)
    assert os.environ.get('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD') is None


def test_torch_itself_is_as_before_once_a_checkpoint_is_loaded(tmp_path):
    environment, names = dict(os.environ), set(torch.serialization.get_safe_globals())
    loaded({'flag': np.bool_(True)}, tmp_path / 'fine.pth')
    with refuses('checkpoint.unsafe', 'unknown.pth', 'test_compat.Unknown'):
        loaded({'model': Unknown()}, tmp_path / 'unknown.pth')
    assert dict(os.environ) == environment
    assert set(torch.serialization.get_safe_globals()) == names  # torch keeps them in a set


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')  # true, and the case to be tested
def test_a_file_that_is_no_checkpoint_is_said_to_be_none(tmp_path):
    whole = io.BytesIO()
    torch.save({'w': torch.ones(100)}, whole)
    path = tmp_path / 'broken.pth'
    for content in (
        b'',
        b'<html>404</html>',
        b'just some text, no more',
        whole.getvalue()[:500],
        pickle.dumps({'w': 1}),
        pickle.dumps([Unknown()]),
    ):
        path.write_bytes(content)
        with refuses('checkpoint.unreadable', 'broken.pth', 'PyTorch'):
            CheckpointLoader.load_checkpoint(str(path))
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('readme.txt', 'a zip file of something else')
    with refuses('checkpoint.unreadable'):
        CheckpointLoader.load_checkpoint(str(path))
    with pytest.raises(FileNotFoundError):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'absent.pth'))


# Noise -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_service_nobody_has_is_not_mentioned():
    assert (
        python(
            'import mmresnest, mmdet.datasets\n'
            'from mmengine.logging import print_log\n'
            'print_log("Could not import OneDL. Skipping OneDL datasets.")\n'
            'print_log("Could not import something else")'
        )
        == 'Could not import something else'
    )


@pytest.mark.parametrize('suffix', ('.py', ''))
def test_the_hub_knows_our_configs(suffix):
    name = 'mmresnest::cascade_mask_rcnn_res2net101_v1b_fpn_mmdet' + suffix
    cfg = get_config(name, pretrained=True)
    assert cfg.model.type == 'CascadeRCNN' and cfg.model_path.endswith('fpn_20e_coco-8a7b41e1.pth')
    assert 'model_path' not in get_config(name)
    theirs = get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    assert theirs.model.type == 'RetinaNet'


def test_the_hub_builds_our_models():
    with torch.device('meta'):
        model = get_model('mmresnest::faster_rcnn_resnest50_fpn.py')
    assert type(model).__name__ == 'FasterRCNN'
    assert type(model.backbone).__module__ == 'mmresnest.models.backbones'


@pytest.mark.parametrize(
    'name, pretrained, code, near',
    (
        ('faster_rcnn_resnest50_fpm', False, 'config.missing', 'faster_rcnn_resnest50_fpn'),
        ('faster_rcnn_resnest50_fpn', True, 'weights.unpublished', '_mmdet'),
    ),
)
def test_the_hub_names_what_there_is(name, pretrained, code, near):
    with refuses(code, near):
        get_config('mmresnest::' + name, pretrained)


@pytest.mark.slow
def test_imgaug_is_imported_where_lanes_are_augmented():
    """Flipped, a lane lies where it should; until then nothing has imported it."""
    asks = patches.is_distribution('onedl-mmdetection')
    assert hasattr(transforms, 'ImageAug') == asks  # else the stand-in serves nothing
    if not asks:
        assert not find_spec('mmdet.datasets.transforms.generate_line')
        return
    code = """
import sys, warnings
warnings.simplefilter('ignore')
import mmresnest
from mmdet.datasets.transforms import ImageAug
print('imgaug' in sys.modules, 'scipy.stats' in sys.modules)
import numpy as np
flip = dict(name='Fliplr', p=1.0, parameters=dict(p=1.0))
resize = dict(name='Resize', p=1.0, parameters=dict(size=dict(height=20, width=40)))
found = ImageAug([resize, dict(name='OneOf', p=1.0, transforms=[flip])])(
    dict(img=np.zeros((20, 40, 3), np.uint8), instances=[dict(line=[(1, 2), (3, 4)])]))
print(found['lines'][0].tolist())
import imgaug.augmenters
print(imgaug.augmenters.__file__ is not None)
"""
    assert python(code).splitlines()[-3:] == ['False False', '[[39.0, 2.0], [37.0, 4.0]]', 'True']
