"""Write a data folder in another format: links to the images, and annotations of its own."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from ...errors import UserError
from ...utils.files import move_into_place, part_beside
from ..base import DataFolder, list_files
from ..checks.rows import get_rows
from ..json_files import read_coco_file
from .derive import find_common_folder

Table = Mapping[str, Any]


def write_folder(folder: DataFolder, out: Path, format: str) -> None:
    """Write a data folder in a format: all of it, or nothing.

    Args:
        folder: the data; of masks for ``ade20k``, of objects for the others.
        out: where; it must not exist, or be empty.
        format: a key of :data:`WRITERS`.

    Raises:
        UserError: there is something in ``out``, or the format cannot hold the data.
    """
    if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f'{out} is there, and not an empty folder; name another', code='option.exists'
        )
    part = part_beside(out)
    try:
        part.mkdir(parents=True)
        WRITERS[format](folder, part)
        move_into_place(part, out)
    except OSError as error:
        raise UserError(
            f'{out} cannot be written: {error}; name another place', code='file.unwritable'
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_coco(folder: DataFolder, out: Path) -> None:
    """Write ``train.json`` and ``train/`` for each split."""
    for split, table, paths in _read_splits(folder):
        rows = []
        for row, name in zip(get_rows(table, 'images'), _link_images(paths, out / split)):
            rows.append({**row, 'file_name': name})
        (out / f'{split}.json').write_text(json.dumps({**table, 'images': rows}))


def write_yolo(folder: DataFolder, out: Path) -> None:
    """Write ``images/train``, ``labels/train`` for each split, and ``data.yaml``."""
    import yaml

    splits = []
    for split, table, paths in _read_splits(folder):
        names = _link_images(paths, out / 'images' / split)
        indices = {row['id']: at for at, row in enumerate(get_rows(table, 'categories'))}
        objects = _group_objects(table)
        labels = out / 'labels' / split
        labels.mkdir(parents=True)
        _refuse_same_stems(names)
        for row, name in zip(get_rows(table, 'images'), names):
            lines = [
                ' '.join(map(repr, [indices[one['category_id']], *_to_shares(one, row, folder)]))
                for one in objects.get(row['id'], ())
            ]
            text = '\n'.join(lines) + ('\n' if lines else '')
            (labels / name).with_suffix('.txt').write_text(text, encoding='utf-8')
        splits.append(split)
    settings: dict[str, Any] = {split: f'images/{split}' for split in splits}
    settings['names'] = dict(enumerate(folder.classes))
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    (out / 'data.yaml').write_text(text, encoding='utf-8')


def _to_shares(one: Mapping[str, Any], row: Mapping[str, Any], folder: DataFolder) -> list[float]:
    """Return a polygon, or a box as center and size, in shares of the image."""
    width, height = row['width'], row['height']
    if one.get('iscrowd'):
        raise UserError(
            f'annotation {one["id"]} of {folder.root} is a crowd, and YOLO has none; take it away, '
            'or convert to coco',
            code='data.not-exact',
        )
    if not folder.has_masks:
        x, y, w, h = one['bbox']
        return [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
    polygons = one['segmentation']
    if not isinstance(polygons, list) or len(polygons) != 1:
        raise UserError(
            f'the mask of annotation {one["id"]} of {folder.root} is not one polygon, and YOLO '
            'holds nothing else; convert to coco',
            code='data.not-exact',
        )
    return [value / (height if at % 2 else width) for at, value in enumerate(polygons[0])]


def write_voc(folder: DataFolder, out: Path) -> None:
    """Write ``JPEGImages``, ``Annotations``, ``ImageSets/Main`` and ``labelmap.txt``: the boxes."""
    annotations, sets = out / 'Annotations', out / 'ImageSets' / 'Main'
    for place in (annotations, sets):
        place.mkdir(parents=True)
    read = list(_read_splits(folder))
    names = _link_images([path for _, _, paths in read for path in paths], out / 'JPEGImages')
    _refuse_same_stems(names)
    rest = iter(names)
    for split, table, _ in read:
        classes = {row['id']: row['name'] for row in get_rows(table, 'categories')}
        objects, stems = _group_objects(table), []
        for row in get_rows(table, 'images'):
            name = next(rest)
            stems.append(Path(name).stem)
            rows = objects.get(row['id'], ())
            boxes = ''.join(_spell_object(one, classes[one['category_id']]) for one in rows)
            (annotations / name).with_suffix('.xml').write_text(
                f'<annotation>\n  <filename>{escape(name)}</filename>\n  <size>\n'
                f'    <width>{row["width"]}</width>\n    <height>{row["height"]}</height>\n'
                f'    <depth>3</depth>\n  </size>\n{boxes}</annotation>\n',
                encoding='utf-8',
            )
        (sets / f'{split}.txt').write_text('\n'.join(stems) + '\n', encoding='utf-8')
    lines = [f'{name}:::' for name in folder.classes]
    (out / 'labelmap.txt').write_text('\n'.join(lines) + '\n', encoding='utf-8')


def _spell_object(one: Mapping[str, Any], name: str) -> str:
    x, y, w, h = one['bbox']
    corners = zip(('xmin', 'ymin', 'xmax', 'ymax'), (x, y, x + w, y + h))
    box = ''.join(f'<{key}>{value!r}</{key}>' for key, value in corners)
    return (
        f'  <object>\n    <name>{escape(str(name))}</name>\n'
        f'    <difficult>{int(bool(one.get("iscrowd")))}</difficult>\n'
        f'    <bndbox>{box}</bndbox>\n  </object>\n'
    )


def write_ade20k(folder: DataFolder, out: Path) -> None:
    """Write ``images/train``, ``annotations/train`` for each split, and ``classes.txt``."""
    for name, split in folder.splits.items():
        where = folder.root / split.images
        if split.listing:
            stems = Path(split.listing).read_text(encoding='utf-8').splitlines()
        else:
            found = list_files(where, (folder.img_suffix.lower(),))
            stems = [one[: -len(folder.img_suffix)] for one in found]
        images = [where / (stem + folder.img_suffix) for stem in stems]
        links = _link_images(images, out / 'images' / name)
        _refuse_same_stems(links)
        if not split.scored:
            continue
        (out / 'annotations' / name).mkdir(parents=True)
        for stem, link in zip(stems, links):
            mask = folder.root / split.annotations / (stem + folder.seg_map_suffix)
            shutil.copyfile(mask, (out / 'annotations' / name / link).with_suffix(mask.suffix))
    text = '\n'.join(folder.classes) + '\n'
    (out / 'classes.txt').write_text(text, encoding='utf-8')


def _read_splits(folder: DataFolder) -> Iterator[tuple[str, Table, list[Path]]]:
    for name, split in folder.splits.items():
        table = read_coco_file(folder.root / split.annotations)[0]
        where = folder.root / split.images
        yield name, table, [where / row['file_name'] for row in get_rows(table, 'images')]


def _group_objects(table: Table) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    for row in get_rows(table, 'annotations'):
        found.setdefault(row['image_id'], []).append(row)
    return found


def _link_images(paths: Sequence[Path], folder: Path) -> list[str]:
    """Link images into one folder; return their names there, with folders where names repeat.

    Raises:
        UserError: an image stands twice.
    """
    folder.mkdir(parents=True)
    paths = [Path(os.path.abspath(path)) for path in paths]
    path, count = Counter(paths).most_common(1)[0]
    if count > 1:
        raise UserError(
            f'the image {path} is listed {count} times, and a folder of this format has it once; '
            'take it out of one of the parts, or convert to coco',
            code='data.not-exact',
        )
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        common = find_common_folder(paths)
        names = ['_'.join(path.relative_to(common).parts) for path in paths]
    if len(set(names)) < len(names):  # a_b/c and a/b_c
        names = [f'{number}_{name}' for number, name in enumerate(names, start=1)]
    for path, name in zip(paths, names):
        try:
            (folder / name).symlink_to(path)
        except FileExistsError:  # a copy would go through the link, into the image behind it
            raise
        except OSError:  # Windows asks for a right that few have
            shutil.copyfile(path, folder / name)
    return names


def _refuse_same_stems(names: Sequence[str]) -> None:
    name, count = Counter(Path(name).stem for name in names).most_common(1)[0]
    if count > 1:
        raise UserError(
            f'{count} images are called {name}, with other endings, and a label file '
            'has the name without; rename one',
            code='data.not-exact',
        )


WRITERS: dict[str, Callable[[DataFolder, Path], None]] = {
    'coco': write_coco,
    'yolo': write_yolo,
    'voc': write_voc,
    'ade20k': write_ade20k,
}
"""What can be written, by the name that ``convert-data --format`` takes."""
