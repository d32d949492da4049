"""Where marks lie, and whether text fits."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.evaluation.svg import HEIGHT, WIDTH, Axis, Plot, Strip, percent, plain, swatch, ticks

WIDE = 7.4  # units of a wide character at 13 units


def texts(svg: str) -> list[tuple[float, float, float, str]]:
    """Left end, right end, height and text of the upright texts of a plot."""
    found = []
    for node in ET.fromstring(svg).iter("text"):
        if "transform" not in node.attrib:
            x, wide = float(node.attrib["x"]), WIDE * len(node.text)
            left = x - {"end": wide, "mid": wide / 2, "start": 0}[node.attrib["class"].split()[1]]
            found.append((left, left + wide, float(node.attrib["y"]), node.text))
    return found


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 190, [0, 50, 100, 150]), (-3, 2, [-3, -2, -1, 0, 1, 2]), (0.71, 0.76, [0.71, 0.72, 0.73, 0.74, 0.75, 0.76])],
)  # fmt: skip
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_even_and_inside(low, span):
    found = ticks(low, low + span)
    assert 1 <= len(found) <= 6
    slack = 1e-6 * (abs(low) + span)
    assert all(low - slack <= tick <= low + span + slack for tick in found)


@pytest.mark.parametrize(
    ("say", "value", "said"),
    [(plain, 0.1 + 0.2, "0.3"), (plain, -0.0, "0"), (plain, 9500, "9500"), (plain, 25_000, "25k"), (plain, 2.5e6, "2.5M"), (percent, 0.07, "7 %"), (percent, 1, "100 %")],
)  # fmt: skip
def test_ticks_are_said_shortly(say, value, said):
    assert say(value) == said


@pytest.mark.parametrize(
    ("values", "intervals", "low", "high"),
    [
        ([1.0, 3.0], [], 0.9, 3.1),
        ([5.0], [], 4.75, 5.25),
        ([0.0], [], -1.0, 1.0),
        ([0.8], [(0.7, 0.9)], 0.69, 0.91),
        ([0.8, 0.9], [(0.7, 0.9), (0.8, 1.0), (-1e6, 1e6)], 0.465, 1.235),  # 0.3 is three times the median half width
    ],
)
def test_a_scale_holds_values_and_intervals_but_not_those_that_say_nothing(values, intervals, low, high):
    axis = Axis.around("y", values, intervals)
    assert (axis.low, axis.high) == pytest.approx((low, high))


def test_points_lie_where_the_axes_say():
    plot = Plot(Axis("x", 0, 10), Axis("y", 0, 100)).dots("model", [(0, 0), (10, 100), (5, 50), (99, -9)])
    at = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in ET.fromstring(plot.svg("four")).iter("circle")]
    (left, bottom), (right, top), middle, outside = at
    assert middle == pytest.approx(((left + right) / 2, (bottom + top) / 2), abs=0.1)
    assert outside == (right, bottom)
    assert 0 < left < right < WIDTH
    assert 0 < top < bottom < HEIGHT


def test_a_band_goes_there_and_back():
    corners = [(0, 0.1), (1, 0.3), (1, 0.4), (0, 0.2)]
    plot = Plot(Axis("x"), Axis("y")).band("model", [(0, 0.1, 0.2), (1, 0.3, 0.4)]).dots("model", corners)
    root = ET.fromstring(plot.svg("band"))
    [polygon] = root.iter("polygon")
    assert polygon.attrib["points"].split() == [f"{c.attrib['cx']},{c.attrib['cy']}" for c in root.iter("circle")]


def test_a_histogram_stands_on_its_axis():
    plot = Plot(Axis("x"), Axis("y")).steps("model", [(0, 0.5, 0.2), (0.5, 1, 1.0)])
    corners = [(0, 0), (0, 0.2), (0.5, 0.2), (0.5, 1), (1, 1), (1, 0)]
    root = ET.fromstring(plot.dots("model", corners).svg("histogram"))
    [polygon] = root.iter("polygon")
    assert polygon.attrib["points"].split() == [f"{c.attrib['cx']},{c.attrib['cy']}" for c in root.iter("circle")]


AXES = [
    (Axis("share of rows", say=percent), Axis("share of positives found", say=percent)),
    (Axis("round", 0, 190), Axis.around("logloss", [0.43651, 0.43689])),
    (Axis("round", 0, 1_000_000), Axis.around("rmse", [123_456.0, 9_876_543.0])),
    (Axis("age of the model, days", 0, 63 * 1.03), Axis("a_metric_of_the_projects_own_with_a_very_long_name_indeed", -0.125, -0.12)),
]  # fmt: skip


@pytest.mark.parametrize("axes", AXES, ids=lambda axes: axes[1].label[:8])
def test_no_text_is_cut_or_lies_on_another(axes):
    plot = Plot(*axes)
    found = texts(plot.svg("empty"))
    for left, right, y, text in found:
        assert left >= 18, f"{text!r} lies on the axis' name"
        assert right <= WIDTH, text
        assert y <= HEIGHT
    for y in {y for *_, y, _ in found}:
        line = sorted((left, right) for left, right, at, _ in found if at == y)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(line)), line
    names = [node.text for node in ET.fromstring(plot.svg("x")).iter("text") if "axis" in node.attrib["class"]]
    assert len(names) == 2
    assert all(names)


def test_a_plot_says_what_it_shows_and_escapes():
    svg = Plot(Axis("<b>&"), Axis('"y"')).svg('<i> "quoted" & more')
    root = ET.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == '<i> "quoted" & more'
    assert {node.text for node in root.iter("text")} >= {"<b>&", '"y"'}


def test_strips_of_a_table_share_one_scale():
    strip = Strip(Axis("loss", 0, 1), reference=0.5)
    both = ET.fromstring(strip.interval("model", 0.25, 0, 1, "0.25 (0 to 1)"))
    bare = ET.fromstring(strip.interval("other", 0.75, None, None, "0.75"))
    assert [next(s.iter("circle")).attrib["cx"] for s in (both, bare)] == [
        "26.5%",
        "73.5%",
    ]  # 3 % are free at both ends
    lines = [[(line.attrib["x1"], line.attrib["x2"]) for line in s.iter("line")] for s in (both, bare)]
    assert lines == [[("50.0%", "50.0%"), ("3.0%", "97.0%")], [("50.0%", "50.0%")]]


def test_bars_start_at_zero_on_either_side():
    strip = Strip(Axis("change", -1, 1))
    widths = [ET.fromstring(strip.bar("model", v, str(v))).find("rect").attrib for v in (0.5, -0.5)]
    assert [(w["x"], w["width"]) for w in widths] == [("50.0%", "23.5%"), ("26.5%", "23.5%")]


def test_signs_of_a_legend_are_not_told_by_colour_alone():
    signs = {str(swatch(shape, "model")) for shape in ("line", "dot", "column", "band")}
    assert len({re.sub(r"[^a-z<]", "", sign) for sign in signs}) == 4
