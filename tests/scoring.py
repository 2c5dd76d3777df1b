"""Scores of two files, for the tests of scoring."""

from __future__ import annotations

from lpips_sat.raster import MapWriter, open_pair
from lpips_sat.scoring import score_pair
from lpips_sat.suites import Settings, build, members

BANDS = ("B04", "B03", "B02", "B08")
DATA_RANGE, FACTOR = 0.8, 4.0
NAMES = ["LPIPS-Sat", "MAE", "RMSE", "PSNR", "SSIM", "SAM", "ERGAS"]


def score(pred, ref, *, metrics=None, tile=512, map_path=None, **options):
    """Score two files with all metrics, or those named."""
    with open_pair(pred, ref, **options) as pair:
        settings = Settings(pair.bands, pair.kind, data_range=DATA_RANGE, factor=FACTOR)
        chosen = build(metrics or members("default", settings), settings)
        if map_path is None:
            return score_pair(pair, chosen, tile=tile)
        with MapWriter(map_path, pair.grid, description="distance") as writer:
            return score_pair(pair, chosen, tile=tile, map_writer=writer)
