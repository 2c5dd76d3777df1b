"""The page and the Markdown hold what the study's tables and images hold, and nothing else."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lpips_sat.errors import OutputExistsError, ResultsError
from lpips_sat.report import palette
from sr_models.data.pairs import PairDataset
from sr_models.experiment.curves import Curve
from sr_models.experiment.evaluate import Asked, evaluate
from sr_models.experiment.results import (
    ATTRIBUTION,
    EVALUATION,
    CaseResults,
    read_case_results,
    write_case_results,
)
from sr_models.registry import load_model
from sr_models.report import Sources, findings, make_report, tables, write_report
from sr_models.report.figures import curves_figure, gap_figure, save_png, slug, svg
from sr_models.report.gallery import Patch, choose, plates
from sr_models.report.markdown import pictures_of
from sr_models.report.numbers import Numbers

from ...pages import Page, assert_self_contained, decoded
from .conftest import HOSTILE, PROVENANCE, cell


@pytest.fixture(scope="module")
def html(page):
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def study_tables(study):
    kinds = {"results": EVALUATION, "gap": ATTRIBUTION}
    return [read_case_results(study / f"{name}.parquet", kind) for name, kind in kinds.items()]


def bare(text):
    """Text without tags and line breaks."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


def test_the_page_loads_nothing_and_names_its_own_style_and_script(html):
    assert_self_contained(html)


def test_page_and_markdown_say_what_the_tables_say(html, study, study_tables):
    markdown, text = (study / "report.md").read_text(encoding="utf-8"), bare(html)
    for table in tables(*study_tables).values():
        assert table in markdown
        for row in re.findall(r"^\| (.*) \|$", table, flags=re.M):
            if not row.startswith("---"):
                cells = [re.sub(r"[*()]", "", one) for one in re.split(r" \| ", row)]
                assert " ".join(" ".join(cells).split()) in text
    for line in findings(*study_tables).split("\n\n"):
        assert line in markdown
        assert line.strip("*") in text


def test_every_part_is_there_and_none_is_missing(html, study):
    ids = [attributes["id"] for attributes in Page(html).all("section")]
    parts = ["short", "cases", "gap", "why", "ranks", "training", "images", "audit"]
    assert ids == [*parts, "limits", "provenance", "json"]
    assert 'class="missing"' not in html
    everything = json.loads((study / "report_files" / "provenance.json").read_text())
    assert "(report_files/provenance.json)" in (study / "report.md").read_text()
    assert list(everything) == ["Results", "Attribution"]
    known = everything["Results"]
    assert known == read_case_results(study / "results.parquet").provenance
    assert known["set"]["test_sha256"][:12] in html
    for weights in known["weights"].values():
        assert not weights["sha256"] or weights["sha256"][:12] in html


def test_parts_that_are_not_given_name_the_command_that_makes_them(study, mindgap, tmp_path):
    done = mindgap("report", study / "results.parquet", "--html", tmp_path / "r.html")
    assert done.exit_code == 0, done.output
    missing = re.findall(r'<p class="missing">(.*?)</p>', (tmp_path / "r.html").read_text())
    commands = ("gap RESULTS --attribute", "--data SET", "--data SET", "audit SET")
    assert len(missing) == 4
    assert all(command in line for command, line in zip(commands, missing, strict=True))


def test_pictures_of_the_gallery_are_those_of_the_images(html, study, study_tables):
    results = study_tables[0]
    images = {i["alt"]: i for i in Page(html).all("img")}
    name, why = next(iter(choose(Numbers(results), 3).items()))
    title = f"Case II (synthetic → real): {name}, {why}"
    pairs = PairDataset(study / "toy", "test")
    pair = pairs[pairs.ids.index(name)]
    guess = torch.from_numpy(load_model("bicubic").upscale(pair["lr"].numpy(), 2))
    low, high = np.quantile(pair["hr"].numpy(), [0.005, 0.995])
    for picture, values in (("HR of the truth", pair["hr"]), ("image of bicubic", guess)):
        shown = np.asarray(decoded(images[f"{picture}, {title}"]["src"]).convert("RGB"), float)
        expected = 255 * np.clip((values[0].numpy() - low) / (high - low), 0, 1)
        assert np.abs(shown - expected[..., None]).max() <= 0.51
    error = (guess - pair["hr"]).abs()[0].numpy()
    shown = np.asarray(decoded(images[f"error of bicubic, {title}"]["src"]), float)
    assert (
        np.corrcoef(shown.ravel(), np.clip(error, 0, np.quantile(error, 0.9)).ravel())[0, 1] > 0.9
    )
    rows = results.table.set_index(["model", "case", "metric", "patch"])["value"]
    (block,) = re.findall(rf"<h3>{re.escape(title)}</h3>(.*?)</article>", html, flags=re.S)
    assert f"bicubic <small>{rows['bicubic', 'II', 'psnr', name]:.2f} dB, " in " ".join(
        block.split()
    )


