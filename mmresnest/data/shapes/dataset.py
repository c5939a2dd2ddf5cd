"""Write the embedded data set: textured pictures of occluding shapes, drawn, not downloaded.

Picture ``index`` of a split is a pure function of ``(seed, split, index, size)``. Its pixels do not
depend on the machine, on the number of threads or on how many are drawn: random numbers come from
NumPy's frozen legacy distributions, rotations from sines rounded to 12 bits, and the rest is
arithmetic on integers or single IEEE operations (no sum over floats, no transcendental function,
and OpenCV only encodes).

The outline alone decides on the class. One object of three has a color typical of its class; the
texture depends on nothing.

``draw_dataset`` writes one folder that holds up to four layouts of the same pictures::

    shapes.json                               the parameters, and the mark of a finished folder
    {train,val,test}.json                     'coco': boxes and masks of what is visible
    {train,val,test}/
    images/{train,val,test}/                  'ade20k': class indices, 0 is the background
    annotations/{train,val,test}/
    classes.txt                               names of those indices
    leftImg8bit/{train,val,test}/shapes/      'cityscapes': the same indices in
    gtFine/{train,val,test}/shapes/           ..._gtFine_labelTrainIds.png
    panoptic_{train,val,test}.json            'panoptic': every pixel is of an object or of the
    panoptic_{train,val,test}/                background, the one class of stuff

The data set class of mmseg named after Cityscapes insists on the classes of that data set; that
layout is read by ``BaseSegDataset`` with ``img_suffix='_leftImg8bit.png'`` and
``seg_map_suffix='_gtFine_labelTrainIds.png'``.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ...errors import UserError, nearest
from ...utils.console import show_progress
from ...utils.files import move_into_place
from ...utils.masks import count_runs
from .drawing import (
    CITY,
    CLASSES,
    SPLITS,
    Sample,
    check_count,
    check_seed,
    check_size,
    draw_sample,
    semantic_classes,
    tight_box,
)

# Version of the drawing: raise it whenever the same parameters give other pixels.
VERSION = 2
LAYOUTS = ('coco', 'ade20k', 'cityscapes', 'panoptic')
STAMP = 'shapes.json'
LICENSE = dict(id=1, name='CC0-1.0', url='https://creativecommons.org/publicdomain/zero/1.0/')


def _write_image(path: Path, image: np.ndarray) -> None:
    """Encode an RGB picture or a gray mask in the format of its suffix."""
    import cv2

    if image.ndim == 3:
        image = image[:, :, ::-1]
    options = (
        [cv2.IMWRITE_JPEG_QUALITY, 95]
        if path.suffix == '.jpg'
        else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    done, data = cv2.imencode(path.suffix, np.ascontiguousarray(image), options)
    if not done:
        raise OSError(f'could not encode {path}')
    path.write_bytes(data.tobytes())


def _link_or_write(source: Path | None, target: Path, image: np.ndarray) -> None:
    """Give an encoded file a second name, or a copy without hard links; or encode the image."""
    if source is None:
        _write_image(target, image)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


class _Split:
    """One split of the folder, while its pictures are written."""

    def __init__(self, root: Path, name: str, layouts: Sequence[str]) -> None:
        self.root, self.name, self.layouts = root, name, layouts
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        self.segments: list[dict] = []
        self.folders = {
            'coco': [root / name],
            'ade20k': [root / 'images' / name, root / 'annotations' / name],
            'cityscapes': [root / 'leftImg8bit' / name / CITY, root / 'gtFine' / name / CITY],
            'panoptic': [root / name, root / f'panoptic_{name}'],
        }
        for layout in layouts:
            for folder in self.folders[layout]:
                folder.mkdir(parents=True, exist_ok=True)

    def add_sample(self, index: int, drawn: Sample) -> None:
        """Write a picture in all layouts; each file is encoded once."""
        photo: Path | None = None
        labels: Path | None = None
        if 'coco' in self.layouts or 'panoptic' in self.layouts:
            photo = self.folders['coco'][0] / f'{index:06d}.jpg'
            _write_image(photo, drawn.image)
            self._add_coco_rows(index, photo.name, drawn)
        if 'panoptic' in self.layouts:
            self._add_panoptic_map(index, drawn)
        if 'ade20k' in self.layouts:
            pictures, masks = self.folders['ade20k']
            labels = masks / f'{index:06d}.png'
            _link_or_write(photo, pictures / f'{index:06d}.jpg', drawn.image)
            _write_image(labels, drawn.semantic)
        if 'cityscapes' in self.layouts:
            pictures, masks = self.folders['cityscapes']
            stem = f'{CITY}_{index:06d}_000000'
            _write_image(pictures / f'{stem}_leftImg8bit.png', drawn.image)
            _link_or_write(labels, masks / f'{stem}_gtFine_labelTrainIds.png', drawn.semantic)

    def _add_coco_rows(self, index: int, file_name: str, drawn: Sample) -> None:
        height, width = drawn.semantic.shape
        self.images.append(
            dict(id=index + 1, file_name=file_name, width=width, height=height, license=1)
        )
        for mask, label, box in zip(
            drawn.masks, drawn.labels.tolist(), drawn.boxes.tolist(), strict=True
        ):
            self.annotations.append(
                dict(
                    id=len(self.annotations) + 1,
                    image_id=index + 1,
                    **_object_fields(mask, label, box),
                    segmentation=dict(size=[height, width], counts=count_runs(mask)),
                )
            )

    def _add_panoptic_map(self, index: int, drawn: Sample) -> None:
        """Write the map of segments: 1 is the background, 2 the first object; n is (n, 0, 0)."""
        ids = np.ones(drawn.semantic.shape, np.uint8)
        for position, mask in enumerate(drawn.masks):
            ids[mask] = position + 2
        name = f'{index:06d}.png'
        _write_image(
            self.folders['panoptic'][1] / name, ids[:, :, None] * np.array([1, 0, 0], 'u1')
        )
        regions = [(ids == 1, len(CLASSES))]
        regions += list(zip(drawn.masks, drawn.labels.tolist(), strict=True))
        segments = [
            dict(id=number, **_object_fields(mask, label, tight_box(mask)))
            for number, (mask, label) in enumerate(regions, 1)
            if mask.any()
        ]
        self.segments.append(dict(image_id=index + 1, file_name=name, segments_info=segments))

    def write_json_files(self, seed: int) -> None:
        """Write the json files of COCO's layouts."""
        things = [
            dict(id=number, name=name, supercategory='shape')
            for number, name in enumerate(CLASSES, 1)
        ]
        if 'coco' in self.layouts:
            self._write_coco(f'{self.name}.json', seed, self.annotations, things)
        if 'panoptic' in self.layouts:
            ground = dict(id=len(CLASSES) + 1, name='background', supercategory='ground')
            categories = [{**thing, 'isthing': 1} for thing in things] + [{**ground, 'isthing': 0}]
            self._write_coco(f'panoptic_{self.name}.json', seed, self.segments, categories)

    def _write_coco(
        self, file_name: str, seed: int, annotations: list[dict], categories: list[dict]
    ) -> None:
        content = dict(
            info=dict(
                description=f'mmresnest shapes, {self.name} split',
                version=str(VERSION),
                contributor='mmresnest',
                seed=seed,
            ),
            licenses=[LICENSE],
            images=self.images,
            annotations=annotations,
            categories=categories,
        )
        _write_json(self.root / file_name, content)


