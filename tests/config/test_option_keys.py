"""Settings that nothing reads are refused, and legal new ones are not."""

import re
from pathlib import Path

import pytest
from helpers.errors import refuses

from mmresnest.analysis.browse_data import browse_data
from mmresnest.analysis.check_data import check_data
from mmresnest.analysis.flops import complexity
from mmresnest.cli.arguments import parse_cfg_options
from mmresnest.config.load import load_config
from mmresnest.config.option_keys import TOP, check_keys
from mmresnest.engine.prepare import configure
from mmresnest.inference.checkpoint_config import configure_for_checkpoint

pytestmark = pytest.mark.filterwarnings('ignore')

ROOT = Path(__file__).resolve().parents[2]
DETECTOR = 'faster_rcnn_resnest50_fpn'
SEGMENTOR = 'deeplabv3_resnest50_ade20k'

WRONG = {  # key -> what is nearest
    'train_cgf.max_epochs': 'train_cfg',
    'train_cfg.max_epoch': 'max_epochs',
    'train_cfg.val_intervall': 'val_interval',
    'train_dataloader.batchsize': 'batch_size',
    'train_dataloader.num_worker': 'num_workers',
    'train_dataloader.dataset.anno_file': 'ann_file',
    'train_dataloader.dataset.pipeline.0.to_float': 'to_float32',
    'optim_wrapper.optimizer.learning_rate': '',
    'optim_wrapper.optimizer.weightdecay': 'weight_decay',
    'optim_wrapper.clip_gradient': 'clip_grad',
    'model.neck.num_out': 'num_outs',
    'model.roi_head.bbox_head.num_class': 'num_classes',
    'default_hooks.logger.intervall': 'interval',
    'param_scheduler.1.milestone': 'milestones',
    'env_cfg.cudnn_bench': 'cudnn_benchmark',
    'auto_scale_lr.base_batch': 'base_batch_size',
    'resumed': 'resume',
}

LEGAL = (
    'load_from',
    'model.test_cfg.rcnn.mask_thr_binary',
    'model.train_cfg.rpn.assigner.gpu_assign_thr',
    'model.backbone.dcn',
    'model.backbone.stage_with_dcn',
    'model.backbone.with_cp',
    'model.backbone.init_cfg.checkpoint',
    'model.data_preprocessor.pad_value',
    'train_dataloader.prefetch_factor',
    'train_dataloader.dataset.indices',
    'train_dataloader.dataset.metainfo.classes',
    'train_dataloader.dataset.filter_cfg.min_size',
    'optim_wrapper.clip_grad',
    'optim_wrapper.accumulative_counts',
    'optim_wrapper.optimizer.nesterov',
    'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult',
    'default_hooks.checkpoint.save_last',
    'default_hooks.live.number',
    'default_hooks.images',
    'custom_hooks.0.num_iters',
    'val_evaluator.classwise',
    'val_evaluator.metric_items',
    'param_scheduler.0.verbose',
    'visualizer.save_dir',
    'env_cfg.dist_cfg.timeout',
    'randomness.deterministic',
    'train_cfg.dynamic_intervals',
    'log_processor.window_size',
    'find_unused_parameters',
    'model_wrapper_cfg.static_graph',
    'tta_model.tta_cfg.nms',
)


def test_what_nothing_reads_is_refused_with_the_nearest():
    cfg = load_config(DETECTOR)
    for key, near in WRONG.items():
        with refuses('option.unread', key.split('.')[0], near):
            check_keys(cfg, {key: 1})


@pytest.mark.parametrize(
    'take',
    [
        lambda options: check_data(DETECTOR, options=options),
        lambda options: browse_data(DETECTOR, options=options),
        lambda options: configure(DETECTOR, cfg_options=options),
        lambda options: complexity(DETECTOR, options=options),
        lambda options: configure_for_checkpoint(
            DETECTOR, dict(state_dict={}, meta={}), None, False, options
        ),
    ],
    ids=['check-data', 'browse-data', 'print-config', 'flops', 'predict and export'],
)
def test_every_command_refuses_what_nothing_reads(take, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refuses('option.unread', 'model.neck.num_out', 'num_outs'):
        take({'model.neck.num_out': 5})


def test_legal_new_keys_are_taken():
    cfg = load_config(DETECTOR)
    for key in LEGAL:
        check_keys(cfg, {key: 1})
    check_keys(cfg, {'optim_wrapper.optimizer.type': 'AdamW', 'optim_wrapper.optimizer.betas': 1})
    check_keys(load_config(SEGMENTOR), {'model.decode_head.sampler': 1, 'model.test_cfg.stride': 1})
    check_keys(load_config(SEGMENTOR), {'train_cfg.val_begin': 1})


def test_what_the_pages_set_is_legal():
    """Every --cfg-options of every page, on a detector and a segmentor."""
    seen = 0
    configs = [load_config(DETECTOR), load_config(SEGMENTOR)]
    for page in (ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))):
        for words in re.findall(r'--cfg-options ((?:[\w.]+=\S+ ?)+)', page.read_text('utf-8')):
            pairs = [word.rstrip('`)') for word in words.split() if 'KEY' not in word]
            for cfg in configs:
                check_keys(cfg, parse_cfg_options(pairs))
            seen += 1
    assert seen >= 4


def test_a_variable_of_the_file_is_said_to_be_none(caplog):
    cfg = load_config(DETECTOR)
    assert 'data_root' in cfg and 'data_root' not in TOP
    check_keys(cfg, {'data_root': 'x'})
    check_keys(cfg, {'model.test_cfg.rcnn.score_thrs': 1})
