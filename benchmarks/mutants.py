"""Do the tests notice a wrong line? The source is changed at one place at a time.

    make coverage                         # which test runs which line, into .coverage
    python benchmarks/mutants.py          # a sample of 100; writes results/mutants.json
    python benchmarks/mutants.py --again  # its survivors once more, with the tests of today

A change (a comparison turned, a sign, a number, an `and`, a `not`) is drawn from all of lpips_sat
and sr_models with the seed. The tests that ran its line run in a copy of the tree until one fails:
the mutant is killed. A survivor is a test that is missing, or a change that changes nothing.
"""

from __future__ import annotations

import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from queue import Queue
from typing import Any

import click
from coverage import CoverageData

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "mutants.json"
SOURCES = ("lpips_sat", "sr_models")
OTHERS = 20  # so many tests of other modules than its own run for one mutant
SECONDS = 300  # a mutant that makes the tests hang is noticed
COMPARED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
COMBINED = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/"}


@dataclass(frozen=True)
class Mutant:
    """One change: what stood at a place of a file, and what stands there now."""

    file: str
    line: int
    begin: int  # offset in bytes
    end: int
    before: str
    after: str


@click.command()
@click.option("--count", default=100, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--jobs", default=2, show_default=True, help="Mutants at a time.")
@click.option("--again", is_flag=True, help="Judge the survivors of the last sample again.")
def main(count: int, seed: int, jobs: int, again: bool) -> None:
    ran = tests_by_line(ROOT / ".coverage")
    found = [m for file in source_files() for m in mutants(file) if ran.get((m.file, m.line))]
    if again:
        last = json.loads(RESULT.read_text())
        seed, count = last["seed"], last["mutants"]
        names = [field.name for field in fields(Mutant)]
        sample = [Mutant(**{name: row[name] for name in names}) for row in last["survivors"]]
    else:
        sample = random.Random(seed).sample(found, count)
    trees: Queue[Path] = Queue()

    def judge(mutant: Mutant) -> dict[str, Any]:
        tree, tests = trees.get(), sorted(ran[mutant.file, mutant.line])
        if again:  # whole modules: what was added to them since is not in .coverage
            tests = sorted({test.split("::")[0] for test in tests})
        try:
            dead = killed(tree, mutant, tests)
        finally:
            trees.put(tree)
        row = {**asdict(mutant), "tests": len(tests), "killed": dead}
        print(row, flush=True)
        return row

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        for number in range(jobs):
            trees.put(copy_tree(Path(folder) / str(number)))
        rows = list(pool.map(judge, sample))
    survivors = [row for row in rows if not row["killed"]]
    result = {
        "seed": seed,
        "possible": len(found),
        "mutants": count,
        "killed": count - len(survivors),
        "survivors": survivors,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['killed']} of {count} killed")


def tests_by_line(database: Path) -> dict[tuple[str, int], set[str]]:
    """(file, line) -> ids of the tests that ran it; the fixtures' lines count as the test's."""
    data, ran = CoverageData(str(database)), dict[tuple[str, int], set[str]]()
    data.read()
    for file in data.measured_files():
        name = str(Path(file).relative_to(ROOT))
        for line, contexts in data.contexts_by_lineno(file).items():
            ran[name, line] = {context.rsplit("|", 1)[0] for context in contexts if context}
    return ran


def source_files() -> Iterator[Path]:
    for folder in SOURCES:
        yield from sorted((ROOT / folder).rglob("*.py"))


def mutants(path: Path) -> Iterator[Mutant]:
    """Every change of a file."""
    text = Text(path)
    for node in ast.walk(ast.parse(text.source)):
        if isinstance(node, ast.expr) and (change := text.change(node)):
            yield change


class Text:
    """A source file, and where its expressions stand in it."""

    def __init__(self, path: Path) -> None:
        self.name, self.source = str(path.relative_to(ROOT)), path.read_bytes()
        self.starts = [0]
        for line in self.source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def change(self, node: ast.expr) -> Mutant | None:
        """What becomes of an expression; None if nothing does."""
        match node:
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                return self.between(left, right, COMPARED[type(operator)])
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in COMBINED:
                return self.between(left, right, COMBINED[type(operator)])
            case ast.BoolOp(op=operator, values=[left, right, *_]):
                return self.between(left, right, "or" if isinstance(operator, ast.And) else "and")
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
                return self.mutant(self.place(node)[0], self.place(operand)[0], "")
            case ast.Constant(value=bool(value)):
                return self.mutant(*self.place(node), repr(not value))
            case ast.Constant(value=int(value) | float(value)):
                return self.mutant(*self.place(node), repr(value + 1))
        return None

    def between(self, left: ast.expr, right: ast.expr, now: str) -> Mutant | None:
        """Another operator, if it stands alone between two operands without parentheses."""
        begin, end = self.place(left)[1], self.place(right)[0]
        plain = not set(self.source[begin:end]) & set(b"()\n")
        return self.mutant(begin, end, f" {now} ") if plain else None

    def place(self, node: ast.expr) -> tuple[int, int]:
        """Where an expression begins and ends, in bytes."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        begin = self.starts[node.lineno - 1] + node.col_offset
        return begin, self.starts[node.end_lineno - 1] + node.end_col_offset

    def mutant(self, begin: int, end: int, after: str) -> Mutant:
        line = self.source.count(b"\n", 0, begin) + 1
        return Mutant(self.name, line, begin, end, self.source[begin:end].decode(), after)


def copy_tree(tree: Path) -> Path:
    """The files of the working tree, laid out so that the copy is what is imported."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, listed):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    for name in ("cli", "calibration"):  # as the wheel has them
        (tree / "lpips_sat" / name).symlink_to(tree / name)
    return tree


def chosen(tree: Path, tests: list[str], stem: str) -> list[str]:
    """The file's own test module whole, and `OTHERS` of the other tests, evenly spaced.

    Whole, because a line that a shared fixture ran counts for the first test that used it.
    """
    own = {str(path.relative_to(tree)) for path in tree.glob(f"tests/**/test_{stem}.py")}
    others = [test for test in tests if test.split("::")[0] not in own]
    return sorted(own) + others[:: max(1, -(-len(others) // OTHERS))]


def killed(tree: Path, mutant: Mutant, tests: list[str]) -> bool:
    """Run the tests on a changed file, and put it back."""
    path = tree / mutant.file
    source = path.read_bytes()
    path.write_bytes(source[: mutant.begin] + mutant.after.encode() + source[mutant.end :])
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, *chosen(tree, tests, path.stem)],
            cwd=tree, env=environment, timeout=SECONDS, capture_output=True, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_bytes(source)
    # 1: a test failed, 2 and 4: what it imports is broken, unless there is no such test.
    if done.returncode not in (0, 1, 2, 4) or "ERROR: not found" in done.stderr:
        raise SystemExit(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.returncode != 0


if __name__ == "__main__":
    main()
