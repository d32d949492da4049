"""Versions from registered to retired: what may serve, by whose word, and what the ledger keeps of it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raypipe.cli import commands, release_commands
from raypipe.errors import BundleError, ConfigurationError, GateRefusedError, LedgerError, RegistryError
from raypipe.evaluation.gate import Finding, Verdict
from raypipe.registry.audit import audit
from raypipe.registry.registered_model import HEAD
from raypipe.registry.tracking import Registry

pytestmark = pytest.mark.slow  # projects built whole

START = datetime(2026, 10, 3, 14, tzinfo=UTC)

# ---- promote -----------------------------------------------------------------------------------


def test_a_version_that_passed_is_promoted_and_the_entry_says_all(shelf):
    version = shelf.add()
    entry = shelf.promote(1)
    change, told = entry.change, entry.change.evidence
    assert shelf.actions() == ["register", "promote"]
    assert (entry.number, entry.who, change.alias, change.from_, change.to) == (2, "ada", "champion", None, 1)
    assert (told.bundle, told.run, told.evaluation) == (version.bundle_digest, version.run_digest, version.evaluation)
    assert told.verdict == "pass"
    assert (shelf.alias(), shelf.registry.champion().version) == (1, 1)


def test_promoting_the_champion_again_writes_nothing(shelf):
    shelf.add()
    shelf.promote(1)
    before = shelf.entry(2).read_bytes()
    assert shelf.promote(1) is None
    assert shelf.promote(1, override="to be sure") is None
    assert len(shelf.actions()) == 2
    assert shelf.entry(2).read_bytes() == before


@pytest.mark.parametrize("verdict", ["inconclusive", "fail"])
def test_without_a_pass_a_version_needs_an_override(shelf, verdict):
    shelf.add(verdict)
    with pytest.raises(GateRefusedError, match="version 1 did not pass") as refused:
        shelf.promote(1)
    assert refused.value.got == verdict
    assert (shelf.alias(), shelf.actions()) == (None, ["register"])
    entry = shelf.promote(1, override="the holiday rows are few, and it is better on all others")
    assert (entry.change.action, entry.change.evidence.verdict, entry.who) == ("override", verdict, "ada")
    assert entry.change.reason == "the holiday rows are few, and it is better on all others"
    assert shelf.alias() == 1


def test_an_override_that_was_not_needed_is_a_promotion_with_a_reason(shelf):
    shelf.add()
    change = shelf.promote(1, override="as agreed").change
    assert (change.action, change.reason) == ("promote", "as agreed")


@pytest.mark.parametrize("reason", ["", "  "])
def test_an_override_says_why(shelf, reason):
    shelf.add("inconclusive")
    with pytest.raises(ConfigurationError, match="must say something"):
        release_commands.promote(shelf.folder, 1, reason)


def test_a_verdict_in_a_tag_is_not_believed(shelf):
    shelf.add("inconclusive")
    shelf.client.set_model_version_tag(shelf.model, "1", "verdict", "pass")
    with pytest.raises(RegistryError, match="a tag of version 1") as refused:
        shelf.promote(1)
    assert (refused.value.got, refused.value.expected) == ("pass", "inconclusive")
    assert shelf.alias() is None


def test_a_bundle_put_in_the_place_of_another_is_not_promoted(shelf):
    shelf.add("fail")
    good = shelf.add("pass")
    for tag, value in (("bundle_digest", good.bundle_digest), ("verdict", "pass")):
        shelf.client.set_model_version_tag(shelf.model, "1", tag, value)
    with pytest.raises(RegistryError, match="a tag of version 1"):
        shelf.promote(1)


def test_a_changed_byte_is_not_promoted(shelf):
    version = shelf.add()
    metrics = Path(version.bundle_uri.removeprefix("file://")) / "metrics.json"
    metrics.write_bytes(metrics.read_bytes().replace(b"0.7", b"0.9"))
    with pytest.raises(BundleError, match="a file of the bundle was changed"):
        shelf.promote(1)


def test_an_unknown_version(shelf):
    shelf.add()
    with pytest.raises(RegistryError, match="has no version 7"):
        shelf.promote(7)


def test_a_version_made_outside_of_raypipe_is_not_promoted(shelf):
    version = shelf.add()
    shelf.client.create_model_version(
        shelf.model, source=version.bundle_uri, run_id=version.run_id,
        tags=shelf.client.get_model_version(shelf.model, "1").tags,
    )  # fmt: skip
    with pytest.raises(RegistryError, match="the ledger does not know version 2"):
        shelf.promote(2)


def test_the_ledger_needs_no_help_of_the_environment(shelf, monkeypatch, edited, opened):
    monkeypatch.delenv("RAYPIPE_WHO")
    monkeypatch.setenv("LOGNAME", "grace")
    monkeypatch.setattr("socket.gethostname", lambda: "build-7")
    shelf.add()
    assert shelf.promote(1).who == "grace@build-7"
    shelf.add()
    edited(shelf.folder, registry__who="the release job")
    release_commands.promote(shelf.folder, 2, None)
    assert shelf.ledger.entries()[-1].who == "the release job"


# ---- register ----------------------------------------------------------------------------------


def test_registering_again_makes_no_second_version_and_no_second_entry(shelf):
    first, again = shelf.add(name="one"), shelf.add(name="one")
    assert first == again
    assert shelf.actions() == ["register"]


def test_a_verdict_against_a_run_is_an_entry_once(shelf):
    made = shelf.evaluation("fail", "bad")
    for _ in range(2):
        shelf.registry.record_verdict(made, shelf.now())
    [entry] = shelf.ledger.entries()
    assert (entry.change.action, entry.change.to, entry.change.evidence.bundle) == ("verdict", None, None)
    assert (entry.change.evidence.run, entry.change.evidence.verdict) == (made.result["run"]["digest"], "fail")
    assert shelf.registry.versions() == []


def test_a_gate_that_fails_leaves_an_entry_and_no_version(made):
    p = made(evaluation__gate=["roc_auc >= 0.99"])
    run = p.steps.train(p.training_set)
    for _ in range(2):
        with pytest.raises(GateRefusedError, match="1 of 1 rules do not hold"):
            p.steps.register(p.training_set, run, p.steps.evaluate(p.training_set, run))
    registry = Registry(p.project)
    [entry] = registry.releases().own
    assert (entry.change.action, entry.change.evidence.run, entry.change.evidence.verdict) == (
        "verdict",
        run.digest,
        "fail",
    )
    assert (registry.versions(), registry.champion()) == ([], None)
    assert audit(p.project).found == ()


def test_a_gate_that_cannot_decide_makes_a_version_that_needs_an_override(made):
    p = made(evaluation__gate=["roc_auc >= 0.5"])
    run = p.steps.train(p.training_set)
    undecided = Verdict("inconclusive", [Finding("roc_auc >= 0.5", "inconclusive", 0.51, 0.5)])
    evaluation = replace(p.steps.evaluate(p.training_set, run), verdict=undecided)
    for _ in range(2):
        with pytest.raises(GateRefusedError, match="the gate says inconclusive") as refused:
            p.steps.register(p.training_set, run, evaluation)
        assert 'raypipe promote 1 --override "why"' in refused.value.hint
    registry = Registry(p.project)
    assert [version.verdict for version in registry.versions()] == ["inconclusive"]
    with pytest.raises(GateRefusedError, match="version 1 did not pass"):
        registry.promote(1, at=START)
    assert registry.promote(1, at=START, override="a week of rows is all there is").change.action == "override"
    assert audit(p.project).found == ()


def test_registering_that_was_cut_off_before_its_entry_is_finished(shelf):
    shelf.add()
    shelf.add(name="two")
    shelf.entry(2).unlink()
    shelf.client.set_registered_model_tag(shelf.model, HEAD, shelf.registry.releases().head)
    with pytest.raises(RegistryError, match="the ledger does not know version 2"):
        shelf.promote(2)
    shelf.add(name="two")
    assert shelf.promote(2).change.to == 2


# ---- roll back ---------------------------------------------------------------------------------


def test_a_rollback_returns_to_the_version_before_and_a_second_one_undoes_it(shelf):
    for number in (1, 2, 3):
        shelf.add()
        shelf.promote(number)
    served = []
    for _ in range(3):
        change = shelf.rollback().change
        served.append((change.action, change.from_, change.to, shelf.alias()))
    assert served == [("rollback", 3, 2, 2), ("rollback", 2, 3, 3), ("rollback", 3, 2, 2)]


def test_a_rollback_needs_no_verdict_of_today(shelf):
    shelf.add("inconclusive")
    shelf.promote(1, override="first of all")
    shelf.add()
    shelf.promote(2)
    assert shelf.rollback().change.to == 1


def test_a_rollback_from_a_version_is_done_once(shelf):
    for number in (1, 2):
        shelf.add()
        shelf.promote(number)
    assert shelf.rollback(bad=2).change.to == 1
    assert shelf.rollback(bad=2) is None
    assert shelf.alias() == 1


def test_nothing_to_roll_back_to(shelf):
    with pytest.raises(RegistryError, match="has no champion"):
        shelf.rollback()
    shelf.add()
    shelf.promote(1)
    with pytest.raises(RegistryError, match="no version served before version 1"):
        shelf.rollback()


def test_no_rollback_to_a_retired_version(shelf):
    for number in (1, 2):
        shelf.add()
        shelf.promote(number)
    shelf.retire(1)
    with pytest.raises(RegistryError, match="version 1 is retired"):
        shelf.rollback()
    assert shelf.alias() == 2


def test_a_run_does_not_promote_what_was_rolled_back(made):
    p = made(evaluation__gate=["roc_auc >= 0.5"])
    run = p.steps.train(p.training_set)
    evaluation = p.steps.evaluate(p.training_set, run)
    registry, now = Registry(p.project), START
    first = p.steps.promote(p.steps.register(p.training_set, run, evaluation))
    other = replace(evaluation, verdict=Verdict("pass", [Finding("roc_auc >= 0.6", "pass", 0.7, 0.6)]))
    second = p.steps._register(registry, p.training_set, run, other, now)
    assert p.steps.promote(second).version == 2
    registry.rollback(at=now, reason="late on Mondays")
    with pytest.raises(GateRefusedError, match="version 2 was rolled back") as refused:
        p.steps.promote(second)
    assert "late on Mondays" in refused.value.got
    assert p.steps.promote(first).version == 1
    assert registry.rollback(at=now).change.to == 2  # it may serve after all
    assert p.steps.promote(second).version == 2
    assert registry.releases().withdrawn == {}
    registry.rollback(at=now)
    assert registry.promote(2, at=now).change.to == 2
    assert [e.change.action for e in registry.releases().own] == [
        "register", "promote", "register", "promote", "rollback", "rollback", "rollback", "promote",
    ]  # fmt: skip


# ---- retire ------------------------------------------------------------------------------------


def test_a_retired_version_is_never_promoted_by_no_override_either(shelf):
    shelf.add()
    entry = shelf.registry.retire(1, at=shelf.now(), reason="learned from leaked labels")
    for override in (None, "please"):
        with pytest.raises(RegistryError, match="version 1 is retired") as refused:
            shelf.promote(1, override)
        assert refused.value.where == f"ledger entry {entry.number}"
        assert "learned from leaked labels" in refused.value.got
    assert shelf.retire(1) is None
    assert shelf.actions() == ["register", "retire"]


def test_the_champion_is_not_retired(shelf):
    shelf.add()
    shelf.promote(1)
    with pytest.raises(RegistryError, match="version 1 is champion and cannot be retired"):
        shelf.retire(1)
    with pytest.raises(RegistryError, match="has no version 9"):
        shelf.retire(9)


# ---- before there was a ledger -----------------------------------------------------------------


@pytest.fixture
def older(shelf):
    """Two versions, the first of them champion, as they were before there was a ledger."""
    shelf.add()
    shelf.add("inconclusive")
    shelf.promote(1)
    shutil.rmtree(shelf.storage / "ledger")
    shelf.client.delete_registered_model_tag(shelf.model, HEAD)
    shelf.registry = Registry(shelf.project)
    return shelf


def test_what_is_older_than_the_ledger_serves_and_is_adopted_by_the_first_change(older):
    assert older.registry.champion().version == 1
    assert older.actions() == []
    assert older.promote(1) is None
    [entry] = older.ledger.entries()
    assert (entry.change.action, entry.change.alias, entry.change.from_, entry.change.to) == (
        "adopted",
        "champion",
        None,
        1,
    )
    assert {n: e.verdict for n, e in entry.change.versions.items()} == {1: "pass", 2: "inconclusive"}
    assert older.registry.champion().version == 1


def test_an_adopted_version_is_judged_as_any_other(older):
    with pytest.raises(GateRefusedError):
        older.promote(2)
    older.add()
    older.promote(3)
    assert older.rollback().change.to == 1
    assert older.actions() == ["adopted", "register", "promote", "rollback"]


def test_a_version_whose_bundle_is_damaged_is_adopted_and_not_promoted(older):
    bundle = Path(older.registry.version(2).bundle_uri.removeprefix("file://"))
    (bundle / "metrics.json").unlink()
    older.promote(1)
    [entry] = older.ledger.entries()
    assert entry.change.versions[2].findings is None
    with pytest.raises(BundleError, match="cannot be read"):
        older.promote(2, override="it was good")


def test_a_ledger_that_is_gone_is_not_begun_anew(shelf):
    shelf.add()
    shelf.promote(1)
    shutil.rmtree(shelf.storage / "ledger")
    with pytest.raises(LedgerError, match="lacks an entry that MLflow knows of"):
        Registry(shelf.project).promote(1, at=shelf.now())


# ---- cut off, and at once ----------------------------------------------------------------------

KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from raypipe.project import load_project
from raypipe.registry.registered_model import RegisteredModel
from raypipe.registry.tracking import Registry
RegisteredModel.show = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Registry(load_project(sys.argv[1])).promote(2, at=datetime.now(UTC))
"""


