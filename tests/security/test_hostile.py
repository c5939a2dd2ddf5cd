"""Files that would run code, delete others, or take all memory: refused on every way to them.

``tests/compat/test_compat.py`` has the attacks on mmengine's lists of names, one way in; here are
gadgets of many kinds on every way in, and files that claim more than they have.
"""

import codecs
import functools
import importlib
import io
import json
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import time
import webbrowser
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import mmengine
import numpy as np
import pytest
import torch
from helpers.errors import refuses, run_refused
from helpers.pickled import (
    REBUILD,
    Call,
    Toy,
    Written,
    archive_of,
    deep,
    hashed,
    laughs,
    pretrained,
    runner,
)
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmengine.runner.checkpoint import _load_checkpoint, get_external_models

import mmresnest
from mmresnest.engine.checkpoints import read_checkpoint
from mmresnest.errors import UserError
from mmresnest.security import pickles, placeholders, torch_load


def touch(mark: Path) -> str:
    return f'open({str(mark)!r}, "w").close()'


class Written4:
    """An object whose state is set by a method of its own."""

    def __setstate__(self, state):
        exec(state)

    def __reduce__(self):
        return Written4, (), self.code


class Stored:
    """A storage of another kind: the persistent id of a pickle."""


def gadgets(mark: Path) -> dict[str, object]:
    """Objects that would write the file ``mark`` when unpickled, each in a way of its own."""
    code, shell = touch(mark), f'touch {mark}'
    stateful = Written4()
    stateful.code = code
    inner = pickle.dumps(Call(exec, code), 2)
    return {
        'os.system': Call(importlib.import_module('os').system, shell),
        'eval': Call(eval, code),
        'exec': Call(exec, code),
        'Popen': Call(subprocess.Popen, ['touch', str(mark)]),
        'partial': Call(functools.partial(exec, code)),
        'partial as state': Written(functools.partial, (print,), (exec, (code,), {}, {})),
        'map': Call(list, Call(map, exec, [code])),
        'pickle in a pickle': Call(pickle.loads, inner),
        'pickle in torch': Call(torch.storage._load_from_bytes, inner),
        'pickle in an array': Call(np.frombuffer, inner, Call(pickle.loads, inner)),
        'import': Call(importlib.import_module, 'antigravity'),
        'browser': Call(webbrowser.open, mark.as_uri()),
        'compiled': Call(exec, Call(compile, code, 'x', 'exec')),
        'codecs': Call(codecs.open, str(mark), 'w'),
        'state': stateful,
        'rebuilt by eval': Call(
            torch._tensor._rebuild_from_type_v2, eval, torch.Tensor, (code,), {}
        ),
        'hooks of a tensor': Call(
            REBUILD,
            torch.ones(1)._typed_storage(),
            0,
            (1,),
            (1,),
            True,
            OrderedDict(a=Call(exec, code)),
        ),
        'history': Written(HistoryBuffer, (), dict(_log_history=Call(exec, code))),
        'dtype of objects': Written(
            np.dtype, ('O8', False, True), (3, '|', None, None, None, -1, -1, Call(exec, code))
        ),
        'set': {Call(exec, code)},
        'metadata': OrderedMetadata(code),
    }


class OrderedMetadata(OrderedDict):
    """A state dict whose attributes carry the code."""

    def __init__(self, code):
        super().__init__(w=torch.ones(1))
        self.code = code

    def __reduce__(self):
        return OrderedDict, (), dict(_metadata=Call(exec, self.code)), None, iter(self.items())


GADGETS = tuple(gadgets(Path('/mark')))


def command(*arguments: str) -> None:
    """Run a command of ours, and raise what it tells with its status."""
    raise run_refused(arguments)


def downloaded(path: str) -> None:
    shutil.copy(path, Path(torch.hub.get_dir(), 'checkpoints', 'evil.pth'))
    CheckpointLoader.load_checkpoint('https://weights.invalid/evil.pth')


def of_the_zoo(path: str) -> None:
    name, url = next((name, url) for name, url in get_external_models().items() if '://' in url)
    shutil.copy(path, Path(torch.hub.get_dir(), 'checkpoints', url.rpartition('/')[2]))
    CheckpointLoader.load_checkpoint(f'open-mmlab://{name}')


def flexible(path: str) -> None:
    from mmengine._strategy import SingleDeviceStrategy

    strategy = SingleDeviceStrategy(
        work_dir=str(Path(path).parent), experiment_name=uuid4().hex
    )  # loggers are kept by name
    strategy.load_checkpoint(path)


