"""Many raters at once, over HTTP, against the installed command in a process of its own."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "raters.py"
load = runpy.run_path(str(SCRIPT))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/stat")


def test_five_raters_at_once_lose_and_double_nothing(make):
    study = make(20, raters=5)
    assert load["measure"](study, think=(0, 0))["votes"] == 100  # and the server ended in order
    with study.store() as store:
        assert len(store.votes()) == 100


def test_a_vote_that_is_missing_is_noticed(make):
    study = make(3, raters=2)
    with load["serving"](study.folder) as links:
        load["crowd"](list(links["raters"].values())[:1], (0, 0))
    with pytest.raises(AssertionError, match="3 votes of 6 are missing"):
        load["assert_each_once"](study)


@pytest.mark.slow
def test_twenty_raters_of_200_votes_are_answered_within_200_ms(make):
    found = load["measure"](make(200, raters=20))
    print(found)  # noqa: T201
    assert found["votes"] == 4000
    # 20 raters ask for about 33 votes a second: this leaves two cores mostly idle, and so no queue
    assert found["server_cpu_milliseconds_per_vote"] < 25
    if found["cpu_of_others"] < 0.1:
        assert found["p99_milliseconds"] < 200
