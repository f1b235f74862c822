import math
import re
from xml.etree import ElementTree

import pytest

from report.chart import HEIGHT, WIDTH, Chart, Line, svg


def drawn(*lines: Line, **settings) -> ElementTree.Element:
    return ElementTree.fromstring(svg(Chart("t < u", "epoch", "PSNR (dB)", lines, **settings)))


def points(root: ElementTree.Element) -> list[list[tuple[float, float]]]:
    return [
        [tuple(map(float, point.split(","))) for point in curve.attrib["points"].split()]
        for curve in root.iter("polyline")
    ]


def test_a_higher_value_is_drawn_higher_and_inside():
    (curve,) = points(drawn(Line("a", [1, 2, 3], [10.0, 30.0, 20.0], 1)))
    (x1, y1), (x2, y2), (x3, y3) = curve
    assert 0 < x1 < x2 < x3 < WIDTH
    assert 0 < y2 < y3 < y1 < HEIGHT
    assert y3 == pytest.approx((y1 + y2) / 2, abs=0.2)


def test_values_that_are_not_finite_leave_gaps():
    root = drawn(Line("a", range(7), [1.0, 2.0, math.nan, 4.0, math.inf, 1.0, 2.0], 1))
    assert [len(curve) for curve in points(root)] == [2, 2]
    assert len(list(root.iter("circle"))) == 1  # a single point


@pytest.mark.parametrize("values", [[], [math.nan], [5.0, 5.0], [0.0]])
@pytest.mark.parametrize("log", [False, True])
def test_empty_and_constant_lines_are_drawn(values, log):
    root = drawn(Line("a", range(len(values)), values, 1), log=log)
    assert "nan" not in ElementTree.tostring(root, encoding="unicode")


def test_logarithmic_axis_has_powers_of_ten():
    root = drawn(Line("a", [1, 2, 3], [1e-4, 1e-3, 1e-2], 1), log=True)
    ((_, first), (_, second), (_, third)) = points(root)[0]
    assert first - second == pytest.approx(second - third, abs=0.2)
    labels = [text.text for text in root.iter("text")]
    assert {"1e-4", "1e-3", "1e-2"} <= set(labels)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([3.1e-3, 4.1e-3], ["3.2e-3", "3.4e-3", "3.6e-3", "3.8e-3", "4e-3"]),
        ([0.0118, 0.0131], ["0.0118", "0.012", "0.0122", "0.0124", "0.0126", "0.0128", "0.013"]),
        ([2e-4, 6e-3], ["2e-4", "5e-4", "1e-3", "2e-3", "5e-3"]),
        ([1e-5, 1.0], ["1e-5", "1e-4", "1e-3", "1e-2", "0.1", "1"]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_round(values, labels):
    root = drawn(Line("a", [1, 2], values, 1), log=True)
    ticks = [text.text for text in root.iter("text") if text.attrib["class"] == "tick"]
    assert ticks == labels


def test_the_title_of_the_vertical_axis_is_clear_of_its_ticks():
    root = drawn(Line("a", [1, 2], [1.0001, 1.0002], 1))
    (title,) = (text for text in root.iter("text") if text.text == "PSNR (dB)")
    assert "transform" not in title.attrib
    ticks = [text for text in root.iter("text") if text.attrib["class"] == "tick"]
    assert float(title.attrib["y"]) + 13 < min(float(tick.attrib["y"]) for tick in ticks)


def test_text_is_escaped_and_the_picture_described():
    root = drawn(Line('<b>"', [1, 2], [1.0, 2.0], 1), by_frame=True)
    assert root.attrib["aria-label"] == 't < u: PSNR (dB) by epoch, of <b>"'
    assert re.search('class="cursor"', ElementTree.tostring(root, encoding="unicode"))
