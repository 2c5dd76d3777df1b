from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from skimage.metrics import peak_signal_noise_ratio

from lpips_sat.calibration import evaluate, validate
from lpips_sat.calibration.judgements import JudgementError, read_judgements
from lpips_sat.lpips import LPIPSSat
from lpips_sat.stats import bootstrap, bootstrap_mean

METRICS = ["LPIPS-Sat", "SSIM", "PSNR", "SAM", "MAE"]


@pytest.fixture(scope="module")
def metric():
    torch.manual_seed(4)
    return LPIPSSat("pyramid", radiometry="display", backbone_config={"widths": [4, 8], "depth": 1})


@pytest.fixture(scope="module")
def judged(release, tmp_path_factory):
    return release(tmp_path_factory.mktemp("judged") / "release")


def value(table, score, metric):
    row = table[(table["score"] == score) & (table["metric"] == metric)]
    assert len(row) == 1
    assert row["low"].item() <= row["value"].item() <= row["high"].item()
    return row["value"].item()


def test_agreement_is_measured_on_the_validation_trials_beside_the_classics(metric, judged):
    table = validate.validate(metric, judged)
    assert table["metric"].tolist() == METRICS
    assert set(table["judged"]) == {12}
    _, held = read_judgements(judged).split()
    gain = [
        peak_signal_noise_ratio(r, b) - peak_signal_noise_ratio(r, a)
        for r, a, b in zip(held.ref, held.a, held.b, strict=True)
    ]
    expected = np.where(np.array(gain) > 0, held.share_b, 1 - held.share_b).mean()
    assert value(table, "2AFC", "PSNR") == pytest.approx(expected, abs=1e-4)
    assert set(validate.validate(metric, judged, part="all")["judged"]) == {60}


@pytest.fixture(scope="module")
def scored(textured, tmp_path_factory):
    """A table of opinion scores: six references, each blurred to four strengths; and its JND."""
    folder, rows = tmp_path_factory.mktemp("mos"), []
    for r in range(6):
        ref = textured(3, 32, 32, seed=70 + r, low=0.1, high=0.9)
        images = {f"r{r}.png": ref}
        for k in range(1, 5):
            images[f"r{r}-{k}.png"] = ndimage.gaussian_filter(ref, (0, 0.5 * k, 0.5 * k))
            rows.append((f"r{r}.png", f"r{r}-{k}.png", 5 - k + 0.1 * r))
        for name, image in images.items():
            Image.fromarray(np.rint(255 * image.transpose(1, 2, 0)).astype(np.uint8)).save(
                folder / name
            )
    pd.DataFrame(rows, columns=["ref", "image", "mos"]).to_csv(folder / "mos.csv", index=False)
    for r in range(6):
        for name, source in (("p0", f"r{r}.png"), ("p1", f"r{r}-{r % 4 + 1}.png")):
            (folder / "jnd" / name).mkdir(parents=True, exist_ok=True)
            (folder / "jnd" / name / f"{r}.png").write_bytes((folder / source).read_bytes())
        (folder / "jnd" / "same").mkdir(exist_ok=True)
        np.save(folder / "jnd" / "same" / f"{r}.npy", np.array([float(r % 4 < 2)]))
    return folder


def test_correlations_with_opinions_are_those_of_scipy(metric, scored):
    table = validate.validate(metric, scored / "mos.csv", part="all")
    assert sorted(table["score"].unique()) == ["PLCC", "SRCC"]
    rows = pd.read_csv(scored / "mos.csv")

    def load(name):
        return np.asarray(Image.open(scored / name))

    psnr = [
        peak_signal_noise_ratio(load(r), load(i)) for r, i in zip(rows.ref, rows.image, strict=True)
    ]
    expected = stats.spearmanr(psnr, rows["mos"])[0]
    assert value(table, "SRCC", "PSNR") == pytest.approx(expected, abs=2e-3)
    assert value(table, "PLCC", "LPIPS-Sat") > 0.8
    assert set(table["references"]) == {6}


