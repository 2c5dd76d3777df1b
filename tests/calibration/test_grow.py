import pytest
import torch

from lpips_sat.calibration.calibrate import load_backbone, save
from lpips_sat.calibration.grow import grow
from lpips_sat.errors import WeightsError
from lpips_sat.lpips import LPIPSSat

WIDTHS = [4, 6, 8]


@pytest.fixture
def metric() -> LPIPSSat:
    torch.manual_seed(2)
    config = {"widths": WIDTHS[:2], "depth": 1}
    metric = LPIPSSat("pyramid", radiometry="display", backbone_config=config, card={"name": "old"})
    for head in metric.heads:
        head.uniform_()
    return metric


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))


def layers(metric: LPIPSSat) -> torch.Tensor:
    metric.per_layer = True
    return metric(*pair())


def test_a_grown_metric_begins_as_the_old_one_and_a_little_of_the_new_stage(metric):
    old, new = layers(metric), layers(grow(metric, WIDTHS, seed=0))
    assert torch.equal(new[:, :4], old)
    assert (new[:, 4:] > 0).all()
    assert (new[:, 4:].sum(dim=1) < 0.2 * old.sum(dim=1)).all()


def test_a_wider_stage_keeps_the_responses_of_its_old_channels(metric):
    """Of a batch of images, before their vectors are made unit ones."""
    wide = grow(metric, [4, 9, 8], seed=0)
    old, new = (m.backbone(pair()[0]) for m in (metric, wide))
    assert [f.shape[1] for f in new] == [4, 4, 9, 9, 8, 8]
    for before, after in zip(old, new, strict=False):
        torch.testing.assert_close(after[:, : before.shape[1]], before)
    assert (new[2][:, 6:] > 0).any()
    for before, after in zip(metric.heads, wide.heads, strict=False):
        assert torch.equal(after[: len(before)], before)
        assert (after[len(before) :] < before.max()).all()


def test_a_grown_metric_is_saved_and_loaded_with_its_stages_and_its_card(metric, tmp_path):
    grown = grow(metric, WIDTHS, seed=0)
    save(grown, tmp_path / "grown")
    loaded = load_backbone(str(tmp_path / "grown"))
    assert torch.equal(loaded(*pair()), grown(*pair()))
    assert loaded.card["backbone"]["name"] == "old"


def test_the_seed_decides_how_new_stages_begin(metric):
    one, again, other = (layers(grow(metric, WIDTHS, seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("widths", [[3, 6, 8], [4, 5], [4]])
def test_smaller_widths_are_refused(metric, widths):
    with pytest.raises(WeightsError, match=r"no smaller than .* the backbone is pyramid \[4, 6\]"):
        grow(metric, widths, seed=0)


def test_another_backbone_is_refused():
    class Half(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x[..., ::2, ::2]]

    with pytest.raises(WeightsError, match=r"the backbone is Half$"):
        grow(LPIPSSat(Half(), "display"), WIDTHS, seed=0)
