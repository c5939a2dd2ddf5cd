"""Checkpoints: whole or not there, the old one kept until the new one is."""

import errno
import hashlib
import os
import random
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers import noisy
from helpers.errors import refuses
from mmengine.config import Config

from mmresnest.config.defaults import configure_safety
from mmresnest.engine import checkpoints
from mmresnest.utils import files

# Writing --------------------------------------------------------------------------------------


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_and_its_hash(tmp_path):
    file = tmp_path / 'new' / 'a.pth'
    files.write_hashed(file, lambda out: torch.save(dict(a=torch.arange(9)), out))
    assert torch.equal(torch.load(file)['a'], torch.arange(9)) and files.integrity_error(file) == ''
    digest, name = (tmp_path / 'new' / 'a.pth.sha256').read_text().split()
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest() and name == 'a.pth'
    assert sorted(path.name for path in file.parent.iterdir()) == ['a.pth', 'a.pth.sha256']


@pytest.mark.parametrize('fails', ['write', 'later', 'fsync', 'read back', 'replace'])
def test_what_fails_leaves_the_old_file(fails, tmp_path, monkeypatch):
    file = tmp_path / 'a.pth'
    files.write_hashed(file, lambda out: out.write(b'old'))
    before = contents(tmp_path)

    def full(*_):
        raise OSError(28, 'No space left on device')

    def write(out):
        if fails == 'write':
            full()
        out.write(b'new')
        if fails == 'later':
            out.file = open('/dev/full', 'wb', buffering=0)  # what torch writes last fails
        out.write(b'er')

    if fails == 'fsync':
        monkeypatch.setattr(os, 'fsync', full)
    if fails == 'read back':
        monkeypatch.setattr(files, 'sha256_of', lambda _: 'other')
    if fails == 'replace':
        monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError) as caught:
        files.write_hashed(file, write)
    assert caught.value.errno == (errno.EIO if fails == 'read back' else errno.ENOSPC)
    monkeypatch.undo()
    now = contents(tmp_path)
    assert now['a.pth'] == b'old' and files.integrity_error(file) in ('', 'it is cut off')
    if fails != 'replace':  # then the hash is gone; it is never that of another file
        assert now == before


