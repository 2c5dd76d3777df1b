import math

import pandas as pd
import pytest

from lpips_sat.errors import OutputExistsError, ResultsError
from sr_models.experiment.results import (
    CaseResults,
    check_replaceable,
    read_case_results,
    write_case_results,
)

ROW = {
    "model": "sr3",
    "case": "II",
    "seed": 1,
    "estimate": "sample",
    "split": "test",
    "patch": "r0_c0",
    "block": "0-0",
    "metric": "psnr",
    "value": 31.5,
}
ABOUT = {
    "table": "evaluation",
    "metrics": {"psnr": {"unit": "dB", "higher_is_better": True}},
    "seeds": [1],
}


def test_a_table_comes_back_as_it_was_with_its_provenance(tmp_path):
    path = tmp_path / "r.parquet"
    table = CaseResults.from_rows([ROW, ROW | {"metric": "x", "value": math.nan}], ABOUT)
    write_case_results(table, path)
    back = read_case_results(path)
    assert back.provenance == ABOUT
    assert back.table.iloc[0].to_dict() == ROW
    assert math.isnan(back.table["value"][1])


def test_nothing_is_overwritten_unasked(tmp_path):
    path = tmp_path / "r.parquet"
    path.write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        write_case_results(CaseResults.from_rows([ROW], ABOUT), path)
    assert path.read_bytes() == b"mine"


def test_other_names_missing_files_and_other_tables_are_refused(tmp_path):
    with pytest.raises(ResultsError, match=r"ends in \.parquet"):
        write_case_results(CaseResults.from_rows([ROW], ABOUT), tmp_path / "r.csv")
    with pytest.raises(ResultsError, match="no such file"):
        read_case_results(tmp_path / "r.parquet")
    (tmp_path / "r.parquet").write_bytes(b"PAR1")
    with pytest.raises(ResultsError, match="damaged"):
        read_case_results(tmp_path / "r.parquet")
    CaseResults.from_rows([ROW], ABOUT).table.to_parquet(tmp_path / "plain.parquet")
    with pytest.raises(ResultsError, match="not a table of the experiment"):
        read_case_results(tmp_path / "plain.parquet")


def test_a_table_is_taken_for_what_it_is_alone(tmp_path):
    def refusal(kind, **about):
        path = tmp_path / "r.parquet"
        write_case_results(CaseResults.from_rows([ROW], about), path, overwrite=True)
        with pytest.raises(ResultsError) as caught:
            read_case_results(path, kind)
        return str(caught.value).removeprefix(f"{path} is a table of ")

    assert refusal("evaluation", table="attribution") == (
        "`mindgap gap --attribute`, which `mindgap report RESULTS --gap` takes: expected one of "
        "`mindgap evaluate`"
    )
    assert refusal("attribution", table="evaluation") == (
        "`mindgap evaluate`, which `mindgap gap` and `mindgap report` take: expected one of "
        "`mindgap gap --attribute`"
    )
    for kind, command in (("evaluation", "evaluate"), ("attribution", "gap --attribute")):
        said = refusal(kind, metrics={})
        assert "an earlier version" in said
        assert said.endswith(f"make it again with `mindgap {command}`")


def test_only_a_table_of_the_same_kind_or_a_damaged_one_is_replaced(tmp_path):
    path = tmp_path / "r.parquet"
    check_replaceable(path, "attribution")  # nothing there
    write_case_results(CaseResults.from_rows([ROW], ABOUT), path)
    check_replaceable(path, "evaluation")
    with pytest.raises(ResultsError, match="no table of `mindgap gap --attribute` and is not repl"):
        check_replaceable(path, "attribution")
    pd.DataFrame({"id": ["a"]}).to_parquet(path)  # such as the manifest of a set
    with pytest.raises(ResultsError, match="is not replaced"):
        check_replaceable(path, "evaluation")
    write_case_results(CaseResults.from_rows([ROW], {"metrics": {}}), path, overwrite=True)
    check_replaceable(path, "attribution")  # of an earlier version, which is to be made again
    path.write_bytes(path.read_bytes()[:40])
    check_replaceable(path, "evaluation")
