"""Every metric by the name that users type, and named groups of them.

A package adds a metric of its own by an entry point in `lpips_sat.metrics`: its name is what users
type, its value a `TileMetric` or a function that makes one from `Settings`. Plugins are looked up
by name only, so a suite holds the same metrics on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, cast

from . import tiled
from .backbones import BACKBONES, TIMM_PREFIX
from .errors import (
    MetricInputError,
    PluginError,
    UnknownMetricError,
    WeightsError,
    one_line,
)
from .lpips import LPIPSSat
from .opensr import opensr
from .perceptual import DISTS, LPIPS
from .radiometry import Kind
from .tiled import TileMetric
from .weights import shipped

GROUP = "lpips_sat.metrics"


@dataclass(frozen=True)
class Settings:
    """What a metric may ask for: what the images hold, and what the user chose.

    bands: names of the channels in order; radiometry: "reflectance" or "display"; data_range: R of
    PSNR and SSIM, in the units of the images; factor: LR GSD / HR GSD, None = not said; composite:
    three bands for the networks to look at, None = the usual ones; weights: a metric's name -> the
    name or the local path of its weights; lr_factor: by how much the images are finer than the
    low-resolution one that comes with them, None = there is none; gsd: side of a pixel in metres,
    None = unknown.
    """

    bands: tuple[str, ...]
    radiometry: Kind = "reflectance"
    data_range: float = 1.0
    factor: float | None = None
    composite: Sequence[str] | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    lr_factor: int | None = None
    gsd: float | None = None


@dataclass(frozen=True)
class Entry:
    """One metric: what it is in a line, how it is built, and what it cannot do without.

    needs: keys of `NEEDS`; `build` is called with settings that have all of them.
    """

    about: str
    build: Callable[[Settings], TileMetric]
    needs: tuple[str, ...] = ()


# What a metric can need: is it there, and what to say if not.
NEEDS: dict[str, tuple[Callable[[Settings], bool], str]] = {
    "two bands": (lambda s: len(s.bands) > 1, "needs two bands or more"),
    "factor": (lambda s: s.factor is not None, "needs --factor"),
    "lr": (lambda s: s.lr_factor is not None, "needs --lr"),
    "gsd": (lambda s: s.gsd is not None, "needs square pixels in metres"),
}


def _lpips_sat(settings: Settings) -> LPIPSSat:
    weights = settings.weights.get("lpips-sat", "default")
    given: dict[str, Any] = {
        "bands": settings.bands,
        "radiometry": settings.radiometry,
        "composite": settings.composite,
    }
    if weights in shipped() or Path(weights).is_dir():
        return LPIPSSat.from_pretrained(weights, **given)
    if weights == "pyramid":
        raise WeightsError("the pyramid is untrained: name a folder of weights, or leave it out")
    if weights not in BACKBONES and not weights.startswith(TIMM_PREFIX):
        raise WeightsError(
            f"no weights {weights!r}: expected one of {', '.join(shipped())}, or a folder that "
            "`lpips-sat calibrate` wrote, and there is none of that name"
        )
    return LPIPSSat(weights, **given)


def _ergas(settings: Settings) -> TileMetric:
    return tiled.ergas(ratio=1 / cast(float, settings.factor))


def _opensr(name: str, about: str) -> Entry:
    return Entry(about, lambda s: opensr(name, factor=cast(int, s.lr_factor)), needs=("lr",))


OPENSR = {
    "reflectance": "difference from the input, input units; lower is better",
    "spectral": "spectral angle to the input, degrees; lower is better",
    "spatial": "shift from the input, LR px; lower is better",
    "synthesis": "how much is added to the input, input units; higher is better",
    "improvement": "share of what is added that is right; higher is better",
    "omission": "share of the truth that is left out; lower is better",
    "hallucination": "share of what is added that is invented; lower is better",
}


def _perceptual(name: str, make: Callable[..., TileMetric]) -> Callable[[Settings], TileMetric]:
    def build(settings: Settings) -> TileMetric:
        return make(
            weights=settings.weights.get(name),
            bands=settings.bands,
            radiometry=settings.radiometry,
            composite=settings.composite,
        )

    return build


METRICS: dict[str, Entry] = {
    "lpips-sat": Entry("perceptual distance for satellite images; lower is better", _lpips_sat),
    "mae": Entry("mean absolute error, input units; lower is better", lambda s: tiled.mae()),
    "rmse": Entry("root mean squared error, input units; lower is better", lambda s: tiled.rmse()),
    "bias": Entry("mean signed error, input units; best at 0", lambda s: tiled.bias()),
    "psnr": Entry(
        "peak signal-to-noise ratio, dB; higher is better",
        lambda s: tiled.psnr(data_range=s.data_range),
    ),
    "ssim": Entry(
        "structural similarity; higher is better", lambda s: tiled.ssim(data_range=s.data_range)
    ),
    "ms-ssim": Entry(
        "multi-scale structural similarity; higher is better",
        lambda s: tiled.ms_ssim(data_range=s.data_range),
    ),
    "cpsnr": Entry(
        "PSNR that forgives a small shift and an offset, dB; higher is better",
        lambda s: tiled.cpsnr(data_range=s.data_range),
    ),
    "cssim": Entry(
        "SSIM that forgives a small shift and an offset; higher is better",
        lambda s: tiled.cssim(data_range=s.data_range),
    ),
    "scc": Entry("correlation of fine detail; higher is better", lambda s: tiled.scc()),
    "sam": Entry(
        "spectral angle, degrees; lower is better", lambda s: tiled.sam(), needs=("two bands",)
    ),
    "ergas": Entry(
        "relative global error of synthesis; lower is better", _ergas, needs=("factor",)
    ),
    "uiqi": Entry("universal image quality index; higher is better", lambda s: tiled.uiqi()),
    "q2n": Entry("quality index of all bands at once; higher is better", lambda s: tiled.q2n()),
    "lpips-alex": Entry(
        "LPIPS with AlexNet, made for photographs; lower is better",
        _perceptual("lpips-alex", partial(LPIPS, "alex")),
    ),
    "lpips-vgg": Entry(
        "LPIPS with VGG16, made for photographs; lower is better",
        _perceptual("lpips-vgg", partial(LPIPS, "vgg")),
    ),
    "dists": Entry(
        "structure and texture in VGG16, made for photographs; lower is better",
        _perceptual("dists", DISTS),
    ),
    "mtf": Entry(
        "frequency at which spectral energy falls to half, cycles/px; higher is better",
        lambda s: tiled.mtf(),
    ),
    "effective-gsd": Entry(
        "pixel size that would suffice for this frequency, m; lower is better",
        lambda s: tiled.effective_gsd(gsd=cast(float, s.gsd)),
        needs=("gsd",),
    ),
    **{f"opensr-{name}": _opensr(name, about) for name, about in OPENSR.items()},
}

SUITES: dict[str, tuple[str, ...]] = {
    "default": ("lpips-sat", "mae", "rmse", "psnr", "ssim", "sam", "ergas"),
    "fidelity": ("mae", "rmse", "bias", "psnr", "ssim", "ms-ssim", "cpsnr", "scc"),
    "perceptual": ("lpips-sat", "ms-ssim", "lpips-alex", "lpips-vgg", "dists"),
    "spectral": ("sam", "ergas", "uiqi", "q2n", "bias"),
    "opensr": tuple(name for name in METRICS if name.startswith("opensr-")),
}


def suite(
    name: str = "default",
    *,
    bands: Sequence[str],
    radiometry: Kind = "reflectance",
    data_range: float = 1.0,
    factor: float | None = None,
    composite: Sequence[str] | None = None,
    weights: Mapping[str, str] | None = None,
    lr_factor: int | None = None,
    gsd: float | None = None,
) -> list[TileMetric]:
    """Build the metrics of a suite for images with these bands; what does not apply is left out.

    ==============  ==============================================  ==========================
    suite           metrics                                         the question
    ==============  ==============================================  ==========================
    ``default``     lpips-sat mae rmse psnr ssim sam ergas          a first look
    ``fidelity``    mae rmse bias psnr ssim ms-ssim cpsnr scc       is each value right
    ``perceptual``  lpips-sat ms-ssim lpips-alex lpips-vgg dists    does it look right
    ``spectral``    sam ergas uiqi q2n bias                         are the spectra right
    ``opensr``      opensr-reflectance opensr-spectral              does it keep to its input,
                    opensr-spatial opensr-synthesis                 and is what it adds right
                    opensr-improvement opensr-omission
                    opensr-hallucination
    ==============  ==============================================  ==========================

    The networks of LPIPS and DISTS are downloaded once, 240 MB and 550 MB, or read from `weights`.
    Without ``factor`` there is no ERGAS, with one band no SAM, without ``lr_factor`` no opensr;
    `left_out` says so in words. cSSIM takes far longer than all others together, so it is in no
    suite.

    Args:
        name: a key of `SUITES`.
        bands: names of the channels, in order.
        radiometry: "reflectance" or "display", such as `pair.kind`.
        data_range: R of PSNR and SSIM, in the units of the images.
        factor: LR GSD / HR GSD, which ERGAS needs.
        composite: three bands for LPIPS-Sat to look at, if not the usual ones.
        weights: a metric's name -> the name or the local path of its weights.
        lr_factor: by how much the images are finer than the low-resolution one beside them.
        gsd: side of a pixel in metres.

    Raises:
        UnknownMetricError: no suite of that name, or no metric of it applies.
    """
    settings = Settings(
        tuple(bands), radiometry, data_range, factor, composite, weights or {}, lr_factor, gsd
    )
    return build(members(name, settings), settings)


def members(suite: str, settings: Settings) -> list[str]:
    """The names of a suite's metrics that apply."""
    if suite not in SUITES:
        raise UnknownMetricError(f"{suite!r}: choose from {', '.join(SUITES)}")
    names = [name for name in SUITES[suite] if _lacks(METRICS[name], settings) is None]
    if not names:
        raise UnknownMetricError(f"{suite!r}: {'; '.join(left_out(suite, settings))}")
    return names


