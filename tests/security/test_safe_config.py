"""Configs read as data: the same as mmengine reads, and nothing run, whatever they hold."""

import json
import os
import time
from functools import cache
from pathlib import Path

import pytest
from helpers.errors import check_refused, refuses
from helpers.every import check_every
from mmengine.config import Config
from mmengine.registry import MODELS

from mmresnest.cli import main
from mmresnest.config.load import load_config, shipped_configs
from mmresnest.security import config_reader
from mmresnest.utils.env import SAFE


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding='utf-8')
    return path


@pytest.fixture(scope='module')
def found_once():
    """Has mmengine look up a base of another package once: it reads all of the package's index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, '_get_cfg_path', staticmethod(cache(Config._get_cfg_path)))
        yield


@pytest.mark.slow
def test_shipped_configs_are_read_as_mmengine_reads_them(found_once):
    def check(path):
        theirs, ours = Config.fromfile(path), config_reader.read_config(path)
        assert ours._cfg_dict == theirs._cfg_dict and ours.text == theirs.text
        assert repr(ours._cfg_dict) == repr(theirs._cfg_dict)  # types and order, too

    assert len(shipped_configs()) == len(list((Path(__file__).parents[2] / 'configs').glob('*.py')))
    check_every(shipped_configs().values(), check)


@pytest.mark.parametrize(
    'name',
    [
        'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
        'mmdet::masktrack_rcnn/masktrack-rcnn_mask-rcnn_r50_fpn_8xb1-12e_youtubevis2019.py',
        'mmdet::queryinst/queryinst_r50_fpn_1x_coco.py',
        'mmseg::_base_/models/fcn_hr18.py',
        'mmseg::resnest/resnest_s101-d8_deeplabv3_4xb4-160k_ade20k-512x512.py',
    ],
)
def test_configs_of_both_toolboxes_are_read_as_mmengine_reads_them(name):
    theirs, ours = load_config(name), load_config(name, safe=True)
    assert repr(ours._cfg_dict) == repr(theirs._cfg_dict)


LANGUAGE = """
'''Of what configs are written.'''
_base_ = ['base.py']
a: int = 3
b = -a + 2 ** 4 // 3 % 5 - 1 / 4
word = 'ab' * 2 + f'{a:03d}{a}{b!r}'
both = first, (second, third) = 1, (2, 3)
items = [*range(3), *'xy', a]
alias = items
items.append('more')
alias.extend([len(items)])
table = {**dict(x=1), 'y': {1, 2}, (1, 'k'): None}
table['z'] = [i * j for i in range(3) for j in range(i)]
table.update(w=sum([1, 2]), v=max(1, 2.5))
popped = table.pop('x')
del table['y']
kept = {k: v for k, v in zip(['p', 'q'], items[::-1])}
squares = tuple(n * n for n in (1, 2))
numbered = {name: number for number, name in enumerate(['one', 'two'])}
model = dict(head=dict(_delete_=True, size={{_base_.size}}), stem={{ _base_.model.stem }})
optimizer = _base_.optimizer
optimizer.lr = 1
optimizer.update(dict(steps=[1, 2]))
nested = _base_.optimizer['betas'][0]
folder = '{{ fileDirname }}/{{fileBasenameNoExtension}}'
env = '{{$NO_SUCH_VARIABLE:fallback}}'
"""


def test_the_language_of_configs(tmp_path):
    written(
        tmp_path / 'base.py',
        'size = [1, 2]\n'
        'model = dict(head=dict(a=1, b=2), stem=dict(c=3))\n'
        'optimizer = dict(lr=0.1, betas=(0.9, 0.99))\n',
    )
    path = written(tmp_path / 'config.py', LANGUAGE)
    theirs, ours = Config.fromfile(path), config_reader.read_config(path)
    assert repr(ours._cfg_dict) == repr(theirs._cfg_dict)
    assert ours.model.head == dict(size=[1, 2]) and ours.optimizer.lr == 1


@pytest.mark.parametrize('suffix', ['json', 'yml'])
def test_configs_in_json_and_yaml(suffix, tmp_path):
    written(tmp_path / 'base.py', 'a = dict(x=1)\nb = 2\n')
    path = written(
        tmp_path / f'config.{suffix}',
        json.dumps(dict(_base_='base.py', a=dict(y=[1, None]), c='{{ fileBasename }}')),
    )
    ours = config_reader.read_config(path)
    assert repr(ours._cfg_dict) == repr(Config.fromfile(path)._cfg_dict)
    assert ours.a == dict(x=1, y=[1, None]) and ours.c == f'config.{suffix}'


PROGRAMS = {
    'compiler': "compile = dict(options={'cpp.cxx': './mark.sh'})\n",
    'compiler of a strategy': "strategy = dict(type='X', compile=dict(options={'cpp.cxx': 'a'}))\n",
    'compiler by a backend': "compile = dict(backend='os.system')\n",
    'compiler, not a dict': "compile = 'inductor'\n",
    'settings of a tracker': "visualizer = dict(vis_backends=[dict(type='WandbVisBackend', "
    "init_kwargs=dict(project='a', settings=dict(x_executable='./mark.sh')))])\n",
    'path of modules': "backend_args = dict(backend='memcached', sys_path='.')\n",
    'code from the net': "model = dict(type='X', trust_remote_code=True)\n",
    'other machine': "env_cfg = dict(dist_cfg=dict(init_method='tcp://10.0.0.1:1'))\n",
    'server of a tracker': "a = dict(type='MLflowVisBackend', tracking_uri='http://10.0.0.1')\n",
    'server of another tracker': "a = dict(type='AimVisBackend', repo='aim://10.0.0.1:1')\n",
    'server of weights': "a = dict(type='CheckpointHook', out_dir='s3://bucket/x')\n",
    'folder that is deleted at the end': "a = dict(type='CocoMetric', collect_dir='/home')\n",
    'folder that is deleted': "a = dict(type='MOTChallengeMetric', outfile_prefix='/home')\n",
    'folder that is deleted, above': "a = dict(type='CityScapesMetric', outfile_prefix='../x')\n",
    'folder that is deleted, here': "a = dict(type='MOTChallengeMetric', outfile_prefix='.')\n",
    'folder that is deleted, user': "a = dict(type='CityscapesMetric', output_dir='~/x')\n",
    'folder that exists': "a = dict(type='MOTChallengeMetric', outfile_prefix='base.py')\n",
    'file of a strategy': "strategy = dict(type='DeepSpeedStrategy', config='a.json')\n",
    'key that becomes a program': "a = {\"x': open('mark', 'w'), 'y\": 1}\n",
    'key of two lines': "a = {'x\\n': 1}\n",
    'loop': 'for a in range(3):\n    b = a\n',
    'condition': 'if 1:\n    a = 1\n',
    'choice': 'a = 1 if 2 else 3\n',
    'augmented assignment': 'a = 1\na += 1\n',
    'comparison': 'a = 1 < 2\n',
    'either': 'a = 1 or 2\n',
    'negation': 'a = not 1\n',
    'condition of a comprehension': 'a = [b for b in (1, 2) if b]\n',
    'import': 'import os\n',
    'from import': 'from os import system\n',
    'lazy': 'from mmengine.config import read_base\nwith read_base():\n    from .base import *\n',
    'function': 'def f():\n    return 1\n',
    'lambda': 'a = (lambda: 1)()\n',
    'class': 'class A:\n    pass\n',
    'eval': "a = eval('1')\n",
    'open': "a = open('mark', 'w')\n",
    'import call': "a = __import__('os').system('touch mark')\n",
    'attribute of a literal': 'a = ().__class__.__base__.__subclasses__()\n',
    'attribute of a setting': 'b = dict(x=1)\na = b.__class__\n',
    'attribute of the base': '_base_ = "base.py"\na = _base_.__class__\n',
    'method of the base': '_base_ = "base.py"\na = _base_.model.build\n',
    'format': "a = '{0.__class__}'.format(1)\n",
    'f-string': "a = f'{1:>{10 ** 9}}'\n",
    'renamed function': 'dict = 1\na = dict(x=1)\n',
    'while': 'while True:\n    pass\n',
    'try': 'try:\n    a = 1\nfinally:\n    b = 2\n',
    'walrus': 'a = [x := 1]\n',
    'iterator': 'a = zip([1], [2])\n',
    'executed base': "_base_ = [__import__('os').system('touch mark')]\n",
    'custom imports': "custom_imports = dict(imports=['antigravity'])\n",
    'type of a module': "model = dict(type='os.system', command='touch mark')\n",
    'type of a package': "model = dict(type='antigravity.X')\n",
    'type that is evaluated': 'test_cfg = dict(nms=dict(type=\'__import__("os").getpid()\'))\n',
    'type that evaluates': "model = dict(type='CameraMotionCompensation', warp_mode='1')\n",
    'scope': "default_scope = 'antigravity'\n",
    'scope of a part': "model = dict(_scope_='antigravity', type='X')\n",
}


@pytest.mark.parametrize('name', PROGRAMS)
def test_what_is_no_data_is_refused_and_not_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / 'base.py', 'model = dict(x=1)\n')
    path = written(tmp_path / 'config.py', PROGRAMS[name])
    with refuses('config.unsafe', 'config.py'):
        config_reader.read_config(path)
    assert not (tmp_path / 'mark').exists()


ACCEPTED = """
compile = dict(backend='inductor', mode='max-autotune', fullgraph=True, dynamic=None)
strategy = dict(type='SingleDeviceStrategy', compile=False, config=dict(a=1))
visualizer = dict(vis_backends=[dict(type='WandbVisBackend', init_kwargs=dict(project='a'))])
a = [
    dict(type='MOTChallengeMetric', outfile_prefix='./mot_17_test_res', collect_dir=None),
    dict(type='CityScapesMetric', outfile_prefix='./work_dirs/cityscapes_metric/instance'),
    dict(type='CocoMetric', outfile_prefix='/data/results'),
    dict(trust_remote_code=False, init_method='env://', sys_path=None),
    dict(tracking_uri='./runs', repo=None, out_dir='/data/weights'),
]
b = {'.bias': 1, 'layer1.*': 2, 'a b-c/d(e)': 3, (1, 'k'): 4}
"""


def test_what_names_no_program_is_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / 'config.py', ACCEPTED)
    assert config_reader.read_config(path)._cfg_dict == Config.fromfile(path)._cfg_dict


def test_a_config_that_was_read_as_data_is_written_as_data(tmp_path, unformatted):
    """The copy in the work folder is what mmengine executes the next time."""
    path = written(tmp_path / 'config.json', json.dumps({"x'": 1, 'open("mark")': 2}))
    with refuses('config.unsafe', '''"x'"'''):
        config_reader.read_config(path)
    path = written(tmp_path / 'config.json', json.dumps({'a': {'open("mark")': "'", 'c"d': '"'}}))
    ours = config_reader.read_config(path)
    ours.dump(tmp_path / 'copy.py')
    assert config_reader.read_config(tmp_path / 'copy.py').a == ours.a


BOMBS = {
    'text': "a = 'a' * 10 ** 9\n",
    'list': 'a = [0] * 10 ** 12\n',
    'power': 'a = 9 ** 9 ** 9\n',
    'product': 'a = 2 ** 4000\nb = a * a * a\n',
    'range': 'a = list(range(10 ** 12))\n',
    'doubling': "a = 'a' * 1000\n" + 'a = a + a\n' * 100,
    'many': "a = ['a' * 100000]\n" + "b = ['a' * 100000] * 10\n" * 1000,
    'loops': 'a = [0 for i in range(1000) for j in range(1000) for k in range(1000)]\n',
    'laughs': 'a0 = []\n' + ''.join(f'a{n + 1} = [a{n}, a{n}]\n' for n in range(60)),
    'laughs into the base': '_base_ = "base.py"\na0 = []\n'
    + ''.join(f'a{n + 1} = dict(x=a{n}, y=a{n})\n' for n in range(60))
    + '_base_.model.update(a60)\n',
    'equal laughs': 'a0 = b0 = []\n'
    + ''.join(f'{x}{n + 1} = [{x}{n}, {x}{n}]\n' for n in range(60) for x in 'ab')
    + 'c = a60 == b60\n',
    'hashed laughs': 'a0 = ()\n'
    + ''.join(f'a{n + 1} = (a{n}, a{n})\n' for n in range(60))
    + 'c = {a60: 1}\n',
    'itself': 'a = dict()\na.update(b=a)\n',
    'brackets': 'a = ' + '[' * 5000 + ']' * 5000 + '\n',
    'sum': 'a = ' + '+'.join(['1'] * 20000) + '\n',
    'minus': 'a = ' + '-' * 50000 + '1\n',
    'itself as base': "_base_ = './config.py'\n",
    'long': '#' * 10**6,
    'digits': 'a = ' + '9' * 5000 + '\n',
    'set of tuples': 'a0 = ()\n'
    + ''.join(f'a{n + 1} = (a{n}, a{n})\n' for n in range(60))
    + 'c = set([a60])\n',
}


UNPARSABLE = ('brackets', 'sum', 'minus', 'digits')  # by Python itself
NESTED = ('laughs', 'laughs into the base', 'itself')


@pytest.mark.parametrize('name', BOMBS)
def test_what_takes_memory_or_time_without_end_is_refused(name, tmp_path):
    written(tmp_path / 'base.py', 'model = dict(x=1)\n')
    path = written(tmp_path / 'config.py', BOMBS[name])
    begun = time.process_time()
    code = 'config.unparsable' if name in UNPARSABLE else 'config.unsafe'
    with refuses('file.nested' if name in NESTED else code, path):
        config_reader.read_config(path)
    assert time.process_time() - begun < 20


@pytest.mark.parametrize(
    'text',
    [
        '{{$a:' * 20000,
        '{{$a:' + ' ' * 100000,
        '{{$a' + ' ' * 100000,
        '{{' + ' ' * 100000,
        '{{ fileDirname' + ' ' * 100000,
        '{{_base_.' + 'a.' * 50000,
        ('{{$a:' + ' ' * 50) * 2000,
    ],
)
def test_templates_are_filled_in_without_end_of_time(text, tmp_path):
    path = written(tmp_path / 'config.py', f'a = "{text}"\n')
    begun = time.process_time()
    assert config_reader.read_config(path).a == text
    assert time.process_time() - begun < 20


def test_bases_that_double_are_refused(tmp_path):
    for number in range(40):
        base = f'b{number + 1}.py' if number < 39 else None
        written(tmp_path / f'b{number}.py', f'_base_ = {[base, base]!r}\n' if base else '\n')
    with refuses('config.unsafe', 256, 32):
        config_reader.read_config(tmp_path / 'b0.py')


def test_yaml_that_runs_code_or_laughs_is_refused(tmp_path):
    mark = tmp_path / 'mark'
    path = written(tmp_path / 'config.yml', f'a: !!python/object/apply:os.system ["touch {mark}"]')
    for read in (config_reader.read_config, load_config):  # mmengine's own way, too
        with refuses('config.unparsable'):
            read(path)
    assert not mark.exists()
    lines = ['a0: &a0 [x]'] + [f'a{n + 1}: &a{n + 1} [*a{n}, *a{n}]' for n in range(60)]
    with refuses('file.nested'):
        config_reader.read_config(written(path, '\n'.join(lines)))


def test_yaml_keeps_the_tuples_that_mmengine_writes(tmp_path):
    path = tmp_path / 'config.yml'
    Config(dict(size=(1, 2), steps=[(3, 4)])).dump(path)
    assert Config.fromfile(path).size == (1, 2) and config_reader.read_config(path).steps == [
        (3, 4)
    ]


def test_a_registry_neither_imports_nor_finds_programs(monkeypatch):
    """What a config names elsewhere than under ``type`` is met where it is looked up."""
    assert MODELS.get('os.getpid') is os.getpid
    monkeypatch.setenv(SAFE, '1')
    assert MODELS.get('os.getpid') is None and MODELS.get('getpass') is None
    assert MODELS.get('this.X') is None
    with pytest.raises(KeyError, match=r'os\.system is not in the'):
        MODELS.build(dict(type='os.system', command='true'))
    assert MODELS.get('mmresnest.ResNeSt').__name__ == 'ResNeSt'


def test_the_option_of_the_command_line(tmp_path, monkeypatch, capsys, unformatted):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / 'config.py', "model = dict(type='X')\nopen('mark', 'w').close()\n")
    for command in (['print-config'], ['train'], ['flops'], ['test']):
        arguments = [*command, str(path), '--safe-config']
        if command == ['test']:  # which looks for the checkpoint first
            check_refused([*arguments, 'c.pth'], 'checkpoint.missing', 'c.pth')
        else:
            check_refused(arguments, 'config.unsafe', 'config.py, line 2', 'open', '--safe-config')
    assert not (tmp_path / 'mark').exists() and SAFE not in os.environ
    assert main.main(['print-config', str(path)]) == 0
    assert (tmp_path / 'mark').exists()
    name = 'faster_rcnn_resnest50_fpn'
    assert main.main(['print-config', name, '--safe-config']) == 0
    safe = capsys.readouterr().out
    assert main.main(['print-config', name]) == 0
    assert capsys.readouterr().out in safe
