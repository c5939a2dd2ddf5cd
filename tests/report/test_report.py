"""The report of a run: its numbers, its page, and what it says where something is missing."""

import json
import math
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import tiny
from helpers.errors import check_error, refuses, run_refused
from mmengine.config import Config
from PIL import Image

from mmresnest.cli.main import main
from mmresnest.engine import cached_predictions
from mmresnest.engine import report as engine
from mmresnest.engine.prepare import prepare
from mmresnest.engine.report import report
from mmresnest.engine.runner import build_runner
from mmresnest.evaluation import matching, predictions, predictions_file, scores
from mmresnest.evaluation.collector import PredictionCollector
from mmresnest.evaluation.predictions import Detections, ImageInfo, LabelMaps, Objects
from mmresnest.report import cases as report_cases
from mmresnest.report import detection, gallery, page
from mmresnest.report.sections import Run
from mmresnest.utils import packages
from mmresnest.utils.boxes import box_ious
from mmresnest.utils.run_logs import Curves, read_curves
from mmresnest.visualization import pictures

# mmengine, mmdet and mmseg warn of their own future at every turn.
pytestmark = [pytest.mark.filterwarnings('ignore'), pytest.mark.usefixtures('unformatted')]

NO_CURVES = Curves({}, {}, {}, {}, {}, 0, 0)
SOME_CURVES = Curves(
    {'loss': ([1, 2], [3.0, 2.0])},
    {'coco/bbox_mAP': ([2], [0.25])},
    {'lr': ([1, 2], [1e-3, 1e-3])},
    {'time': ([1, 2], [0.5, 0.4])},
    {},
    2,
    1,
)
#: names that are mark-up where they are not escaped
CLASSES = ['cat', '<b>dog</b>', '</script><script>alert(1)</script>', '"bird" & co']


def drawn(folder: Path, count: int = 6, classes: int = 4, seed: int = 0) -> Detections:
    """Pictures of noise, objects at random, and detections that find most of them."""
    random = np.random.default_rng(seed)
    listed, truth, found = [], [], []
    for number in range(count):
        path = folder / f'{number}.jpg'
        if not path.exists():
            Image.fromarray(random.integers(0, 255, (90, 120, 3), np.uint8)).save(path)
        listed.append(ImageInfo(str(path), 120, 90))
        for _ in range(5):
            label, (x, y) = int(random.integers(classes)), random.uniform(0, 60, 2)
            width, height = random.uniform(8, 40, 2)
            truth.append((number, label, x, y, x + width, y + height, 1, width * height, 0))
            if random.random() < 0.8:
                label = label if random.random() < 0.8 else int(random.integers(classes))
                box = np.array([x, y, x + width, y + height]) + random.normal(0, 2, 4)
                found.append((number, label, *box, random.beta(4, 2), width * height, 0))
        for _ in range(6):
            x, y, width, height = random.uniform(5, 50, 4)
            found.append(
                (
                    number,
                    int(random.integers(classes)),
                    x,
                    y,
                    x + width,
                    y + height,
                    random.beta(1, 5),
                    width * height,
                    0,
                )
            )
    return Detections(CLASSES[:classes], listed, Objects.from_rows(truth), Objects.from_rows(found))


def labelled(folder: Path, count: int = 3) -> LabelMaps:
    """Label maps of two classes that differ in a stripe; the last row does not count."""
    kept = drawn(folder, count).pictures
    truth = np.zeros((90, 120), int)
    truth[:, 60:] = 1
    truth[-1] = 255
    said = np.where(np.arange(120) >= 80, 1, 0) + np.zeros_like(truth)
    table = predictions.count_pixels(truth, said, 2)
    diagonal = np.diag(table)
    counts = np.stack([diagonal, table.sum(1) - diagonal, table.sum(0)[:-1] - diagonal], axis=1)
    pair = predictions.encode_label_map(truth, 2), predictions.encode_label_map(said, 2)
    return LabelMaps(
        ['sky', 'sea'], kept, table * count, np.stack([counts] * count), [pair] * count
    )


def of_run(found, name='a run', **more) -> Run:
    given = dict(
        facts={'task': 'a task', 'seed': '1'},
        notes=[],
        config='x = 1\n',
        curves=SOME_CURVES,
        results=found,
    )
    return Run(name, **{**given, **more})


# ---- numbers -------------------------------------------------------------------------------------


def pair_by_hand(truth, said, iou=0.5):
    """The objects found and the detections that are right, by the words of COCO's rule."""
    found, right = np.zeros(len(truth), bool), np.zeros(len(said), bool)
    for number in np.argsort([-one['score'] for one in said], kind='stable'):
        best, taken = iou, None
        for place, one in enumerate(truth):
            overlap = box_ious(one['box'][None], said[number]['box'][None])[0, 0]
            free = not found[place] and one['label'] == said[number]['label']
            if free and (overlap > best or (taken is None and overlap == best)):
                best, taken = overlap, place
        if taken is not None:
            found[taken] = right[number] = True
    return found, right


