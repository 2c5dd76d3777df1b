"""Relative spectral energy per frequency, and the frequency up to which an image resolves."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import MetricInputError
from ..validity import combine, ratio_or_nan
from ._inputs import check_min_size, prepare

# Welch 1967, doi:10.1109/TAU.1967.1161901: Hann windows that overlap by half. Ring k of a window's
# spectrum holds the frequencies around k / WINDOW cycles/px, up to Nyquist.
WINDOW, STEP = 64, 32
LEVEL = 0.5  # of the reference's energy: where the relative MTF, its root, is 0.71
# Energy of the reference, relative to that of its values, that is rounding and not detail.
ROUNDING = 1e-24
# A window belongs to the pixel at its centre (right and below) and reaches this far from it.
HALO = WINDOW // 2


def ring_frequencies(window: int = WINDOW) -> Tensor:
    """The frequency of each ring in cycles/px: float64 (window / 2,), 1 / window to 1/2."""
    return torch.arange(1, window // 2 + 1, dtype=torch.float64) / window


def spectral_energy(
    pred: Tensor, ref: Tensor, *, valid: Tensor | None = None, window: int = WINDOW
) -> Tensor:
    """Energy of `pred` over that of `ref`, per ring of frequencies.

    The square of the relative MTF, if `pred` is a filtered `ref`. Energy is counted whether right
    or wrong: noise and invented detail raise it, even above 1.

    Args:
        pred: Floating (N, C, H, W) with H, W >= `window`, normally reflectance.
        ref: The truth, shaped like `pred`.
        valid: Boolean (N, 1, H, W), True = use the pixel; None = all.
        window: Side of a window in pixels, even; a smaller one for images smaller than 64 px.

    Returns:
        float64 (N, window / 2) at the `ring_frequencies`, 0 or more; identical images give 1.
        Energies are summed over bands and over windows (Hann, mean removed), one every half window
        from the top left. Only windows without an invalid pixel count; an image without any, and
        a ring in which `ref` is empty, give NaN.
    """
    sums = mtf_sums(pred, ref, valid=valid, window=window)
    check_min_size(pred, window, "MTF")
    return _ratio(sums)


def mtf(pred: Tensor, ref: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Frequency at which the energy of `pred` falls to half of that of `ref`.

    Args:
        pred: Floating (N, C, H, W) with H, W >= 64, normally reflectance.
        ref: The truth, shaped like `pred`.
        valid: Boolean (N, 1, H, W), True = use the pixel; None = all.

    Returns:
        float64 (N,) in cycles/px, in (0, 0.5], higher is better: the first crossing of 0.5 by
        `spectral_energy`, interpolated between rings. 0.5, the Nyquist frequency, if there is
        none: identical images, but also noise. NaN where `spectral_energy` has none.
        Divide a GSD by twice this for the effective resolution, see `effective_gsd`.
    """
    sums = mtf_sums(pred, ref, valid=valid)
    check_min_size(pred, WINDOW, "MTF")
    return mtf_from_sums(sums)


def effective_gsd(frequency: Tensor, *, gsd: float) -> Tensor:
    """The pixel size that would suffice for a resolved frequency (cycles/px): gsd / (2 f).

    In the unit of `gsd`, the pixel size of the image; equal to it at Nyquist.
    """
    return gsd / (2 * frequency)


