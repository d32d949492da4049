"""`raypipe predict` asks the endpoint that runs."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def request_file(tmp_path):
    def write(**change):
        row = {"carrier": "UA", "origin": "EWR", "dest": "SFO", "tailnum": None, "scheduled_at": "2013-11-27T12:00:00Z"}
        (tmp_path / "request.json").write_text(json.dumps({"rows": [row | change]}))
        return tmp_path / "request.json"

    return write


def test_it_prints_what_the_endpoint_answers(flights, endpoint, call, cli, request_file):
    asked = cli("predict", request_file(), "--project", flights.folder, "--json")
    assert asked.code == 0, asked.err
    direct = call("POST", "/models/flights-late/predict", json.loads(request_file().read_text()))
    assert asked.json == {"ok": True} | direct.json


def test_for_people(flights, endpoint, cli, request_file):
    asked = cli("predict", request_file(), "--project", flights.folder, "--url", endpoint)
    assert asked.code == 0, asked.err
    assert "carrier UA, origin EWR" in asked.out
    assert "(version 1)" in asked.out


def test_a_wrong_field_is_named(flights, endpoint, cli, request_file):
    asked = cli("predict", request_file(origin="XXX"), "--project", flights.folder)
    assert asked.code == 2
    assert "origin: must match" in asked.err


def test_nobody_answers(flights, cli, request_file, free_port):
    asked = cli("predict", request_file(), "--project", flights.folder, "--url", f"http://127.0.0.1:{free_port}")
    assert asked.code == 1
    assert "no endpoint answers" in asked.err
    assert "raypipe serve" in asked.err
