"""Tiles add up to the whole; weights are saved and loaded."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lpips_sat import LPIPSSat
from lpips_sat.errors import WeightsError
from lpips_sat.scoring import metric_settings
from lpips_sat.suites import Settings, build

from .conftest import make_tiny, pair, rng

# --- tiles


def scene() -> tuple[Tensor, Tensor, Tensor]:
    """320 x 384 px with a masked wedge, wider than what fills it, and scattered holes."""
    pred, ref = pair(1, 320, 384, seed=20)
    valid = torch.rand(1, 1, 320, 384, generator=rng(21)) > 0.01
    valid[..., :150, :90] = False
    valid[..., 200:, 250:270] = False
    return pred, ref, valid


def tile_sums(
    metric: LPIPSSat, pred: Tensor, ref: Tensor, valid: Tensor, tile: int, margin: int
) -> tuple[Tensor, Tensor]:
    """Sums and the map put together from cores of `tile` px with `margin` px around them."""
    height, width = pred.shape[-2:]
    total, pixels = torch.zeros(()), torch.zeros_like(valid, dtype=torch.float32)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            first_row, first_column = max(top - margin, 0), max(left - margin, 0)
            rows, columns = (
                slice(first_row, top + tile + margin),
                slice(first_column, left + tile + margin),
            )
            core = torch.zeros_like(valid)
            core[..., top : top + tile, left : left + tile] = True
            window = (..., rows, columns)
            of_tile, sums = metric.map_and_sums(
                pred[window], ref[window], valid=valid[window], core=core[window]
            )
            total = total + sums
            pixels[core] = of_tile[core[window]]
    return total, pixels


def aligned(metric: LPIPSSat) -> int:
    """The halo, up to the next multiple of `align`."""
    return math.ceil(metric.halo / metric.align) * metric.align


@pytest.mark.parametrize("tile_in_strides", [3, 4])
def test_tiles_with_a_halo_add_up_to_the_whole(metric, tile_in_strides):
    pred, ref, valid = scene()
    tile = tile_in_strides * metric.align
    sums, pixels = tile_sums(metric, pred, ref, valid, tile, aligned(metric))
    whole_map, whole = metric.map_and_sums(pred, ref, valid=valid)
    torch.testing.assert_close(sums, whole, rtol=1e-5, atol=0)
    torch.testing.assert_close(pixels, whole_map, rtol=1e-4, atol=1e-5, equal_nan=True)
    score = metric(pred, ref, valid)
    torch.testing.assert_close(metric.from_sums(sums).float(), score, rtol=1e-5, atol=0)
    assert torch.equal(metric.sums(pred, ref, valid=valid), whole)


def test_without_their_halo_tiles_would_not_add_up(metric):
    pred, ref, valid = scene()
    sums, _ = tile_sums(metric, pred, ref, valid, 3 * metric.align, 0)
    scores = metric.from_sums(sums), metric.from_sums(metric.sums(pred, ref, valid=valid))
    assert (scores[0] / scores[1] - 1).abs() > 1e-3


def test_the_last_column_of_sums_counts_the_valid_pixels_of_the_core(tiny):
    pred, ref, valid = scene()
    core = torch.zeros_like(valid)
    core[..., 100:200, 50:300] = True
    assert tiny.sums(pred, ref, valid=valid, core=core)[0, -1] == (valid & core).sum()


def test_sums_without_a_valid_pixel_give_nan(tiny):
    pred, ref = pair(1)
    sums = tiny.sums(pred, ref, valid=torch.zeros(1, 1, 64, 64, dtype=torch.bool))
    assert torch.equal(sums, torch.zeros_like(sums))
    assert tiny.from_sums(sums).isnan().all()


# --- saving and loading


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with a tiny metric for the infrared of two bands."""
    card = {"name": "tiny", "evidence": [{"metric": "LPIPS-Sat", "agreement": 0.5}]}
    metric = make_tiny(
        bands=("B08", "B04", "B03"),
        radiometry="display",
        composite=("B08", "B08", "B04"),
        card=card,
    )
    metric.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_saved_and_loaded_it_is_the_same_metric_bit_for_bit(saved, offline, capfd):
    loaded = LPIPSSat.from_pretrained(saved)
    expected = make_tiny(
        bands=("B08", "B04", "B03"), radiometry="display", composite=("B08", "B08", "B04")
    )
    pred, ref = pair()
    assert torch.equal(loaded(pred, ref), expected(pred, ref))
    assert loaded.to_input.bands == ("B08", "B04", "B03")
    assert loaded.to_input.composite == ("B08", "B08", "B04")
    assert loaded.card == {
        "name": "tiny",
        "evidence": [{"metric": "LPIPS-Sat", "agreement": 0.5}],
    }
    for name, value in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not any(module.training for module in loaded.modules())
    assert capfd.readouterr().out == ""


