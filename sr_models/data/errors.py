"""What this package raises: each says what was expected, what came, and what to do."""

from __future__ import annotations

from lpips_sat import LpipsSatError


class DegradationError(LpipsSatError, ValueError):
    """An image or a parameter that a degradation cannot take."""


class PairError(LpipsSatError):
    """Two images that make no pairs, or a set of pairs that cannot be used."""