@pytest.mark.slow
def test_saving_takes_no_second_copy_of_the_memory(tmp_path):
    script = f"""
import resource, torch
from mmresnest.utils.files import write_hashed
state = {{str(number): torch.ones(25 * 2 ** 20) for number in range(4)}}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_hashed({str(tmp_path / 'big.pth')!r}, lambda out: torch.save(state, out))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 40 * 1024  # KiB, for a checkpoint of 400 MiB


# Judging --------------------------------------------------------------------------------------


def checkpoint(path, hashed=True):
    state = dict(state_dict={name: torch.randn(30, 30) for name in 'abc'}, meta=dict(iter=1))
    files.write_hashed(path, lambda out: torch.save(state, out))
    if not hashed:
        files.hash_file(path).unlink()
    return path.read_bytes()


@pytest.mark.parametrize('hashed', [True, False])
def test_a_file_that_is_cut_off_anywhere(hashed, tmp_path):
    file, draw = tmp_path / 'a.pth', random.Random(0)
    whole = checkpoint(file, hashed)
    for length in [0, 1, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(17))]:
        file.write_bytes(whole[:length])
        assert files.integrity_error(file), length
    file.write_bytes(whole)
    assert files.integrity_error(file) == ''


@pytest.mark.parametrize('hashed', [True, False])
def test_a_file_with_flipped_bytes(hashed, tmp_path):
    file, draw = tmp_path / 'a.pth', random.Random(1)
    whole = checkpoint(file, hashed)
    for _ in range(20):
        # Without a hash, of weights alone: torch fills up with bytes that no checksum covers.
        at = draw.randrange(len(whole)) if hashed else whole.index(b'data/0') + 1000
        flipped = bytearray(whole)
        flipped[at] ^= 1 << draw.randrange(8)
        file.write_bytes(flipped)
        assert files.integrity_error(file)


def test_the_newest_whole_one_is_taken_and_the_others_are_named(tmp_path):
    for number in (1, 2, 3):
        checkpoint(tmp_path / f'epoch_{number}.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_4.pth'))
    (tmp_path / 'epoch_3.pth').write_bytes(b'PK')
    said = []
    assert checkpoints.find_last(tmp_path, said.append) == tmp_path / 'epoch_2.pth'
    assert len(said) == 2 and 'epoch_4.pth is passed over, it is not there' in said[0]
    assert 'epoch_3.pth is passed over, its sha256 is not that' in said[1]


def test_a_folder_that_was_moved(tmp_path):
    checkpoint(tmp_path / 'iter_5.pth')
    (tmp_path / 'last_checkpoint').write_text('/somewhere/else/iter_5.pth')
    assert checkpoints.find_last(tmp_path) == tmp_path / 'iter_5.pth'


# The hook -------------------------------------------------------------------------------------


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


def test_the_old_one_goes_when_the_new_one_is_there(tmp_path, monkeypatch):
    seen, write = [], files.write_hashed

    def watched(path, *rest):
        before = set(names(tmp_path))
        write(path, *rest)
        seen.append((before, set(names(tmp_path))))

    monkeypatch.setattr(files, 'write_hashed', watched)
    noisy.train(noisy.config(tmp_path, iterations=6, keep=1))
    assert len(seen) == 6
    for done, (before, after) in enumerate(seen, 1):
        assert before == ({f'iter_{done - 1}.pth'} if done > 1 else set())
        assert after == before | {f'iter_{done}.pth'}
    assert names(tmp_path) == ['iter_6.pth']
    assert sorted(path.name for path in tmp_path.glob('*.sha256')) == ['iter_6.pth.sha256']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_6.pth')


def best_of(folder, keep=2, **more):
    return noisy.config(
        folder,
        epochs=3,
        default_hooks=dict(
            checkpoint=dict(
                type='mmresnest.CheckpointHook',
                interval=1,
                max_keep_ckpts=keep,
                save_best='mean',
                rule='greater',
            )
        ),
        **more,
    )


def test_the_best_is_kept_and_replaced(tmp_path, monkeypatch):
    scores = iter([0.1, 0.3, 0.2])
    monkeypatch.setattr(noisy.ToyMetric, 'compute_metrics', lambda *_: dict(mean=next(scores)))
    noisy.train(best_of(tmp_path))
    assert names(tmp_path) == ['best_mean_epoch_2.pth', 'epoch_2.pth', 'epoch_3.pth']
    best = torch.load(tmp_path / 'best_mean_epoch_2.pth', weights_only=False)
    same = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    assert noisy.same(best['state_dict'], same['state_dict']) == []
    hub = same['message_hub']['runtime_info']
    assert hub['best_score'] == 0.3 and hub['best_ckpt'] == str(tmp_path / 'best_mean_epoch_2.pth')


def test_a_score_that_the_evaluation_does_not_give(tmp_path):
    settings = best_of(tmp_path)
    settings['default_hooks']['checkpoint']['save_best'] = 'maen'
    with refuses('config.unknown-score', 'save_best', "'maen'"):
        noisy.train(settings)


@contextmanager
def limited(size):
    """No file may grow beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
