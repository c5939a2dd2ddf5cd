# What Panoptic FPN has beside a Mask R-CNN: a semantic head, and a fusion of things and stuff.
thing_classes, stuff_classes = 80, 53
panoptic = dict(
    type='PanopticFPN',
    data_preprocessor=dict(pad_mask=True, mask_pad_value=0, pad_seg=True, seg_pad_value=255),
    semantic_head=dict(
        type='PanopticFPNHead',
        num_things_classes=thing_classes,
        num_stuff_classes=stuff_classes,
        in_channels=256,
        inner_channels=128,
        start_level=0,
        end_level=4,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        loss_seg=dict(type='CrossEntropyLoss', ignore_index=255, loss_weight=0.5),
    ),
    panoptic_fusion_head=dict(
        type='HeuristicFusionHead',
        num_things_classes=thing_classes,
        num_stuff_classes=stuff_classes,
    ),
)
panoptic_test = dict(
    rcnn=dict(
        score_thr=0.6,
        nms=dict(type='nms', iou_threshold=0.5, class_agnostic=True),
        max_per_img=100,
        mask_thr_binary=0.5,
    ),
    panoptic=dict(mask_overlap=0.5, stuff_area_limit=4096),
)
