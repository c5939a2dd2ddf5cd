"""Layouts of published checkpoints, and loading that tells the truth."""
import hashlib
import pickle

import published
import pytest
import tiny  # noqa: F401  imports the stack with its warnings silenced
import torch

import mmresnest
from mmresnest import download, models, weights
from mmresnest.errors import UserError
from mmresnest.variants import VARIANTS


def network(arch: str = 'resnest14', **arguments):
    return mmresnest.build_backbone(arch, **arguments)


def save(tmp_path, content, name='file.pth') -> str:
    path = tmp_path / name
    torch.save(content, path)
    return str(path)


@pytest.fixture(scope='module')
def official() -> dict:
    """resnest14 in its authors' layout, classifier included."""
    return published.checkpoint('resnest14')


def equal(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def names(case: str) -> dict[str, str]:
    """A published checkpoint with its keys in the tensors' places."""
    return {key: key for key in published.CASES[case]['state_dict']}


@pytest.mark.parametrize('layout', weights.LAYOUTS)
@pytest.mark.parametrize('name', published.CASES)
def test_conversion_is_total_and_reversible(name, layout):
    source = names(name)
    if layout == 'detectron2' and name.startswith(('res2', 'se', 'legacy')):
        with pytest.raises(UserError, match='no such network'):     # neither SE nor Res2Net there
            weights.convert(source, layout)
        return
    converted = weights.convert(source, layout)
    assert sorted(converted.values()) == sorted(source)
    found = weights.recognise(source).layout
    assert weights.convert(converted, found) == source
    assert weights.recognise(converted).layout in (layout, found, 'official')   # shared names


@pytest.mark.parametrize('name', ['resnest14', 'resnet50', 'resnet50d'])
def test_any_layout_from_any_other(name):
    source = names(name)
    for one in weights.LAYOUTS:
        for two in weights.LAYOUTS:
            way = weights.convert(weights.convert(source, one), two)
            assert weights.convert(way, 'official') == source, (one, two)


def test_layouts_by_other_names():
    assert weights.convert(names('resnest14'), 'timm') == names('resnest14')
    assert 'stem.0.weight' in weights.convert(names('resnest14'), 'MMSeg')


def test_an_unknown_key_is_refused(official):
    with pytest.raises(UserError, match='layer9x'):
        weights.convert({**official, 'layer9x.weight': torch.zeros(1)})
    with pytest.raises(UserError, match='nearest|legal: cadene'):
        weights.convert(official, 'keras')


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.'])
@pytest.mark.parametrize('wrapper', [None, 'state_dict', 'model', 'model_ema'])
def test_wrapped_and_prefixed(tmp_path, official, prefix, wrapper):
    state = {prefix + key: value for key, value in official.items()
             if not (prefix and key.startswith('fc.'))}
    file = save(tmp_path, state if wrapper is None else {wrapper: state, 'epoch': 3})
    built = network()
    report = weights.load(built, file)
    assert report.filled == report.total == len(built.state_dict())
    assert torch.equal(built.stem[0].weight, official['conv1.0.weight'])


def test_a_detector_s_checkpoint_fills_its_backbone(tmp_path, official):
    """Heads beside the backbone are not its business; unknown keys under its prefix are."""
    state = {'backbone.' + key: value for key, value in official.items()
             if not key.startswith('fc.')}
    state['neck.conv.weight'] = torch.zeros(3)
    report = weights.load(network(), save(tmp_path, state))
    assert report.filled == report.total and report.left_out == ()


def test_through_load_state_dict_at_any_prefix(official):
    class Detector(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = network()
    detector = Detector()
    state = {'backbone.' + key: value for key, value in official.items()
             if not key.startswith('fc.')}
    detector.load_state_dict(state, strict=True)
    assert torch.equal(detector.backbone.stem[7].weight, official['bn1.weight'])


def test_through_init_cfg(tmp_path, official):
    built = models.ResNeSt('resnest14', init_cfg=dict(
        type='Pretrained', checkpoint=save(tmp_path, official)))
    built.init_weights()
    assert torch.equal(built.stem[0].weight, official['conv1.0.weight'])
    assert built.is_init


@pytest.mark.parametrize('change,said', [
    (lambda s: {k: v for k, v in s.items() if k != 'layer3.0.conv3.weight'},
     'layer3.0.conv3.weight'),
    (lambda s: {**s, 'layer3.0.conv3.weight': torch.zeros(3, 3, 1, 1)}, r'\(3, 3, 1, 1\)'),
    (lambda s: {**s, 'layer1.0.conv9.weight': torch.zeros(1)}, 'layer1.0.conv9.weight'),
    (lambda s: {'wheel.' + k[:3]: v for k, v in s.items()}, 'no backbone'),
    (lambda s: {}, 'no tensors'),
    (lambda s: [1, 2], 'no tensors'),
])
def test_what_does_not_fill_the_network_is_refused(tmp_path, official, change, said):
    with pytest.raises(UserError, match=said):
        weights.load(network(), save(tmp_path, change(official)))


def test_a_foreign_network_is_named(tmp_path, official):
    with pytest.raises(UserError, match="looks like arch='resnest14'"):
        weights.load(network('resnest26'), save(tmp_path, official))


def test_nothing_is_changed_by_a_refusal(tmp_path, official):
    built = network('resnest26')
    before = {key: value.clone() for key, value in built.state_dict().items()}
    with pytest.raises(UserError):
        weights.load(built, save(tmp_path, official))
    assert equal(before, built.state_dict())


@pytest.mark.parametrize('channels', [1, 2, 4, 6])
def test_other_image_channels(tmp_path, official, channels):
    built = network(in_channels=channels).eval()
    weights.load(built, save(tmp_path, official))
    rgb = official['conv1.0.weight']
    assert built.stem[0].weight.shape[1] == channels
    grey = torch.randn(1, 1, 32, 32)
    response = torch.nn.functional.conv2d(grey.expand(1, 3, 32, 32), rgb, None, 2, 1)
    if channels in (1, 6):              # a picture that is the same in all channels answers alike
        ours = built.stem[0](grey.expand(1, channels, 32, 32))
        torch.testing.assert_close(ours, response, rtol=1e-4, atol=1e-5)


def test_the_stage_that_is_not_built_is_left_out_by_name(tmp_path, official):
    report = weights.load(network(out_indices=(0, 2)), save(tmp_path, official))
    assert report.left_out == ('fc', 'layer4')
    assert 'left out fc, layer4' in str(report)


@pytest.mark.parametrize('size', [0, 10, 1000, -100])
def test_a_truncated_file_is_refused(tmp_path, official, size):
    path = tmp_path / 'file.pth'
    torch.save(official, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match='cannot be read'):
        weights.load(network(), str(path))


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Gadget:
        def __reduce__(self):
            return (exec, (f'open({str(tmp_path / "ran")!r}, "w")',))
    path = tmp_path / 'file.pth'
    path.write_bytes(pickle.dumps(dict(weight=Gadget())))
    with pytest.raises(UserError, match='run code'):
        weights.load(network(), str(path))
    torch.save(dict(weight=Gadget()), path)
    with pytest.raises(UserError, match='run code'):
        weights.load(network(), str(path))
    assert not (tmp_path / 'ran').exists()


def test_a_published_name_must_have_its_hash(tmp_path, official):
    name = VARIANTS['resnest14'].weights[0].file
    with pytest.raises(UserError, match='sha256 begins'):
        weights.load(network(), save(tmp_path, official, name))


def test_published_weights_come_from_the_cache(tmp_path, official, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    file = VARIANTS['resnest14'].weights[0].file
    path = tmp_path / 'checkpoints' / file
    torch.save(official, path)
    monkeypatch.setitem(weights.PUBLISHED, file,
                        hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    built = mmresnest.build_backbone('resnest14', pretrained=True)
    assert torch.equal(built.stem[0].weight, official['conv1.0.weight'])


def test_offline_says_what_to_put_where(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError('no route to host')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(download, 'urlopen', refuse)
    with pytest.raises(UserError, match='resnest50-528c19ca.pth') as caught:
        mmresnest.build_backbone('resnest50', pretrained=True)
    assert str(tmp_path) in str(caught.value) and 'from-scratch' in str(caught.value)
    with pytest.raises(UserError, match='no weights were published'):
        mmresnest.build_backbone('res2net152_v1b_26w_4s', pretrained=True)
    with pytest.raises(UserError, match='does not exist'):
        mmresnest.build_backbone('resnest14', pretrained='nowhere.pth')
