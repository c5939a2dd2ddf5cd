"""Configs found and pointed at data; training, resuming and testing, each kind once."""

import json
import pickle
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from helpers import tiny
from helpers.errors import refuses
from helpers.tiers import mark_slow
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import load_checkpoint

import mmresnest
from mmresnest.config import hardware, inspect, load, paths, schedule
from mmresnest.config.checks import check_annotations
from mmresnest.config.inspect import task_of
from mmresnest.config.load import load_config
from mmresnest.config.options import ScheduleOptions, TestOptions, TrainOptions, build_options
from mmresnest.config.retarget import use_data
from mmresnest.data.base import DataFolder, Split
from mmresnest.data.folder import read_folder
from mmresnest.data.shapes.dataset import LAYOUTS, draw_dataset
from mmresnest.engine import checkpoints, distributed
from mmresnest.engine.prepare import STEPS, draw_embedded_data
from mmresnest.engine.runner import explain_build_errors, explain_run_errors
from mmresnest.engine.test import test as score
from mmresnest.engine.train import train
from mmresnest.models import weights

# mmengine, mmdet and mmseg warn of their own future at every turn.
pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('unformatted')]


# ---- finding and parsing -------------------------------------------------------------------------


def test_configs_are_found_by_name_and_path():
    shipped = load.shipped_configs()
    assert 'faster_rcnn_resnest50_fpn' in shipped
    names = (
        'faster_rcnn_resnest50_fpn',
        'faster_rcnn_resnest50_fpn.py',
        'configs/faster_rcnn_resnest50_fpn.py',
        'mmresnest::faster_rcnn_resnest50_fpn.py',
        str(shipped['faster_rcnn_resnest50_fpn']),
    )
    assert len({load.find_config(name).resolve() for name in names}) == 1
    assert load_config(names[0]).model.type == 'FasterRCNN'
    cfg = load_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco', {'model.backbone.depth': 101})
    assert cfg.model.backbone.depth == 101


@pytest.mark.parametrize(
    'name, text, code, parts',
    [
        (
            'faster_rcnn_resnet50_fpn',
            None,
            'config.missing',
            ['nearest: ', ' faster_rcnn_resnest50_fpn'],
        ),
        ('a.py', 'model = dict(\n', 'config.unparsable', ['a.py, line 1', 'model = dict(']),
        (
            'a.py',
            'x = 1\ny = undefined\n',
            'config.unparsable',
            ['a.py, line 2', 'NameError', "'undefined'"],
        ),
        (
            'a.py',
            "x = 1\n_base_ = 'b.py'\n",
            'config.base-missing',
            ['a.py, line 2', 'b.py', 'nearest: a.py'],
        ),
        (
            'a.py',
            "_base_ = 'nowhere::b.py'\n",
            'config.base-missing',
            ['a.py, line 1', "'nowhere'"],
        ),
        ('a.txt', 'x = 1\n', 'config.suffix', ['a.txt', '.py, .json or .yml']),
        ('a.json', '{"x": ', 'config.unparsable', ['a.json', 'JSONDecodeError']),
        (
            'mmdet::faster_rcnn/faster_rcnn_r50',
            None,
            'config.missing',
            ['mmdet', 'nearest: faster_rcnn/faster-rcnn_r50'],
        ),
        ('nowhere::a.py', None, 'package.missing', ["'nowhere'"]),
        ('mmresnest::nowhere.py', None, 'config.missing', ['mmresnest', 'nowhere.py', 'legal: ']),
    ],
)
def test_configs_that_cannot_be_parsed(tmp_path, monkeypatch, name, text, code, parts):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / name).write_text(text)
    with refuses(code, *parts):
        load_config(name)


def test_the_base_of_a_base_is_named(tmp_path):
    (tmp_path / 'a.py').write_text("_base_ = 'b.py'\n")
    (tmp_path / 'b.py').write_text('x = 1\nx = (\n')
    with refuses('config.unparsable', 'b.py', 'line 2'):
        load_config(tmp_path / 'a.py')


def test_options_that_do_not_fit():
    with refuses('option.settings'):
        load_config('faster_rcnn_resnest50_fpn', {'model.backbone.arch.depth.x': 3})


