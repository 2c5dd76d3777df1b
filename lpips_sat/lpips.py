"""LPIPS-Sat: a perceptual distance for satellite images.

For stages l of a frozen backbone, with features f_l unit-normalised over channels,

    d(x, y) = sum_l mean over valid pixels of sum_c w_lc (f_lc(x) - f_lc(y))^2 ,   w_lc >= 0

the form of LPIPS (Zhang et al. 2018, "The unreasonable effectiveness of deep features as a
perceptual metric", eq. 1) on features that were learned from Sentinel-2.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from .backbones import build_backbone, saved_config
from .backbones.base import Backbone
from .backbones.features import weighted_distance
from .composites import input_for
from .errors import LpipsSatError, WeightsError
from .functional._inputs import check_min_size, check_pair
from .radiometry import Kind
from .validity import FILL_REACH, as_valid, combine, ratio_or_nan, soft_fill, sum_dtype
from .weights import STATE_FILE, WEIGHTS, check_shipped, shipped

MIN_SIZE = 32
CONFIG_FILE = "config.json"
# Arguments of from_pretrained that say where and how to download.
HUB_ARGUMENTS = (
    *("revision", "cache_dir", "force_download", "local_files_only", "token"),
    *("proxies", "resume_download"),  # of huggingface_hub before 1.0
)


class LPIPSSat(nn.Module, PyTorchModelHubMixin):
    """LPIPS-Sat as a metric and as a loss; frozen, always in evaluation mode.

    Args:
        backbone: name of shipped weights (``"default"``), of a bare architecture (``"pyramid"``,
            ``"timm:NAME"``, ``"ssl4eo-s12-..."``), or a module that maps (N, 3, H, W) in [0, 1] to
            a list of feature maps. A bare backbone is uncalibrated: every channel weighs 1.
        radiometry: what the images hold: "reflectance" (1.0 = white diffuser) or "display"
            (already stretched to [0, 1]).
        bands: the names of the C channels, in order.
        composite: the three bands that are looked at; by default the true colours, or what
            `lpips_sat.composites.choose_composite` picks.
        spatial: return the per-pixel map, whose mean over valid pixels is the score.
        per_layer: return the L terms of the sum apart.
        backbone_config: arguments of a bare architecture, such as the ``checkpoint`` of an
            ``"ssl4eo-s12-..."`` network.
        heads: a file that `save_heads` wrote, fitted to the same backbone.
        card: what is known about the weights; saved and loaded with them.

    Call:
        ``metric(pred, ref, valid=None)`` with floating (N, C, H, W), H and W >= 32, and boolean
        ``valid`` (N, 1, H, W). Returns (N,) float32; (N, L) with ``per_layer``; (N, 1, H, W) or
        (N, L, H, W) with ``spatial``, NaN at invalid pixels. Range [0, inf), 0 = identical,
        lower is better, no unit. An image without a valid pixel gives NaN.

    Values are taken in the declared unit as they come: only what reads files also checks their
    range. What lies under the mask changes nothing: it is replaced, in both images alike, by a
    normalised convolution of the image's own valid neighbourhood
    (`lpips_sat.validity.soft_fill`), and only valid pixels are averaged. Images are never resized.
    """

    name = "LPIPS-Sat"
    min_size = MIN_SIZE
    unit = ""
    higher_is_better = False

    def __init__(
        self,
        backbone: str | nn.Module = "default",
        radiometry: Kind = "reflectance",
        bands: Sequence[str] = ("B04", "B03", "B02"),
        spatial: bool = False,
        per_layer: bool = False,
        *,
        composite: Sequence[str] | None = None,
        backbone_config: Mapping[str, Any] | None = None,
        heads: str | Path | None = None,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.spatial, self.per_layer = spatial, per_layer
        folder = WEIGHTS / backbone if backbone in shipped() else None
        if folder is not None:
            if backbone_config or card:
                raise WeightsError(f"backbone_config and card of {backbone!r} are its own")
            config = json.loads((folder / CONFIG_FILE).read_text())
            backbone, backbone_config = config["backbone"], config["backbone_config"]
            card = config["card"]
        if isinstance(backbone, str):
            self.backbone: nn.Module = build_backbone(backbone, backbone_config)
        else:
            self.backbone = backbone
        self.to_input = input_for(self.backbone, bands, radiometry, composite)
        self.card = dict(card or {})
        if checkpoint := getattr(self.backbone, "card", None):
            self.card["backbone"] = checkpoint
        self.channels, self.strides = _describe(self.backbone)
        self.heads = nn.ParameterList(torch.ones(width) for width in self.channels)
        name = backbone if isinstance(backbone, str) else type(backbone).__name__
        self.config: dict[str, Any] = {  # what save_pretrained writes
            "backbone": name,
            "backbone_config": saved_config(name, backbone_config or {}),
            "radiometry": radiometry,
            "bands": list(self.to_input.bands),
            "composite": None if composite is None else list(composite),
            "card": self.card,
        }
        self._hub_mixin_config = self.config
        if folder is not None:
            check_shipped(folder.name)
            _load(self, folder / STATE_FILE)
        if heads is not None:
            _load_heads(self, Path(heads))
        self.requires_grad_(False).train(False)
        self.to(memory_format=torch.channels_last)

    @property
    def align(self) -> int:
        """Tiles must begin at multiples of this many pixels to see the features of the whole."""
        return math.lcm(*self.strides)

    @property
    def halo(self) -> int:
        """Pixels around a tile on which its map depends; 128 if the backbone does not say."""
        return int(getattr(self.backbone, "radius", 128)) + FILL_REACH

    def train(self, mode: bool = True) -> LPIPSSat:
        """Stays in evaluation mode: a parent's ``train()`` must not thaw a metric."""
        return super().train(False)

    def forward(self, pred: Tensor, ref: Tensor, valid: Tensor | None = None) -> Tensor:
        """The distance; see the class for shapes."""
        check_pair(pred, ref)
        check_min_size(pred, MIN_SIZE, self.name)
        holds_data = as_valid(valid, pred)
        maps = self._maps(pred, ref, None if valid is None else holds_data)
        if self.spatial:
            return self._pixel_map(maps, holds_data, per_layer=self.per_layer)
        sums = self._sums(maps, holds_data)
        means = ratio_or_nan(sums[:, :-1], sums[:, -1:])
        return (means if self.per_layer else means.sum(dim=1)).float()

    def sums(
        self, pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, core: Tensor | None = None
    ) -> Tensor:
        """Float64 (N, L + 1): sum of each layer's map over valid ``core`` pixels, their number.

        Adds up over disjoint cores when tiles begin at multiples of ``align`` and carry ``halo``.
        """
        check_pair(pred, ref)
        holds_data, counts = as_valid(valid, pred), as_valid(core, pred, name="core")
        return self._sums(self._maps(pred, ref, holds_data), combine(holds_data, counts))

    def map_and_sums(
        self, pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, core: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The map (N, 1, H, W), NaN where invalid, and `sums`, in one pass."""
        check_pair(pred, ref)
        holds_data, counts = as_valid(valid, pred), as_valid(core, pred, name="core")
        maps = self._maps(pred, ref, holds_data)
        return self._pixel_map(maps, holds_data), self._sums(maps, combine(holds_data, counts))

    def from_sums(self, sums: Tensor) -> Tensor:
        """Scores float64 (N,) of `sums`; NaN where nothing was valid."""
        return ratio_or_nan(sums[:, :-1].sum(dim=1), sums[:, -1])

    def _maps(self, pred: Tensor, ref: Tensor, valid: Tensor | None) -> list[Tensor]:
        """Each layer's distance per feature position, [(N, 1, h_l, w_l)]."""
        features = list(self.backbone(self._network_input(pred, ref, valid)))
        # The largest come last, and each is freed when it is done with: half the memory.
        deepest_first = [weighted_distance(features.pop(), head) for head in reversed(self.heads)]
        return deepest_first[::-1]

    def _network_input(self, pred: Tensor, ref: Tensor, valid: Tensor | None) -> Tensor:
        """Both images as the backbone takes them (2N, C, H, W), masked pixels filled."""
        both = torch.cat([self.to_input(pred), self.to_input(ref)])
        if valid is not None:
            both = soft_fill(both, torch.cat([valid, valid]))
        dtype = next((p.dtype for p in self.backbone.parameters()), both.dtype)
        return both.to(dtype).contiguous(memory_format=torch.channels_last)

    def _pixel_map(
        self, maps: Sequence[Tensor], valid: Tensor, *, per_layer: bool = False
    ) -> Tensor:
        """Every pixel gets the value of its feature position: (N, 1 or L, H, W)."""
        height, width = valid.shape[-2:]
        layers = torch.cat(
            [_grow(m, s, height, width) for m, s in zip(maps, self.strides, strict=True)], dim=1
        )
        result = layers if per_layer else layers.sum(dim=1, keepdim=True)
        return torch.where(valid, result, torch.nan)

    def _sums(self, maps: Sequence[Tensor], counted: Tensor) -> Tensor:
        columns = []
        for distances, stride in zip(maps, self.strides, strict=True):
            weights = _cell_sums(counted, stride, distances.shape[-2:])
            columns.append((distances.to(weights.dtype) * weights).sum(dim=(1, 2, 3)))
        columns.append(counted.sum(dim=(1, 2, 3), dtype=sum_dtype(counted)))
        return torch.stack(columns, dim=1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast; heads stay in float32 at least, for float16 ends below their weights."""
        before = [head.detach() for head in self.heads]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for head, kept in zip(self.heads, before, strict=True):
            if head.dtype.itemsize < torch.float32.itemsize:
                head.data = kept.to(head.device, torch.float32)
        return self

    # -- saving and loading -------------------------------------------------------------------

    def save_heads(self, path: str | Path) -> None:
        """Write the head weights and the card alone: small, for others who have the backbone."""
        state = {f"heads.{i}": h.detach().cpu().contiguous() for i, h in enumerate(self.heads)}
        about = {"backbone": self.config["backbone"], "card": json.dumps(self.card)}
        save_file(state, path, metadata=about)

    def _save_pretrained(self, save_directory: Path) -> None:
        state = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        save_file(state, save_directory / STATE_FILE)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> LPIPSSat:
        """Load a folder that ``save_pretrained`` wrote, shipped weights, or a hub repository.

        The name of shipped weights means these, also beside a folder of that name ("./default").
        ``kwargs`` are the hub's (``revision``, ``token``, ...) and this class's; the latter replace
        what was saved. Whatever is missing, damaged or made for another network is a WeightsError.
        """
        if "bands" in kwargs:  # the composite that was saved belongs to the bands that were saved
            kwargs.setdefault("composite", None)
        source = str(pretrained_model_name_or_path)
        if source in shipped() and not isinstance(pretrained_model_name_or_path, Path):
            check_shipped(source)
            source = str(WEIGHTS / source)
        try:
            return super().from_pretrained(source, **kwargs)
        except LpipsSatError:
            raise
        except (OSError, ValueError, TypeError, AttributeError) as error:
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
            raise WeightsError(
                f"cannot load {source!r}, neither as a local folder nor from the hub ({reason}). "
                "Pass a folder written by save_pretrained."
            ) from error

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The README.md of a saved folder: how to load it, and its card."""
        name = self.card.get("name", "uncalibrated")
        lines = [
            "---",
            "library_name: lpips-sat",
            "---",
            f"# LPIPS-Sat: {name}",
            "A perceptual distance for satellite images. Load this folder with",
            '`LPIPSSat.from_pretrained("FOLDER")` from `lpips_sat`.',
            "",
            "```json",
            json.dumps(self.card, indent=2),
            "```",
        ]
        return ModelCard("\n".join(lines) + "\n")

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        map_location: str = "cpu",
        **kwargs: Any,
    ) -> LPIPSSat:
        """Safetensors only, from a local folder or the hub; never unpickles anything."""
        hub = {key: kwargs.pop(key) for key in HUB_ARGUMENTS if key in kwargs}
        if "backbone" not in kwargs:
            raise WeightsError(
                f"cannot load {model_id!r}: it has no {CONFIG_FILE} that names a backbone. "
                "Pass a folder written by save_pretrained."
            )
        folder = Path(model_id)
        path = folder / STATE_FILE
        if not folder.is_dir():
            path = Path(hf_hub_download(model_id, STATE_FILE, **hub))
        model = cls(**kwargs)
        _load(model, path)
        return model.to(map_location)


def _cell_sums(mask: Tensor, stride: int, size: torch.Size) -> Tensor:
    """How many pixels of ``mask`` belong to each feature position: float64 (N, 1, h, w).

    Pixel i belongs to position i // stride; the last position takes what remains.
    """
    height, width = mask.shape[-2:]
    padded = F.pad(mask.to(sum_dtype(mask)), (0, -width % stride, 0, -height % stride))
    cells = F.avg_pool2d(padded, stride) * stride**2
    for axis in (-2, -1):
        rest = cells.narrow(axis, size[axis] - 1, cells.shape[axis] - size[axis] + 1)
        cells = torch.cat(
            [cells.narrow(axis, 0, size[axis] - 1), rest.sum(axis, keepdim=True)], dim=axis
        )
    return cells


def _grow(distances: Tensor, stride: int, height: int, width: int) -> Tensor:
    """(N, 1, h, w) -> (N, 1, height, width): every pixel gets the value of its position."""
    rows, cols = (
        torch.arange(n, device=distances.device).div(stride, rounding_mode="floor").clamp(max=m - 1)
        for n, m in zip((height, width), distances.shape[-2:], strict=True)
    )
    return distances[:, :, rows][:, :, :, cols]


def _describe(backbone: nn.Module) -> tuple[list[int], list[int]]:
    """Channels and strides of the feature maps, declared or found with probes of 128 and 256 px.

    Two sizes, because convolutions without padding lose positions at the border.
    """
    if isinstance(backbone, Backbone):
        return backbone.channels, backbone.strides
    small, large = _probe(backbone, 128), _probe(backbone, 256)
    steps = [b.shape[-1] - a.shape[-1] for a, b in zip(small, large, strict=True)]
    if not all(1 <= step <= 128 for step in steps):
        raise WeightsError(
            "a backbone's feature maps must grow with the image, at most as fast; from 128 to "
            f"256 px their widths grew by {steps}"
        )
    return [f.shape[1] for f in small], [round(128 / step) for step in steps]


def _probe(backbone: nn.Module, size: int) -> Sequence[Tensor]:
    like = next(backbone.parameters(), torch.zeros(()))
    with torch.no_grad():
        features: Any = backbone.eval()(like.new_zeros(1, 3, size, size))
    maps = features if isinstance(features, list | tuple) else ()
    if not maps or not all(isinstance(f, Tensor) and f.ndim == 4 for f in maps):
        raise WeightsError(
            "a backbone must map (N, 3, H, W) to a list of feature maps (N, C, h, w), got "
            f"{type(features).__name__}"
        )
    return maps


def _load(model: LPIPSSat, path: Path) -> None:
    """Put a safetensors file into ``model``; anything that does not fit is a WeightsError."""
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read the weights {path}: {error}") from error
    except RuntimeError as error:
        reason = textwrap.shorten(str(error), 300)  # one line of what may be hundreds
        raise WeightsError(f"{path} holds weights of another network: {reason}") from error
    _check_heads(model, path)


def _load_heads(model: LPIPSSat, path: Path) -> None:
    """Give ``model`` the heads and the card of a file that ``save_heads`` wrote."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read the heads {path}: {error}") from error
    made_for, card = about.get("backbone"), json.loads(about.get("card", "{}"))
    own, theirs = (c.get("backbone", {}).get("sha256") for c in (model.card, card))
    if made_for != model.config["backbone"] or own != theirs:
        raise WeightsError(
            f"{path} was fitted to {made_for or 'an unnamed backbone'} (sha256 "
            f"{theirs or 'unknown'}), this is {model.config['backbone']} ({own or 'unknown'})"
        )
    try:
        model.load_state_dict({**model.state_dict(), **state})
    except RuntimeError as error:
        raise WeightsError(
            f"{path} is no file of heads: {textwrap.shorten(str(error), 200)}"
        ) from error
    _check_heads(model, path)
    model.card.update(card)


def _check_heads(model: LPIPSSat, path: Path) -> None:
    if any((head < 0).any() or not torch.isfinite(head).all() for head in model.heads):
        raise WeightsError(f"{path} holds negative or non-finite head weights; it is no metric")
