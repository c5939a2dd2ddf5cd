# The cascade as detectron2 has it: three heads of weight 1 that hand a third of their gradient each to
# the pyramid, L1 losses, regression weights of 10, 20, 30 (and half of that for sizes).
_base_ = 'norms.py'
l1 = dict(type='L1Loss', loss_weight=1.0)
cascade = dict(
    stage_loss_weights=[1, 1, 1],
    bbox_roi_extractor=dict(
        _delete_=True,
        type='mmresnest.ScaledGradient',
        scale=1 / 3,
        extractor=dict(
            type='mmdet.SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
        ),
    ),
    bbox_head=[
        dict(
            in_channels=256,
            fc_out_channels=1024,
            roi_feat_size=7,
            num_classes=80,
            reg_class_agnostic=True,
            **_base_.box_head,
            loss_bbox=l1,
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
            bbox_coder=dict(
                type='DeltaXYWHBBoxCoder',
                target_means=[0.0, 0.0, 0.0, 0.0],
                target_stds=[1 / weight, 1 / weight, 2 / weight, 2 / weight],
            ),
        )
        for weight in (10, 20, 30)
    ],
)
rpn_head = dict(loss_bbox=dict(_delete_=True, **l1))
inside = dict(rpn=dict(allowed_border=-1))  # anchors may lie outside the image
