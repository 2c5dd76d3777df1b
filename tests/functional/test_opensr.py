import json
import runpy
from math import nan
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lpips_sat.errors import MetricInputError
from lpips_sat.functional.opensr import consistency, correctness, synthesis

VALUES = Path(__file__).parent.parent / "reference_values"
REFERENCE = json.loads((VALUES / "opensr.json").read_text())["results"]
example = runpy.run_path(str(VALUES / "make_opensr.py"))["example"]


def images(name: str = "x4, four bands") -> tuple[Tensor, Tensor, Tensor]:
    """Super-resolution, truth and input of a case, (1, C, H, W) each."""
    found = example(**REFERENCE[name]["case"])
    return tuple(torch.from_numpy(found[key])[None] for key in ("sr", "hr", "lr"))


def everything(sr: Tensor, hr: Tensor, lr: Tensor, valid: Tensor | None = None) -> Tensor:
    """All seven scores, (7, N)."""
    return torch.stack(
        [
            *consistency(sr, lr, valid=valid),
            synthesis(sr, hr, lr, valid=valid),
            *correctness(sr, hr, lr, valid=valid),
        ]
    )


def enlarged(lr: Tensor, factor: int = 4) -> Tensor:
    return F.interpolate(lr, scale_factor=factor, mode="bilinear")


@pytest.mark.parametrize("name", REFERENCE)
def test_the_scores_are_those_of_opensr_test(name):
    expected = REFERENCE[name]["opensr_test"]
    keys = ("reflectance", "spectral", "spatial", "synthesis")
    keys += ("im_metric", "om_metric", "ha_metric")
    found = everything(*images(name))[:, 0]
    assert found.tolist() == pytest.approx([expected[key] for key in keys], abs=1e-6)


def test_the_input_itself_is_consistent_with_itself():
    _, _, lr = images()
    lr = torch.cat([lr, lr.flip(-1)], dim=-1).repeat(1, 1, 2, 1)
    for score in consistency(lr, lr.clone()):
        assert score.tolist() == pytest.approx([0], abs=1e-12)


def test_correctness_tells_truth_input_and_invention_apart():
    _, hr, lr = images()
    noise = 0.05 * torch.randn(hr.shape, generator=torch.Generator().manual_seed(0)).double()
    perfect, lazy, inventive = (
        torch.cat(correctness(sr, hr, lr)) for sr in (hr, enlarged(lr), hr + noise)
    )
    for winner, shares in enumerate((perfect, lazy, inventive)):
        assert shares.argmax() == winner
        assert shares.sum().item() == pytest.approx(1)


def test_a_shift_of_the_super_resolution_is_found_in_pixels_of_the_input():
    _, hr, lr = images()
    moved = consistency(torch.roll(hr, (4, -8), (2, 3)), lr)
    assert moved.spatial.item() == pytest.approx(5**0.5, abs=0.1)
    assert consistency(torch.roll(hr, (0, 32), (2, 3)), lr).spatial.isnan()


def test_a_bias_is_seen_by_consistency_and_harmonised_away_for_the_rest():
    _, hr, lr = images()
    clean, biased = everything(hr, hr, lr), everything(1.2 * hr + 0.01, hr, lr)
    assert biased[0] > clean[0] + 0.02
    torch.testing.assert_close(biased[3:], clean[3:], rtol=1e-6, atol=1e-9)


def test_a_score_does_not_depend_on_the_rest_of_the_batch():
    sr, hr, lr = (torch.cat([x, x.flip(-1)]) for x in images())
    valid = torch.ones(2, 1, 128, 160, dtype=torch.bool)
    valid[1, :, 40:60, 70:90] = False
    alone = [everything(sr[[i]], hr[[i]], lr[[i]], valid[[i]]) for i in range(2)]
    torch.testing.assert_close(everything(sr, hr, lr, valid), torch.cat(alone, dim=1))


@pytest.mark.parametrize("junk", [nan, 1e9])
def test_what_lies_under_the_mask_changes_nothing(junk):
    sr, hr, lr = images()
    valid = torch.ones(1, 1, 128, 160, dtype=torch.bool)
    valid[..., 30:62, 40:90] = False
    clean = everything(sr, hr, lr, valid)
    touched = ~valid[..., ::4, ::4] | ~valid[..., 3::4, 3::4]
    dirty = [
        sr.masked_fill(~valid, junk),
        hr.masked_fill(~valid, junk),
        lr.masked_fill(touched, junk),
    ]
    assert torch.equal(everything(*dirty, valid), clean)
    assert clean.isfinite().all()
    whole = everything(sr, hr, lr)
    assert (clean != whole).sum() == 6  # all but the shift, which is found in steps
    torch.testing.assert_close(clean, whole, rtol=0.05, atol=0.01)


def test_only_pixels_that_look_at_valid_ones_alone_count():
    _, _, lr = images()
    sr = enlarged(lr)
    base = consistency(sr, lr).reflectance
    spoiled = sr.clone()
    spoiled[..., 64:68, 64:68] += 1.0
    valid = torch.ones(1, 1, 128, 160, dtype=torch.bool)
    valid[..., 64:68, 64:68] = False
    assert consistency(spoiled, lr).reflectance > base + 1e-3
    assert consistency(spoiled, lr, valid=valid).reflectance.item() == pytest.approx(
        base.item(), rel=0.05
    )


def test_images_without_anything_to_judge_have_no_score():
    sr, hr, lr = (torch.cat([x, x]) for x in images())
    valid = torch.ones(2, 1, 128, 160, dtype=torch.bool)
    valid[0] = False
    scores = everything(sr, hr, lr, valid)
    assert scores.isnan().all(dim=0).tolist() == [True, False]
    flat = torch.full_like(hr, 0.2)
    nothing = correctness(flat, flat, torch.full_like(lr, 0.2))
    assert torch.cat(nothing).isnan().all()


def test_one_band_has_no_spectral_angle():
    sr, hr, lr = (x[:, :1] for x in images())
    scores = everything(sr, hr, lr)[:, 0]
    assert scores.isnan().tolist() == [False, True] + [False] * 5


def test_sizes_that_do_not_fit_are_refused():
    sr, hr, lr = images()
    for small in (lr[..., :-1], lr[:, :3], torch.cat([lr, lr])):
        with pytest.raises(MetricInputError, match="integer number of times as large as `lr`"):
            consistency(sr, small)
    with pytest.raises(MetricInputError, match=r"opensr needs.*64 x 64"):
        synthesis(sr[..., :60, :], hr[..., :60, :], lr[..., :15, :])
