"""What a run has done so far, so that the next one goes on from there.

A text file beside the output, one JSON object a line: first what the run is about, then what was
done. It is only ever appended to, so that a kill at any moment costs the last line at most.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from .errors import ResultsError
from .items import listed
from .outputs import StrPath


class Journal:
    """An open journal; a context manager.

    Args:
        output: the file that the run will write; the journal is ``.NAME.journal`` beside it.
        about: everything that the results depend on. A journal about anything else is a
            ResultsError that says what changed, and with ``overwrite`` is begun afresh.

    Attributes:
        entries: what earlier runs appended.
    """

    def __init__(
        self, output: StrPath, about: Mapping[str, Any], *, overwrite: bool = False
    ) -> None:
        target = Path(output)
        self.path = target.with_name(f".{target.name}.journal")
        about = plain_json(about)
        try:
            lines, size = _whole_lines(self.path)
            if lines and lines[0] != about:
                if not overwrite:
                    raise ResultsError(
                        f"{self.path} is of an unfinished run that was not the same: "
                        f"{_changes(lines[0], about)}. Finish it with the command and files of "
                        "then, or pass --overwrite to begin afresh"
                    )
                lines, size = [], 0
            self._file = self.path.open("a", encoding="utf-8")
            self._file.truncate(size)
        except OSError as error:
            raise ResultsError(f"cannot keep the journal {self.path}: {error}") from error
        self.entries = lines[1:]
        if not lines:
            self.append(about)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, entry: Mapping[str, Any]) -> None:
        """Note what was done; it survives the death of this process."""
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def remove(self) -> None:
        """Delete it, the work being done."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def plain_json(value: Any) -> Any:
    """What a JSON file would give back: tuples become lists, and NaN the string "NaN"."""
    return json.loads(json.dumps(value), parse_constant=str)


def _whole_lines(path: Path) -> tuple[list[Any], int]:
    """The entries up to the first line that is damaged or cut, and the bytes these take."""
    found: list[Any] = []
    size = 0
    if not path.exists():
        return found, size
    with path.open("rb") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:  # JSONDecodeError and UnicodeDecodeError
                break
            if not line.endswith(b"\n") or not isinstance(entry, dict):
                break
            found.append(entry)
            size += len(line)
    return found, size


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    texts = []
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key), new.get(key)
        if key == "pairs" and isinstance(now, dict):
            known = before if isinstance(before, dict) else {}  # an earlier version kept one digest
            differ = [name for name in sorted({*known, *now}) if known.get(name) != now.get(name)]
            texts.append(f"files or paths changed of {listed(differ)}" if differ else "")
        elif isinstance(before, dict) and isinstance(now, dict):
            texts.append(_changes(before, now, f"{key}."))
        elif before != now:
            texts.append(f"{prefix}{key} was {before}, now {now}")
    return "; ".join(text for text in texts if text)