def test_opinions_validate_on_references_left_out_of_calibration(metric, scored):
    assert set(validate.validate(metric, scored / "mos.csv")["references"]) == {2}


@pytest.fixture
def dark(scored, tmp_path):
    """The table of opinions, its references r0 and r0-1 being black: SAM is not defined there."""
    for file in scored.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for name in ("r0.png", "r0-1.png"):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / name)
    return tmp_path / "mos.csv"


def test_opinions_for_which_a_distance_is_not_defined_do_not_count_and_are_counted(metric, dark):
    table = validate.validate(metric, dark, part="all").set_index(["score", "metric"])
    assert table["value"].notna().all()
    assert table["judged"].loc["SRCC"].to_dict() == {
        name: 20 if name == "SAM" else 24 for name in METRICS
    }
    assert table["references"].loc["PLCC"]["SAM"] == 5
    rows = pd.read_csv(dark)
    rows[rows["ref"] != "r0.png"].to_csv(dark.with_name("bright.csv"), index=False)
    bright = validate.validate(metric, dark.with_name("bright.csv"), part="all")
    for score in ("SRCC", "PLCC"):
        assert table["value"][score, "SAM"] == value(bright, score, "SAM")


def test_choices_and_pairs_for_which_a_distance_is_not_defined_do_not_count(
    metric, scored, dark, tmp_path
):
    rows = [(f"r{r}.png", f"r{r}-1.png", f"r{r}-4.png", "A") for r in range(6)]
    table = pd.DataFrame(rows, columns=["ref", "a", "b", "choice"])
    table.to_csv(tmp_path / "pairs.csv", index=False)
    found = validate.validate(metric, tmp_path / "pairs.csv", part="all").set_index("metric")
    assert found["judged"].to_dict() == {name: 5 if name == "SAM" else 6 for name in METRICS}
    assert found["value"]["SAM"] == 1
    for name, source in (("p0", "r0.png"), ("p1", "r0-1.png")):
        (tmp_path / "jnd" / name).mkdir(parents=True)
        for file in (scored / "jnd" / name).iterdir():
            (tmp_path / "jnd" / name / file.name).write_bytes(file.read_bytes())
        (tmp_path / "jnd" / name / "0.png").write_bytes((tmp_path / source).read_bytes())
    (tmp_path / "jnd" / "same").symlink_to(scored / "jnd" / "same")
    found = validate.validate(metric, tmp_path / "jnd").set_index("metric")
    assert found["judged"].to_dict() == {name: 5 if name == "SAM" else 6 for name in METRICS}


@pytest.mark.parametrize("name", ["mos.csv", "pairs.csv", "jnd"])
def test_a_distance_that_is_defined_for_nothing_has_no_score(metric, tmp_path, name):
    for part in ("p0", "p1", "same"):
        (tmp_path / "jnd" / part).mkdir(parents=True)
    black = {"x.png": 0, "jnd/p0/x.png": 0, "jnd/p1/x.png": 0}
    for path, grey in {**black, "y.png": 50, "z.png": 90}.items():
        Image.fromarray(np.full((32, 32, 3), grey, np.uint8)).save(tmp_path / path)
    np.save(tmp_path / "jnd" / "same" / "x.npy", np.ones(1))
    rows = pd.DataFrame({"ref": "x.png", "image": ["y.png", "z.png"], "mos": [5.0, 1.0]})
    rows.to_csv(tmp_path / "mos.csv", index=False)
    rows = pd.DataFrame({"ref": ["x.png"], "a": "x.png", "b": "x.png", "choice": "A"})
    rows.to_csv(tmp_path / "pairs.csv", index=False)
    sam = validate.validate(metric, tmp_path / name, part="all").set_index("metric").loc[["SAM"]]
    assert sam["value"].isna().all()
    assert (sam["judged"] == 0).all()


