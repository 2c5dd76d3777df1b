"""Options and helpers that several commands share."""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..declared import RadiometryOptions
from ..radiometry import PRESETS

F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:  # not generic before click 8.3
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType

# Progress and messages for people; stdout carries results only.
stderr = Console(stderr=True)
PIPE = 1000  # columns of a table that no terminal shows


class CommaList(ParamType):
    """`a,b,c` -> ("a", "b", "c"), each converted by `item`."""

    def __init__(self, item: Callable[[str], Any] = str, name: str = "NAME,...") -> None:
        self.item = item
        self.name = name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Split at commas; an empty or ill-formed item is a usage error."""
        if not isinstance(value, str):
            return tuple(value)
        try:
            items = [self.item(part.strip()) for part in value.split(",") if part.strip()]
        except ValueError:
            items = []
        if not items:
            self.fail(f"expected a comma-separated list, got {value!r}: {self.name}", param, ctx)
        return tuple(items)


class FiniteRange(click.FloatRange):
    """A range of numbers without nan and infinity, which `click.FloatRange` lets through."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number; what is not finite is a usage error."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number

    def _describe_range(self) -> str:
        """What help says; `click` would write "x<=None" of no bounds."""
        return "" if self.min is None and self.max is None else super()._describe_range()


class FileName(click.Path):
    """The name of a file to write, which says its format; another one is a usage error."""

    def __init__(self, *suffixes: str) -> None:
        super().__init__(path_type=Path)
        self.suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; see the class."""
        if Path(value).suffix.lower() not in self.suffixes:
            self.fail(
                f"{value}: expected a name that ends in {', '.join(self.suffixes)}", param, ctx
            )
        return super().convert(value, param, ctx)


TABLE = FileName(".parquet", ".csv", ".json")
RASTER = FileName(".tif", ".tiff")
PARQUET = FileName(".parquet")


class Named(ParamType):
    """`name=value` -> ("name", "value"), each converted by `key` and `item`."""

    def __init__(
        self,
        name: str = "NAME=VALUE",
        *,
        key: Callable[[str], str] = str,
        item: Callable[[str], Any] = str,
    ) -> None:
        self.name, self.key, self.item = name, key, item

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """Split at the first `=`; an empty side is a usage error."""
        key, _, text = str(value).partition("=")
        if not key or not text:
            self.fail(f"expected {self.name}, got {value!r}", param, ctx)
        return self.key(key), self.item(text)


NAMES = CommaList()
NAMED = Named(key=str.lower)  # names of metrics are in any case
NUMBERS = CommaList(float, "NUMBER,...")

BETTER = {True: "higher", False: "lower", None: "near 0"}
BANDS = "Bands to compare, such as B04,B03,B02; names those of files without names."

overwrite = click.option("--overwrite", is_flag=True, help="Replace an output that exists.")


def seed(about: str) -> Callable[[F], F]:
    """Add --seed, 0 or more; about: what it decides."""
    return count("--seed", 0, about, most=2**32 - 1)


def count(
    name: str, default: int, about: str, *, least: int = 0, most: int | None = None
) -> Callable[[F], F]:
    """Add an option that takes a whole number, `least` or more."""
    kind = click.IntRange(least, most)
    return click.option(name, type=kind, default=default, show_default=True, help=about)


def radiometry(command: F) -> F:
    """Add the options that say what the numbers in the files mean."""
    command = click.option(
        "--pred-dn",
        "floating_dn",
        is_flag=True,
        help="Floating numbers of PRED are DN, not values: --radiometry and --scale apply to them.",
    )(command)
    return _radiometry(command, "", "", BANDS)


def radiometry_with(bands: str) -> Callable[[F], F]:
    """Add the same options where nothing is compared; `bands` is the help of `--bands`."""
    return lambda command: _radiometry(command, "", "", bands)


def radiometry_of(side: str, what: str, bands: str) -> Callable[[F], F]:
    """Add the same options for one file alone, as `--SIDE-radiometry`; `what` names it in help."""
    return lambda command: _radiometry(command, f"{side}-", f"For {what}: ", bands)


def _radiometry(command: F, prefix: str, about: str, bands: str) -> F:
    def option(name: str, text: str, *names: str, **settings: Any) -> Callable[[F], F]:
        return click.option(f"--{prefix}{name}", *names, help=about + text, **settings)

    dest = prefix.replace("-", "_") + "preset"
    for add in reversed(
        [
            option(
                "radiometry",
                "What the numbers are, where the files do not declare it.",
                dest,
                type=click.Choice(list(PRESETS)),
            ),
            option("bands", bands, type=NAMES),
            option("scale", "value = DN * SCALE + OFFSET.", type=NUMBERS),
            option(
                "offset",
                f"What is added after --{prefix}scale; integer files without a declared scale need "
                f"both (--{prefix}offset 0 if there is none).",
                type=NUMBERS,
            ),
            option("nodata", "The DN that means: nothing here.", type=float),
        ]
    ):
        command = add(command)
    return command


def radiometry_options(
    preset: str | None,
    scale: tuple[float, ...] | None,
    offset: tuple[float, ...] | None,
    nodata: float | None,
    floating_dn: bool = False,
) -> RadiometryOptions:
    """What the user said, as `open_pair` takes it; one number stands for all bands."""

    def one_or_each(values: tuple[float, ...] | None) -> float | tuple[float, ...] | None:
        return values[0] if values is not None and len(values) == 1 else values

    return RadiometryOptions(
        preset=preset,
        scale=one_or_each(scale),
        offset=one_or_each(offset),
        nodata=nodata,
        floating_dn=floating_dn,
    )


def eurosat(*, required: bool) -> Callable[[F], F]:
    """Add the options that say where the EuroSAT chips are."""

    def check(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
        if value is None and ctx.params["download"]:
            raise click.UsageError("--download needs --eurosat: where to put it")
        return value

    def add(command: F) -> F:
        command = click.option(
            "--download",
            is_flag=True,
            is_eager=True,  # read before --eurosat, which is checked against it
            help="Let torchvision download EuroSAT to --eurosat.",
        )(command)
        return click.option(
            "--eurosat",
            type=click.Path(path_type=Path),
            required=required,
            callback=check,
            help="EuroSAT RGB: its zip, its folder, or where to download it.",
        )(command)

    return add


def step_log(steps: int) -> Callable[[int, dict[str, float]], None]:
    """A line on stderr every hundred steps of a training."""

    def report(step: int, logs: dict[str, float]) -> None:
        if step % 100 == 0 or step + 1 == steps:
            known = (f"{name} {value:.3f}" for name, value in logs.items() if not math.isnan(value))
            shown = "  ".join(known)  # NaN is left out: the network and its adversary take turns
            stderr.print(f"step {step}/{steps}  {shown}", soft_wrap=True)

    return report


def console() -> Console:
    """Where tables are printed. A file or a pipe has no edge to fold them at, unless COLUMNS is."""
    edge = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, emoji=False, width=None if edge else PIPE)


def size_of(path: Path) -> str:
    """How large a file is, in kB or MB."""
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"


def progress() -> Progress:
    """A bar on stderr, if that is a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    )


def plain(value: Any) -> Any:
    """What JSON can hold: an infinite number is the string "inf", one that is not defined null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def number(value: float, sign: str = "") -> str:
    """Four decimals; three significant digits where four decimals would leave fewer."""
    small = 1e-7 < abs(value) < 0.01
    return f"{value:{sign}z{'#.3g' if small else '.4f'}}"  # z: no "-0.0000"


def interval(low: float, high: float, form: Callable[[float], str] = number) -> str:
    """`[low, high]` as markup, or a dash where it is not bounded."""
    known = math.isfinite(low) and math.isfinite(high)
    return escape(f"[{form(low)}, {form(high)}]") if known else "-"


def path_argument(name: str, **options: Any) -> Callable[[F], F]:
    """A path, or any name that GDAL opens; whether it exists is checked where it is opened."""
    return click.argument(name, type=click.Path(path_type=Path), **options)


def method_names(tables: tuple[Path, ...]) -> list[str]:
    """The shortest ending of each path that no other has; a file given twice is an error."""
    if len({path.resolve() for path in tables}) < len(tables):
        raise click.UsageError("a table is given twice")
    stems = Counter(path.stem for path in tables)
    return [path.stem if stems[path.stem] == 1 else str(path) for path in tables]
