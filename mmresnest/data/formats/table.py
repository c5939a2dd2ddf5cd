"""The table of formats that ``--data`` recognizes."""

from __future__ import annotations

from .base import Format
from .coco_layouts import compare_coco, read_coco_layout
from .cvat import compare_cvat, read_cvat
from .labelme import compare_labelme, read_labelme
from .mask_layouts import (
    compare_ade20k,
    compare_cityscapes,
    compare_mask_files,
    compare_mmseg,
    compare_voc_masks,
    read_ade20k_layout,
    read_cityscapes,
    read_mask_files,
    read_mmseg_layout,
    read_voc_masks,
)
from .object_masks import compare_object_masks, read_object_masks
from .run_lengths import compare_run_lengths, read_run_lengths
from .tensorflow_csv import compare_csv, read_csv
from .via import compare_via, read_via
from .voc import compare_voc, read_voc
from .voc_objects import compare_voc_objects, read_voc_objects
from .yolo import compare_yolo, find_yolo_roots, read_yolo

# fmt: off
FORMATS: dict[str, Format] = {row.name: row for row in (
    Format('coco', 'COCO',
           'train.json and val.json, or a json file elsewhere with images, annotations and '
           'categories', 'coco',
           compare_coco, read_coco_layout),
    Format('voc', 'Pascal VOC', 'Annotations/*.xml, or xml files beside the images', 'coco',
           compare_voc, read_voc),
    Format('yolo', 'YOLO', 'data.yaml, or classes.txt with labels/*.txt', 'coco',
           compare_yolo, read_yolo, find_yolo_roots),
    Format('labelme', 'labelme', 'json files with shapes beside the images', 'coco',
           compare_labelme, read_labelme),
    Format('csv', 'TensorFlow CSV', 'a csv file with filename,...,class,xmin,...', 'coco',
           compare_csv, read_csv),
    Format('via', 'VGG Image Annotator', 'via_region_data.json, with regions of images', 'coco',
           compare_via, read_via),
    Format('rle-csv', 'run lengths of Kaggle', 'a csv file with ImageId,EncodedPixels', 'coco',
           compare_run_lengths, read_run_lengths),
    Format('cvat', 'CVAT', 'annotations.xml with images and their boxes', 'coco',
           compare_cvat, read_cvat),
    Format('voc-objects', 'Pascal VOC instance masks',
           'JPEGImages with SegmentationObject and SegmentationClass', 'coco',
           compare_voc_objects, read_voc_objects, yields_to='voc'),
    Format('object-masks', 'a mask for each object',
           'ID/images/ and ID/masks/ for each image, or images/ with masks/IMAGE/', 'coco',
           compare_object_masks, read_object_masks, yields_to='rle-csv'),
    Format('ade20k', 'ADE20K', 'images/train with annotations/train, or training', 'ade20k',
           compare_ade20k, read_ade20k_layout),
    Format('cityscapes', 'Cityscapes', 'leftImg8bit/train with gtFine/train', 'ade20k',
           compare_cityscapes, read_cityscapes),
    Format('mmseg', 'mmseg', 'img_dir/train with ann_dir/train', 'ade20k',
           compare_mmseg, read_mmseg_layout),
    Format('voc-masks', 'Pascal VOC masks', 'JPEGImages with SegmentationClass', 'ade20k',
           compare_voc_masks, read_voc_masks),
    Format('mask-files', 'mask files', 'a_mask.png beside a.jpg, or images/ with masks/', 'ade20k',
           compare_mask_files, read_mask_files),
)}
# fmt: on
"""Every format, by the name that ``--format`` takes."""
