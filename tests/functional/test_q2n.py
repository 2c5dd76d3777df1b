import numpy as np
import pytest
import torch

from lpips_sat.errors import MetricInputError
from lpips_sat.functional import q2n
from lpips_sat.functional.q2n import q2n_sums


def conjugate(z):
    return np.concatenate([z[:1], -z[1:]])


def product(x, y):
    """Cayley and Dickson's product of two (2^n, pixels), pixel by pixel."""
    if len(x) == 1:
        return x * y
    (a, b), (c, d) = np.split(x, 2), np.split(y, 2)
    first = product(a, c) - product(conjugate(d), b)
    return np.concatenate([first, product(d, a) + product(b, conjugate(c))])


def quaternion_product(x, y):
    """Hamilton's table, written out."""
    a1, b1, c1, d1 = x
    a2, b2, c2, d2 = y
    return np.stack(
        [
            a1 * a2 - b1 * b2 - c1 * c2 - d1 * d2,
            a1 * b2 + b1 * a2 + c1 * d2 - d1 * c2,
            a1 * c2 - b1 * d2 + c1 * a2 + d1 * b2,
            a1 * d2 + b1 * c2 - c1 * b2 + d1 * a2,
        ]
    )


def block_index(pred, ref, multiply):
    """Q2n of one block (C, pixels) in float64 from its definition, every number at every pixel."""
    mean, std = ref.mean(axis=1, keepdims=True), ref.std(axis=1, ddof=1, keepdims=True)
    x, y = ((z - mean) / std + 1 for z in (pred, ref))
    size = 1 << (len(ref) - 1).bit_length()
    x, y = (np.pad(z, ((0, size - len(z)), (0, 0))) for z in (x, y))
    mx, my = x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True)
    covariance = multiply(x - mx, conjugate(y - my)).mean(axis=1)
    vx, vy = ((x - mx) ** 2).sum(axis=0).mean(), ((y - my) ** 2).sum(axis=0).mean()
    ax, ay = np.linalg.norm(mx), np.linalg.norm(my)
    return 4 * np.linalg.norm(covariance) * ax * ay / ((vx + vy) * (ax**2 + ay**2))


def pair(textured, bands, height=64, width=96):
    ref = textured(bands, height, width, seed=7)
    grain = 0.03 * np.random.default_rng(8).standard_normal(ref.shape)
    return 0.02 + ref + grain, ref


def blocks(image):
    rows = [image[:, i : i + 32, j : j + 32] for i in (0, 32) for j in (0, 32, 64)]
    return [block.reshape(len(image), -1) for block in rows]


@pytest.mark.parametrize(
    ("bands", "multiply"),
    [*((bands, product) for bands in (1, 2, 3, 4, 5, 8, 13)), (4, quaternion_product)],
)
def test_it_is_the_mean_of_the_definition_over_blocks(textured, bands, multiply):
    pred, ref = pair(textured, bands)
    expected = [block_index(p, r, multiply) for p, r in zip(blocks(pred), blocks(ref), strict=True)]
    score = q2n(*(torch.from_numpy(x)[None] for x in (pred, ref))).item()
    assert 0.3 < score < 0.95
    assert score == pytest.approx(np.mean(expected), abs=1e-12)


def test_one_band_is_wang_and_boviks_index_of_the_standardised_block(textured):
    pred, ref = (x[:, :32, :32] for x in pair(textured, 1))
    x, y = ((z - ref.mean()) / ref.std(ddof=1) + 1 for z in (pred, ref))
    cov = ((x - x.mean()) * (y - y.mean())).mean()
    level = x.mean() ** 2 + y.mean() ** 2
    expected = 4 * abs(cov) * x.mean() * y.mean() / ((x.var() + y.var()) * level)
    score = q2n(torch.from_numpy(pred)[None], torch.from_numpy(ref)[None]).item()
    assert score == pytest.approx(expected, abs=1e-12)


def test_each_band_weighs_alike_whatever_its_scale(textured):
    pred, ref = (torch.from_numpy(x)[None] for x in pair(textured, 4))
    weights = torch.tensor([1.0, 10.0, 0.1, 100.0]).view(4, 1, 1)
    torch.testing.assert_close(q2n(pred * weights, ref * weights), q2n(pred, ref))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_blocks_differ_by_level_only(dtype):
    ref = torch.full((1, 2, 32, 32), 0.2, dtype=dtype)
    assert q2n(ref, ref).item() == 1
    level = 1.1  # (0.3 - 0.2) / 1 + 1 in both bands
    expected = 2 * level / (1 + level**2)
    assert q2n(ref + 0.1, ref).item() == pytest.approx(expected, abs=1e-6)


def test_only_whole_valid_blocks_count():
    image = torch.rand(1, 3, 70, 97)
    valid = torch.ones(1, 1, 70, 97, dtype=torch.bool)
    valid[..., 40, 40] = False
    valid[..., 69, 96] = False  # beyond the blocks
    assert q2n_sums(image, image, valid=valid)[0].tolist() == pytest.approx([5, 5])


def test_an_image_smaller_than_a_block_is_refused():
    with pytest.raises(MetricInputError, match="Q2n needs images of at least 32 x 32"):
        q2n(torch.rand(1, 2, 31, 40), torch.rand(1, 2, 31, 40))