@pytest.mark.parametrize(
    'name, task',
    [
        ('faster_rcnn_resnest50_fpn', 'detection'),
        ('deeplabv3_resnest50_ade20k', 'semantic'),
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'detection'),
        ('mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', 'instance'),
        ('mmdet::solo/solo_r50_fpn_1x_coco.py', 'instance'),
        ('mmdet::htc/htc_r50_fpn_1x_coco.py', 'instance'),
        ('mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', 'panoptic'),
    ],
)
def test_task_of(name, task):
    cfg = load_config(name)
    assert task_of(cfg) == task
    cfg.model = dict(type='SomeTTAModel', module=cfg.model)
    assert task_of(cfg) == task


def test_a_piece_is_not_a_config():
    with refuses('config.incomplete'):
        task_of(Config(dict(train_cfg=dict())))


# ---- a user's data -------------------------------------------------------------------------------

UPSTREAM = (
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'mmdet::htc/htc_r50_fpn_1x_coco.py',  # a semantic branch
    'mmdet::ms_rcnn/ms-rcnn_r50_fpn_1x_coco.py',  # a third head
    'mmdet::point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py',  # a point head
    'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py',  # repeated, concatenated
    'mmdet::ssd/ssd300_coco.py',  # repeated
    'mmdet::yolox/yolox_s_8xb8-300e_coco.py',  # mosaics
    'mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py',  # balanced by class
    'mmdet::cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py',  # two evaluators
    'mmdet::resnest/faster-rcnn_s50_fpn_syncbn-backbone+head_ms-range-1x_coco.py',
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'mmseg::deeplabv3/deeplabv3_r50-d8_4xb4-80k_ade20k-512x512.py',
    'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-20k_voc12aug-512x512.py',  # concatenated
    'mmseg::unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py',  # repeated, binary
    'mmseg::ocrnet/ocrnet_hr18_4xb2-40k_cityscapes-512x1024.py',  # cascaded heads
)


def counts_of_classes(node, inside=''):
    """(key, number) of every number of classes below a model, but those that are always one."""
    if isinstance(node, (list, tuple)):
        for one in node:
            yield from counts_of_classes(one, inside)
    elif isinstance(node, dict):
        if 'num_classes' in node:
            yield inside, node['num_classes']
        for key, value in node.items():
            if key not in ('rpn_head', 'backbone'):
                yield from counts_of_classes(value, key)


@pytest.mark.parametrize('name', mark_slow(UPSTREAM, lambda name: name in UPSTREAM[::5]))
def test_use_data_of_any_config(shapes, name):
    cfg = load_config(name)
    folder = use_data(cfg, shapes)
    semantic = name.startswith('mmseg')
    assert folder.kind == ('ade20k' if semantic else 'coco')
    numbers = dict(counts_of_classes(cfg.model))
    assert numbers and set(numbers.values()) == {len(folder.classes)}, numbers

    inspect.import_packages(cfg)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        leaves = inspect.dataset_configs(dataset)
        assert len(leaves) == 1 and leaves[0].data_root == str(shapes)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            built = DATASETS.build(dataset)
        assert tuple(built.metainfo['classes']) == folder.classes
        times = dataset.times if 'times' in dataset else 1
        assert len(built) == times * folder.counts[split]
    paths.check_paths(cfg, ('train', 'val', 'test'))
    check_annotations(cfg, ('train', 'val', 'test'))

    for split in ('val', 'test'):
        evaluator = cfg[f'{split}_evaluator']
        if semantic:
            assert evaluator.type == 'mmseg.IoUMetric'
        else:
            metric = evaluator.metric if isinstance(evaluator.metric, list) else [evaluator.metric]
            assert evaluator.type == 'mmdet.CocoMetric'
            assert ('segm' in metric) == (task_of(cfg) == 'instance')
            assert evaluator.ann_file == str(shapes / f'{split}.json')


