"""Who may import whom (DESIGN 4), and what an import may not bring along."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import raypipe

PACKAGE = Path(raypipe.__file__).parent

BASE = {"errors", "definitions", "project", "data"}
LEARNING = BASE | {"features", "training", "evaluation"}
ALLOWED: dict[str, set[str]] = {
    "__init__": {"definitions", "serving"},
    "errors": set(),
    "cluster": {"errors"},
    "definitions": {"errors"},
    "project": {"definitions", "errors"},
    "data": {"project", "definitions", "errors"},
    "features": BASE | {"cluster"},
    "training": BASE | {"features", "cluster"},
    "tuning": BASE | {"features", "training", "cluster"},
    "evaluation": BASE | {"features", "training"},  # a backtest trains as a run does
    "registry": LEARNING,
    "serving": LEARNING | {"registry", "cluster"},
    "monitoring": LEARNING | {"registry", "cluster"},
    "scoring": LEARNING | {"registry", "serving"},
    "pipeline": LEARNING | {"tuning", "registry", "serving", "scoring", "monitoring", "cluster"},
    "cli": LEARNING | {"tuning", "registry", "serving", "scoring", "monitoring", "pipeline", "cluster"},
}

# What a replica loads: this module and all that it reaches.
REPLICA = "raypipe.serving.replica"
CONTROL_PLANE = {
    "raypipe.registry.tracking",
    "raypipe.registry.registered_model",
    "raypipe.registry.runs",
    "raypipe.registry.store",
    "mlflow",
    "sqlalchemy",
    "alembic",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The package under raypipe that a module belongs to."""
    return ([*module.split("."), "__init__"])[1]


@cache
def imported(source: str) -> set[str]:
    """Modules that a source text imports anywhere in it; `from a import b` names a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def version_only(source: str) -> bool:
    """`raypipe` itself, where it is imported, is asked for `__version__` and no other name."""
    tree = ast.parse(source)
    asked = {
        n.attr
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "raypipe"
    }
    taken = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "raypipe" for a in n.names}
    return (asked | taken) - set(ALLOWED) <= {"__version__"}


def wrong_imports(module: str, source: str) -> list[str]:
    """What `module` imports against the arrows."""
    here = room(module)
    relative = [name for name in imported(source) if name.startswith(".")]
    inside = {name for name in imported(source) if name.split(".")[0] == "raypipe" and room(name) in ALLOWED}
    return sorted([*relative, *(n for n in inside if room(n) not in ALLOWED[here] | {here, "__init__"})])


SOURCES = {module_name(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("module", SOURCES)
def test_arrows_point_one_way(module):
    assert room(module) in ALLOWED, f"say in this test what '{room(module)}' may import"
    assert wrong_imports(module, SOURCES[module]) == []
    assert room(module) == "cli" or version_only(SOURCES[module])


def test_every_import_of_raypipe_is_of_a_room_in_the_table():
    known = set(ALLOWED) | {"__version__"}
    named = {name for source in SOURCES.values() for name in imported(source) if name.startswith("raypipe.")}
    assert {room(name) for name in named} - known == set()


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("raypipe.features.spine", "from raypipe.data.split import PARTS", []),
        ("raypipe.features.spine", "import raypipe\nraypipe.__version__", []),
        (
            "raypipe.features.spine",
            "def f():\n    from raypipe.training import train",
            ["raypipe.training", "raypipe.training.train"],
        ),
        ("raypipe.features.spine", "from raypipe import serving", ["raypipe.serving"]),
        ("raypipe.data.split", "from ..features import spine", ["..features", "..features.spine"]),
        ("raypipe.cluster.settings", "import raypipe.project", ["raypipe.project"]),
        ("raypipe.pipeline.steps", "import raypipe.cli.main", ["raypipe.cli.main"]),
        ("raypipe", "from raypipe.project import load_project", ["raypipe.project", "raypipe.project.load_project"]),
    ],
)
def test_the_check_sees(module, source, wrong):
    assert wrong_imports(module, source) == wrong


def test_a_replica_does_not_reach_the_control_plane():
    assert REPLICA in SOURCES
    reached, ahead = set(), {REPLICA}
    while ahead:
        reached |= ahead
        ahead = {name for module in ahead if module in SOURCES for name in imported(SOURCES[module])} - reached
    assert "raypipe.registry.bundle" in reached
    assert {name for name in reached if any(name == c or name.startswith(f"{c}.") for c in CONTROL_PLANE)} == set()


HEAVY = ["ray", "xgboost", "mlflow", "sklearn", "matplotlib", "lmdb", "typer"]
LIGHT = """
import json, sys
import raypipe, raypipe.definitions, raypipe.project
project = raypipe.project.load_project(sys.argv[1])
project.definitions.digest()
print(json.dumps(sorted(set(sys.argv[2:]) & set(sys.modules))))
"""


def test_checking_a_project_imports_nothing_heavy(flights_folder):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, str(flights_folder), *HEAVY],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(done.stdout) == []


FEATURES = """
import json, sys
import raypipe.features.training_set, raypipe.features.point_in_time, raypipe.data.sources
print(json.dumps(sorted({"ray", "xgboost", "mlflow"} & set(sys.modules))))
"""


def test_the_local_plan_imports_no_ray():
    done = subprocess.run([sys.executable, "-c", FEATURES], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == []


EXPLAIN = """
import json, sys
import raypipe.evaluation.explain
print(json.dumps(sorted({"ray", "mlflow", "matplotlib", "lmdb", "raypipe.evaluation.metrics"} & set(sys.modules))))
"""


@pytest.mark.slow
def test_explaining_a_prediction_imports_no_evaluation():
    done = subprocess.run([sys.executable, "-c", EXPLAIN], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == []
