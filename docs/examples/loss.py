# %% [markdown]
# # LPIPS-Sat as a loss
#
# A small network learns x2 super-resolution from the embedded Sentinel-2 scene, by L1 alone and by
# L1 with a little LPIPS-Sat, which is differentiable, frozen and independent of the batch, and so
# called like any loss. `pip install 'lpips-sat[sample]'`.

# %%
import os
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from lpips_sat import LPIPSSat, open_pair
from lpips_sat.functional import psnr
from lpips_sat.sample import make_sample

BANDS = ("B04", "B03", "B02")
STEPS = int(os.environ.get("STEPS", "300"))  # a minute on two cores
WEIGHT = 0.001  # of LPIPS-Sat; more looks sharper and costs PSNR

folder = Path(tempfile.mkdtemp())
make_sample(folder / "sample")
rgbn = folder / "sample" / "rgbn"
with open_pair(rgbn / "pred.tif", rgbn / "ref.tif", bands=BANDS) as pair:
    scene = pair.window(0, 0, 960, 960).ref[0]  # reflectance (3, 960, 960)


# %%
def crops(count: int, generator: torch.Generator, side: int = 64) -> torch.Tensor:
    """Random crops (count, 3, side, side) of the upper two thirds; the rest is for the test."""
    rows = torch.randint(640 - side, (count,), generator=generator)
    cols = torch.randint(960 - side, (count,), generator=generator)
    return torch.stack(
        [scene[:, r : r + side, c : c + side] for r, c in zip(rows, cols, strict=True)]
    )


def halve(image: torch.Tensor) -> torch.Tensor:
    return F.interpolate(image, scale_factor=0.5, mode="bicubic", antialias=True)


def train(weight: float) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 12, 3, padding=1),
        nn.PixelShuffle(2),
    )
    metric, generator = LPIPSSat(bands=BANDS), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(STEPS):
        ref = crops(8, generator)
        pred = enlarge(network, halve(ref))
        loss = F.l1_loss(pred, ref) + weight * metric(pred, ref).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


def enlarge(network: nn.Module, small: torch.Tensor) -> torch.Tensor:
    return F.interpolate(small, scale_factor=2, mode="bicubic") + network(small)


# %%
test = scene[None, :, 640:]
metric = LPIPSSat(bands=BANDS)
for weight in (0.0, WEIGHT):
    network = train(weight)
    with torch.no_grad():
        pred = enlarge(network, halve(test))
        decibel, distance = psnr(pred, test, data_range=1.0), metric(pred, test)
    print(f"weight {weight}: PSNR {decibel.item():.2f} dB, LPIPS-Sat {distance.item():.4f}")
