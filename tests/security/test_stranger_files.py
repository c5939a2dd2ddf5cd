"""Files of strangers that lie about what they hold: one message, in little time and memory."""

import functools
import io
import json
import pickle
import struct
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
import yaml
from helpers import noisy
from helpers.errors import check_refused, refuses
from helpers.pickled import REBUILD, Call, archive_of, deep, hashed, laughs, runner
from mmengine.runner import CheckpointLoader

import mmresnest
from mmresnest.data.checks.coco import leads_out
from mmresnest.engine.checkpoints import read_checkpoint
from mmresnest.security import data_files, pickles, torch_load
from mmresnest.security.resume import RECORD_CHECKS, check_record
from mmresnest.utils.text import printable


def calls(name: bytes, argument: bytes, times: int) -> bytes:
    """A list of that many calls of one function with one argument, which is written once."""
    module, function = name.split(b' ')
    once = b'c' + module + b'\n' + function + b'\nq\1' + argument + b'q\2'
    return b'\x80\x02](' + once + b'h\1h\2\x85R' * times + b'e.'


def long_list(count: int) -> bytes:
    return b'](' + b'K\1' * count + b'e'


SIZE = 10**5
AMPLIFIED = {
    'sizes': calls(b'torch Size', long_list(SIZE), SIZE),
    'sets': calls(b'__builtin__ set', long_list(SIZE), SIZE),
    'dictionaries': calls(b'collections OrderedDict', b'](' + b'K\1K\1\x86' * SIZE + b'e', SIZE),
    'parameters of a text': calls(
        b'torch device', b'X' + struct.pack('<I', SIZE) + b'a' * SIZE, SIZE
    ),
}


@pytest.mark.parametrize('name', AMPLIFIED)
def test_a_part_that_is_copied_without_end_is_refused(name, tmp_path):
    """Each call takes five bytes of the file, and as much memory as the part that all share."""
    begun = time.process_time()
    path = archive_of(AMPLIFIED[name], tmp_path / 'many.pth')
    with refuses('checkpoint.unsafe', path):
        torch_load.check_checkpoint(path)
    if name != 'sizes':  # which no data file may name
        (tmp_path / 'many.pkl').write_bytes(AMPLIFIED[name])
        with refuses('data.unsafe', '.json'):
            mmengine.load(tmp_path / 'many.pkl')
    assert time.process_time() - begun < 60


def array(data: bytes, shape: tuple, code: str = 'f4') -> Call:
    from numpy.core import multiarray

    class Array:
        def __reduce__(self):
            state = (1, shape, np.dtype(code), False, data)
            return multiarray._reconstruct, (np.ndarray, (0,), b'b'), state

    return Array()


TENSOR = torch.zeros(4)
DATA_LIES = {
    'memory of a far place': b'\x80\x02]r' + struct.pack('<I', 2**32 - 1) + b'X',
    'long text': b'\x80\x04\x8d' + struct.pack('<Q', 2**40) + b'x.',
    'long bytes': b'\x80\x04\x8e' + struct.pack('<Q', 2**40) + b'x.',
    'long array': b'\x80\x05\x96' + struct.pack('<Q', 2**40) + b'x.',
    'long frame': b'\x80\x04\x95' + struct.pack('<Q', 2**62) + b'N',
    'deep': deep(10**5),
    'hashed': hashed(60),
    'itself': b'\x80\x02]q\0h\0a.',
    'laughs': pickle.dumps(laughs(60), 2),
    'laughs of dictionaries': pickle.dumps(
        functools.reduce(lambda inner, _: dict(a=inner, b=inner), range(60), {}), 4
    ),
    'shape of an array': pickle.dumps(array(b'\0' * 16, (2**40,)), 2),
    'shared bytes': pickle.dumps(
        [array(part, (10**6,), 'u1') for part in [b'\0' * 10**6] * 999], 2
    ),
    'shape of a tensor': pickle.dumps(
        Call(REBUILD, TENSOR._typed_storage(), 0, (2**40,), (1,), False, OrderedDict()), 2
    ),
    'strides of a tensor': pickle.dumps(
        Call(REBUILD, TENSOR._typed_storage(), 0, (2, 2), (1, 2**40), False, OrderedDict()), 2
    ),
    'expanded': pickle.dumps(
        Call(REBUILD, TENSOR._typed_storage(), 0, (2**40,), (0,), False, OrderedDict()), 2
    ),
    'name that is not called': pickle.dumps([print, np.ndarray], 2),
    'name of the list that is not called': b'\x80\x02cnumpy\nndarray\n.',
    'cut short': pickle.dumps(dict(a=[1] * 100), 4)[:-20],
    'no pickle': b'\xff\xd8\xff\xe0 an image',
    'nothing': b'',
}