def test_use_data_of_semantic_masks(shapes):
    cfg = load_config('deeplabv3_resnest50_ade20k')
    # What a binary config may bring: one channel for two classes.
    cfg.model.decode_head.update(
        num_classes=2,
        out_channels=1,
        threshold=0.3,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True, class_weight=[1.0, 2.0]),
    )
    use_data(cfg, shapes)
    head = cfg.model.decode_head
    assert 'out_channels' not in head and 'threshold' not in head
    assert not head.loss_decode.use_sigmoid and 'class_weight' not in head.loss_decode
    loads = [step for step in inspect.iterate_transforms(cfg) if step['type'] == 'LoadAnnotations']
    assert len(loads) >= 3, 'in training, validation, test and augmented test'
    # What is not said there is taken from the data set.
    assert not any('reduce_zero_label' in step for step in loads)
    assert cfg.train_dataloader.dataset.reduce_zero_label is False


def test_use_data_of_panoptic_masks(tmp_path):
    folder = DataFolder(
        'panoptic',
        tmp_path,
        ('cat', 'dog', 'sky'),
        things=2,
        splits={
            name: Split(name, f'{name}.json', name, 1, 1, f'p_{name}') for name in ('train', 'val')
        },
    )
    cfg = load_config('mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py')
    use_data(cfg, folder)
    for head in (cfg.model.semantic_head, cfg.model.panoptic_fusion_head):
        assert (head.num_things_classes, head.num_stuff_classes) == (2, 1)
    assert cfg.model.roi_head.bbox_head.num_classes == 2
    leaf = cfg.test_dataloader.dataset
    assert leaf.data_prefix == dict(img='val', seg='p_val')
    assert leaf.metainfo.stuff_classes == ('sky',)
    assert cfg.test_evaluator.seg_prefix == str(tmp_path / 'p_val')


