"""`mindgap models`: what can be trained, and what can be run."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def models(as_json: bool) -> None:
    """List the models that are trained and evaluated, and those that `mindgap sr` runs."""
    from sr_models.experiment.foreign import CONTROLS
    from sr_models.profiles import PROFILES
    from sr_models.profiles import models as trained_in
    from sr_models.registry import names

    trainable = {name: trained_in(name) for name in PROFILES}
    if as_json:
        found = {"train": trainable, "controls": CONTROLS, "run": names()}
        click.echo(json.dumps(found, indent=2))
        return
    for profile, listed in trainable.items():
        click.echo(f"mindgap train --profile {profile}: {', '.join(listed)}")
    click.echo(f"mindgap evaluate --model: all, these, {', '.join(CONTROLS)}, and what follows")
    click.echo("mindgap sr --model:")
    for name, origin in names().items():
        click.echo(f"  {name}  ({origin})")
