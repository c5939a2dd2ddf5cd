"""``--arch``: a network put into our configs and into those of mmdet and mmseg, all of them."""

import importlib
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from helpers.detectors import DETECTORS
from helpers.errors import refuses
from helpers.fake_timm import make_fake_timm
from helpers.maps import backbone_of, build, check_maps
from helpers.tiers import mark_slow
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmresnest.analysis.memory import make_sample
from mmresnest.config.architecture import IDENTITY, KEPT, RESNETS, set_architecture
from mmresnest.config.inspect import iterate_dicts, iterate_transforms, task_of, type_of
from mmresnest.config.load import load_config, shipped_folder
from mmresnest.config.retarget import start_from_scratch
from mmresnest.engine.prepare import configure, prepare
from mmresnest.errors import UserError
from mmresnest.models.variants import DETECTOR_PIXELS, IMAGENET_PIXELS

pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('kept_bases')]

ROOT = Path(__file__).resolve().parents[2]
RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
ARCHS = ('resnest50', 'seresnext50_32x4d', 'res2net50_v1b_26w_4s')
"""Each config has one of them, in turn."""


def folders_of(package: str) -> list[Path]:
    """The folders of a package's configs; ours are flat."""
    if package == 'mmresnest':
        return [shipped_folder()]
    if importlib.util.find_spec(package) is None:
        return []
    root = Path(importlib.import_module(package).__file__).parent / '.mim' / 'configs'
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name != '_base_')


FOLDERS = [folder for package in ('mmdet', 'mmseg') for folder in folders_of(package)]

# folder: start of the names -> the code of the refusal; docs/own_config.md says why
REFUSED = {
    'deepsort': {'': 'arch.part'},  # a second network tells objects apart
    'strongsort': {'': 'arch.part'},
    'empirical_attention': {'': 'arch.setting'},  # plugins
    'gcnet': {
        '': 'arch.setting',
        'gcnet_': None,  # mmseg's, whose context is in the head
        'mask-rcnn_r50-syncbn_': None,
        'mask-rcnn_r101-syncbn_': None,
        'mask-rcnn_x101-32x4d-syncbn_': None,
        'cascade-mask-rcnn_x101-32x4d-syncbn_': None,
        'cascade-mask-rcnn_x101-32x4d-syncbn-dconv-c3-c5_fpn': None,
    },
    'groie': {'mask-rcnn_r50_fpn_syncbn': 'arch.setting', 'mask-rcnn_r101_': 'arch.setting'},
    'gn': {
        '': 'arch.norm',
        'mask-rcnn_r50-contrib_fpn_gn-all_2x': 'argument.value',  # 104 channels in 32 groups
    },
    'gn+ws': {'': 'argument.value'},  # conv_cfg
    'faster_rcnn': {'faster-rcnn_r50-caffe-c4': 'arch.part'},  # the last stage in the head
    'pascal_voc': {'faster-rcnn_r50-caffe-c4': 'arch.part'},
    'mask_rcnn': {'mask-rcnn_r50-caffe-c4': 'arch.part'},
}
"""Of the configs with a ResNet, those that ``--arch`` refuses."""

UNBUILDABLE = {
    'carafe': '',  # its operator is in compiled mmcv alone
    'cascade_rpn': 'cascade-rpn_',  # mmdet's own head lacks num_classes
    'dyhead': '',  # offsets of a larger map than the input, which compiled mmcv alone reads
    'grounding_dino': '',  # fairscale, and a language model from the net
    'lad': '',  # fetch the weights of their teacher
    'ld': '',
    'mask2former': 'mask2former_r101_8xb2-160k_ade20k',  # mmseg's reads values, which meta lacks
    'psanet': '',  # as carafe
}
"""Those that do not build here with the network that they have, either."""

OPTIONAL = ('skimage', 'motmetrics')  # what OpenMMLab's last mmdet asks for in a few models


def expected_refusal(path: Path) -> str | None:
    """The code of the longest start of a name that is listed."""
    listed = REFUSED.get(path.parent.name, {})
    found = [start for start in listed if path.stem.startswith(start)]
    return listed[max(found, key=len)] if found else None


def arrangement_of(cfg: Config) -> str:
    """The types of a model's parts, and what its backbone is asked for: not depths and widths."""
    asked = {key: value for key, value in backbone_of(cfg).items() if key not in IDENTITY}
    return str(([node.get('type') for node in iterate_dicts(cfg.model)], asked))


def load_foreign(path: Path) -> Config | None:
    """A config of another package with a ResNet; None where it has none, or lacks a package."""
    try:
        cfg = Config.fromfile(path)
    except (ImportError, FileNotFoundError):
        return None
    if not isinstance(cfg.get('model'), dict) or type_of(backbone_of(cfg)) not in RESNETS:
        return None
    return None if str(backbone_of(cfg)['type']).startswith('mmpretrain') else cfg


