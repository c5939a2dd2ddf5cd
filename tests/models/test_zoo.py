"""The zoo: headers read strictly; page, metafile and model index as the headers say."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.every import check_every

from mmresnest.analysis.flops import complexity
from mmresnest.cli.main import build_parser
from mmresnest.config.inspect import task_of
from mmresnest.engine.prepare import configure
from mmresnest.models.variants import VARIANTS

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'tools' / 'zoo.py'
MIM = ROOT / 'mmresnest' / '.mim'
CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
METAFILE = yaml.safe_load((MIM / 'configs' / 'metafile.yml').read_text(encoding='utf-8'))
MODELS = {model['Name']: model for model in METAFILE['Models']}
PAGE = (ROOT / 'docs' / 'zoo.md').read_text(encoding='utf-8')
SAMPLE = (
    'faster_rcnn_resnest50_fpn',
    'cascade_mask_rcnn_resnest200_fpn_dcn_3x',
    'panoptic_fpn_resnest50_fpn',
    'deeplabv3_resnest50_ade20k_encoding',
    'pspnet_resnest101_cityscapes_mmseg',
)


def module():
    spec = importlib.util.spec_from_file_location('zoo_tool', SCRIPT)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules['zoo_tool'] = loaded  # where its dataclasses look themselves up
    spec.loader.exec_module(loaded)
    return loaded


ZOO = module()


# Headers -----------------------------------------------------------------------------------------


GOOD = '''"""Mask R-CNN, FPN, ResNeSt-50 on COCO: the authors' recipe,
which wraps.

Run:     mmresnest train configs/mask_rcnn_some.py
Expect:  box AP 42.81, mask AP 38.10 on val2017 (the authors' fork,
         README; S-50).
Memory:  5.5 GB (mmdet model zoo)
Weights: https://example.org/a/b%2Bc-01234567.pth
Start:   mmresnest train mask_rcnn_some --data DIR --load-from
"""
'''


@pytest.fixture
def header(tmp_path):
    """Reads a header out of a file that holds it."""

    def read(text: str):
        path = tmp_path / 'mask_rcnn_some.py'
        path.write_text(text, encoding='utf-8')
        return ZOO.read_header(path)

    return read


def test_a_header_with_everything(header):
    found = header(GOOD)
    assert found.title == "Mask R-CNN, FPN, ResNeSt-50 on COCO: the authors' recipe, which wraps."
    assert found.metrics == {'box AP': '42.81', 'mask AP': '38.10'}  # digit by digit
    assert (found.split, found.source) == ('val2017', "the authors' fork, README; S-50")
    assert (found.memory, found.memory_source) == (5.5, 'mmdet model zoo')
    assert found.weights == 'https://example.org/a/b%2Bc-01234567.pth' and found.note == ''


def expecting(text: str) -> str:
    """The least of a header, with this expected."""
    return GOOD.split('Expect:')[0] + f'Expect:  {text}\n"""\n'


SCALES = 'mIoU (multi-scale and flip)'


@pytest.mark.parametrize(
    'text, metrics, split',
    [
        ('box AP 42.33 on val2017 (a, b).', {'box AP': '42.33'}, 'val2017'),
        (
            'PQ 47.90, box AP 51.00, mask AP 43.68 on val2017 (a (b)).',
            {'PQ': '47.90', 'box AP': '51.00', 'mask AP': '43.68'},
            'val2017',
        ),
        ('mIoU 45.12 (multi-scale and flip) on ADE20K val (a).', {SCALES: '45.12'}, 'ADE20K val'),
        (
            'mIoU 79.67 (80.51 multi-scale and flip) on Cityscapes val (a).',
            {'mIoU': '79.67', SCALES: '80.51'},
            'Cityscapes val',
        ),
        ('mIoU 79.67 on Cityscapes val (a).', {'mIoU': '79.67'}, 'Cityscapes val'),
    ],
)
def test_results(header, text, metrics, split):
    found = header(expecting(text))
    assert (found.metrics, found.split) == (metrics, split) and found.source and not found.note


