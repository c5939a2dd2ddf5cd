"""Commands that know the run: a work folder stands for config, data, classes and checkpoint."""

import json
import os
from pathlib import Path

import pytest
import torch
from helpers import tiny
from helpers.errors import refuses
from helpers.leaves import CLASSES

from mmresnest.cli.main import build_parser, main
from mmresnest.engine.test import test as score_checkpoint
from mmresnest.engine.train import train
from mmresnest.engine.trained_run import find_config, resolve_run
from mmresnest.export.exporter import export
from mmresnest.inference.scoring import score_exported

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('fresh_logger')]


def write_checkpoint(path: Path, when: int) -> Path:
    torch.save(dict(state_dict={'a': torch.zeros(1)}), path)
    os.utime(path, (when, when))
    return path


def make_run(folder: Path) -> Path:
    folder.mkdir()
    (folder / 'net.py').write_text("model = dict()\ncommand = 'mmresnest train net'\n")
    return folder


def test_config_and_checkpoint_of_a_run(tmp_path):
    run = make_run(tmp_path / 'run')
    with refuses('checkpoint.missing', run, '--checkpoint'):
        resolve_run(run, None)
    write_checkpoint(run / 'epoch_1.pth', 10)
    last = write_checkpoint(run / 'epoch_2.pth', 20)
    assert resolve_run(run, None) == (run / 'net.py', last, run)
    best = write_checkpoint(run / 'best_coco_bbox_mAP_epoch_1.pth', 10)
    assert resolve_run(str(run), None).checkpoint == best
    assert resolve_run(run, 'epoch_1.pth').checkpoint == run / 'epoch_1.pth'
    best.write_bytes(best.read_bytes()[:100])
    assert resolve_run(run, None).checkpoint == last, 'a damaged one is passed over'
    with refuses('checkpoint.missing', 'net.py'):
        resolve_run(run / 'net.py', None)
    (tmp_path / 'empty').mkdir()
    with refuses('report.nothing', tmp_path / 'empty'):
        resolve_run(tmp_path / 'empty', None)


def test_a_config_that_a_test_has_written_is_not_the_training_s(tmp_path):
    run = make_run(tmp_path / 'run')
    copy = run / '20260101_000000' / 'vis_data' / 'config.py'
    copy.parent.mkdir(parents=True)
    (run / 'net.py').rename(copy)
    (run / 'net.py').write_text('model = dict()\n')
    assert find_config(run) == copy


@pytest.mark.parametrize(
    'line, images, checkpoint',
    [
        ('predict RUN a.jpg b.jpg', ['a.jpg', 'b.jpg'], None),
        ('predict --score-thr 0.5 RUN a.jpg', ['a.jpg'], None),
        ('predict RUN --checkpoint x.pth --force photos', ['photos'], 'x.pth'),
        ('predict --cfg-options a=1 --data RUN c.py x.pth RUN', ['RUN'], 'x.pth'),
        ('predict c.py --data RUN x.pth a.jpg', ['a.jpg'], 'x.pth'),
        ('test RUN', None, None),
        ('test --tta RUN --out a.pkl', None, None),
        ('test c.py x.pth', None, 'x.pth'),
        ('export RUN --format openvino', None, None),
    ],
)
def test_the_first_word_decides(tmp_path, monkeypatch, line, images, checkpoint):
    monkeypatch.chdir(tmp_path)
    Path('RUN').mkdir()
    words = line.split()
    args = build_parser(words).parse_args(words)
    assert args.config == ('RUN' if 'c.py' not in words else 'c.py')
    assert args.checkpoint == checkpoint and getattr(args, 'images', None) == images


@pytest.mark.slow
def test_commands_take_all_from_the_work_folder(tmp_path, shapes, monkeypatch, capsys):
    """A run with the data of ``--data``, other classes than COCO's, and no word but its folder."""
    monkeypatch.chdir(tmp_path)
    config = tiny.write(tmp_path, 'detection')
    assert main(['train', str(config), '--data', str(shapes), '--from-scratch']) == 0
    [run] = Path('work_dirs').iterdir()
    written = {path.name for path in run.iterdir()}
    assert any(name.startswith('best_') for name in written)
    before = (run / config.name).read_bytes()
    capsys.readouterr()

    assert main(['test', str(run)]) == 0
    by_run = [line for line in capsys.readouterr().out.splitlines() if line.startswith('coco/')]
    assert (run / config.name).read_bytes() == before and (run / 'test').is_dir()
    best = str(resolve_run(run, None).checkpoint)
    assert main(['test', str(config), best, '--data', str(shapes)]) == 0
    by_hand = [line for line in capsys.readouterr().out.splitlines() if line.startswith('coco/')]
    assert by_run == by_hand and len(by_run) == 6

    assert main(['predict', str(run), f'{shapes}/val', '--score-thr', '0']) == 0
    table = json.loads(Path('predictions/predictions.images.json').read_text())
    assert [one['name'] for one in table['categories']] == list(CLASSES)
    assert main(['report', str(run)]) == 0


@pytest.mark.slow
def test_scores_of_an_exported_file_are_those_of_the_checkpoint(tmp_path, shapes):
    """A segmentor: its scores are above 0 after two iterations."""
    config = tiny.write(tmp_path, 'semantic')
    run = train(config, data=shapes, from_scratch=True, work_dir=tmp_path / 'run').work_dir
    file = export(run, size=(64, 64)).files[0]
    assert file == run / f'{config.stem}.onnx'
    scores, expected = score_exported(file, run, progress=False), score_checkpoint(run).metrics
    assert scores == pytest.approx(expected, abs=2e-3) and len(scores) == 3
    assert min(scores.values()) > 0
    detector = tiny.write(tmp_path, 'detection')
    with refuses('option.conflict', file, 'semantic'):
        score_exported(file, detector, data=shapes)
