"""The table of results, read and written in one place: Parquet, CSV or JSON.

One row per image, or per tile: which pair it is, whether it was scored, and one column per metric.
Everything that the numbers depend on travels with them, as one JSON object: in Parquet under the
key ``lpips_sat`` of the schema's metadata, in JSON as the sibling ``lpips_sat`` of ``rows``, for a
CSV in ``FILE.csv.json`` beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from .errors import ResultsError, one_line
from .outputs import StrPath, check_output, whole_file

if TYPE_CHECKING:
    import pyarrow as pa

KEY = "lpips_sat"
SUFFIXES = (".parquet", ".csv", ".json")
OK, FAILED = "ok", "failed"
# Share of pixels that may not count before a row is worth a look.
MAX_INVALID = 0.1
# Columns before those of the metrics, with Arrow's names of their types.
COLUMNS = {
    "id": "string",  # names the pair; the same in the tables of several methods
    "pred": "string",
    "ref": "string",
    "mask": "string",  # empty where there is none
    "scene": "string",  # the cluster: rows of one scene are not independent
    "status": "string",  # OK or FAILED
    "reason": "string",  # why it failed; empty if it did not
    "pixels": "int64",
    "valid_share": "float64",
    "seconds": "float64",
    "shift_dy": "float64",  # how far the prediction lies from the reference, in pixels down ...
    "shift_dx": "float64",  # ... and right; null where nothing could be estimated
    "shift_reliability": "float64",  # in [0, 1], see lpips_sat.registration.Shift
    "alignment": "string",  # JSON: what was done to the prediction; empty if nothing
    "warning": "string",  # empty if there is none
}
TILE_COLUMNS = {"row": "int64", "col": "int64", "height": "int64", "width": "int64"}
# The provenance keeps checksums of the files in these roles.
CONTENTS = {"references": "ref", "masks": "mask", "lr_images": "lr"}


@dataclass(frozen=True)
class Results:
    """A table of results with its provenance.

    table: columns `COLUMNS`, `TILE_COLUMNS` if it is one of tiles, then the metrics by their
    names; a failed row has 0 pixels and no scores; NaN = not defined.
    provenance: versions, options, radiometry, number of pairs and, under "metrics", each metric's
    unit, direction and settings.
    """

    table: pd.DataFrame
    provenance: dict[str, Any]

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Per metric, in the table's order: `unit`, `higher_is_better`, `settings`."""
        found: dict[str, dict[str, Any]] = self.provenance["metrics"]
        return found

    @property
    def tiled(self) -> bool:
        """Whether the rows are tiles."""
        return "row" in self.table

    @property
    def scored(self) -> pd.DataFrame:
        """The rows that did not fail."""
        return self.table[self.table["status"] == OK]

    @property
    def failed(self) -> pd.DataFrame:
        """The rows that failed."""
        return self.table[self.table["status"] == FAILED]

    @property
    def lacking(self) -> pd.DataFrame:
        """The scored rows of which more than `MAX_INVALID` does not count, the worst first."""
        rows = self.scored
        return rows[rows["valid_share"] < 1 - MAX_INVALID].sort_values("valid_share")

    @classmethod
    def from_rows(
        cls, rows: Sequence[dict[str, Any]], provenance: dict[str, Any], *, tiles: bool = False
    ) -> Results:
        """Make a table of rows; what a row does not have is empty text, or null."""
        import pyarrow as pa

        schema = _schema(list(provenance["metrics"]), tiles=tiles)
        empty = {name: "" for name, kind in COLUMNS.items() if kind == "string"}
        return cls(
            pa.Table.from_pylist([empty | row for row in rows], schema).to_pandas(), provenance
        )


def check_results_output(path: StrPath, *, overwrite: bool) -> None:
    """Refuse a name that no table can be written to, before the work is done."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ResultsError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
    for target in table_files(path):
        check_output(target, overwrite=overwrite)


def write_results(results: Results, path: StrPath, *, overwrite: bool = False) -> None:
    """Write a table in the format that the name's suffix says, whole or not at all."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    check_results_output(path, overwrite=overwrite)
    schema = _schema(list(results.metrics), tiles=results.tiled)
    table = pa.Table.from_pandas(results.table, schema, preserve_index=False)  # NaN becomes null
    with ExitStack() as stack:
        target, *sidecar = [
            stack.enter_context(whole_file(name, overwrite=overwrite)) for name in table_files(path)
        ]
        if sidecar:
            sidecar[0].write_text(_dumps(results.provenance), encoding="utf-8")
            csv.write_csv(table, target)
        elif Path(path).suffix.lower() == ".json":
            both = {KEY: results.provenance, "rows": [_plain(row) for row in table.to_pylist()]}
            target.write_text(_dumps(both), encoding="utf-8")
        else:
            metadata = {KEY: json.dumps(results.provenance)}
            parquet.write_table(table.replace_schema_metadata(metadata), target)


def read_results(path: StrPath) -> Results:
    """Read a table that `write_results` wrote.

    Raises:
        ResultsError: the file is missing, damaged, or not a table of results.
    """
    import pyarrow as pa

    source = Path(path)
    if source.suffix.lower() not in SUFFIXES:
        raise ResultsError(f"{source}: expected a name that ends in {', '.join(SUFFIXES)}")
    if not source.is_file():
        raise ResultsError(f"{source}: no such file")
    try:
        return _read(source)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        reason = one_line(error)
        raise ResultsError(
            f"{source} is not a table of results, or it is damaged ({reason}): expected what "
            "`lpips-sat score ... --out FILE` writes"
        ) from error


def _read(source: Path) -> Results:
    from pyarrow import csv, parquet

    if source.suffix.lower() == ".json":
        both = json.loads(source.read_text(encoding="utf-8"))
        provenance, rows = both[KEY], both["rows"]
        tiles = any("row" in row for row in rows)
        return Results.from_rows([_numbers(row) for row in rows], provenance, tiles=tiles)
    if source.suffix.lower() == ".csv":
        sidecar = table_files(source)[1]
        if not sidecar.is_file():
            raise ResultsError(f"{source}: {sidecar.name}, which belongs to it, is missing")
        provenance = json.loads(sidecar.read_text(encoding="utf-8"))
        kinds = _schema(list(provenance["metrics"]), tiles=True)
        table = csv.read_csv(
            source,
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=kinds, strings_can_be_null=False),
        )
    else:
        table = parquet.read_table(source)
        provenance = json.loads((table.schema.metadata or {})[KEY.encode()])
    schema = _schema(list(provenance["metrics"]), tiles="row" in table.column_names)
    return Results(table.select(schema.names).cast(schema).to_pandas(), provenance)


def table_files(path: StrPath) -> list[Path]:
    """Name the files that a table consists of: a CSV has its provenance beside it."""
    target = Path(path)
    sidecar = [target.with_name(f"{target.name}.json")]
    return [target, *(sidecar if target.suffix.lower() == ".csv" else [])]


def _schema(metrics: Sequence[str], *, tiles: bool) -> pa.Schema:
    import pyarrow as pa

    columns = COLUMNS | (TILE_COLUMNS if tiles else {}) | dict.fromkeys(metrics, "float64")
    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row for JSON, which has no infinity: "inf" stands for it."""
    return {k: str(v) if isinstance(v, float) and math.isinf(v) else v for k, v in row.items()}


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    """Undo `_plain`, in the columns that hold numbers."""
    text = {name for name, kind in COLUMNS.items() if kind == "string"}
    return {k: float(v) if isinstance(v, str) and k not in text else v for k, v in row.items()}


def _dumps(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"
