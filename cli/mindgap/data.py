"""`mindgap data`: build sets of low- and high-resolution pairs, and check them."""

from __future__ import annotations

import click


@click.group()
def data() -> None:
    """Build sets of low- and high-resolution pairs, and check them."""
