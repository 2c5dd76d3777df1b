from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from lpips_sat.calibration.annotate.export import export_study
from lpips_sat.calibration.annotate.quality import (
    agreement,
    judge,
    krippendorff_alpha,
    records,
    unswap,
)
from lpips_sat.calibration.annotate.store import StudyError, Vote
from lpips_sat.calibration.judgements import read_judgements
from lpips_sat.calibration.readers import read_same_different
from lpips_sat.errors import OutputExistsError


def answer(study, number, choose, *, confidence=2, upto=None):
    """Let rater ``number`` answer: choose(trial) gives A, B, same or different."""
    with study.store() as store:
        rater = store.raters()[number]
        for position in range(upto if upto is not None else store.progress(rater)[1]):
            item = store.item(rater, position)
            said = choose(study.trials.loc[item.trial])
            if said in "AB":
                said = {False: "left", True: "right"}[(said == "A") == item.swapped]
            nonce = f"{number:08d}{position:08d}"
            store.vote(rater, Vote(position, said, confidence, 2.0 + position, nonce))


def truthful(trial):
    """The lower severity wins; checks are passed."""
    if isinstance(trial["answer"], str):
        return trial["answer"]
    if trial["task"] == "jnd":
        return "same" if trial["severity_a"] < 0.1 else "different"
    return "A" if trial["severity_a"] < trial["severity_b"] else "B"


def contrary(trial):
    said = truthful(trial)
    return {"A": "B", "B": "A", "same": "different", "different": "same"}[said]


@pytest.fixture
def study(make):
    made = make(20, jnd=8, repeats=0.5, checks=0.3, raters=3)
    answer(made, 0, truthful)
    answer(made, 1, truthful, confidence=None, upto=20)
    answer(made, 2, contrary)  # fails every check
    return made


def test_the_export_is_a_release_of_judgements(study, tmp_path):
    export_study(study, tmp_path / "out")
    found = read_judgements(tmp_path / "out")
    for row, ref, a, b in zip(found.table.itertuples(), found.ref, found.a, found.b, strict=True):
        for side, image in (("ref", ref), ("a", a), ("b", b)):
            np.testing.assert_array_equal(image, study.image(row.id, side))
        assert row.share_b == (row.severity_a > row.severity_b)  # sides are un-swapped
    assert set(found.table["id"]) == set(range(20))
    assert found.table["confidence"].between(1, 3).all()
    assert found.about["raters"] == "test machines"
    votes = pd.read_csv(tmp_path / "out" / "votes.csv")
    assert list(votes.columns[:4]) == ["id", "rater", "choice", "confidence"]
    assert set(votes["rater"]) == {"r0", "r1"}
    assert votes["confidence"].isna().sum() == (votes["rater"] == "r1").sum()


def test_same_different_votes_come_in_the_layout_of_bapps(study, tmp_path):
    export_study(study, tmp_path / "out")
    found = read_same_different(tmp_path / "out" / "jnd")
    jnd = study.trials[(study.trials["task"] == "jnd") & (study.trials["role"] == "main")]
    assert found.same.tolist() == (jnd["severity_a"] < 0.1).astype(float).tolist()
    np.testing.assert_array_equal(found.image[0], study.image(int(jnd["id"].iloc[0]), "a"))
    np.testing.assert_array_equal(found.ref[0], study.image(int(jnd["id"].iloc[0]), "ref"))


def test_records_hold_every_answer_as_csv_and_parquet(study, tmp_path):
    export_study(study, tmp_path / "out")
    text = pd.read_csv(tmp_path / "out" / "records.csv")
    binary = pd.read_parquet(tmp_path / "out" / "records.parquet")
    total = 28 + 14 + 8
    assert len(text) == len(binary) == total + 20 + total
    assert text["choice"].tolist() == binary["choice"].tolist()
    assert set(text.loc[text["rater"] == "r2", "excluded"]) != {""}
    times = pd.to_datetime(text["answered"])
    assert times.dt.tz is not None
    assert (text["seconds"] >= 2).all()


