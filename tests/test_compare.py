"""Comparing methods: who is better, by how much, and when nobody can tell."""

from __future__ import annotations

import io
import json
from contextlib import nullcontext

import numpy as np
import pytest
from rich.console import Console

from lpips_sat.cli.compare import _duels, _standings
from lpips_sat.compare import compare, remarks
from lpips_sat.errors import ResultsError
from lpips_sat.results import Results, write_results

FACTS = {
    "PSNR": {"unit": "dB", "higher_is_better": True, "settings": {"data_range": 1.0}},
    "MAE": {"unit": "reflectance", "higher_is_better": False, "settings": {}},
    "bias": {"unit": "reflectance", "higher_is_better": None, "settings": {}},
}


def table(
    gain, *, count=60, seed=0, facts=FACTS, skip=(), failed=(), scenes=3, tiles=False, **provenance
):
    """A method that beats the base by `gain` dB on images that all methods share."""
    image = np.random.default_rng(99).normal(30, 4, count)
    noise = np.random.default_rng(seed).normal(0, 0.3, (3, count))
    rows = []
    for i in range(count):
        name = f"{i:03}"
        if name in skip:
            continue
        psnr = image[i] + gain + noise[0, i]
        row = {"id": name, "pred": "p", "ref": "r", "scene": f"s{i // scenes}", "seconds": 1.0}
        if tiles:
            row |= {"id": f"{i // 2}", "row": 0, "col": 64 * (i % 2), "height": 64, "width": 64}
        if name in failed:
            rows.append({**row, "status": "failed", "reason": "why", "pixels": 0})
            continue
        row |= {"status": "ok", "reason": "", "pixels": 9, "valid_share": 1.0}
        scores = {"PSNR": psnr, "MAE": 10 ** (-psnr / 20), "bias": noise[1, i] / 100}
        rows.append({**row, **{k: v for k, v in scores.items() if k in facts}})
    return Results.from_rows(rows, {"metrics": facts, **provenance}, tiles=tiles)


def by_metric(found):
    return {metric.metric: metric for metric in found}


def test_the_better_method_is_first_and_equal_ones_share_a_rank():
    tables = {"base": table(0, seed=1), "twin": table(0, seed=2), "best": table(1, seed=3)}
    found = by_metric(compare(tables))
    for metric in ("PSNR", "MAE"):
        ranks = {s.method: s.rank for s in found[metric].standings}
        assert ranks == {"best": (1, 1), "base": (2, 3), "twin": (2, 3)}
        assert found[metric].standings[0].method == "best"
        duels = {(d.first, d.second): d for d in found[metric].duels}
        assert not duels["base", "twin"].difference.told_apart
        assert duels["base", "best"].difference.told_apart
        assert duels["base", "best"].wins.mean < 0.1
        assert 0.3 < duels["base", "twin"].wins.mean < 0.7
    duel = next(d for d in found["PSNR"].duels if (d.first, d.second) == ("base", "best"))
    columns = [tables[name].table["PSNR"].to_numpy() for name in ("base", "best")]
    assert duel.difference.mean == pytest.approx((columns[0] - columns[1]).mean())
    assert duel.wins.mean == (columns[0] > columns[1]).mean()
    assert (found["PSNR"].images, found["PSNR"].clusters) == (60, 20)


def test_a_bias_is_judged_by_its_size():
    near, far = table(0, seed=1), table(0, seed=1)
    far.table["bias"] = -3 * far.table["bias"]
    found = by_metric(compare({"far": far, "near": near}))["bias"]
    assert [s.method for s in found.standings] == ["near", "far"]
    assert found.duels[0].wins.mean == 0
    assert found.duels[0].difference.mean > 0


def test_other_images_are_an_error_that_lists_them_unless_common():
    whole, part = table(0, seed=1), table(1, seed=2, skip=("004",), failed=("007",))
    with pytest.raises(ResultsError, match="b lacks 2: 004, 007 \\(failed\\)"):
        compare({"a": whole, "b": part})
    found = by_metric(compare({"a": whole, "b": part}, common=True))
    assert found["PSNR"].images == 58
    none = table(0, skip=[f"{i:03}" for i in range(1, 60)])
    with pytest.raises(ResultsError, match="no image was scored in all"):
        compare({"a": table(0, skip=("000",)), "b": none}, common=True)


