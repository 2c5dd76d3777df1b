"""The `lpips-sat` command: a group whose commands come from an entry-point group.

A package adds a command of its own by an entry point in `lpips_sat.commands` (`mindgap.commands`
for `mindgap`). Results go to stdout, progress and errors to stderr; exit codes are 0 (done), 1
(refused or failed), 2 (usage).
"""

from __future__ import annotations

import sys
import traceback
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn

import click

from .. import LpipsSatError, __version__
from ..errors import one_line

GROUP = "lpips_sat.commands"


class Commands(click.Group):
    """Loads a command when it is called; shows errors as one line unless `--verbose`.

    points: the entry-point group that its commands come from.
    """

    def __init__(self, *args: Any, points: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.points = points

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all installed commands."""
        return sorted(entry_points(group=self.points).names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, if it is installed."""
        for point in entry_points(group=self.points, name=cmd_name):
            try:
                command = point.load()
            except Exception as error:  # another package's: the other commands still work
                return _broken(point, error)
            if isinstance(command, click.Command):
                return command
        return None

    def invoke(self, ctx: click.Context) -> Any:
        """Run; whatever goes wrong becomes one line on stderr and exit code 1."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params.get("verbose"):
                click.echo(traceback.format_exc(), err=True, nl=False)
            elif isinstance(error, LpipsSatError):
                click.echo(f"Error: {error}", err=True)
            else:
                reason = " ".join(str(error).split())
                click.echo(
                    f"Error: unexpected {type(error).__name__}: {reason} "
                    f"(this is a bug: run again as `{ctx.info_name} --verbose ...` and report it)",
                    err=True,
                )
            sys.exit(1)


def _broken(point: EntryPoint, error: Exception) -> click.Command:
    """A command that says why the one of ``point`` cannot be loaded."""
    reason = one_line(error)
    text = f"{point.value} cannot be loaded ({reason}): update or uninstall its package."

    def fail(args: tuple[str, ...]) -> NoReturn:
        raise LpipsSatError(f"command {point.name!r}: {text}") from error

    rest = click.Argument(["args"], nargs=-1, type=click.UNPROCESSED)
    free = {"ignore_unknown_options": True}
    return click.Command(point.name, callback=fail, params=[rest], help=text, context_settings=free)


@click.group(cls=Commands, points=GROUP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--verbose", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="lpips-sat")
def main(verbose: bool) -> None:
    """Judge satellite super-resolution: LPIPS-Sat beside the classic metrics."""
