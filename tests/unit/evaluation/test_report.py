"""The page: whole with every key and without any, safe to open, and the same for the same figures."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from raypipe.evaluation.gate import Finding, Verdict
from raypipe.evaluation.names import METRICS
from raypipe.evaluation.report import SECTIONS, write_report
from raypipe.project.about_settings import About

TASKS = ["binary", "multiclass", "regression", "ranking"]
VOID = {"meta", "br", "wbr", "img", "link", "hr", "input"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7 * 7 }}</table>"


class Page(HTMLParser):
    """A page's elements; every one must be closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self._open = [], [], []
        self.feed(text)
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute stands twice: {tag} {attrs}"
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag, **wanted):
        return [a for t, a in self.elements if t == tag and all(a.get(k) == v for k, v in wanted.items())]

    @property
    def shown(self) -> str:
        return " ".join(" ".join(data for tag, data in self.texts if tag not in {"style", "title"}).split())


@pytest.fixture
def page(tmp_path):
    def write(made):
        write_report(tmp_path / "report.html", made)
        text = (tmp_path / "report.html").read_text()
        return text, Page(text)

    return write


@pytest.fixture(params=TASKS)
def task(request):
    return request.param


def test_a_page_has_every_section_and_links_to_it(page, reported, task):
    _, found = page(reported(task))
    expected = [name for name in SECTIONS if task == "binary" or name != "trust"]
    assert [a["id"] for a in found.all("section")] == expected
    assert [a["href"] for a in found.all("a")] == ["#verdict", *(f"#{name}" for name in expected)]
    ids = [a["id"] for _, a in found.elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_a_page_needs_nothing_from_anywhere(page, reported, task):
    text, found = page(reported(task))
    assert not re.search(r"https?://|url\(|@import|//[a-z]", text)
    assert not [
        tag for tag, _ in found.elements if tag in {"script", "link", "img", "iframe", "object", "embed", "base"}
    ]
    assert all(value.startswith("#") for _, a in found.elements for name, value in a.items() if name in {"href", "src"})


def test_every_plot_and_table_says_what_it_is(page, reported, task):
    _, found = page(reported(task))
    drawn = [a for a in found.all("svg") if a.get("aria-hidden") != "true"]
    assert drawn
    assert all(a["role"] == "img" and a["aria-label"] for a in drawn)
    plots, tables = found.all("svg", **{"class": "plot"}), found.all("table")
    assert len(plots) == {"binary": 8}.get(task, 3)
    assert len(found.all("figcaption")) == len(plots)
    assert len(found.all("caption")) == len(tables)
    assert len(found.all("div", **{"class": "scroll"})) == len(tables)
    axes = [a for a in found.all("text") if "axis" in a["class"]]
    assert len(axes) == 2 * len(plots)


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, ...], ids=["null", "absent"])
@pytest.mark.parametrize("task", ["binary", "ranking"])
def test_any_key_may_be_missing(tmp_path, reported, task, value):
    """The keys of evaluation.json, and those within them that are not names of features."""
    whole = reported(task)
    keys = [k for k in whole.result if k not in {"task", "model"}]
    dicts = [k for k in keys if isinstance(whole.result[k], dict) and k not in {"importance", "run", "training_set"}]
    for path in [*((k,) for k in keys), *((k, inner) for k in dicts for inner in whole.result[k])]:
        result = copy.deepcopy(whole.result)
        *outer, last = path
        parent = result[outer[0]] if outer else result
        if value is None:
            parent[last] = None
        else:
            del parent[last]
        write_report(tmp_path / "report.html", replace(whole, result=result))


def test_a_page_of_the_least_there_can_be(page, reported, task):
    whole = reported(task)
    least = {"task": task, "model": dict.fromkeys(("rows", *METRICS[task]), 0.5)}
    training_set = {k: whole.training_set[k] for k in ("digest", "parts", "split")}
    run = {k: whole.run[k] for k in ("digest", "rounds", "metric", "history", "best_round", "workers", "curve")}
    _, found = page(replace(whole, about=About(), result=least, run=run, training_set=training_set, evidence={}))
    assert [a["id"] for a in found.all("section")] == ["figures", "learning", "data", "limits"]
    assert "No owner is named" in found.shown
    assert "The owner states no limits" in found.shown
    assert "Undefined" not in found.shown


