"""Commands in this process."""

from inspect import signature

from click.testing import CliRunner


def cli_runner() -> CliRunner:
    """Keeps stdout and stderr apart, which click before 8.2 had to be asked for.

    Without the COLUMNS that pytest-xdist gives its workers.
    """
    asked = "mix_stderr" in signature(CliRunner).parameters
    return CliRunner(env={"COLUMNS": None}, **({"mix_stderr": False} if asked else {}))