def test_same_different_is_measured_alone_and_beside_a_release(metric, scored, judged, tmp_path):
    alone = validate.validate(metric, scored / "jnd")
    assert alone["metric"].tolist() == METRICS
    assert value(alone, "JND mAP", "PSNR") == 1  # stronger blur, fewer "same"
    assert set(alone["judged"]) == set(alone["references"]) == {6}
    for file in judged.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "jnd").symlink_to(scored / "jnd")
    both = validate.validate(metric, tmp_path)
    assert sorted(both["score"].unique()) == ["2AFC", "JND mAP"]


def test_patches_of_one_reference_give_no_interval(run, scored, tmp_path):
    for name in ("p0", "p1", "same"):
        (tmp_path / name).mkdir()
        for k, file in enumerate(sorted((scored / "jnd" / name).iterdir())):
            first = scored / "jnd" / "p0" / "0.png"
            source = first if name == "p0" else file
            (tmp_path / name / f"{k}{file.suffix}").write_bytes(source.read_bytes())
    found = run("validate", "--judgements", tmp_path, "--json")
    assert found.exit_code == 0, found.output
    for row in json.loads(found.stdout)["scores"]:
        assert (row["judged"], row["references"]) == (6, 1)
        assert (row["low"], row["high"]) == (None, None)


def test_too_few_trials_to_validate_are_an_error(metric, judged, tmp_path):
    for name in ("trials.csv", "images.npz"):
        (tmp_path / name).write_bytes((judged / name).read_bytes())
    votes = pd.read_csv(judged / "votes.csv")
    votes[votes["id"] % 5 == 1].to_csv(tmp_path / "votes.csv", index=False)
    with pytest.raises(JudgementError, match="--trials all"):
        validate.validate(metric, tmp_path)


def test_the_command_prints_a_table_or_json(run, judged):
    shown = run("validate", "--judgements", judged)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "LPIPS-Sat" in shown.stdout
    found = json.loads(run("validate", "--judgements", judged, "--json").stdout)
    assert (found["weights"], found["trials"]) == ("default", "validation")
    assert [row["metric"] for row in found["scores"]] == METRICS
    wrong = run("validate", "--judgements", judged / "absent")
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert run("validate", "--weights", judged, "--judgements", judged).exit_code == 1


# --- the pieces


@pytest.mark.parametrize(
    ("distance", "same", "expected"),
    [
        ([1, 2, 3, 4], [1, 1, 0, 0], 1.0),
        ([4, 3, 2, 1], [1, 1, 0, 0], 0.5),  # precision 1/3 and 2/4, the best at or above is 1/2
        ([1, 2, 3, 4], [1, 0, 1, 0], (1 + 2 / 3) / 2),
        ([1, 2], [0.5, 0.5], 0.5),
        ([1, 1, 1, 1], [1, 0, 1, 0], 0.5),  # a constant knows nothing
    ],
)
def test_average_precision_by_hand(distance, same, expected):
    found = evaluate.average_precision(np.array(distance, float), np.array(same, float))
    assert found == pytest.approx(expected)


def test_average_precision_without_a_same_is_undefined():
    assert np.isnan(evaluate.average_precision(np.arange(3.0), np.zeros(3)))


def test_a_logistic_relation_is_found(textured):
    rng = np.random.default_rng(0)
    distance = rng.uniform(0, 5, 200)
    mos = 1 + 4 / (1 + np.exp(2 * (distance - 2)))
    assert validate.correlation(validate.logistic_fit(distance, mos), mos) == pytest.approx(
        1, abs=1e-6
    )
    assert abs(validate.correlation(-distance, mos)) < 0.98


def test_the_bootstrap_of_a_mean_is_that_of_means():
    rng = np.random.default_rng(1)
    values, clusters = rng.normal(size=120), rng.integers(0, 30, 120)
    one = bootstrap(lambda rows: float(values[rows].mean()), clusters)
    two = bootstrap_mean(values, clusters)
    assert one.mean == pytest.approx(two.mean)
    assert (one.low, one.high) == pytest.approx((two.low, two.high), abs=0.03)
    assert (one.count, one.clusters) == (two.count, two.clusters)