BUILT: set[tuple[Path, str]] = set()
"""Package and arrangement of what was built: that of another folder is not built again."""


def test_the_page_names_the_exceptions():
    page = (ROOT / 'docs' / 'own_config.md').read_text('utf-8')
    assert [name for name in (*REFUSED, *UNBUILDABLE) if f'`{name}`' not in page] == []


@pytest.mark.parametrize(
    'folder',
    mark_slow(FOLDERS, lambda folder: folder.name in ('autoassign', 'sem_fpn')),
    ids=lambda folder: f'{folder.parents[1].parent.name}-{folder.name}',
)
def test_every_config_with_a_resnet(folder, uninitialized):
    """Builds, and its neck and decode heads read the maps; those listed are refused."""
    seen, failures = set(), []
    for number, path in enumerate(sorted(folder.glob('*.py'))):
        cfg = load_foreign(path)
        key = cfg and arrangement_of(cfg)
        if cfg is None or key in seen:
            continue
        seen.add(key)
        arch = ARCHS[number % len(ARCHS)]
        code = expected_refusal(path)
        try:
            set_architecture(cfg, arch, trains=True)
        except UserError as error:
            if error.code != code:
                failures.append(f'{path.stem}: {error.code}, {error}')
            continue
        if code is not None:
            failures.append(f'{path.stem}: not refused')
        if (
            path.stem.startswith(UNBUILDABLE.get(folder.name, '?'))
            or (folder.parents[1], key) in BUILT
        ):
            continue
        BUILT.add((folder.parents[1], key))
        try:
            check_maps(cfg)
        except Exception as error:  # all that fail are told
            if str(error).split(' ')[0] in OPTIONAL and 'is not installed' in str(error):
                continue
            failures.append(f'{path.stem}: {type(error).__name__}: {error}')
    assert not failures, '\n'.join(failures)


@pytest.mark.slow
def test_every_config_of_ours(uninitialized):
    seen = set()
    for number, path in enumerate(sorted(shipped_folder().glob('*.py'))):
        cfg = load_config(path)
        set_architecture(cfg, ARCHS[number % len(ARCHS)], trains=True)
        if (key := str(cfg.model)) not in seen:
            seen.add(key)
            check_maps(cfg)


KINDS = (
    *DETECTORS,
    'faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco',
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
    'pafpn/faster-rcnn_r50_pafpn_1x_coco',
    'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco',
    'rpn/rpn_r50_fpn_1x_coco',
)
"""One config of each kind of detector; all segmentors predict in shape, above."""


@pytest.mark.parametrize(
    'name', mark_slow(KINDS, lambda name: name.startswith('retinanet')), ids=lambda name: name
)
def test_every_kind_of_detector_predicts(name):
    from mmdet.structures import DetDataSample

    cfg = load_config(f'mmdet::{name}')
    set_architecture(cfg, 'resnest14', trains=True)
    for node in iterate_dicts(cfg.model.get('test_cfg')):  # few proposals for the second stages
        node.update({key: 50 for key in ('nms_pre', 'max_per_img') if key in node})
    model = build(cfg).eval()
    side = 256 if name.startswith('dino') else 128  # as many places as it has queries
    size = (side, side)
    sample = DetDataSample(
        metainfo=dict(
            img_shape=size,
            ori_shape=size,
            pad_shape=size,
            batch_input_shape=size,
            scale_factor=(1.0, 1.0),
            border=(0, side, 0, side),
            img_id=0,
        )
    )
    with torch.no_grad():
        found = model(torch.randn(1, 3, *size), [sample], mode='predict')
    assert len(found) == 1 and any(key.startswith('pred_') for key in found[0].keys())


def test_sets_network_weights_pixels_and_channels():
    """And keeps what the config says of training it."""
    before, cfg = load_config(RETINANET), configure(RETINANET, arch='resnest101')
    assert cfg.model.backbone == dict(
        type='mmresnest.ResNeSt',
        arch='resnest101',
        **{key: before.model.backbone[key] for key in KEPT if key in before.model.backbone},
        init_cfg=dict(type='Pretrained', checkpoint='mmresnest://resnest101'),
    )
    assert cfg.model.backbone.frozen_stages == 1 and cfg.model.backbone.norm_eval
    pixels = DETECTOR_PIXELS['ResNeSt']
    assert cfg.model.data_preprocessor.mean == pixels['mean']
    assert cfg.model.data_preprocessor.std == pixels['std']
    assert cfg.model.neck.in_channels == [256, 512, 1024, 2048]
    without = [cfg.to_dict()['model'], before.to_dict()['model']]
    for model in without:
        model.pop('backbone'), model.pop('data_preprocessor')
    assert without[0] == without[1]


