"""Draw scenes of shapes, with boxes, masks and labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...errors import UserError, nearest

SPLITS = ('train', 'val', 'test')
CLASSES = ('disk', 'ring', 'square', 'triangle', 'star', 'cross')

MIN_SIDE = 64  # of an image: below this, not even three small objects fit
MAX_SIDE = 2048
MAX_COUNT = 40  # objects in a picture, however large
MIN_VISIBLE = 0.8  # of an object: a placement that would leave less of any object is redrawn
MAX_BOX_IOU = 0.2  # between two objects: below the usual NMS threshold, so that both can be found
MIN_EXTENT = 12  # px: the shorter side of the smallest visible box

# Side of an object in px, and how often: COCO's small, medium and large areas.
SIDES = (((20, 31), 16), ((36, 92), 68), ((112, 150), 16))

CITY = 'shapes'  # the one city of the Cityscapes layout
SUBPIXELS = 4  # per side, for the coverage of a pixel


class Sample(NamedTuple):
    """A picture and its annotations.

    Attributes:
        image: H W 3, uint8, RGB.
        masks: N H W, bool: the visible part of every object.
        labels: N, int64: indices into ``CLASSES``.
        boxes: N 4, int64: x0 y0 x1 y1 of the visible part; x1 and y1 are exclusive.
        semantic: H W, uint8: 0 is background, 1 + label elsewhere.
    """

    image: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    semantic: np.ndarray


class _RandomIntegers:
    """Random integers: the same for the same seeds, also where C's ``long`` is shorter."""

    def __init__(self, *seeds: int) -> None:
        self._state = np.random.RandomState(np.random.PCG64(np.random.SeedSequence(seeds)))

    def randint(self, low: int, high: int | None = None, size: tuple | None = None) -> Any:
        return self._state.randint(low, high, size, dtype=np.int64)


def classes() -> tuple[str, ...]:
    """Return the names of the object classes, in the order of their labels."""
    return CLASSES


def semantic_classes() -> tuple[str, ...]:
    """Return the names of the classes of a semantic mask, in the order of its values."""
    return ('background',) + CLASSES


def _round_to_12_bits(value: float) -> float:
    """Round to 12 bits, so that the last bit of a machine's sine cannot reach a pixel."""
    return round(value * 4096) / 4096


# Unit normals of the five lines of a pentagram whose first tip points up.
_PENTAGRAM = tuple(
    (
        _round_to_12_bits(math.sin(math.radians(72 * k + 36))),
        _round_to_12_bits(-math.cos(math.radians(72 * k + 36))),
    )
    for k in range(5)
)


