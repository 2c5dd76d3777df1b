# %% [markdown]
# # What do synthetic images cost on my sensors?
#
# From two rasters of one place to the gap between the usual benchmark and the real sensor, with
# intervals. Here the two are bands of the embedded Sentinel-2 scene, B8A at 20 m and B08 at 10 m:
# put your own in their place. `pip install 'lpips-sat[sample]'`.

# %%
import os
import tempfile
from pathlib import Path

from lpips_sat.declared import RadiometryOptions
from lpips_sat.sample import scene_file
from sr_models.data.build import Source, build_pairs
from sr_models.data.tiles import Layout
from sr_models.experiment.evaluate import Asked, evaluate
from sr_models.experiment.summary import gap_of, mean_of

STEPS = int(os.environ.get("STEPS", "200"))  # of the training; 200 take a minute on two cores
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# 1. Cut the two into aligned tiles, split by geography. What their numbers mean is said here; a
#    mask of clouds goes in with `mask=`. Case I degrades images as Sentinel-2 would see them, which
#    needs its bands at their own pixel size and the sun's zenith angle; for another sensor say
#    `degradation="bicubic"` in `Asked` below.

# %%
low, high = (
    Source(scene_file(band), RadiometryOptions(preset="s2-l1c", bands=(band,)), (band,))
    for band in ("B8A", "B08")
)
about = build_pairs(low, high, folder / "pairs", layout=Layout(tile=128), sun_zenith=45)
print(about["tiles"])

# %% [markdown]
# 2. Test interpolation and a small network in case I (trained and tested on degraded images), II
#    (the same network on the real sensor) and III (trained on it). What is not trained is trained.

# %%
asked = Asked(
    models=("bicubic", "regression"),
    cases=("I", "II", "III"),
    metrics=("psnr", "lpips-sat"),
    changes={"steps": STEPS, "looks": 1},
    runs=folder / "runs",
    device="cpu",
)
results = evaluate(folder / "pairs", folder / "results.parquet", asked)

# %% [markdown]
# 3. The gap, paired by patch, with an interval over spatial blocks. With one training it does not
#    speak of others: ask for `seeds=3` when it matters.

# %%
for model in asked.models:
    for metric in results.provenance["metrics"]:
        if metric in ("nfe", "seconds"):
            continue
        cases = "  ".join(f"{case} {mean_of(results, model, case, metric)}" for case in asked.cases)
        print(f"{model:10} {metric:10} {cases}  gap {gap_of(results, model, metric)}")