def test_the_colour_of_an_error_means_the_same_in_all_cases_of_a_patch(html):
    scales = re.findall(r'<article class="case" id="patch-(\d)-(\w+)">(.*?)</article>', html, re.S)
    found = {}
    for patch, _, block in scales:
        found.setdefault(patch, set()).update(re.findall(r"error\s*<span.*?</i> ([\d.]+)<", block))
    assert found
    assert all(len(values) == 1 for values in found.values())


def test_the_gallery_shows_a_typical_patch_and_the_worst():
    losses = {"typical": -5, "small": -4.9, "worst": -9, "mild": -5.1, "other": -4}
    looks = {"typical": 0.25, "small": 0.1, "worst": 0.15, "mild": 0.2, "other": 0.9}
    rows = []
    for metric, gaps in (("psnr", losses), ("lpips-sat", looks)):
        for patch, gap in gaps.items():
            for case, value in (("I", 30.0), ("II", 30.0 + gap)):
                known = {"model": "sr3", "case": case, "seed": 0, "estimate": "sample"}
                known |= {"split": "test", "patch": patch, "block": patch, "metric": metric}
                rows.append({**known, "value": value})
    numbers = Numbers(CaseResults.from_rows(rows, PROVENANCE))
    expected = {
        "typical": "a typical gap in PSNR",
        "worst": "the worst gap in PSNR",
        "other": "the worst gap in LPIPS-Sat",
        "mild": "a typical gap in LPIPS-Sat",
    }
    for count in (3, 4, 9):
        assert list(choose(numbers, count).items()) == list(expected.items())[:count]


def test_a_model_whose_weights_are_gone_is_left_out_and_named(study, tmp_path):
    given = {"data": study / "toy", "runs": tmp_path / "elsewhere", "device": "cpu"}
    made = make_report(Sources(study / "results.parquet", **given))
    images = next(section for section in made.sections if section.name == "images")
    assert {column.name for column in images.plates[0].columns} == {
        "the truth",
        "bicubic",
        "ceiling",
    }
    assert "regression trained on real images, its weights are not in" in images.about


def test_bands_that_lpips_sat_does_not_know_have_no_map(results):
    numbers = Numbers(results)
    hr = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0))
    lr = torch.nn.functional.avg_pool2d(hr[None], 2)[0]
    patch = Patch("r0_0", "a reason", {"real": lr, "synthetic": lr}, hr)
    found = plates(numbers, [patch], lambda *_: hr, ("B05", "B11"), "reflectance")
    assert [plate.name for plate in found] == [f"patch-1-{c}" for c in ("I", "II", "III", "IV")]
    assert [len(column.panels) for column in found[0].columns] == [2] * 6


def test_charts_follow_the_page_into_the_dark_and_are_the_same_every_time(numbers):
    figure = gap_figure(numbers, "psnr")
    uri = svg(figure)
    assert uri == svg(figure)
    text = base64.b64decode(uri.partition(",")[2]).decode()
    ElementTree.fromstring(text)
    drawing = text.partition("</style>")[2]
    assert "prefers-color-scheme: dark" in text
    assert not any(colour in drawing for colour in palette(dark=False).values())
    assert "var(--m0)" in drawing
    assert "sr3 \N{MINUS SIGN}5.20 (" in figure.alt
    assert figure.alt.count("; ") == 4


