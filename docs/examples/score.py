# %% [markdown]
# # Score a super-resolution result
#
# Two GeoTIFFs on one grid, a table of numbers, and a map of where they differ. Runs as it is on
# the embedded sample (`pip install 'lpips-sat[sample]'`); put your own files in its place.

# %%
import tempfile
from pathlib import Path

import rasterio

from lpips_sat import open_pair, score_pair, suite
from lpips_sat.raster import MapWriter
from lpips_sat.sample import make_sample

folder = Path(tempfile.mkdtemp())
make_sample(folder / "sample")
pred, ref = (folder / "sample" / "rgbn" / f"{name}.tif" for name in ("pred", "ref"))

# %% [markdown]
# What the numbers mean is read from the files: these declare their scale. Otherwise say it:
# `open_pair(pred, ref, radiometry=RadiometryOptions(preset="s2-l2a"))`.

# %%
with open_pair(pred, ref) as pair, MapWriter(folder / "map.tif", pair.grid) as writer:
    metrics = suite("default", bands=pair.bands, factor=2)
    result = score_pair(pair, metrics, map_writer=writer)

for score in result.scores:
    print(f"{score.name:10} {score.value:8.4f} {score.unit}")

# %% [markdown]
# The map lies on the grid of the reference and opens in any GIS.

# %%
with rasterio.open(folder / "map.tif") as image:
    print(image.crs, image.shape, image.dtypes[0])
