"""Personal values in the log: keyed hashes that say only whether two are the same, or nothing."""

from __future__ import annotations

import hashlib
import hmac

import polars as pl
import pytest

from raypipe.errors import ConfigurationError
from raypipe.serving.prediction_log.personal import KEY_FILE_VARIABLE, KEY_VARIABLE, Personal, hash_key

KEY = b"0123456789abcdef0123456789abcdef"
ROWS = [{"user": "ann", "age": 41, "shop": "a"}, {"user": None, "age": 41, "shop": "b"}]


def of(text: bytes) -> str:
    return hmac.new(KEY, text, hashlib.sha256).hexdigest()


def test_personal_fields_are_hashed_and_others_are_not():
    hidden = Personal(frozenset({"user", "age"}), KEY)
    wanted = [{"user": of(b"ann"), "age": of(b"41"), "shop": "a"}, {"user": None, "age": of(b"41"), "shop": "b"}]
    assert hidden.without(ROWS) == wanted
    assert hidden.without(pl.DataFrame(ROWS)).to_dicts() == [
        {"shop": r["shop"], "user": r["user"], "age": r["age"]} for r in wanted
    ]
    assert ROWS[0]["user"] == "ann"


def test_without_a_key_they_are_left_out():
    hidden = Personal(frozenset({"user", "age"}), None)
    assert hidden.without(ROWS) == [{"shop": "a"}, {"shop": "b"}]
    assert hidden.without(pl.DataFrame(ROWS)).to_dicts() == [{"shop": "a"}, {"shop": "b"}]
    assert Personal(frozenset(ROWS[0]), None).without(pl.DataFrame(ROWS)) == [{}, {}]
    assert hidden.hashed("ann") is None


def test_another_key_gives_another_hash():
    assert Personal(frozenset(), KEY).hashed("ann") == of(b"ann") != Personal(frozenset(), KEY[::-1]).hashed("ann")


def test_the_key_comes_from_the_environment_or_a_file(tmp_path):
    (tmp_path / "key").write_bytes(KEY + b"\n")
    assert hash_key({}) is None
    assert hash_key({KEY_VARIABLE: KEY.decode()}) == KEY
    assert hash_key({KEY_VARIABLE: "x" * 20, KEY_FILE_VARIABLE: str(tmp_path / "key")}) == KEY


def test_a_key_that_is_none_is_refused_and_not_shown(tmp_path):
    with pytest.raises(ConfigurationError, match="too short") as short:
        hash_key({KEY_VARIABLE: "secret"})
    assert "secret" not in str(short.value)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        hash_key({KEY_FILE_VARIABLE: str(tmp_path / "none")})
