"""`raypipe init`: a project that runs, with a small made-up table of deliveries."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from raypipe.errors import ConfigurationError

TEMPLATE = Path(__file__).parent / "templates" / "project"
NAMES = {"gitignore.template": ".gitignore"}  # a dot file would be left out of a package
ROWS = 12_000
START = datetime(2025, 1, 1, tzinfo=UTC)
DAYS = 180


def scaffold(folder: Path) -> list[str]:
    """Fill `folder`; returns the files made. Raises ConfigurationError if there is something in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError("the folder is not empty", where=str(folder), hint="name a new one")
    try:
        (folder / "data").mkdir(parents=True)
    except OSError as error:
        raise ConfigurationError("the folder cannot be made", where=str(folder), got=error.strerror) from None
    for template in sorted(TEMPLATE.iterdir()):
        if template.is_file():
            shutil.copyfile(template, folder / NAMES.get(template.name, template.name.removesuffix(".template")))
    deliveries().write_parquet(folder / "data" / "deliveries.parquet")
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def deliveries() -> pl.DataFrame:
    """Made-up deliveries: some couriers are slow, and a slow day of a shop lasts for hours. The same every time."""
    rng = np.random.default_rng(7)
    ordered_s = np.sort(rng.integers(0, DAYS * 86_400, ROWS))
    shop, courier = rng.integers(0, 12, ROWS), rng.integers(0, 60, ROWS)
    distance = rng.gamma(2.0, 1.6, ROWS).clip(0.2, 15.0)
    busy = rng.normal(0, 6, (12, DAYS * 4))[shop, ordered_s // 21_600]
    slowness = rng.normal(0, 4, 60)[courier]
    minutes = (18 + 2.2 * distance + busy + slowness + rng.exponential(6, ROWS)).clip(5, 180)
    failed = rng.random(ROWS) < 0.01
    ordered = pl.Series([START + timedelta(seconds=int(s)) for s in ordered_s], dtype=pl.Datetime("us", "UTC"))
    return pl.DataFrame(
        {
            "order_id": np.arange(ROWS),
            "shop": [f"shop-{i:02d}" for i in shop],
            "courier": [f"courier-{i:02d}" for i in courier],
            "distance_km": distance.round(2),
            "ordered_at": ordered,
            "minutes": pl.Series(minutes.round(1)).set(pl.Series(failed), None),
        }
    )