def left_out(suite: str, settings: Settings) -> list[str]:
    """Why metrics of a suite do not apply, a line for each reason."""
    names: dict[str, list[str]] = {}
    for name in SUITES[suite]:
        if (reason := _lacks(METRICS[name], settings)) is not None:
            names.setdefault(reason, []).append(name)
    return [f"{', '.join(which)} {reason}" for reason, which in names.items()]


def build(names: Sequence[str], settings: Settings) -> list[TileMetric]:
    """Build metrics by name, each once, in this order; names may be in any case.

    Raises:
        UnknownMetricError: a name that does not exist, or whose metric does not apply, and why;
            or weights of a metric that is not among them.
        PluginError: a plugin that cannot be loaded, or that is no metric.
    """
    wanted = dict.fromkeys(n.lower() for n in names)
    if strange := sorted(set(settings.weights) - set(wanted)):
        raise UnknownMetricError(
            f"weights of {', '.join(strange)}, but the metrics are {', '.join(wanted)}"
        )
    return [_build(name, settings) for name in wanted]


def plugins() -> dict[str, str]:
    """The metrics of other packages, by name: what each is, or why it cannot be used."""
    found = {}
    for point in entry_points(group=GROUP):
        try:
            loaded = _load(point)
        except PluginError as error:
            found[point.name] = str(error)
            continue
        text = (
            loaded.name if _is_metric(loaded) else (loaded.__doc__ or "").strip().partition("\n")[0]
        )
        found[point.name] = f"{text.rstrip('.')} ({point.value})".strip()
    return found