@pytest.fixture(scope="module")
def killed(new_shelf):
    """Version 1 is champion; promoting version 2 was killed between the entry and the alias."""
    shelf = new_shelf()
    for _ in range(3):
        shelf.add()
    shelf.promote(1)
    done = subprocess.run([sys.executable, "-c", KILLED, shelf.folder], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (shelf.actions()[-2:], shelf.alias()) == (["promote", "promote"], 1)
    return shelf


@pytest.fixture
def cut_off(killed, copied):
    return copied(killed)


@pytest.mark.slow
def test_the_ledgers_word_holds_when_a_promotion_was_cut_off(cut_off):
    assert cut_off.registry.champion().version == 2
    document, said = release_commands.audit(cut_off.folder)
    assert not document["ok"]
    assert "alias is not where the ledger says: it was moved back by hand, or the command" in said
    assert "expected: version 2, by ledger entry 5\n  got: version 1" in said
    assert "expected: entry 5 " in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("finish", "champion"),
    [
        (lambda s: s.promote(2), 2),
        (lambda s: s.promote(3), 3),
        (lambda s: s.rollback(), 1),
        (lambda s: s.retire(3), 2),
        (lambda s: s.add(), 2),
    ],
    ids=["the-same", "another", "rollback", "retire", "register"],
)
def test_the_next_change_finishes_what_was_cut_off(cut_off, finish, champion):
    finish(cut_off)
    assert cut_off.alias() == champion
    entry = next((e for e in cut_off.ledger.entries()[5:] if e.change.alias), None)
    assert entry is None or entry.change.from_ == 2
    assert release_commands.audit(cut_off.folder)[0]["ok"]


