"""Outputs appear whole or not at all, and replace nothing unless told to."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OutputExistsError, RasterError

StrPath = str | os.PathLike[str]


def check_output(path: StrPath, *, overwrite: bool) -> None:
    """Refuse an output that exists (unless `overwrite`), or whose folder is missing or closed."""
    target = Path(path)
    with _named(target):
        if target.is_dir():
            raise RasterError(f"{target} is a folder: name a file to write")
        if target.exists() and not overwrite:
            raise OutputExistsError(f"{target} exists: choose another name or pass --overwrite")
        if not target.parent.is_dir():
            raise RasterError(
                f"cannot write {target}: folder {target.parent} is missing; create it"
            )
        _try_to_write(target.parent)


def check_no_input(path: StrPath, inputs: Iterable[StrPath]) -> None:
    """Refuse to replace what is about to be read, even with `overwrite`."""
    for source in map(Path, inputs):
        if source.exists() and Path(path).exists() and source.samefile(path):
            raise OutputExistsError(f"{path} is an input: choose another name")


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
    except OSError as error:
        if error.filename != str(part):
            raise  # about something else
        raise _cannot_write(target, error) from error
    finally:
        with suppress(OSError):  # what went wrong before says more
            part.unlink()


def check_absent(path: StrPath) -> None:
    """Refuse an output that exists and that no option replaces."""
    if Path(path).exists():
        raise OutputExistsError(f"{path} exists: choose another name")


def check_folder(path: StrPath, *, mark: str, overwrite: bool) -> None:
    """Refuse a folder that exists, unless `overwrite` and it holds the file `mark`.

    Refuse one, too, that could not be made where it is to be.
    """
    target = Path(path)
    with _named(target):
        if target.exists() and not overwrite:
            raise OutputExistsError(f"{target} exists: choose another name or pass --overwrite")
        if target.exists() and not (target / mark).is_file():
            raise OutputExistsError(
                f"{target} holds no {mark}, so it is not an earlier output and is not replaced: "
                "choose another name"
            )
        _try_to_write(next(folder for folder in target.absolute().parents if folder.exists()))


@contextmanager
def whole_folder(path: StrPath, *, mark: str, overwrite: bool = False) -> Iterator[Path]:
    """Give a folder beside `path` to fill; move it there if all went well, else delete it.

    mark: a file that every such folder holds. What exists is replaced only with `overwrite`, and
    only if it holds that file: a mistyped name must not delete somebody's home.
    """
    check_folder(path, mark=mark, overwrite=overwrite)
    target = Path(path)
    with _named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        new, old = beside / "new", beside / "old"
        new.mkdir()
    try:
        yield new
        with _named(target):
            if target.exists():
                target.replace(old)
            new.replace(target)
    except BaseException:
        if old.exists():
            old.replace(target)  # what was there stays
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _named(target: Path) -> Iterator[None]:
    """Say which output an error of the file system is about."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(target, error) from error


def _cannot_write(target: Path, error: OSError) -> RasterError:
    return RasterError(f"cannot write {target}: {error.strerror or error}; choose another place")


def _try_to_write(folder: Path) -> None:
    """Let an OSError say why nothing can be written to a folder: only trying tells."""
    tempfile.TemporaryFile(dir=folder).close()