def _build(name: str, settings: Settings) -> TileMetric:
    if name in METRICS:
        reason = _lacks(METRICS[name], settings)
        if reason is not None:
            raise UnknownMetricError(f"{name!r}: {name} {reason}")
        return METRICS[name].build(settings)
    for point in entry_points(group=GROUP):
        if point.name.lower() == name:
            return _from_plugin(point, settings)
    known = [*METRICS, *entry_points(group=GROUP).names]
    raise UnknownMetricError(f"{name!r}: choose from {', '.join(known)}")


def _lacks(entry: Entry, settings: Settings) -> str | None:
    """The first thing that a metric needs and these settings do not have, in words."""
    for need in entry.needs:
        there, message = NEEDS[need]
        if not there(settings):
            return message
    return None


def _load(point: EntryPoint) -> Any:
    if point.name.lower() in METRICS:
        raise _plugin_error(point, "has the name of a built-in metric")
    try:
        return point.load()
    except Exception as error:  # another package's: whatever it raises is its own
        raise _plugin_error(point, f"cannot be loaded ({one_line(error)})") from error


def _from_plugin(point: EntryPoint, settings: Settings) -> TileMetric:
    made = _load(point)
    if not _is_metric(made):
        try:
            made = made(settings)
        except MetricInputError:
            raise  # what the plugin refuses, in its own words
        except Exception as error:
            raise _plugin_error(point, f"cannot be built ({one_line(error)})") from error
    parts = ("name", "unit", "halo", "higher_is_better", "sums", "from_sums")
    missing = [part for part in parts if not hasattr(made, part)]
    if missing:
        raise _plugin_error(point, f"is no metric: it has no {', '.join(missing)}")
    return cast(TileMetric, made)


def _is_metric(loaded: Any) -> bool:
    """Whether a plugin is a metric already, and not what makes one."""
    return hasattr(loaded, "sums") and not isinstance(loaded, type)


def _plugin_error(point: EntryPoint, what: str) -> PluginError:
    package = point.dist.name if point.dist is not None else "its package"
    return PluginError(
        f"metric {point.name!r}: {point.value} {what}; update or uninstall {package}"
    )
