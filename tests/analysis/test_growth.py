"""docs/growth.json, the lines through it, and what docs/speed.md says of them."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / 'tools'))  # where the processes that it starts look for it
growth = importlib.import_module('growth')
FOUND = json.loads((ROOT / 'docs' / 'growth.json').read_text(encoding='utf-8'))
PAGE = (ROOT / 'docs' / 'speed.md').read_text(encoding='utf-8')


def test_every_case_was_measured():
    for axis, arch, size in growth.list_cases():
        written = 'x'.join(map(str, (size[0], 3, *size[1:])))
        own = {
            (row['mode'], row['form'])
            for row in FOUND['rows']
            if (row['axis'], row['arch'], row['size']) == (axis, arch, written)
        }
        expected = {('inference', 'lean'), ('inference', 'fused'), ('training', 'lean')}
        if size[0] * size[1] * size[2] > growth.TRAINED:
            expected.remove(('training', 'lean'))
        assert own == expected, (axis, arch, size)


def test_a_line_is_found_again():
    points = [(x, 3.0 + 0.25 * x) for x in (1, 10, 1e3, 1e6)]
    assert growth.fit_line(points) == pytest.approx((3.0, 0.25))


def test_the_page_has_the_formulas():
    """Every number of the table of formulas, as it is computed from the file."""
    rows = dict(re.findall(r'^\| (\w[^|]*?) +\| ([^|]+\| [^|]+\| [^|]+) \|$', PAGE, re.MULTILINE))
    for name, fit in growth.fit_formulas(FOUND).items():
        cells = [cell.strip() for cell in rows[name].split('|')]
        assert cells == [f'{fit["a"]:.3g}', f'{fit["b"]:.3g}', f'{fit["off"]:.0%}'], name


def test_the_page_has_the_processes():
    words = ' '.join(PAGE.split())
    for name, said in (
        ('alone', 'takes {:.0f} ms by itself'),
        ('beside', '{:.0f} ms beside'),
        ('exchanging', 'and {:.0f} ms with the gradients exchanged'),
        ('exchange', 'The exchange alone takes {:.0f} ms'),
    ):
        assert said.format(FOUND['processes'][name]) in words, name


def test_the_picture_is_drawn_of_the_file(tmp_path):
    pytest.importorskip('matplotlib')
    growth.plot_growth(FOUND, tmp_path / 'growth.svg')
    # What is written in it, the lengths of the bars included, and how many curves there are:
    # places of points are matplotlib's choice, which changes with its version.
    words, curves = (
        [
            re.findall(pattern, path.read_text(encoding='utf-8'))
            for path in (tmp_path / 'growth.svg', ROOT / 'docs' / 'growth.svg')
        ]
        for pattern in (r'<!-- (.*) -->', r'<path d="[^"]+" clip-path')
    )
    assert f' {FOUND["processes"]["exchanging"]:.0f}' in words[0] and words[0] == words[1]
    assert len(curves[0]) > 15 and len(curves[0]) == len(curves[1])


@pytest.mark.slow
def test_processes_are_timed():
    found = growth.measure_processes(1)
    assert list(found) == ['alone', 'beside', 'exchanging', 'exchange', 'MiB']
    assert all(value > 0 for value in found.values())
    assert found['MiB'] == pytest.approx(25.4e6 * 4 / 2**20, rel=0.01)
