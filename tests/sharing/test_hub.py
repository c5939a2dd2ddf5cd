"""Models on the hub: what is published, that it comes back the same, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from helpers import fake_hub, tiny
from helpers.errors import check_refused, refuses
from mmengine.config import Config

from mmresnest.cli.main import main
from mmresnest.data.shapes.dataset import draw_dataset
from mmresnest.engine.train import train
from mmresnest.engine.trained_run import TrainedRun
from mmresnest.sharing import card, hub
from mmresnest.utils import packages

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('unformatted')]


@pytest.fixture
def server(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setenv('HF_TOKEN', fake_hub.TOKEN)
    monkeypatch.delenv('HF_HUB_OFFLINE', raising=False)
    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True)  # a server of its own
    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_TELEMETRY', True)
    monkeypatch.setattr(constants, 'HF_TOKEN_PATH', str(tmp_path / 'token'))
    monkeypatch.chdir(tmp_path)
    with fake_hub.serve() as running:
        monkeypatch.setenv('HF_ENDPOINT', running.address)
        yield running


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    data = draw_dataset(folder / 'DIR', train=4, val=2, test=0, size=(64, 64), progress=False)
    done = train(tiny.write(folder, 'detection'), data=data, work_dir=folder / 'run', seed=0)
    return done.work_dir


def test_what_is_pushed_comes_back(server, trained, capsys, caplog):
    line = ['push', str(trained), 'someone/shapes', '--license', 'apache-2.0', '--private']
    assert main(line) == 0
    files = server.repositories['someone/shapes']
    assert set(files) == {'README.md', 'config.py', 'best_model.pth', 'best_model.pth.sha256'}
    assert server.private['someone/shapes'] and list(server.stored.values()) == [
        files['best_model.pth']
    ]
    # neither the token nor a path of this machine in what was published or printed
    told = capsys.readouterr()
    texts = [files[name] for name in ('README.md', 'config.py')]
    texts += [files['best_model.pth'], told.out.encode(), told.err.encode(), caplog.text.encode()]
    assert not [text for text in texts if fake_hub.TOKEN.encode() in text]
    assert not [text for text in texts[:3] if str(trained.parent).encode() in text]

    assert main(['pull', 'someone/shapes']) == 0
    pulled = Path('work_dirs/shapes')
    assert {path.name: path.read_bytes() for path in pulled.iterdir()} == files
    before = torch.load(hub.resolve_run(trained, None).checkpoint, weights_only=False)
    after = torch.load(pulled / 'best_model.pth', weights_only=True)
    assert after['meta'].keys() <= set(hub.META) and after.keys() == {'state_dict', 'meta'}
    assert all(
        torch.equal(after['state_dict'][key], one) for key, one in before['state_dict'].items()
    )
    picture = next((trained.parent / 'DIR' / 'val').glob('*.jpg'))
    for folder in (trained, pulled):
        line = ['predict', str(folder), str(picture), '--safe-config', '--no-vis']
        assert main([*line, '--score-thr', '0', '--json', f'{folder.name}.json']) == 0
    assert Path('run.json').read_text() == Path('shapes.json').read_text()
    assert len(json.loads(Path('run.json').read_text())) > 0
    with refuses('hub.folder', pulled):
        hub.pull('someone/shapes')


def test_the_card_says_what_a_reader_needs(server, trained, tmp_path):
    assert main(['push', str(trained), 'someone/shapes', '--out', str(tmp_path / 'o')]) == 0
    assert not server.requests
    text = (tmp_path / 'o' / 'README.md').read_text()
    front, _, body = text.removeprefix('---\n').partition('\n---\n')
    meta = yaml.safe_load(front)
    assert meta['library_name'] == 'mmresnest' and meta['pipeline_tag'] == 'object-detection'
    assert 'license' not in meta and 'No license was stated' in body
    names = {one['type'] for one in meta['model-index'][0]['results'][0]['metrics']}
    assert 'bbox_mAP' in names
    for part in ('ResNeSt resnest14', '| 0 | disk |', 'AP50', 'mmresnest pull someone/shapes'):
        assert part in body, part
    with refuses('hub.folder', 'o'):
        hub.push(trained, 'someone/shapes', out=tmp_path / 'o')


def test_a_folder_that_fails_midway_is_not_there(trained, tmp_path, monkeypatch):
    def write_none(facts):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(hub, 'write_card', write_none)
    with refuses('file.unwritable', tmp_path / 'o', 'No space left on device'):
        hub.push(trained, 'someone/shapes', out=tmp_path / 'o')
    assert list(tmp_path.glob('*')) == list(tmp_path.glob('.*')) == []


@pytest.mark.parametrize(
    'name, iteration, score, told',
    [
        ('best_coco_bbox_mAP_epoch_2', 200, 0.5, 'of validation 2 of 3'),
        ('epoch_1', 100, 0.1, 'of validation 1 of 3'),
        ('epoch_3', 300, 0.3, 'of validation 3 of 3'),
        ('best_coco_bbox_mAP_iter_200', 201, 0.5, 'of validation 2 of 3'),
        ('iter_150', 150, None, 'iter_150.pth'),
        ('theirs', None, None, 'theirs.pth'),
    ],
)
def test_scores_are_those_of_the_checkpoint(tmp_path, name, iteration, score, told):
    """And not the best or the last of a training that went on; none where it was not validated."""
    lines = []
    for epoch, value in ((1, 0.1), (2, 0.5), (3, 0.3)):
        lines += [dict(loss=1.0, lr=0.1, step=step) for step in (100 * epoch - 50, 100 * epoch)]
        lines.append({'coco/bbox_mAP': value, 'step': epoch})
    (tmp_path / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    run = TrainedRun('config.py', tmp_path / f'{name}.pth', tmp_path)
    meta = {} if iteration is None else dict(iter=iteration)
    expected = {} if score is None else {'coco/bbox_mAP': score}
    assert hub.find_scores(run, meta) == (expected, told)


def test_names_of_classes_are_no_paths():
    cfg = Config(
        dict(
            metainfo=dict(classes=('/m/01g317', 'cat')),
            data_root='/home/someone/data/',
            steps=[dict(file='~/a/b.txt')],
            work_dir='/home/someone/run',
        )
    )
    assert hub.hide_paths(cfg).to_dict() == dict(
        metainfo=dict(classes=('/m/01g317', 'cat')), data_root='data/', steps=[dict(file='b.txt')]
    )


def test_names_of_classes_are_no_markup():
    about = card.CardFacts(
        'a/b', 'detection', 'x', ['<b>|x*', 'a\nb'], {}, {'AP': [float('nan'), 0.5]}, {}, 'mit'
    )
    text = card.write_card(about)
    assert r'| 0 | \<b\>\|x\* | – |' in text and '| 1 | a b | 0.500 |' in text
    assert yaml.safe_load(text.split('---')[1])['license'] == 'mit'


def test_a_hub_without_a_token(server, trained, monkeypatch):
    monkeypatch.delenv('HF_TOKEN')
    line = ['push', str(trained), 'someone/shapes']
    check_refused(line, 'hub.no-token', 'hf auth login', 'HF_TOKEN')
    assert not server.requests and not server.repositories


def refuse_with(status):
    def prepare(server, monkeypatch):
        server.refusal = status

    return prepare


def send_elsewhere(server, monkeypatch):
    monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:9')


@pytest.mark.parametrize(
    'prepare, code',
    [
        (refuse_with(401), 'hub.refused'),
        (refuse_with(403), 'hub.refused'),
        (refuse_with(400), 'hub.unreachable'),
        (send_elsewhere, 'hub.unreachable'),
    ],
)
def test_a_hub_that_refuses(server, trained, monkeypatch, prepare, code):
    prepare(server, monkeypatch)
    with refuses(code) as caught:
        hub.push(trained, 'someone/shapes')
    assert fake_hub.TOKEN not in f'{caught.value} {caught.value.__cause__}'
    with refuses(code):
        hub.pull('someone/shapes')
    assert not Path('work_dirs').exists() or not list(Path('work_dirs').iterdir())


def test_what_cannot_be_pulled_leaves_nothing(server, monkeypatch):
    with refuses('hub.not-found', 'someone/nothing'):
        hub.pull('someone/nothing')
    server.repositories['someone/text'] = {'README.md': b'text', 'evil.py': b'x'}
    with refuses('hub.no-model', 'config.py'):
        hub.pull('someone/text')
    server.repositories['someone/cut'] = {
        'config.py': b'x = 1',
        'best_model.pth': b'half',
        'best_model.pth.sha256': b'0' * 64 + b'  best_model.pth\n',
    }
    with refuses('checkpoint.unreadable', 'someone/cut'):
        hub.pull('someone/cut', 'here')
    Path('empty').mkdir()
    monkeypatch.chdir('empty')
    with refuses('hub.folder'):  # the folder that one stands in cannot be replaced
        hub.pull('someone/cut', '.')
    monkeypatch.chdir('..')
    assert not Path('here').exists() and not list(Path().glob('**/.*part'))


@pytest.mark.parametrize('name', ['shapes', 'a/b/c', 'a b/c', 'a/..b', ''])
def test_what_is_no_name(server, trained, name):
    for act in (lambda: hub.push(trained, name), lambda: hub.pull(name)):
        with refuses('hub.name'):
            act()


def test_what_is_no_training(server, tmp_path):
    with refuses('report.nothing', 'nowhere'):
        hub.push('nowhere', 'a/b')
    (tmp_path / 'empty').mkdir()
    with refuses('report.nothing'):
        hub.push('empty', 'a/b')


def test_the_library_is_asked_for(monkeypatch):
    monkeypatch.setattr(packages, 'find_spec', lambda name: None)
    with refuses('package.missing', 'mmresnest[hub]'):
        hub.pull('a/b')