def _inside_shape(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Tell whether points of the unit square -1..1 lie in a shape; v points down."""
    if name == 'disk':
        return u * u + v * v <= 1
    if name == 'ring':
        squared = u * u + v * v
        return (squared <= 1) & (squared >= 0.25)
    if name == 'square':
        return (np.abs(u) <= 0.94) & (np.abs(v) <= 0.94)
    if name == 'triangle':
        return (v <= 0.94) & (2 * np.abs(u) <= v + 1)
    if name == 'star':
        # A point is in the pentagram when at most one of its five lines cuts it off. The tips would
        # end at 0.343 / cos 72 = 1.11; rounding them off at 1 leaves stouter arms at 18 px.
        cut_off = np.zeros(u.shape, np.uint8)
        for across, along in _PENTAGRAM:
            cut_off += u * across + v * along > 0.343
        return (cut_off <= 1) & (u * u + v * v <= 1)
    if name == 'cross':
        arms = (np.abs(u) <= 0.33) | (np.abs(v) <= 0.33)
        return arms & (np.abs(u) <= 1) & (np.abs(v) <= 1)
    raise ValueError(name)


def _hsv_color(hue: int, saturation: int, value: int) -> np.ndarray:
    """Convert a hue in degrees and a saturation and value in 0..255 to RGB, in integers."""
    sector, rest = divmod(hue % 360, 60)
    low = value * (255 - saturation) // 255
    rising = low + (value - low) * rest // 60
    falling = value - (value - low) * rest // 60
    return np.array(
        [
            (value, rising, low),
            (falling, value, low),
            (low, value, rising),
            (low, falling, value),
            (rising, low, value),
            (value, low, falling),
        ][sector],
        np.int16,
    )


def _color_luminance(rgb: np.ndarray) -> int:
    return int(299 * int(rgb[0]) + 587 * int(rgb[1]) + 114 * int(rgb[2])) // 1000


def _smooth_noise(
    random: _RandomIntegers, height: int, width: int, cell: int, span: int
) -> np.ndarray:
    """Return smooth noise in -span..span: random values every ``cell`` pixels, interpolated."""
    rows, columns = height // cell + 2, width // cell + 2
    grid = random.randint(-span, span + 1, (rows, columns)).astype(np.int32)
    y, x = np.arange(height), np.arange(width)
    top, left = y // cell, x // cell
    down, right = (y % cell)[:, None], (x % cell)[None, :]
    tall = grid[top] * (cell - down) + grid[top + 1] * down  # H columns
    wide = tall[:, left] * (cell - right) + tall[:, left + 1] * right  # H W
    return (wide // (cell * cell)).astype(np.int16)


def _draw_background(
    random: _RandomIntegers, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a textured background of low saturation; return it and its mean color."""
    dark = random.randint(2) == 0
    base = _hsv_color(
        random.randint(360),
        random.randint(20, 80),
        random.randint(45, 85) if dark else random.randint(165, 215),
    )
    tint = _hsv_color(random.randint(360), 90, 255) - 200
    shade = _smooth_noise(random, height, width, 64, 16) + _smooth_noise(
        random, height, width, 16, 9
    )
    ground = base[None, None, :] + shade[:, :, None]
    ground = ground + (_smooth_noise(random, height, width, 48, 10)[:, :, None] * tint) // 100
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    period, depth = random.randint(10, 28), random.randint(5, 12)
    kind = random.randint(5)
    if kind == 0:  # cloth
        pattern = ((x + y) % period < period // 2) ^ ((x - y) % period < period // 2)
    elif kind == 1:  # boards
        pattern = (y % period < 2) | ((x + 37 * (y // period)) % (period * 4) < 2)
    elif kind == 2:  # slanted rain
        pattern = (2 * x + y + _smooth_noise(random, height, width, 32, 8)) % (
            2 * period
        ) < period // 2
    elif kind == 3:  # squared paper
        pattern = (x % period < 1) | (y % period < 1)
    else:  # bare
        pattern = np.zeros((height, width), bool)
    grain = random.randint(-4, 5, (height, width)).astype(np.int16)
    ground = ground + (grain - np.int16(depth) * pattern)[:, :, None]
    return np.clip(ground, 0, 255), base


def _fill_texture(
    random: _RandomIntegers, u: np.ndarray, v: np.ndarray, color: np.ndarray
) -> np.ndarray:
    """Return the inner colors of an object, h w 3, from positions in 1/8 px along its axes."""
    second = color * 7 // 10 if _color_luminance(color) > 110 else color + (255 - color) * 4 // 10
    kind = random.randint(5)
    period = 8 * random.randint(7, 14)
    if kind == 0:
        chosen = np.zeros(u.shape, bool)
    elif kind == 1:
        chosen = np.floor(u / period) % 2 == 0
    elif kind == 2:
        chosen = (np.floor(u / period) + np.floor(v / period)) % 2 == 0
    elif kind == 3:
        across, along = u - np.floor(u / period) * period, v - np.floor(v / period) * period
        half = period / 2
        across, along = across - half, along - half
        chosen = across * across + along * along < period * period / 12
    else:
        chosen = v > 0
    return np.where(chosen[:, :, None], second, color)


class _Placement(NamedTuple):
    """The position of an object; lengths in 1/8 px."""

    window: tuple[slice, slice]  # in the picture, px
    center: tuple[int, int]  # x y
    half: tuple[int, int]  # along the object's own axes
    cosine: float
    sine: float

    def axes(self, step: int, unit: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the window's points along the object's axes, divided by ``unit``."""
        rows, columns = self.window
        dx = np.arange(8 * columns.start + step // 2, 8 * columns.stop, step) - self.center[0]
        dy = np.arange(8 * rows.start + step // 2, 8 * rows.stop, step) - self.center[1]
        # Divided while still one-dimensional: this is where the time of a large object goes.
        across = [
            (line / unit[0]).astype(np.float32) for line in (dx * self.cosine, dy * self.sine)
        ]
        along = [
            (line / unit[1]).astype(np.float32) for line in (dx * -self.sine, dy * self.cosine)
        ]
        return across[0] + across[1][:, None], along[0] + along[1][:, None]


def _random_placement(random: _RandomIntegers, side: int, height: int, width: int) -> _Placement:
    """Choose position, rotation and proportions of an object."""
    # A fifth longer one way than the other at most.
    stretch = random.randint(-10, 11)
    half = side * (100 + stretch) * 8 // 200, side * (100 - stretch) * 8 // 200
    turn = math.radians(random.randint(-20, 21))
    cosine, sine = _round_to_12_bits(math.cos(turn)), _round_to_12_bits(math.sin(turn))
    # Half the extent of the turned unit square, which holds every shape.
    reach_x = int(half[0] * abs(cosine) + half[1] * abs(sine)) + 8
    reach_y = int(half[0] * abs(sine) + half[1] * abs(cosine)) + 8
    x = random.randint(reach_x, max(8 * width - reach_x, reach_x + 1))
    y = random.randint(reach_y, max(8 * height - reach_y, reach_y + 1))
    window = (
        slice(max((y - reach_y) // 8, 0), min((y + reach_y) // 8 + 1, height)),
        slice(max((x - reach_x) // 8, 0), min((x + reach_x) // 8 + 1, width)),
    )
    return _Placement(window, (x, y), half, cosine, sine)


def _outline_mask(place: _Placement, name: str) -> np.ndarray:
    """Return which pixels of the window, h w, have their centers in the shape."""
    return _inside_shape(name, *place.axes(8, place.half))


def _pixel_coverage(place: _Placement, name: str) -> np.ndarray:
    """Return how much of each pixel of the window the shape covers, in 0..SUBPIXELS squared."""
    covered = _inside_shape(name, *place.axes(8 // SUBPIXELS, place.half)).view(np.uint8)
    height, width = covered.shape
    # One axis after the other: adding whole rows is several times as fast as a sum over both.
    rows = np.zeros((height // SUBPIXELS, width), np.uint8)
    for row in range(SUBPIXELS):
        rows += covered[row::SUBPIXELS]
    coverage = np.zeros((height // SUBPIXELS, width // SUBPIXELS), np.int16)
    for column in range(SUBPIXELS):
        coverage += rows[:, column::SUBPIXELS]
    return coverage


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the tight box of a mask that is not empty: x0 y0 x1 y1, ends exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _box_iou(one: tuple[int, int, int, int], two: tuple[int, int, int, int]) -> float:
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, two)) - width * height
    return width * height / union


class _Canvas:
    """A picture that is being drawn, and what is visible of every object on it."""

    def __init__(self, image: np.ndarray, ground: np.ndarray) -> None:
        self.image, self.ground = image, ground
        self.owner = np.zeros(image.shape[:2], np.int32)  # number of the object from 1, 0: ground
        self.full: list[int] = []  # areas before anything was laid over
        self.visible: list[int] = []  # areas now
        self.boxes: list[tuple[int, int, int, int]] = []  # of what is visible
        self.colors: list[np.ndarray] = []
        self.labels: list[int] = []

    def add_object(self, window: tuple[slice, slice], mask: np.ndarray) -> bool:
        """Put an object over the others, unless it would hide too much or confuse two boxes."""
        below = self.owner[window].copy()
        areas, boxes = list(self.visible), list(self.boxes)
        self.owner[window][mask] = len(areas) + 1
        x0, y0, x1, y1 = tight_box(mask)
        rows, columns = window
        new = (x0 + columns.start, y0 + rows.start, x1 + columns.start, y1 + rows.start)
        if self._hide_pixels(below[mask], areas, boxes) and all(
            _box_iou(box, new) <= MAX_BOX_IOU for box in boxes
        ):
            area = int(mask.sum())
            self.full.append(area)
            self.visible, self.boxes = areas + [area], boxes + [new]
            return True
        self.owner[window] = below
        return False

    def _hide_pixels(self, hidden: np.ndarray, areas: list[int], boxes: list) -> bool:
        """Update areas and boxes after pixels were hidden; return False if that is too many."""
        for number, lost in enumerate(np.bincount(hidden, minlength=1).tolist()[1:]):
            if not lost:
                continue
            areas[number] -= lost
            if areas[number] < MIN_VISIBLE * self.full[number]:
                return False
            x0, y0, x1, y1 = boxes[number]
            left, top, right, bottom = tight_box(self.owner[y0:y1, x0:x1] == number + 1)
            boxes[number] = (x0 + left, y0 + top, x0 + right, y0 + bottom)
            if min(right - left, bottom - top) < MIN_EXTENT:
                return False
        return True

    def paint_object(
        self, random: _RandomIntegers, place: _Placement, mask: np.ndarray, label: int
    ) -> None:
        """Paint the object added last, so that it stands out from its surroundings."""
        number = len(self.full)
        around = np.unique(self.owner[place.window])
        near = [self.ground] + [self.colors[other - 1] for other in around if 0 < other < number]
        color = _contrasting_color(random, label, near)
        inner = _fill_texture(random, *place.axes(8, (1, 1)), color)
        # The rim: what a step of a pixel or two leaves, in a darker or a lighter tone.
        thick = 2 if mask.shape[0] > 40 else 1
        padded = np.pad(mask, thick)
        height, width = mask.shape
        core = mask.copy()
        for down, right in ((0, thick), (2 * thick, thick), (thick, 0), (thick, 2 * thick)):
            core &= padded[down : down + height, right : right + width]
        if _color_luminance(self.ground) > 120:
            rim = color * 35 // 100
        else:
            rim = color + (255 - color) * 75 // 100
        inner = np.where(core[:, :, None], inner, rim)
        under = self.image[place.window]
        alpha, whole = _pixel_coverage(place, CLASSES[label])[:, :, None], SUBPIXELS**2
        self.image[place.window] = (inner * alpha + under * (whole - alpha) + whole // 2) // whole
        self.colors.append(color)
        self.labels.append(label)


def _contrasting_color(
    random: _RandomIntegers, label: int, near: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the first of eight random colors that differs enough from the others, or the best."""
    best, best_distance = near[0], -1
    for _ in range(8):
        own = random.randint(3) == 0
        hue = label * 360 // len(CLASSES) + random.randint(-25, 26) if own else random.randint(360)
        color = _hsv_color(hue, random.randint(140, 256), random.randint(90, 256))
        distance = min(
            int(np.abs(color - other).sum())
            + 2 * abs(_color_luminance(color) - _color_luminance(other))
            for other in near
        )
        if distance > best_distance:
            best, best_distance = color, distance
        if distance >= 260:
            break
    return best


def _random_side(random: _RandomIntegers) -> int:
    """Choose the side of an object in px, by the shares of ``SIDES``."""
    likely = [lengths for lengths, share in SIDES for _ in range(share)]
    low, high = likely[random.randint(len(likely))]
    return low + (high - low) * random.randint(101) // 100


def check_count(name: str, value: int) -> int:
    """Return a count, or refuse it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise UserError(
            f'shapes: {name} must be a whole number from 0 up, not {value!r}', code='option.value'
        )
    return int(value)


def check_seed(seed: int) -> int:
    """Return a seed, or refuse it."""
    # NumPy splits longer seeds into words of 32 bits, which could collide with split and index.
    if check_count('seed', seed) >= 2**32:
        raise UserError(f'shapes: seed must be below 2**32, not {seed!r}', code='option.value')
    return int(seed)


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return width and height, or refuse them."""
    try:
        width, height = (check_count('size', side) for side in size)
    except (TypeError, ValueError):
        raise UserError(
            f'shapes: size must be two whole numbers (width, height), not {size!r}',
            code='option.value',
        ) from None
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise UserError(
            f'shapes: both sides of size must be {MIN_SIDE} to {MAX_SIDE} px, '
            f'not {width} x {height}',
            code='option.value',
        )
    return width, height


def draw_sample(seed: int, split: str, index: int, size: tuple[int, int] = (256, 256)) -> Sample:
    """Draw one picture.

    Args:
        seed: of the data set, 0 to 2**32 - 1.
        split: ``'train'``, ``'val'`` or ``'test'``.
        index: of the picture in its split.
        size: width and height in px.

    Returns:
        The picture and its annotations; the same for the same arguments, whatever else is drawn.
    """
    seed, size = check_seed(seed), check_size(size)
    if split not in SPLITS:
        raise UserError(
            f'shapes: there is no split {split!r}; {nearest(split, SPLITS)}', code='option.unknown'
        )
    width, height = size
    index = check_count('index', index)
    random = _RandomIntegers(seed, SPLITS.index(split), index)
    image, ground = _draw_background(random, height, width)

    # Five to eight objects on 256 x 256, in proportion on other sizes.
    count = max(2, (random.randint(5, 9) * width * height + 32768) // 65536)
    longest = min(width, height) * 5 // 8
    sides = [min(_random_side(random), longest) for _ in range(min(count, MAX_COUNT))]
    # Large ones first, so that they cannot hide small ones; a little disorder lets them overlap.
    sides.sort(key=lambda side: -side + random.randint(-12, 13))

    canvas = _Canvas(image, ground)
    for side in sides:
        label = random.randint(len(CLASSES))
        alone = random.randint(3) > 0  # two of three would rather not touch another
        for attempt in range(25):
            place = _random_placement(random, side, height, width)
            if alone and attempt < 12 and canvas.owner[place.window].any():
                continue
            mask = _outline_mask(place, CLASSES[label])
            if canvas.add_object(place.window, mask):
                canvas.paint_object(random, place, mask, label)
                break

    numbers = np.arange(1, len(canvas.labels) + 1)
    semantic = np.array([0] + [label + 1 for label in canvas.labels], np.uint8)[canvas.owner]
    return Sample(
        image=canvas.image.astype(np.uint8),
        masks=canvas.owner[None] == numbers[:, None, None],
        labels=np.array(canvas.labels, np.int64),
        boxes=np.array(canvas.boxes, np.int64).reshape(-1, 4),
        semantic=semantic,
    )