def _object_fields(mask: np.ndarray, label: int, box: Sequence[int]) -> dict:
    x0, y0, x1, y1 = box
    return dict(
        category_id=label + 1, bbox=[x0, y0, x1 - x0, y1 - y0], area=int(mask.sum()), iscrowd=0
    )


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, separators=(',', ':')) + '\n', encoding='utf-8')


def _expected_folders(counts: dict[str, int], layouts: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield the folders of a finished data set, and how many files each holds."""
    for split, count in counts.items():
        if not count:
            continue
        if 'coco' in layouts or 'panoptic' in layouts:
            yield split, count
        if 'panoptic' in layouts:
            yield f'panoptic_{split}', count
        if 'ade20k' in layouts:
            yield f'images/{split}', count
            yield f'annotations/{split}', count
        if 'cityscapes' in layouts:
            yield f'leftImg8bit/{split}/{CITY}', count
            yield f'gtFine/{split}/{CITY}', count


def _reuse_problem(root: Path, wanted: dict) -> str | None:
    """Return why an existing folder cannot be used, or None where it can."""
    try:
        found = json.loads((root / STAMP).read_text(encoding='utf-8'))
        layouts = list(found['layouts'])
        counts = {split: int(found[split]) for split in SPLITS}
    except FileNotFoundError:
        return 'is not empty, and mmresnest did not draw what is in it'
    except (OSError, ValueError, KeyError, TypeError):
        return f'has a {STAMP} that cannot be read'
    for key, value in wanted.items():
        same = set(value) <= set(layouts) if key == 'layouts' else found.get(key) == value
        if not same:
            return f'was drawn with {key}={found.get(key)}, not {value}'
    return _missing_files(root, counts, layouts)


def _missing_files(root: Path, counts: dict[str, int], layouts: Sequence[str]) -> str | None:
    """Return what a finished folder has lost, or None where it is complete."""
    for folder, count in _expected_folders(counts, layouts):
        present = sum(1 for _ in os.scandir(root / folder)) if (root / folder).is_dir() else 0
        if present < count:
            return f'has lost files: {folder} holds {present} of {count}'
    for layout, prefix in (('coco', ''), ('panoptic', 'panoptic_')):
        for split in (split for split, count in counts.items() if count and layout in layouts):
            if not (root / f'{prefix}{split}.json').is_file():
                return f'has lost {prefix}{split}.json'
    return None


def _reuse_folder(root: Path, wanted: dict) -> Path:
    """Return an existing folder, or refuse it."""
    problem = _reuse_problem(root, wanted)
    if problem:
        raise UserError(
            f'shapes: the folder {root} {problem}. '
            'Nothing was changed. Name another folder, or move this one away and draw again.',
            code='shapes.folder-taken',
        )
    return root


def draw_dataset(
    folder: str | os.PathLike,
    *,
    seed: int = 0,
    train: int = 400,
    val: int = 100,
    test: int = 100,
    size: tuple[int, int] = (256, 256),
    layouts: Sequence[str] = LAYOUTS,
    progress: bool = True,
) -> Path:
    """Draw the data set into a folder, or reuse the one that is there.

    The pictures are written beside the folder and moved into place when all of them are there, so
    an interrupted call leaves no folder that looks finished.

    Args:
        folder: where to; it must not exist, be empty, or hold the same data set already.
        seed: of the data set, 0 to 2**32 - 1.
        train: pictures in the training split.
        val: pictures in the validation split.
        test: pictures in the test split; 0 leaves a split out.
        size: width and height of the pictures in px.
        layouts: which of ``'coco'``, ``'ade20k'``, ``'cityscapes'`` and ``'panoptic'`` to write.
        progress: show a progress bar where standard error is a terminal.

    Returns:
        The folder.

    Raises:
        UserError: an argument cannot be used, or the folder holds something else.
    """
    root = Path(folder).expanduser()
    stamp = dict(
        version=VERSION,
        seed=check_seed(seed),
        **_check_counts(train, val, test),
        size=list(check_size(size)),
        layouts=_check_layouts(layouts),
        classes=list(CLASSES),
    )
    if root.is_dir() and any(root.iterdir()):
        return _reuse_folder(root, stamp)
    if root.exists() and not root.is_dir():
        raise UserError(
            f'shapes: {root} is a file, not a folder; name another one', code='shapes.folder-taken'
        )
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        temporary = root.parent / f'.{root.name}.drawing-{uuid.uuid4().hex[:12]}'
        temporary.mkdir()
    except OSError as error:
        raise UserError(
            f'shapes: cannot write beside {root}: {error}; name another folder',
            code='file.unwritable',
        ) from None
    try:
        _fill_folder(temporary, stamp, progress)
        return _move_folder(temporary, root, stamp)
    except OSError as error:
        raise UserError(
            f'shapes: could not draw into {root}: {error}; name another folder, or make room',
            code='file.unwritable',
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_layouts(layouts: Sequence[str]) -> list[str]:
    """Return the layouts in the order of ``LAYOUTS``."""
    given = [layouts] if isinstance(layouts, str) else list(layouts)
    for layout in given:
        if layout not in LAYOUTS:
            raise UserError(
                f'shapes: there is no layout {layout!r}; {nearest(layout, LAYOUTS)}',
                code='option.unknown',
            )
    if not given:
        raise UserError(
            'shapes: layouts is empty; legal: ' + ', '.join(LAYOUTS), code='option.value'
        )
    return [layout for layout in LAYOUTS if layout in given]


def _check_counts(*counts: int) -> dict[str, int]:
    """Return the number of pictures of each split."""
    checked = {name: check_count(name, count) for name, count in zip(SPLITS, counts, strict=True)}
    if not any(checked.values()):
        raise UserError(
            'shapes: train, val and test are all 0, so there is nothing to draw',
            code='option.value',
        )
    return checked


def _move_folder(temporary: Path, root: Path, stamp: dict) -> Path:
    """Move a finished folder into place; another process may have been faster."""
    try:
        if root.is_dir():
            root.rmdir()  # empty; not every system renames over it
        move_into_place(temporary, root)
    except OSError:
        if not (root.is_dir() and any(root.iterdir())):
            raise
        return _reuse_folder(root, stamp)
    return root


def _fill_folder(root: Path, stamp: dict, progress: bool) -> None:
    layouts = stamp['layouts']
    counts = {name: stamp[name] for name in SPLITS}
    total = sum(counts.values())
    with show_progress(total, 'drawing shapes', lines=False, shown=progress) as bar:
        for name, count in counts.items():
            if not count:
                continue
            split = _Split(root, name, layouts)
            for index in range(count):
                split.add_sample(index, draw_sample(stamp['seed'], name, index, stamp['size']))
                bar.step()
            split.write_json_files(stamp['seed'])
    if 'ade20k' in layouts or 'cityscapes' in layouts:
        (root / 'classes.txt').write_text('\n'.join(semantic_classes()) + '\n', encoding='utf-8')
    # Last: a folder with this file is complete.
    _write_json(root / STAMP, stamp)
