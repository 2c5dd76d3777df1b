from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lpips_sat import LpipsSatError
from sr_models.network import build_unet, denoise, side_multiple, unshuffle_of
from sr_models.noise import NoiseField
from sr_models.pipeline import SRPipeline
from sr_models.profiles import load_profile, models
from sr_models.scheduler import BridgeScheduler
from sr_models.solvers import DPMSolver
from sr_models.tiling import blended_rows, starts

BANDS = ("B04", "B03", "B02", "B08")


def reflectance(bands=1, height=12, width=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.5 * torch.rand(2, bands, height, width, generator=generator)


# -- the network ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("bands", "fold"), [(1, 1), (1, 2), (3, 2), (4, 1), (4, 4)])
def test_the_network_takes_any_bands_and_folds(bands, fold, pipeline):
    unet = build_unet(bands, widths=(16, 16), unshuffle=fold, norm_num_groups=8)
    assert unshuffle_of(unet, bands) == fold
    assert side_multiple(unet, bands) == 2 * fold
    x, y = torch.randn(2, 2, bands, 16, 24)
    scheduler = pipeline().scheduler
    assert denoise(unet, scheduler, x, y, 7).shape == x.shape
    with pytest.raises(LpipsSatError, match="is not for 5 bands"):
        unshuffle_of(unet, 5)


def test_a_fresh_network_gives_the_bicubic_image(tiny):
    unet = build_unet(1, **tiny("flow").network)
    fresh = SRPipeline(unet, tiny("regression").make_scheduler(), steps=1)
    lr = reflectance()
    want = F.interpolate(lr, scale_factor=2, mode="bicubic", align_corners=False)
    torch.testing.assert_close(fresh(lr).samples[0], want, rtol=0, atol=1e-6)


def test_the_small_network_fits_into_3_mb_of_half_precision():
    profile = load_profile("sr3")
    count = sum(p.numel() for p in build_unet(1, **profile.network).parameters())
    assert 1_000_000 < count < 1_400_000


@pytest.mark.parametrize("name", ["small", "paper"])
def test_every_profile_holds_every_model(name):
    assert set(models(name)) == {
        *("sr3", "resshift", "i2sb", "unidb", "flow", "supresdiffgan", "regression")
    }
    for model in models(name):
        scheduler = load_profile(model, name).make_scheduler()
        scheduler.set_timesteps(load_profile(model, name).steps)
        assert scheduler.config.process == model
        if name == "small":
            assert scheduler.head == "sample"


def test_a_profile_refuses_what_it_does_not_know():
    with pytest.raises(LpipsSatError, match="unknown model 'esrgan': expected one of regression"):
        load_profile("esrgan")
    with pytest.raises(LpipsSatError, match="unknown profile 'large'"):
        load_profile("sr3", "large")
    with pytest.raises(LpipsSatError, match="no training option stesp: expected one of"):
        load_profile("sr3", train={"stesp": 3})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"loss": "huber"}, "loss must be one of l1, l2"),
        ({"steps": "abc"}, "steps must be int, got 'abc'"),
        ({"steps": True}, "steps must be int, got True"),
        ({"learning_rate": "high"}, "learning_rate must be float, got 'high'"),
        ({"learning_rate": math.inf}, "learning_rate must be finite, got inf"),
        ({"batch": 0}, "batch must be positive, got 0"),
        ({"warmup": -1}, "warmup must be at least 0, got -1"),
        ({"clip": float("nan")}, "clip must be finite, got nan"),
        ({"discriminator": 64}, r"discriminator must be a list of whole numbers, such as \[64"),
        ({"rate_decay": 0.5}, "rate_decay_at or rate_decay_every when: give both, got 0.5"),
        ({"rate_decay_at": [9]}, r"give both, got 1.0, \[9\] and 0"),
        ({"rate_decay": 2.0, "rate_decay_every": 9}, "rate_decay must be at most 1, got 2.0"),
        ({"rate_decay": 0.0, "rate_decay_every": 9}, "rate_decay must be positive, got 0.0"),
        ({"discriminator": []}, "discriminator must name the width of one level or more"),
        ({"discriminator": [64, 0]}, r"positive whole numbers, got \[64, 0\]"),
        ({"discriminator": [64, 1.5]}, r"positive whole numbers, got \[64, 1\.5\]"),
    ],
)
def test_training_options_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(LpipsSatError, match=message):
        load_profile("sr3", train=wrong)


