"""From project.yaml's `serving` to what Ray Serve is told."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from ray.serve.schema import DeploymentSchema

import raypipe.cluster
from raypipe.cluster.settings import haproxy_available
from raypipe.errors import ConfigurationError
from raypipe.project.endpoint_settings import Autoscaling
from raypipe.project.settings import Serving
from raypipe.serving.options import HAPROXY_LIMIT, access, controller_options, deployment_options, limits
from raypipe.serving.tls import trust

HAPROXY = Path(raypipe.cluster.__file__).with_name("haproxy_on_loopback.sh")


def project(folder: Path, **serving: Any) -> Any:
    return SimpleNamespace(folder=folder, settings=SimpleNamespace(serving=Serving.model_validate(serving)))


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in ("RAYPIPE_API_KEYS", "RAYPIPE_ADMIN_KEYS"):
        monkeypatch.delenv(name, raising=False)


def test_the_policy_of_autoscaling_as_serve_reads_it():
    scale = {"min_replicas": 2, "max_replicas": 8, "target_ongoing_requests": 3, "downscale_delay": "5m"}
    serving = Serving.model_validate({"autoscaling": scale, "replica_cpus": 0.5})
    read = DeploymentSchema.model_validate({"name": "replica", **deployment_options(serving)})
    policy: Any = read.autoscaling_config
    assert (policy["min_replicas"], policy["max_replicas"], policy["target_ongoing_requests"]) == (2, 8, 3)
    assert (policy["upscale_delay_s"], policy["downscale_delay_s"], policy["look_back_period_s"]) == (2, 300, 2)
    assert read.ray_actor_options.num_cpus == 0.5


def test_a_fixed_number_of_replicas_has_no_policy():
    assert deployment_options(Serving(replicas=3)) == {
        "num_replicas": 3,
        "max_ongoing_requests": 100,
        "ray_actor_options": {"num_cpus": 1},
    }


def test_more_replicas_at_least_than_at_most():
    with pytest.raises(ValidationError, match="max_replicas must not be below min_replicas"):
        Autoscaling(min_replicas=3, max_replicas=2)


def test_the_time_limit_in_seconds():
    assert limits(Serving(request_timeout="250ms"))["timeout_s"] == 0.25
    assert limits(Serving())["timeout_s"] is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "endpoint.example"])
def test_an_open_address_without_keys_is_refused(host, tmp_path):
    with pytest.raises(ConfigurationError, match="answer everybody"):
        access(project(tmp_path, host=host))
    (tmp_path / "keys").write_text("a-key-of-some-length\n")
    assert len(access(project(tmp_path, host=host, access={"keys_file": "keys"})).callers) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_needs_no_keys(host, tmp_path):
    assert access(project(tmp_path, host=host)).callers == ()


def test_keys_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("RAYPIPE_API_KEYS", "a-key-of-some-length,another-key-of-it")
    monkeypatch.setenv("RAYPIPE_ADMIN_KEYS", "the-key-of-an-admin")
    found = access(project(tmp_path, host="0.0.0.0"))
    assert (len(found.callers), len(found.admins)) == (2, 1)


needs_haproxy = pytest.mark.skipif(not haproxy_available(), reason="no HAProxy for this machine")


@pytest.fixture
def certified(tmp_path) -> Path:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=x",
         "-keyout", tmp_path / "key.pem", "-out", tmp_path / "certificate.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return tmp_path


@needs_haproxy
def test_tls(certified):
    found = project(certified, tls={"certificate": "certificate.pem", "key": "key.pem"})
    assert found.settings.serving.url == "https://127.0.0.1:8000"
    variables = controller_options(found)["runtime_env"]["env_vars"]
    assert variables["RAYPIPE_TLS_CERTIFICATE"] == str(certified / "certificate.pem")
    context = trust(found)
    assert context is not None
    assert [named["subject"] for named in context.get_ca_certs()] == [((("commonName", "x"),),)]


@needs_haproxy
@pytest.mark.parametrize("key", ["none.pem", "certificate.pem"])
def test_tls_without_its_key(certified, key):
    with pytest.raises(ConfigurationError, match="cannot be used"):
        controller_options(project(certified, tls={"certificate": "certificate.pem", "key": key}))


def test_without_tls(tmp_path):
    plain = project(tmp_path)
    assert (controller_options(plain), trust(plain), plain.settings.serving.url) == ({}, None, "http://127.0.0.1:8000")


@pytest.mark.parametrize(("limit", "told"), [(10, {}), (100, {}), (101, {"RAYPIPE_MAX_ONGOING": "101"})])
def test_haproxy_gives_a_replica_no_fewer_requests_than_it_takes(tmp_path, limit, told):
    found = controller_options(project(tmp_path, max_ongoing_requests=limit))
    assert found.get("runtime_env", {}).get("env_vars", {}) == told
    assert f"maxconn ${{RAYPIPE_MAX_ONGOING:-{HAPROXY_LIMIT}}}" in HAPROXY.read_text()