def test_data_files_pass_the_judgement_of_checkpoints(tmp_path):
    for number, content in enumerate(DATA_LIES.values()):
        (tmp_path / f'{number:02}.pkl').write_bytes(content)
    code = (
        'import json, resource, sys, time, mmengine, torch, numpy, mmresnest\n'
        'from mmresnest.errors import UserError\n'
        'peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n'
        'before, begun, found = peak(), time.process_time(), {}\n'
        'for path in sys.argv[1:]:\n'
        '    try:\n'
        '        mmengine.load(path)\n'
        '    except UserError as error:\n'
        '        found[path] = error.code\n'
        'print(json.dumps([found, time.process_time() - begun, peak() - before]))\n'
    )
    files = sorted(map(str, tmp_path.glob('*.pkl')))
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code, *files],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    found, seconds, mib = json.loads(run.stdout.splitlines()[-1])
    accepted = [name for name, path in zip(DATA_LIES, files) if path not in found]
    assert accepted == []
    assert set(found.values()) == {'data.unsafe', 'data.unreadable', 'file.nested'}
    assert seconds < 60 and mib < 600, (seconds, mib)


def test_data_of_all_protocols_is_read_as_pickle_reads_it(tmp_path):
    content = dict(
        text=['a', 'ü' * 300, ''],
        bytes=[b'', b'\xff' * 300],
        numbers=[0, -1, 255, 65536, 2**70, -(2**70), 2**2100, 1.5, float('inf'), True, None],
        nested=[(), (1,), (1, 2, 3, 4), [], {}, {'a': {(1, 'b'): {1, 'c'}}}],
        shared=[[1]] * 3,
        arrays=[np.arange(6.0).reshape(2, 3), np.zeros((0, 4), '>i2'), np.array(['ab', 'c'])],
        scalars=[np.float32(1.5), np.int64(3), np.bool_(True)],
        keys={np.int64(3): 1, None: 2, 1.5: 3},
        tensors=[torch.arange(6).view(2, 3).t(), torch.ones(2)[1:], torch.tensor(True)],
    )
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / 'x.pkl'
        path.write_bytes(pickle.dumps(content, protocol))
        found = mmengine.load(path)
        assert repr(found) == repr(content)
        assert found['shared'][0] is found['shared'][1]


def test_arrays_of_openimages_are_read_as_data(tmp_path, monkeypatch):
    from mmdet.datasets import OpenImagesChallengeDataset, openimages

    marked = pickle.dumps(Call(exec, f'open({str(tmp_path / "mark")!r}, "w").close()'))
    path = tmp_path / 'hierarchy.np'
    dataset = OpenImagesChallengeDataset.__new__(OpenImagesChallengeDataset)
    dataset.backend_args = None
    objects = io.BytesIO()
    np.save(objects, np.array([None]), allow_pickle=True)
    header = objects.getvalue()[: -len(pickle.dumps(np.array([None]), 3))]
    open_bracket = b'\x93NUMPY\1\0\14\0' + b"{'descr': [\n"
    for content in (marked, header + marked, open_bracket, b'\x93NUMPY', b'PK\3\4', b''):
        path.write_bytes(content)
        with refuses('data.unsafe' if content is marked else 'data.unreadable', path):
            dataset._get_relation_matrix(str(path))
    assert not (tmp_path / 'mark').exists()
    with open(path, 'wb') as file:
        np.save(file, np.eye(3))
    assert dataset._get_relation_matrix(str(path)).tolist() == [[1, 0], [0, 1]]
    path.write_bytes(pickle.dumps(np.eye(3)))
    assert dataset._get_relation_matrix(str(path)).tolist() == [[1, 0], [0, 1]]
    assert openimages.np.zeros is np.zeros


# A tensor of one element more than its storage has: judged here, before torch may resize it.


