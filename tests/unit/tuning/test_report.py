"""The document, the table and the page of a study."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from raypipe.project.tuning_settings import Range
from raypipe.tuning.report import write_report
from raypipe.tuning.result import result_of, trials_table

SPACE = {
    "eta": Range(low=0.1, high=1, log=True),
    "max_depth": Range(low=2, high=8, int=True),
    "grow_policy": ["depthwise", "lossguide"],
}


def values(eta: float, depth: int, policy: str = "depthwise") -> dict:
    return {"values": {"eta": eta, "max_depth": depth, "grow_policy": policy}}


@pytest.fixture
def trials(finished):
    return [
        finished(0, 0.50, 900.0),
        finished(1, 0.45, 800.0, **values(0.2, 8)),
        finished(2, 0.451, 300.0, status="stopped", **values(0.105, 4, "lossguide")),
        finished(3, None, error="it broke", **values(0.9, 3)),
    ]


def test_one_objective(study, trials):
    result = result_of(study(SPACE), trials)
    assert result["chosen"]["trial"] == 1
    assert result["gain"] == pytest.approx(0.05)
    assert result["params"] == {"max_bin": 64, "eta": 0.2, "max_depth": 8, "grow_policy": "depthwise"}
    assert [(edge["name"], edge["side"], edge["limit"]) for edge in result["edges"]] == [("max_depth", "high", False)]
    assert result["fixed"] == {"max_bin": 64}
    assert result["space"]["max_depth"]["untuned"] == 3
    assert result["defaults"]["lambda"] == 1
    assert not {"eta", "max_depth", "grow_policy", "max_bin"} & set(result["defaults"])
    assert result["trials"] == {"completed": 2, "stopped": 1, "failed": 1}
    assert result["pareto"] == []


def test_two_objectives(study, trials):
    result = result_of(study(SPACE, second="size", within=0.01), trials)
    assert result["chosen"]["trial"] == 2
    assert result["chosen"]["size"] == 300
    assert [trial["trial"] for trial in result["pareto"]] == [1, 2]
    assert [(edge["name"], edge["side"]) for edge in result["edges"]] == [("eta", "low")]


def test_untuned_may_be_best_and_nothing_changes(study, finished):
    result = result_of(study(SPACE), [finished(0, 0.4), finished(1, 0.5, **values(0.2, 8))])
    assert (result["chosen"]["trial"], result["gain"], result["edges"]) == (0, 0, [])
    assert result["params"] == {"eta": 0.3, "max_depth": 3, "max_bin": 64}


def test_rounds_that_did_not_suffice_are_told(study, finished):
    last = finished(1, 0.4, **values(0.2, 4))
    used_up = type(last)(**vars(last) | {"best_round": 38})
    assert result_of(study(SPACE), [used_up])["rounds_exhausted"]
    assert not result_of(study(SPACE), [last])["rounds_exhausted"]


def test_a_row_a_trial(study, trials):
    table = trials_table(study(SPACE, second="size"), trials)
    assert table["trial"].to_list() == [0, 1, 2, 3]
    assert table["metric"].to_list() == [0.5, 0.45, 0.451, None]
    assert table["size"].to_list()[:3] == [900, 800, 300]
    assert table["eta"].to_list() == [0.3, 0.2, 0.105, 0.9]
    assert table["grow_policy"].to_list() == ["depthwise", "depthwise", "lossguide", "depthwise"]
    assert table["error"].to_list() == [None, None, None, "it broke"]


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.images, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("second", [None, "size", "latency"])
def test_the_page(study, trials, tmp_path, second):
    made = study(SPACE, second=second, within=0.01)
    result = result_of(made, trials) | {"measured_on": "<the validation part>", "training_set": "0" * 64}
    write_report(tmp_path / "page.html", "a<b", made, trials, result)
    page = Page((tmp_path / "page.html").read_text())
    said = re.sub(r"\s+", " ", " ".join(page.words))
    names = ["Trials", *(["Pareto front"] if second else []), *SPACE]
    assert [image["alt"] for image in page.images] == names
    assert all(image["src"].startswith("data:image/png;base64,iVBOR") for image in page.images)
    assert f"a<b: logloss {0.451 if second else 0.45}, untuned 0.5" in said
    assert "measured on <the validation part>" in said
    assert "edge: widen the space" in said
    assert ("the least" in said) == bool(second)
