"""One writer at a time: of two runs that grow the same table, the last to write would win."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from lpips_sat.errors import ResultsError


@contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Keep every other process from growing the table `out` meanwhile; its folder is made.

    The lock is on the file `.NAME.lock` beside it. It ends with this process, whatever kills that,
    so that nobody waits for the dead. Where there are no locks, such as on some network drives,
    nobody is kept off.

    Raises:
        ResultsError: another process has it, and which.
    """
    path = out.with_name(f".{out.name}.lock")
    out.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with suppress(OSError, ImportError):
            file = _locked(stack, path, out)
            stack.callback(path.unlink, missing_ok=True)  # while it is locked still
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


def _locked(stack: ExitStack, path: Path, out: Path) -> IO[str]:
    """Open and lock a file; who removes it locks it too, so that it must be there afterwards."""
    import fcntl  # not on all systems

    while True:
        file = stack.enter_context(path.open("a+", encoding="utf-8"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ResultsError(
                f"{out} is being written by process {file.read() or '(starting)'}: wait until it "
                "has ended, or choose another --out"
            ) from error
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