class Claimed:
    """A storage that claims a number of elements."""

    def __init__(self, count: int) -> None:
        self.count = count


def checkpoint_of(count: int, tensor: tuple, path: Path, held: int = 8) -> Path:
    """A checkpoint of one tensor (offset, size, stride) on a storage that claims ``count``."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            if isinstance(thing, Claimed):
                return 'storage', torch.FloatStorage, '0', 'cpu', thing.count
            return None

    buffer = io.BytesIO()
    weight = Call(REBUILD, Claimed(count), *tensor, False, OrderedDict())
    Pickler(buffer, 2).dump(dict(w=weight))
    return archive_of(buffer.getvalue(), path, _0=b'\0' * 4 * held)


@pytest.mark.parametrize(
    ('tensor', 'fits'),
    [
        ((0, (8,), (1,)), True),
        ((0, (9,), (1,)), False),
        ((1, (8,), (1,)), False),
        ((1, (7,), (1,)), True),
        ((7, (), ()), True),
        ((8, (), ()), False),
        ((0, (2, 4), (4, 1)), True),
        ((0, (2, 4), (5, 1)), False),
        ((0, (4, 2), (1, 4)), True),
        ((1, (4, 2), (1, 4)), False),
        ((0, (2, 4), (4, 0)), True),
        ((8, (0,), (1,)), True),
    ],
)
def test_a_tensor_has_no_element_more_than_its_storage(tensor, fits, tmp_path):
    path = checkpoint_of(8, tensor, tmp_path / 'w.pth')
    if fits:
        torch_load.check_checkpoint(path)
        assert CheckpointLoader.load_checkpoint(str(path))['w'].shape == tensor[1]
    else:
        with refuses('checkpoint.unsafe', path, f'{tensor[1]}', f'{tensor[2]}', '32 bytes'):
            torch_load.check_checkpoint(path)


def test_a_storage_has_no_element_more_than_its_record(tmp_path):
    torch_load.check_checkpoint(checkpoint_of(8, (0, (8,), (1,)), tmp_path / 'w.pth'))
    path = checkpoint_of(9, (0, (8,), (1,)), tmp_path / 'w.pth')
    with refuses('checkpoint.unsafe', path, "'0'", '36 bytes', 32):
        torch_load.check_checkpoint(path)


def test_a_file_without_archive_has_no_byte_less_than_its_storages(tmp_path):
    path = tmp_path / 'w.pth'
    torch.save(dict(w=torch.ones(8)), path, _use_new_zipfile_serialization=False)
    torch_load.check_checkpoint(path)
    content = path.read_bytes()
    # the numbers of elements stand before each storage, as 8 bytes, beside what is counted
    path.write_bytes(content[:-9])
    with refuses('checkpoint.unsafe', path, '31 bytes', 32):
        torch_load.check_checkpoint(path)


def test_parts_of_storages_lie_within_them(tmp_path):
    reader = pickles.SafeUnpickler(io.BytesIO(), 0, 0, 'x', pickles.CHECKPOINTS)

    def part(offset: int, count: int) -> tuple:
        kind = pickles._Name('torch.FloatStorage')
        return 'storage', kind, '0', 'cpu', 8, ('1', offset, count)

    assert reader.persistent_load(part(2, 6)).size == 24
    for offset, count in ((2, 7), (8, 1), (-1, 2), (0, -1)):
        with refuses('checkpoint.unsafe', "storage '0'"):
            reader.persistent_load(part(offset, count))


def test_what_may_be_copied_is_counted_to_the_byte():
    reader = pickles.SafeUnpickler(io.BytesIO(), 0, 100, 'x', pickles.CHECKPOINTS)
    reader.spend(pickles.SHARED * 100 + pickles.SPARE)
    with refuses('checkpoint.unsafe', 'x'):
        reader.spend(1)


METADATA = {
    'a list': [1],
    'a text': 'x',
    'modules that are texts': {'': 'x'},
    'modules that are none': {'': None},
    'versions that are texts': {'': {'version': 'x'}},
    'versions that are tensors': {'': {'version': torch.ones(2)}},
}


@pytest.mark.parametrize('name', METADATA)
def test_metadata_of_other_types_is_one_message(name, tmp_path, capsys):
    weights = OrderedDict(mmresnest.build_backbone('resnest14').state_dict())
    weights._metadata = METADATA[name]
    path = tmp_path / 'x.pth'
    torch.save(weights, path)
    for way in (
        lambda: CheckpointLoader.load_checkpoint(str(path)),
        lambda: mmresnest.build_backbone('resnest14', pretrained=str(path)),
        lambda: read_checkpoint(path),
    ):
        with refuses('checkpoint.unreadable', path, '_metadata'):
            way()


def test_notes_of_other_types_are_no_notes(tmp_path):
    for note in ([1], 'x', {'mmresnest': [1]}, {'mmresnest': {'ceil_pool': torch.ones(2)}}):
        weights = mmresnest.build_backbone('resnest14').state_dict()
        weights._metadata[''] = note if isinstance(note, dict) else {'mmresnest': note}
        torch.save(weights, tmp_path / 'x.pth')
        read = mmresnest.build_backbone('resnest14', pretrained=str(tmp_path / 'x.pth'))
        assert all(torch.equal(read.state_dict()[key], weights[key]) for key in weights)


@pytest.mark.parametrize(
    'content',
    [
        {'state_dict': {1: torch.ones(1)}},
        {'meta': [1]},
        {'meta': {'dataset_meta': [1]}},
        {'meta': {'dataset_meta': {'classes': 5}}},
        {'meta': {'dataset_meta': {'classes': [[1]]}}},
        {'meta': {'CLASSES': {'a': 1}}},
    ],
)
def test_entries_of_other_types_are_one_message(content, tmp_path):
    path = tmp_path / 'x.pth'
    torch.save({'state_dict': {'w': torch.ones(1)}, **content}, path)
    with refuses('checkpoint.unreadable', path, next(iter(content))):
        read_checkpoint(path)


GOOD_RECORD = dict(
    seed=1,
    sampler_seed=None,
    batch=0,
    scored_at=-1,
    processes=[{}],
    hooks=[dict(wait_count=0, best_score=0.5)],
    world_size=1,
    batch_size=2,
    data={'a': 'b'},
    settings={'model.type': "'X'"},
    schedule={},
    images='ab',
    written=1.5,
    threads=2,
)


def test_the_record_of_a_run_that_is_resumed():
    assert GOOD_RECORD.keys() == RECORD_CHECKS.keys()
    check_record(GOOD_RECORD)
    check_record({name: GOOD_RECORD[name] for name in list(GOOD_RECORD)[:-3]})  # of version 0.1
    for name in GOOD_RECORD:
        for value in ('x' if name != 'images' else 1, [[1]], -2, 2**40, None, {'a': [1]}):
            legal = (name, value) in (('sampler_seed', None), ('batch_size', None))
            legal = legal or (name == 'written' and isinstance(value, int))
            if not legal:
                with pytest.raises(ValueError, match=name):
                    check_record({**GOOD_RECORD, name: value})


def spoil(path: Path, entries: dict[str, object]) -> None:
    """Give a checkpoint other entries: ``meta__epoch`` is that of ``meta``."""
    content = torch.load(path, weights_only=False)
    for key, value in entries.items():
        *outer, name = key.split('__')
        owner = content[outer[0]] if outer else content
        owner[name] = value
    torch.save(content, path)


SPOILT = {
    'epoch of text': dict(meta__epoch='x'),
    'epoch of a list': dict(meta__epoch=[1]),
    'negative epoch': dict(meta__epoch=-1),
    'endless iteration': dict(meta__iter=2**60),
    'iteration of a fraction': dict(meta__iter=1.5),
    'seed of text': dict(meta__seed='x'),
    'no meta': dict(meta={}),
    'messages of text': dict(message_hub='x'),
    'logs of lists': dict(message_hub=dict(log_scalars=[1], runtime_info={}, resumed_keys={})),
    'optimizer of text': dict(optimizer='x'),
    'optimizer of another network': dict(optimizer=dict(state={}, param_groups=[])),
    'schedule of text': dict(param_schedulers='x'),
    'schedules of numbers': dict(param_schedulers=[1]),
}


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A checkpoint of a training of one epoch."""
    folder = tmp_path_factory.mktemp('saved')
    runner(folder, 1).train()
    return folder / 'epoch_1.pth'


