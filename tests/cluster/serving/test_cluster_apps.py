"""The applications of others on the same cluster stay, and one project has its endpoint."""

from __future__ import annotations

import copy

import pytest
from ray import serve

from raypipe.errors import ClusterError
from raypipe.serving.cluster_apps import apply, forget, require_place
from raypipe.serving.deploy import deploy, deploy_document


def running() -> set[str]:
    return set(serve.status().applications)


@pytest.fixture
def other(flights, target, endpoint):
    """An application that somebody else has deployed under a route of its own."""
    document = copy.deepcopy(deploy_document(flights.project, target))
    [application] = document["applications"]
    application |= {"name": "other", "route_prefix": "/other"}
    apply(document)
    yield "other"
    if "other" in running():
        forget("other")


def test_ours_is_deployed_beside_it_and_taken_from_beside_it(flights, target, other, call):
    ours = flights.project.settings.name
    assert running() == {ours, other}
    deploy(flights.project, target)
    assert running() == {ours, other}
    forget(other)
    assert running() == {ours}
    assert call("GET", "/v2/health/ready").status == 200


def test_another_project_is_refused(flights, endpoint):
    serving = flights.project.settings.serving
    with pytest.raises(ClusterError, match="answers for another project") as refused:
        require_place("another", serving.host, serving.port)
    assert refused.value.got == flights.project.settings.name