def test_caffe_pixels_become_rgb():
    cfg = configure('mmdet::retinanet/retinanet_r50-caffe_fpn_1x_coco.py', arch='seresnext50_32x4d')
    given = cfg.model.data_preprocessor
    assert given.bgr_to_rgb and given.mean == IMAGENET_PIXELS['mean']
    assert given.std == IMAGENET_PIXELS['std'] and given.pad_size_divisor == 32
    assert cfg.model.backbone.norm_cfg.requires_grad is False
    assert 'style' not in cfg.model.backbone


@pytest.mark.parametrize('to_rgb', [True, False])
def test_what_is_filled_up_has_the_mean_of_the_network(to_rgb):
    cfg = load_config('mmdet::yolact/yolact_r50_1xb8-55e_coco.py')
    steps = [one for one in iterate_transforms(cfg) if one['type'] == 'Expand']
    for step in steps:
        step.update(to_rgb=to_rgb, mean=step['mean'][:: 1 if to_rgb else -1])
    set_architecture(cfg, 'resnest50')
    mean = DETECTOR_PIXELS['ResNeSt']['mean']
    assert cfg.model.data_preprocessor.mean == mean
    assert steps and all(step['mean'] == mean[:: 1 if to_rgb else -1] for step in steps)


@pytest.mark.parametrize('channels', [1, 4])
def test_pixels_of_other_channels_stay(channels):
    """A network says nothing of them."""
    given = dict(mean=[10.0] * channels, std=[2.0] * channels, bgr_to_rgb=False)
    cfg = load_config(RETINANET)
    cfg.model.backbone.in_channels = channels
    cfg.model.data_preprocessor.update(given)
    set_architecture(cfg, 'dla60')
    assert cfg.model.backbone.in_channels == channels
    assert {key: cfg.model.data_preprocessor[key] for key in given} == given


def test_what_a_tree_cannot_do_is_refused():
    cfg = load_config('mmseg::deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024.py')
    cfg.model.backbone.multi_grid = (1, 2, 4)
    with refuses('argument.unknown', 'multi_grid', 'DLA'):
        set_architecture(cfg, 'dla60')


def test_deformable_convolutions_stay():
    path = 'mmdet::dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py'
    before, cfg = load_config(path), configure(path, arch='res2net50_v1b_26w_4s')
    assert cfg.model.backbone.dcn == before.model.backbone.dcn
    assert tuple(cfg.model.backbone.stage_with_dcn) == (False, True, True, True)


@pytest.mark.slow
def test_deformable_convolutions_in_a_process_of_its_own():
    """Where nothing has imported mmcv's operators yet."""
    program = (
        'from mmresnest.engine.prepare import configure\n'
        "cfg = configure('faster_rcnn_resnest50_fpn_dcn', arch='resnest101')\n"
        'print(cfg.model.backbone.arch, cfg.model.backbone.dcn.type)'
    )
    run = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert run.stdout.split() == ['resnest101', 'DCNv2'], run.stderr


def test_segmentor():
    path = 'mmseg::deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py'
    cfg = configure(path, arch='resnest50')
    assert cfg.model.pretrained is None
    assert cfg.model.backbone.strides == (1, 2, 1, 1) and cfg.model.backbone.contract_dilation
    assert (cfg.model.decode_head.in_channels, cfg.model.decode_head.c1_in_channels) == (2048, 256)
    assert cfg.model.auxiliary_head.in_channels == 1024
    assert cfg.model.data_preprocessor.mean == IMAGENET_PIXELS['mean']


def test_heads_of_a_detector_without_a_neck():
    cfg = configure('mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py', arch='resnest50')
    before = load_config('mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py')
    assert cfg.model.rpn_head == before.model.rpn_head  # 2048 channels in both networks
    cfg = before
    cfg.model.rpn_head.in_channels = cfg.model.roi_head.bbox_head.in_channels = 512
    cfg.model.roi_head.bbox_roi_extractor.out_channels = 512
    set_architecture(cfg, 'resnest50')
    assert cfg.model.rpn_head.in_channels == cfg.model.roi_head.bbox_head.in_channels == 2048
    assert cfg.model.roi_head.bbox_roi_extractor.out_channels == 2048


def test_weights():
    """Those of the former network go, and a config without any has none afterwards."""
    path = 'mmdet::cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py'
    assert load_config(path).load_from and configure(path, arch='resnest50').load_from is None
    path = (
        'mmdet::strong_baselines/mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-100e_coco.py'
    )
    assert configure(path, arch='resnest50').model.backbone.init_cfg is None
    scratch = prepare(RETINANET, arch='seresnet101', splits=(), demo=False)
    assert scratch.model.backbone.init_cfg is None  # not to be trained here
    with refuses('weights.unpublished', 'seresnet101'):
        set_architecture(load_config(RETINANET), 'seresnet101', trains=True)
    set_architecture(load_config(RETINANET), 'seresnet101', trains=True, from_scratch=True)


