"""The table of the experiment: one row per model, case, seed, patch and metric, in Parquet.

Everything the numbers depend on travels with them as one JSON object, under the key ``mindgap`` of
the Parquet schema: versions, the set and its sizes, seeds, hyper-parameters, hashes of weights.
Its entry "table" is one of `COMMANDS`: which of the two tables of that shape this is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lpips_sat.errors import ResultsError, one_line
from lpips_sat.outputs import StrPath, check_output, whole_file

KEY = "mindgap"
EVALUATION, ATTRIBUTION = "evaluation", "attribution"
# What a table may be, with the command that writes it and what takes it.
COMMANDS = {
    EVALUATION: ("`mindgap evaluate`", "`mindgap gap` and `mindgap report` take"),
    ATTRIBUTION: ("`mindgap gap --attribute`", "`mindgap report RESULTS --gap` takes"),
}
# Columns with Arrow's names of their types.
COLUMNS = {
    "model": "string",  # such as "sr3", or a control: "bicubic"
    "case": "string",  # "I" to "IV", see sr_models.experiment.cases
    "seed": "int64",  # of the training; 0 for what was not trained here
    "estimate": "string",  # "sample": one sample; "mean": the mean of several
    "split": "string",  # "test", or "test_untextured", which is reported apart
    "patch": "string",  # the tile of the set
    "block": "string",  # the cluster: patches of one block are not independent
    "metric": "string",
    "value": "float64",  # null where it is not defined
}


def named(model: str) -> str:
    """A model as tables call it: the folder `runs/x/` is `runs/x`.

    A folder beside the command, `sr3/`, keeps its slash, which says that it is no model by name.
    """
    bare = model.rstrip("/")
    return bare if "/" in bare else model


@dataclass(frozen=True)
class CaseResults:
    """A table with the columns `COLUMNS`, and its provenance.

    provenance: under "metrics" each metric's `unit` and `higher_is_better`; the rest is what the
    module says.
    """

    table: pd.DataFrame
    provenance: dict[str, Any]

    @classmethod
    def from_rows(cls, rows: Sequence[dict[str, Any]], provenance: dict[str, Any]) -> CaseResults:
        """Make a table of rows that have every column."""
        import pyarrow as pa

        return cls(pa.Table.from_pylist(list(rows), _schema()).to_pandas(), provenance)


def trained(model: str, regime: str, seed: int) -> str:
    """What the provenance calls the weights of a training."""
    return f"{model} {regime} {seed}"


def untrained(model: str, tested: str) -> str:
    """What the provenance calls a model that came as it was tested: its images may differ."""
    return f"{model} on {tested}"


def write_case_results(results: CaseResults, path: StrPath, *, overwrite: bool = False) -> None:
    """Write a table to a Parquet file, whole or not at all."""
    import pyarrow as pa
    from pyarrow import parquet

    if Path(path).suffix.lower() != ".parquet":
        raise ResultsError(f"{path}: expected a name that ends in .parquet")
    check_output(path, overwrite=overwrite)
    table = pa.Table.from_pandas(results.table, _schema(), preserve_index=False)
    metadata = {KEY: json.dumps(results.provenance)}
    with whole_file(path, overwrite=overwrite) as part:
        parquet.write_table(table.replace_schema_metadata(metadata), part)


def read_case_results(path: StrPath, kind: str = EVALUATION) -> CaseResults:
    """Read a table that `write_case_results` wrote.

    Raises:
        ResultsError: the file is missing, damaged, not such a table, or the other `kind` of it.
    """
    import pyarrow as pa
    from pyarrow import parquet

    if not Path(path).is_file():
        raise ResultsError(f"{path}: no such file; {COMMANDS[kind][0]} makes it")
    try:
        table = parquet.read_table(path)
        provenance = json.loads((table.schema.metadata or {})[KEY.encode()])
        frame = table.select(list(COLUMNS)).cast(_schema()).to_pandas()
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = one_line(error)
        raise ResultsError(
            f"{path} is not a table of the experiment, or it is damaged ({reason}): expected what "
            f"{COMMANDS[kind][0]} writes"
        ) from error
    _check_kind(path, provenance.get("table"), kind)
    return CaseResults(frame, provenance)


def check_replaceable(path: StrPath, kind: str = EVALUATION) -> None:
    """Refuse to replace a Parquet file that is not a table of this kind.

    A damaged file, and a table of an earlier version, may be replaced.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        metadata = parquet.read_schema(path).metadata or {}
        about = json.loads(metadata[KEY.encode()]) if KEY.encode() in metadata else None
    except (pa.ArrowException, OSError, ValueError):
        return
    if not isinstance(about, dict) or about.get("table", kind) != kind:
        raise ResultsError(
            f"{path} is no table of {COMMANDS[kind][0]} and is not replaced: choose another name"
        )


def _check_kind(path: StrPath, found: Any, wanted: str) -> None:
    command, _ = COMMANDS[wanted]
    if found not in COMMANDS:
        raise ResultsError(
            f"{path} is a table of an earlier version, which does not say what its synthetic "
            f"images were: make it again with {command}"
        )
    if found != wanted:
        made, taken = COMMANDS[found]
        raise ResultsError(f"{path} is a table of {made}, which {taken}: expected one of {command}")


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])
