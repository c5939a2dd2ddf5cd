"""YOLO: a text file for each image, a line for each object, in shares of the image.

::

    class x_center y_center width height        a box
    class x0 y0 x1 y1 x2 y2 ...                 a polygon

``data.yaml`` names the classes (a list, or index -> name) and for each split a folder of images, a
list of folders, or a text file of image names; the labels of ``images/a.jpg`` are
``labels/a.txt``. An image without label file has no objects. Without ``data.yaml``, ``classes.txt``
or ``obj.names`` names the classes, and ``images/train`` with ``labels/train``, or
``train/images`` with ``train/labels``, are found by themselves. Where ``kpt_shape`` says that the
lines go on with key points, the boxes before them are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PureWindowsPath
from typing import Any

from ...errors import UserError
from ..base import IMAGE_SUFFIXES, SPLITS, list_files
from ..checks.findings import shorten
from ..checks.images import track_rows
from ..text_files import read_lines, refuse_encoding
from .base import (
    WHOLE,
    ImageIndex,
    Likeness,
    ObjectData,
    Picture,
    Thing,
    check_sizes,
    enclose,
    find_shallow,
    find_split_folders,
    list_images,
    make_data,
    name_split,
    parse_number,
    round_pixels,
)
from .names import LISTS, find_class_list

_NAMING = {'names', 'nc'}
SLACK = 1e-3
"""How far a share may leave 0 to 1: tools round."""

_KEYS = {'train': ('train',), 'val': ('val', 'valid', 'validation'), 'test': ('test',)}
_FORM = (
    'a line is "class x y width height" or "class x0 y0 x1 y1 x2 y2 ...", in shares of the image'
)
_POINTS_REMEDY = (
    ' where key points follow a box, write kpt_shape: [NUMBER, 3] into data.yaml, and the boxes '
    'are read'
)
_LABEL_FOLDERS = {
    'images': 'labels',
    'Images': 'Labels',
    'IMAGES': 'LABELS',
    'JPEGImages': 'labels',
}
"""Folder of images -> that of their labels, beside it."""
_NO_LABELS = {Path(name).name for name in LISTS} | {'train.txt', 'val.txt', 'test.txt'}


def compare_yolo(root: Path) -> Likeness:
    """Say how far a folder looks like YOLO."""
    settings = find_settings(root)
    keys = set() if settings is None else _list_keys(settings)
    if settings is not None and 'train' in keys and keys & _NAMING:
        return Likeness(f'{settings.name} with names of classes')
    labels = next(
        (
            path
            for place in ('labels', '.', 'train', 'obj_train_data')
            for path in find_shallow(root / place, '*.txt', 2)
            if path.name not in _NO_LABELS and _has_label_line(path)
        ),
        None,
    )
    if labels is None:
        return Likeness()
    found = f'{labels.relative_to(root)}, a text file with shares of an image'
    if keys & _NAMING or find_class_list(root):
        return Likeness(found)
    if settings is not None:
        return Likeness(
            f'{settings.name} with folders of images',
            'names in it, those of the classes',
            f"echo 'names: [FIRST_NAME, SECOND_NAME]' >> {settings}",
        )
    return Likeness(
        found,
        'data.yaml or classes.txt with the names of the classes',
        f"printf 'FIRST_NAME\\nSECOND_NAME\\n' > {root / 'classes.txt'}",
    )


def find_settings(root: Path) -> Path | None:
    """Return the yaml file of a folder that names classes or a part of the data.

    Raises:
        UserError: there are several, and none is called ``data.yaml``.
    """
    keys = {path: _list_keys(path) for path in sorted([*root.glob('*.yaml'), *root.glob('*.yml')])}
    found = [path for path, some in keys.items() if 'train' in some and some & _NAMING]
    chosen = [path for path in found if path.stem == 'data'] or found
    if not found:
        return next((path for path, some in keys.items() if some & {'train', 'names'}), None)
    if len(chosen) > 1:
        raise UserError(
            f'{chosen[0]} and {chosen[1]} both describe the data; rename the one that does to '
            'data.yaml, or move the other away',
            code='data.ambiguous',
        )
    return chosen[0]


def _list_keys(path: Path) -> set[str]:
    """Return what stands before the colons of a yaml file; reading it comes later."""
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    return {line.partition(':')[0].strip('"\' ') for line in lines if ':' in line}


def _has_label_line(path: Path) -> bool:
    try:
        with path.open(encoding='utf-8-sig') as file:
            words = file.readline(4096).split()
    except (OSError, UnicodeDecodeError):
        return False
    return len(words) >= 5 and all(parse_number(word) is not None for word in words)


def find_yolo_roots(root: Path) -> Iterable[Path]:
    """Yield further folders that ``data.yaml`` names."""
    settings = find_settings(root)
    if settings is not None:
        table = _read_settings(settings)
        for places in _find_places(table, settings).values():
            yield from (place if place.is_dir() else place.parent for place in places)


def read_yolo(root: Path) -> ObjectData:
    """Read a folder of images and text files.

    Raises:
        UserError: with file, line and remedy, for what cannot be read.
    """
    settings = find_settings(root)
    points, notes = 0, []
    if settings is None:
        classes, where = find_class_list(root), root
        images = _find_images(root)
    else:
        table = _read_settings(settings)
        named = table.get('names') is not None or table.get('nc') is not None
        classes = _read_names(table, settings) if named else find_class_list(root)
        where, points = settings, _count_points(table, settings)
        named_places = _find_places(table, settings)
        images = {
            split: _list_places(places, settings) for split, places in named_places.items()
        } or _find_images(root)
        if table.get('test') and 'test' not in named_places:
            notes.append(f'{settings.name} names {table["test"]} for test, which is not there')
    form = _Form(classes, where, points)
    splits = {}
    for split, paths in images.items():
        if not paths:
            raise UserError(
                f'{where}: there are no images for {split or "it"}; put them there, or correct '
                'the folder',
                code='data.no-images',
            )
        _refuse_lost_labels(paths)
        sized = check_sizes([Picture(path) for path in paths])
        rows = track_rows(sized, len(paths), f'reading {len(paths)} label files')
        splits[split] = [_read_picture(picture, form, root) for picture in rows]
    if not any(picture.source for pictures in splits.values() for picture in pictures):
        first = next(iter(images.values()))[0]
        raise UserError(
            f'none of the images of {root} has a label file; that of {first} would be '
            f'{find_label(first)}: put them there' + _find_misplaced(root, first),
            code='data.label-missing',
        )
    if points:
        notes.append(f'the {points} numbers of key points after each box are left out')
    return make_data(root, classes, splits, notes)


def _find_misplaced(root: Path, image: Path) -> str:
    """Return the command that moves label files where they are looked for, empty if there are none.

    Args:
        root: where they may be.
        image: one of the images.
    """
    for name in list_files(root, ('.txt',)):
        label = root / name
        if label.stem == image.stem and _has_label_line(label):
            place = find_label(image).parent
            if place.is_dir():
                return f'. This does: mv {label.parent}/*.txt {place}'
            return f'. This does: mkdir -p {place.parent} && mv {label.parent} {place}'
    return ''


def _count_points(table: Mapping[str, Any], path: Path) -> int:
    """Return how many numbers of key points follow a box, by ``kpt_shape``."""
    shape = table.get('kpt_shape')
    if shape is None:
        return 0
    if not isinstance(shape, list) or [type(one) for one in shape] != [int, int]:
        raise UserError(
            f'{path}: kpt_shape is {shorten(shape)}; write [NUMBER, 2] or [NUMBER, 3], or take it '
            'away where lines have boxes alone',
            code='data.yaml',
        )
    return shape[0] * shape[1]


def _read_settings(path: Path) -> dict[str, Any]:
    import yaml

    try:
        text = path.read_text(encoding='utf-8-sig')
        table = yaml.safe_load(text)
        if isinstance(table, dict) and isinstance(table.get('names'), (list, dict)):
            table['names'] = _keep_texts(table['names'], yaml.load(text, yaml.BaseLoader)['names'])
    except UnicodeDecodeError as error:
        raise refuse_encoding(path, error) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, 'problem_mark', None)
        line = f':{mark.line + 1}' if mark else ''
        problem = getattr(error, 'problem', None) or error
        raise UserError(
            f'{path}{line}: cannot be read as yaml without tags: {problem}; write plain names, '
            'lists and texts',
            code='data.yaml',
        ) from None
    if not isinstance(table, dict):
        raise UserError(
            f'{path}: holds a {type(table).__name__}, and data.yaml has train, val and names; '
            'write them',
            code='data.yaml',
        )
    return table


def _keep_texts(values: Any, texts: Any) -> Any:
    """Return names as they are written, where yaml takes ``no`` for false and ``010`` for 8."""
    if isinstance(values, dict) and len(values) == len(texts):
        return dict(zip(values, _keep_texts([*values.values()], [*texts.values()])))
    if not isinstance(values, list):
        return values
    plain = (str, int, float, date)
    return [text if isinstance(one, plain) else one for one, text in zip(values, texts)]


def _read_names(table: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Return the classes that ``names`` lists, or numbers as many as ``nc`` says."""
    names, count = table.get('names'), table.get('nc')
    if names is None and type(count) is int and count > 0:
        return tuple(f'class_{index}' for index in range(count))
    if isinstance(names, dict):
        wrong = [key for key in names if str(key) not in map(str, range(len(names)))]
        if wrong:
            raise UserError(
                f'{path}: names has the index {shorten(wrong[0])}, and {len(names)} names have the '
                f'indices 0 to {len(names) - 1}; number them so',
                code='data.yaml',
            )
        names = [name for _, name in sorted(names.items(), key=lambda pair: int(pair[0]))]
    plain = isinstance(names, list) and all(isinstance(name, (str, int, float)) for name in names)
    if not names or not plain:
        raise UserError(
            f'{path}: names is {shorten(names)}; write a list of names, or index: name for each',
            code='data.yaml',
        )
    names = [str(name) for name in names]
    twice = [name for at, name in enumerate(names) if name in names[:at]]
    if twice:
        raise UserError(
            f'{path}: names has {twice[0]!r} twice; give each class its own name',
            code='data.names-twice',
        )
    if count is not None and str(count) != str(len(names)):
        raise UserError(
            f'{path}: nc is {shorten(count)}, and there are {len(names)} names; correct the '
            'wrong one',
            code='data.yaml',
        )
    return tuple(names)