def test_the_order_of_rows_changes_nothing():
    first, second = table(0, seed=1), table(0.3, seed=2)
    mixed = Results(second.table.sample(frac=1, random_state=1), second.provenance)
    plain = compare({"a": first, "b": second})
    assert compare({"a": first, "b": mixed}) == plain


def test_scores_that_are_not_defined_leave_out_the_image_for_that_metric_only():
    first, second = table(0, seed=1), table(0, seed=2)
    first.table.loc[3, "MAE"] = np.nan
    found = by_metric(compare({"a": first, "b": second}))
    assert (found["MAE"].images, found["PSNR"].images) == (59, 60)


def test_tiles_are_matched_by_their_place():
    found = by_metric(compare({"a": table(0, tiles=True), "b": table(1, seed=4, tiles=True)}))
    assert found["PSNR"].images == 60
    with pytest.raises(ResultsError, match="row per tile"):
        compare({"a": table(0, tiles=True), "b": table(0)})


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"facts": {"PSNR": {**FACTS["PSNR"], "settings": {"data_range": 0.5}}}},
            "data_range of PSNR: 1.0 / 0.5",
        ),
        ({"options": {"harmonize": "linear"}}, "harmonize: none / linear"),
        ({"options": {"register": True}}, "register: none / yes"),
        ({"options": {"reproject": "cubic"}}, "reproject: none / cubic"),
        ({"bands": [["B04", "B03"]]}, "bands:  / B04,B03"),
        ({"ref_radiometry": ["B04: reflectance = DN"]}, "ref_radiometry: .* B04: reflectance = DN"),
        ({"references": "b"}, "references: r ... with other pixels / r ... with"),
        ({"masks": "b"}, "masks: none / none"),
        ({"facts": {"SAM": FACTS["MAE"]}}, "no metric in common"),
        ({"scenes": 5}, "belongs to scene"),
    ],
)
def test_tables_that_mean_something_else_are_refused(other, said):
    same = {"references": "a", "masks": "none", "lr_images": "a"}
    with pytest.raises(ResultsError, match=said):
        compare({"a": table(0, **same), "b": table(0, **same | other)})


def test_tiles_of_another_size_are_refused_and_images_read_by_other_tiles_are_not():
    small, large = ({"options": {"tile": size}} for size in (64, 96))
    with pytest.raises(ResultsError, match="tile: 64 / 96"):
        compare({"a": table(0, tiles=True, **small), "b": table(0, tiles=True, **large)})
    assert compare({"a": table(0, **small), "b": table(0, **large)})


def test_other_low_resolution_images_matter_to_metrics_that_look_at_them():
    facts = FACTS | {"opensr-reflectance": FACTS["MAE"]}
    for known, refused in ((FACTS, False), (facts, True)):
        a, b = (table(0, facts=known, lr_images=pixels) for pixels in "ab")
        for one in (a, b):
            one.table["opensr-reflectance"] = one.table["MAE"]
        with pytest.raises(ResultsError, match="lr_images: ") if refused else nullcontext():
            compare({"a": a, "b": b})


def test_options_that_change_no_number_do_not_matter():
    a = table(0, options={"metrics": ["mae"], "radiometry": {"preset": None}}, pred_radiometry="x")
    b = table(0, options={"metrics": ["psnr"], "radiometry": {"preset": "uint8"}}, references="b")
    assert compare({"a": a, "b": b})


def test_pixels_that_only_one_method_is_scored_on_are_remarked():
    whole, holes = table(0), table(1)
    assert remarks({"whole": whole, "holes": holes}) == []
    holes.table.loc[:5, "valid_share"] = 0.5
    assert remarks({"whole": whole, "holes": holes}) == [
        "valid pixels differ on 6 images (whole 100 %, holes 50 %): scores are of different pixels"
    ]


