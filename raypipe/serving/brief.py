"""Which requests are answered in the event loop: those that are worked on in less time than a thread would cost.

A hop to a thread and back costs tenths of a millisecond, and two threads of Python wait for one another for up to 5 ms.
"""

from __future__ import annotations

from raypipe.serving.access import is_admin
from raypipe.serving.call import ARROW, Call
from raypipe.serving.json_body import count_byte
from raypipe.serving.v2_binary import HEADER as BINARY

INLINE_BYTES = 16 * 1024  # a body that is answered in the loop whatever it says
LOOP_S = 0.002  # seconds of predicting that the loop may be held up for
_MOST_BYTES = 256 * 1024
_EXPLAIN = b'"explain"'  # in a small body too: an explanation takes milliseconds a row


def brief(call: Call, most_values: int) -> bool:
    """Whether a call is answered in the loop. most_values: as many as are predicted within LOOP_S; in JSON about one
    stands behind each comma."""
    if is_admin(call.path) or _EXPLAIN in call.body:
        return False
    if len(call.body) <= INLINE_BYTES:
        return True
    if len(call.body) > _MOST_BYTES or BINARY in call.headers or call.headers.get("content-type", "").startswith(ARROW):
        return False
    return count_byte(call.body, b",") < most_values
