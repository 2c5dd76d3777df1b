"""Tables and sentences say what the table of the experiment was made of."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from lpips_sat.stats import crossed_mean
from sr_models.experiment.curves import Curve
from sr_models.experiment.results import CaseResults
from sr_models.report import findings, shares_of, tables
from sr_models.report.content import Table, Text, escaped, fixed, markdown, signed
from sr_models.report.findings import limits
from sr_models.report.numbers import Numbers
from sr_models.report.ranks import agreements, kendall, ranks
from sr_models.report.sections import attribution as section
from sr_models.report.sections import curves_table, share_table
from sr_models.report.tables import cases_table, cost_table, gap_table

from .conftest import HOSTILE, LOOKS, PATCHES, PSNR, SHARES, cell

ORDER = ["bicubic", "regression", "sr3", HOSTILE, "ceiling"]
MINUS = "\N{MINUS SIGN}"


def texts(table):
    """Rows by the name of their model."""
    return {row[0].value: row[1:] for row in table.rows}


def test_means_of_the_four_cases_are_the_truth_controls_first_the_ceiling_last(numbers):
    for metric, truth, digits in (("psnr", PSNR, 2), ("lpips-sat", LOOKS, 3)):
        found = cases_table(numbers, metric)
        assert [row[0].value for row in found.rows] == ORDER
        assert [head.value for head in found.columns] == ["model", "I", "II", "III", "IV"]
        for model, (first, *added) in truth.items():
            expected = [f"{first + change:.{digits}f}" for change in (0.0, *added)]
            assert [text.value for text in texts(found)[model]] == expected


def test_an_interval_is_that_of_blocks_and_trainings(numbers, results):
    rows = results.table
    rows = rows[(rows["model"] == "sr3") & (rows["case"] == "II") & (rows["metric"] == "psnr")]
    values = rows.pivot(index="seed", columns="patch", values="value")
    blocks = [dict(PATCHES)[patch] for patch in values.columns]
    found = crossed_mean(values.to_numpy(), blocks)
    small = texts(cases_table(numbers, "psnr"))["sr3"][1].small
    assert small == f"{found.low:.2f} to {found.high:.2f}"


def test_gaps_are_the_truth_and_bold_where_they_leave_out_0(numbers):
    found = gap_table(numbers, "psnr")
    heads = [head.value for head in found.columns]
    assert heads == [
        "model",
        *(f"{a} {MINUS} {b}" for a, b in (("II", "I"), ("III", "II"), ("III", "I"), ("IV", "I"))),
        "effect",
    ]
    for model, (_, two, three, four) in PSNR.items():
        expected = [signed(x, 2) for x in (two, three - two, three, four)]
        assert [text.value for text in texts(found)[model][:4]] == expected
    assert [text.strong for text in texts(found)["sr3"][:4]] == [True] * 4
    assert not any(text.strong for text in texts(found)["ceiling"])


def test_the_effect_is_the_gap_over_its_spread_between_patches(numbers, results):
    rows = results.table
    rows = rows[(rows["model"] == "sr3") & (rows["metric"] == "psnr")]
    grid = rows.pivot_table(index="patch", columns="case", values="value", aggfunc="mean")
    gaps = (grid["II"] - grid["I"]).to_numpy()
    assert numbers.effect("sr3", "psnr") == pytest.approx(gaps.mean() / gaps.std(ddof=1))
    assert math.isnan(numbers.effect("ceiling", "psnr"))


def test_shares_are_what_each_factor_was_made_to_take(numbers, attribution):
    shares = shares_of(attribution)
    found = texts(share_table(numbers, "psnr", shares))
    for model in ("bicubic", "sr3", HOSTILE):
        expected = [*SHARES.values(), sum(SHARES.values())]
        assert [text.value for text in found[model]] == [signed(x, 2) for x in expected]
        parts = shares[model, "psnr"]
        assert sum(parts[k].mean for k in SHARES) == pytest.approx(parts["gap"].mean, abs=1e-9)


def test_places_admit_ties(numbers):
    assert ranks(numbers, "I", "psnr") == {
        "regression": (1, 1),
        HOSTILE: (2, 2),
        "sr3": (3, 3),
        "bicubic": (4, 4),
    }
    assert ranks(numbers, "I", "lpips-sat")["sr3"] == (1, 1)
    rng = np.random.default_rng(0)
    rows = [
        cell(model, "I", 0, "psnr", patch, mean + rng.standard_normal())
        for model, mean in (("a", 30), ("b", 30), ("c", 20))
        for patch, _ in PATCHES
    ]
    facts = {"metrics": {"psnr": {"unit": "dB", "higher_is_better": True}}}
    tied = Numbers(CaseResults.from_rows(rows, facts))
    assert ranks(tied, "I", "psnr") == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}
    assert agreements(tied) == []  # no LPIPS-Sat in the table


def test_contradictions_of_psnr_and_lpips_sat_are_counted(numbers):
    found = agreements(numbers)[0]
    pairs = {frozenset((one.first, one.second)) for one in found.contradictions}
    assert pairs == {
        frozenset(pair)
        for pair in (("regression", "sr3"), ("regression", HOSTILE), ("sr3", HOSTILE))
    }
    assert (found.pairs, found.alike, found.tau) == (6, 3, 0)
    (one,) = [c for c in found.contradictions if {c.first, c.second} == {"regression", "sr3"}]
    assert one.fidelity.mean == pytest.approx(1.0)
    assert one.perception.mean == pytest.approx(0.15)


def test_kendalls_tau_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.standard_normal((2, 7))
        assert kendall(a, b) == pytest.approx(kendalltau(a, b).statistic)


def made_of(*, apart, trainings, cases=("I",), metrics=("psnr", "lpips-sat"), models=3):
    """Equal blocks; models differ by `apart` a step, their trainings by `trainings` (spread)."""
    rng, rows = np.random.default_rng(5), []
    facts = {m: {"unit": "", "higher_is_better": m == "psnr"} for m in metrics}
    for case in cases:
        for number in range(models):
            for seed in range(3):
                shift = trainings * rng.standard_normal()
                for patch, _ in PATCHES:
                    noise = 0.01 * rng.standard_normal()
                    for metric in metrics:
                        value = 30 + number * apart + shift + noise
                        rows.append(cell(f"m{number}", case, seed, metric, patch, value))
    return Numbers(CaseResults.from_rows(rows, {"metrics": facts}))


def test_models_whose_trainings_differ_as_much_are_not_told_apart():
    """Blocks alone would tell them apart: every block says the same."""
    sure, unsure = made_of(apart=1.0, trainings=0.01), made_of(apart=1.0, trainings=2.0)
    assert ranks(sure, "I", "psnr") == {"m2": (1, 1), "m1": (2, 2), "m0": (3, 3)}
    assert set(ranks(unsure, "I", "psnr").values()) == {(1, 3)}
    assert len(agreements(sure)[0].contradictions) == 3
    assert agreements(unsure)[0].contradictions == []
    said = findings(sure.results), findings(unsure.results)
    assert "Yes. There are 3 comparisons" in said[0]
    assert "Not established. There are 3 comparisons" in said[1]


def test_equal_models_are_seldom_told_apart_however_many_are_compared():
    """At most 5 tables in 100 have a pair that both metrics tell apart, in any of the cases."""
    rng, wrong = np.random.default_rng(7), 0
    frame = pd.DataFrame(
        [
            cell(f"m{model}", case, seed, metric, patch, 0)
            for model in range(5)
            for case in ("I", "II")
            for seed in range(3)
            for metric in ("psnr", "lpips-sat")
            for patch, _ in PATCHES
        ]
    )
    facts = {"metrics": {m: {"higher_is_better": m == "psnr"} for m in ("psnr", "lpips-sat")}}
    for _ in range(20):
        value = rng.normal(0, 0.3, len(frame))
        for effect in (["model", "case", "block"], ["model", "case", "seed"]):
            index = frame.groupby(effect).ngroup()
            value = value + rng.normal(0, 1, index.max() + 1)[index]
        found = agreements(Numbers(CaseResults(frame.assign(value=value), facts)))
        wrong += any(one.alike or one.contradictions for one in found)
    assert wrong <= 1


def test_sentences_name_the_extremes_with_their_numbers(results, attribution):
    said = findings(results, attribution)
    assert f"{MINUS}5.80 to {MINUS}5.20 dB. 3 of 3 trained models lose, each by its own" in said
    assert f"Who loses most: {escaped(HOSTILE)}; least: sr3." in said
    assert f"bicubic, which learned nothing, {MINUS}5.00 dB" in said
    assert "+4.20 to +5.00 dB; 3 of 3 gain and 0 lose, each by its own interval" in said
    assert "3 of 3 stay behind" in said
    assert f"radiometry {MINUS}3.50 dB (70 %), MTF {MINUS}1.00 dB (20 %)" in said
    assert "registration +0.10 dB" in said
    assert "There are 24 comparisons, each of two models in one case. In " in said
    against, alike, undecided = (
        int(re.search(rf"{words} (\d+)", said)[1])
        for words in ("one case. In", "opposite order. In", "same order. The other")
    )
    assert f"In {against} the metrics surely disagree (3 in Case I, " in said
    assert against + alike + undecided == 24
    assert against >= 3
    assert alike >= 3
    assert "τ of the mean scores: 0.00 in Case I, " in said


def test_sentences_keep_to_what_the_table_holds(results):
    table = results.table
    only = CaseResults(table[table["case"].isin(["I", "II"])], results.provenance)
    said = findings(only)
    assert "Which models lose most?" in said
    assert "close the gap" not in said
    assert "Why?" not in said


def test_limits_are_those_of_the_set(numbers):
    said = " ".join(limits(numbers, shared=True))
    assert "made-up: B8A to B08, x2" in said
    assert "24 test patches in 6 blocks" in said
    assert "over blocks and trainings, 3 trainings of each model" in said
    assert "other blocks of the same scenes and other trainings would change" in said
    assert "'small'" in said
    once = numbers.table[numbers.table["seed"] == 0]
    said = " ".join(limits(Numbers(CaseResults(once, numbers.results.provenance)), shared=True))
    assert "over blocks alone, 1 training of each model" in said
    assert "what other blocks of the same scenes would change" in said
    assert "or factor, nor about other trainings." in said


def test_shares_say_how_many_trainings_they_are_of(results, attribution, numbers):
    once = CaseResults(attribution.table[attribution.table["seed"] == 0], attribution.provenance)
    for table, count, what in (
        (attribution, "1 to 3 trainings", "over blocks and trainings"),
        (once, "1 training", "over blocks alone"),
    ):
        shares = shares_of(table)
        assert share_table(numbers, "psnr", shares).title.endswith(f", {count} of each model")
        assert f"Intervals of 95 % {what}, {count} of each model." in section(numbers, shares).about
    assert "mean of 2 trained models, 3 trainings of each, with" in findings(results, attribution)
    assert "mean of 2 trained models, 1 training of each, with" in findings(results, once)


def test_cost_is_that_of_one_sample(numbers):
    assert [text.value for text in texts(cost_table(numbers))["sr3"]] == [
        "20",
        "3",
    ]  # seconds were not measured


def test_the_course_of_trainings_is_summed_up():
    rows = [((9, 30.0, 31.0), (19, 32.0, 31.0)), ((9, 31.5, 31.0), (19, 33.0, 31.0))]
    curves = [Curve("sr3", "real", seed, points) for seed, points in enumerate(rows)]
    found = texts(curves_table([*curves, Curve("sr3", "synthetic", 0, ((9, 30.0, 31.0),))]))["sr3"]
    assert [text.value for text in found] == ["never", f"{MINUS}1.00", "10, 20", "+1.50"]
    assert found[3].small == "+1.00 to +2.00"


def test_markdown_tables_are_whole(results, attribution):
    found = tables(results, attribution)
    assert list(found) == ["cases", "gap", "ranks", "agreement", "contradictions", "cost", "shares"]
    assert "| sr3 | 33.50 (" in found["cases"]
    for text in found.values():
        for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.M):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.strip().split("\n")}
            assert len(widths) == 1
    assert found == tables(results, attribution)


def test_markdown_escapes_what_would_end_a_cell():
    table = Table("t", [Text("a"), Text("b", "c")], [[Text("x|y"), Text("1", "0 to 2", True)]])
    assert markdown(table) == "| a | b (c) |\n| --- | ---: |\n| x\\|y | **1** (0 to 2) |"


@pytest.mark.parametrize(
    ("value", "plain", "difference"),
    [
        (-1.234, f"{MINUS}1.23", f"{MINUS}1.23"),
        (1.234, "1.23", "+1.23"),
        (-0.001, "0.00", "0.00"),
        (0.001, "0.00", "0.00"),
        (math.nan, "\N{EN DASH}", "\N{EN DASH}"),
        (math.inf, "∞", "+∞"),
    ],
)
def test_numbers_are_written_alike(value, plain, difference):
    assert fixed(value, 2) == plain
    assert signed(value, 2) == difference
