"""Masks of any values: what a mapping does to pixels, and which masks need one."""

import numpy as np
import pytest
from helpers.errors import refuses
from PIL import Image, ImageFilter

from mmresnest.data.mask_mapping import (
    IGNORED,
    MaskMapping,
    count_values,
    suggest_mapping,
    write_index_masks,
)

RNG = np.random.RandomState(0)
SHAPE = np.kron([[0, 1], [1, 0]], np.ones((64, 64), np.int64))  # blocks of 64 px

QUARTERS = np.kron([[0, 1], [2, 3]], np.ones((64, 64), np.int64))


def save(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels, mode)).save(path)
    return path


@pytest.mark.parametrize(
    'text, classes, values',
    [
        ('0=background,255=object', ('background', 'object'), {0: 0, 255: 1}),
        (' 0 = sky , 128 = tree ', ('sky', 'tree'), {0: 0, 128: 1}),
        ('1=car,2=car,0=road,7=ignore', ('car', 'road'), {1: 0, 2: 0, 0: 1, 7: IGNORED}),
        ('0=a,65535=ignore', ('a',), {0: 0, 65535: IGNORED}),
    ],
)
def test_values_take_the_index_of_their_name(text, classes, values):
    mapping = MaskMapping.parse(text)
    assert mapping.classes == classes and MaskMapping.parse(str(mapping)) == mapping
    mask = np.array([list(values)])
    assert mapping.to_indices(mask).tolist() == [list(values.values())]


@pytest.mark.parametrize(
    'text',
    ['', 'background', '0=', '=a', '0=a,0=b', '0=a,1:2:3=b', '0=ignore', 'x=a', '-1=a', '1.5=a']
    + ['256:0:0=a', '70000=a', '#12=a', '0=a,,5'],
)
def test_a_mapping_that_means_nothing_is_refused(text):
    with refuses('option.mask-values'):
        MaskMapping.parse(text)


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'P'])
def test_colors(tmp_path, mode):
    colors = np.array([(0, 0, 0), (128, 0, 0), (255, 250, 1)], np.uint8)
    labels = RNG.randint(0, 3, (20, 30))
    if mode == 'P':
        image = Image.fromarray(labels.astype(np.uint8))
        image.putpalette(colors.tobytes())
    else:
        image = Image.fromarray(colors[labels]).convert(mode)
    mapping = MaskMapping.parse('128:0:0=plane,#fffa01=sun,0:0:0=ignore')
    found = mapping.to_indices(mapping.read_values(save(tmp_path / 'mask.png', image)))
    assert (found == np.array([IGNORED, 0, 1])[labels]).all()
    with refuses('data.label-values', '255:250:1'):
        MaskMapping.parse('0:0:0=a,128:0:0=b').to_indices(
            mapping.read_values(tmp_path / 'mask.png')
        )


def with_palette(gray):
    image = Image.frombytes('P', gray.shape[::-1], gray.tobytes())
    image.putpalette(RNG.randint(0, 256, 768).tolist())
    return image


@pytest.mark.parametrize('kind', ['L', '1', 'P', 'RGB', 'RGBA', 'LA', 'I;16', 'I'])
def test_gray_values_in_every_mode(tmp_path, kind):
    gray = (255 * SHAPE).astype(np.uint8)
    image = {
        'L': lambda: Image.fromarray(gray),
        '1': lambda: Image.fromarray(gray).convert('1'),
        'P': lambda: with_palette(gray),
        'RGB': lambda: Image.fromarray(gray).convert('RGB'),
        'RGBA': lambda: Image.fromarray(gray).convert('RGBA'),
        'LA': lambda: Image.fromarray(gray).convert('LA'),
        'I;16': lambda: Image.fromarray(gray.astype(np.uint16)),
        'I': lambda: Image.fromarray(gray.astype(np.int32)),
    }[kind]()
    path = save(tmp_path / ('mask.tif' if kind == 'I' else 'mask.png'), image)
    high = 1 if kind == '1' else 255
    mapping = MaskMapping.parse(f'0=background,{high}=object')
    assert (mapping.to_indices(mapping.read_values(path)) == SHAPE).all()