def test_the_card_says_who_was_left_out_and_why(study, tmp_path):
    card = export_study(study, tmp_path / "out")
    assert card == json.loads((tmp_path / "out" / "card.json").read_text())
    rows = {row["rater"]: row for row in card["per_rater"]}
    assert rows["r0"]["excluded"] == rows["r1"]["excluded"] == ""
    assert rows["r2"]["excluded"] == "passed 0% of 8 checks, 75% is asked"
    assert rows["r0"]["checks_passed"] == rows["r0"]["repeats_consistent"] == 1
    assert card["answers"]["recorded"] == 120
    assert card["agreement"]["2afc"]["pairwise"] == 1
    assert card["agreement"]["2afc"]["krippendorff_alpha"] == 1
    assert sum(card["shown"]["distortions"].values()) == 2 * 20 + 8
    text = (tmp_path / "out" / "README.md").read_text()
    assert "passed 0% of 8 checks" in text
    assert "rater 0" not in text  # names stay in the study


def test_nothing_is_replaced_unasked_and_nothing_else_at_all(study, tmp_path):
    out = tmp_path / "out"
    export_study(study, out)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        export_study(study, out)
    export_study(study, out, overwrite=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").touch()
    with pytest.raises(OutputExistsError, match="not an earlier output"):
        export_study(study, tmp_path / "home", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "out"]


def test_a_study_without_votes_has_nothing_to_export(make, tmp_path):
    with pytest.raises(StudyError, match="none is in"):
        export_study(make(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_rater_who_contradicts_themselves_is_left_out(make):
    study = make(40, repeats=0.5, raters=1)
    seen = {}

    def moody(trial):
        of = trial["id"] if pd.isna(trial["repeat_of"]) else trial["repeat_of"]
        seen[of] = {"A": "B", "B": "A"}[seen[of]] if of in seen else "A"
        return seen[of]

    answer(study, 0, moody)
    (found,) = judge(records(study))
    assert found.repeats_consistent == 0
    assert found.excluded == "repeated 0% of 20 votes, 60% is asked"


@pytest.mark.parametrize(
    ("pressed", "swapped", "meant"),
    [("left", False, "A"), ("left", True, "B"), ("right", False, "B"), ("right", True, "A")],
)
def test_sides_are_unswapped(pressed, swapped, meant):
    assert unswap(pressed, swapped) == meant
    assert unswap("same", swapped) == "same"


def test_alpha_is_that_of_the_published_example():
    """Krippendorff 2011, "Computing Krippendorff's alpha-reliability", C: alpha = 0.743."""
    raters = [
        "1.2.3.3.2.1.4.1.2.*.*.*",
        "1.2.3.3.2.2.4.1.2.5.*.3",
        "*.3.3.3.2.3.4.2.2.5.1.*",
        "1.2.3.3.2.4.4.1.2.5.1.*",
    ]
    rows = [row.split(".") for row in raters]
    units = [[v for v in unit if v != "*"] for unit in zip(*rows, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_alpha_needs_something_to_compare():
    assert krippendorff_alpha([]) is None
    assert krippendorff_alpha([["A"], ["B"]]) is None
    assert krippendorff_alpha([["A", "A"], ["A", "A"]]) is None  # no variation: undefined
    assert krippendorff_alpha([["A", "A"], ["B", "B"]]) == 1
    assert krippendorff_alpha([["A", "B"], ["A", "B"]]) < 0


def test_agreement_counts_pairs_of_raters():
    rows = [(0, "A"), (0, "A"), (0, "B"), (1, "B"), (1, "B"), (2, "A")]
    table = pd.DataFrame(rows, columns=["id", "choice"]).assign(role="main", task="2afc")
    found = agreement(table)["2afc"]
    assert (found["trials"], found["votes"], found["trials_with_two_votes"]) == (3, 6, 2)
    assert found["pairwise"] == 0.5  # of four pairs, two agree
