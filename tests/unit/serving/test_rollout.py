"""What serves, by what the ledger says and project.yaml asks for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from raypipe.cli.serve_command import with_traffic
from raypipe.errors import ConfigurationError, RegistryError
from raypipe.project import load_project
from raypipe.project.traffic_settings import Traffic
from raypipe.registry.ledger import Change, Entry, Evidence
from raypipe.registry.lifecycle import CHAMPION, Releases
from raypipe.serving.follow import in_words
from raypipe.serving.rollout import rollout

AT = datetime(2026, 10, 3, tzinfo=UTC)


def releases(*changes: tuple[str, int | None, int | None]) -> Releases:
    """Of (action, from, to)."""
    entries: list[Entry] = []
    for action, before, after in changes:
        alias = CHAMPION if action in ("promote", "rollback") else None
        change = Change(action, "m", alias, before, after, Evidence(f"b{after}", "r", "e", None, "pass", None))
        entries.append(Entry.after(entries[-1] if entries else None, change, at=AT, who="ada"))
    return Releases("m", entries)


REGISTERED = [("register", None, version) for version in (1, 2, 3, 4)]
SERVED = [*REGISTERED, ("promote", None, 1), ("promote", 1, 2)]


def test_the_champion_answers_and_the_one_before_it_is_kept():
    plan = rollout(releases(*SERVED), Traffic())
    assert (plan.default, plan.canaries, plan.shadows, plan.spare, plan.live) == (2, {}, (), 1, [2, 1])


def test_after_a_rollback_the_two_have_changed_places():
    plan = rollout(releases(*SERVED, ("rollback", 2, 1)), Traffic())
    assert plan.live == [1, 2]


def test_canaries_and_shadows_beside_it():
    plan = rollout(releases(*SERVED), Traffic(canaries={3: 0.25}, shadows=["newest"]))
    assert (plan.canaries, plan.shadows, plan.live) == ({3: 0.25}, (4,), [2, 3, 4, 1])
    assert plan.document(["shop"]) == {"default": "2", "weights": {"3": 0.25}, "shadows": ["4"], "key": ["shop"]}
    words = "version 2 answers, version 3 a share of 0.25, version 4 in the shadow, version 1 is kept for a rollback"
    assert in_words(plan) == words


def test_a_canary_that_is_promoted_is_one_no_longer():
    asked = Traffic(canaries={3: 0.25}, shadows=[3])
    assert rollout(releases(*SERVED), asked).shadows == ()
    plan = rollout(releases(*SERVED, ("promote", 2, 3)), asked)
    assert (plan.default, plan.canaries, plan.shadows, plan.spare) == (3, {}, (), 2)


def test_a_retired_version_leaves():
    plan = rollout(releases(*SERVED, ("retire", 3, None), ("retire", 1, None)), Traffic(canaries={3: 0.25}))
    assert (plan.live, plan.left_out) == ([2], {3: "retired (ledger entry 7)"})


def test_a_version_that_is_named_is_served_alone():
    assert rollout(releases(*SERVED), Traffic(), pinned=4).live == [4]


def test_previous_as_a_canary():
    assert rollout(releases(*SERVED), Traffic(canaries={"previous": 0.5})).canaries == {1: 0.5}


@pytest.mark.parametrize(
    ("changes", "traffic", "pinned", "message"),
    [
        (REGISTERED, Traffic(), None, "has no champion"),
        (SERVED, Traffic(), 9, "has no version 9"),
        (SERVED, Traffic(canaries={9: 0.1}), None, "has no version 9"),
        ([*REGISTERED, ("promote", None, 1)], Traffic(shadows=["previous"]), None, "'previous' yet"),
    ],
)
def test_what_cannot_be_served(changes, traffic, pinned, message):
    with pytest.raises(RegistryError, match=message):
        rollout(releases(*changes), traffic, pinned)


# ---- project.yaml and the command line ---------------------------------------------------------


@pytest.mark.parametrize("wrong", [{1: 0.6, 2: 0.5}, {1: 1.5}, {1: -0.1}, {"champion": 0.1}, {"0": 0.1}, {"../x": 0.1}])
def test_shares_that_cannot_be(wrong):
    with pytest.raises(ValidationError):
        Traffic(canaries=wrong)


@pytest.fixture(scope="module")
def loaded(shop, tmp_path_factory):
    return load_project(shop(tmp_path_factory.mktemp("shop")))


def test_the_command_line_comes_before_project_yaml(loaded):
    changed = with_traffic(loaded, ["4=0.1", "newest=0.2"], ["previous"]).settings.serving.traffic
    assert changed == Traffic(canaries={"4": 0.1, "newest": 0.2}, shadows=["previous"])
    assert with_traffic(loaded, [], []).settings == loaded.settings


@pytest.mark.parametrize("text", ["4", "4=", "4=x", "x=0.1", "4=1.1"])
def test_a_canary_that_cannot_be(loaded, text):
    with pytest.raises(ConfigurationError) as refused:
        with_traffic(loaded, [text], [])
    assert "--canary" in refused.value.where