def test_use_data_refuses(shapes, tmp_path):
    with refuses('data.other-kind', 'ade20k'):
        use_data(load_config('deeplabv3_resnest50_ade20k'), read_folder(shapes))
    maskless = DataFolder('coco', tmp_path, ('cat',), maskless='annotation 3 has no "segmentation"')
    with refuses('data.no-masks', 'annotation 3'):
        use_data(load_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'), maskless)
    plain = draw_dataset(
        tmp_path / 'plain', train=1, val=1, test=0, size=(64, 64), layouts='coco', progress=False
    )
    with refuses('data.no-annotations', 'panoptic_train.json', 'COCO', 'mask_rcnn'):
        use_data(load_config('mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py'), plain)


def test_the_way_of_a_config():
    """The order is the design: cheap before expensive, nothing written before all is checked."""
    names = [step.__name__ for step, *_ in STEPS]
    rooms = [step.__module__ for step, *_ in STEPS]
    assert sum(one != two for one, two in zip(rooms, rooms[1:])) == 18  # few ways between files
    assert names == [
        'set_architecture',
        'use_data_folder',
        'select_classes',
        'start_from_scratch',
        'shrink_config',
        'set_strategy',
        'set_schedule',
        'check_keys',
        'merge_options',
        'limit_regions',
        'check_paths',
        'require_loops',
        'set_work_dir',
        'set_launcher',
        'resolve_checkpoint',
        'set_start',
        'import_packages',
        'configure_safety',
        'configure_evaluators',
        'configure_loggers',
        'use_fast_evaluation',
        'note_command',
        'allow_mismatch',
        'set_randomness',
        'use_amp',
        'scale_learning_rate',
        'check_compiler',
        'configure_model_wrapper',
        'configure_norms',
        'configure_loaders',
        'configure_scoring',
        'configure_strategy',
        'check_annotations',
        'name_visualizer',
        'make_work_dir',
    ]


def test_every_option_of_a_training_is_read():
    """By a step, by the schedule that a step sets, or by the run itself."""
    read = {name for _, *names in STEPS for name in names}
    text = Path(schedule.__file__).read_text(encoding='utf-8')
    plain = {one.name for one in fields(ScheduleOptions)}
    assert 'plain_options' in read
    assert {name for name in plain if f'options.{name}' not in text} == set()
    assert {one.name for one in fields(TrainOptions)} - read - plain == {'progress', 'save_memory'}
    assert all(hasattr(TrainOptions(), name) or hasattr(TestOptions(), name) for name in read)


def test_options_by_keyword(caplog):
    made = build_options(TrainOptions, TrainOptions(amp=True), dict(seed=3, scratch=True))
    assert made == TrainOptions(amp=True, seed=3, from_scratch=True)
    assert 'scratch is called from_scratch now' in caplog.text
    with refuses('option.unknown', "'lunacher'"):
        train('any', lunacher='pytorch')
    with refuses('option.unknown', 'TrainOptions'):
        train('any', TestOptions())


def test_data_drawn_for_the_demo(tmp_path, monkeypatch):
    """Drawn in all layouts, and used again where it has the one that is asked for."""
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(
        'mmresnest.data.shapes.dataset.draw_dataset', lambda folder, **more: asked.append(more)
    )
    draw_embedded_data('coco')
    draw_dataset(
        'data/shapes', train=1, val=1, test=0, size=(64, 64), layouts='coco', progress=False
    )
    draw_embedded_data('coco')
    assert [one['layouts'] for one in asked] == [LAYOUTS, ['coco']]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    with refuses('shapes.folder-taken', 'data/shapes', 'train=1,'):
        draw_embedded_data('panoptic')


# ---- before a run --------------------------------------------------------------------------------


def test_no_coco_is_one_message(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refuses(
        'data.missing',
        tmp_path / 'data/coco/annotations/instances_train2017.json',
        'https://cocodataset.org',
        'train2017.zip',
        '--data',
        '--demo',
    ):
        train('faster_rcnn_resnest50_fpn')
    assert not list(tmp_path.iterdir()), 'a refused run leaves nothing behind'


@pytest.mark.parametrize(
    'name, folder, source',
    [
        ('deeplabv3_resnest50_ade20k', 'data/ade', 'ADEChallengeData2016.zip'),
        (
            'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
            'data/cityscapes',
            'cityscapes-dataset.com',
        ),
    ],
)
def test_where_other_sets_come_from(tmp_path, monkeypatch, name, folder, source):
    monkeypatch.chdir(tmp_path)
    with refuses('data.missing', tmp_path / folder, source):
        paths.check_paths(load_config(name))


def test_settle_norms(monkeypatch):
    cfg = load_config('faster_rcnn_resnest50_fpn')
    assert cfg.pretty_text.count("type='SyncBN'") >= 3
    count = hardware.configure_norms(cfg, distributed=False)
    model = Config(cfg.model.to_dict()).pretty_text
    assert count >= 3 and 'SyncBN' not in model and "type='BN'" in model
    assert hardware.configure_norms(cfg, distributed=False) == 0
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = load_config('faster_rcnn_resnest50_fpn')
    assert hardware.configure_norms(cfg, distributed=True) == 0
    assert hardware.configure_norms(cfg, distributed=False) == count


def test_settle_loaders():
    cfg = Config(
        dict(
            train_dataloader=dict(num_workers=0, persistent_workers=True),
            val_dataloader=dict(num_workers=2, persistent_workers=True),
        )
    )
    hardware.configure_loaders(cfg)
    assert cfg.train_dataloader == dict(num_workers=0)
    assert cfg.val_dataloader.persistent_workers


def test_no_more_workers_than_processors_unless_asked_for(monkeypatch):
    monkeypatch.setattr(hardware, 'count_processors', lambda: 6)
    for name in ('LOCAL_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_SIZE', 'MPI_LOCALNRANKS'):
        monkeypatch.delenv(name, raising=False)

    def settle(number, *given):
        cfg = Config(dict(train_dataloader=dict(num_workers=number, persistent_workers=True)))
        hardware.configure_loaders(cfg, *given)
        return cfg.train_dataloader.num_workers

    assert [settle(number) for number in (0, 4, 8)] == [0, 4, 6]
    assert settle(8, 8) == settle(8, None, {'train_dataloader.num_workers': 8}) == 8
    assert settle(8, None, {'test_dataloader.num_workers': 8}) == 6
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    assert settle(8) == 1


def test_launchers(monkeypatch):
    assert distributed.rank_and_world_size('none') == (0, 0, 1)
    for name in ('SLURM_PROCID', 'RANK', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.delenv(name, raising=False)
    for launcher, variable, command in (
        ('pytorch', 'RANK', 'torchrun'),
        ('slurm', 'SLURM_PROCID', 'srun'),
        ('mpi', 'OMPI_COMM_WORLD_RANK', 'mpirun'),
    ):
        with refuses('launcher.environment', f'--launcher {launcher}', f"'{variable}'", command):
            distributed.rank_and_world_size(launcher)
    with refuses('option.unknown', 'legal: none, pytorch'):
        distributed.rank_and_world_size('ray')
    monkeypatch.setenv('SLURM_PROCID', '3')
    monkeypatch.setenv('SLURM_LOCALID', '1')
    monkeypatch.setenv('SLURM_NTASKS', '4')
    assert distributed.rank_and_world_size('slurm') == (3, 1, 4)
    monkeypatch.setenv('SLURM_NNODES', '1')
    monkeypatch.setenv('SLURM_NODELIST', 'here')
    monkeypatch.setenv('PATH', '')
    assert distributed._first_host('slurm') == '127.0.0.1'
    monkeypatch.setenv('SLURM_NNODES', '2')
    with refuses('launcher.environment', 'MASTER_ADDR'):
        distributed._first_host('slurm')


def test_what_mmengine_raises_is_explained(tmp_path):
    cfg = Config(dict(train_dataloader=dict(dataset=dict(data_root='d', ann_file='a.json'))))
    from mmengine.registry import HOOKS, MODELS

    ours = dict(type='mmresnest.ResNeSt', arch='resnest50')
    for build, code, wrong, near in (
        (
            lambda: HOOKS.build(dict(type='CheckpointHok')),
            'config.type-unknown',
            "'CheckpointHok'",
            'CheckpointHook',
        ),
        (
            lambda: HOOKS.build(dict(type='LoggerHook', intervals=3)),
            'config.unbuildable',
            "'intervals'",
            'interval',
        ),
        (
            lambda: MODELS.build(dict(ours, arch='resnest51')),
            'argument.value',
            "'resnest51'",
            'resnest50',
        ),
        (lambda: MODELS.build(dict(ours, radixx=2)), 'argument.unknown', "'radixx'", 'radix'),
    ):
        with refuses(code, wrong, f'nearest: {near}'), explain_build_errors(cfg):
            build()
    with refuses('data.no-images', 'd/a.json'), explain_build_errors(cfg):
        raise ValueError('need at least one array to concatenate')
    with pytest.raises(ZeroDivisionError), explain_build_errors(cfg):
        raise ZeroDivisionError
    with refuses('data.missing', 'x/y.jpg'), explain_run_errors(cfg):
        open('x/y.jpg')
    logits, labels = torch.zeros(1, 6), torch.tensor([7])
    with refuses('data.label-range', 'label 7', 'num_classes', 'd/a.json'), explain_run_errors(cfg):
        torch.nn.functional.cross_entropy(logits, labels)
    with pytest.raises(IndexError), explain_run_errors(cfg):
        raise IndexError('list index out of range')
    with refuses('data.missing', 'x/y.jpg'), explain_run_errors(cfg):
        raise FileNotFoundError(
            'Caught FileNotFoundError in DataLoader worker process 0.\n'
            'Original Traceback ...\n'
            "FileNotFoundError: [Errno 2] No such file: 'x/y.jpg'"
        )


# ---- checkpoints ---------------------------------------------------------------------------------


def test_last_checkpoint(tmp_path):
    assert checkpoints.find_last(tmp_path) is None
    for epoch in (1, 2, 10):
        torch.save(dict(state_dict=dict(w=torch.ones(1))), tmp_path / f'epoch_{epoch}.pth')
    assert checkpoints.find_last(tmp_path).name == 'epoch_10.pth'
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    assert checkpoints.find_last(tmp_path).name == 'epoch_2.pth'
    # The folder was moved; the note names the old place.
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_1.pth')
    assert checkpoints.find_last(tmp_path).name == 'epoch_1.pth'
    # Killed while saving: the noted one is deleted, the newest is cut off.
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_9.pth'))
    whole = (tmp_path / 'epoch_10.pth').read_bytes()
    (tmp_path / 'epoch_10.pth').write_bytes(whole[: len(whole) // 2])
    assert checkpoints.find_last(tmp_path).name == 'epoch_2.pth'


def write_junk(path, kind):
    if kind == 'text':
        path.write_text('weights, promised')
    elif kind == 'empty':
        path.touch()
    elif kind == 'cut':
        torch.save(dict(state_dict=dict(w=torch.ones(100))), path)
        path.write_bytes(path.read_bytes()[:300])
    elif kind == 'tensor':
        torch.save(torch.ones(3), path)
    elif kind == 'weightless':
        torch.save(dict(meta=dict(epoch=3)), path)
    elif kind == 'pickle':
        path.write_bytes(pickle.dumps(dict(a=1)))
    elif kind == 'folder':
        path.mkdir()


@pytest.mark.parametrize(
    'kind, code',
    [
        ('missing', 'checkpoint.missing'),
        ('text', 'checkpoint.unreadable'),
        ('empty', 'checkpoint.unreadable'),
        ('cut', 'checkpoint.unreadable'),
        ('tensor', 'checkpoint.unreadable'),
        ('weightless', 'checkpoint.no-weights'),
        ('pickle', 'checkpoint.unreadable'),
        ('folder', 'checkpoint.missing'),
    ],
)
def test_files_that_are_no_checkpoint(tmp_path, kind, code):
    path = tmp_path / 'a.pth'
    write_junk(path, kind)
    with refuses(code, path):
        checkpoints.read_checkpoint(path)


def test_checkpoints_of_other_models():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = model.state_dict()
    checkpoints.check_fit('a.pth', dict(state_dict=state), model)
    wrapped = {f'module.{name}': value for name, value in state.items()}
    checkpoints.check_fit('a.pth', dict(state_dict=wrapped), model)
    other = {f'other.{name}': value for name, value in state.items()}
    with refuses('checkpoint.other-model', '0 of', '6 weights'):
        checkpoints.check_fit('a.pth', dict(state_dict=other), model)
    wider = {**state, '0.bias': torch.ones(7)}
    with refuses('checkpoint.other-shapes', '0.bias', '(7,)', '(4,)', '--data'):
        checkpoints.check_fit('a.pth', dict(state_dict=wider), model)


class Detector(torch.nn.Module):
    """A backbone of ours and a head."""

    def __init__(self, **backbone):
        super().__init__()
        self.backbone = mmresnest.build_backbone('resnest14', **backbone)
        self.head = torch.nn.Linear(2, 2)


@pytest.mark.parametrize('layout', sorted({*weights.LAYOUTS} - {'dla'}))  # of trees only
@pytest.mark.parametrize('outer', ['', 'module.'])
def test_a_checkpoint_fits_in_whatever_layout_its_backbone_is(tmp_path, layout, outer):
    """That is, where loading fills the backbone from it."""
    arguments = {
        'mmdet-gn': dict(norm=lambda width: torch.nn.GroupNorm(8, width)),
        'cadene': dict(ceil_pool=True),
    }.get(layout, {})
    model, trained = Detector(in_channels=4, **arguments), Detector(**arguments)
    inside = weights.convert(trained.backbone.state_dict(), layout)
    state = {'backbone.' + key.removeprefix('backbone.'): value for key, value in inside.items()}
    state.update({f'head.{key}': value for key, value in trained.head.state_dict().items()})
    state = {outer + key: value for key, value in state.items()}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    checkpoints.check_fit('a.pth', dict(state_dict=state), model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')
    load_checkpoint(model, str(tmp_path / 'a.pth'), strict=True)
    assert torch.equal(
        model.backbone.layer4[0].conv3.weight, trained.backbone.layer4[0].conv3.weight
    )


def test_checkpoints_of_other_backbones_are_still_told():
    model = Detector()
    state = {key: value for key, value in model.state_dict().items() if 'backbone' not in key}
    state.update(
        {
            'backbone.' + key: value
            for key, value in weights.convert(
                mmresnest.build_backbone('resnest26').state_dict(), 'official'
            ).items()
        }
    )
    short = {key: value for key, value in state.items() if '.layer3.' not in key}
    with refuses('checkpoint.other-model', 'backbone.layer3'):
        checkpoints.check_fit('a.pth', dict(state_dict=short), model)
    with refuses('checkpoint.other-shapes', 'a.pth', 'backbone.layer2.0.conv3.weight'):
        state['backbone.layer2.0.conv3.weight'] = torch.zeros(3, 3, 1, 1)
        checkpoints.check_fit('a.pth', dict(state_dict=state), model)
    foreign = {f'backbone.blocks.{key}': value for key, value in state.items()}
    with refuses('checkpoint.other-model', '0 of'):
        checkpoints.check_fit('a.pth', dict(state_dict=foreign), model)


# ---- runs ----------------------------------------------------------------------------------------

MAIN_SCORE = {'detection': 'coco/bbox_mAP', 'instance': 'coco/segm_mAP', 'semantic': 'mIoU'}


@pytest.fixture(scope='module')
def runs(shapes, tmp_path_factory):
    """Trains the tiny config of a kind, once."""
    folder, done = tmp_path_factory.mktemp('runs'), {}

    def run(kind):
        if kind not in done:
            path = tiny.write(folder, kind)
            done[kind] = path, train(path, data=shapes, work_dir=folder / kind, seed=0)
        return done[kind]

    return run


@pytest.mark.parametrize(
    'kind', mark_slow(['detection', 'instance', 'semantic'], lambda kind: kind == 'detection')
)
def test_train_resume_test(runs, shapes, tmp_path, kind):
    path, result = runs(kind)
    assert MAIN_SCORE[kind] in result.metrics and result.seconds > 0
    assert all(isinstance(value, float) for value in result.metrics.values())
    assert {picture.name for picture in result.pictures} == {'predictions.png', 'curves.png'}
    before = checkpoints.read_checkpoint(result.checkpoint)
    assert before['meta']['iter'] == 2

    longer = {'semantic': {'train_cfg.max_iters': 4}}.get(kind, {'train_cfg.max_epochs': 2})
    cfg = load_config(path, longer)
    use_data(cfg, shapes)  # beforehand, so that no pictures are drawn again
    resumed = train(cfg, work_dir=result.work_dir, seed=0, resume='auto')
    assert not resumed.pictures
    after = checkpoints.read_checkpoint(resumed.checkpoint)
    assert after['meta']['iter'] == 4 and resumed.metrics
    assert any(
        not torch.equal(before['state_dict'][name], after['state_dict'][name])
        for name in before['state_dict']
    )

    out = tmp_path / 'all.pkl'
    scored = score(
        path,
        resumed.checkpoint,
        data=shapes,
        work_dir=tmp_path,
        out=out,
        show_dir=tmp_path / 'shown',
    )
    assert MAIN_SCORE[kind] in scored.metrics
    assert len(pickle.loads(out.read_bytes())) == 2
    assert len(list((tmp_path / 'shown').glob('*.png'))) == 2
    assert scored.files == [out, tmp_path / 'shown']


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['detection', 'instance', 'semantic'])
def test_augmented_testing(runs, shapes, tmp_path, kind):
    path, result = runs(kind)
    out = tmp_path / ('labels' if kind == 'semantic' else 'found.json')
    scored = score(path, result.checkpoint, data=shapes, work_dir=tmp_path, tta=True, out=out)
    assert {'semantic': 'mIoU'}.get(kind, 'coco/bbox_mAP') in scored.metrics
    assert 'coco/segm_mAP' not in scored.metrics, 'mmdet merges boxes only'
    if kind == 'semantic':
        assert len(list(out.glob('*.png'))) == 2
    else:
        images = {image['id'] for image in json.loads((shapes / 'test.json').read_text())['images']}
        found = json.loads(out.read_text())
        assert found and {one['image_id'] for one in found} <= images


def test_checkpoint_of_other_data(runs, shapes, tmp_path):
    path, result = runs('detection')
    cfg = load_config(path)
    use_data(cfg, shapes)
    cfg.model.roi_head.bbox_head.num_classes = 3
    cfg.test_dataloader.dataset.metainfo = dict(
        classes=cfg.test_dataloader.dataset.metainfo.classes[:3]
    )
    with refuses('checkpoint.other-classes', "'triangle'", "'star'", "'cross'"):
        score(cfg, result.checkpoint, work_dir=tmp_path)
    cfg = load_config(path)
    use_data(cfg, shapes)
    cfg.model.roi_head.bbox_head.fc_out_channels += 1
    with refuses('checkpoint.other-shapes', 'fc_cls', '--data'):
        score(cfg, result.checkpoint, work_dir=tmp_path)
    with refuses('option.suffix', '.pkl', '.json'):
        score(path, result.checkpoint, data=shapes, work_dir=tmp_path, out=tmp_path / 'out.csv')


def test_nothing_to_resume(shapes, tmp_path):
    path, work = load_config(tiny.write(tmp_path, 'detection')), tmp_path / 'work'
    with refuses('resume.nothing', '--resume'):
        train(path, data=shapes, work_dir=work, resume='auto')
    assert not work.exists()
    with refuses('checkpoint.missing'):
        train(path, data=shapes, work_dir=work, resume=str(tmp_path / 'a.pth'))
    torch.save(dict(state_dict=dict(w=torch.ones(1))), tmp_path / 'a.pth')
    with refuses('resume.weights-only', 'load_from'):
        train(path, data=shapes, work_dir=work, resume=str(tmp_path / 'a.pth'))


def test_config_is_left_alone(shapes):
    cfg = load_config('faster_rcnn_resnest50_fpn')
    before = cfg.pretty_text
    with refuses('resume.nothing'):
        train(cfg, data=shapes, resume='auto')
    assert cfg.pretty_text == before


@pytest.mark.slow
def test_image_lost_since(tmp_path, monkeypatch):
    data = draw_dataset(
        tmp_path / 'data', train=2, val=1, test=0, size=(64, 64), layouts='coco', progress=False
    )

    def check_and_lose(*arguments):
        check_annotations(*arguments)
        (data / 'train' / '000001.jpg').unlink()

    steps = [
        (check_and_lose if step is check_annotations else step, *names) for step, *names in STEPS
    ]
    monkeypatch.setattr('mmresnest.engine.prepare.STEPS', steps)
    path, work = tiny.write(tmp_path, 'detection'), tmp_path / 'work'
    with refuses('data.missing', data / 'train' / '000001.jpg', path):
        train(path, data=data, work_dir=work, cfg_options={'default_hooks.images': None})
    shutil.copy(data / 'train' / '000000.jpg', data / 'train' / '000001.jpg')
    train(path, data=data, work_dir=work)  # skipped where images are watched
    assert 'train/000001.jpg' in (work / 'bad_images.jsonl').read_text()


@pytest.mark.slow
def test_amp_on_a_cpu_and_scaled_rate(shapes, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('this machine has a GPU, where float16 is used')
    seen = set()
    forward = torch.nn.Conv2d.forward

    def watched(self, x):
        result = forward(self, x)
        if self.training:
            seen.add(result.dtype)
        return result

    path = tiny.write(tmp_path, 'detection')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Conv2d, 'forward', watched)
        result = train(path, data=shapes, work_dir=tmp_path / 'work', amp=True, auto_scale_lr=True)
    assert torch.bfloat16 in seen and result.metrics
    content = checkpoints.read_checkpoint(result.checkpoint)
    assert all(value.dtype != torch.bfloat16 for value in content['state_dict'].values())
    # The learning rate is for 16 images a step, and two are taken.
    rate = content['optimizer']['param_groups'][0]['initial_lr']
    assert rate == pytest.approx(0.02 * 2 / 16)


def test_auto_scale_lr_needs_a_base(shapes, tmp_path):
    cfg = load_config(tiny.write(tmp_path, 'detection'))
    cfg.pop('auto_scale_lr')
    with refuses('config.incomplete', 'base_batch_size'):
        train(cfg, data=shapes, work_dir=tmp_path / 'other', auto_scale_lr=True)
