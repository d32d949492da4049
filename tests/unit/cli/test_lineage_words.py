"""A trace and a score as people read them."""

from __future__ import annotations

from pathlib import Path

from raypipe.cli.lineage_words import SHOWN, scored, traced
from raypipe.registry.trace import Node, Seen, counts

HERE = Path("/home/me/project")


def file(number: int, state: str = "present") -> Node:
    place = f"{HERE}/data/{number:03}.parquet"
    return Node("file", f"{number:03}.parquet", "ab" * 32, Seen(place, state, "bytes"), {"rows": 1200})


def source(*files: Node) -> Node:
    return Node("source", "orders", "cd" * 32, Seen(f"{HERE}/.raypipe/sources/orders", "present", "content"), {}, files)


def lines(root: Node) -> list[str]:
    return traced(root, counts(root), HERE).splitlines()


def test_a_line_says_what_it_is_how_it_is_and_where():
    said = lines(source(file(1)))
    assert said[0] == "source orders  cdcdcdcdcdcd  present  .raypipe/sources/orders"
    assert said[1] == "└── file 001.parquet  abababababab  present  rows 1,200  data/001.parquet"
    assert said[2] == "all 2 are present"


def test_many_files_are_cut_short_but_never_what_is_wrong():
    files = [file(n, "gone" if n == 90 else "present") for n in range(100)]
    said = lines(source(*files))
    assert len(said) == 1 + SHOWN + 1 + 1 + 1
    assert "file 090.parquet  abababababab  gone" in said[SHOWN + 1]
    assert said[SHOWN + 2] == f"└── and {100 - SHOWN - 1} more, present: --json lists all"
    assert said[-1] == "100 of 101 present; 1 gone"


def test_a_place_below_that_of_the_node_above_is_told_from_there():
    model = Node("file", "model.ubj", None, Seen("/elsewhere/run/attempt-1/model.ubj", "present", "bytes"))
    table = Node("file", "t.parquet", None, Seen("file:///elsewhere/run/t.parquet", "present", "bytes"))
    said = lines(Node("run", "run", None, Seen("/elsewhere/run", "present", "content"), {}, (model, table)))
    assert said[1:3] == ["├── file model.ubj  present  attempt-1/model.ubj", "└── file t.parquet  present"]


def test_code_with_changes_says_which():
    code = Node("code", "commit", "ef" * 20, None, {"dirty": True, "changes": [" M features.py"]})
    assert lines(code)[0] == "code commit  efefefefefef  with changes that no commit holds: M features.py"


def test_a_score_says_what_it_lacks(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    items = [
        {"number": 1, "test": "It is tested", "points": 1, "evidence": "a.json: 3 rules", "shown_by": "a.json"},
        {
            "number": 2,
            "test": "It is tuned",
            "points": 0.5,
            "evidence": "b.json: by hand",
            "shown_by": "b.json: a study",
        },
    ]
    sections = {"data": {"score": 1.5, "items": items}, "model": {"score": 0, "items": []}}
    said = scored({"version": 3, "score": 0.0, "meaning": "little", "sections": sections})
    assert "data: 1.5 of 7" in said
    assert "needs b.json: a study" in said
    assert "needs a.json" not in said
    assert said.splitlines()[-1] == "version 3: ML Test Score 0, the least of data 1.5, model 0: little"
