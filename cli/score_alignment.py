"""The options of `lpips-sat score` that put the prediction onto its reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def alignment_options(command: F) -> F:
    """Add them; all are off by default, and what they did is part of every result."""
    for option in reversed(
        [
            click.option(
                "--reproject",
                type=click.Choice(["nearest", "bilinear", "cubic"]),
                help="Resample a PRED on another grid to REF's.",
            ),
            click.option(
                "--register",
                is_flag=True,
                help="Estimate the shift of PRED to fractions of a pixel, and undo it.",
            ),
            click.option(
                "--harmonize",
                type=click.Choice(["linear", "histogram"]),
                help="Fit the values of PRED to REF's, band by band.",
            ),
        ]
    ):
        command = option(command)
    return command
