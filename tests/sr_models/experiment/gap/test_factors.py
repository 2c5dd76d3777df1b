from __future__ import annotations

import json

import numpy as np
import pytest

from sr_models.data.degradation import Blind
from sr_models.data.errors import PairError
from sr_models.data.factors import FACTORS, fit_factors
from sr_models.data.pairs import PairDataset


def fitted(root, degradation):
    return fit_factors(PairDataset(root, "train"), degradation)


def seeded(number=9):
    return np.random.default_rng(number)


def test_every_factor_is_found_in_a_sensor_that_differs_in_all(
    write_set, sensor, moved, hr, tmp_path
):
    other = sensor(mtf=0.2, snr=60)

    def real(image):
        return 1.1 * other(moved(image, 0.8, -0.5), seeded()) - 0.01

    factors = fitted(write_set(tmp_path / "set", hr, real), sensor())
    assert factors.registration.dy == pytest.approx(0.4, abs=0.02)
    assert factors.registration.dx == pytest.approx(-0.25, abs=0.02)
    assert factors.radiometry.gain == pytest.approx((1 / 1.1,), rel=0.02)
    # two Gaussian MTFs, 0.33 and 0.2 at half a cycle: their ratio at a quarter, and at the half
    gain = factors.mtf.transfer(48, 48)[0, 0]
    assert gain[0] == 1
    assert gain[24] == pytest.approx((0.33 / 0.2) ** (1 / 4), rel=0.05)
    assert gain[46] == pytest.approx((0.33 / 0.2) ** ((46 / 48) ** 2), rel=0.12)
    # noise at the mean reflectance: 90 % of the variance is shot noise
    level = np.sqrt(0.9 * hr.mean() / 0.2 + 0.1) * 0.2
    assert factors.noise.real == pytest.approx((1.1 * level / 60,), rel=0.2)
    assert factors.noise.synthetic == pytest.approx((level / 160,), rel=0.1)


def test_noise_does_not_flatten_the_line(write_set, sensor, hr, tmp_path):
    noisy = sensor(snr=4)
    root = write_set(tmp_path / "set", hr, lambda image: 0.9 * noisy(image, seeded()) + 0.02)
    factors = fitted(root, sensor())
    assert factors.radiometry.gain == pytest.approx((1 / 0.9,), rel=0.02)
    real, synthetic = (
        np.stack([item["lr"].numpy() for item in PairDataset(root, "train", kind, **how)])
        for kind, how in (("real", {}), ("synthetic", {"degradation": sensor()}))
    )
    line = np.polyfit(real.ravel(), synthetic.ravel(), 1)[0]
    assert line < 0.9 / 0.9  # what least squares finds is a tenth too little


def test_bands_have_factors_of_their_own(write_set, sensor, textured, tmp_path):
    scene = textured(2, 576, 576, seed=5)
    both = sensor(bands=2)
    lines = np.array([1.1, 0.9])[:, None, None], np.array([0.0, 0.02])[:, None, None]
    sharp, soft = sensor(mtf=0.33), sensor(mtf=0.2, snr=30)

    def real(image):
        one, two = sharp(image[:1], seeded(1)), soft(image[1:], seeded(2))
        return lines[0] * np.concatenate([one, two]) + lines[1]

    factors = fitted(write_set(tmp_path / "set", scene, real, bands=("B08", "B04")), both)
    assert factors.radiometry.gain == pytest.approx((1 / 1.1, 1 / 0.9), rel=0.02)
    gains = factors.mtf.transfer(48, 48)[:, 0, 40]
    assert gains == pytest.approx([1, (0.33 / 0.2) ** ((40 / 48) ** 2)], rel=0.1)
    assert 3 < factors.noise.real[1] / factors.noise.real[0] < 7
    pair = PairDataset(tmp_path / "set", "test")[0]
    views = factors.views(pair["hr"].numpy().astype(float), both, pair["id"])
    done = factors.apply(pair["lr"].numpy().astype(float), views, on=FACTORS, rng=seeded())
    assert done.shape == (2, 48, 48)
    assert np.abs(done - views.placed).max() < 0.02


