"""README.md: what it names exists, what it says to type is understood, what it claims is so.

Its table compares with the backbones of mmdet and mmseg. What it says of those is shown here too,
so that a row goes when they are mended.
"""
import ast
import importlib
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import published
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmresnest import cli, weights

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / 'README.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'^```(\w*)\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)
INLINE = re.findall(r'(?<!`)`([^`\n]+)`(?!`)', re.sub(r'^```.*?^```$', '', TEXT, flags=re.M | re.S))
PYTHON = [block for language, block in BLOCKS if language == 'python']
PLAIN = [block for block in PYTHON if 'build_backbone' in block]
CONFIGS = [block for block in PYTHON if block not in PLAIN]

# torch and mmengine warn of their own future where networks of mmdet are built and run
pytestmark = pytest.mark.filterwarnings('ignore')


# ---- what it names -------------------------------------------------------------------------------

def test_blocks_are_closed_and_of_a_known_kind():
    assert len(re.findall('^```', TEXT, re.MULTILINE)) == 2 * len(BLOCKS)
    assert {language for language, _ in BLOCKS} == {'bash', 'python', 'text'}
    assert len(PLAIN) == 1 and len(CONFIGS) == 3


def test_links_lead_somewhere():
    links = [link for link in re.findall(r'\]\(([^)]+)\)', TEXT) if '://' not in link]
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link


def test_files_that_it_names_are_there():
    folders = ('configs/', 'constraints/', 'mmresnest/', 'tests/', 'tools/')
    named = {word.partition('::')[0] for span in [*INLINE, *(block for _, block in BLOCKS)]
             for word in span.split() if word.startswith(folders)}
    assert len(named) > 10
    for name in named:
        assert any(ROOT.glob(name.rstrip('/'))), name


def test_tests_that_it_names_are_there():
    named = set(re.findall(r'`(tests/\S+?\.py)::(\w+)`', TEXT))
    assert len(named) > 20
    for file, function in named:
        tree = ast.parse((ROOT / file).read_text(encoding='utf-8'))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
            f'{file}::{function}')


def test_every_row_about_others_shows_both_sides():
    table = TEXT.partition('## Why not the built-in backbones')[2].partition('\n## ')[0]
    rows = [line for line in table.splitlines() if line.startswith('| ')][1:]
    assert len(rows) > 10
    for row in rows:
        tests = re.findall(r'`(tests/[^`]+)`', row)
        assert tests[0].startswith('tests/test_readme.py::test_their_') and len(tests) == 2, row


def test_every_config_is_in_one_row_of_the_table():
    names = sorted(f'configs/{path.name}' for path in (ROOT / 'configs').glob('*.py'))
    rows = [re.findall(r'`(configs/\S+)`', line) for line in TEXT.splitlines()
            if line.startswith('| `configs/')]
    found = {name: [row for row in rows if any(fnmatch(name, pattern) for pattern in row)]
             for name in names}
    assert not [name for name, matches in found.items() if len(matches) != 1]
    assert not [pattern for row in rows for pattern in row
                if not any(fnmatch(name, pattern) for name in names)]


# ---- what it says to type ------------------------------------------------------------------------

def lines() -> list[list[str]]:
    """The words of every command line, without what is set in its environment."""
    found = []
    for language, block in BLOCKS:
        if language == 'bash':
            for line in block.replace('\\\n', ' ').splitlines():
                words = shlex.split(line, comments=True)
                while words and re.fullmatch(r'[A-Z_]+=\S*', words[0]):
                    words.pop(0)
                if words:
                    found.append(words)
    found += [shlex.split(span) for span in INLINE if span.startswith('mmresnest ')]
    return found


def as_command(words: list[str]) -> list[str] | None:
    """What ``mmresnest`` is told by such a line; None for a line of another program."""
    if words[0] == 'mmresnest':
        return words[1:]
    if words[0] == 'python':
        words = words[1:]
    if not words[0].startswith('tools/'):
        return None
    script, words = Path(words[0]), words[1:]
    if script.suffix == '.py':
        return [script.stem.replace('_', '-'), *words]
    launcher, command = script.stem.split('_')
    if launcher == 'slurm':
        return [command, *words[2:], '--launcher', 'slurm']     # without partition and job
    count = {'train': 1, 'test': 2}[command]                    # the number of processes
    assert words[count].isdigit(), words
    return [command, *words[:count], *words[count + 1:], '--launcher', 'pytorch']


