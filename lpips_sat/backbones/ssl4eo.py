"""Self-supervised Sentinel-2 ResNets: SSL4EO-S12 checkpoints in the layout that torchgeo publishes.

Wang et al. 2023, "SSL4EO-S12: a large-scale multimodal, multitemporal dataset for self-supervised
learning in Earth observation", doi:10.1109/MGRS.2023.3281651. The networks saw Sentinel-2
Level-1C digital numbers over 10,000, which is top-of-atmosphere reflectance: three bands (red,
green, blue) or all thirteen. The weights are not part of this package: pass a local file, or ask
for the download.
"""

from __future__ import annotations

import hashlib
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from torch import Tensor, nn

from ..errors import WeightsError
from .base import Backbone
from .checkpoints import read_checkpoint

HUB = "hub"
LICENCE = "CC-BY-4.0 (SSL4EO-S12, zhu-xlab)"

# Mean reflectance of the bands of the Level-1C part of SSL4EO-S12, in the order in which the
# checkpoints take them: S2C_MEAN of the dataset's own code, over 10,000.
MEAN_REFLECTANCE = {
    "B01": 0.1606,
    "B02": 0.1391,
    "B03": 0.1315,
    "B04": 0.1364,
    "B05": 0.1549,
    "B06": 0.2092,
    "B07": 0.2372,
    "B08": 0.2300,
    "B8A": 0.2560,
    "B09": 0.0830,
    "B10": 0.0022,
    "B11": 0.2177,
    "B12": 0.1524,
}
ALL_BANDS = tuple(MEAN_REFLECTANCE)
RGB = ("B04", "B03", "B02")


@dataclass(frozen=True)
class Published:
    """A checkpoint as torchgeo publishes it: network, bands, and where it lies on the hub."""

    network: str
    bands: tuple[str, ...]
    repository: str
    revision: str
    file: str

    @property
    def digest(self) -> str:
        """The first eight digits of the file's sha256, which its name ends with."""
        return Path(self.file).stem.rpartition("-")[2]


def _published(network: str, bands: str, method: str, revision: str, digest: str) -> Published:
    name = f"{network}_sentinel2_{bands}_{method}"
    channels = RGB if bands == "rgb" else ALL_BANDS
    return Published(network, channels, f"torchgeo/{name}", revision, f"{name}-{digest}.pth")


# torchgeo.models.ResNet18_Weights and ResNet50_Weights (torchgeo 0.7): SENTINEL2_{ALL,RGB}_*.
PUBLISHED: dict[str, Published] = {
    "ssl4eo-s12-resnet18-moco": _published(
        "resnet18", "all", "moco", "5b8cddc9a14f3844350b7f40b85bcd32aed75918", "59bfdff9"
    ),
    "ssl4eo-s12-resnet18-moco-rgb": _published(
        "resnet18", "rgb", "moco", "e1c032e7785fd0625224cdb6699aa138bb304eec", "e3a335e3"
    ),
    "ssl4eo-s12-resnet50-moco": _published(
        "resnet50", "all", "moco", "da4f3c9dbe09272eb902f3b37f46635fa4726879", "df8b932e"
    ),
    "ssl4eo-s12-resnet50-moco-rgb": _published(
        "resnet50", "rgb", "moco", "efd9723b59a88e9dc1420dc1e96afb25b0630a3c", "2b57ba8b"
    ),
    "ssl4eo-s12-resnet50-dino": _published(
        "resnet50", "all", "dino", "d7f14bf5530d70ac69d763e58e77e44dbecfec7c", "d6c330e9"
    ),
}


class Ssl4eoFeatures(Backbone):
    """(N, 3 or 13, H, W) reflectance -> the stem and the four stages of a ResNet, finest first.

    Args:
        name: one of `PUBLISHED`; with ``-rgb`` it takes B04, B03, B02, else all 13 bands.
        checkpoint: a ``.pth`` or ``.safetensors`` file in torchgeo's layout, or ``"hub"`` to
            download it from the Hugging Face hub. Nothing is unpickled but tensors.
        pretrained: False builds the network alone, for weights that are loaded afterwards.

    ``bands`` maps the bands, in the network's order, to the reflectance that stands for a missing
    one; ``card`` says which checkpoint was loaded.
    """

    def __init__(
        self, name: str, *, checkpoint: str | Path | None = None, pretrained: bool = True
    ) -> None:
        import timm  # slow to import, and needed here only

        super().__init__()
        published = PUBLISHED[name]
        self.bands = {band: MEAN_REFLECTANCE[band] for band in published.bands}
        model: Any = timm.create_model(
            published.network, pretrained=False, features_only=True, in_chans=len(self.bands)
        )
        self.model = model
        self.channels = model.feature_info.channels()
        self.strides = model.feature_info.reduction()
        self.radius = _reach(model)
        self.card: dict[str, Any] = {}
        if pretrained:
            path = _find(name, checkpoint)
            _fill(model, path, name)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            self.card = {"name": name, "sha256": digest, "licence": LICENCE}

    def forward(self, x: Tensor) -> list[Tensor]:
        """The feature maps, finest first."""
        features: list[Tensor] = self.model(x)
        return features


def _reach(model: nn.Module) -> int:
    """Pixels on which a position of the last stage depends beyond its own.

    Every kernel in the order of the data, but those of the shortcuts, which lie inside.
    """
    radius, stride = 0, 1
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d) and "downsample" not in name:
            size, step = (
                v[0] if isinstance(v, tuple) else v for v in (layer.kernel_size, layer.stride)
            )
            radius += (size - 1) // 2 * stride
            stride *= step
    return radius


def _find(name: str, checkpoint: str | Path | None) -> Path:
    """The file of the weights; downloads it only if ``checkpoint`` is "hub"."""
    published = PUBLISHED[name]
    where = f"{published.file} from https://huggingface.co/{published.repository}"
    if checkpoint is None:
        raise WeightsError(
            f"the weights of {name} are not part of this package: download {where} and pass it as "
            f"checkpoint (--checkpoint FILE), or checkpoint={HUB!r} to have it downloaded"
        )
    if checkpoint != HUB:
        return Path(checkpoint)
    try:
        path = Path(
            hf_hub_download(published.repository, published.file, revision=published.revision)
        )
    except (OSError, ValueError) as error:  # huggingface_hub's errors are OSErrors or ValueErrors
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
        raise WeightsError(
            f"cannot download {where} ({reason}): fetch it elsewhere and pass the file as "
            "checkpoint"
        ) from error
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(published.digest):
        raise WeightsError(f"{path} is damaged: its sha256 does not begin with {published.digest}")
    return path


def _fill(model: nn.Module, path: Path, name: str) -> None:
    """Load a checkpoint; the classifier, if there is one, is left out."""
    state = {
        key: value for key, value in read_checkpoint(path).items() if not key.startswith("fc.")
    }
    expected = model.state_dict()
    stem = state.get("conv1.weight")
    if stem is not None and stem.shape[1:2] != expected["conv1.weight"].shape[1:2]:
        other = name.removesuffix("-rgb") if name.endswith("-rgb") else f"{name}-rgb"
        raise WeightsError(
            f"{path} takes {stem.shape[1]} bands, {name} takes "
            f"{expected['conv1.weight'].shape[1]}: did you mean {other}?"
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        found = ", ".join(list(state)[:3]) or "nothing"
        raise WeightsError(
            f"{path} is not {PUBLISHED[name].network} in torchgeo's layout (conv1.weight, "
            f"bn1.weight, layer1.0.conv1.weight, ...); it holds {len(state)} entries: {found}, ..."
        ) from error
