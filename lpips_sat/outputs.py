"""Outputs appear whole or not at all, and replace nothing unless told to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputExistsError, RasterError

StrPath = str | os.PathLike[str]


def check_output(path: StrPath, *, overwrite: bool) -> None:
    """Refuse an output that exists (unless `overwrite`) or whose folder does not."""
    target = Path(path)
    if target.is_dir():
        raise RasterError(f"{target} is a folder: name a file to write")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists: choose another name or pass --overwrite")
    if not target.parent.is_dir():
        raise RasterError(f"cannot write {target}: folder {target.parent} is missing; create it")


@contextmanager
def whole_file(path: StrPath, *, overwrite: bool) -> Iterator[Path]:
    """Give a name beside `path` to write to; move it there if all went well, else delete it."""
    check_output(path, overwrite=overwrite)
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        check_output(path, overwrite=overwrite)  # it may have appeared meanwhile
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
