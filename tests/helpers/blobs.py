"""A detector that needs no network: it finds blobs of three colors on black."""

import cv2
import numpy as np

from mmresnest.inference.base import BasePredictor
from mmresnest.inference.results import Detections, Segmentation

NAMES = ('red', 'green', 'blue')


class BlobFinder(BasePredictor):
    """Scales an image to a longer side, as networks do, and loses what is then too small.

    Args:
        task: ``detection``, ``instance``, or ``semantic``: the color of each pixel.
        side: of the longer side; None leaves images as they are.
        least: pixels of a side of the smallest blob that is found.
        score_thr: a blob's score is the share of its box that it fills.
    """

    num_things = 3

    def __init__(self, task='detection', side=None, least=4, score_thr=0.0):
        self.task, self.side, self.least, self.score_thr = task, side, least, score_thr
        self.names = NAMES if task != 'semantic' else ('black', *NAMES)

    def prepare(self, image):
        scale = 1 if self.side is None else self.side / max(image.shape[:2])
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
        return small.shape[:2], (small, image.shape[:2])

    def predict_batch(self, samples):
        return [self.find(*sample) for sample in samples]

    def find(self, small, size):
        if self.task == 'semantic':
            large = cv2.resize(small, size[::-1], interpolation=cv2.INTER_NEAREST)
            scores = np.concatenate([np.full((1, *size), 100), large.transpose(2, 0, 1)])
            scores = scores.astype(np.float32)
            return Segmentation(scores.argmax(0), self.names, size, scores)
        boxes, scores, labels, masks = [], [], [], []
        scale = np.array([size[1] / small.shape[1], size[0] / small.shape[0]] * 2)
        for label in range(3):
            count, parts, stats, _ = cv2.connectedComponentsWithStats(
                (small[:, :, label] > 200).astype(np.uint8)
            )
            for number in range(1, count):
                x, y, width, height, area = stats[number]
                if min(width, height) < self.least or area / (width * height) < self.score_thr:
                    continue
                boxes.append(np.array([x, y, x + width, y + height]) * scale)
                scores.append(area / (width * height))
                labels.append(label)
                mask = (parts == number).astype(np.uint8)
                masks.append(cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST) > 0)
        return Detections(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(scores, np.float32),
            np.array(labels, np.int64),
            self.names,
            np.array(masks, bool).reshape(-1, *size) if self.task == 'instance' else None,
            size,
        ).filter_by_score(self.score_thr)


def paint(size, *blobs):
    """Paint a picture H W 3: blobs are (label, x0, y0, x1, y1)."""
    image = np.zeros((*size, 3), np.uint8)
    for label, x0, y0, x1, y1 in blobs:
        image[y0:y1, x0:x1, label] = 255
    return image


def use_blobs(monkeypatch, **settings):
    """Have ``predict --model`` find blobs, whatever the file."""
    monkeypatch.setattr(
        'mmresnest.inference.exported.ExportedModel',
        lambda file, score_thr, device: BlobFinder(score_thr=score_thr, **settings),
    )
