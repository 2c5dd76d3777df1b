from __future__ import annotations

import math

import pytest

from lpips_sat.backbones import runs
from lpips_sat.backbones.runs import schedule
from lpips_sat.errors import WeightsError


def test_the_learning_rate_warms_up_linearly_and_ends_as_a_cosine():
    rates = [schedule(step, steps=8, warmup=4) for step in range(9)]
    cosine = [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(9)]
    warm = [0.25, 0.5, 0.75, *[1.0] * 6]
    assert rates == pytest.approx([w * c for w, c in zip(warm, cosine, strict=True)])
    assert rates[-1] == 0


def test_without_a_warm_up_a_run_starts_at_its_rate():
    assert schedule(0, steps=8, warmup=0) == 1


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"PK cut short")
    with pytest.raises(
        WeightsError, match=r"state\.pt, from which the run would go on, is damaged"
    ):
        runs.resume(tmp_path)