@pytest.mark.parametrize('name', SPOILT)
def test_a_damaged_state_of_a_run_is_one_message(name, saved, tmp_path):
    path = tmp_path / 'x.pth'
    path.write_bytes(saved.read_bytes())
    spoil(path, SPOILT[name])
    begun = time.process_time()
    with refuses('resume.damaged', path):
        # mmengine keeps the seed in the default of an argument
        second = runner(tmp_path / name.replace(' ', '_'), 2, randomness=dict(seed=0))
        second.resume(str(path))
    assert time.process_time() - begun < 20


@pytest.fixture(scope='module')
def recorded(tmp_path_factory):
    """A checkpoint of a training with our loop."""
    folder = tmp_path_factory.mktemp('recorded')
    noisy.train(noisy.config(folder, epochs=1))
    return folder / 'iter_5.pth'


@pytest.mark.slow
@pytest.mark.parametrize(
    'spoilt',
    [
        dict(mmresnest__seed='x'),
        dict(mmresnest__batch=2**60),
        dict(mmresnest__processes=[dict(gradients=[torch.ones(7)] * 20)]),
        dict(mmresnest__processes=[dict(buffers=[torch.ones(7)] * 20)]),
        dict(mmresnest__settings=[1]),
        dict(mmresnest__hooks=[1]),
    ],
)
def test_a_damaged_record_of_a_run_is_one_message(spoilt, recorded, tmp_path):
    path = tmp_path / 'x.pth'
    path.write_bytes(recorded.read_bytes())
    spoil(path, spoilt)
    with refuses('resume.damaged'):
        noisy.train(noisy.config(tmp_path / 'run', epochs=2), resume=str(path))


