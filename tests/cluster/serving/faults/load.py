"""A steady load on an endpoint: some connections are kept, others are made anew, and every score is checked."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from tests.cases import MORE

PAUSE_S = 0.01 if MORE > 1 else 0.02  # of each client between two requests
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Answer:
    """One request: when it was sent and answered (seconds since 1970), and what came of it. failure: None for the right
    score, else what happened instead; id: the one that the answer carries."""

    sent: float
    ended: float
    version: str | None
    failure: str | None
    id: str | None = None


class Load:
    """Use as a context manager. scores: the right ones of `row`, by version; more may be added. keep: clients that keep
    their connection; renew: clients that connect for each request."""

    def __init__(
        self, base: str, model: str, row: Mapping[str, Any], scores: dict[str, float], keep: int = 4, renew: int = 2
    ) -> None:
        parts = urlsplit(base)
        self._address = (parts.hostname, parts.port)
        self._path, self._body = f"/models/{model}/predict", json.dumps({"rows": [row]}).encode()
        self.scores, self.answers, self._done = scores, list[Answer](), threading.Event()
        kept = [True] * keep + [False] * renew
        self._clients = [threading.Thread(target=self._ask, args=(each,), daemon=True) for each in kept]

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more, and wait for the last answers."""
        self._done.set()
        for client in self._clients:
            client.join()

    def _ask(self, keeps: bool) -> None:
        while not self._done.is_set():
            with closing(http.client.HTTPConnection(*self._address, timeout=30)) as connection:
                for _ in itertools.count() if keeps else range(1):
                    answer = self._one(connection)
                    self.answers.append(answer)
                    self._done.wait(PAUSE_S)
                    if answer.failure or self._done.is_set():
                        break

    def _one(self, connection: http.client.HTTPConnection) -> Answer:
        sent = time.time()
        try:
            connection.request("POST", self._path, self._body, {"content-type": "application/json"})
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            return Answer(sent, time.time(), None, type(error).__name__)
        version = response.headers["x-model-version"]
        wrong, named = self._wrong(response.status, version, body), response.headers["x-request-id"]
        return Answer(sent, time.time(), version, wrong, named)

    def _wrong(self, status: int, version: str, body: bytes) -> str | None:
        if status != 200:
            return f"{status} {body[:80].decode(errors='replace')}"
        score = json.loads(body)["predictions"][0]["probability"]
        right = version in self.scores and abs(score - self.scores[version]) <= TOLERANCE
        return None if right else f"score {score} of version {version}"

    # ---- figures -------------------------------------------------------------------------------

    def since(self, moment: float) -> list[Answer]:
        """Answers to what was sent from then on, by their end."""
        return sorted((a for a in list(self.answers) if a.sent >= moment), key=lambda a: a.ended)

    def good_since(self, moment: float) -> int:
        return sum(answer.failure is None for answer in self.since(moment))

    def failures(self) -> Counter[str]:
        return Counter(a.failure for a in list(self.answers) if a.failure)

    def longest_gap_s(self) -> float:
        """The longest time in which nobody got a right answer."""
        ends = sorted(a.ended for a in list(self.answers) if a.failure is None)
        return max((later - sooner for sooner, later in itertools.pairwise(ends)), default=float("inf"))

    def figures(self) -> str:
        """Requests sent, failed, and the longest gap, in a line."""
        failed = self.failures()
        kinds = f" ({', '.join(f'{count} {kind}' for kind, count in failed.most_common())})" if failed else ""
        gap = f"longest gap {self.longest_gap_s() * 1000:.0f} ms"
        return f"{len(self.answers)} sent, {failed.total()} failed{kinds}, {gap}"
