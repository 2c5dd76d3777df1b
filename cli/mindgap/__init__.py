"""The `mindgap` command: train, run and judge super-resolution models on synthetic and real pairs.

Its commands come from the entry-point group `mindgap.commands`, as those of `lpips-sat` do.
"""

from __future__ import annotations

import click

from ... import __version__
from .. import Commands

GROUP = "mindgap.commands"


@click.group(cls=Commands, points=GROUP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--verbose", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="mindgap")
def main(verbose: bool) -> None:
    """Quantify what synthetic training costs super-resolution on real cross-sensor pairs."""