def test_saved_again_the_weights_are_the_same_file(saved, tmp_path):
    LPIPSSat.from_pretrained(saved).save_pretrained(tmp_path / "again")
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (saved / file).read_bytes()


def test_arguments_replace_what_was_saved(saved):
    pred, ref = pair(bands=1)
    loaded = LPIPSSat.from_pretrained(
        saved, bands=("B08",), radiometry="reflectance", spatial=True, per_layer=True
    )
    assert loaded(pred, ref).shape == (2, 6, 64, 64)
    loaded.spatial = loaded.per_layer = False
    assert torch.equal(loaded(pred, ref), make_tiny(bands=("B08",))(pred, ref))


def test_shipped_weights_load_by_their_name(offline):
    loaded = LPIPSSat.from_pretrained("lin", radiometry="display")
    x, y = pair()
    assert torch.equal(loaded(x, y), LPIPSSat("lin", radiometry="display")(x, y))


def test_a_folder_does_not_stand_in_for_shipped_weights_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    LPIPSSat("lin").save_pretrained(tmp_path / "default")
    (suite,) = build(["lpips-sat"], Settings(("B04", "B03", "B02")))
    for metric in (LPIPSSat(), LPIPSSat.from_pretrained("default"), suite):
        assert metric.card["name"] == "default"
    for folder in ("./default", Path("default")):
        assert LPIPSSat.from_pretrained(folder).card["name"] == "lin"


@pytest.mark.parametrize("given", [{"backbone_config": {"depth": 3}}, {"card": {"name": "mine"}}])
def test_shipped_weights_refuse_a_config_or_a_card(given):
    with pytest.raises(WeightsError, match="backbone_config and card of 'lin' are its own"):
        LPIPSSat("lin", **given)


@pytest.mark.parametrize("name", ["no-such-weights", "nobody/no-such-weights", "/no such/folder"])
def test_weights_that_are_nowhere_are_one_line_that_names_them(offline, name):
    with pytest.raises(WeightsError, match=f"cannot load '{name}'.*save_pretrained") as caught:
        LPIPSSat.from_pretrained(name)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_config_is_refused(saved, caplog):
    (saved / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"cannot load .* has no config\.json"):
        LPIPSSat.from_pretrained(saved)


@pytest.mark.parametrize(
    "config",
    ["{broken", "[]", '{"backbone": "pyramid", "backbone_config": {"colour": 1}}'],
)
def test_a_damaged_config_is_one_line_that_names_the_folder(saved, config):
    (saved / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=r"cannot load '.*saved'") as caught:
        LPIPSSat.from_pretrained(saved)
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_is_refused(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"cannot read the weights .*model\.safetensors"):
        LPIPSSat.from_pretrained(saved)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_truncated_weights_file_is_refused(saved, kept):
    path = saved / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(WeightsError, match="cannot read the weights"):
        LPIPSSat.from_pretrained(saved)


def test_a_pickle_in_place_of_safetensors_is_not_opened(saved):
    torch.save(make_tiny().state_dict(), saved / "model.safetensors")
    with pytest.raises(WeightsError, match="cannot read the weights"):
        LPIPSSat.from_pretrained(saved)


@pytest.mark.parametrize("change", ["narrower", "missing", "surplus"])
def test_weights_of_another_network_are_refused_in_one_line(saved, change):
    path = saved / "model.safetensors"
    state = load_file(path)
    if change == "narrower":
        state["heads.0"] = state["heads.0"][:-1].clone()
    elif change == "missing":
        del state["heads.0"]
    else:
        state["heads.6"] = torch.ones(3)
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"weights of another network.*heads\.[06]") as caught:
        LPIPSSat.from_pretrained(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [-1e-3, math.nan, math.inf])
def test_negative_or_non_finite_heads_are_refused(saved, value):
    path = saved / "model.safetensors"
    state = load_file(path)
    state["heads.2"][1] = value
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"negative or non-finite head weights; it is no metric"):
        LPIPSSat.from_pretrained(saved)


def test_networks_without_a_card_are_told_apart_by_their_name():
    config = {"widths": [4, 6], "depth": 1}
    pyramid = LPIPSSat("pyramid", backbone_config=config)
    module = LPIPSSat(pyramid.backbone)
    assert metric_settings(pyramid) != metric_settings(module)
