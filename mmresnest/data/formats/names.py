"""The list of classes that a tool leaves beside its annotations."""

from __future__ import annotations

import re
from pathlib import Path

from ...errors import UserError
from ..checks.findings import finish_reading
from ..text_files import read_class_names, read_lines
from .base import find_shallow

LISTS = (
    'classes.txt',
    'labels.txt',
    'class_names.txt',  # of labelme2voc
    'obj.names',
    'labels/classes.txt',
    'predefined_classes.txt',
)
NO_CLASSES = ('__ignore__', '_background_')
"""The first lines of labelme's lists, which stand for pixels of no object."""
_PBTXT = re.compile(r"""\b(id|name|display_name)\s*:\s*(?:"([^"]*)"|'([^']*)'|(\d+))""")


def read_name_list(path: Path) -> tuple[str, ...]:
    """Return the names of a file, one a line.

    Raises:
        UserError: a name that stands twice, or text in another encoding than UTF-8.
    """
    return finish_reading(read_class_names(path))


def find_class_list(root: Path) -> tuple[str, ...]:
    """Return the names of a folder's list of classes, empty without one.

    ``classes.txt`` and its like have one name a line; ``labelmap.txt`` of CVAT has
    ``name:color:parts:actions``; ``label_map.pbtxt`` of TensorFlow has ``name: 'cat'``.
    """
    for name in LISTS:
        if (root / name).is_file():
            return read_name_list(root / name)
    # LabelImg writes one into each folder of labels, and Roboflow's Darknet into each split.
    paths = [*find_shallow(root, 'classes.txt'), *find_shallow(root, '_darknet.labels', 1)]
    beside = {path: read_name_list(path) for path in paths}
    if len(set(beside.values())) > 1:
        raise UserError(
            f'{" and ".join(map(str, beside))} name other classes, or in another order; write the '
            f'list that holds for all into {root / "classes.txt"}',
            code='data.ambiguous',
        )
    if beside:
        return next(iter(beside.values()))
    for path in find_shallow(root, '*.names', 1):  # darknet's, such as coco.names
        return read_name_list(path)
    if (root / 'labelmap.txt').is_file():
        names = (line.partition(':')[0].strip() for line in read_lines(root / 'labelmap.txt'))
        return tuple(name for name in names if name and name[0] != '#' and name != 'background')
    for path in sorted(root.glob('*label*map*.pbtxt')):
        return _read_pbtxt(path)
    return _read_roboflow_list(root)


def _read_roboflow_list(root: Path) -> tuple[str, ...]:
    """Return the names of Roboflow's ``_classes.csv`` beside masks: ``Pixel Value, Class``.

    Raises:
        UserError: the files of two splits differ, or the values are not 0, 1, 2 ...
    """
    found: dict[Path, tuple[str, ...]] = {}
    for path in find_shallow(root, '_classes.csv', 1):
        head, *lines = read_lines(path) or ['']
        rows = [line.partition(',') for line in lines if line.strip()]
        if [word.strip().lower() for word in head.split(',')] != ['pixel value', 'class']:
            continue
        if [value.strip() for value, _, _ in rows] != [str(at) for at in range(len(rows))]:
            raise UserError(
                f'{path}: the pixel values are not 0 to {len(rows) - 1} in this order; write them '
                'so, or give --mask-values',
                code='data.label-line',
            )
        found[path] = tuple(name.strip() for _, _, name in rows)
    if len(set(found.values())) > 1:
        raise UserError(
            f'{" and ".join(map(str, found))} name other classes, or in another order; write the '
            f'list that holds for all into {root / "classes.txt"}',
            code='data.ambiguous',
        )
    return next(iter(found.values()), ())


def _read_pbtxt(path: Path) -> tuple[str, ...]:
    """Return the names of TensorFlow's label map in the order of their ids."""
    found = []
    for item in '\n'.join(read_lines(path)).split('item')[1:]:
        fields = {
            key: double or single or number for key, double, single, number in _PBTXT.findall(item)
        }
        if not fields.get('id', '').isdecimal() or not fields.get('name'):
            raise UserError(
                f'{path}: an item without id and name; write item {{ id: 1 name: "cat" }}',
                code='data.label-line',
            )
        found.append((int(fields['id']), fields['name']))
    return tuple(name for _, name in sorted(found))
