"""A process that reads damaged Arrow streams: `arrow_fuzz.py FOLDER SERVING_JSON COUNT`, started by test_protocol_fuzz."""

from __future__ import annotations

import importlib.util
import json
import random
import resource
import sys
from pathlib import Path

from raypipe.errors import RequestError
from raypipe.features.serving_spec import ServingSpec
from raypipe.serving.arrow import read_stream
from raypipe.serving.columns import read_columns


def damaging():
    """`damaged` of the test module."""
    found = importlib.util.spec_from_file_location("fuzz", Path(__file__).with_name("test_protocol_fuzz.py"))
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.damaged


def main(folder: str, serving: str, count: str) -> None:
    spec, damaged, dice = ServingSpec.from_json(json.loads(Path(serving).read_text())), damaging(), random.Random(6)
    bodies = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    before, found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, {"read": 0, "refused": 0}
    for _ in range(int(count)):
        try:
            read_columns(spec, read_stream(damaged(dice.choice(bodies), dice.choice(bodies), dice), 10_000), 10**7)
            found["read"] += 1
        except RequestError:
            found["refused"] += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps(found | {"grown_mib": grown}))


main(*sys.argv[1:])
