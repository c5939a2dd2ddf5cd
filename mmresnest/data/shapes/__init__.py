"""The embedded data set of drawn shapes: COCO, ADE20K, Cityscapes and panoptic layouts."""