@pytest.mark.parametrize(
    'text, note',
    [
        ('no published result.', ''),
        ('no published result for this recipe.', ''),
        (
            'no published result for this schedule; see the 3x config, box AP 50.5 (x).',
            'see the 3x config, box AP 50.5 (x)',
        ),
    ],
)
def test_no_results(header, text, note):
    found = header(expecting(text))
    assert (found.metrics, found.source, found.note) == ({}, '', note)


@pytest.mark.parametrize(
    'text, line, why',
    [
        ('x = 1\n', 1, 'begins with a docstring'),
        ('', 1, 'begins with a docstring'),
        (GOOD.replace('wraps.\n', 'wraps\n'), 1, 'title is a sentence'),
        (GOOD.replace('wraps.\n\n', 'wraps.\n'), 1, 'a blank line follows'),
        (
            GOOD.replace('mask_rcnn_some', 'other'),
            4,
            'Run: is mmresnest train configs/mask_rcnn_some',
        ),
        (
            GOOD.replace('Run:     mmresnest train configs/mask_rcnn_some.py\n', ''),
            1,
            'no line Run:',
        ),
        (GOOD.split('Expect')[0] + '"""', 1, 'no line Expect:'),
        (GOOD.replace('Expect:  ', 'Expect: '), 5, 'aligned at column 10'),
        (GOOD.replace('Expect:  ', 'Result:  '), 5, 'is none of Run, Expect'),
        (GOOD.replace('         README', '     README'), 6, 'is none of Run, Expect'),
        (
            GOOD.replace('which wraps.\n\n', 'which wraps.\n\n         before any\n'),
            4,
            'is none of',
        ),
        (GOOD.replace('Weights:', 'Memory:  6.5 GB (a)\nWeights:'), 8, 'each once'),
        (
            GOOD.replace('Memory:  5.5 GB (mmdet model zoo)\n', '').replace(
                'Expect:', 'Memory:  5.5 GB (a)\nExpect:'
            ),
            6,
            'in this order',
        ),
        (GOOD.replace('5.5 GB', '5.5'), 7, 'is not such as'),
        (GOOD.replace('5.5 GB (mmdet model zoo)', '5.5 GB'), 7, 'is not such as'),
        (GOOD.replace('https', 'http'), 8, 'is not the https address'),
        (GOOD.replace('.pth', '.pt'), 8, 'is not the https address'),
        (GOOD.replace('.pth\n', '.pth\n         and more\n'), 8, 'is not the https address'),
        (GOOD.replace(' --load-from', ''), 1, 'Start: is mmresnest train'),
        (GOOD.replace('Start:   mmresnest', 'Start:   mim'), 1, 'Start: is mmresnest train'),
        (GOOD.partition('Weights:')[0] + GOOD[GOOD.index('Start:') :], 1, 'Start: is left out'),
        (expecting('box AP 42.33 on val2017.'), 5, 'with their source'),
        (expecting('box AP 42.33 on val2017 (a)'), 5, 'full stop'),
        (expecting('box AP 42.33 on test-dev (a).'), 5, 'is neither'),
        (expecting('box AP 42.33 (a).'), 5, 'is neither'),
        (expecting('box AP 42 on val2017 (a).'), 5, "'box AP 42' is no metric with a value"),
        (expecting('AP 42.3 on val2017 (a).'), 5, "'AP 42.3' is no metric with a value"),
        (expecting('box AP 42.3 (43.1 multi-scale and flip) on val2017 (a).'), 5, 'is no metric'),
        (expecting('mIoU 42.3 (43.1 flip) on ADE20K val (a).'), 5, 'is no metric'),
        (expecting('box AP 42.3, box AP 42.4 on val2017 (a).'), 5, 'given twice'),
        (expecting('box AP 142.3 on val2017 (a).'), 5, 'no percentage'),
        (expecting('no published results.'), 5, 'is neither'),
        (expecting('no published result, but box AP 42.33.'), 5, 'is neither'),
        (expecting('none.'), 5, 'is neither'),
    ],
)
def test_a_header_that_is_not_understood_is_named_with_its_line(header, text, line, why):
    with pytest.raises(SystemExit) as failure:
        header(text)
    said = str(failure.value)
    assert f'mask_rcnn_some.py, line {line}: ' in said and why in said


