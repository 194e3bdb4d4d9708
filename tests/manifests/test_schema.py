from __future__ import annotations

import pyarrow as pa
import pytest

from manifests import schema
from manifests.errors import ContractError
from manifests.schema import check_table, field, layer_schema, required, table_of

PAIR = pa.schema([required("key", pa.string(), "a key"), field("score", pa.float32(), "a score")])
TABLES = {name: value for name, value in vars(schema).items() if isinstance(value, pa.Schema)}


def pair(**columns: pa.Array) -> pa.Table:
    return pa.table({"key": pa.array(["a"]), "score": pa.array([1.0], pa.float32())} | columns)


def test_a_fitting_table_gets_the_declared_order_and_descriptions() -> None:
    checked = check_table(pair().select(["score", "key"]), PAIR, "t")
    assert checked.schema.equals(PAIR, check_metadata=True)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (pair().drop(["score"]), r"missing \['score'\]"),
        (pair(extra=pa.array([1])), r"undeclared \['extra'\]"),
        (pair(score=pa.array([1.0], pa.float64())), "'score' is double"),
        (pair(key=pa.array([None], pa.string())), "'key' has 1 nulls"),
    ],
)
def test_what_does_not_fit_is_named(table: pa.Table, complaint: str) -> None:
    with pytest.raises(ContractError, match=complaint):
        check_table(table, PAIR, "t")


def test_rows_may_lack_nullable_keys_only() -> None:
    assert table_of([{"key": "a"}], PAIR).column("score").to_pylist() == [None]
    assert table_of([], PAIR).num_rows == 0
    with pytest.raises(ContractError, match="'key' has 1 nulls"):
        table_of([{"score": 1.0}], PAIR)
    with pytest.raises(ContractError, match="undeclared columns \\['other'\\]"):
        table_of([{"key": "a", "other": 1}], PAIR)


def test_layers_begin_with_the_keys_and_add_nullable_columns() -> None:
    layer = layer_schema(pa.schema([PAIR.field("score")]))
    assert layer.names == ["clip_id", "status", "error", "score"]


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_column_is_described(name: str) -> None:
    for column in TABLES[name]:
        assert column.metadata, column.name
        assert column.metadata[b"description"].strip(), column.name