def test_a_chart_of_curves_shows_every_training(tmp_path):
    curves = [
        Curve("sr3", regime, seed, ((9, 30.0 + seed, 31.0), (19, 33.0, 31.0)))
        for regime in ("synthetic", "real")
        for seed in range(2)
    ]
    figure = curves_figure("sr3", curves)
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    figure.draw(axes, palette(dark=False))
    drawn = [line.get_ydata().tolist() for line in axes.lines]
    assert drawn[:1] == [[30.0, 33.0]]
    assert sorted(map(tuple, drawn)).count((31.0, 33.0)) == 2
    assert drawn.count([31.0, 31.0]) == 2
    save_png(figure, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        assert image.width == round(3.2 * 150)


def test_files_of_models_that_are_called_by_a_path_stay_in_their_folder():
    assert slug("gap-lpips-sat") == "gap-lpips-sat"
    names = {slug(f"shares-psnr-{model}") for model in ("../a", "..-a", "a/b", "a b")}
    assert len(names) == 4
    assert not any("/" in name or " " in name for name in names)


def test_markdown_names_pictures_that_exist(page, study):
    text = (study / "report.md").read_text(encoding="utf-8")
    named = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    there = {f"report_files/{p.name}" for p in (study / "report_files").glob("*.png")}
    assert set(named) == there
    assert text.count("[![") == len(named)
    assert all(f"]({name})]({name})" in text for name in named)  # each leads to its full size
    assert len(named) == len(there) > 8
    about = json.loads((study / "report_files" / "figures.json").read_text())
    assert {f"report_files/{name}.png" for name in about} == there
    for name in named:
        with Image.open(study / name) as image:
            image.verify()


def test_hostile_names_end_neither_page_nor_table(results, attribution, tmp_path):
    write_case_results(results, tmp_path / "r.parquet")
    write_case_results(attribution, tmp_path / "g.parquet")
    sources = Sources(tmp_path / "r.parquet", gap=tmp_path / "g.parquet")
    write_report(sources, html=tmp_path / "r.html", markdown=tmp_path / "r.md")
    assert HOSTILE not in (tmp_path / "r.html").read_text()
    assert "&lt;script&gt;alert(1)" in (tmp_path / "r.html").read_text()
    assert "<script>" not in (tmp_path / "r.md").read_text()


def test_outputs_are_kept_and_unfit_sources_refused(study, mindgap, tmp_path, attribution):
    results, out = study / "results.parquet", tmp_path / "r.html"
    out.write_text("mine")
    with pytest.raises(OutputExistsError):
        write_report(Sources(results), html=out)
    assert out.read_text() == "mine"
    write_case_results(attribution, tmp_path / "g.parquet")
    for given, message in (
        ({"gap": tmp_path / "g.parquet"}, "not made of these results: .*set.* was"),
        ({"audit": other_audit(study, tmp_path, "name")}, "the results are of toy"),
        ({"audit": other_audit(study, tmp_path, "test_sha256")}, "audit of other test patches"),
    ):
        with pytest.raises(ResultsError, match=message):
            write_report(Sources(results, **given), html=tmp_path / "new.html")
    for args, code in (
        (("report", results), 2),
        (("report", tmp_path / "no.parquet", "--html", tmp_path / "new.html"), 1),
        (("report", results, "--html", out), 1),
        (("report", results, "--html", tmp_path / "new.html", "--data", tmp_path), 1),
    ):
        done = mindgap(*args)
        assert done.exit_code == code
        assert done.stderr.count("\n") == 1 or code == 2
    assert not (tmp_path / "new.html").exists()
    (tmp_path / "r_files").mkdir()
    (tmp_path / "r_files" / "mine.txt").write_text("mine")
    kept = mindgap("report", results, "--markdown", tmp_path / "r.md", "--overwrite")
    assert kept.exit_code == 1
    assert "figures.json" in kept.stderr
    assert not (tmp_path / "r.md").exists()
    again = ("report", results, "--markdown", tmp_path / "n.md", "--overwrite")
    assert mindgap(*again).exit_code == mindgap(*again).exit_code == 0
    (tmp_path / "n_files" / "notes.txt").write_text("mine")
    kept = mindgap(*again, "--html", out)
    assert kept.exit_code == 1
    assert "n_files holds notes.txt, which no report wrote" in kept.stderr
    assert out.read_text() == "mine"
    assert (tmp_path / "n_files" / "notes.txt").read_text() == "mine"


def other_audit(study, folder, field):
    """The audit of a set of another name, or of other patches under the same."""
    from sr_models.data.audit import read_audit, write_audit

    audit = read_audit(study / "audit")
    write_audit(replace(audit, **{field: "another"}), folder / field, figures=False)
    return folder / field


def test_pictures_of_a_file_lie_beside_it():
    assert pictures_of(Path("a/report.md")) == Path("a/report_files")


def test_a_table_of_one_case_makes_a_report_too(tmp_path):
    rows = [cell("sr3", "I", 0, "ssim", f"r{b}_0", 0.8 + 0.01 * b) for b in range(6)]
    facts = {"table": EVALUATION, "metrics": {"ssim": {"unit": "", "higher_is_better": True}}}
    write_case_results(CaseResults.from_rows(rows, facts), tmp_path / "r.parquet")
    write_report(Sources(tmp_path / "r.parquet"), html=tmp_path / "r.html")
    text = bare((tmp_path / "r.html").read_text())
    assert f"{np.mean(pd.DataFrame(rows)['value']):.3f}" in text
    assert "Cases I and II are not in the table" in text


def test_a_report_says_nothing_of_what_was_not_done(study, tmp_path):
    """A table of controls in one case: no trainings, no shares, no pictures."""
    evaluate(study / "toy", tmp_path / "r.parquet", Asked(["bicubic"], ("III",)))
    report = make_report(Sources(tmp_path / "r.parquet", data=study / "toy", runs=tmp_path))
    sections = {section.name: section for section in report.sections}
    assert "training" not in sections
    for name in ("short", "gap", "images"):
        section = sections[name]
        assert "Cases I and II are not in the table" in section.missing
        assert (section.answers, section.about, section.plates) == ([], "", [])
    assert "bicubic learned nothing. Intervals" in sections["cases"].about
    assert "regression" not in sections["cases"].about
    (limits,) = sections["limits"].answers
    assert len(limits.said) == 1
    evaluate(study / "toy", tmp_path / "both.parquet", Asked(["bicubic"], ("I", "II")))
    report = make_report(Sources(tmp_path / "both.parquet", data=study / "toy", runs=tmp_path))
    sections = {section.name: section for section in report.sections}
    assert sections["gap"].tables
    for name in ("short", "images"):
        assert "No model of the table was trained for it" in sections[name].missing
    patches = Sources(tmp_path / "r.parquet", data=study / "toy", runs=tmp_path, patches=0)
    assert "images" not in [section.name for section in make_report(patches).sections]


def test_an_attribution_of_other_settings_or_weights_is_refused(study, study_tables, tmp_path):
    _, why = study_tables
    (unit,) = why.provenance["weights"]
    psnr = why.provenance["metrics"]["psnr"]
    for change, message in (
        ({"data_range": 1.0}, "data_range was 0.6, now 1.0"),
        ({"degradation": "bicubic"}, "degradation was physical, now bicubic"),
        ({"synthetic": {**why.provenance["synthetic"], "quantum": 0}}, "synthetic.quantum was"),
        ({"metrics": {"psnr": {**psnr, "settings": {"data_range": 1.0}}}}, "settings.data_range"),
        ({"weights": {unit: {"sha256": "f" * 64}}}, f"weights of {unit} was .*, now ffff"),
        ({"weights": {"regression 7": {"sha256": "f" * 64}}}, "weights of regression 7 was None"),
    ):
        other = CaseResults(why.table, {**why.provenance, **change})
        write_case_results(other, tmp_path / "g.parquet", overwrite=True)
        with pytest.raises(ResultsError, match=f"is not made of these results: .*{message}") as hit:
            make_report(Sources(study / "results.parquet", gap=tmp_path / "g.parquet"))
        assert "\n" not in str(hit.value)
