"""`lpips-sat sample`: two real pairs to try everything on."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command()
@options.path_argument("directory")
@options.overwrite
def sample(directory: Path, overwrite: bool) -> None:
    """Write two real Sentinel-2 pairs into DIRECTORY.

    rgbn/: a scene at 10 m, and the same brought to 20 m and back. nir/: band 8 at 10 m, and the
    real 20 m band 8A on the same grid. Needs `pip install 'lpips-sat[sample]'`.
    """
    from ..sample import make_sample

    for path in make_sample(directory, overwrite=overwrite):
        click.echo(path)
