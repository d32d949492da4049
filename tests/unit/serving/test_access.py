"""API keys: who is let in where; keys themselves stay out of what Serve and errors show."""

from __future__ import annotations

from hashlib import sha256

import pytest

from raypipe.errors import ConfigurationError, ForbiddenError, UnauthorizedError
from raypipe.serving.access import Access, read_digests

OLD, NEW, ADMIN = "caller-key-before-rotation", "caller-key-after-rotation", "admin-key-of-the-team"
PREDICT, STATUS = "/models/shop/predict", "/admin/status"


def digests(*keys: str) -> tuple[bytes, ...]:
    return tuple(sha256(key.encode()).digest() for key in keys)


ACCESS = Access(digests(OLD, NEW), digests(ADMIN))


@pytest.mark.parametrize("key", [OLD, NEW, ADMIN])
@pytest.mark.parametrize("header", ["Bearer {}", "bearer  {}"])
def test_every_key_opens_predictions(key, header):
    ACCESS.require(PREDICT, {"authorization": header.format(key)})
    ACCESS.require(PREDICT, {"x-api-key": key})


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"x-api-key": ""}, id="empty"),
        pytest.param({"x-api-key": OLD[:-1]}, id="cut"),
        pytest.param({"x-api-key": OLD + " "}, id="longer"),
        pytest.param({"x-api-key": sha256(OLD.encode()).hexdigest()}, id="the digest, which configurations show"),
        pytest.param({"authorization": f"Basic {OLD}"}, id="another scheme"),
        pytest.param({"authorization": OLD}, id="no scheme"),
        pytest.param({"x-api-key": "\xff\u20ac"}, id="no ASCII"),
    ],
)
@pytest.mark.parametrize("path", [PREDICT, STATUS, "/v2", "/v2/models/shop", "/live", "/anything"])
def test_without_a_known_key(headers, path):
    with pytest.raises(UnauthorizedError):
        ACCESS.require(path, headers)


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/v2/models/shop/ready"])
def test_a_load_balancer_needs_no_key(path):
    ACCESS.require(path, {})


def test_the_admins_routes_need_an_admins_key():
    ACCESS.require(STATUS, {"x-api-key": ADMIN})
    with pytest.raises(ForbiddenError):
        ACCESS.require(STATUS, {"x-api-key": NEW})


def test_callers_keys_without_an_admins_key_close_the_admins_routes():
    with pytest.raises(ForbiddenError):
        Access(digests(OLD)).require(STATUS, {"x-api-key": OLD})


def test_an_admins_key_alone_leaves_predictions_open():
    Access((), digests(ADMIN)).require(PREDICT, {})
    with pytest.raises(UnauthorizedError):
        Access((), digests(ADMIN)).require(STATUS, {})


def test_without_keys_all_is_open():
    Access().require(STATUS, {})
    Access().require(PREDICT, {})


def test_through_json_and_back():
    assert Access.from_json(ACCESS.to_json()) == ACCESS
    assert OLD not in str(ACCESS.to_json())


def test_keys_of_the_environment_come_before_the_file(monkeypatch, tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# before the rotation\n{OLD}\n\n  {NEW}  \n")
    assert read_digests("RAYPIPE_API_KEYS", file) == digests(OLD, NEW)
    monkeypatch.setenv("RAYPIPE_API_KEYS", f"{NEW},{ADMIN}")
    assert read_digests("RAYPIPE_API_KEYS", file) == digests(NEW, ADMIN)


def test_no_keys(monkeypatch, tmp_path):
    monkeypatch.setenv("RAYPIPE_API_KEYS", "")
    assert read_digests("RAYPIPE_API_KEYS", None) == ()


def test_a_short_key_is_refused_without_being_shown(monkeypatch):
    monkeypatch.setenv("RAYPIPE_API_KEYS", f"{OLD},hunter2")
    with pytest.raises(ConfigurationError, match="too short") as refused:
        read_digests("RAYPIPE_API_KEYS", None)
    assert refused.value.got == "key number 2"
    assert "hunter2" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_digests("RAYPIPE_NO_SUCH_VARIABLE", tmp_path / "none")