@pytest.mark.parametrize(
    'config, arch, code, part',
    [
        (RETINANET, 'resnest51', 'argument.value', 'resnest50'),
        ('mmdet::yolox/yolox_s_8xb8-300e_coco.py', 'resnest50', 'arch.backbone', 'CSPDarknet'),
        (
            'mmdet::gcnet/mask-rcnn_r50-gcb-r4-c3-c5_fpn_1x_coco.py',
            'resnest50',
            'arch.setting',
            'plugins',
        ),
        (
            'mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py',
            'resnest50',
            'arch.part',
            'shared_head',
        ),
        (
            'mmdet::gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py',
            'resnest50',
            'argument.value',
            'conv_cfg',
        ),
    ],
)
def test_refusals(config, arch, code, part):
    with refuses(code, part):
        set_architecture(load_config(config), arch, trains=True)


def test_group_norms_without_their_weights():
    cfg = load_config('mmdet::gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py')
    with refuses('arch.norm', 'GN'):
        set_architecture(cfg, 'resnest50', trains=True)


def test_work_dir_has_the_name_of_the_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = prepare(RETINANET, arch='resnest50', splits=())
    assert cfg.work_dir == str(Path('work_dirs', 'retinanet_r50_fpn_1x_coco_resnest50'))


@pytest.mark.parametrize(
    'config, kept',
    [
        (RETINANET, dict(frozen_stages=1, norm_eval=True)),
        (
            'mmseg::deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024.py',
            dict(output_stride=8),
        ),
    ],
)
def test_networks_of_timm(config, kept, monkeypatch):
    fake = make_fake_timm()
    fake.__spec__ = ModuleSpec('timm', None)
    monkeypatch.setitem(sys.modules, 'timm', fake)
    cfg = load_config(config)
    set_architecture(cfg, 'timm/pyramid.a_in1k', trains=True)
    backbone = cfg.model.backbone
    assert (backbone.type, backbone.arch) == ('mmresnest.Timm', 'pyramid.a_in1k')
    assert backbone.init_cfg == dict(type='Pretrained', checkpoint='timm')
    assert {key: backbone[key] for key in kept} == kept
    assert cfg.model.data_preprocessor.std == [127.5, 63.75, 127.5]
    if 'neck' in cfg.model:
        assert cfg.model.neck.in_channels == [8, 12, 16, 20]
    else:
        assert (cfg.model.decode_head.in_channels, cfg.model.auxiliary_head.in_channels) == (20, 16)
    cfg = load_config(config)
    cfg.model.backbone.update(dcn=dict(type='DCN'), stage_with_dcn=(False, True, True, True))
    with refuses('arch.setting', 'dcn'):
        set_architecture(cfg, 'timm/pyramid')


NEW = ('skresnext50_32x4d', 'dla60_res2net')
NARROW = {
    'model.roi_head.bbox_head.conv_out_channels': 32,
    'model.roi_head.bbox_head.fc_out_channels': 64,
    'model.test_cfg.rpn.max_per_img': 50,
}
"""Narrow heads of a detector, and few regions, where the network is what is looked at."""


@pytest.mark.slow
@pytest.mark.parametrize('arch', NEW)
@pytest.mark.parametrize(
    'name', ['faster_rcnn_resnest50_fpn', RETINANET, 'deeplabv3_resnest50_ade20k']
)
def test_a_training_step_and_a_prediction(name, arch):
    """Every weight that is learned moves, and an image is predicted on."""
    cfg = configure(name, arch=arch)
    start_from_scratch(cfg)  # which thaws the stages that are frozen
    if cfg.model.backbone.type == 'mmresnest.SKNet':  # blocks that begin as none learn a step later
        cfg.model.backbone.zero_init_residual = False
    if 'roi_head' in cfg.model:  # few regions, through a narrow head: the network is looked at
        cfg.merge_from_dict({**NARROW, 'model.train_cfg.rcnn.sampler.num': 32})
    torch.manual_seed(0)
    model = build(cfg).train()
    task = task_of(cfg)
    images = torch.randn(2, 3, 64, 96)
    samples = [make_sample(task, 64, 96, 3) for _ in range(2)]
    learned = {key: one for key, one in model.named_parameters() if one.requires_grad}
    before = {key: one.detach().clone() for key, one in learned.items()}
    optimizer = torch.optim.SGD(learned.values(), lr=1e-2)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        loss, _ = model.parse_losses(model(images, samples, mode='loss'))
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
        assert [key for key, one in learned.items() if one.grad is None] == []
        still = [key for key in learned if torch.equal(before[key], learned[key])]
        assert [key for key in still if key.startswith('backbone')] == []
        with torch.no_grad():
            found = model.eval()(images[:1], samples[:1], mode='predict')
    assert len(found) == 1