def test_a_disk_that_fills(tmp_path, monkeypatch, capfd):
    """The training goes on, the last whole checkpoint stays, and it is taken up from there."""
    import mmengine.runner.runner as theirs

    save, full = theirs.save_checkpoint, [3, 4]

    def save_checkpoint(checkpoint, *rest, **more):
        if checkpoint['meta']['iter'] not in full:
            return save(checkpoint, *rest, **more)
        with limited(2000):
            save(checkpoint, *rest, **more)

    monkeypatch.setattr(theirs, 'save_checkpoint', save_checkpoint)
    noisy.train(noisy.config(tmp_path, iterations=6, keep=2))
    said = ''.join(capfd.readouterr())
    assert said.count('ERROR') == 2 and 'iter_2.pth is kept' in said and 'too large' in said
    assert names(tmp_path) == ['iter_5.pth', 'iter_6.pth']

    full[:] = range(5, 7)
    with refuses('file.unwritable'):
        noisy.train(noisy.config(tmp_path / 'b', iterations=6, keep=2))
    assert names(tmp_path / 'b') == ['iter_3.pth', 'iter_4.pth']
    left = checkpoints.find_last(tmp_path / 'b')
    assert left == tmp_path / 'b' / 'iter_4.pth'
    full.clear()
    noisy.train(noisy.config(tmp_path / 'b', iterations=6, keep=2), resume=str(left))
    whole, taken_up = (noisy.state(folder / 'iter_6.pth') for folder in (tmp_path, tmp_path / 'b'))
    assert noisy.same(whole['weights'], taken_up['weights']) == []


def test_a_best_one_that_cannot_be_written(tmp_path, monkeypatch):
    import mmengine.runner.runner as theirs

    save, scores = theirs.save_checkpoint, iter([0.1, 0.3, 0.2])
    monkeypatch.setattr(noisy.ToyMetric, 'compute_metrics', lambda *_: dict(mean=next(scores)))

    def save_checkpoint(checkpoint, filename, *rest, **more):
        if 'best_mean_epoch_2' in str(filename):
            raise PermissionError(13, 'Permission denied')
        save(checkpoint, filename, *rest, **more)

    monkeypatch.setattr(theirs, 'save_checkpoint', save_checkpoint)
    noisy.train(best_of(tmp_path))
    assert names(tmp_path)[0] == 'best_mean_epoch_3.pth'  # 0.2 is better than what is there


def test_rests_of_a_killed_run_are_cleared(tmp_path):
    part = tmp_path / 'iter_1.pth.4711.part'
    part.write_bytes(b'half')
    noisy.train(noisy.config(tmp_path, iterations=2))
    assert not part.exists()


def test_checkpoints_of_an_earlier_run_are_spoken_of(tmp_path, capfd):
    noisy.train(noisy.config(tmp_path, iterations=2))
    capfd.readouterr()
    noisy.train(noisy.config(tmp_path, iterations=2))
    assert 'holds 2 checkpoints of an earlier run' in ''.join(capfd.readouterr())


def test_mmengines_own_hook_writes_whole_files_too(tmp_path):
    settings = noisy.config(tmp_path, iterations=2)
    settings['default_hooks']['checkpoint']['type'] = 'CheckpointHook'
    noisy.train(settings)
    assert {path.name for path in tmp_path.glob('*.sha256')} == {
        'iter_1.pth.sha256',
        'iter_2.pth.sha256',
    }


def test_a_real_full_disk(tmp_path):
    """A file system of 200 KiB; mounting takes root."""
    folder = tmp_path / 'small'
    folder.mkdir()
    mounted = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=200k', 'none', folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip('this user cannot mount a file system')
    try:
        kept = checkpoint(folder / 'iter_1.pth')
        with pytest.raises(OSError) as caught:
            files.write_hashed(
                folder / 'iter_2.pth', lambda out: torch.save(torch.ones(100_000), out)
            )
        assert caught.value.errno == errno.ENOSPC
        assert (folder / 'iter_1.pth').read_bytes() == kept
        assert checkpoints.find_last(folder) == folder / 'iter_1.pth'
        assert not list(Path(folder).glob('*.part'))
    finally:
        subprocess.run(['umount', folder], check=True)


@pytest.mark.parametrize('given', [{}, dict(default_hooks=dict(logger=dict(type='LoggerHook')))])
def test_a_config_without_hooks_is_made_safe_too(given):
    cfg = Config(given)
    configure_safety(cfg)
    assert cfg.default_hooks.checkpoint.type == 'mmresnest.CheckpointHook'
    assert cfg.default_hooks.signals.type == 'mmresnest.StopOnSignal'