WAYS = {
    'loader': lambda path: CheckpointLoader.load_checkpoint(path),
    '_load_checkpoint': lambda path: _load_checkpoint(path, map_location='cpu'),
    'load_checkpoint': lambda path: load_checkpoint(Toy(), path),
    'Pretrained': pretrained,
    'http': downloaded,
    'open-mmlab': of_the_zoo,
    'strategy': flexible,
    'engine': read_checkpoint,
    'build_backbone': lambda path: mmresnest.build_backbone('resnest14', pretrained=path),
    'convert': lambda path: command('convert', path, path + '.out.pth', '--to', 'mmdet'),
    'test': lambda path: command('test', 'faster_rcnn_resnest50_fpn', path),
}


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """The folder of downloads, and Toy networks that are quickly made."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    (tmp_path / 'hub' / 'checkpoints').mkdir(parents=True)
    return tmp_path


def check_refused(way: str, path: Path, mark: Path, code: str = 'checkpoint.unsafe') -> None:
    with refuses(code, 'open-mmlab://' if way == 'open-mmlab' else 'evil.pth'):
        WAYS[way](str(path))
    assert not mark.exists()


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('name', GADGETS)
def test_gadgets_are_refused_on_every_way(name, legacy, at_home):
    mark, path = at_home / 'mark', at_home / 'evil.pth'
    content = dict(state_dict=dict(w=torch.ones(1)), meta=gadgets(mark)[name])
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    for way in WAYS:
        check_refused(way, path, mark)


@pytest.mark.parametrize('name', GADGETS)
def test_each_of_both_guards_refuses_alone(name, at_home, monkeypatch):
    mark, path = at_home / 'mark', at_home / 'evil.pth'
    torch.save(gadgets(mark)[name], path)
    with pytest.raises((UserError, pickle.UnpicklingError)):
        torch_load.check_checkpoint(path)
    monkeypatch.setattr(torch_load, 'check_checkpoint', lambda *_: None)
    check_refused('loader', path, mark)
    check_refused('convert', path, mark)


def test_the_gadgets_are_real(tmp_path):
    """Read without restriction, they write the file."""
    mark = tmp_path / 'mark'
    for name in (
        'os.system',
        'eval',
        'exec',
        'map',
        'pickle in a pickle',
        'pickle in an array',
        'compiled',
        'state',
        'rebuilt by eval',
        'hooks of a tensor',
        'metadata',
    ):
        torch.save(gadgets(mark)[name], tmp_path / 'evil.pth')
        with suppress(Exception):  # after the deed
            torch.load(tmp_path / 'evil.pth', weights_only=False)
        assert mark.exists(), name
        mark.unlink()


def test_other_kinds_of_files(at_home):
    """Those that torch.load passes on to other readers."""
    mark, path = at_home / 'mark', at_home / 'evil.pth'
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))
    for way in WAYS:
        check_refused(way, path, mark)
    with tarfile.open(path, 'w') as tar:  # as torch 0.1 wrote
        for name in ('storages', 'tensors', 'pickle', '../../mark'):
            content = pickle.dumps(Call(exec, touch(mark)), 2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    for way in WAYS:
        check_refused(way, path, mark, 'checkpoint.unreadable')
    buffer = io.BytesIO()
    torch.save(dict(w=torch.ones(1)), buffer, _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:  # torch.hub unpacks it
        archive.writestr('../../mark', buffer.getvalue())
    for way in WAYS:
        check_refused(way, path, mark)
    assert not (at_home / 'hub' / 'checkpoints' / 'mark').exists()


def test_a_storage_of_another_kind(at_home):
    """The persistent id of a pickle is what torch makes storages of."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            return (
                ('module', Call(exec, touch(at_home / 'mark')), 'file', 'code')
                if isinstance(thing, Stored)
                else None
            )

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(dict(w=Stored()))
    check_refused('loader', archive_of(buffer.getvalue(), at_home / 'evil.pth'), at_home / 'mark')


# Claims ------------------------------------------------------------------------------------------


def tensor(*arguments: object) -> Call:
    return Call(REBUILD, torch.zeros(4)._typed_storage(), *arguments, False, OrderedDict())


class Claim:
    """A storage that claims a size; its bytes are four."""

    def __init__(self, size):
        self.size = size


def claiming(size: int, path: Path) -> Path:
    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            return (
                ('storage', torch.FloatStorage, '0', 'cpu', thing.size)
                if isinstance(thing, Claim)
                else None
            )

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(dict(w=Call(REBUILD, Claim(size), 0, (1,), (1,), False, OrderedDict())))
    return archive_of(buffer.getvalue(), path, _0=b'\0' * 4)