def rows_of(objects, rows):
    return [
        dict(box=objects.box[row], label=objects.label[row], score=objects.score[row])
        for row in rows
    ]


@pytest.mark.parametrize('seed', range(4))
def test_matching_is_that_of_coco_in_report_and_pictures(tmp_path, seed):
    found = drawn(tmp_path, 8, seed=seed)
    matches = matching.match_detections(found)
    for there, said in zip(found.truth.split_by_image(8), found.found.split_by_image(8)):
        expected = pair_by_hand(rows_of(found.truth, there), rows_of(found.found, said))
        pair = pictures.match_objects(
            dict(boxes=found.truth.box[there], labels=found.truth.label[there]),
            dict(
                boxes=found.found.box[said],
                labels=found.found.label[said],
                scores=found.found.score[said],
            ),
        )
        for hits, right in (pair, (matches.finder[there] >= 0, matches.partner[said] >= 0)):
            assert (hits == expected[0]).all() and (right == expected[1]).all()


def test_kinds_of_mistakes():
    there = Objects.from_rows(
        [
            (0, 0, 0, 0, 10, 10, 1, 100, 0),
            (0, 1, 20, 0, 30, 10, 1, 100, 0),
            (0, 1, 50, 50, 90, 90, 1, 1600, 1),
            (0, 2, 0, 50, 10, 60, 1, 100, 0),
        ]
    )
    said = Objects.from_rows(
        [
            (0, 0, 0, 0, 10, 11, 0.9, 110, 0),  # right
            (0, 0, 0, 0, 10, 12, 0.8, 120, 0),  # the same object again: false
            (0, 2, 20, 0, 30, 10, 0.7, 100, 0),  # a 1, taken for a 2
            (0, 1, 60, 60, 70, 70, 0.7, 100, 0),  # in a crowd: not judged
            (0, 2, 0, 50, 10, 60, 0.1, 100, 0),
        ]
    )  # right, of a low score
    found = Detections(['a', 'b', 'c'], [ImageInfo('', 100, 100)], there, said)
    matches = matching.match_detections(found)
    assert matches.partner.tolist() == [0, -1, -1, -1, 3]
    assert matches.confused.tolist() == [-1, -1, 1, -1, -1]
    assert matches.judged.tolist() == [True, True, True, False, True]
    # F1: 2/(1+3), 2/(2+3), 2/(3+3), and with the last one 4/(4+3)
    assert matches.score == pytest.approx(0.1)
    assert matching.confusion_matrix(found, matches).tolist() == [
        [1, 0, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 1, 0],
        [1, 0, 0, 0],
    ]
    assert matching.find_missed(found, matches).tolist() == [False, True, False, False]
    assert matching.find_false(matches).tolist() == [False, True, True, False, False]


def detections_of(said):
    """Three objects of class 0, of which the first two are found well, and further detections."""
    boxes = [(0, 0, 10, 10), (20, 0, 30, 10), (0, 50, 10, 60)]
    there = Objects.from_rows([(0, 0, *box, 1, 100, 0) for box in boxes])
    good = [(0, 0, *box, 0.9, 100, 0) for box in boxes[:2]]
    return Detections(
        ['a', 'b'], [ImageInfo('', 100, 100)], there, Objects.from_rows([*good, *said])
    )


