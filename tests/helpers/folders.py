"""Data folders as other tools write them, each made from one truth by the rules of its format.

A maker writes the files with nothing but ``json``, ``yaml`` and text; none of the package's own
writers or readers is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from PIL import Image

CLASSES = ('disk', 'bar', 'tri angle')
SPLITS = {'train': 5, 'val': 3, 'test': 2}
SIZES = ((80, 96), (64, 48))


class Mark(NamedTuple):
    """An object of the truth: class, box x y w h, and polygon."""

    name: str
    box: tuple[int, int, int, int]
    polygon: tuple[int, ...]


class Shot(NamedTuple):
    """An image of the truth."""

    name: str
    size: tuple[int, int]
    marks: tuple[Mark, ...]


def make_truth(splits: Iterable[str] = SPLITS) -> dict[str, list[Shot]]:
    """Return images with zero to three objects each; train and val have all classes."""
    random = np.random.default_rng(3)
    truth = {}
    for split in splits:
        shots = []
        for number in range(SPLITS[split]):
            marks = []
            for at in range((number + 1) % 4):
                x, y = int(random.integers(0, 20)) + 20 * at, int(random.integers(0, 20))
                w, h = int(random.integers(4, 12)), int(random.integers(4, 20))
                polygon = (x, y, x + w, y, x + w, y + h, x, y + h)
                if at % 2:
                    polygon = (x, y, x + w, y + h // 2, x, y + h)
                marks.append(Mark(CLASSES[at], (x, y, w, h), polygon))
            shots.append(Shot(f'{split}_{number}', SIZES[number % 2], tuple(marks)))
        truth[split] = shots
    return truth


def draw_image(path: Path, shot: Shot) -> None:
    """Write an image that no other has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = abs(hash_name(shot.name))
    pixels = np.random.default_rng(seed).integers(0, 255, (shot.size[1], shot.size[0], 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def hash_name(name: str) -> int:
    """Return a number for a name, the same in every process."""
    return int.from_bytes(name.encode()[-6:], 'big')


def write_text(path: Path, text: str) -> None:
    """Write a text file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')


def coco_table(
    shots: Iterable[Shot], first: int = 1, named: Callable[[Shot], str] | None = None
) -> dict:
    """Return a COCO table with polygons."""
    table: dict = dict(images=[], annotations=[], categories=[])
    for number, shot in enumerate(shots):
        name = named(shot) if named else f'{shot.name}.jpg'
        table['images'].append(
            dict(id=number, file_name=name, width=shot.size[0], height=shot.size[1])
        )
        for mark in shot.marks:
            table['annotations'].append(
                dict(
                    id=len(table['annotations']),
                    image_id=number,
                    category_id=CLASSES.index(mark.name) + first,
                    bbox=list(mark.box),
                    area=mark.box[2] * mark.box[3],
                    iscrowd=0,
                    segmentation=[list(mark.polygon)],
                )
            )
    table['categories'] = [dict(id=at + first, name=name) for at, name in enumerate(CLASSES)]
    return table


def write_json(path: Path, value: object) -> None:
    """Write a json file, and its folder."""
    write_text(path, json.dumps(value, indent=1))


def make_roboflow_coco(root: Path) -> None:
    """Roboflow's COCO: json beside the images, ``valid``, and the root category."""
    for split, shots in make_truth().items():
        folder = root / split.replace('val', 'valid')
        for shot in shots:
            draw_image(folder / f'{shot.name}.jpg', shot)
        table = coco_table(shots)
        for row in table['categories']:
            row['supercategory'] = 'shapes'
        table['categories'].insert(0, dict(id=0, name='shapes', supercategory='none'))
        write_json(folder / '_annotations.coco.json', table)


def make_cvat_coco(root: Path) -> None:
    """CVAT's COCO: one task, one json, ``images/``."""
    shots = make_truth(['train'])['train']
    for shot in shots:
        draw_image(root / 'images' / 'default' / f'{shot.name}.jpg', shot)
    write_json(root / 'annotations' / 'instances_default.json', coco_table(shots))


def make_cvat_subsets(root: Path) -> None:
    """CVAT's COCO with subsets."""
    for split, name in (('train', 'Train'), ('val', 'Validation'), ('test', 'Test')):
        shots = make_truth()[split]
        for shot in shots:
            draw_image(root / 'images' / name / f'{shot.name}.jpg', shot)
        write_json(root / 'annotations' / f'instances_{name}.json', coco_table(shots))


def make_standard_coco(root: Path) -> None:
    """COCO as published, with the files of its other tasks."""
    for split, shots in make_truth(['train', 'val']).items():
        for shot in shots:
            draw_image(root / f'{split}2017' / f'{shot.name}.jpg', shot)
        write_json(root / 'annotations' / f'instances_{split}2017.json', coco_table(shots))
        captions = dict(coco_table(shots), annotations=[dict(id=1, image_id=0, caption='a disk')])
        write_json(root / 'annotations' / f'captions_{split}2017.json', captions)


def make_label_studio(root: Path) -> None:
    """Label Studio's COCO: ``result.json``, categories from 0, names below ``images/``."""
    shots = make_truth(['train'])['train']
    for shot in shots:
        draw_image(root / 'images' / f'0a1b-{shot.name}.jpg', shot)
    table = coco_table(shots, 0, lambda shot: f'images/0a1b-{shot.name}.jpg')
    write_json(root / 'result.json', table)


def make_label_studio_windows(root: Path) -> None:
    """Label Studio's COCO with the names that it writes on Windows."""
    make_label_studio(root)
    table = json.loads((root / 'result.json').read_text())
    for row in table['images']:
        row['file_name'] = row['file_name'].replace('/', '\\')
    write_json(root / 'result.json', table)


def make_one_coco(root: Path) -> None:
    """A single json above a folder of pictures of any name."""
    shots = make_truth(['train'])['train']
    for shot in shots:
        draw_image(root / 'pictures' / f'{shot.name}.png', shot)
    table = coco_table(shots, named=lambda shot: f'{shot.name}.png')
    write_json(root / 'my annotations.json', table)


def spell_voc(shot: Shot, image: str, first: int = 0, database: str = 'Unknown') -> str:
    """Return the xml of an image; pixels count from ``first``, and from 1 the last is included."""
    objects = ''.join(
        f'\n  <object>\n    <name>{mark.name}</name>\n    <difficult>0</difficult>\n    <bndbox>\n'
        f'      <xmin>{mark.box[0] + first}</xmin>\n      <ymin>{mark.box[1] + first}</ymin>\n'
        f'      <xmax>{mark.box[0] + mark.box[2]}</xmax>\n'
        f'      <ymax>{mark.box[1] + mark.box[3]}</ymax>\n    </bndbox>\n  </object>'
        for mark in shot.marks
    )
    return (
        f'<annotation>\n  <folder>x</folder>\n  <filename>{image}</filename>\n'
        f'  <source><database>{database}</database></source>\n'
        f'  <size><width>{shot.size[0]}</width><height>{shot.size[1]}</height>'
        f'<depth>3</depth></size>{objects}\n</annotation>\n'
    )


def make_voc(root: Path, first: int = 0, database: str = 'Unknown') -> None:
    """Pascal VOC with ``ImageSets``."""
    for split, shots in make_truth().items():
        for shot in shots:
            draw_image(root / 'JPEGImages' / f'{shot.name}.jpg', shot)
            write_text(
                root / 'Annotations' / f'{shot.name}.xml',
                spell_voc(shot, f'{shot.name}.jpg', first, database),
            )
        names = '\n'.join(shot.name for shot in shots) + '\n'
        write_text(root / 'ImageSets' / 'Main' / f'{split}.txt', names)


def make_voc_original(root: Path) -> None:
    """Pascal VOC as the challenge has it: pixels count from 1."""
    make_voc(root, 1, 'The VOC2007 Database')


def make_voc_beside(root: Path) -> None:
    """LabelImg: xml beside the pictures, and no splits."""
    for shot in make_truth(['train'])['train']:
        draw_image(root / f'{shot.name}.png', shot)
        write_text(root / f'{shot.name}.xml', spell_voc(shot, f'{shot.name}.png'))


def make_roboflow_voc(root: Path) -> None:
    """Roboflow's VOC: folders of splits, xml beside the images."""
    for split, shots in make_truth().items():
        folder = root / split.replace('val', 'valid')
        for shot in shots:
            draw_image(folder / f'{shot.name}.jpg', shot)
            write_text(folder / f'{shot.name}.xml', spell_voc(shot, f'{shot.name}.jpg'))


def make_voc_flat(root: Path) -> None:
    """``images/`` and ``annotations/`` with xml, no splits."""
    for shot in make_truth(['train'])['train']:
        draw_image(root / 'images' / f'{shot.name}.jpg', shot)
        write_text(root / 'annotations' / f'{shot.name}.xml', spell_voc(shot, f'{shot.name}.jpg'))


def spell_yolo(shot: Shot, polygons: bool = False) -> str:
    """Return the label file of an image, with 16 digits."""
    lines = []
    for mark in shot.marks:
        width, height = shot.size
        x, y, w, h = mark.box
        values = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
        if polygons:
            values = [
                value / (height if at % 2 else width) for at, value in enumerate(mark.polygon)
            ]
        lines.append(' '.join(map(str, [CLASSES.index(mark.name), *values])))
    return '\n'.join(lines) + ('\n' if lines else '')


def put_yolo(images: Path, labels: Path, shots: Iterable[Shot], polygons: bool = False) -> None:
    """Write images and labels; an image without objects has no label file."""
    for shot in shots:
        draw_image(images / f'{shot.name}.jpg', shot)
        if shot.marks:
            write_text(labels / f'{shot.name}.txt', spell_yolo(shot, polygons))


def make_yolo(root: Path, polygons: bool = False) -> None:
    """YOLO as ultralytics documents it: ``data.yaml`` with ``path`` and a dictionary of names."""
    for split, shots in make_truth().items():
        put_yolo(root / 'images' / split, root / 'labels' / split, shots, polygons)
    settings = dict(
        path='../elsewhere',
        train='images/train',
        val='images/val',
        test='images/test',
        names=dict(enumerate(CLASSES)),
    )
    write_text(root / 'data.yaml', yaml.safe_dump(settings))


def make_yolo_polygons(root: Path) -> None:
    """YOLO with polygons."""
    make_yolo(root, polygons=True)


def make_roboflow_yolo(root: Path) -> None:
    """Roboflow's YOLO: ``../train/images``, ``nc`` and a list of names, and a readme."""
    for split, shots in make_truth().items():
        folder = root / split.replace('val', 'valid')
        put_yolo(folder / 'images', folder / 'labels', shots)
    settings = dict(
        train='../train/images',
        val='../valid/images',
        test='../test/images',
        nc=len(CLASSES),
        names=list(CLASSES),
        roboflow=dict(workspace='x', version=1),
    )
    write_text(root / 'data.yaml', yaml.safe_dump(settings))
    write_text(root / 'README.dataset.txt', 'exported\n')


def make_yolo_lists(root: Path) -> None:
    """YOLO with lists of images, as darknet had them."""
    for split, shots in make_truth(['train', 'val']).items():
        put_yolo(root / 'images', root / 'labels', shots)
        lines = [f'./images/{shot.name}.jpg' for shot in shots]
        write_text(root / f'{split}.txt', '\n'.join(lines) + '\n')
    settings = dict(train='train.txt', val='val.txt', names=list(CLASSES))
    write_text(root / 'data.yaml', yaml.safe_dump(settings))


def make_yolo_no_yaml(root: Path) -> None:
    """YOLO without settings: ``classes.txt``, ``images/train``, ``labels/train``."""
    for split, shots in make_truth(['train', 'val']).items():
        put_yolo(root / 'images' / split, root / 'labels' / split, shots)
    write_text(root / 'classes.txt', '\n'.join(CLASSES) + '\n')


def make_yolo_flat(root: Path) -> None:
    """Label Studio's YOLO: ``images``, ``labels``, ``classes.txt``, no splits."""
    put_yolo(root / 'images', root / 'labels', make_truth(['train'])['train'])
    write_text(root / 'classes.txt', '\n'.join(CLASSES) + '\n')


def spell_labelme(shot: Shot, image: str, polygons: bool) -> dict:
    """Return labelme's table of an image; rectangles have their corners in any order."""
    shapes = []
    for at, mark in enumerate(shot.marks):
        x, y, w, h = mark.box
        corners = [[x, y], [x + w, y + h]]
        polygon = [list(pair) for pair in zip(mark.polygon[::2], mark.polygon[1::2])]
        shapes.append(
            dict(
                label=mark.name,
                points=polygon if polygons else corners[:: -1 if at % 2 else 1],
                group_id=None,
                shape_type='polygon' if polygons else 'rectangle',
                flags={},
            )
        )
    return dict(
        version='5.4.1',
        flags={},
        shapes=shapes,
        imagePath=image,
        imageData=None,
        imageHeight=shot.size[1],
        imageWidth=shot.size[0],
    )


def make_labelme(root: Path, polygons: bool = True) -> None:
    """Labelme: json beside the images, no splits."""
    for shot in make_truth(['train'])['train']:
        draw_image(root / f'{shot.name}.jpg', shot)
        table = spell_labelme(shot, f'{shot.name}.jpg', polygons)
        write_json(root / f'{shot.name}.json', table)


def make_labelme_rectangles(root: Path) -> None:
    """Labelme with rectangles."""
    make_labelme(root, polygons=False)


def make_labelme_splits(root: Path) -> None:
    """Labelme in folders of splits, the json files apart from the images."""
    for split, shots in make_truth(['train', 'val']).items():
        for shot in shots:
            draw_image(root / 'images' / split / f'{shot.name}.jpg', shot)
            table = spell_labelme(shot, f'..\\images\\{shot.name}.jpg', True)
            write_json(root / split / f'{shot.name}.json', table)


def spell_csv(shots: Iterable[Shot]) -> str:
    """Return TensorFlow's table."""
    lines = ['filename,width,height,class,xmin,ymin,xmax,ymax']
    for shot in shots:
        for mark in shot.marks:
            x, y, w, h = mark.box
            row = [f'{shot.name}.jpg', *shot.size, mark.name, x, y, x + w, y + h]
            lines.append(','.join(map(str, row)))
    return '\n'.join(lines) + '\n'


def make_csv(root: Path) -> None:
    """Tables for each split, images in folders of splits."""
    for split, shots in make_truth(['train', 'val']).items():
        for shot in shots:
            draw_image(root / 'images' / split / f'{shot.name}.jpg', shot)
        write_text(root / f'{split}_labels.csv', spell_csv(shots))


def make_roboflow_csv(root: Path) -> None:
    """Roboflow's tables, beside the images."""
    for split, shots in make_truth().items():
        folder = root / split.replace('val', 'valid')
        for shot in shots:
            draw_image(folder / f'{shot.name}.jpg', shot)
        write_text(folder / '_annotations.csv', spell_csv(shots))


def make_cvat_xml(root: Path, extra: str = '') -> None:
    """CVAT's own file: boxes in two subsets, polygons and turned boxes in ``extra``."""
    lines = ['<annotations><version>1.1</version><meta><task><labels>']
    lines += [f'<label><name>{name}</name></label>' for name in CLASSES]
    lines.append('</labels></task></meta>')
    for split, shots in make_truth(['train', 'val']).items():
        for shot in shots:
            draw_image(root / 'images' / f'{shot.name}.jpg', shot)
            (width, height), subset = shot.size, split.replace('val', 'Validation')
            lines.append(
                f'<image name="{shot.name}.jpg" width="{width}" height="{height}" '
                f'subset="{subset}">'
            )
            for mark in shot.marks:
                x, y, w, h = mark.box
                lines.append(
                    f'<box label="{mark.name}" xtl="{x}.00" ytl="{y}" xbr="{x + w}" ybr="{y + h}"/>'
                )
            lines += [extra, '</image>']
    write_text(root / 'annotations.xml', '\n'.join([*lines, '</annotations>']))


def spell_via(shot: Shot) -> dict:
    """Return the entry of an image as VGG Image Annotator writes it, with polygons."""
    regions = []
    for mark in shot.marks:
        shape = dict(
            name='polygon', all_points_x=mark.polygon[::2], all_points_y=mark.polygon[1::2]
        )
        regions.append(dict(shape_attributes=shape, region_attributes=dict(kind=mark.name)))
    return dict(filename=f'{shot.name}.jpg', size=1, regions=regions, file_attributes={})


def make_via(root: Path) -> None:
    """VGG Image Annotator: a json file in the folder of each split."""
    for split, shots in make_truth(['train', 'val']).items():
        for shot in shots:
            draw_image(root / split / f'{shot.name}.jpg', shot)
        entries = {f'{shot.name}.jpg1': spell_via(shot) for shot in shots}
        write_json(root / split / 'via_region_data.json', entries)


def make_via_table(root: Path) -> None:
    """VGG Image Annotator's table: rectangles, and a line for an image without."""
    columns = 'filename,file_size,file_attributes,region_count,region_id'
    lines = [f'{columns},region_shape_attributes,region_attributes']
    for shot in make_truth(['train'])['train']:
        draw_image(root / f'{shot.name}.jpg', shot)
        for at, mark in enumerate(shot.marks):
            x, y, w, h = mark.box
            shape = dict(name='rect', x=x, y=y, width=w, height=h)
            cells = [json.dumps(one) for one in (shape, {'class': mark.name, 'note': ''})]
            shape_cell, attributes = ('"' + cell.replace('"', '""') + '"' for cell in cells)
            lines.append(
                f'{shot.name}.jpg,1,"{{}}",{len(shot.marks)},{at},{shape_cell},{attributes}'
            )
        if not shot.marks:
            lines.append(f'{shot.name}.jpg,1,"{{}}",0,0,"{{}}","{{}}"')
    write_text(root / 'via_export_csv.csv', '\n'.join(lines) + '\n')


class Kind(NamedTuple):
    """A kind of folder: who makes it, what it is, and what of the truth it holds.

    Attributes:
        make: writes it.
        format: the name of its format; empty for a layout that is read in place.
        splits: those it has; one alone needs ``--split``.
        polygons: whether the polygons are in it.
        negatives: whether images without objects are in it.
    """

    make: Callable[[Path], None]
    format: str
    splits: tuple[str, ...] = ('train', 'val', 'test')
    polygons: bool = False
    negatives: bool = True


# fmt: off
KINDS = {
    'coco-published': Kind(make_standard_coco, '', ('train', 'val'), True),
    'coco-roboflow': Kind(make_roboflow_coco, 'coco', polygons=True),
    'coco-cvat': Kind(make_cvat_coco, 'coco', ('train',), True),
    'coco-cvat-subsets': Kind(make_cvat_subsets, 'coco', polygons=True),
    'coco-label-studio': Kind(make_label_studio, 'coco', ('train',), True),
    'coco-label-studio-windows': Kind(make_label_studio_windows, 'coco', ('train',), True),
    'coco-one-file': Kind(make_one_coco, 'coco', ('train',), True),
    'voc': Kind(make_voc, 'voc'),
    'voc-original': Kind(make_voc_original, 'voc'),
    'voc-beside': Kind(make_voc_beside, 'voc', ('train',)),
    'voc-roboflow': Kind(make_roboflow_voc, 'voc'),
    'voc-flat': Kind(make_voc_flat, 'voc', ('train',)),
    'yolo': Kind(make_yolo, 'yolo'),
    'yolo-polygons': Kind(make_yolo_polygons, 'yolo', polygons=True),
    'yolo-roboflow': Kind(make_roboflow_yolo, 'yolo'),
    'yolo-lists': Kind(make_yolo_lists, 'yolo', ('train', 'val')),
    'yolo-no-yaml': Kind(make_yolo_no_yaml, 'yolo', ('train', 'val')),
    'yolo-flat': Kind(make_yolo_flat, 'yolo', ('train',)),
    'labelme': Kind(make_labelme, 'labelme', ('train',), True),
    'labelme-rectangles': Kind(make_labelme_rectangles, 'labelme', ('train',)),
    'labelme-splits': Kind(make_labelme_splits, 'labelme', ('train', 'val'), True),
    'csv': Kind(make_csv, 'csv', ('train', 'val'), negatives=False),
    'csv-roboflow': Kind(make_roboflow_csv, 'csv', negatives=False),
    'cvat': Kind(make_cvat_xml, 'cvat', ('train', 'val')),
    'via': Kind(make_via, 'via', ('train', 'val'), True),
    'via-table': Kind(make_via_table, 'via', ('train',)),
}
# fmt: on
"""Every kind with boxes or instance masks."""
