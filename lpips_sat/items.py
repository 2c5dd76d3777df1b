"""Which prediction belongs to which reference: two folders paired by name, or a manifest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ResultsError
from .outputs import StrPath

# What counts as an image in a folder; anything else can be named in a manifest.
IMAGE_SUFFIXES = (".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg", ".vrt", ".img")
REQUIRED, OPTIONAL = ("pred", "ref"), ("mask", "lr", "scene", "id")
SHOWN = 10  # names that an error lists before it counts the rest


@dataclass(frozen=True)
class Item:
    """A pair to score. Paths are names that GDAL opens; scene: the cluster that it belongs to."""

    id: str
    pred: str
    ref: str
    scene: str
    mask: str | None = None
    lr: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that its score depends on."""
        return tuple(name for name in (self.pred, self.ref, self.mask, self.lr) if name)


def items_of_folders(
    folders: Mapping[str, StrPath], *, allow_missing: bool = False
) -> tuple[list[Item], list[str]]:
    """Pair the images of folders by file name stem; each image is a scene of its own.

    folders: by role, "pred" and "ref", and where wanted "mask" and "lr". Returns the pairs in the
    order of their names, and the images that have no counterpart in every folder: with
    ``allow_missing`` they are left out, without it they are an error that lists them.
    """
    found = {role: _images(Path(folder)) for role, folder in folders.items()}
    complete = set.intersection(*(set(images) for images in found.values()))
    unmatched = [
        str(path)
        for images in found.values()
        for stem, path in images.items()
        if stem not in complete
    ]
    names = " and ".join(str(folder) for folder in folders.values())
    if unmatched and not allow_missing:
        raise ResultsError(
            f"{names}: {len(unmatched)} image(s) without a counterpart of the same name "
            f"({listed(unmatched)}); --allow-missing leaves them out, a manifest pairs other names"
        )
    if not complete:
        raise ResultsError(f"{names} have no image of the same name; a manifest pairs other names")
    items = [
        Item(id=stem, scene=stem, **{role: str(images[stem]) for role, images in found.items()})
        for stem in sorted(complete)
    ]
    return items, unmatched


def items_of_manifest(path: StrPath) -> list[Item]:
    """Read pairs from a CSV or Parquet table with the columns pred, ref and optional others.

    mask and lr name further files; scene is the cluster (default: the pair itself); id names the
    pair (default: the stem of ref). Relative paths begin at the manifest's folder.
    """
    source = Path(path)
    columns, rows = _read(source)
    unknown = [name for name in columns if name not in REQUIRED + OPTIONAL]
    missing = [name for name in REQUIRED if name not in columns]
    if unknown or missing:
        raise ResultsError(
            f"{source}: expected the columns pred, ref and any of {', '.join(OPTIONAL)}; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
        )
    items = [_item(row, source, number) for number, row in enumerate(rows, start=1)]
    if not items:
        raise ResultsError(f"{source} lists no pair")
    twice = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise ResultsError(
            f"{source}: ids must differ, but these occur more than once: {listed(twice)}; "
            "give every pair its own in the column id (default: the name of ref)"
        )
    return items


def listed(names: Iterable[object]) -> str:
    """The first few names, and how many more there are."""
    texts = [str(name) for name in names]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def is_local(name: str) -> bool:
    """Whether a name is a path on this machine, not a URL or a dataset as GDAL names it.

    GDAL's names begin with "/vsi" or a driver's prefix, such as "NETCDF:".
    """
    return not (is_remote(name) or re.match(r"[A-Z][A-Z0-9_]+:", name))


def is_remote(name: str) -> bool:
    """Whether a name is a URL or a virtual file of GDAL."""
    return "://" in name or name.startswith("/vsi")


def _images(folder: Path) -> dict[str, Path]:
    """Images directly in a folder, by stem."""
    if not folder.is_dir():
        raise ResultsError(f"{folder}: expected a folder, like the others")
    images = sorted(
        p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."
    )
    found = {path.stem: path for path in images}
    if len(found) < len(images):
        twice = [path.name for path in images if found[path.stem] != path]
        raise ResultsError(f"{folder}: two images of one name but for the suffix: {listed(twice)}")
    return found


def _read(source: Path) -> tuple[list[str], list[dict[str, Any]]]:
    if not source.is_file():
        raise ResultsError(
            f"{source}: no such file; expected two rasters, two folders, or a manifest"
        )
    from pyarrow import csv, parquet, string

    try:
        if source.suffix.lower() == ".parquet":
            table = parquet.read_table(source)
        else:
            kinds = dict.fromkeys(REQUIRED + OPTIONAL, string())  # "001" is a name, not a number
            text = csv.ConvertOptions(column_types=kinds, strings_can_be_null=False)
            table = csv.read_csv(source, convert_options=text)
    except (ValueError, OSError) as error:  # Arrow's errors are ValueErrors
        reason = " ".join(str(error).split())
        raise ResultsError(
            f"{source} is not a table ({reason}): expected CSV or Parquet"
        ) from error
    return table.column_names, table.to_pylist()


def _item(row: Mapping[str, Any], source: Path, number: int) -> Item:
    cells = {name: "" if v is None else str(v).strip() for name, v in row.items()}
    for role in REQUIRED:
        if not cells[role]:
            raise ResultsError(f"{source}, pair {number}: {role} is empty")
    paths = {
        role: name if not is_local(name) else str(source.parent / name)
        for role in ("pred", "ref", "mask", "lr")
        if (name := cells.get(role))
    }
    own = cells.get("id") or Path(cells["ref"]).stem
    return Item(id=own, scene=cells.get("scene") or own, **paths)