def test_references_elsewhere_are_remarked_unless_they_are_known_to_be_the_same():
    here, there = table(0), table(0, skip=("004",))
    there.table["ref"] = "other"
    said = ["references have other paths (a r, b other): make sure that they are the same"]
    assert remarks({"a": here, "b": there}) == said
    for references, expected in ((["x", "x"], []), (["x", None], said)):
        a, b = (table(0, references=known) for known in references)
        b.table["ref"] = "other"
        assert remarks({"a": a, "b": b}) == expected


def test_one_table_is_no_comparison_and_an_id_twice_no_table():
    with pytest.raises(ResultsError, match="two tables or more"):
        compare({"a": table(0)})
    twice = table(0)
    twice.table.loc[1, "id"] = "000"
    with pytest.raises(ResultsError, match="more than once: 000"):
        compare({"a": table(0), "b": twice})


def test_the_command_prints_tables_and_json(run, tmp_path):
    paths = [tmp_path / name for name in ("a.csv", "b.parquet", "twin.json")]
    for seed, path in enumerate(paths):
        write_results(table(seed % 2, seed=seed), path)
    result = run("compare", *paths)
    assert (result.exit_code, result.stderr) == (0, "")
    for text in ("b is better", "not told apart", "PSNR, dB - higher is better", "2-3"):
        assert text in result.stdout
    found = json.loads(run("compare", *paths, "--json", "--level", 0.9).stdout)
    assert found["level"] == 0.9
    assert [m["metric"] for m in found["metrics"]] == list(FACTS)
    assert found["metrics"][0]["standings"][0]["method"] == "b"


def test_the_command_warns_of_other_pixels_and_keeps_long_names_apart(run, tmp_path):
    names = [f"swinir_x4_reflectance_finetuned_epoch_{epoch}_ema" for epoch in ("0120", "0240")]
    paths = [tmp_path / f"{name}.csv" for name in names]
    for seed, path in enumerate(paths):
        made = table(seed)
        made.table.loc[0, "valid_share"] = 1 - seed / 4
        write_results(made, path)
    result = run("compare", *paths)
    for name in names:
        assert f" {name} " in result.stdout
    assert f"{names[1]} is better" in result.stdout
    assert "warning: valid pixels differ on 1 image (" in result.stderr
    (warning,) = json.loads(run("compare", *paths, "--json").stdout)["warnings"]
    assert "75 %" in warning


def test_a_narrow_terminal_folds_long_names_and_cuts_nothing():
    names = [f"swinir_x4_reflectance_finetuned_epoch_{epoch}_ema" for epoch in ("0120", "0240")]
    found = compare({name: table(seed, seed=seed) for seed, name in enumerate(names)})[0]
    console = Console(width=80, file=io.StringIO())
    console.print(_standings(found, 0.95), _duels(found, 0.95))
    assert "\N{HORIZONTAL ELLIPSIS}" not in console.file.getvalue()


def test_the_command_says_when_the_scenes_are_too_few(run, tmp_path):
    paths = [tmp_path / name for name in ("a.csv", "b.csv")]
    for seed, path in enumerate(paths):
        few = table(seed)
        write_results(Results(few.table.head(15), few.provenance), path)
    said = "95 % needs 6 scenes or more to tell anything apart."
    assert said in run("compare", *paths).stdout
    assert "scenes or more" not in run("compare", *paths, "--level", 0.8).stdout


def test_the_command_compares_other_images_only_where_common(run, tmp_path):
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path, skip in zip(paths, ((), ("004", "007")), strict=True):
        write_results(table(0, skip=skip), path)
    refused = run("compare", *paths)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "b lacks 2: 004, 007" in refused.stderr
    done = run("compare", *paths, "--common", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert {metric["images"] for metric in json.loads(done.stdout)["metrics"]} == {58}


def test_the_command_refuses_what_it_cannot_compare(run, tmp_path):
    path = tmp_path / "a.parquet"
    write_results(table(0), path)
    assert run("compare", path).exit_code == 2
    assert run("compare", path, path).exit_code == 2
    result = run("compare", path, tmp_path / "none.csv")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no such file" in result.stderr