PROMOTER = """
import json, sys
from datetime import UTC, datetime
from raypipe.errors import RaypipeError
from raypipe.project import load_project
from raypipe.registry.tracking import Registry
registry = Registry(load_project(sys.argv[1]))
print("ready", flush=True)
for line in sys.stdin:
    try:
        entry = registry.promote(int(line), at=datetime.now(UTC))
        print(json.dumps({"entry": entry and entry.number}), flush=True)
    except RaypipeError as error:
        print(json.dumps(error.to_json()), flush=True)
"""


@pytest.mark.slow
def test_two_promoters_at_once_cannot_both_win(shelf, monkeypatch):
    for _ in range(4):
        shelf.add()
    shelf.promote(4)
    promoters = []
    for name in ("bob", "eve"):
        monkeypatch.setenv("RAYPIPE_WHO", name)
        command = [sys.executable, "-c", PROMOTER, shelf.folder]
        promoters.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    assert [p.stdout.readline() for p in promoters] == ["ready\n"] * 2
    lost = 0
    for number in range(30):
        before = len(shelf.actions())
        for promoter, version in zip(promoters, ((1, 2), (3, 4))[number % 2], strict=True):
            promoter.stdin.write(f"{version}\n")
            promoter.stdin.flush()
        told = [json.loads(p.stdout.readline()) for p in promoters]
        entries = shelf.ledger.entries()[before:]
        winners = [t["entry"] for t in told if t.get("entry")]
        assert sorted(winners) == [e.number for e in entries]
        for loser in (t for t in told if "error" in t):
            lost += 1
            assert loser["what"] == "someone else was first: nothing was changed"
            assert len(entries) == 1
            assert entries[0].words() == loser["got"]
        assert shelf.alias() == shelf.registry.releases().champion == entries[-1].change.to
        if lost and number >= 9:
            break
    for promoter in promoters:
        promoter.communicate()
    assert lost > 0, "they never met"
    assert release_commands.audit(shelf.folder)[0]["ok"]


