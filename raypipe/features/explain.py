"""What building features will read and do, before anything is done; and what it did, by view, afterwards. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from raypipe.data.publish import Output
from raypipe.definitions import Definitions, FeatureView, LatestView
from raypipe.features.partitions import Partition, Sources, in_batches, reaching


def explain(
    definitions: Definitions,
    sources: Sources,
    wanted: Sequence[Partition],
    missing: Sequence[Partition],
    *,
    most_rows: int,
    as_of: datetime | None,
) -> dict[str, Any]:
    """Sources with rows, files and bytes; partitions wanted and missing; batches; and what each view will read."""
    batches = in_batches(missing, definitions, sources, most_rows, as_of)
    return {
        "sources": {
            name: {
                "files": len(source.parts),
                "rows": source.rows,
                "bytes": sum(part.size_bytes for part in source.parts),
            }
            for name, source in sources.items()
        },
        "partitions": {
            "wanted": [partition.name for partition in wanted],
            "missing": [partition.name for partition in missing],
            "batches": len(batches),
        },
        "spine_rows": sum(partition.rows for partition in missing),
        "views": {
            view.name: _reads(view, sources, batches, as_of)
            for view in definitions.views
            if isinstance(view, FeatureView | LatestView)
        },
    }


def _reads(
    view: FeatureView | LatestView, sources: Sources, batches: list[list[Partition]], as_of: datetime | None
) -> dict[str, Any]:
    source = sources[view.source.name]
    reached = [reaching(view, source, batch[0].start, batch[-1].end, as_of) for batch in batches]
    return {
        "source": view.source.name,
        "entity": list(view.entity),
        "features": len(view.features()),
        "files": sum(len(parts) for parts in reached),
        "rows": sum(part.rows for parts in reached for part in parts),
        "bytes": sum(part.size_bytes for parts in reached for part in parts),
    }


def by_view(definitions: Definitions, outputs: Sequence[Output]) -> dict[str, Any]:
    """Of built partitions, for each view: rows, seconds that it took (0 for what needs the row alone), share of nulls
    over its features, and bytes in memory."""
    found: dict[str, Any] = {}
    features = definitions.features_by_view()
    rows = sum(output.manifest["rows"] for output in outputs)
    for view, names in features.items():
        told = [output.manifest["features"][name] for output in outputs for name in names]
        found[view] = {
            "features": len(names),
            "rows": rows,
            "seconds": round(sum(output.manifest["seconds"].get(view, 0.0) for output in outputs), 2),
            "null_share": round(sum(one["nulls"] for one in told) / max(rows * len(names), 1), 4),
            "bytes": sum(one["bytes"] for one in told),
        }
    return found
