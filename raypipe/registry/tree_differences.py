"""Where two XGBoost models differ: in which tree and at which node first, and by how much in predictions. Pure.

Models are documents of XGBoost's JSON format:
https://xgboost.readthedocs.io/en/release_3.2.0/tutorials/saving_model.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from raypipe.registry.differences import Finding, compared

Model = Mapping[str, Any]


class Node(NamedTuple):
    """A node of a tree. `condition` is a split's threshold or a leaf's value; `categories` go to the right."""

    feature: int
    condition: float
    categories: tuple[int, ...]
    default_left: int
    left: int
    right: int
    hessian: float
    gain: float
    weight: float

    def words(self, features: list[str]) -> str:
        if self.left < 0:
            return f"leaf {self.condition!r}"
        name = features[self.feature] if self.feature < len(features) else f"feature {self.feature}"
        if self.categories:
            return f"{name} in {{{', '.join(map(str, self.categories))}}}"
        return f"{name} < {self.condition!r}"


def models(recorded: Model, rebuilt: Model, *, same_bytes: bool, apart: float | None, other_workers: bool) -> Finding:
    """Compare two models.

    same_bytes: their files are equal. apart: the largest difference of their predictions on the validation rows, None
    where they cannot be compared. other_workers: trees may differ for the number of workers that grew them, so a
    difference is noted, and the metric on validation decides.
    """
    words = [f"{len(trees_of(model))} trees" for model in (recorded, rebuilt)]
    if same_bytes:
        return compared("model", words[0], words[1], [])
    details = _differences(recorded, rebuilt)
    if apart is None:
        details.append("predictions cannot be compared: the features are others")
    else:
        details.append(f"predictions on the validation rows are at most {apart:.3g} apart")
    if other_workers:
        details.append("trees may differ: worker count changed")
    return compared("model", words[0], words[1], details, verdict="noted" if other_workers else "differs")


def trees_of(model: Model) -> list[dict[str, Any]]:
    trees: list[dict[str, Any]] = model["learner"]["gradient_booster"]["model"]["trees"]
    return trees


def nodes_of(tree: Mapping[str, Any]) -> list[Node]:
    """The tree's nodes by their number."""
    spans = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
    categories = {node: tuple(tree["categories"][start : start + size]) for node, start, size in spans}
    columns = zip(
        tree["split_indices"],
        tree["split_conditions"],
        (categories.get(node, ()) for node in range(len(tree["split_indices"]))),
        tree["default_left"],
        tree["left_children"],
        tree["right_children"],
        tree["sum_hessian"],
        tree["loss_changes"],
        tree["base_weights"],
        strict=True,
    )
    return [Node(*values) for values in columns]


def _differences(recorded: Model, rebuilt: Model) -> list[str]:
    before, after = trees_of(recorded), trees_of(rebuilt)
    shared = min(len(before), len(after))
    other = [n for n in range(shared) if before[n] != after[n]]
    details = [] if len(before) == len(after) else [f"{len(before)} trees -> {len(after)}"]
    if other:
        details.append(f"{len(other)} of {shared} trees differ, first tree {other[0]}")
        details.append(_first_node(before[other[0]], after[other[0]], _features(recorded), _features(rebuilt)))
    for part in ("base_score", "num_class"):
        old, new = (model["learner"]["learner_model_param"][part] for model in (recorded, rebuilt))
        if old != new:
            details.append(f"{part}: {old} -> {new}")
    return details or ["the same trees; other parts of the files differ"]


def _first_node(before: Mapping[str, Any], after: Mapping[str, Any], names: list[str], names_now: list[str]) -> str:
    old, new = nodes_of(before), nodes_of(after)
    pairs = enumerate(zip(old, new, strict=False))
    at = next((n for n, (one, other) in pairs if one != other), min(len(old), len(new)))
    if at >= min(len(old), len(new)):
        return f"node {at} is the first that differs: {len(old)} nodes -> {len(new)}"
    words = old[at].words(names), new[at].words(names_now)
    if words[0] == words[1]:
        parts = [
            f"{field} {a!r} -> {b!r}" for field, a, b in zip(Node._fields, old[at], new[at], strict=True) if a != b
        ]
        return f"node {at} is the first that differs: {words[0]}, {', '.join(parts)}"
    return f"node {at} is the first that differs: {words[0]} -> {words[1]}"


def _features(model: Model) -> list[str]:
    names: list[str] = model["learner"]["feature_names"]
    return names
