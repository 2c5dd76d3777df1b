"""What a report says is what its tables hold, and its pictures are those of the rasters."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from lpips_sat import LPIPSSat, open_pair
from lpips_sat.errors import OutputExistsError, RasterError, ResultsError
from lpips_sat.report import palette, write_report
from lpips_sat.report.cases import best_and_worst, choose
from lpips_sat.report.charts import charts
from lpips_sat.report.notes import notes
from lpips_sat.report.panels import PANEL, see
from lpips_sat.report.tables import number, summaries
from lpips_sat.results import Results
from lpips_sat.stats import summarise
from lpips_sat.work import ScoreOptions

from ..pages import Page, assert_self_contained, decoded

HOSTILE = "<script>alert(1)</script>"


def test_the_summary_is_that_of_the_table(tables, page):
    found = summaries(tables)
    assert [metric.name for metric in found] == list(tables["smooth"].metrics)
    rows = tables["noisy"].scored
    line = next(m for m in found if m.name == "PSNR").lines[1]
    expected = summarise(rows["PSNR"].to_numpy(), rows["scene"].to_numpy())
    assert (line.method, line.count, line.failed) == ("noisy", 4, 1)
    assert line.mean == f"{expected.mean.mean:.2f}"
    assert line.interval == f"{expected.mean.low:.2f} to {expected.mean.high:.2f}"
    text = page.read_text(encoding="utf-8")
    assert line.mean in text
    assert line.interval in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (31.41592, "31.42"),
        (0.0123456, "0.01235"),
        (-2.5, "\N{MINUS SIGN}2.500"),
        (12345.6, "12346"),
        (0, "0.0000"),
        (math.inf, "∞"),
        (math.nan, "\N{EN DASH}"),
        (1e-9, "1.00e\N{MINUS SIGN}09"),
        (-4.56e-7, "\N{MINUS SIGN}4.56e\N{MINUS SIGN}07"),
    ],
)
def test_numbers_are_written_for_people(value, text):
    assert number(value) == text


def test_worst_and_best_follow_the_direction_of_the_metric(tables):
    found = {(e.metric, e.method): e for e in best_and_worst(tables)}
    rows = tables["smooth"].scored.set_index("id")
    for metric, worst in (("PSNR", rows["PSNR"].idxmin()), ("MAE", rows["MAE"].idxmax())):
        assert found[metric, "smooth"].worst[0][0].id == worst
    assert found["MAE", "smooth"].best[0][0].id == rows["MAE"].idxmin()
    for extreme in found.values():
        assert not {k for k, _ in extreme.worst} & {k for k, _ in extreme.best}
    assert [k.id for k in choose(list(found.values()), 2)] == list(
        dict.fromkeys(e.worst[0][0].id for e in found.values())
    )[:2]


def test_tables_that_were_not_scored_alike_are_warned_of(tables):
    smooth = tables["smooth"]
    assert not [note for note in notes(tables) if "scored as" in note.text]
    options = smooth.provenance["options"] | {"harmonize": "linear"}
    table = smooth.table.copy()
    table.loc[1, "valid_share"] = 0.25
    other = replace(smooth, table=table, provenance=smooth.provenance | {"options": options})
    first, second, *_ = notes({"noisy": tables["noisy"], "other": other})
    assert (first.method, first.details) == ("other", ["harmonize: none / linear"])
    assert second.details[0].startswith("valid pixels differ on 1 image (other 25 %, noisy 100 %)")


def test_warnings_name_what_is_wrong(tables):
    said = {(note.method, note.text): note.details for note in notes(tables)}
    texts = "\n".join(f"{m}: {t}: {d}" for (m, t), d in said.items())
    assert 'noisy: 1 of 5 pairs failed: ["image 0: ' in texts
    assert "noisy: 1 of 5 pairs may not be aligned: ['image 3: the prediction lies +1.99" in texts
    assert "smooth: in 1 image more than 10% of the pixels do not count: ['image 2: 62.5%" in texts
    mixed = replace(
        tables["smooth"],
        provenance=tables["smooth"].provenance | {"kind": ["reflectance", "display"]},
    )
    assert any("2 kinds of values" in note.text for note in notes({"a": mixed}))


def test_charts_count_every_finite_score(tables):
    for chart in charts(tables):
        for strip, table in zip(chart.strips, tables.values(), strict=True):
            scores = table.scored[chart.metric]
            heights = sum(height for *_, height in strip.bars)
            feet = [y + height for _, y, _, height in strip.bars]
            assert feet == pytest.approx([30] * len(feet), abs=0.02)  # all stand on the ground
            unit = 30 / max(
                np.histogram(
                    t.scored[chart.metric],
                    bins=32,
                    range=(
                        min(t.scored[chart.metric].min() for t in tables.values()),
                        max(t.scored[chart.metric].max() for t in tables.values()),
                    ),
                )[0].max()
                for t in tables.values()
            )
            assert heights == pytest.approx(unit * len(scores), rel=0.01)
            assert 0 <= strip.interval[0] <= strip.mean <= strip.interval[1] <= 100


def test_the_page_loads_nothing_and_names_its_own_style_and_script(page):
    text = page.read_text(encoding="utf-8")
    assert_self_contained(text)
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)" in text


def test_pictures_show_what_the_rasters_hold(scored, page):
    images = Page(page.read_text(encoding="utf-8")).all("img")
    by_name = {image["alt"]: decoded(image["src"]) for image in images}
    assert len(by_name) == 4 * 9  # five images, one of which one method could not score
    shown = np.asarray(by_name["Reference of image 1, smooth"], dtype=float)
    with open_pair(scored / "smooth/p1.tif", scored / "r1.tif") as pair:
        tile = pair.window(0, 0, 64, 64)
    expected = 255 * np.clip(tile.ref[0].numpy().transpose(1, 2, 0) / 0.275, 0, 1)
    assert np.abs(shown - expected)[expected < 254].max() <= 0.5001
    half = np.asarray(by_name["Absolute error of image 2, noisy"].convert("RGBA"))
    assert (half[:24, :, 3] == 0).all()
    assert (half[24:, :, 3] == 255).all()
    first, second = (by_name[f"Reference of image 3, {m}"] for m in ("smooth", "noisy"))
    assert first.tobytes() == second.tobytes()


def test_large_images_are_cut_in_the_middle_with_the_map_of_the_whole(tmp_path, put, textured):
    ref = textured(3, 500, 620, seed=4).astype(np.float32)
    pred = (ref + 0.02 * textured(3, 500, 620, seed=5)).astype(np.float32)
    paths = [
        put(tmp_path / f"{name}.tif", image, bands=("B04", "B03", "B02"))
        for name, image in (("pred", pred), ("ref", ref))
    ]
    with open_pair(*paths) as pair:
        seen = see(pair, ScoreOptions())
        whole = pair.window(0, 0, 500, 620)
        with_map = LPIPSSat(spatial=True)(whole.pred, whole.ref)[0, 0].numpy()
    top, left = map(int, re.match(r"rows (\d+) to .* columns (\d+) to", seen.about).groups())
    assert seen.ref.shape == (PANEL, PANEL, 3)
    assert abs(top - (500 - PANEL) // 2) < 64
    assert abs(left - (620 - PANEL) // 2) < 64
    part = (slice(top, top + PANEL), slice(left, left + PANEL))
    np.testing.assert_allclose(seen.distance, with_map[part], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(seen.error, np.abs(pred - ref).mean(axis=0)[part], atol=1e-6)


def test_a_raster_that_is_gone_is_said_on_the_page(tables, tmp_path, monkeypatch):
    table = tables["smooth"]
    lost = Results(table.table.assign(ref="nowhere.tif"), table.provenance)
    shown = write_report({"m": lost}, tmp_path / "r.html", cases=1)
    assert "nowhere.tif: no such file" in shown[0].shown[0].drawn.problem
    assert "nowhere.tif: no such file" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_tiles_have_a_picture_each(scored, tmp_path, run):
    out = tmp_path / "tiles.csv"
    args = ("--metrics", "mae,psnr", "--tiles", "--tile-size", 32, "--out", out)
    run("score", scored / "smooth/p1.tif", scored / "r1.tif", *args)
    done = run("report", out, "--html", tmp_path / "t.html", "--cases", 2)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert len(re.findall('<article class="case"', text)) == 2
    assert re.search(r"r1, row (0|32), column (0|32)", text)
    assert 'width="32"' in text


def test_no_cases_and_single_values_make_a_page_too(tables, tmp_path):
    table = tables["smooth"]
    one = Results(table.table.head(1).assign(PSNR=math.inf), table.provenance)
    assert write_report({"m": one}, tmp_path / "r.html", cases=0) == []
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "∞" in text
    assert "<article" not in text


@pytest.mark.parametrize("dark", [False, True])
def test_the_colours_of_the_page_are_written_out(dark):
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in palette(dark=dark).values())


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_one_value_alone_stands_in_the_middle_of_its_chart(tables, value):
    table = tables["smooth"]
    same = Results(table.table.assign(PSNR=value), table.provenance)
    chart = next(chart for chart in charts({"smooth": same}) if chart.metric == "PSNR")
    (bar,) = chart.strips[0].bars
    assert bar[0] == pytest.approx(50)
    assert chart.strips[0].mean == 50


def test_outputs_are_kept_and_unfit_tables_refused(tables, scored, tmp_path, run):
    out = tmp_path / "r.html"
    out.write_text("mine")
    with pytest.raises(OutputExistsError):
        write_report(tables, out)
    assert run("report", scored / "smooth.parquet", "--html", out).exit_code == 1
    assert out.read_text() == "mine"
    with pytest.raises(ResultsError, match="got none"):
        write_report({}, tmp_path / "new.html")
    tiled = Results(tables["smooth"].table.assign(row=0, col=0), tables["smooth"].provenance)
    with pytest.raises(ResultsError, match="report them apart"):
        write_report({"a": tables["smooth"], "b": tiled}, tmp_path / "new.html")
    with pytest.raises(RasterError, match="missing"):
        write_report(tables, tmp_path / "no" / "new.html")
    same = run("report", scored / "smooth.parquet", scored / "smooth.parquet", "--html", "x.html")
    assert same.exit_code == 2
