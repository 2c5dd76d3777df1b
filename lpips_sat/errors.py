"""What the package raises: one base class, so that callers can catch all of it at once.

A message says what was expected, what came, and what to do.
"""


def one_line(error: BaseException) -> str:
    """An error of another package, with its type, for a message of ours."""
    return " ".join(f"{type(error).__name__}: {error}".split())


class LpipsSatError(Exception):
    """Anything that this package refuses to do, with a message meant for its user."""


class MetricInputError(LpipsSatError, ValueError):
    """A tensor or an argument that a metric cannot take (shape, dtype, range)."""


class RadiometryError(LpipsSatError):
    """The units of an image, or the names of its bands, are missing or contradict themselves."""


class RasterError(LpipsSatError):
    """A raster that cannot be opened, read or written."""


class GridMismatchError(RasterError):
    """Two rasters which do not lie pixel on pixel."""


class OutputExistsError(LpipsSatError):
    """An output that is there already and was not allowed to be replaced."""


class WeightsError(LpipsSatError):
    """Weights that are missing, damaged, or made for another network."""


class MissingDependencyError(LpipsSatError):
    """An optional package that this call needs is not installed."""


class ResultsError(LpipsSatError):
    """A list of pairs or a table of results that cannot be read, resumed or compared."""


class UnknownMetricError(LpipsSatError):
    """A metric or a suite that does not exist, or does not apply to these images."""


class PluginError(LpipsSatError):
    """A metric of another package that cannot be used."""
