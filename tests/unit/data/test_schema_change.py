from __future__ import annotations

import polars as pl
import pytest

from raypipe.data.schema_change import refused_changes, schema_changes
from raypipe.errors import DataContractError


def schema(**columns: str) -> dict[str, dict[str, object]]:
    """Columns by name; a type that ends in `!` may not be null."""
    return {name: {"type": t.rstrip("!"), "nullable": not t.endswith("!")} for name, t in columns.items()}


OLD = schema(a="int64", b="string!", c="double")


@pytest.mark.parametrize(
    ("new", "words", "refused"),
    [
        (schema(a="int64", b="string!", c="double"), [], []),
        (schema(c="double", b="string!", a="int64"), [], []),
        (schema(a="int64", b="string!", c="double", d="bool"), ["column 'd' was added: bool"], []),
        (schema(a="int64", b="string!"), ["column 'c' was removed"], []),
        (schema(b="string!", c="double"), ["column 'a' was removed"], [0]),
        (schema(a="int32", b="string!", c="double"), ["column 'a' changed its type from int64 to int32"], [0]),
        (schema(a="int64", b="string!", c="float"), ["column 'c' changed its type from double to float"], []),
        (schema(a="int64", b="string", c="double"), ["column 'b' can now be null"], [0]),
        (schema(a="int64!", b="string!", c="double"), ["column 'a' can no longer be null"], []),
        (
            schema(a="int32!", c="double", z="bool"),
            [
                "column 'a' changed its type from int64 to int32",
                "column 'a' can no longer be null",
                "column 'b' was removed",
                "column 'z' was added: bool",
            ],
            [0, 2],
        ),
    ],
)
def test_changes_in_words(new, words, refused):
    assert schema_changes(OLD, new) == words
    assert refused_changes(OLD, new, {"a", "b"}) == [words[at] for at in refused]


def changed(folder, tables, *columns: pl.Expr) -> None:
    tables["visits"].with_columns(*columns).write_parquet(folder / "days/0.parquet")


def test_an_added_column_is_a_note_once(spread, visits_of, tables):
    folder = spread({"0": tables["visits"]})
    assert visits_of(folder).warnings == []
    changed(folder, tables, pl.lit(1).alias("more"))
    assert visits_of(folder).warnings == ["column 'more' was added: int32"]
    assert visits_of(folder).warnings == []


TYPED = [("bought = dy.Bool(nullable=True)", "bought = dy.Bool(nullable=True)\n    n = dy.Int64(nullable=True)")]


@pytest.mark.parametrize("answer", ["refuse", "allow"])
def test_a_column_of_the_contract_changes_only_where_it_is_allowed(spread, visits_of, tables, answer):
    rows = tables["visits"].with_columns(n=pl.lit(1, pl.Int64))
    visits_of(spread({"0": rows}, edits=TYPED))
    edits = [(TYPED[0][0], TYPED[0][1].replace("Int64", "Int32"))]
    settings = {"sources.visits.contract.on_schema_change": answer}
    folder = spread({"0": rows.cast({"n": pl.Int32})}, edits=edits, settings=settings)
    words = "column 'n' changed its type from int64 to int32"
    if answer == "allow":
        assert visits_of(folder).warnings == [words]
        return
    with pytest.raises(DataContractError, match="1 columns of the contract have changed") as caught:
        visits_of(folder)
    assert (caught.value.got, caught.value.exit_code) == (words, 4)


def test_an_old_snapshot_is_found_again_whatever_came_after(spread, visits_of, tables):
    folder = spread({"0": tables["visits"]})
    first = visits_of(folder)
    changed(folder, tables, pl.lit(1).alias("more"))
    visits_of(folder)
    changed(folder, tables)
    again = visits_of(folder)
    assert (again.digest, again.reused) == (first.digest, True)
