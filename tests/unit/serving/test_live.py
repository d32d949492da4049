"""A replica's versions through one configuration after another: what is loaded, kept, left out and overtaken."""

from __future__ import annotations

import asyncio
import shutil
from urllib.parse import urlparse

import pytest

from raypipe.errors import BundleError
from raypipe.serving.live import LiveVersions, load
from raypipe.serving.record import Served
from raypipe.serving.shadow import WAITING, Shadows
from raypipe.serving.traffic import Traffic


@pytest.fixture
def config(served):
    """A configuration of such versions; the last one's bundle may be damaged."""

    def make(*names: str, default: str = "1", damaged: str | None = None, **traffic):
        pointers = {name: dict(served.pointer) for name in names}
        if damaged:
            pointers[damaged]["digest"] = "0" * 64
        return {
            "model": "rides", "versions": pointers, "limits": {"max_rows": 9, "max_body_bytes": 9},
            "traffic": {"default": default, "weights": {}, **traffic}, "max_past_us": 10**15,
            "access": {"callers": [], "admins": []},
        }  # fmt: skip

    return make


def take(live, config):
    change = live.begin(config)
    return live.finish(change, load(change))


def states(live):
    return {found["version"]: found["state"] for found in live.loads()}


def test_a_version_is_loaded_once(config):
    live = LiveVersions()
    first = take(live, config("1"))
    second = take(live, config("1", "2", default="2"))
    third = take(live, config("1", "2", default="1"))
    assert first.versions["1"] is second.versions["1"] is third.versions["1"]
    assert second.versions["2"] is third.versions["2"]
    assert (second.traffic.default, third.traffic.default) == ("2", "1")
    assert states(live) == {"1": "loaded", "2": "loaded"}


def test_a_version_that_is_left_out_is_let_go(config):
    live = LiveVersions()
    take(live, config("1", "2"))
    assert list(take(live, config("1")).versions) == ["1"]
    assert states(live) == {"1": "loaded"}


def test_a_canary_that_cannot_be_loaded_leaves_its_share_to_the_default(config):
    live = LiveVersions()
    endpoint = take(live, config("1", "2", damaged="2", weights={"2": 1.0}, shadows=["2"]))
    assert list(endpoint.versions) == ["1"]
    assert endpoint.traffic == Traffic("1", {}, [])
    [failed] = [found for found in live.loads() if found["state"] == "failed"]
    assert (failed["version"], "not the bundle that was asked for" in failed["reason"]) == ("2", True)


def test_a_default_that_cannot_be_loaded_changes_nothing(config):
    live = LiveVersions()
    first = take(live, config("1"))
    with pytest.raises(BundleError):
        take(live, config("1", "2", default="2", damaged="2"))
    assert states(live) == {"1": "loaded", "2": "failed"}
    assert take(live, config("1")).versions["1"] is first.versions["1"]
    assert states(live) == {"1": "loaded"}


def test_what_failed_is_tried_again(config):
    live = LiveVersions()
    take(live, config("1", "2", damaged="2"))
    assert list(take(live, config("1", "2")).versions) == ["1", "2"]
    assert states(live) == {"1": "loaded", "2": "loaded"}


def test_another_bundle_under_the_same_number_is_another_version(config, served, tmp_path):
    live = LiveVersions()
    first = take(live, config("1"))
    moved = config("1")
    shutil.copytree(urlparse(served.pointer["bundle"]).path, tmp_path / "bundle")
    moved["versions"]["1"]["bundle"] = (tmp_path / "bundle").as_uri()
    assert take(live, moved).versions["1"] is not first.versions["1"]


def test_a_slow_load_is_overtaken_by_what_came_later(config):
    """A rollback is not held up by the loading of the version that it undoes."""
    live = LiveVersions()
    take(live, config("1"))
    slow = live.begin(config("1", "2", default="2"))
    assert states(live) == {"1": "loaded", "2": "loading"}
    assert take(live, config("1")).traffic.default == "1"
    assert live.finish(slow, load(slow)) is None
    assert states(live) == {"1": "loaded"}


# ---- shadows -----------------------------------------------------------------------------------


@pytest.fixture
def shadowed(config, served):
    """Let a shadow see requests, in an event loop; what it told of, and its counts."""

    def run(requests: list[Served]):
        endpoint = take(LiveVersions(), config("1", "2", shadows=["2"]))
        told = []

        async def observe():
            shadows = Shadows(lambda: endpoint, told.append)
            for request in requests:
                shadows.observe(request)
            seen = [request for request in requests if not request.shadow]
            while sum(shadows.counts().values()) < len(seen):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)
            return shadows.counts()

        return told, asyncio.run(observe())

    return run


def request_of(served, version="1", rows=None, shadow=False):
    rows = served.rows if rows is None else rows
    return Served("r-1", 0, "rides", version, "key", rows, served.model.predict_rows(served.rows), shadow)


def test_a_shadow_predicts_what_was_answered(served, shadowed):
    told, counts = shadowed([request_of(served), request_of(served, rows=served.frame)])
    assert counts == {"predicted": 2, "failed": 0, "dropped": 0}
    for found in told:
        assert (found.version, found.shadow, found.request_id) == ("2", True, "r-1")
        assert found.predictions.scores.tolist() == served.model.predict_rows(served.rows).scores.tolist()


def test_what_a_shadow_cannot_predict_is_counted_and_the_next_is_predicted(served, shadowed):
    told, counts = shadowed([request_of(served, rows=[{"at": "nonsense"}]), request_of(served)])
    assert (counts, len(told)) == ({"predicted": 1, "failed": 1, "dropped": 0}, 1)


def test_a_shadows_own_predictions_are_not_shadowed(served, shadowed):
    assert shadowed([request_of(served, shadow=True), request_of(served)])[1]["predicted"] == 1


def test_what_is_too_much_for_a_shadow_is_dropped_and_counted(served, shadowed):
    """Observed at once, faster than any thread predicts: one may be under way beside those that wait."""
    _, counts = shadowed([request_of(served)] * (WAITING + 50))
    assert counts["predicted"] >= WAITING
    assert counts["dropped"] >= 1
    assert counts["predicted"] + counts["dropped"] == WAITING + 50
