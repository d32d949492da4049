"""The model card: sections, figures, and what is missing said as missing."""

from __future__ import annotations

import re

import pytest

from raypipe.evaluation.model_card import markdown, write_card
from raypipe.project.about_settings import About

SECTIONS = ["Model", "Intended use", "Data", "Metrics", "Slices", "Fairness", "Limits", "Lineage"]


@pytest.fixture
def card(tmp_path):
    def write(made):
        write_card(tmp_path / "model_card.md", made)
        return (tmp_path / "model_card.md").read_text()

    return write


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "ranking"])
def test_a_card_has_every_section_and_whole_tables(card, reported, task):
    made = reported(task)
    text = card(made)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert "- Owner: Arrivals team" in text
    assert "- Not for airports outside of New York." in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
    assert not re.search(r"\n{3}", text), "two blank lines"
    assert text == card(made)


@pytest.mark.parametrize("value", [None, ...], ids=["null", "absent"])
@pytest.mark.parametrize("task", ["binary", "ranking"])
def test_any_key_may_be_missing(card, reported, task, value):
    whole = reported(task)
    for key in set(whole.result) - {"task", "model"}:
        result = {k: v for k, v in whole.result.items() if k != key} | ({key: None} if value is None else {})
        assert re.findall(r"^## (.*)$", card(reported(task, result=result)), re.MULTILINE) == SECTIONS


@pytest.mark.parametrize("absent", [{}, None])
def test_what_nobody_says_is_missing_and_not_invented(card, reported, absent):
    whole = reported("binary")
    result = {"task": "binary", "model": whole.result["model"]} | dict.fromkeys(("fairness", "slices"), absent)
    text = card(reported("binary", about=About(), result=result))
    for key in ("owner", "contact", "intended_use"):
        assert f"issing (project.yaml: about.{key})" in text
    assert "The owner states no limits (project.yaml: about.limits)." in text
    assert "No slices were measured" in text
    assert "Not measured (project.yaml: evaluation.fairness)." in text


@pytest.mark.parametrize(
    ("text", "plain"),
    [("a|b", "a\\|b"), ("<script>", "\\<script\\>"), ("one\ntwo  three", "one two three"), ("[x](y)", "\\[x\\](y)"), ("__row", "__row"), ("# h", "\\# h"), ("a\\", "a\\\\")],
)  # fmt: skip
def test_names_are_plain_words(text, plain):
    assert markdown(text) == plain


def test_a_hostile_name_stays_in_its_cell(card, reported):
    hostile = "x | y\n\n# <img src=x onerror=alert(1)>"
    whole = reported("binary")
    slices = {hostile: [{"value": hostile, "rows": 10, "roc_auc": 0.5}]}
    text = card(reported("binary", model=hostile, result=whole.result | {"slices": slices}))
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert not re.search(r"(?<!\\)<", text)
    assert "| x \\| y \\# \\<img src=x onerror=alert(1)\\> | 10 | 0.5 |" in text