# ---- history -----------------------------------------------------------------------------------


def test_what_served_at_a_time_and_why(shelf):
    shelf.add()
    shelf.add("inconclusive")
    promoted = shelf.promote(1)
    overridden = shelf.promote(2, override="few rows")
    rolled_back = shelf.rollback()

    def at(moment) -> dict | None:
        return release_commands.history(shelf.folder, shelf.model, moment.isoformat())[0]["served"]

    assert at(promoted.at - timedelta(seconds=1)) is None
    assert at(promoted.at)["entry"] == promoted.to_json()
    assert at(overridden.at - timedelta(microseconds=1))["version"] == 1
    assert at(overridden.at + timedelta(seconds=59))["version"] == 2
    assert at(rolled_back.at + timedelta(days=9))["entry"] == rolled_back.to_json()
    _, said = release_commands.history(shelf.folder, None, overridden.at.isoformat())
    for words in ("version 2", "override, ledger entry 4", "ada", "few rows", "inconclusive", "until 2026-10-03 14:"):
        assert words in said


def test_the_whole_history_is_a_line_an_entry(shelf):
    shelf.registry.record_verdict(shelf.evaluation("fail", "bad"), shelf.now())
    for number in (1, 2):
        shelf.add()
        shelf.promote(number)
    shelf.retire(1)
    document, said = release_commands.history(shelf.folder, None, None)
    assert [entry["action"] for entry in document["entries"]] == ["verdict", "register", "promote", "register", "promote", "retire"]  # fmt: skip
    lines = said.splitlines()
    assert len(lines) == 7
    assert lines[5].split()[3:7] == ["promote", "1", "->", "2"]
    assert all(line.split()[0] == str(number) for number, line in enumerate(lines[1:], 1))


def test_a_model_that_the_ledger_does_not_know(shelf):
    with pytest.raises(RegistryError, match="knows no model 'slow-deliveries'") as refused:
        release_commands.history(shelf.folder, "slow-deliveries", None)
    assert "slow-delivery" in refused.value.hint


def test_retired_versions_are_listed_as_such(shelf):
    shelf.add()
    shelf.retire(1)
    document, said = commands.models(shelf.folder)
    assert document["versions"][0]["retired"]
    assert said.splitlines()[1].split()[:3] == ["1", "retired", "pass"]
