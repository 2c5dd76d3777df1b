from __future__ import annotations

import math

import numpy as np
import pytest

from lpips_sat.errors import ResultsError
from lpips_sat.stats import crossed_mean
from sr_models.experiment.results import CaseResults
from sr_models.experiment.summary import gap_of, mean_of, summarise

PATCHES = ["r0", "r1", "r2", "r3"]
BLOCKS = ["a", "a", "b", "c"]


def table(**values):
    """`I` = (seeds, patches) of values; seeds count from 0, patches are those above."""
    rows = [
        {
            "model": "sr3",
            "case": case,
            "seed": seed,
            "estimate": "sample",
            "split": "test",
            "patch": patch,
            "block": block,
            "metric": "psnr",
            "value": value,
        }
        for case, grid in values.items()
        for seed, row in enumerate(grid)
        if row is not None
        for patch, block, value in zip(PATCHES, BLOCKS, row, strict=True)
    ]
    return CaseResults.from_rows(rows[::-1], {})


def test_a_mean_has_the_interval_over_blocks_and_seeds():
    values = np.random.default_rng(0).normal(30, 1, (3, 4))
    found = mean_of(table(I=values), "sr3", "I", "psnr")
    of_values = crossed_mean(values, BLOCKS)
    assert (found.count, found.clusters, found.trainings) == (12, of_values.clusters, 3)
    ends = (values.mean(), of_values.low, of_values.high)
    assert (found.mean, found.low, found.high) == pytest.approx(ends)
    assert found.low < found.mean < found.high


def test_the_gap_is_paired_by_patch_and_matched_by_seed():
    one = np.random.default_rng(0).normal(30, 5, (2, 4))
    gap = gap_of(table(I=one, II=one - 2), "sr3", "psnr")
    assert (gap.mean, gap.low, gap.high) == pytest.approx((-2, -2, -2))
    # seed 1 exists in one case only and does not count
    gap = gap_of(table(I=one, II=[one[0] - 3, None]), "sr3", "psnr")
    assert (gap.mean, gap.count) == (pytest.approx(-3), 4)
    assert gap_of(table(III=one, IV=one + 1), "sr3", "psnr", cases=("III", "IV")).mean == (
        pytest.approx(-1)
    )


def test_undefined_and_infinite_values_have_their_rules():
    undefined = [[1.0, math.nan, 3.0, 5.0], [1.0, 2.0, 3.0, 5.0]]
    found = mean_of(table(I=undefined), "sr3", "I", "psnr")
    assert (found.mean, found.count, found.clusters) == (3.0, 6, 3)
    perfect = [[math.inf] * 4]
    found = mean_of(table(I=perfect), "sr3", "I", "psnr")
    assert found.mean == math.inf
    assert math.isnan(found.low)
    assert gap_of(table(I=perfect, II=perfect), "sr3", "psnr").mean == 0
    assert mean_of(table(I=[[math.nan] * 4]), "sr3", "I", "psnr").count == 0


def test_one_block_has_a_mean_and_no_interval():
    results = table(I=[[1.0, 2.0, 3.0, 4.0]])
    results.table["block"] = "a"
    found = mean_of(results, "sr3", "I", "psnr")
    assert found.mean == 2.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_every_number_is_summed_up_in_the_order_of_the_table():
    results = table(II=[[1.0] * 4] * 2, I=[[2.0] * 4])
    cells = summarise(results)
    assert [(cell.case, cell.seeds, cell.interval.mean) for cell in cells] == [
        ("I", 1, 2.0),
        ("II", 2, 1.0),
    ]


def test_what_is_not_there_is_named():
    results = table(I=[[1.0] * 4, None], II=[None, [1.0] * 4])
    with pytest.raises(ResultsError, match=r"no case 'III' .* only II, I"):
        mean_of(results, "sr3", "III", "psnr")
    with pytest.raises(ResultsError, match="no model 'flow'"):
        mean_of(results, "flow", "I", "psnr")
    with pytest.raises(ResultsError, match="no seed in common"):
        gap_of(results, "sr3", "psnr")
