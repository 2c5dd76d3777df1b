"""Tables of results survive every format, and a damaged one is one clear error."""

from __future__ import annotations

import csv
import json
import math

import pandas as pd
import pyarrow.parquet as pq
import pytest

from lpips_sat.errors import OutputExistsError, ResultsError
from lpips_sat.results import Results, read_results, write_results

PROVENANCE = {
    "version": "1",
    "metrics": {
        "PSNR": {"unit": "dB", "higher_is_better": True, "settings": {"data_range": 1.0}},
        "MAE": {"unit": "reflectance", "higher_is_better": False, "settings": {}},
    },
}
ROWS = [
    {
        "id": name,
        "pred": f"p/{name}.tif",
        "ref": f"r/{name}.tif",
        "scene": "0042",
        "status": status,
        "reason": reason,
        "pixels": pixels,
        "valid_share": share,
        "seconds": 0.25,
        "PSNR": psnr,
        "MAE": mae,
    }
    for name, status, reason, pixels, share, psnr, mae in [
        ("001", "ok", "", 4096, 1.0, math.inf, 0.0),
        ("002", "ok", "", 4096, 0.1 + 0.2, 31.4159265358979, 1e-17),
        ("inf", "ok", "", 4096, 1.0, math.nan, 0.5),
        ("nul,l", "failed", 'not a "raster"\n  grid: a, b', 0, math.nan, math.nan, math.nan),
    ]
]


def made(*, tiles=False):
    rows = [{**row, "row": 0, "col": 64, "height": 8, "width": 9} for row in ROWS]
    return Results.from_rows(rows if tiles else ROWS, PROVENANCE, tiles=tiles)


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("suffix", ["parquet", "csv", "json", "CSV"])
def test_every_value_survives_every_format(tmp_path, suffix, tiles):
    path = tmp_path / f"results.{suffix}"
    write_results(made(tiles=tiles), path)
    found = read_results(path)
    pd.testing.assert_frame_equal(found.table, made(tiles=tiles).table)
    assert found.provenance == PROVENANCE
    assert found.tiled is tiles
    assert list(found.scored["id"]) == ["001", "002", "inf"]
    assert list(found.failed["id"]) == ["nul,l"]


def test_other_programs_read_the_files(tmp_path):
    for suffix in ("parquet", "csv", "json"):
        write_results(made(), tmp_path / f"r.{suffix}")
    metadata = json.loads(pq.read_schema(tmp_path / "r.parquet").metadata[b"lpips_sat"])
    assert metadata == json.loads((tmp_path / "r.csv.json").read_text()) == PROVENANCE
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [row["id"] for row in ROWS]
    assert [row["PSNR"] for row in rows] == ["inf", "31.4159265358979", "", ""]

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    whole = json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)
    assert whole["lpips_sat"] == PROVENANCE
    assert [row["PSNR"] for row in whole["rows"]] == ["inf", 31.4159265358979, None, None]


def test_nothing_is_replaced_unless_told_to(tmp_path):
    for suffix in ("parquet", "csv", "json"):
        path = tmp_path / f"r.{suffix}"
        write_results(made(), path)
        with pytest.raises(OutputExistsError, match="--overwrite"):
            write_results(made(), path)
        write_results(made(), path, overwrite=True)
    (tmp_path / "lone.csv.json").touch()
    with pytest.raises(OutputExistsError):
        write_results(made(), tmp_path / "lone.csv")
    assert not (tmp_path / "lone.csv").exists()


@pytest.mark.parametrize("suffix", ["parquet", "csv", "json"])
def test_a_damaged_table_is_one_clear_error(tmp_path, suffix):
    path = tmp_path / f"r.{suffix}"
    write_results(made(), path)
    whole = path.read_bytes()
    for broken in (b"", whole[: len(whole) // 2], b"\x00\xff" * 200, b"[1, 2]"):
        path.write_bytes(broken)
        if suffix == "csv" and broken == whole[: len(whole) // 2]:
            continue  # half a CSV may be a CSV
        with pytest.raises(ResultsError, match="not a table of results"):
            read_results(path)


def test_what_is_no_table_is_said_so(tmp_path):
    with pytest.raises(ResultsError, match="no such file"):
        read_results(tmp_path / "none.csv")
    with pytest.raises(ResultsError, match=r"ends in \.parquet, \.csv, \.json"):
        read_results(tmp_path / "table.xlsx")
    with pytest.raises(ResultsError, match="ends in"):
        write_results(made(), tmp_path / "table")
    write_results(made(), tmp_path / "r.csv")
    (tmp_path / "r.csv.json").unlink()
    with pytest.raises(ResultsError, match=r"r\.csv\.json, which belongs to it, is missing"):
        read_results(tmp_path / "r.csv")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ResultsError, match="not a table of results"):
        read_results(tmp_path / "other.parquet")