def test_nothing_is_changed_where_nothing_differs(write_set, sensor, hr, tmp_path):
    same = sensor()
    root = write_set(tmp_path / "set", hr, lambda image: same(image, seeded()))
    factors = fitted(root, same)
    pair = PairDataset(root, "test")[0]
    lr = pair["lr"].numpy().astype(float)
    views = factors.views(pair["hr"].numpy().astype(float), same, pair["id"])
    assert np.array_equal(factors.apply(lr, views, on=(), rng=seeded()), lr)
    noise = 0.2 / 160
    for factor in FACTORS:
        changed = factors.apply(lr, views, on={factor}, rng=seeded()) - lr
        assert np.sqrt(np.mean(changed**2)) < 0.5 * noise, factor


def test_the_noise_ends_at_the_synthetic_level_whatever_else_is_off(
    write_set, sensor, hr, tmp_path
):
    real = sensor(mtf=0.2, snr=40)
    root = write_set(tmp_path / "set", hr, lambda image: 1.2 * real(image, seeded()))
    synthetic = sensor()
    factors = fitted(root, synthetic)
    expected = synthetic(hr, seeded())  # any draw: its noise is what counts
    wanted = np.std(expected - sensor(snr=1e9)(hr, seeded()))
    left = []
    for pair in PairDataset(root, "test"):
        clean = pair["hr"].numpy().astype(float)
        views = factors.views(clean, synthetic, pair["id"])
        lr = pair["lr"].numpy().astype(float)
        for on in (("radiometry", "mtf"), FACTORS):
            done = factors.apply(lr, views, on=on, rng=seeded())
            left.append(np.std((done - views.placed)[:, 4:-4, 4:-4]))
    amplified, matched = np.mean(left[::2]), np.mean(left[1::2])
    assert amplified > 3 * wanted
    assert matched == pytest.approx(wanted, rel=0.35)


def test_a_degradation_that_varies_is_not_taken_for_noise(write_set, sensor, hr, tmp_path):
    root = write_set(tmp_path / "set", hr, lambda image: sensor()(image, seeded()))
    blind = Blind(2, mtf=(0.1, 0.5), noise=(2e-3, 2e-3))
    factors = fitted(root, blind)
    assert 1.4e-3 < factors.noise.synthetic[0] < 3.5e-3
    drawn = [blind(hr, seeded(k)) for k in (0, 1)]
    assert np.std(drawn[0] - drawn[1]) / np.sqrt(2) > 1.3 * factors.noise.synthetic[0]


def test_test_pairs_are_not_read(write_set, sensor, hr, tmp_path):
    real = sensor(mtf=0.2)
    root = write_set(tmp_path / "set", hr, lambda image: real(image, seeded()))
    before = fitted(root, sensor())
    for split in ("test", "val"):
        for file in PairDataset(root, split).tiles[["lr", "hr"]].to_numpy().ravel():
            (root / file).unlink()
    again = fitted(root, sensor())
    assert again == before
    assert json.loads(json.dumps(again.to_dict()))["mtf"]["rings"][0][0] == 1


def test_flat_images_have_no_factors(write_set, sensor, tmp_path):
    silent = sensor(snr=np.inf)
    flat = np.full((1, 576, 576), 0.2)
    root = write_set(tmp_path / "set", flat, lambda image: silent(image, seeded()) + 0.01)
    factors = fitted(root, silent)
    assert (factors.registration.reliability, factors.radiometry.gain) == (0, (1.0,))
    assert factors.radiometry.offset == pytest.approx((-0.01,), abs=1e-6)
    pair = PairDataset(root, "test")[0]
    views = factors.views(pair["hr"].numpy().astype(float), silent, pair["id"])
    done = factors.apply(pair["lr"].numpy().astype(float), views, on=FACTORS, rng=seeded())
    assert done == pytest.approx(np.full((1, 48, 48), 0.2), abs=1e-5)


def test_what_cannot_be_estimated_is_refused(write_set, sensor, hr, tmp_path):
    same = sensor()
    root = write_set(tmp_path / "set", hr, lambda image: 0.4 - same(image, seeded()))
    with pytest.raises(PairError, match="do not rise with the HR images"):
        fitted(root, same)
    few = PairDataset(root, "train")
    few.tiles = few.tiles.iloc[:1]
    with pytest.raises(PairError, match="two training tiles or more"):
        fit_factors(few, same)
    root = write_set(tmp_path / "good", hr, lambda image: same(image, seeded()))
    factors, pair = fitted(root, same), PairDataset(root, "test")[0]
    views = factors.views(pair["hr"].numpy().astype(float), same, pair["id"])
    with pytest.raises(PairError, match="no factor clouds: expected some of registration"):
        factors.apply(views.placed, views, on={"clouds"}, rng=seeded())
