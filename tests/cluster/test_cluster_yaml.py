"""cluster.yaml is what `ray up` takes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_ray_accepts_it(config):
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == len(config["provider"]["worker_ips"])


def test_ray_would_refuse_another(config):
    wrong = copy.deepcopy(config) | {"head_start_ray_command": []}
    with pytest.raises(Exception, match="head_start_ray_command"):
        validate_config(prepare_config(wrong))


@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_every_node_starts_with_raypipes_settings_and_a_token(config, key):
    [command] = [command for command in config[key] if "ray start" in command]
    assert 'eval "$(raypipe ray-env)"' in command
    assert "RAY_AUTH_MODE=token" in command
    assert "0.0.0.0" not in command


def test_ray_env_prints_every_setting(cli):
    from raypipe.cluster.settings import environment

    printed = cli("ray-env").out.splitlines()
    assert printed == [f"export {name}='{value}'" for name, value in environment().items()]