def test_names_are_text_and_nothing_else(page, reported, task):
    whole = reported(task)

    named = {*whole.result["importance"], "carrier", "age"}

    def poison(value):
        if isinstance(value, dict):
            return {f"{key}{HOSTILE}" if key in named else key: poison(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [poison(inner) for inner in value]
        data = isinstance(value, str) and value != task and not value[:4].isdigit()
        return HOSTILE if data else value

    verdict = Verdict("fail", [Finding(HOSTILE, "fail", 0.5, 0.6)])
    about = About(owner=HOSTILE, contact=HOSTILE, intended_use=HOSTILE, limits=[HOSTILE])
    made = replace(
        whole, model=HOSTILE, about=about, predicts=HOSTILE, verdict=verdict, result=poison(whole.result),
        run=poison(whole.run), training_set=poison(whole.training_set), evidence=poison(whole.evidence),
    )  # fmt: skip
    text, found = page(made)
    assert "script" not in {tag for tag, _ in found.elements}
    assert "img" not in {tag for tag, _ in found.elements}
    assert not [a for _, a in found.elements for name in a if name.startswith("on")]
    assert found.shown.count("<script>alert(1)</script>") > 20
    assert "{{ 7 * 7 }}" in found.shown
    assert "49" not in re.findall(r"&amp;amp;(\d+)", text)


def test_equal_input_gives_equal_bytes(tmp_path, reported, task):
    for name in "ab":
        write_report(tmp_path / name, reported(task))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_many_features_and_slices_stay_under_a_megabyte(tmp_path, reported):
    whole = reported("binary")
    names = [f"feature_{n}_{'x' * 60}" for n in range(2000)]
    [slice_, *_] = whole.result["slices"]["carrier"]
    result = whole.result | {
        "importance": dict.fromkeys(names, 0.0005),
        "contributions": {"rows": 5000, "mean_absolute": dict.fromkeys(names, 0.01)},
        "usefulness": [{**whole.result["usefulness"][0], "feature": n, "useless": n[-61] == "7"} for n in names],
        "slices": {f"column_{c}": [{**slice_, "value": f"v{n}"} for n in range(800)] for c in range(5)},
    }
    write_report(tmp_path / "report.html", replace(whole, result=result))
    text = (tmp_path / "report.html").read_text()
    assert len(text.encode()) < 1_000_000
    assert "and 775 more values in evaluation.json" in text
    assert "and 1,985 more features in evaluation.json" in text


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        ("pass", "The model may be released: it meets all 4 rules. The closest call:"),
        ("fail", "The model must not be released: it breaks 1 of 4 rules. Decided by:"),
        (
            "inconclusive",
            "The model is not released yet: the test rows cannot decide 1 of 4 rules. About 12,400 more test rows would decide.",
        ),
    ],
)
def test_the_verdict_stands_first_in_words(page, reported, outcome, says):
    _, found = page(reported("binary", outcome))
    assert found.shown.index(says) < found.shown.index("How good is it? The champion is version 3")
    assert found.all("header", **{"class": f"verdict {outcome}"})


def test_figures_are_those_of_the_evaluation(page, reported):
    whole = reported("binary")
    intervals = {name: {"roc_auc": [v, v - 0.01, v + 0.01]} for name, v in (("model", 0.74), ("champion", 0.731), ("logistic_regression", 0.72))}  # fmt: skip
    comparisons = {"champion": {"roc_auc": {"difference": [0.009, -0.001, 0.019], "p_value": 0.08}},
                   "logistic_regression": {"roc_auc": {"difference": [0.02, 0.01, 0.03], "p_value": 0.001}}}  # fmt: skip
    _, found = page(replace(whole, result=whole.result | {"intervals": intervals, "comparisons": comparisons}))
    assert "0.740 (0.730 to 0.750)" in found.shown
    assert "against the champion: no clear difference: 0.009 (-0.001 to 0.019)" in found.shown
    assert "against the logistic regression: better by 0.020 (0.010 to 0.030)" in found.shown
    drawn = [a["aria-label"] for a in found.all("svg", **{"class": "strip"})][:4]
    assert drawn[:2] == ["ROC AUC 0.740 (0.730 to 0.750)", "ROC AUC 0.731 (0.721 to 0.741)"]
    assert drawn[3] == "ROC AUC 0.720 (0.710 to 0.730)"


def colours(css: str) -> list[dict[str, str]]:
    """The colour variables of each block that sets them."""
    return [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    ]


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("at", [0, 1, 2], ids=["light", "dark", "paper"])
def test_text_and_marks_stand_out_from_the_page(at):
    """Contrast ratios of WCAG 2.2: 4.5 for text, which all of these colour somewhere."""
    css = (files("raypipe.evaluation") / "templates" / "report" / "style.css").read_text()
    named = colours(css)[at]
    assert len(named) == 10
    for back in ("page", "soft"):
        for name in ("text", "quiet", "model", "other", "pass", "fail", "undecided"):
            light, dark = sorted((luminance(named[name]), luminance(named[back])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, back)
