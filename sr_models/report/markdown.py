"""The report as Markdown, with its pictures and its provenance in a folder beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from lpips_sat.errors import OutputExistsError
from lpips_sat.outputs import check_folder, whole_file, whole_folder

from .content import Answer, Report, Section, Table, escaped, markdown
from .figures import save_png
from .gallery import save_sheet

INDEX = "figures.json"  # in the folder: what each picture shows
PROVENANCE = "provenance.json"  # in the folder: by the name of the table that it came with


def pictures_of(path: Path) -> Path:
    """The folder of pictures and provenance of a Markdown file."""
    return path.with_name(f"{path.stem}_files")


def write_markdown(report: Report, path: Path, *, overwrite: bool) -> None:
    """Write the folder, then the text that names what is in it."""
    folder = pictures_of(path)
    figures = [figure for section in report.sections for figure in section.figures]
    plates = [plate for section in report.sections for plate in section.plates]
    with whole_file(path, overwrite=overwrite) as part:
        with whole_folder(folder, mark=INDEX, overwrite=overwrite) as inside:
            for figure in figures:
                save_png(figure, inside / f"{figure.name}.png")
            for plate in plates:
                save_sheet(plate, inside / f"{plate.name}.png")
            said = {f.name: f.alt for f in figures} | {p.name: p.title for p in plates}
            for name, content in ((INDEX, said), (PROVENANCE, report.provenance)):
                text = json.dumps(content, indent=2) + "\n"
                (inside / name).write_text(text, encoding="utf-8")
        lines = [f"# {report.title}", report.about]
        lines += [line for section in report.sections for line in _section(section, folder.name)]
        lines += _everything(folder.name)
        part.write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def check_pictures(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder of pictures that exists, unless `overwrite` and a report wrote all of it."""
    check_folder(folder, mark=INDEX, overwrite=overwrite)
    if not folder.is_dir():
        return
    try:
        known = dict(json.loads((folder / INDEX).read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        known = {}
    own = {INDEX, PROVENANCE, *(f"{name}.png" for name in known)}
    foreign = sorted({path.name for path in folder.iterdir()} - own)
    if foreign:
        raise OutputExistsError(
            f"{folder} holds {', '.join(foreign[:3])}, which no report wrote: move it away, or "
            "choose another name"
        )


def _section(section: Section, folder: str) -> Iterator[str]:
    yield f"## {section.title}"
    for answer in section.answers:
        yield from answered(answer)
    yield from filter(None, map(escaped, (section.about, section.missing)))
    if section.figures:
        # without a blank line between them they stand side by side where there is room
        yield "\n".join(_image(f.alt, folder, f.name) for f in section.figures)
    for table in (*section.tables, *section.more):
        yield from titled(table)
    for plate in section.plates:
        yield f"### {plate.title}"
        yield _image(", ".join(column.name for column in plate.columns), folder, plate.name)


def answered(answer: Answer) -> Iterator[str]:
    """A question, if it is asked, and what is said to it."""
    if answer.question:
        yield f"**{answer.question}**"
    yield from map(escaped, answer.said)


def titled(table: Table) -> Iterator[str]:
    """A table under its title."""
    yield f"### {table.title}"
    yield markdown(table)


def _image(said: str, folder: str, name: str) -> str:
    plain = said.translate(str.maketrans("[]<>\n", "()() "))
    path = f"{quote(folder)}/{name}.png"
    return f"[![{plain}]({path})]({path})"  # a click shows it in full size


def _everything(folder: str) -> Iterator[str]:
    yield "## Everything the numbers depend on"
    yield (
        "Versions, data, settings and weights of each table, with whole hashes, as JSON: "
        f"[{PROVENANCE}]({quote(folder)}/{PROVENANCE})."
    )
