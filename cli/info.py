"""`lpips-sat info`: what is there - metrics, suites, backbones, weights and their cards."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from .. import __version__
from ..radiometry import PRESETS, preset
from ..weights import cards
from . import options


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(as_json: bool) -> None:
    """List metrics, suites, presets, composites, backbones, and weights with their cards."""
    found = _collect()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    console = options.console()
    for title, entries in found.items():
        if isinstance(entries, str):
            console.print(f"[bold]{title}[/] {escape(entries)}")
            continue
        console.print(f"\n[bold]{title}[/]")
        for name, text in entries.items():
            _show(console, name, text, indent=2)


def _collect() -> dict[str, Any]:
    from ..backbones import BACKBONES, TIMM_PREFIX
    from ..composites import COMPOSITES
    from ..suites import METRICS, NEEDS, SUITES, plugins

    metrics = {
        name: "; ".join([entry.about, *(NEEDS[need][1] for need in entry.needs)])
        for name, entry in METRICS.items()
    }
    others = plugins()
    return {
        "lpips-sat": __version__,
        "metrics": metrics,
        **({"metrics of other packages": others} if others else {}),
        "suites": {name: ", ".join(members) for name, members in SUITES.items()},
        "radiometry": {
            name: preset(name, bands=["red"]).describe().removeprefix("B04: ") for name in PRESETS
        },
        "composites": {name: ", ".join(bands) for name, bands in COMPOSITES.items()},
        "backbones": {
            **{name: _about_backbone(name) for name in BACKBONES},
            f"{TIMM_PREFIX}NAME": "any timm feature pyramid",
        },
        "weights": cards(),
    }


def _about_backbone(name: str) -> str:
    from ..backbones.ssl4eo import PUBLISHED

    if name not in PUBLISHED:
        return "untrained architecture"
    return f"takes {', '.join(PUBLISHED[name].bands)}; weights: a local file, or `hub`"


def _show(console: Console, name: str, value: Any, *, indent: int) -> None:
    space = " " * indent
    if isinstance(value, dict):
        console.print(f"{space}{escape(name)}")
        for key, item in value.items():
            _show(console, key, item, indent=indent + 2)
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        console.print(f"{space}{escape(name)}")
        for item in value:
            facts = ", ".join(f"{key} {fact}" for key, fact in item.items())
            console.print(escape(f"{space}  {facts}"), soft_wrap=True)
    else:
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        console.print(escape(f"{space}{name}: {shown}"), soft_wrap=True)
