"""HAProxy refuses what is too much in the words of a replica."""

from __future__ import annotations

import json
import re
from pathlib import Path

import raypipe.cluster
from raypipe.errors import OverloadedError
from raypipe.serving import v2_errors
from raypipe.serving.call import refusal


def test_it_says_what_a_replica_says():
    rules = Path(raypipe.cluster.__file__).with_name("haproxy_overload.cfg").read_text()
    error = OverloadedError("too many requests at a time", hint="try again later")
    told = [json.loads(found) for found in re.findall(r"string '(.*?)' if", rules)]
    assert told == [json.loads(v2_errors.refusal(error).body), json.loads(refusal(error).body)]
    assert rules.count(f"status {refusal(error).status} ") == rules.count("hdr retry-after 1 ") == 2