# -- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", models())
def test_every_model_super_resolves(model, pipeline):
    lr = reflectance(bands=4)
    done = pipeline(model, bands=BANDS, steps=1 if model == "regression" else 2)(lr, num_samples=2)
    assert done.samples.shape == (2, 2, 4, 24, 40)
    assert done.samples.dtype == torch.float32
    assert torch.isfinite(done.samples).all()
    assert done.nfe == (1 if model == "regression" else 2)
    assert done.seconds > 0
    torch.testing.assert_close(done.mean, (done.samples[0] + done.samples[1]) / 2)
    torch.testing.assert_close(done.spread, (done.samples[0] - done.samples[1]).abs() / 2)
    assert (done.spread.max() > 0) == (model != "regression")


def test_units_are_those_of_the_input(pipeline):
    """Doubling the range and the image doubles the result."""
    lr = reflectance()
    one = pipeline(low=0.0, high=0.6)(lr).samples
    two = pipeline(low=0.0, high=1.2)(2 * lr).samples
    torch.testing.assert_close(two, 2 * one, rtol=0, atol=1e-5)


def test_the_seed_decides_and_the_batch_does_not(pipeline):
    model, lr = pipeline(), reflectance()
    both = model(lr, seed=3).samples
    torch.testing.assert_close(model(lr[1:], seed=3).samples, both[:, 1:], rtol=0, atol=1e-5)
    assert torch.equal(model(lr, seed=3).samples, both)
    assert not torch.equal(model(lr, seed=4).samples, both)


def test_the_first_sample_does_not_depend_on_how_many_follow(pipeline):
    model, lr = pipeline(), reflectance()
    assert torch.equal(model(lr, num_samples=3).samples[:1], model(lr).samples)


def test_saved_and_loaded_is_bit_identical(pipeline, tmp_path):
    model, lr = pipeline(bands=BANDS, card={"data": "toy"}, steps=3), reflectance(4)
    model.save_pretrained(tmp_path)
    loaded = SRPipeline.from_pretrained(tmp_path)
    assert torch.equal(loaded(lr).samples, model(lr).samples)
    assert loaded.config.card == {"data": "toy"}
    assert tuple(loaded.config.bands) == BANDS
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert not {n for n in names if n.endswith((".bin", ".pt", ".pkl"))}


def test_half_precision_halves_the_file_and_changes_little(pipeline, tmp_path):
    model, lr = pipeline(), reflectance()
    for name, half in (("full", False), ("half", True)):
        model.save_pretrained(tmp_path / name, half=half)
    sizes = [next((tmp_path / n).rglob("*.safetensors")).stat().st_size for n in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = SRPipeline.from_pretrained(tmp_path / "half")
    assert loaded.unet.dtype == torch.float32
    torch.testing.assert_close(loaded(lr).samples, model(lr).samples, rtol=0, atol=5e-3)
    assert model.unet.dtype == torch.float32


def test_sampling_leaves_the_training_tables_alone(pipeline):
    model = pipeline("supresdiffgan", steps=2)
    model(reflectance())
    model.scheduler.training_timesteps(3)
    assert model.scheduler.nodes == 1000


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@torch.no_grad()
def test_fast_takes_the_steps_of_dpm_solver(pipeline, monkeypatch):
    model, lr = pipeline("sr3", steps=4), reflectance()
    slow = model(lr, seed=3).samples[0]
    draws, draw = [], NoiseField.__call__

    def drawn(field, number, *where):
        draws.append(number)
        return draw(field, number, *where)

    monkeypatch.setattr(NoiseField, "__call__", drawn)
    model.fast = True
    fast = model(lr, seed=3)
    assert draws == [0]  # the prior, and no fresh noise
    assert fast.nfe == 4
    assert (fast.samples[0] - slow).abs().max() > 0.01
    bridge, y = BridgeScheduler.from_config(model.scheduler.config), model.upsample(lr)
    solver, x = DPMSolver(bridge, 4), NoiseField(3)(0, 1, 0, 0, 24, 40).expand_as(y)
    for t in solver.timesteps.tolist():
        x = solver.step(denoise(model.unet, bridge, x, y, t), t, x, y).prev_sample
    torch.testing.assert_close(fast.samples[0], model.to_values(x))


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 2, 8, 8), "of the bands B08"), ((1, 8, 8), "got")]
)
def test_a_wrong_shape_is_one_clear_line(pipeline, shape, message):
    with pytest.raises(LpipsSatError, match=message):
        pipeline()(torch.zeros(shape))