def test_our_commands_are_understood():
    commands = list(filter(None, map(as_command, lines())))
    assert {command[0] for command in commands} == {'train', 'test', 'convert', 'doctor',
                                                   'benchmark', 'flops', 'print-config', 'profile',
                                                   'check-data', 'browse-data', 'predict', 'report'}
    for command in commands:
        args = cli._parser().parse_args(command)
        config = getattr(args, 'config', '')
        package, separator, inner = config.partition('::')
        if separator:
            folder = Path(importlib.import_module(package).__file__).parent
            assert (folder / '.mim' / 'configs' / inner).is_file(), config
        elif config:
            assert (ROOT / 'configs' / f'{Path(config).stem}.py').is_file(), config


def test_other_commands_are_known():
    makefile = (ROOT / 'Makefile').read_text()
    setup = (ROOT / 'setup.py').read_text()
    seen = set()
    for words in lines():
        if as_command(words) is not None:
            continue
        seen.add(words[0])
        if words[0] == 'make':
            assert all(re.search(rf'^{word}:', makefile, re.MULTILINE) for word in words[1:])
        elif words[0] == 'pip':
            assert words[1] == 'install'
            for extra in re.findall(r'\.\[(\w+)\]', ' '.join(words)):
                assert f"'{extra}': [" in setup
        else:
            assert words == ['csCreateTrainIdLabelImgs']
    assert seen == {'make', 'pip', 'csCreateTrainIdLabelImgs'}


def test_options_that_it_explains_exist(capsys):
    said = ''
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit):
            cli._parser().parse_args([command.name, '--help'])
        said += capsys.readouterr().out
    named = {option for span in INLINE for option in re.findall(r'(?<!\S)--[a-z-]+', span)}
    assert len(named) > 10
    for option in named:
        assert re.search(rf'(?<!\S){option}\b', said), option


@pytest.mark.parametrize('block', CONFIGS, ids=lambda block: block.partition('\n')[0][9:])
def test_configs_are_read_and_their_backbones_built(block, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(block)
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        backbone = MODELS.build(cfg.model.backbone)
    assert type(backbone).__module__ == 'mmresnest.models'
    assert list(backbone.out_channels) == [256, 512, 1024, 2048]
    assert backbone.init_cfg['checkpoint'].startswith(weights.SCHEME)


def test_plain_pytorch_runs():
    small = PLAIN[0].replace("'resnest50'", "'resnest14'").replace('224', '64')
    assert small.count('resnest14') == 1
    exec(compile(small, 'README.md', 'exec'), {})


# ---- what it says of the backbones of mmdet and mmseg --------------------------------------------

DILATED = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))


def theirs(package: str, name: str, **arguments) -> nn.Module:
    """One of their backbones."""
    module = importlib.import_module(f'{package}.models.backbones')
    return getattr(module, name)(**arguments)


def distances(network: nn.Module, case: str) -> list[float]:
    """How far the features of their network are from the published ones, stage by stage.

    The published checkpoint loads strictly, apart from the classifier.
    """
    state = {key: value for key, value in weights.convert(published.checkpoint(case)).items()
             if not key.startswith(weights.CLASSIFIER)}
    network.load_state_dict(state, strict=True)
    network.eval()
    with torch.no_grad():
        maps = network(published.image())
    references = published.CASES[case]['features']
    return [published.distance(*pair) for pair in zip(maps, references, strict=True)]


def test_their_resnest_is_right_elsewhere():
    """Else the tests below would prove nothing."""
    assert max(distances(theirs('mmdet', 'ResNeSt', depth=50), 'resnest50')) < 1e-4


@pytest.mark.parametrize('package, more', [('mmdet', {}), ('mmseg', dict(contract_dilation=True))])
def test_their_dilated_resnest(package, more):
    far = distances(theirs(package, 'ResNeSt', depth=50, **DILATED, **more), 'resnest50.stride8')
    assert max(far[:2]) < 1e-4 and min(far[2:]) > 1e-2