def _find_places(table: Mapping[str, Any], path: Path) -> dict[str, list[Path]]:
    """Return the folders or lists of images that the settings name for each split."""
    found = {}
    for split in SPLITS:
        value = next((table[key] for key in _KEYS[split] if table.get(key)), None)
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str) for one in values):
            raise UserError(
                f'{path}: {split} is {shorten(value)}; write a folder, a text file, or a list of '
                'them',
                code='data.yaml',
            )
        places = [_resolve_place(one, table.get('path'), path) for one in values]
        lost = [one for one, place in zip(values, places) if place is None]
        if lost and split == 'test':
            continue  # Roboflow names one whether there is any or not
        if lost:
            raise UserError(
                f'{path}: {split} is {lost[0]!r}, and there is no such folder or list beside it or '
                'below its "path"; correct it, or put the images there'
                + (
                    '; --split 0.2 makes a part if the line is taken away' if split == 'val' else ''
                ),
                code='data.missing',
            )
        found[split] = [place for place in places if place is not None]
    return found


def _resolve_place(text: str, base: Any, path: Path) -> Path | None:
    """Return the folder or list that a text names, None if there is none.

    It is relative to ``path`` of the settings, which is relative to them. That entry is often of
    another machine, and Roboflow writes ``../train/images`` for ``train/images``: then what is
    there beside the settings is meant.
    """
    text = text.replace('\\', '/')
    inner = text
    while inner.startswith('../'):
        inner = inner[3:]
    root = path.parent
    tried = [root / inner.removeprefix('./'), root / text]
    if isinstance(base, str) and base:
        tried = [root / base / text, *tried]
        if not Path(base).is_absolute():
            tried.append(root.parent / base / text)
    for place in tried:
        if place.exists():
            return place.resolve() if '..' in place.parts else place
    return None


