"""A load generator: so many connections, each sending its next request when it has the answer to the last.

`serving_load.py PORT PATH FOLDER check` sends every request once and compares the answers;
`serving_load.py PORT PATH FOLDER CONNECTIONS SECONDS` measures. Plain sockets: little work beside a server that shares
our cores.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
TIMEOUT_S = 30.0


class Connection:
    """A connection that is kept alive, and opened again after a failure."""

    def __init__(self, port: int) -> None:
        self._port, self._socket = port, socket.create_connection(("127.0.0.1", port), TIMEOUT_S)

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body; status 0 if the connection broke."""
        try:
            self._socket.sendall(request)
            return self._answer()
        except OSError:
            self._socket.close()
            self._socket = socket.create_connection(("127.0.0.1", self._port), TIMEOUT_S)
            return 0, b""

    def _answer(self) -> tuple[int, bytes]:
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        length = LENGTH.search(data, 0, end)
        if not length:
            raise ConnectionError("an answer without a length")
        while len(data) < end + 4 + int(length[1]):
            data += self._more()
        return int(data[9:12]), data[end + 4 :]

    def _more(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("closed by the server")
        return data


def requests(path: str, rows: list[dict[str, Any]]) -> list[bytes]:
    """An HTTP request a row."""
    made = []
    for row in rows:
        body = json.dumps({"rows": [row]}).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        )
        made.append(head.encode() + b"\r\n\r\n" + body)
    return made


def check(port: int, asked: list[bytes], expected: list[float]) -> dict[str, int]:
    """Every request once: how many fail, how many are answered with another probability."""
    connection = Connection(port)
    answers = [connection.ask(request) for request in asked]
    good = [(json.loads(b), p) for (status, b), p in zip(answers, expected, strict=True) if status // 100 == 2]
    wrong = sum(abs(document["predictions"][0]["probability"] - p) > 1e-6 for document, p in good)
    return {"failed": len(answers) - len(good), "wrong": wrong}


def measure(port: int, asked: list[bytes], connections: int, seconds: float) -> dict[str, float]:
    """Requests a second and latencies, of answers with 2xx; all others are counted as failed."""
    latencies: list[float] = []
    failed: list[int] = []
    begin = time.perf_counter()

    def work(first: int) -> None:
        connection = Connection(port)
        for request in islice(cycle(asked), first, None):
            sent = time.perf_counter()
            if sent - begin > seconds:
                return
            status, _ = connection.ask(request)
            if status // 100 == 2:
                latencies.append(time.perf_counter() - sent)
            else:
                failed.append(status)

    threads = [threading.Thread(target=work, args=(n * len(asked) // connections,)) for n in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, ordered = time.perf_counter() - begin, sorted(latencies) or [float("nan")]
    at = {f"p{p}_ms": 1000 * ordered[min(len(ordered) * p // 100, len(ordered) - 1)] for p in (50, 99)}
    return {"rps": len(latencies) / wall, **at, "failed": len(failed)}


def main() -> None:
    port, path, known = int(sys.argv[1]), sys.argv[2], json.loads((Path(sys.argv[3]) / "requests.json").read_text())
    asked = requests(path, known["rows"])
    if sys.argv[4] == "check":
        found = check(port, asked, known["probabilities"])
    else:
        found = measure(port, asked, int(sys.argv[4]), float(sys.argv[5]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