def test_their_fast_resnest():
    far = distances(theirs('mmdet', 'ResNeSt', depth=50), 'resnest50_fast_2s1x64d')
    assert far[0] < 1e-4 and min(far[1:]) > 1e-2
    with pytest.raises(TypeError, match='avd_first'):
        theirs('mmdet', 'ResNeSt', depth=50, avd_first=True)


def test_their_res2net():
    assert distances(theirs('mmdet', 'Res2Net', depth=50), 'res2net50_v1b_26w_4s')[0] > 1e-2
    with torch.device('meta'):
        plain = theirs('mmdet', 'Res2Net', depth=50, deep_stem=False, avg_down=False)
    assert isinstance(plain.stem, nn.Sequential) and not hasattr(plain, 'conv1')
    assert isinstance(plain.layer2[0].downsample[0], nn.AvgPool2d)


def test_their_networks():
    for package in ('mmdet', 'mmseg'):
        names = importlib.import_module(f'{package}.models.backbones').__all__
        assert not {'SEResNeXt', 'SENet', 'SEResNet'} & set(names)
        assert ('Res2Net' in names) is (package == 'mmdet')
        for depth in (14, 26, 269):
            with pytest.raises(KeyError, match='invalid depth'):
                theirs(package, 'ResNeSt', depth=depth)


def test_their_stem_of_resnest101():
    with torch.device('meta'):
        for package in ('mmdet', 'mmseg'):
            assert theirs(package, 'ResNeSt', depth=101).stem[6].out_channels == 64


def test_their_loading(tmp_path):
    """Of a checkpoint in its authors' layout, they load all but the stem, and say so in the log."""
    path = tmp_path / 'official.pth'
    official = published.checkpoint('resnest50')
    torch.save(official, path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    network = theirs('mmdet', 'ResNeSt', depth=50, init_cfg=init_cfg)
    before = network.stem[0].weight.clone()
    network.init_weights()
    assert torch.equal(network.stem[0].weight, before)
    assert torch.equal(network.layer1[0].conv1.weight, official['layer1.0.conv1.weight'])

    torch.save(weights.convert(official), path)         # under their own names, but four channels
    network = theirs('mmdet', 'ResNeSt', depth=50, in_channels=4, init_cfg=init_cfg)
    before = network.stem[0].weight.clone()
    network.init_weights()
    assert torch.equal(network.stem[0].weight, before)
    assert torch.equal(network.stem[3].weight, official['conv1.3.weight'])


def test_their_checkpointing():
    network = theirs('mmdet', 'ResNeSt', depth=50, with_cp=True, norm_eval=False)
    network.train()
    network(torch.randn(2, 3, 64, 64))[0].mean().backward()
    assert network.stem[1].num_batches_tracked == 1
    assert network.layer1[0].bn1.num_batches_tracked == 2


def test_their_zero_init():
    for name, used in (('ResNet', True), ('ResNeSt', False), ('Res2Net', False)):
        network = theirs('mmdet', name, depth=50, zero_init_residual=True)
        network.init_weights()
        assert (not network.layer1[1].bn3.weight.any()) is used, name


def test_their_fallback_on_stride():
    for name, more in (('ResNeSt', dict(avg_down_stride=False)), ('Res2Net', {})):
        dcn = dict(type='DCN', deform_groups=1, fallback_on_stride=True)
        network = theirs('mmdet', name, depth=50, dcn=dcn,
                         stage_with_dcn=(False, False, False, True), **more)
        assert 'fallback_on_stride' not in dcn
        strided = [part for part in network.layer4[0].modules()
                   if getattr(part, 'stride', None) == (2, 2) and hasattr(part, 'conv_offset')]
        assert strided, name


def test_their_batch_of_one():
    network = theirs('mmdet', 'ResNeSt', depth=50, norm_eval=False)
    network.train()
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        network(torch.randn(1, 3, 64, 64))


def test_their_sync_bn():
    with torch.device('meta'):
        for package in ('mmdet', 'mmseg'):
            network = theirs(package, 'ResNeSt', depth=50, norm_cfg=dict(type='SyncBN'))
            assert isinstance(network.layer1[0].bn1, nn.SyncBatchNorm)


def test_their_modes():
    with torch.device('meta'):
        for package in ('mmdet', 'mmseg'):
            assert theirs(package, 'ResNeSt', depth=50).eval() is None