def _list_places(places: Sequence[Path], settings: Path) -> list[Path]:
    images: list[Path] = []
    for place in places:
        images += list_images(place) if place.is_dir() else _read_image_list(place, settings)
    return list(dict.fromkeys(images))


def _read_image_list(path: Path, settings: Path) -> list[Path]:
    """Return the images that a text file lists, a name a line, from its folder or the settings'.

    Absolute paths are often of another machine: then the one image whose path ends so is meant.
    """
    lines, found = read_lines(path), []
    index: ImageIndex | None = None
    for number, line in enumerate(lines, start=1):
        name = line.strip().replace('\\', '/')
        if not name:
            continue
        bare = name.removeprefix('./').removeprefix('data/')
        tried = [base / one for base in (path.parent, settings.parent) for one in (name, bare)]
        image = next((one for one in tried if one.is_file()), None)
        if image is None and PureWindowsPath(name).root:
            index = index or ImageIndex(settings.parent)
            same = index.find_named(name.partition(':')[2] or name)
            image = same[0] if len(same) == 1 else None
        if image is None:
            raise UserError(
                f'{path}:{number}: the image {name} does not exist (looked for {tried[0]}); put it '
                'there, or take the line away',
                code='data.image-missing',
            )
        found.append(image)
    return found


def _find_images(root: Path) -> dict[str, list[Path]]:
    """Return the images of each split where no settings say it."""
    lists = [
        path
        for path in sorted(root.glob('*.txt'))
        if path.name not in LISTS and not _has_label_line(path)
    ]
    named = {name_split(path.stem): path for path in lists if name_split(path.stem)}
    if 'train' in named:
        return {split: _read_image_list(path, path) for split, path in named.items()}
    for place in (root / 'images', root):
        folders = find_split_folders(place, strict=True)
        if folders:
            return {split: list_images(folder) for split, folder in folders.items()}
    images = root / 'images'
    return {WHOLE: list_images(images if images.is_dir() else root)}


