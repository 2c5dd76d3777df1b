"""A raster scored tile by tile gives the number of the function on the whole arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, shift

from lpips_sat import functional, tiled
from lpips_sat.raster import open_pair
from lpips_sat.scoring import score_pair

BANDS = ("B04", "B03", "B02")
RANGE = {"data_range": 0.5}
# Function -> its parameters.
METRICS = {
    "bias": {},
    "ms_ssim": RANGE,
    "cpsnr": {**RANGE, "max_shift": 2},
    "cssim": {**RANGE, "max_shift": 1},
    "uiqi": {},
    "q2n": {},
    "scc": {},
}


@pytest.fixture(scope="module")
def arrays(textured):
    """Reflectance (3, 230, 213) of a pair with an offset and a shift, and a mask with a cloud."""
    ref = textured(3, 230, 213, seed=3)
    pred = gaussian_filter(shift(ref, (0, 1, 0), mode="nearest"), (0, 0.7, 0.7)) + 0.02
    rows, cols = np.mgrid[:230, :213]
    valid = (rows - 90) ** 2 + (cols - 10) ** 2 > 12**2
    return pred.astype(np.float32), ref.astype(np.float32), valid


@pytest.fixture(scope="module")
def by_tiles(arrays, put, tmp_path_factory):
    """The scores of tiles of 96 px, by the metric's name."""
    folder = tmp_path_factory.mktemp("tiles")
    pred, ref, valid = arrays
    clouded = np.where(valid, pred, -9).astype(np.float32)
    paths = [
        put(folder / name, image, bands=BANDS, nodata=-9)
        for name, image in (("pred.tif", clouded), ("ref.tif", ref))
    ]
    metrics = [getattr(tiled, name)(**given) for name, given in METRICS.items()]
    with open_pair(*paths) as pair:
        result = score_pair(pair, metrics, tile=96)
    return dict(zip(METRICS, result.scores, strict=True))


@pytest.mark.parametrize("name", METRICS)
def test_tiles_score_as_the_whole(arrays, by_tiles, name):
    pred, ref, valid = (torch.from_numpy(x)[None] for x in arrays)
    whole = getattr(functional, name)(pred, ref, valid=valid[None], **METRICS[name])
    assert whole.isfinite().all()
    assert by_tiles[name].value == pytest.approx(whole.item(), rel=1e-9)


def test_scores_per_band_are_named_by_the_bands(arrays, by_tiles):
    pred, ref, valid = (torch.from_numpy(x)[None] for x in arrays)
    expected = functional.bias_per_band(pred, ref, valid=valid[None])[0].tolist()
    assert by_tiles["bias"].per_band == pytest.approx(dict(zip(BANDS, expected, strict=True)))
    assert by_tiles["uiqi"].per_band is None


def test_a_tile_is_cut_around_its_core(arrays, put, tmp_path):
    path = put(tmp_path / "ref.tif", arrays[1], bands=BANDS)
    with open_pair(path, path) as pair:
        tiles = list(pair.tiles(size=100, halo=30))
    assert len(tiles) == 9
    for tile in tiles:
        part = tile.cut(7)
        rows, cols = part.core_slices
        assert (rows.start, cols.start) == (min(tile.row, 7), min(tile.col, 7))
        assert part.core.sum() == part.core[..., rows, cols].numel() == tile.height * tile.width
        assert torch.equal(part.ref[..., rows, cols], tile.ref[(..., *tile.core_slices)])
        beyond = min(230 - tile.row - tile.height, 7), min(213 - tile.col - tile.width, 7)
        assert part.ref.shape[-2:] == (rows.stop + beyond[0], cols.stop + beyond[1])
