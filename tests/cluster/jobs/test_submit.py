"""The jobs on the session's cluster: the same steps, the same exit codes, and no work done twice."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from raypipe.cli.scaffold import scaffold
from raypipe.data.digest import digest_of_file
from raypipe.project import load_project
from raypipe.registry.tracking import Registry

JOBS = Path(__file__).parents[3] / "jobs"
ENDED = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """What is sent with a job: jobs/, and a project."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(JOBS, folder / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    scaffold(folder / "project")
    return folder


@pytest.fixture(scope="module")
def submit(cluster, checkout) -> Callable[..., Callable[[], SimpleNamespace]]:
    """Submit a job script; what comes back waits for its end."""
    client = JobSubmissionClient(cluster.dashboard)

    def start(script: str, *arguments: object, wait) -> Callable[[], SimpleNamespace]:
        command = [sys.executable, f"jobs/{script}.py", *arguments]
        name = client.submit_job(entrypoint=shlex.join(map(str, command)), runtime_env={"working_dir": str(checkout)})

        def end() -> SimpleNamespace:
            wait(lambda: client.get_job_status(name) in ENDED, what=f"the end of {script}", seconds=180)
            found = client.get_job_info(name)
            return SimpleNamespace(status=found.status, code=found.driver_exit_code, log=client.get_job_logs(name))

        return end

    return start


# ---- the steps, one job each -------------------------------------------------------------------


@pytest.fixture(scope="module")
def stepped(submit, wait, tmp_path_factory) -> SimpleNamespace:
    """A new project, taken to a champion by four jobs."""
    folder = tmp_path_factory.mktemp("stepped") / "project"
    scaffold(folder)
    given = [("features",), ("train",), ("evaluate",), ("promote", 1)]
    ends = {name: submit(name, *rest, "--project", folder, wait=wait)() for name, *rest in given}
    return SimpleNamespace(folder=folder, **ends)


@pytest.mark.parametrize("step", ["features", "train", "evaluate", "promote"])
def test_a_step(stepped, step):
    job = getattr(stepped, step)
    assert job.status == JobStatus.SUCCEEDED, job.log
    assert job.code == 0


def test_the_steps_make_a_champion(stepped):
    champion = Registry(load_project(stepped.folder)).champion()
    assert champion.version == 1
    assert champion.verdict == "pass"


def test_a_job_trains_the_model_that_the_command_line_trains(stepped, newcomer):
    [job], [command] = ([*f.glob(".raypipe/runs/*/attempt-*/model.ubj")] for f in (stepped.folder, newcomer.folder))
    assert digest_of_file(job) == digest_of_file(command)


# ---- as README.md says -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def submitted(cluster, environment, checkout, stepped, tmp_path_factory) -> SimpleNamespace:
    """`ray job submit --working-dir . -- python jobs/run.py`, the project in the checkout, its storage shared: the steps
    have been done there."""
    shared = tmp_path_factory.mktemp("shared")
    shutil.copytree(stepped.folder / ".raypipe", shared / "slow-delivery")
    variables = {"env_vars": {"RAYPIPE_STORAGE": str(shared)}}
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ray"), "job", "submit", "--address", cluster.dashboard,
            "--working-dir", ".", "--runtime-env-json", json.dumps(variables),
            "--", sys.executable, "jobs/run.py", "--project", "project",
        ],
        cwd=checkout, env=environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    return SimpleNamespace(done=done, storage=shared / "slow-delivery")


def test_the_command_succeeds(submitted):
    assert submitted.done.returncode == 0, submitted.done.stdout + submitted.done.stderr
    assert "version 1 is champion" in submitted.done.stdout


def test_everything_in_the_shared_storage_is_reused(submitted, stepped, monkeypatch):
    for step in ("contracts", "features", "training", "evaluation", "registry", "promotion"):
        [line] = [line for line in submitted.done.stdout.splitlines() if line.startswith(step)]
        assert "reused" in line
    for kind in ("bundles/*/bundle.json", "runs/*/manifest.json", "evaluations/*/manifest.json"):
        assert len([*submitted.storage.glob(kind)]) == 1
    before = Registry(load_project(stepped.folder)).versions()
    monkeypatch.setenv("RAYPIPE_STORAGE", str(submitted.storage.parent))
    assert Registry(load_project(stepped.folder)).versions() == before


# ---- refusals ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refused(submit, wait, trained) -> SimpleNamespace:
    """Jobs that are refused for one reason each, at once; what else is refused, and how, is the command line's."""
    gate = trained(evaluation__gate=["roc_auc >= 0.99"])
    ends = {
        "gate": submit("run", "--project", gate, wait=wait),
        "storage": submit("run", "--project", "project", wait=wait),
    }
    return SimpleNamespace(folder=gate, jobs={name: end() for name, end in ends.items()})


@pytest.mark.parametrize(
    ("reason", "code", "words"), [("gate", 3, "roc_auc >= 0.99: 0.77"), ("storage", 2, "set RAYPIPE_STORAGE")]
)
def test_a_refusal(refused, reason, code, words):
    job = refused.jobs[reason]
    assert job.status == JobStatus.FAILED
    assert job.code == code, job.log
    assert words in job.log
    assert "Traceback" not in job.log


def test_a_gate_that_refuses_makes_no_version(refused):
    registry = Registry(load_project(refused.folder))
    assert registry.versions() == []
    assert registry.champion() is None
