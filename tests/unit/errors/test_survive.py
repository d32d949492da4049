from __future__ import annotations

import copy
import pickle

import pytest

from raypipe import errors
from raypipe.errors import RaypipeError, RequestError, nearest


def family(kind: type[RaypipeError] = RaypipeError) -> list[type[RaypipeError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in family(child))]


KINDS = sorted({k for k in family() if k.__module__ == errors.__name__}, key=lambda k: k.__name__)
DETAILS = {"where": "source 'flights'", "got": 7, "expected": [1, 2], "hint": "mend it"}


def made(kind: type[RaypipeError]) -> RaypipeError:
    fields = {"fields": [{"field": "dest", "reason": "missing"}]} if issubclass(kind, RequestError) else {}
    return kind("something broke", **DETAILS, **fields)


def test_all_classes_are_found():
    declared = {v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)}
    assert declared == set(KINDS)
    assert len(KINDS) > 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"]
)
def test_survives_with_all_it_says(kind, copied):
    error = made(kind)
    error.where += ", changed on the way"
    again = copied(copied(error))
    assert type(again) is kind
    assert vars(again) == vars(error)
    assert (str(again), again.args, again.to_json()) == (str(error), error.args, error.to_json())


@pytest.mark.parametrize("kind", KINDS)
def test_says_what_where_got_expected_and_what_to_do(kind):
    text = str(made(kind))
    assert text.splitlines()[0] == "something broke"
    assert all(part in text for part in ("where: source 'flights'", "got: 7", "expected: [1, 2]", "to do: mend it"))


@pytest.mark.parametrize("kind", KINDS)
def test_says_nothing_it_was_not_told(kind):
    assert str(pickle.loads(pickle.dumps(kind("broke")))) == "broke"
    assert kind("broke").to_json() == {"error": kind.__name__, "what": "broke"}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigurationError", 2),
        ("DefinitionError", 2),
        ("LeakError", 2),
        ("GateRefusedError", 3),
        ("DataContractError", 4),
        ("DataError", 1),
    ],
)
def test_exit_codes(name, code):
    assert getattr(errors, name).exit_code == code


@pytest.mark.parametrize("kind", [k for k in KINDS if issubclass(k, RequestError)])
def test_the_callers_mistakes_are_4xx(kind):
    assert 400 <= kind.http_status < 500
    assert made(kind).to_json()["fields"] == [{"field": "dest", "reason": "missing"}]


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("orgin", ["dest", "origin"], "did you mean 'origin'?"),
        ("xyz", ["b", "a"], "known: a, b"),
        ("x", [], "known: none"),
    ],
)
def test_nearest(name, known, hint):
    assert nearest(name, known) == hint