def mtf_sums(
    pred: Tensor,
    ref: Tensor,
    *,
    valid: Tensor | None = None,
    core: Tensor | None = None,
    window: int = WINDOW,
) -> Tensor:
    """Return (N, window + 1) float64: energy of `pred` and of `ref` per ring, of the ref's values.

    Adds up over disjoint cores when tiles begin at multiples of half a window and carry half a
    window around their core, where the image goes on.
    """
    if not hasattr(window, "__index__") or window < 2 or window % 2:
        raise MetricInputError(
            f"window must be an even whole number of pixels, 2 or more, got {window!r}"
        )
    pred, ref, holds_data, counts_here = prepare(pred, ref, valid, core)
    if not pred.numel() or min(pred.shape[-2:]) < window:
        return pred.new_zeros((pred.shape[0], window + 1))
    half = window // 2
    rows, columns = ((n - window) // half + 1 for n in pred.shape[-2:])
    whole = _windows(holds_data, window).all(dim=-1).all(dim=-1)
    begins = counts_here[..., half::half, half::half][..., :rows, :columns]
    counted = combine(whole, begins).to(pred.dtype)
    energies = [_energy(x, counted, window) for x in (pred, ref)]
    level = (_windows(ref, window).square().sum(dim=(-2, -1)) * counted).sum(dim=(1, 2, 3))
    return torch.cat([*energies, level[:, None]], dim=1)


def mtf_from_sums(sums: Tensor) -> Tensor:
    """Return the frequencies (N,) in cycles/px of `mtf_sums` (N, 65)."""
    ratio = _ratio(sums)
    frequency = ring_frequencies().to(sums.device)
    below = ~(ratio >= LEVEL)  # NaN too
    last = below.to(torch.uint8).argmax(dim=1, keepdim=True)
    start = torch.ones_like(ratio[:, :1])  # at frequency 0
    before = torch.cat([start, ratio[:, :-1]], dim=1).gather(1, last)[:, 0]
    after = ratio.gather(1, last)[:, 0]
    crossed = below.any(dim=1)
    drop = torch.where(crossed, before - after, 1)
    found = frequency[last[:, 0]] - (LEVEL - after) / drop / WINDOW
    return torch.where(crossed, found, frequency[-1])


def effective_gsd_from_sums(sums: Tensor, *, gsd: float) -> Tensor:
    """Return the pixel sizes (N,) that would suffice, in the unit of `gsd`, of `mtf_sums`."""
    return effective_gsd(mtf_from_sums(sums), gsd=gsd)


def _ratio(sums: Tensor) -> Tensor:
    rings = sums.shape[1] // 2
    ours, theirs, level = sums.split([rings, rings, 1], dim=1)
    return ratio_or_nan(ours, torch.where(theirs > ROUNDING * level, theirs, 0))


def _windows(x: Tensor, window: int) -> Tensor:
    """(N, C, H, W) -> (N, C, rows, columns, window, window), without copying."""
    return x.unfold(2, window, window // 2).unfold(3, window, window // 2)


def _energy(x: Tensor, counted: Tensor, window: int) -> Tensor:
    """Energy per ring, summed over bands and the windows that count: (N, window / 2)."""
    line = torch.hann_window(window, dtype=x.dtype, device=x.device)
    rings = _rings(x, window)
    total = x.new_zeros((x.shape[0], window // 2))
    for row in range(counted.shape[2]):  # one row of windows at a time: they overlap in memory
        top = row * window // 2
        pieces = _windows(x[..., top : top + window, :], window)[:, :, 0]
        pieces = pieces - pieces.mean(dim=(-2, -1), keepdim=True)
        spectrum = torch.fft.rfft2(pieces * line[:, None] * line)
        power = spectrum.real.square() + spectrum.imag.square()
        total = total + torch.einsum("ncwij,ijr,nw->nr", power, rings, counted[:, 0, row])
    return total


def _rings(like: Tensor, window: int) -> Tensor:
    """Which half-plane frequencies belong to which ring: (window, window / 2 + 1, window / 2)."""
    y = torch.fft.fftfreq(window, dtype=like.dtype, device=like.device)[:, None]
    x = torch.fft.rfftfreq(window, dtype=like.dtype, device=like.device)
    radius = torch.round(torch.hypot(y, x) * window)
    twice = 1 + ((x > 0) & (x < 0.5)).to(like.dtype)  # with the other half-plane
    number = torch.arange(1, window // 2 + 1, dtype=like.dtype, device=like.device)
    return (radius[..., None] == number) * twice[:, None]