def find_label(image: Path) -> Path:
    """Return where the label file of an image is: ``labels`` for the last ``images``, ``.txt``."""
    parts = list(image.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] in _LABEL_FOLDERS:
            parts[at] = _LABEL_FOLDERS[parts[at]]
            break
    places = dict.fromkeys((Path(*parts), image))
    tried = [place.with_suffix(suffix) for suffix in ('.txt', '.TXT') for place in places]
    return next((label for label in tried if label.is_file()), tried[0])


def _refuse_lost_labels(images: Sequence[Path]) -> None:
    """Refuse label files of a folder all of whose images are read, if they have none."""
    labels: dict[Path, Path] = {}
    for image in images:
        other = labels.setdefault(find_label(image), image)
        if other != image and find_label(image).is_file():
            raise UserError(
                f'{find_label(image)}: its objects may be those of {other} or of {image}; rename '
                'one, or take it away',
                code='data.ambiguous',
            )
    for folder in sorted({image.parent for image in images}):
        listed = {image for image in images if image.parent == folder}
        there = {folder / name for name in list_files(folder, IMAGE_SUFFIXES) if '/' not in name}
        if there - listed:
            continue  # a list leaves images out
        places = {find_label(image).parent for image in listed}
        for place in places - ({folder} if len(places) > 1 else set()):
            for path in sorted(place.glob('*.txt')) if place.is_dir() else ():
                if path not in labels and path.name not in _NO_LABELS and _has_label_line(path):
                    raise UserError(
                        f'{path}: there is no image for it in {folder}; put it there, or take the '
                        'label file away',
                        code='data.image-missing',
                    )


@dataclass(frozen=True)
class _Form:
    """What the lines of label files are.

    Attributes:
        classes: their names.
        where: the file that names them.
        points: how many numbers follow a box.
    """

    classes: Sequence[str]
    where: Path
    points: int = 0


def _read_picture(picture: Picture, form: _Form, root: Path) -> Picture:
    label = find_label(picture.path)
    if not label.is_file():
        return picture
    shown = label.relative_to(root) if label.is_relative_to(root) else label
    assert picture.size is not None
    things = tuple(
        _read_thing(line.split(), picture.size, form, f'{label}:{number}', f'{shown}:{number}')
        for number, line in enumerate(read_lines(label), start=1)
        if line.strip()
    )
    return Picture(picture.path, things, picture.size, str(label))


def _read_thing(
    words: Sequence[str], size: tuple[int, int], form: _Form, place: str, source: str
) -> Thing:
    values = [parse_number(word) for word in words]
    index = values[0]
    if None in values:
        wrong = words[values.index(None)]
        raise UserError(
            f'{place}: {wrong!r} is no finite number; {_FORM}: correct the line',
            code='data.label-line',
        )
    shares = [value for value in values[1:] if value is not None]
    if form.points:
        if len(shares) != 4 + form.points:
            raise UserError(
                f'{place}: {len(words)} numbers, and by kpt_shape of {form.where} a line has a '
                f'class, a box and {form.points} numbers of key points; correct either',
                code='data.label-line',
            )
        del shares[4:]
    if len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
        two = ': a polygon has three points or more' if len(shares) in (2,) else ''
        raise UserError(
            f'{place}: {len(words)} numbers{two}; {_FORM}: correct the line or export it again '
            '(without scores)'
            + (f';{_POINTS_REMEDY}' if len(shares) > 5 and (len(shares) - 4) % 3 == 0 else ''),
            code='data.label-line',
        )
    count = len(form.classes)
    if index is None or index != int(index) or not 0 <= index < count:
        raise UserError(
            f'{place}: the class is {words[0]}, and {form.where} names {count} classes, 0 to '
            f'{count - 1}; add the name there, or correct the line',
            code='data.class-index',
        )
    beyond = [value for value in shares if not -SLACK <= value <= 1 + SLACK]
    if beyond:
        raise UserError(
            f'{place}: {beyond[0]:g} is no share of the image, which runs from 0 to 1; {_FORM}: '
            'divide x by the width and y by the height of the image'
            + (f', or{_POINTS_REMEDY}' if len(shares) > 4 else ''),
            code='data.label-line',
        )
    width, height = size
    name = form.classes[int(index)]
    if len(shares) == 4:
        x, y, w, h = (share * side for share, side in zip(shares, (width, height) * 2))
        left, top, w, h = round_pixels((x - w / 2, y - h / 2, w, h))
        return Thing(name, (left, top, w, h), source=source)
    sides = (width, height) * (len(shares) // 2)
    polygon = round_pixels(share * side for share, side in zip(shares, sides))
    if len({*zip(polygon[::2], polygon[1::2])}) < 3:
        raise UserError(
            f'{place}: a polygon of fewer than three different points; draw it again, or take the '
            'line away',
            code='data.mask-points',
        )
    return Thing(name, enclose([polygon]), (polygon,), source)
