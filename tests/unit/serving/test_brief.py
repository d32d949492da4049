"""Which requests the event loop answers itself."""

from __future__ import annotations

import orjson
import pytest

from raypipe.serving.brief import INLINE_BYTES, brief
from raypipe.serving.call import ARROW, Call
from raypipe.serving.live import LiveVersions, load
from raypipe.serving.model import Pace
from raypipe.serving.warm_up import warm_up

ROWS = [{"a": 0.123456789, "b": "w" * 40}] * 400  # about 26 kB, 800 values


def call(body: bytes, path: str = "/v2/models/m/predict", **headers: str) -> Call:
    return Call("POST", path, "", {name.replace("_", "-"): value for name, value in headers.items()}, body, "r", 0)


@pytest.mark.parametrize(
    ("asked", "most_values", "answered_there"),
    [
        (call(b"x" * INLINE_BYTES), 0, True),
        (call(b"x" * (INLINE_BYTES + 1)), 0, False),
        (call(orjson.dumps({"rows": ROWS})), 800, True),
        (call(orjson.dumps({"rows": ROWS})), 799, False),
        (call(orjson.dumps({"rows": ROWS * 12})), 10**6, False),
        (call(orjson.dumps({"rows": ROWS, "explain": True})), 10**6, False),
        (call(b'{"rows": [], "explain": true}'), 10**6, False),
        (call(b"{}", path="/admin/status"), 10**6, False),
        (call(b"x" * (INLINE_BYTES + 1), content_type=ARROW), 10**6, False),
        (call(b"x" * (INLINE_BYTES + 1), inference_header_content_length="9"), 10**6, False),
    ],
)
def test_what_is_small_or_quick_to_predict_is_answered_in_the_loop(asked, most_values, answered_there):
    assert brief(asked, most_values) is answered_there


def test_a_warm_version_knows_how_many_values_it_predicts_meanwhile(served):
    """More than one row's, and less than a second's: the figure itself is the machine's."""
    fields = len(served.model.bundle.serving.fields)
    assert fields < warm_up(served.model).most_values < 500 * 100_000 * fields


def test_an_endpoint_goes_by_its_slowest_version(served):
    config = {
        "model": "rides", "versions": {"1": served.pointer, "2": served.pointer}, "limits": {"max_rows": 9, "max_body_bytes": 9},
        "traffic": {"default": "1", "weights": {}}, "max_past_us": 10**15, "access": {"callers": [], "admins": []},
    }  # fmt: skip
    live = LiveVersions()
    change = live.begin(config)
    loaded = load(change)
    one, two = loaded.values()
    assert min(one.pace.most_values, two.pace.most_values) > 0
    one.pace = Pace(7, together=True)
    found = live.finish(change, loaded)
    assert (found.most_values, found.together) == (7, True)
