"""Helpers that know nothing of networks: pairs, run lengths, files that are whole, names."""

import os

import numpy as np
import pytest

from mmresnest.utils import files
from mmresnest.utils.masks import count_runs, decode_mask, encode_rle, rle_to_json
from mmresnest.utils.matching import greedy_pairs
from mmresnest.utils.text import format_count, format_some

coco = pytest.importorskip('pycocotools.mask')
# pycocotools copies arrays in a way that NumPy will not have.
pytestmark = pytest.mark.filterwarnings('ignore::DeprecationWarning')


@pytest.mark.parametrize(
    'gains, least, pairs',
    [
        ([[0.9, 0.8], [0.95, 0.6]], 0.5, [(0, 0), (1, 1)]),  # the sum of 0.8 and 0.95 is larger
        ([[0.9, 0.8], [0.95, 0.6]], 0.7, [(0, 0)]),
        ([[0.5, 0.5], [0.5, 0.5]], 0.5, [(0, 0), (1, 1)]),
        ([[0.4, 0.1], [0.3, 0.7]], 0.5, [(1, 1)]),
        ([[np.nan, 0.6], [np.nan, np.nan]], 0.5, [(0, 1)]),
        ([[-3.0, -1.0], [-1.0, -np.inf]], -2.0, [(0, 1), (1, 0)]),
        ([[0.0]], 0.0, [(0, 0)]),
        ([[], []], 0.5, []),
    ],
)
def test_greedy_pairs(gains, least, pairs):
    given = np.array(gains, float)
    before = given.copy()
    assert greedy_pairs(given, least) == pairs
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize('seed', range(3))
def test_greedy_pairs_by_hand(seed):
    gains = np.random.default_rng(seed).random((9, 6)).round(1)
    free, expected = set(range(6)), []
    for row in range(9):
        column = min(free, key=lambda one: (-gains[row, one], one), default=None)
        if column is not None and gains[row, column] >= 0.5:
            expected.append((row, column))
            free.remove(column)
    assert greedy_pairs(gains, 0.5) == expected and expected


@pytest.mark.parametrize('kind', ['some', 'none', 'all', 'first', 'last'])
def test_run_lengths_are_those_of_pycocotools(kind):
    mask = np.zeros((7, 5), bool)
    if kind == 'some':
        mask = np.random.default_rng(0).random((7, 5)) < 0.4
    elif kind == 'all':
        mask[:] = True
    elif kind in ('first', 'last'):
        mask.flat[0 if kind == 'first' else -1] = True
    rle = encode_rle(mask)
    assert rle['size'] == [7, 5] and isinstance(rle['counts'], str)
    assert rle == rle_to_json(coco.encode(np.asfortranarray(mask, np.uint8))) == rle_to_json(rle)
    runs = count_runs(mask)
    assert sum(runs) == 35 and (runs[0] == 0) == mask.flat[0]
    for segmentation in (rle, dict(size=[7, 5], counts=runs)):
        assert (decode_mask(segmentation, 7, 5) == mask).all()


def test_polygons_are_joined():
    found = decode_mask([[0, 0, 2, 0, 2, 2, 0, 2], [3, 3, 5, 3, 5, 5, 3, 5]], 6, 6)
    assert found.sum() == 8 and found[0, 0] and found[4, 4] and not found[2, 2]


@pytest.mark.parametrize('name', ['a.mp4', 'deep/folder/b.tar.gz'])
def test_a_part_lies_beside_its_file_and_ends_like_it(tmp_path, name):
    file = tmp_path / name
    part = files.part_beside(file)
    assert part.parent == file.parent and part.parent.is_dir() and part.suffix == file.suffix
    assert part != file and part.name.startswith('.')
    file.write_text('old')
    part.write_text('new')
    files.move_into_place(part, file)
    assert file.read_text() == 'new' and os.listdir(file.parent) == [file.name]


def test_a_folder_moves_into_place_only_where_nothing_is(tmp_path):
    new, place = tmp_path / 'new', tmp_path / 'place'
    new.mkdir()
    (new / 'a').write_text('1')
    files.move_into_place(new, place)
    assert (place / 'a').read_text() == '1' and not new.exists()
    new.mkdir()
    with pytest.raises(OSError):
        files.move_into_place(new, place)
    assert (place / 'a').read_text() == '1'


def test_names_in_messages():
    letters = list('abcdefghij')
    assert format_some(letters) == 'a, b, c, d, e, f, g, h and 2 more'
    assert format_some(letters, 10) == 'a, b, c, d, e, f, g, h, i, j' and format_some([]) == ''
    assert format_count(letters) == '10 classes (a, b, c, d, e, ...)'
    assert format_count(['a'], 'categories') == '1 category (a)'
    assert format_count(iter('ab')) == '2 classes (a, b)'
