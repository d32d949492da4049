from __future__ import annotations

import pickle
import sys
import uuid
from pathlib import Path

import pytest

from raypipe.errors import ConfigurationError, TrainingError
from raypipe.project.user_code import load_function


@pytest.fixture
def module(tmp_path):
    """Writes a module of the project under a name that nothing else has; it is forgotten afterwards."""
    name = f"losses_{uuid.uuid4().hex}"

    def write(source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        return name

    yield write
    sys.modules.pop(name, None)


def test_a_function_of_the_project(tmp_path, module):
    name = module("def double(x):\n    return 2 * x\n")
    found = load_function(tmp_path, f"{name}:double", where="here")
    assert found.function(21) == 42
    changed = load_function(tmp_path, f"{module('def double(x): return x + x')}:double", where="here")
    assert changed.digest != found.digest


def test_what_is_installed():
    assert load_function(Path(), "statistics:fmean", where="here").function([1, 3]) == 2


@pytest.mark.parametrize(
    ("source", "path", "said"),
    [
        ("x = 1", "{}:double", "has no function 'double'"),
        ("x = 1", "{}:x", "has no function 'x'"),
        ("x = 1", "{}:", "has no function ''"),
        ("import nowhere_at_all", "{}:x", "cannot be imported"),
        ("def broken(:", "{}:x", "cannot be imported"),
        ("x = 1", "nowhere_at_all:x", "cannot be imported"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path, module, source, path, said):
    name = module(source)
    with pytest.raises(ConfigurationError, match=said) as refused:
        load_function(tmp_path, path.format(name), where="project.yaml: training.objective")
    assert refused.value.where == "project.yaml: training.objective"


def test_what_it_raises_is_told_as_its_fault(tmp_path, module):
    name = module("def broken(x):\n    return 1 / x\n")
    found = load_function(tmp_path, f"{name}:broken", where="here")
    with pytest.raises(TrainingError, match=f"{name}:broken of the project failed") as failed:
        found.function(0)
    assert (failed.value.where, failed.value.got) == (f"{name}.py:2", "ZeroDivisionError: division by zero")
    assert pickle.loads(pickle.dumps(failed.value)).got == failed.value.got