def test_a_range_needs_a_value_per_band(pipeline):
    with pytest.raises(LpipsSatError, match="one value per band"):
        pipeline(bands=BANDS, high=[0.5, 0.6])


# -- noise and tiles -------------------------------------------------------------------------------


def test_noise_is_standard_normal_and_depends_on_everything():
    field = NoiseField(1)
    noise = field(0, 2, 0, 0, 200, 300)
    assert noise.shape == (2, 200, 300)
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    others = [field(1, 2, 0, 0, 200, 300), NoiseField(2)(0, 2, 0, 0, 200, 300)]
    others.append(NoiseField(1, sample=1)(0, 2, 0, 0, 200, 300))
    for other in [*others, noise.flip(0)]:
        assert abs((noise * other).mean()) < 0.02


def test_windows_of_the_noise_agree_where_they_overlap():
    field = NoiseField(7)
    whole = field(3, 1, 0, 0, 300, 280)
    for row, col, height, width in ((0, 0, 10, 300 - 20), (63, 64, 2, 130), (150, 1, 149, 70)):
        part = field(3, 1, row, col, height, width)
        assert torch.equal(part, whole[:, row : row + height, col : col + width])


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(5, 8, 2), (8, 8, 2), (20, 8, 2), (9, 8, 3)]
)
def test_tiles_cover_the_image(length, tile, overlap):
    begins = starts(length, tile, overlap)
    covered = np.zeros(length, int)
    for begin in begins:
        covered[begin : begin + tile] += 1
    assert covered.min() >= 1
    assert begins[-1] + tile == max(length, tile)
    assert all(b - a <= tile - overlap for a, b in pairwise(begins))


@pytest.mark.parametrize("size", [(20, 31), (8, 8), (5, 40), (33, 7)])
def test_blended_tiles_of_a_pointwise_function_are_the_function_on_the_whole(size):
    image = np.random.default_rng(0).random((2, *size)).astype(np.float32)

    def run(row, col, height, width):
        return image[:, row : row + height, col : col + width].repeat(2, 1).repeat(2, 2)

    rows = list(blended_rows(run, *size, tile=8, overlap=3, scale=2))
    assert [row for row, _ in rows] == list(
        np.cumsum([0, *(values.shape[1] for _, values in rows)])[:-1]
    )
    whole = np.concatenate([values for _, values in rows], axis=1)
    np.testing.assert_allclose(whole, image.repeat(2, 1).repeat(2, 2), rtol=1e-5)


def test_neighbouring_tiles_meet_without_a_step():
    """Two tiles that differ by a constant: the blend climbs evenly over the overlap."""

    def run(row, col, height, width):
        return np.full((1, height, width), float(col > 0), np.float32)

    (_, rows), *_ = blended_rows(run, 8, 14, tile=10, overlap=6, scale=1)
    steps = np.diff(rows[0, 4])
    assert steps.min() >= 0
    assert steps.max() < 0.2


def test_an_image_through_tiles_is_the_image_in_one_piece(pipeline):
    """The network of this test mixes no pixels over more than the overlap; the noise agrees."""
    model = pipeline(steps=2)
    model.unet.conv_out.weight.data.zero_()
    model.unet.conv_out.bias.data.fill_(0.1)
    lr = reflectance(1, 40, 56)[:1]
    whole = model(lr).samples[0, 0].numpy()

    def read(row, col, height, width):
        return lr[0, :, row : row + height, col : col + width].numpy()

    parts = list(model.rows(read, 40, 56, tile=24, overlap=8))
    tiled = np.concatenate([samples[0] for _, samples in parts], axis=1)
    inside = np.abs(tiled - whole)
    assert np.median(inside) < 1e-6  # bicubic sees 2 pixels beyond a tile: only there it differs
    assert inside.max() < 0.05


def test_upscale_is_the_plain_interface(pipeline):
    model = pipeline()
    lr = reflectance()[0]
    up = model.upscale(lr.numpy(), 2)
    assert up.dtype == np.float32
    np.testing.assert_allclose(up, model(lr[None]).samples[0, 0].numpy(), rtol=0, atol=1e-6)
    with pytest.raises(LpipsSatError, match="trained for a factor of 2, not 4"):
        model.upscale(lr.numpy(), 4)
