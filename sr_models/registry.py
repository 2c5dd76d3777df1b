"""Models by name: the controls, trained pipelines, and what other packages register.

A model is anything with ``upscale(lr, scale)``: an array (C, H, W) in, (C, scale H, scale W) out,
in the same units. A package offers one by an entry point in the group ``sr_models.models``: a
callable without arguments that returns the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from lpips_sat import LpipsSatError
from lpips_sat.errors import one_line

from .cards import MARK, check_weights, read_card

if TYPE_CHECKING:
    from .pipeline import SRPipeline

GROUP = "sr_models.models"
# Trained pipelines of this repository; they are not part of the wheel.
CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"
Array = npt.NDArray[np.float32]


class Model(Protocol):
    """What super-resolves an image."""

    def upscale(self, lr: Array, scale: int) -> Array:
        """(C, H, W) -> (C, scale H, scale W), in the same units."""


class Bicubic:
    """The control that knows nothing: bicubic interpolation (PyTorch's, a = -0.75)."""

    def upscale(self, lr: Array, scale: int) -> Array:
        """See `Model`."""
        import torch
        from torch.nn import functional as F

        image = torch.from_numpy(np.ascontiguousarray(lr))[None]
        larger = F.interpolate(image, scale_factor=scale, mode="bicubic", align_corners=False)
        return np.asarray(larger[0])


class Plugin:
    """A model of another package; whatever it raises is told with its name."""

    def __init__(self, model: Model, point: EntryPoint) -> None:
        self.model, self.point = model, point

    def upscale(self, lr: Array, scale: int) -> Array:
        """See `Model`."""
        with _blamed(self.point):
            return self.model.upscale(lr, scale)


@contextmanager
def _blamed(point: EntryPoint) -> Iterator[None]:
    """Say of an error which package it is of."""
    try:
        yield
    except LpipsSatError:
        raise
    except Exception as error:  # another package's: whatever it raises is its own
        reason = one_line(error)
        raise LpipsSatError(
            f"model {point.name!r} of {point.value} failed ({reason}): update or uninstall its "
            "package"
        ) from error


def names() -> dict[str, str]:
    """Every model that `load_model` knows by name, with where it comes from."""
    found = {"bicubic": "control"}
    for path in sorted(CHECKPOINTS.glob(f"*/{MARK}")):
        card = read_card(path.parent)
        known = [f"{key} {card[key]}" for key in ("data", "steps", "seed") if key in card]
        found[path.parent.name] = f"checkpoint{': ' * bool(known)}{', '.join(known)}"
    for point in entry_points(group=GROUP):
        if point.name in found:
            found[point.name] += f"; not {point.value}, which has the same name"
        else:
            found[point.name] = point.value
    return found


def load_model(name: str | Path, *, device: str = "cpu") -> Model:
    """A model by name, or from a folder: a saved pipeline, or a training run that has ended."""
    folder = pipeline_folder(Path(name))
    if folder is None:
        folder = pipeline_folder(CHECKPOINTS / name)
    if folder is not None:
        return load_pipeline(folder, device)
    if str(name) == "bicubic":
        return Bicubic()
    for point in entry_points(group=GROUP, name=str(name)):
        with _blamed(point):
            make: Callable[[], Any] = point.load()
            model: Model = make()
        if not callable(getattr(model, "upscale", None)):
            raise LpipsSatError(f"model {name!r} of {point.value} has no upscale(lr, scale)")
        return Plugin(model, point)
    if Path(name).is_dir():
        raise LpipsSatError(
            f"{name} holds no {MARK} and no pipeline/{MARK}: expected a saved pipeline, or a "
            "training run that has ended"
        )
    raise LpipsSatError(
        f"no model {str(name)!r}: expected a folder, or one of {', '.join(names())}"
    )


def pipeline_folder(path: Path) -> Path | None:
    """Where the pipeline of a folder is, if it holds one."""
    for folder in (path, path / "pipeline"):
        if (folder / MARK).is_file():
            return folder
    return None


def device_of(wanted: str | None) -> str:
    """The device that is wanted, if it is here; None is the GPU where there is one."""
    import torch

    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise LpipsSatError(f"cannot use the device {wanted!r}: {reason}") from error
    return wanted


def load_pipeline(folder: Path, device: str) -> SRPipeline:
    """A saved pipeline on a device; a damaged one is one clear line."""
    from .pipeline import SRPipeline

    check_weights(folder)
    try:
        loaded = SRPipeline.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise LpipsSatError(f"cannot load the model in {folder}: {reason}") from error
    loaded.to(device_of(device))
    return loaded
