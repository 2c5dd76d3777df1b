"""FID and KID on features learned from Sentinel-2: do two sets of images look alike as sets?

They need no pairs. The features are those of an LPIPS-Sat backbone, which the name says: numbers
of other backbones, such as Inception's on photographs, cannot be compared with these.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from .backbones.features import cell_share, unit_vectors
from .errors import MetricInputError
from .functional._inputs import check_min_size, check_pair
from .lpips import MIN_SIZE, LPIPSSat
from .radiometry import Kind
from .validity import soft_fill


class PooledFeatures(nn.Module):
    """Images -> the mean over valid pixels of every feature of an LPIPS-Sat backbone.

    As in LPIPS-Sat, the features of a position are scaled to unit length, layer by layer.

    Args:
        backbone: as of `lpips_sat.LPIPSSat`, and so are radiometry, bands and composite.

    Call:
        Floating (N, C, H, W), H and W >= 32 -> float32 (N, F). A pixel that is NaN in a band is
        invalid and left out. An image without a valid pixel is a MetricInputError.
    """

    def __init__(
        self,
        backbone: str = "default",
        *,
        radiometry: Kind = "reflectance",
        bands: Sequence[str] = ("B04", "B03", "B02"),
        composite: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.network = LPIPSSat(backbone, radiometry, bands, composite=composite)
        self.name = f"LPIPS-Sat {backbone}"
        self.num_features = sum(self.network.channels)  # what torchmetrics asks for

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features; see the class."""
        check_pair(images, images)
        check_min_size(images, MIN_SIZE, self.name)
        valid = ~images.detach().isnan().any(dim=1, keepdim=True)
        shown = soft_fill(self.network.to_input(images), valid)
        maps = self.network.backbone(shown.to(self.network.heads[0].dtype))
        pooled = []
        for feature, stride in zip(maps, self.network.strides, strict=True):
            share = cell_share(valid, stride, feature).to(feature.dtype)
            pooled.append((unit_vectors(feature) * share).sum(dim=(2, 3)) / share.sum(dim=(2, 3)))
        found = torch.cat(pooled, dim=1)
        broken = (~torch.isfinite(found)).any(dim=1).nonzero().flatten().tolist()
        if broken:
            raise MetricInputError(
                f"image(s) {broken} of the batch have no valid pixels, or infinite ones: leave "
                "such images out, and mark invalid pixels with NaN"
            )
        return found


class FID(FrechetInceptionDistance):
    """Fréchet distance between the Gaussians fitted to the features of two sets of images.

    |m1 - m2|^2 + trace(S1 + S2 - 2 (S1 S2)^(1/2)), 0 for identical sets, lower is better, no unit.
    Biased upward for small sets: compare sets of one size, with many more images than features
    (`PooledFeatures.num_features`, 464 by default); for fewer images take `KID`.

    Use:
        ``metric.update(images, real=True)`` with the true ones, ``real=False`` with the others,
        then ``metric.compute()``. Images as `PooledFeatures` takes them.

    References:
        Heusel et al. 2017, arXiv:1706.08500. Sums by torchmetrics; the trace of the root by
        singular values, because eigenvalues of a product gave negative distances.
    """

    def __init__(
        self,
        backbone: str = "default",
        *,
        radiometry: Kind = "reflectance",
        bands: Sequence[str] = ("B04", "B03", "B02"),
        composite: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        features = PooledFeatures(backbone, radiometry=radiometry, bands=bands, composite=composite)
        super().__init__(feature=features, **kwargs)
        self.name = f"FID ({features.name})"

    def compute(self) -> Tensor:
        """The distance, a float64 scalar."""
        real = self.real_features_sum, self.real_features_cov_sum, self.real_features_num_samples
        fake = self.fake_features_sum, self.fake_features_cov_sum, self.fake_features_num_samples
        (mean, spread), (other_mean, other_spread) = _moments(*real), _moments(*fake)
        overlap = torch.linalg.svdvals(_root(spread) @ _root(other_spread)).sum()
        distance = (mean - other_mean).square().sum() + spread.trace() + other_spread.trace()
        return (distance - 2 * overlap).clamp(min=0)


class KID(KernelInceptionDistance):
    """Kernel distance between the features of two sets of images: mean and spread over subsets.

    The squared maximum mean discrepancy under a cubic kernel, unbiased: around 0 for sets from one
    source, where it may be negative; lower is better, no unit. ``compute`` returns the mean and
    the standard deviation over ``subsets`` draws of ``subset_size`` images; no set may be smaller.

    Use and images as of `FID`. ``seed`` decides which subsets are drawn.

    References:
        Bińkowski et al. 2018, arXiv:1801.01401; computed by torchmetrics.
    """

    def __init__(
        self,
        backbone: str = "default",
        *,
        radiometry: Kind = "reflectance",
        bands: Sequence[str] = ("B04", "B03", "B02"),
        composite: Sequence[str] | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        features = PooledFeatures(backbone, radiometry=radiometry, bands=bands, composite=composite)
        with warnings.catch_warnings():
            # That features are kept in memory: a few hundred numbers an image.
            warnings.simplefilter("ignore", UserWarning)
            super().__init__(feature=features, **kwargs)
        self.seed = seed
        self.name = f"KID ({features.name})"

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over the subsets."""
        for name, kept in (("true", self.real_features), ("other", self.fake_features)):
            number = sum(len(part) for part in kept)
            if number < self.subset_size:
                raise MetricInputError(
                    f"KID draws subsets of {self.subset_size} images, but there are only {number} "
                    f"{name} ones: pass a smaller subset_size"
                )
        with torch.random.fork_rng():  # the caller's random state stays as it is
            torch.manual_seed(self.seed)
            return super().compute()


def _moments(total: Tensor, products: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased covariance of sums of features (F,) and of their products (F, F)."""
    if number < 2:
        raise MetricInputError(f"FID needs two images or more in each set, got {int(number)}")
    mean = total / number
    return mean, (products - number * torch.outer(mean, mean)) / (number - 1)


def _root(spread: Tensor) -> Tensor:
    """The symmetric square root of a covariance."""
    values, vectors = torch.linalg.eigh(spread)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T