def test_headers_say_what_the_configs_are():
    """Without the tool's own reading: by the words of the docstring, and by the file's name."""
    assert {path.stem for path in CONFIGS} == set(MODELS)
    check_every(CONFIGS, check_header)


def check_header(path):
    header, text = ZOO.read_header(path), ast.get_docstring(ast.parse(path.read_text()))
    words = ' '.join(text.split())
    for value in header.metrics.values():
        assert value in words
    assert bool(header.metrics) != ('Expect: no published result' in words)
    assert (header.memory is not None) == ('Memory:' in words)
    assert (header.weights is not None) == ('Weights:' in words)
    arch = ZOO.arch_of(path)
    assert arch.removesuffix('_26w_4s') in path.stem and arch in VARIANTS


# What is written ---------------------------------------------------------------------------------


def test_generated_files_are_up_to_date():
    run = subprocess.run(
        [sys.executable, SCRIPT, '--check'], capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, '', '')


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The tool at work in another folder, over three configs."""
    zoo = module()
    configs = tmp_path / 'configs'
    (configs / '_base_' / 'backbones').mkdir(parents=True)
    for name in (
        'mask_rcnn_resnest50_fpn',
        'faster_rcnn_resnest50_fpn_dcn',
        'deeplabv3_resnest50_ade20k',
    ):
        text = (ROOT / 'configs' / f'{name}.py').read_text()
        # Where to start from is a config that is not among the three.
        (configs / f'{name}.py').write_text(re.sub(r'^Start: .*\n', '', text, flags=re.M))
    for name, path in (
        ('ROOT', ''),
        ('CONFIGS', 'configs'),
        ('PAGE', 'zoo.md'),
        ('FIGURES', 'complexity.json'),
        ('METAFILE', 'configs/metafile.yml'),
        ('INDEX', 'model-index.yml'),
    ):
        monkeypatch.setattr(zoo, name, tmp_path / path)
    kept = json.loads((ROOT / 'docs' / 'complexity.json').read_text())
    zoo.write_figures({path.stem: kept[path.stem] for path in configs.glob('*.py')})
    zoo.main([])
    return zoo


def test_the_check_finds_what_is_changed_or_missing(elsewhere):
    elsewhere.main(['--check'])
    elsewhere.PAGE.write_text(elsewhere.PAGE.read_text().replace('42.81', '42.18'))
    elsewhere.INDEX.unlink()
    config = elsewhere.CONFIGS / 'faster_rcnn_resnest50_fpn_dcn.py'
    config.write_text(config.read_text().replace('44.11', '44.12'))
    with pytest.raises(SystemExit) as failure:
        elsewhere.main(['--check'])
    assert str(failure.value) == (
        'zoo.py: zoo.md differs; metafile.yml differs; model-index.yml '
        'is missing. Run: python tools/zoo.py'
    )
    elsewhere.main([])
    elsewhere.main(['--check'])
    assert 'box AP 44.12' in elsewhere.PAGE.read_text()


@pytest.mark.parametrize(
    'name, change, why',
    [
        (
            'mask_rcnn_resnest50_fpn',
            ('box AP 42.81, mask AP 38.14 on val2017', 'PQ 42.81 on val2017'),
            'Mask R-CNN on COCO is scored by box AP, mask AP on val2017, not by PQ on val2017',
        ),
        (
            'deeplabv3_resnest50_ade20k',
            (
                'no published result for this recipe',
                'mIoU 42.94 on Cityscapes val (a).\nMemory:  1.0 GB (a)\n#',
            ),
            'is none of Run',
        ),
        (
            'mask_rcnn_resnest50_fpn',
            ("'_base_/backbones/resnest50.py'", "'_base_/backbones/no.py'"),
            'the backbone no is no row',
        ),
        (
            'mask_rcnn_resnest50_fpn',
            ("'_base_/backbones/resnest50.py'", "'_base_/others.py'"),
            'the backbone None is no row',
        ),
    ],
)
def test_a_config_that_contradicts_itself_is_named(elsewhere, name, change, why):
    config = elsewhere.CONFIGS / f'{name}.py'
    text = config.read_text()
    assert change[0] in text
    config.write_text(text.replace(*change))
    with pytest.raises(SystemExit, match=re.escape(why)):
        elsewhere.main(['--check'])


def test_configs_without_figures_and_figures_without_configs_are_named(elsewhere):
    config = elsewhere.CONFIGS / 'mask_rcnn_resnest50_fpn.py'
    text = config.read_text()
    config.unlink()
    with pytest.raises(SystemExit, match='of mask_rcnn_resnest50_fpn, which are no configs'):
        elsewhere.main(['--check'])
    other = config.with_stem('mask_rcnn_resnest51_fpn')
    config.write_text(text)
    other.write_text(text.replace(config.name, other.name))
    with pytest.raises(SystemExit, match='knows nothing of mask_rcnn_resnest51_fpn.*--measure'):
        elsewhere.main([])
    other.rename(config.with_stem('yolo_resnest50'))
    with pytest.raises(SystemExit, match='yolo_resnest50.py, line 1: the name begins with none of'):
        elsewhere.main([])


@pytest.mark.filterwarnings('ignore')
def test_figures_are_measured_anew_and_compared(elsewhere, monkeypatch):
    monkeypatch.setattr(elsewhere, 'CONFIGS', ROOT / 'configs')  # with its bases
    names = ['deeplabv3_resnest50_ade20k']
    measured = elsewhere.measure_configs(names)
    assert measured == {names[0]: elsewhere.read_figures()[names[0]]}
    figures = elsewhere.read_figures()
    figures[names[0]]['macs']['whole'] += 1
    elsewhere.write_figures(figures)
    monkeypatch.setattr(elsewhere, 'find_differences', list)
    with pytest.raises(SystemExit, match=f'wrong on {names[0]}.*--measure'):
        elsewhere.main(['--check', '--measure', *names])
    with pytest.raises(SystemExit, match='there is no config resnest_fcn'):
        elsewhere.main(['--check', '--measure', 'resnest_fcn'])


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', SAMPLE)
def test_stored_figures_are_what_is_counted(name):
    """A sample; ``python tools/zoo.py --measure --check`` does it for all."""
    kept = json.loads((ROOT / 'docs' / 'complexity.json').read_text())[name]
    found = complexity(name)
    assert kept == dict(shape=list(found.shape), regions=found.counted_regions(), **found.summary())


# What mim, mmengine and readers rely on ----------------------------------------------------------


def test_the_index_leads_to_the_metafile_and_the_tools_are_where_mim_looks():
    index = yaml.safe_load((MIM / 'model-index.yml').read_text())
    assert index == {'Import': ['configs/metafile.yml']}
    assert (MIM / index['Import'][0]).is_file() and (ROOT / index['Import'][0]).is_file()
    for tool in ('train.py', 'test.py'):
        assert (MIM / 'tools' / tool).is_file()


def test_every_config_has_one_entry_and_every_entry_its_config():
    assert len(MODELS) == len(METAFILE['Models'])
    assert set(MODELS) == {path.stem for path in CONFIGS}
    for name, model in MODELS.items():
        assert model['Config'] == f'configs/{name}.py' and (MIM / model['Config']).is_file()


def test_names_are_what_mim_can_find():
    """It lowers what it is asked for, and wants one file of a name among all that are shipped."""
    names = [path.name for path in (ROOT / 'configs').rglob('*.py')]
    for path in CONFIGS:
        assert path.stem == path.stem.lower() and names.count(path.name) == 1
    tools = {path.name for path in (ROOT / 'tools').glob('*.py')}
    assert not tools & {path.name for path in CONFIGS}


def test_the_tools_take_what_mim_gives_them():
    """mim adds --gpus or --device to a tool whose help knows --gpus, and starts several processes
    with torch.distributed.launch, some versions of which number them by --local-rank or its older
    spelling.
    """
    for command, given in (('train', ['config.py']), ('test', ['config.py', 'checkpoint.pth'])):
        run = subprocess.run(
            [sys.executable, MIM / 'tools' / f'{command}.py', '-h'],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode == 0 and '--launcher' in run.stdout and '--gpus' not in run.stdout
        for rank in ([], ['--local-rank=1'], ['--local_rank=1']):
            for launcher in ('none', 'pytorch', 'slurm'):
                args = build_parser().parse_args(
                    [command, *given[:1], *rank, *given[1:], '--launcher', launcher]
                )
                assert (args.config, args.launcher) == ('config.py', launcher)
                assert args.local_rank == len(rank)


def test_every_collection_is_there_with_its_paper():
    collections = {entry['Name']: entry for entry in METAFILE['Collections']}
    assert {model['In Collection'] for model in MODELS.values()} == set(collections)
    for entry in collections.values():
        assert re.fullmatch(r'https://arxiv\.org/abs/\d{4}\.\d{5}', entry['Paper']['URL'])
        assert (ROOT / entry['README']).is_file() and entry['Paper']['Title']


def test_metafile_and_page_say_what_the_header_says():
    """Every number of the header, its source and its links, and none where it has none."""
    check_every(CONFIGS, check_metafile_and_page)


def check_metafile_and_page(path):
    header, model = ZOO.read_header(path), MODELS[path.stem]
    metrics = {
        name: value
        for result in model.get('Results', [])
        for name, value in result['Metrics'].items()
    }
    assert metrics == {name: float(value) for name, value in header.metrics.items()}
    assert model['Metadata'].get('Training Memory (GB)') == header.memory
    assert model.get('Weights') == header.weights
    [row] = [
        line
        for line in PAGE.splitlines()
        if line.startswith(f'| [{path.stem}](../configs/{path.name}) |')
    ]
    _, arch, expected, source, weights, memory, params, macs = row.strip('| ').split(' | ')
    assert arch == f'`{model["Metadata"]["Architecture"][1]}`'
    if header.metrics:
        assert expected == ', '.join(f'{name} {value}' for name, value in header.metrics.items())
        assert source == header.source
    else:
        assert expected.startswith('none') and source == '-'
    assert weights == (f'[pth]({header.weights})' if header.weights else '-')
    assert memory == ('-' if header.memory is None else f'{header.memory:g}')
    assert params.split(' / ')[1] == f'{model["Metadata"]["Parameters (M)"]:.2f}'
    assert macs.split(' / ')[1] == f'{model["Metadata"]["MACs (G)"]:.2f}'


def test_the_page_says_first_that_nothing_was_trained_by_us():
    assert PAGE.startswith('# Model zoo\n')
    assert '**None of them was trained to its result by us.**' in PAGE.split('\n## ')[0]
    assert f'{len(CONFIGS)} configs.' in PAGE
    for link in re.findall(r'\]\((?!https)([^)]+)\)', PAGE):
        assert (ROOT / 'docs' / link).exists(), link


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', SAMPLE)
def test_tasks_and_backbones_are_those_of_the_loaded_config(name):
    cfg, model = configure(name), MODELS[name]
    assert model['Metadata']['Architecture'][1] == cfg.model.backbone.arch
    assert 'mmresnest.' + model['In Collection'] == cfg.model.backbone.type
    task = {'detection': 1, 'instance': 2, 'panoptic': 3, 'semantic': 2}[task_of(cfg)]
    [metrics] = [
        metrics
        for prefix, (title, metrics) in ZOO.MODELS.items()
        if title == model['Metadata']['Architecture'][0]
    ]
    assert len(metrics) == task