def test_edges_take_the_nearer_class_and_a_class_of_its_own_is_refused(tmp_path):
    mapping = MaskMapping.parse('0=background,255=object')
    soft = Image.fromarray((255 * SHAPE).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    values = np.asarray(soft)
    assert len(np.unique(values)) >= 20
    found = mapping.to_indices(mapping.read_values(save(tmp_path / 'soft.png', soft)))
    assert (found == (values > 127)).all()
    third = np.where(SHAPE == 1, 255, 0)
    third[:64, :64] = 128  # a sixteenth: no edge
    with refuses('data.label-values', '128=NAME'):
        mapping.to_indices(third)
    with refuses('data.label-values'):  # the values that a mapping does not name at all
        mapping.to_indices(SHAPE + 1)


def test_color_where_gray_values_are_mapped_is_refused(tmp_path):
    path = save(tmp_path / 'mask.png', np.stack([SHAPE, 0 * SHAPE, SHAPE], -1).astype(np.uint8))
    with refuses('data.label-values'):
        MaskMapping.parse('0=a,1=b').read_values(path)
    path.write_bytes(path.read_bytes()[:60])
    with refuses('data.label-unreadable'):
        MaskMapping.parse('0=a,1=b').read_values(path)


def soft(low, high):
    image = Image.fromarray(np.where(SHAPE == 1, high, low).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(1)))


@pytest.mark.parametrize(
    'pixels, names, mapping',
    [
        (255 * SHAPE, (), '0=background,255=object'),
        (255 * SHAPE, ('sky', 'cat'), '0=sky,255=cat'),
        (254 * SHAPE, (), '0=background,254=object'),
        (128 * SHAPE, (), '0=background,128=object'),
        (1 + 254 * SHAPE, (), '1=background,255=object'),
        (np.where(np.arange(16384).reshape(128, 128) < 9, 255, 0), (), '0=background,255=object'),
        (soft(0, 255), (), '0=background,255=object'),
        (soft(0, 200), (), '0=background,200=object'),
        (QUARTERS * 85, (), '0=background,85=class_1,170=class_2,255=class_3'),
        (QUARTERS * 60, ('a', 'b', 'c', 'd'), '0=a,60=b,120=c,180=d'),
        # class indices, with and without pixels that are ignored
        (SHAPE, (), ''),
        (np.where(SHAPE == 1, 1, np.arange(128) % 2 * 255), (), ''),
        (2 * SHAPE, (), ''),
        (QUARTERS * 20, (), ''),
        (np.array([3, 50, 61, 149])[QUARTERS], (), ''),
        (0 * SHAPE, (), ''),
        (np.arange(16384).reshape(128, 128) % 150, (), ''),
        (np.where(np.arange(16384).reshape(128, 128) < 99, 7, SHAPE), (), ''),
    ],
)
def test_which_masks_need_a_mapping(tmp_path, pixels, names, mapping):
    path = save(tmp_path / 'mask.png', np.asarray(pixels).astype(np.uint8))
    assert suggest_mapping(count_values([path]), names) == mapping
    if mapping:  # and what is suggested can be applied
        parsed = MaskMapping.parse(mapping)
        found = np.unique(parsed.to_indices(parsed.read_values(path)))
        assert found.tolist() == list(range(len(parsed.classes)))


def test_16_bits_that_are_ignored_by_their_last_value(tmp_path):
    pixels = np.where(np.arange(128) % 2, 65535, SHAPE).astype(np.uint16)
    shares = count_values([save(tmp_path / 'mask.png', pixels)])
    assert suggest_mapping(shares) == '0=class_0,1=class_1,65535=ignore'
    assert suggest_mapping(shares, ('a', 'b', 'c')) == '0=a,1=b,2=c,65535=ignore'


def test_index_masks_are_written_once_for_each_state(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    root = tmp_path / 'masks'
    masks = [save(root / f'{name}.bmp', (255 * SHAPE).astype(np.uint8)) for name in ('a', 'b/c')]
    mapping = MaskMapping.parse('0=background,255=object')
    folder = write_index_masks(masks, root, mapping)
    assert folder.is_relative_to(tmp_path / 'cache')
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*.png'))
    assert files == ['a.png', 'b/c.png']
    for name in files:
        assert (np.asarray(Image.open(folder / name)) == SHAPE).all()
    (folder / 'a.png').unlink()
    assert write_index_masks(masks, root, mapping) == folder  # nothing is written again
    assert not (folder / 'a.png').exists()
    other = write_index_masks(masks, root, MaskMapping.parse('0=background,255=thing'))
    save(masks[0], (255 * (1 - SHAPE)).astype(np.uint8))
    again = write_index_masks(masks, root, mapping)
    assert len({folder, other, again}) == 3
    assert (np.asarray(Image.open(again / 'a.png')) == 1 - SHAPE).all()