CONTROLS = (
    '\x1b]0;title\x07',
    '\x1b[2J',
    '\x9b31m',
    'a\rb',
    '\u202egnp.exe',
    '\u2028',
    '\0',
    '\ud800',
)


@pytest.mark.parametrize('text', CONTROLS)
def test_control_characters_are_escaped(text):
    shown = printable(f'class {text}\n\tof ü 漢')
    assert all(char.isprintable() or char in '\n\t' for char in shown)
    assert shown.startswith('class ') and shown.endswith('\n\tof ü 漢') and '\\' in shown


def test_names_in_files_reach_neither_terminal_nor_log_raw(tmp_path, capsys):
    from mmengine.logging import MMLogger

    evil = '\x1b]0;owned\x07\x1b[2J'
    weights = {f'{evil}{number}': torch.ones(1) for number in range(3)}
    torch.save(weights, tmp_path / 'evil.pth')
    files = [str(tmp_path / 'evil.pth'), str(tmp_path / 'x.pth')]
    check_refused(['convert', *files, '--to', 'mmdet'], 'weights.unknown-keys', files[0])
    check_refused(['print-config', evil], 'config.missing', evil)
    said = capsys.readouterr()
    assert '\x1b' not in said.out + said.err and '\\x1b' in said.err
    logger = MMLogger('evil', 'evil', log_file=str(tmp_path / 'x.log'))
    logger.info('read %s', evil)
    logger.warning(f'100% of {evil}')
    for handler in logger.handlers:
        handler.close()
    written = (tmp_path / 'x.log').read_text()
    assert '\x1b' not in written and written.count('owned\\x07\\x1b[2J') == 2
    assert '100% of ' in written


@pytest.mark.parametrize(
    ('name', 'outside'),
    [
        ('a.jpg', False),
        ('a/b.jpg', False),
        ('..a/b..jpg', False),
        ('a...jpg', False),
        ('/a.jpg', True),
        ('\\a.jpg', True),
        ('C:\\a.jpg', True),
        ('c:/a.jpg', True),
        ('../a.jpg', True),
        ('a/../../b', True),
        ('a/b/..\\..\\..\\c', True),
        ('a/..', True),
    ],
)
def test_names_that_lead_out_of_the_folder_of_images(name, outside):
    assert leads_out(name) is outside


def test_yaml_of_data_is_read_by_the_safe_loader(tmp_path):
    path = tmp_path / 'x.yml'
    path.write_text('a: !!python/tuple [1, 2]\nb: [1.5, x]\n')
    assert mmengine.load(path) == dict(a=(1, 2), b=[1.5, 'x'])
    assert data_files.safe_yaml_loader(yaml).yaml_constructors.keys() >= {
        'tag:yaml.org,2002:python/tuple'
    }