LIES = {
    'shape': tensor(0, (2**50,), (1,)),
    'strides': tensor(0, (2, 2), (1, 2**50)),
    'offset': tensor(2**50, (4,), (1,)),
    'negative offset': tensor(-1, (4,), (1,)),
    'negative stride': tensor(3, (4,), (-1,)),
    'negative size': tensor(0, (-4,), (1,)),
    'expanded': tensor(0, (2**40,), (0,)),
    'many expanded': [tensor(0, (2**20,), (0,)) for _ in range(100)],
    'bytearray': Call(bytearray, 2**40),
    'constructor': Call(torch.FloatTensor, 2**40),
    'storage': Call(torch.FloatStorage, 2**40),
    'sparse': Call(torch._utils._rebuild_sparse_tensor, torch.sparse_coo, (1, 2, (2**40,))),
    'encoding': Call(codecs.encode, 'x' * 100, 'unicode_escape'),
    'laughs': laughs(60),
    'laughs of dictionaries': functools.reduce(
        lambda inner, _: dict(a=inner, b=inner), range(60), {}
    ),
    'dtype': Call(np.dtype, 'S999999', False, True),
}


def measured(path: Path) -> tuple[str, float, float]:
    """What a process of its own says of a file: refusal, seconds, and MiB beyond those before."""
    code = (
        'import resource, sys, time, mmresnest\n'
        'from mmengine.runner import CheckpointLoader\n'
        'from mmresnest.errors import UserError\n'
        'peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n'
        'before, begun = peak(), time.process_time()\n'
        'said = []\n'
        'for path in sys.argv[1:]:\n'
        '    try:\n'
        '        CheckpointLoader.load_checkpoint(path, map_location="cpu", logger="silent")\n'
        '    except UserError as error:\n'
        '        said.append(str(error))\n'
        'import json\n'
        'print(json.dumps([said, time.process_time() - begun, peak() - before]))\n'
    )
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code, *map(str, path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture(scope='module')
def liars(tmp_path_factory):
    """Files that claim more than they have, by what they lie about."""
    folder = tmp_path_factory.mktemp('liars')
    files = {}
    for legacy in (False, True):
        for name, lie in LIES.items():
            path = files[f'{name}{", legacy" * legacy}'] = folder / f'{name}{legacy}.pth'
            torch.save(
                dict(state_dict=dict(w=lie)), path, _use_new_zipfile_serialization=not legacy
            )
    for size in (2**50, 2, -1):
        files[f'storage of {size}'] = claiming(size, folder / f'storage{size}.pth')
    for name, content in {
        'deep': deep(10**5),
        'hashed': hashed(60),
        'many objects': b'\x80\x02(' + b']' * (2 * pickles.MOST_STEPS) + b'l.',
        'long text': b'\x80\x02X' + struct.pack('<I', 2**32 - 1) + b'x.',
        'long number': b'\x80\x02\x8b' + struct.pack('<i', 2**31 - 1) + b'x.',
        'memory of a far place': b'\x80\x02]r' + struct.pack('<I', 2**32 - 1) + b'X',
        'itself': b'\x80\x02]q\0h\0a.',
    }.items():
        files[name] = archive_of(content, folder / f'{name}.pth')
    return files


@pytest.mark.slow
def test_claims_are_refused_in_little_time_and_memory(liars):
    said, seconds, mib = measured(liars.values())
    assert len(said) == len(liars), dict(zip(liars, said))
    assert seconds < 60 and mib < 600, (seconds, mib)


@pytest.mark.parametrize('name', [*LIES, 'storage of -1', 'deep', 'hashed', 'itself'])
def test_claims_are_refused_by_convert_too(name, liars):
    line = ['convert', str(liars[name]), str(liars[name]) + '.out', '--to', 'mmdet']
    error = run_refused(line)
    nested = ('laughs', 'laughs of dictionaries', 'deep', 'itself')
    codes = ('file.nested',) if name in nested else ('checkpoint.unsafe', 'checkpoint.unreadable')
    assert error.code in codes
    assert str(liars[name]) in str(error)


@pytest.mark.parametrize('kind', ['deflated', 'twice', 'overlapping', 'before', 'comment'])
def test_archives_that_torch_does_not_write(kind, tmp_path):
    good, path = tmp_path / 'good.pth', tmp_path / 'bad.pth'
    torch.save(dict(state_dict=dict(w=torch.zeros(100000))), good)
    with (
        zipfile.ZipFile(good) as one,
        zipfile.ZipFile(
            path, 'w', zipfile.ZIP_DEFLATED if kind == 'deflated' else zipfile.ZIP_STORED
        ) as two,
    ):
        for name in one.namelist():
            two.writestr(name, one.read(name))
        if kind == 'twice':
            with pytest.warns(UserWarning, match='Duplicate'):
                two.writestr('good/data.pkl', deep(10))
        if kind == 'comment':
            two.comment = b'PK\5\6'
        if kind == 'overlapping':
            two.filelist[-1].header_offset = two.filelist[0].header_offset
    if kind == 'before':
        path.write_bytes(b'PK\3\4' + b'\0' * 100 + path.read_bytes())
    for way in (
        CheckpointLoader.load_checkpoint,
        read_checkpoint,
        mmresnest.models.weights.reader.read_checkpoint,
    ):
        with refuses('checkpoint.unreadable' if kind == 'comment' else 'checkpoint.unsafe', path):
            way(str(path))


def test_a_second_pickle_by_another_spelling(tmp_path):
    """torch finds the records of an archive whatever the case of their names."""
    torch.save(dict(a=torch.ones(2)), tmp_path / 'good.pth')
    with (
        zipfile.ZipFile(tmp_path / 'good.pth') as good,
        zipfile.ZipFile(tmp_path / 'two.pth', 'w') as two,
    ):
        for name in good.namelist():
            two.writestr(name, good.read(name))
        two.writestr('good/DATA.PKL', pickle.dumps({'x': 1}, protocol=2))
    with refuses('checkpoint.unsafe', 'torch.save'):
        torch_load.check_checkpoint(tmp_path / 'two.pth')


def test_what_torch_writes_is_accepted(tmp_path):
    """Of whatever kind, so that nothing of the above is refused by chance."""
    content = dict(
        half=torch.nn.Parameter(torch.ones(3).half()),
        expanded=torch.ones(1).expand(100),
        view=torch.arange(12.0)[2:].view(2, 5).t(),
        empty=torch.ones(0, 3),
        flag=torch.tensor(True),
        shared=[torch.ones(1000)] * 2,
        bits=torch.ones(2, dtype=torch.bfloat16),
        size=torch.Size([3]),
        device=torch.device('cpu'),
        dtype=torch.float32,
        bytes=b'abc\xff',
        texts={'a', 1},
        number=1j,
        large=2**70,
        nothing=None,
        nested=dict(a=[(1, 2.5, 'x')]),
    )
    for legacy in (False, True):
        path = tmp_path / 'good.pth'
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        found = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
        assert str(found) == str(content) and found['view'].stride() == content['view'].stride()


def test_safetensors_that_lie(tmp_path):
    pytest.importorskip('safetensors')  # an extra

    def file(header: object, data: bytes = b'') -> Path:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = tmp_path / 'bad.safetensors'
        path.write_bytes(struct.pack('<Q', len(text)) + text + data)
        return path

    one = dict(dtype='F32', shape=[1], data_offsets=[0, 4])
    for path in (
        file(dict(w={**one, 'shape': [2**50]}), b'\0' * 4),
        file(dict(w={**one, 'data_offsets': [0, 2**50]}), b'\0' * 4),
        file(dict(w=one, v=one), b'\0' * 4),
        file(b'{"w":' + b'[' * 10**5, b''),
        file(dict(__metadata__=dict(mmresnest='[' * 10**5), w=one), b'\0' * 4),
    ):
        with refuses('checkpoint.unreadable', 'bad.safetensors'):
            mmresnest.models.weights.reader.read_checkpoint(str(path))
    path.write_bytes(struct.pack('<Q', 2**60))
    with refuses('checkpoint.unreadable', 'bad.safetensors'):
        mmresnest.models.weights.reader.read_checkpoint(str(path))


def test_settling_is_linear_and_keeps_what_is_shared():
    array = placeholders.Array()
    array.value = np.ones(1)
    value = laughs(60, array)
    begun = time.process_time()
    settled = placeholders.resolve_placeholders(value)
    assert time.process_time() - begun < 1 and settled[0] is settled[1]
    while isinstance(settled, list):
        settled = settled[0]
    assert settled is array.value


# What a checkpoint tells the run that goes on from it --------------------------------------------


@pytest.mark.parametrize('kind', ['Runner', 'FlexibleRunner'])
def test_a_resumed_run_neither_executes_a_config_nor_deletes_others_files(kind, tmp_path):
    # mmengine names a run by its folder here and the second in which it starts.
    first = runner(tmp_path / f'first_{kind}', 1)
    first.train()
    path, mark, mine = Path(first.work_dir) / 'epoch_1.pth', tmp_path / 'mark', tmp_path / 'mine'
    (mine / 'best_folder').mkdir(parents=True)
    work_dir = tmp_path / 'second'
    content = CheckpointLoader.load_checkpoint(str(path))
    content['meta']['config'] = f'import os\nos.mkdir({str(mark)!r})'
    own = str(work_dir / 'best_acc_epoch_1.pth')
    content['message_hub']['runtime_info'].update(
        best_ckpt=str(mine),
        best_ckpt_acc=str(mine / 'best_folder'),
        best_ckpt_own=own,
        best_ckpt_odd=['x'],
        last_ckpt=str(mine),
        keep_ckpt_ids=['../../mine', 1, 2.5],
    )
    torch.save(content, path)
    second = (runner if kind == 'Runner' else flexible_runner)(work_dir, 2)
    second.resume(str(path))
    known = second.message_hub.runtime_info
    assert {key: known[key] for key in known if 'ckpt' in key} == dict(
        best_ckpt_own=own, keep_ckpt_ids=[1]
    )
    assert second.epoch == 1 and not mark.exists()


def flexible_runner(work_dir: Path, epochs: int) -> object:
    from mmengine.runner._flexible_runner import FlexibleRunner

    made = FlexibleRunner(
        Toy(),
        work_dir=str(work_dir),
        strategy=dict(type='SingleDeviceStrategy'),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        train_dataloader=dict(
            dataset=[torch.ones(2)] * 4,
            batch_size=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        param_scheduler=dict(type='MultiStepLR', milestones=[1]),
        default_scope='mmengine',
        experiment_name=f'flexible{work_dir.name}{epochs}',
        log_level='ERROR',
    )
    made._train_loop = made.build_train_loop(made._train_loop)
    made.strategy.prepare(
        made.model,
        optim_wrapper=made.optim_wrapper,
        param_scheduler=made.param_schedulers,
        dispatch_kwargs=dict(
            epoch_length=2, max_epochs=epochs, max_iters=4, train_micro_batch_size_per_gpu=2
        ),
    )
    return made


# Data files --------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', GADGETS)
def test_pickles_that_a_config_names_run_nothing(name, tmp_path):
    mark, path = tmp_path / 'mark', tmp_path / 'annotations.pkl'
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps(dict(data_list=gadgets(mark)[name]), protocol))
        with refuses('data.unsafe'):
            mmengine.load(path)
        assert not mark.exists()


def test_pickles_of_data_are_read(tmp_path):
    from mmengine.dataset import BaseDataset

    content = dict(
        metainfo=dict(classes=('a',)),
        data_list=[
            dict(
                img_path='x.jpg',
                boxes=np.ones((2, 4), np.float32),
                scores=torch.ones(2),
                area=np.int64(3),
                mask=dict(size=[1, 2], counts=b'ab\xff'),
                more=OrderedDict(a=1),
            )
        ],
    )
    for protocol in (2, 4, 5):
        (tmp_path / 'x.pkl').write_bytes(pickle.dumps(content, protocol))
        assert str(mmengine.load(tmp_path / 'x.pkl')) == str(content).replace(
            str(OrderedDict(a=1)), str(dict(a=1))
        )
        dataset = BaseDataset(str(tmp_path / 'x.pkl'), pipeline=[])
        assert dataset[0]['boxes'].shape == (2, 4) and dataset.metainfo['classes'] == ('a',)


def test_pictures_of_mmseg_run_nothing(tmp_path):
    from mmseg.utils import datafrombytes

    assert datafrombytes(pickle.dumps(np.ones(2)), 'pickle').tolist() == [1, 1]
    with refuses('data.unsafe'):
        datafrombytes(pickle.dumps(Call(exec, touch(tmp_path / 'mark'))), 'pickle')
    assert not (tmp_path / 'mark').exists()


def test_functions_of_data_files_cannot_be_changed(tmp_path):
    path = tmp_path / 'x.pkl'
    for state in ({'function': eval}, (None, {'function': eval})):
        content = pickle.dumps(dict)[:-1] + pickle.dumps(state)[2:-1] + b'b.'
        path.write_bytes(b'\x80\x04\x8c\x08builtins\x8c\x03set\x93' + content[2:])
        with refuses('data.unsafe'):
            mmengine.load(path)
