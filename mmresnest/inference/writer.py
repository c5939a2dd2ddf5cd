"""Write predictions: pictures, label images, annotated videos, and one json file.

Each file is written under another name and moved into place when it is whole.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.files import write_whole
from ..utils.text import printable
from .crops import cut_object
from .inputs import Item
from .outputs import OutputPlan
from .results import Detections, PanopticSegmentation, Result, Segmentation
from .videos import CODECS, VideoWriter
from .yolo_lines import format_yolo_lines

QUALITY = 92  # of JPEG
MAX_JPEG = 65_500  # pixels of a side that its encoder takes


@dataclass
class ResultWriter:
    """Take results as they come, and write the files of a plan.

    Attributes:
        plan: where to.
        files: what was written; pictures and maps by their folder.
        objects: how many were found.
        shown: predicted images and frames.
        notes: what could not be written.
    """

    plan: OutputPlan
    files: list[Path] = field(default_factory=list)
    objects: int = 0
    shown: int = 0
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rows: list[tuple[int, Any]] = []
        self._images: list[tuple[int, dict[str, Any]]] = []
        self._videos: dict[str, VideoWriter] = {}
        self._frames: dict[str, int] = {}  # stream -> its last picture
        self._uncut = 0

    def add_result(self, item: Item, result: Result) -> None:
        """Write the picture and the map of an image, and keep the rest for the json file."""
        self.shown += 1
        origin: dict[str, Any] = dict(file_name=item.source.label)
        if item.frame is not None:
            origin['frame'] = item.frame
        height, width = result.size
        image = dict(id=item.id, **origin, width=width, height=height)
        if isinstance(result, Detections):
            self.objects += len(result)
            self._rows += [(item.id, {**row, **origin}) for row in result.to_coco(item.id)]
            self._write_objects(item, result)
        elif isinstance(result, Segmentation):
            file = self.plan.map_path(item.source, item.frame)
            write_image(file, _to_smallest_dtype(result.labels))
            image.update(labels=self._name_in_table(file), shares=result.shares)
        else:
            self._add_panoptic(item, result)
        self._images.append((item.id, image))
        if self.plan.pictures:
            self._write_picture(item, result)

    def _write_objects(self, item: Item, found: Detections) -> None:
        """Write the text file of an image, and a picture of each object."""
        wanted, where = self.plan.object_files, (item.source, item.frame)
        if wanted.texts:
            text = format_yolo_lines(found, wanted.scores).encode()
            write_whole(self.plan.text_path(*where), lambda out: out.write(text))
        for number, name in enumerate(found.class_names if wanted.crops else (), 1):
            crop = cut_object(item.image, found.boxes[number - 1])
            if crop is None or max(crop.shape) > MAX_JPEG:
                self._uncut += 1
            else:
                write_image(self.plan.crop_path(*where, name, number), crop)

    def _add_panoptic(self, item: Item, result: PanopticSegmentation) -> None:
        file = self.plan.map_path(item.source, item.frame)
        self.objects += len(result.segments)
        write_image(file, result.to_rgb_ids())
        place = file.relative_to(self.plan.maps_folder or file).as_posix()
        self._rows.append((item.id, {**result.to_coco(item.id), 'file_name': place}))

    def close(self) -> None:
        """Complete the videos, and write the json file."""
        for video in self._videos.values():
            if video.close() is None:
                self.notes.append(
                    f'no annotated video of {video.source}: OpenCV writes '
                    f'neither {" nor ".join(code for _, code in CODECS)} here; its '
                    'frames are in the json'
                )
        self._videos.clear()
        if self._uncut:
            self.notes.append(
                f'{self._uncut} boxes have no pixel of their image, or more in a row than JPEG '
                'holds: there are no crops of them'
            )
        self._write_tables()
        if self.plan.object_files.texts and self.plan.names:
            lines = (printable(' '.join(name.split())) + '\n' for name in self.plan.names)
            names = ''.join(lines).encode()
            write_whole(self.plan.classes_file, lambda out: out.write(names))
            self.files.append(self.plan.classes_file)
        self.files += self.plan.folders

    def _write_tables(self) -> None:
        plan = self.plan
        images = [image for _, image in sorted(self._images, key=lambda pair: pair[0])]
        rows = [row for _, row in sorted(self._rows, key=lambda pair: pair[0])]
        categories: list[dict[str, Any]] = [
            dict(id=label + 1, name=name) for label, name in enumerate(plan.names)
        ]
        if plan.task == 'semantic':
            self._write_json(plan.table, dict(classes=list(plan.names), images=images))
        elif plan.task == 'panoptic':
            for label, category in enumerate(categories):
                category['isthing'] = int(label < plan.num_things)
            self._write_json(
                plan.table, dict(images=images, annotations=rows, categories=categories)
            )
        else:
            self._write_json(plan.table, rows)
            self._write_json(plan.images_file, dict(images=images, categories=categories))

    def discard_videos(self) -> None:
        """Remove the videos that are not complete."""
        for video in self._videos.values():
            video.discard()

    def _name_in_table(self, file: Path) -> str:
        """Return how the json file names a file: relative to itself, where that is below it."""
        with suppress(ValueError):
            return file.relative_to(self.plan.table.parent).as_posix()
        return file.as_posix()

    def _write_json(self, path: Path, content: Any) -> None:
        write_whole(path, lambda out: out.write(json.dumps(content).encode()))
        self.files.append(path)

    def _write_picture(self, item: Item, result: Result) -> None:
        source, plan = item.source, self.plan
        picture = result.draw(item.image)
        if not source.video:
            write_image(plan.picture_path(source), picture)
            return
        if source.name not in self._videos:
            self._videos[source.name] = VideoWriter(
                source.label,
                [plan.picture_path(source, suffix) for suffix, _ in CODECS],
                plan.frame_rate(source),
            )
        film, count = self._videos[source.name], 1
        if source.stream is not None:  # where pictures are passed over, one stands for them
            assert item.frame is not None
            last = self._frames.get(source.name, item.frame - plan.vid_stride)
            count = max(1, round((item.frame - last) / plan.vid_stride))
            self._frames[source.name] = item.frame
        for _ in range(count):
            film.add_frame(picture)


def _to_smallest_dtype(labels: np.ndarray) -> np.ndarray:
    """Return class indices in the fewest bytes."""
    return labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)


def write_image(path: Path, array: np.ndarray) -> None:
    """Write an image H W or H W 3 in RGB, in the format of its suffix."""
    content = encode_image(path.suffix, array)
    write_whole(path, lambda out: out.write(content))


def encode_image(suffix: str, array: np.ndarray) -> bytes:
    """Return the content of a file with an image H W or H W 3 in RGB."""
    import cv2

    bgr = array[:, :, ::-1] if array.ndim == 3 else array
    settings = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if suffix == '.jpg' else []
    return cv2.imencode(suffix, np.ascontiguousarray(bgr), settings)[1].tobytes()