@pytest.mark.parametrize('label', [0, 1])
def test_below_the_threshold_nothing_is_found_nor_confused(label):
    """The third object is only met by a detection too unsure to be shown: it is missed."""
    false = [(0, 1, 70, 70, 80, 80 + number, 0.5, 100, 0) for number in range(9)]
    found = detections_of([*false, (0, label, 0, 50, 10, 60, 0.2, 100, 0)])
    matches = matching.match_detections(found)
    assert matches.score == 0.9 and matches.shown.sum() == 2
    assert (matches.confused == -1).all()
    assert matching.confusion_matrix(found, matches).tolist() == [[2, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert matching.find_missed(found, matches).tolist() == [False, False, True]
    assert not matching.find_false(matches).any()


def test_what_only_an_unsure_detection_found_may_be_confused():
    """The third object has a right detection that is not shown, and a wrong one that is."""
    false = [(0, 1, 70, 70, 80, 80 + number, 0.5, 100, 0) for number in range(9)]
    right, wrong = (0, 0, 0, 50, 10, 60, 0.2, 100, 0), (0, 1, 0, 50, 10, 60, 0.9, 100, 0)
    matches = matching.match_detections(found := detections_of([*false, right, wrong]))
    assert matches.score == 0.9 and matches.partner[-2] == 2 and matches.confused[-1] == 2
    assert matching.confusion_matrix(found, matches).tolist() == [[2, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_from_the_threshold_on_it_is_confused():
    """The sibling of the above: the same detection, as sure as the others."""
    found = detections_of([(0, 1, 0, 50, 10, 60, 0.95, 100, 0)])
    matches = matching.match_detections(found)
    assert matches.confused.tolist() == [-1, -1, 2]
    assert matching.confusion_matrix(found, matches).tolist() == [[2, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_confusion_has_every_object_and_every_detection_shown_once(tmp_path):
    found = drawn(tmp_path, 8)
    matches = matching.match_detections(found)
    table = matching.confusion_matrix(found, matches)
    assert table[:-1].sum() == len(found.truth) and table[-1, -1] == 0
    assert table[:, :-1].sum() == matches.shown.sum()


@pytest.mark.parametrize(
    'right, best',
    [([1, 1, 0, 0], 0.8), ([0, 0, 0, 0], matching.SCORE), ([1, 0, 0, 1], 0.9), ([0, 0, 1, 1], 0.6)],
)
def test_the_threshold_is_where_f1_is_best(right, best):
    given = np.array([0.9, 0.8, 0.7, 0.6])
    assert matching.best_threshold(given, np.array(right, bool), np.ones(4, bool), 2) == best


@pytest.mark.parametrize('fast', [True, False])
def test_perfect_detections_have_a_precision_of_1(tmp_path, monkeypatch, fast):
    if not fast:
        monkeypatch.setattr(scores, 'find_spec', lambda name: None)
    found = drawn(tmp_path, 3)
    perfect = Detections(found.classes, found.pictures, found.truth, found.truth)
    got = scores.coco_precision(perfect)
    assert got.overall['AP'] == got.overall['AP75'] == got.overall['AR100'] == 1
    assert math.isnan(got.overall['AP large'])
    assert (scores.mean_curve(got.curves) == 1).all()
    nothing = Detections(found.classes, found.pictures, found.truth, Objects.from_rows([]))
    assert scores.coco_precision(nothing).overall['AP'] == 0
    assert matching.confusion_matrix(nothing, matching.match_detections(nothing))[
        :, -1
    ].sum() == len(found.truth)


def test_overlap_of_label_maps(tmp_path):
    got = scores.label_overlap(labelled(tmp_path))
    assert got.iou.tolist() == pytest.approx([60 / 80, 40 / 60])
    assert got.recall.tolist() == pytest.approx([1, 40 / 60])
    assert got.precision.tolist() == pytest.approx([60 / 80, 1])
    assert got.accuracy == pytest.approx(100 / 120)


def test_what_is_kept_comes_back(tmp_path):
    for number, made in enumerate((drawn(tmp_path), labelled(tmp_path))):
        file = tmp_path / f'{number}.json.gz'
        predictions_file.save_results(file, made, {'iter': '3'})
        back, about = predictions_file.load_results(file)
        assert about == {'iter': '3'} and back.classes == made.classes
        assert back.pictures == made.pictures
        if isinstance(made, LabelMaps):
            assert (back.counts == made.counts).all() and back.maps == made.maps
            assert (back.pixels == made.pixels).all()
        else:
            assert np.allclose(back.found.box, made.found.box, atol=0.01)
            assert (back.truth.label == made.truth.label).all()
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b'', b'text'):
        file.write_bytes(damaged)
        assert predictions_file.load_results(file) is None


def test_classes_take_turns():
    cases = [
        report_cases.Case('missed', 0, label, rank) for rank, label in enumerate([0, 0, 0, 1, 2, 1])
    ]
    assert [case.label for case in report_cases.select_cases(cases, 5)] == [0, 1, 2, 0, 1]


def test_curves_of_a_run_that_went_on(tmp_path):
    for name, lines in (('1', range(1, 6)), ('2', range(4, 2001))):
        folder = tmp_path / name / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text(
            ''.join(
                json.dumps(dict(lr=0.1, loss=float(name), time=0.5, memory=9, iter=step, step=step))
                + '\n'
                for step in lines
            )
            + '{"torn'
        )
    got = read_curves(tmp_path)
    x, y = got.losses['loss']
    assert len(x) <= 800 and x[-1] == 2000 and y[-1] == 2 and got.iteration == 2000
    assert got.rates.keys() == {'lr'} and got.memory.keys() == {'memory'}


# ---- the page ------------------------------------------------------------------------------------


class Read(HTMLParser):
    """What of a page can be wrong without a browser to see it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ('meta', 'link', 'img', 'br', 'wbr', 'input'):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f'{tag} is not what was opened last'

    def handle_data(self, data):
        self.words.append(data)

    def of(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == name]


def check(text: str) -> Read:
    """A page that is whole, can be read aloud, and fetches nothing."""
    read = Read(text)
    assert not read.open
    ids = [attributes['id'] for _, attributes in read.tags if 'id' in attributes]
    assert len(ids) == len(set(ids))
    for image in read.of('img'):
        assert image['alt'] and image['src'].startswith('data:image/jpeg;base64,')
    for tag, attributes in read.tags:
        for name in ('src', 'href', 'srcset', 'action', 'data'):
            assert not re.match(r'\w*:?//', attributes.get(name) or ''), (tag, attributes)
        if (attributes.get('href') or '').startswith('#'):
            assert attributes['href'][1:] in ids
        if attributes.get('aria-labelledby'):
            assert attributes['aria-labelledby'] in ids
    labelled_ids = {one.get('for') for one in read.of('label')}
    assert all(one.get('id') in labelled_ids or one.get('name') for one in read.of('select'))
    policy = next(one['content'] for one in read.of('meta') if 'http-equiv' in one)
    assert policy.startswith("default-src 'none'; img-src data:")
    style = re.search(r'<style>(.*?)</style>', text, re.DOTALL).group(1)
    assert 'url(' not in style and '@import' not in style and '@media print' in style
    assert len(text.encode()) < 15e6
    return read


def test_page_of_a_detector(tmp_path):
    run = of_run(drawn(tmp_path))
    text = page.render_page([run])
    read = check(text)
    # Names are text wherever they stand: in tables, in plotly's own mark-up, in scripts.
    assert 'alert' not in [tag for tag, _ in read.tags] and len(read.of('script')) == 4
    figures = json.loads(re.search(r'id="figure-data">(.*?)</script>', text).group(1))
    assert {
        'precision-recall',
        'confusion-0',
        'score-histogram',
        'size-histogram',
        'curve-losses',
        'curve-scores',
        'curve-rate',
        'curve-seconds',
    } == set(figures)
    ticks = figures['confusion-0']['layout']['xaxis']['ticktext']
    assert ticks[1] == '&lt;b&gt;dog&lt;/b&gt;'
    curves = json.loads(re.search(r'id="curve-data">(.*?)</script>', text).group(1))
    assert len(curves) == 4 and len(curves['0']) == 2 and len(curves['0'][0]) == 101
    cases = [one for tag, one in read.tags if tag == 'li' and 'data-kind' in one]
    assert {one['data-kind'] for one in cases} == set(report_cases.KINDS)
    assert len(cases) == len(read.of('img'))


def test_page_of_a_segmentor(tmp_path):
    read = check(page.render_page([of_run(labelled(tmp_path))]))
    kinds = {one['data-kind'] for tag, one in read.tags if tag == 'li' and 'data-kind' in one}
    assert kinds == set(report_cases.KINDS)
    assert 'sea: IoU 0.67, 1780 px missed, 0 px false' in ''.join(read.words)


@pytest.mark.slow
def test_two_runs_beside_each_other(tmp_path):
    one, two = drawn(tmp_path), drawn(tmp_path, seed=1)
    text = page.render_page([of_run(one, 'first'), of_run(two, 'second', config='x = 2\n')])
    words = ''.join(check(text).words)
    assert text.count('<th scope="col">first</th>') >= 3
    assert re.search(r'\d\.\d{3} \([+-]\d\.\d{3}\)', words)  # with its difference to the first
    for part in ('first: IoU .50', 'second: IoU .75', '-x = 1', '+x = 2', 'all runs'):
        assert part in words
    check(
        page.render_page(
            [of_run(labelled(tmp_path), 'first'), of_run(labelled(tmp_path), 'second')]
        )
    )
    # one of them has no checkpoint yet: whose the others are stands there nevertheless
    text = page.render_page([of_run(one, 'first'), of_run(None, 'second')])
    check(text)
    assert text.count('<th scope="col">first</th>') >= 3 and '>count</th>' not in text
    for other, part in (
        (labelled(tmp_path), 'pixels'),
        (drawn(tmp_path, classes=3), '--common-classes'),
    ):
        with refuses('report.unlike-runs', 'first', 'second', part):
            page.render_page([of_run(one, 'first'), of_run(other, 'second')])
    fewer = page.render_page([of_run(one, 'first'), of_run(drawn(tmp_path, 5), 'second')])
    assert 'scored on other images' in fewer


@pytest.mark.slow
def test_several_runs_beside_each_other(tmp_path):
    """Curves of all, a column for each, and as many pictures together as of one."""
    found = [drawn(tmp_path, seed=seed) for seed in range(4)]
    runs = [
        of_run(one, f'run {number}', config=f'x = {number}') for number, one in enumerate(found)
    ]
    text = page.render_page(runs)
    words = ''.join(check(text).words)
    for part in ('run 3: IoU .75', 'AP50 run 2', 'by run 3', '-x = 0', '+x = 1', '+x = 3'):
        assert part in words, part
    figures = json.loads(re.search(r'id="figure-data">(.*?)</script>', text, re.DOTALL)[1])
    losses = figures['curve-losses']['data']
    assert [line['name'] for line in losses] == [f'run {number}: loss' for number in range(4)]
    assert len({(line['line']['color'], line['line']['dash']) for line in losses}) == 4
    assert len({line['line']['dash'] for line in figures['precision-recall']['data']}) == 4
    ap = [detection.compute_scores(one).precision['bbox'].overall['AP'] for one in found]
    cells = [
        f'{value:.3f}' + (f' ({value - ap[0]:+.3f})' if at else '') for at, value in enumerate(ap)
    ]
    assert ''.join(f'<td>{cell}</td>' for cell in cells) in text
    check(page.render_page([of_run(labelled(tmp_path), name) for name in 'abc']))


def renamed(found, *classes):
    return replace(found, classes=list(classes))


def test_runs_of_other_classes_are_compared_over_the_common_ones(tmp_path):
    one = renamed(drawn(tmp_path), 'a', 'b', 'c', 'd')
    two = renamed(drawn(tmp_path, seed=1), 'd', 'x', 'b', 'a')
    runs = [of_run(one, 'first'), of_run(None, 'second'), of_run(two, 'third')]
    with refuses('report.unlike-runs', 'only first has c', 'only third has x', '--common-classes'):
        page.align_classes(runs)
    aligned = page.align_classes(runs, common=True)
    assert (
        aligned[1] is runs[1] and [run.results.classes for run in aligned[::2]] == [list('abd')] * 2
    )
    assert aligned[0].notes == ['Not compared, since not all runs have them: c.']
    # a class has the score that it has in its own run
    for run, found in zip(aligned[::2], (one, two)):
        table = scores.coco_precision(run.results).by_class
        own = scores.coco_precision(found).by_class
        order = [found.classes.index(name) for name in 'abd']
        np.testing.assert_array_equal(table, own[order])
    # the same classes in another order are no other classes
    turned = renamed(drawn(tmp_path), 'd', 'c', 'b', 'a')
    assert page.align_classes([of_run(one), of_run(turned, 'b')])[1].results.classes == list('abcd')
    with refuses('report.no-common-class'):
        page.align_classes([of_run(one), of_run(renamed(two, *'wxyz'), 'b')], common=True)


def test_label_maps_of_the_common_classes(tmp_path):
    maps = labelled(tmp_path)
    other = predictions.select_classes(maps, ['sea'])
    assert other.pixels.tolist() == [[maps.pixels[1, 1], maps.pixels[1, [0, 2]].sum()]]
    assert (other.counts == maps.counts[:, [1]]).all()
    truth, said = (predictions.decode_label_map(one) for one in other.maps[0])
    before, answered = (predictions.decode_label_map(one) for one in maps.maps[0])
    assert ((truth == 0) == (before == 1)).all() and set(np.unique(truth)) == {0, 255}
    assert ((said == 0) == (answered == 1)).all()


def test_pictures_are_a_sample_of_many_and_small(tmp_path, monkeypatch):
    monkeypatch.setattr(page, 'PICTURES', 8)
    found = drawn(tmp_path)
    text = page.render_page([of_run(found)])
    assert len(check(text).of('img')) == 8
    assert re.search(r'8 of \d+ cases are shown: a sample of at most 2 of a kind', text)
    judged = detection.compute_scores(found)
    shown, lost = detection.draw_cases(judged, detection.list_cases(judged)['false'])
    assert shown and lost == 0 and all(len(one.jpeg) <= gallery.BYTES for one in shown)
    # 400 classes, and the confusion of the 40 that are confused most
    many = Detections(
        [f'class {number}' for number in range(400)], found.pictures, found.truth, found.found
    )
    assert 'Of 401 rows these 40 are confused most' in page.render_page([of_run(many)])


CONTROLS = ('\x1b[2J', '\x07', '\r', '\x9b31m', '\u202e', '\u2066', '\x00', '\udc80')
"""Of terminals and of the direction of text, and a byte of a name that is no UTF-8."""


@pytest.mark.parametrize('kind', ['detection', 'segmentation'])
def test_no_control_character_of_a_file_reaches_the_page(tmp_path, monkeypatch, kind):
    results = drawn(tmp_path) if kind == 'detection' else labelled(tmp_path)
    names = [f'{name}{"".join(CONTROLS)}end' for name in results.classes]
    run = of_run(replace(results, classes=names))
    name = 'run' + ''.join(CONTROLS)
    curve = {f'decode.loss{"".join(CONTROLS)}': ([1, 2], [3.0, 2.0])}
    run = replace(
        run,
        name=name,
        config=name,
        notes=[name],
        facts={name: name},
        curves=SOME_CURVES._replace(losses=curve, scores=curve),
    )
    monkeypatch.setattr('plotly.offline.get_plotlyjs', lambda: '')  # which has some of its own
    ours = page.render_page([run, replace(run, name='other', config='other')])
    assert not any(control in ours for control in CONTROLS)
    for control in ('\\x1b[2J', '\\x9b31m', '\\u202e', '\\udc80'):
        assert control in ours
    ours.encode()


def test_images_that_are_gone_are_counted(tmp_path):
    found = drawn(tmp_path)
    for picture in found.pictures[:5]:
        os.unlink(picture.path)
    text = page.render_page([of_run(found)])
    check(text)
    assert re.search(r'\d+ more were chosen and are left out', text)


def test_a_page_of_curves_alone():
    check(page.render_page([of_run(None)]))


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(packages, 'find_spec', lambda name: None)
    with refuses('package.missing', 'plotly and jinja2', 'pip install "mmresnest[report]"'):
        page.require_report()


BROWSER = (
    shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
)

#: appended to a page: uses it, and leaves what it saw where the parser finds it
USE = """<script>
const said = { plots: document.querySelectorAll('.plot .main-svg').length };
const plot = document.getElementById('precision-recall');
const choice = document.querySelector('select[data-figure]');
const heights = () => JSON.stringify(plot.calcdata.map((line) => line.map((point) => point.y)));
const choose = (select, value) => { select.value = value;
  select.dispatchEvent(new Event('change', { bubbles: true })); };
said.mean = heights(); choose(choice, '0'); said.one = heights(); choose(choice, '');
said.again = heights();
const filters = document.getElementById('filters');
choose(filters.elements.kind, 'missed');
said.shown = [...document.querySelectorAll('#cases > li')].filter((one) => !one.hidden)
  .map((one) => one.dataset.kind);
said.count = document.getElementById('count').textContent;
said.broken = [...document.images].filter((one) => !one.naturalWidth).length;
said.wide = document.documentElement.scrollWidth - window.innerWidth;
said.cut = ['Of boxes', 'Counts'].filter((name) => {
  const box = document.querySelector(`[aria-label="${name}"]`);
  return box.scrollWidth > box.clientWidth; });
document.body.dataset.said = JSON.stringify(said);
</script>"""


@pytest.mark.skipif(BROWSER is None, reason='there is no chromium on the PATH')
def test_in_a_browser(tmp_path):
    text = page.render_page(
        [of_run(drawn(tmp_path), 'a_run_whose_name_is_longer_than_a_screen_' * 3)]
    )
    file = tmp_path / 'used.html'
    file.write_text(text.replace('</body>', USE + '</body>'))
    done = subprocess.run(
        [
            BROWSER,
            '--headless',
            '--no-sandbox',
            '--disable-gpu',
            '--disable-quic',
            '--no-first-run',
            '--disable-background-networking',
            '--disable-component-update',
            '--disable-sync',
            '--enable-logging=stderr',
            f'--user-data-dir={tmp_path / "profile"}',
            '--window-size=500,900',
            '--virtual-time-budget=10000',
            '--dump-dom',
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 'CONSOLE' not in done.stderr, done.stderr
    body = next(one for one in Read(done.stdout).of('body'))
    said = json.loads(body['data-said'])
    assert said['plots'] >= 8 and said['broken'] == 0 and said['wide'] <= 0
    assert said['cut'] == [], 'figures stand beside their words'
    assert said['mean'] == said['again'] != said['one']
    assert said['shown'] and set(said['shown']) == {'missed'}
    assert said['count'].startswith(f'{len(said["shown"])} shown of ')


# ---- of a run ------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """Kind -> a training of a step or two that is collected from, when it is asked for."""
    made = {}

    def get(kind: str) -> tuple[Path, dict, Any, PredictionCollector]:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            cfg = prepare(
                tiny.write(folder, kind),
                splits=('train', 'val'),
                data=shapes,
                work_dir=folder / 'work',
                cfg_options={'default_hooks.logger.interval': 1},
            )
            runner = build_runner(cfg)
            collector = cached_predictions.collect_from(runner.val_loop)
            runner.train()
            metrics = {
                name.removeprefix('val/'): scalar.current()
                for name, scalar in runner.message_hub.log_scalars.items()
            }
            # mmdet's panoptic metric has a temporary folder for as long as it is there.
            kept = (runner, collector) if kind == 'instance' else (None, None)
            made[kind] = folder / 'work', metrics, *kept
        return made[kind]

    return get


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['detection', 'instance'])
def test_scores_are_those_of_the_run(trained, kind):
    folder, metrics, _, _ = trained(kind)
    assert report(folder).file == folder / 'report.html'
    [kept] = (folder / 'report').iterdir()
    found = predictions_file.load_results(kept)[0]
    judged = detection.compute_scores(found)
    for name in ('bbox', 'segm')[: 1 + (kind == 'instance')]:
        for key, word in (
            ('mAP', 'AP'),
            ('mAP_50', 'AP50'),
            ('mAP_75', 'AP75'),
            ('mAP_m', 'AP medium'),
        ):
            ours = judged.precision[name].overall[word]
            # mmdet rounds to three places, and has -1 where there is nothing to be found
            assert metrics[f'coco/{name}_{key}'] == pytest.approx(
                -1 if math.isnan(ours) else ours, abs=6e-4
            )
    check((folder / 'report.html').read_text())


@pytest.mark.slow
def test_scores_of_a_segmentor_are_those_of_the_run(trained):
    folder, metrics, _, _ = trained('semantic')
    report(folder)
    [kept] = (folder / 'report').iterdir()
    got = scores.label_overlap(predictions_file.load_results(kept)[0])
    assert 100 * scores.class_mean(got.iou) == pytest.approx(metrics['mIoU'], abs=0.01)
    assert 100 * got.accuracy == pytest.approx(metrics['aAcc'], abs=0.01)
    check((folder / 'report.html').read_text())


@pytest.mark.slow
def test_a_panoptic_run_is_reported_by_its_labels(trained):
    folder = trained('panoptic')[0]
    report(folder)
    [kept] = (folder / 'report').iterdir()
    found = predictions_file.load_results(kept)[0]
    # every true pixel is counted, also where the model says no class
    assert isinstance(found, LabelMaps) and found.pixels.sum() == 2 * 64 * 64
    check((folder / 'report.html').read_text())


@pytest.fixture
def work(trained, tmp_path):
    """A copy of a trained detector's work folder."""
    return Path(
        shutil.copytree(
            trained('detection')[0], tmp_path / 'mine', ignore=shutil.ignore_patterns('report*')
        )
    )


@pytest.mark.slow
def test_predictions_are_made_once(work, monkeypatch):
    calls = []
    made = cached_predictions._predict_split
    monkeypatch.setattr(
        cached_predictions, '_predict_split', lambda *given: calls.append(1) or made(*given)
    )
    first = report(work).file.read_bytes()
    assert len(report(work).file.read_bytes()) == len(first) and len(calls) == 1
    config = work / 'tiny_detection.py'
    config.write_text(config.read_text() + '\n')
    report(work)
    assert len(calls) == 2
    # What the runner itself writes stands nowhere in the work folder.
    assert {path.name for path in work.iterdir() if path.is_dir()} == {
        'report',
        *(path.name for path in work.glob('2*')),
    }


@pytest.mark.slow
def test_predictions_are_made_again_where_the_data_change(work, monkeypatch):
    """Also where a file has the size that it had: by its time."""
    calls = []
    made = cached_predictions._predict_split
    monkeypatch.setattr(
        cached_predictions, '_predict_split', lambda *given: calls.append(1) or made(*given)
    )
    report(work)
    cfg = Config.fromfile(work / 'tiny_detection.py')
    file = Path(cfg.val_dataloader.dataset.data_root or '', cfg.val_dataloader.dataset.ann_file)
    before = file.stat()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    try:
        report(work)
    finally:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(calls) == 2


@pytest.mark.slow
def test_what_was_run_is_on_the_page(work):
    digest = (work / 'epoch_1.pth.sha256').read_text().split(' ')[0]
    page = report(work, checkpoint=work / 'epoch_1.pth').file
    words = ''.join(check(page.read_text()).words)
    for part in (
        digest,
        'as in epoch_1.pth.sha256',
        'its epoch',
        'PyTorch',
        'mmresnest train',
        '--seed',
        'data_preprocessor',
    ):
        assert part in words
    (work / 'epoch_1.pth.sha256').write_text('0' * 64 + '  epoch_1.pth\n')
    result = report(work, checkpoint=work / 'epoch_1.pth')
    assert any('epoch_1.pth is not the file' in note for note in result.notes)


def test_a_run_that_is_still_going(work):
    config = work / 'tiny_detection.py'
    config.write_text(config.read_text() + '\ntrain_cfg.update(max_epochs=9)\n')
    [note] = report(work).notes
    assert 'has not reached its end (epoch 1 of 9)' in note
    for path in work.glob('*.pth*'):
        path.unlink()
    (work / 'last_checkpoint').unlink()
    notes = report(work).notes
    assert any('no checkpoint yet' in note for note in notes)
    text = (work / 'report.html').read_text()
    assert 'no checkpoint yet' in text and 'Training losses' in text
    check(text)


def test_the_last_validation_of_a_training_serves(trained, monkeypatch):
    folder, _, runner, collector = trained('instance')
    monkeypatch.setattr(cached_predictions, '_predict_split', None)
    shutil.rmtree(folder / 'report', ignore_errors=True)
    assert engine.report_at_end(runner, collector) == folder / 'report.html'
    check((folder / 'report.html').read_text())
    monkeypatch.setattr(packages, 'find_spec', lambda name: None)
    assert engine.report_at_end(runner, collector) is None


def test_only_the_last_validation_is_collected(trained):
    runner = trained('instance')[2]
    loop = SimpleNamespace(iter=1, max_iters=2)
    metrics = runner.val_loop.evaluator.metrics
    try:
        collector = engine.collect_at_end(loop, runner.val_loop)
        collector.process({}, [None])
        assert collector.evaluate(1) == {} and collector.found is None
        loop.iter = 2
        with pytest.raises(TypeError):
            collector.process({}, [None])
    finally:
        runner.val_loop.evaluator.metrics = metrics
    assert engine.collect_at_end(loop, None) is None


def test_truth_of_a_data_set_without_a_file_of_coco():
    class Data:
        metainfo = dict(classes=('a', 'b'))

        def __len__(self):
            return 1

        def get_data_info(self, number):
            return dict(
                img_path='x.jpg', instances=[dict(bbox=[0, 0, 4, 5], bbox_label=1, ignore_flag=1)]
            )

    collector = PredictionCollector(Data())
    collector.dataset_meta = Data.metainfo
    [row] = collector._dataset_ground_truth(dict(img_path='x.jpg'))
    assert row == ((1, 0, 0, 4, 5, 1, 20, True), None)


# ---- what cannot be reported ---------------------------------------------------------------------


@pytest.mark.parametrize(
    'line, code, parts',
    [
        ('nowhere', 'report.nothing', ['nowhere', '--work-dir']),
        ('empty', 'report.nothing', ['empty']),
        ('mine ' * 13, 'option.value', [13, 12]),
        ('mine mine --checkpoint mine/epoch_1.pth', 'option.conflict', ['--checkpoint', '2 runs']),
        ('mine --checkpoint gone.pth', 'checkpoint.missing', ['gone.pth']),
        ('mine --checkpoint empty', 'checkpoint.missing', ['empty', '.pth']),
        ('mine --checkpoint text.pth', 'checkpoint.unreadable', ['text.pth']),
        ('mine --out empty', 'option.no-folder', ['--out empty', 'empty/report.html']),
        ('mine --out gone/report.html', 'option.no-folder', ['--out gone/report.html']),
        ('configless', 'report.nothing', ['configless', 'print-config']),
        ('unparsed', 'config.unparsable', ['broken.py, line 1']),
        ('unmodelled', 'config.incomplete', ['unmodelled/broken.py']),
        ('dataless', 'data.missing', ['dataless', 'gone.json']),
        ('valless', 'config.no-split', ['valless', 'val_dataloader']),
    ],
)
def test_one_message_and_status_2(work, tmp_path, monkeypatch, capsys, line, code, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text.pth').write_text('text')
    text = (work / 'tiny_detection.py').read_text()
    for name, config in (
        ('configless', None),
        ('unparsed', 'model = dict(\n'),
        ('unmodelled', 'a = 1\n'),
        ('dataless', text.replace("ann_file='val.json'", "ann_file='gone.json'")),
        ('valless', text + '\nval_dataloader = None\n'),
    ):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(work / 'epoch_1.pth', folder)
        if config is not None:
            (folder / 'broken.py').write_text(config)
    before = sorted(tmp_path.rglob('*'))
    error = run_refused(['report', *line.split()])
    check_error(error, code, *parts)
    out, err = capsys.readouterr()
    messages = [one for one in err.splitlines() if one.startswith('mmresnest: error: ')]
    assert messages == [f'mmresnest: error: {error}'], err
    assert sorted(tmp_path.rglob('*')) == before


def test_a_page_that_cannot_be_written_leaves_the_old_one(work, monkeypatch):
    old = work / 'report.html'
    old.write_text('old')

    def full(*given):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(page, 'write_whole', full)
    with refuses('file.unwritable', old, 'No space left', '--out'):
        page.write_page(old, [of_run(None)])
    assert old.read_text() == 'old'


def test_the_command(work, capsys):
    assert main(['report', str(work), '--out', str(work / 'page.html')]) == 0
    assert f'written: {work / "page.html"} (' in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_says_nothing_of_environment_and_hooks(work, tmp_path, capfd):
    """It predicts as a test does, and as quietly."""
    copy = shutil.copytree(work, tmp_path / 'copy')
    shutil.rmtree(copy / 'report', ignore_errors=True)
    assert main(['report', str(copy)]) == 0
    said = capfd.readouterr().out
    assert 'Epoch(test)' in said, 'it predicted'
    for word in ('System environment', 'default_hooks', 'before_test'):
        assert word not in said
    assert len(said.splitlines()) <= 15
