"""The table of formats that ``--data`` recognizes."""

from __future__ import annotations

from .base import Format
from .coco_layouts import compare_coco, read_coco_layout
from .labelme import compare_labelme, read_labelme
from .tensorflow_csv import compare_csv, read_csv
from .voc import compare_voc, read_voc
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
)}
# fmt: on
"""Every format, by the name that ``--format`` takes."""
