"""Twenty raters at once over HTTP: no vote lost or doubled, and how long one takes to be durable.

    python benchmarks/raters.py    # three minutes on an idle machine; writes results/raters.json

Raters are threads of this process, the server is the installed command in a process of its own.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from lpips_sat import __version__
from lpips_sat.calibration.annotate.make import make_study
from lpips_sat.calibration.annotate.scenes import Patch
from lpips_sat.calibration.annotate.study import Study
from lpips_sat.calibration.annotate.trials import Plan
from lpips_sat.calibration.patches import read_scene

RESULT = Path(__file__).parent / "results" / "raters.json"
RATERS, TRIALS, SIDE = 20, 200, 64
# Seconds before an answer: nobody looks at three images in less than a third of a second.
THINK = (0.3, 0.9)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "study"
        names = [f"rater {i}" for i in range(RATERS)]
        study = make_study(patches(), Plan(TRIALS, repeats=0, checks=0), folder, raters=names)
        result = {"version": __version__, "cores": os.cpu_count(), "raters": RATERS}
        result |= measure(study)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(RESULT.read_text())


def patches() -> list[Patch]:
    scene = np.round(255 * read_scene()).astype(np.uint8)
    corners = [(SIDE * i, SIDE * i) for i in range(min(scene.shape[:2]) // SIDE)]
    return [
        Patch("sample", f"scene:{row}:{col}", scene[row : row + SIDE, col : col + SIDE])
        for row, col in corners
    ]


def measure(study: Study, *, think: tuple[float, float] = THINK) -> dict[str, Any]:
    """Let all raters of a study answer all of it; AssertionError if a vote is lost or doubled.

    `cpu_of_others` is the share of the machine that other programs took meanwhile: the times are
    this server's where it is near 0.
    """
    began, own, busy = time.perf_counter(), _cpu(), _busy()
    with serving(study.folder) as links:
        seconds = crowd(list(links["raters"].values()), think)
    wall, spent = time.perf_counter() - began, _cpu()
    assert_each_once(study)
    others = _busy() - busy - sum(spent) + sum(own)
    median, late = (round(1000 * float(np.quantile(seconds, q)), 1) for q in (0.5, 0.99))
    return {
        "votes": len(seconds),
        "votes_per_second": round(len(seconds) / wall, 1),
        "median_milliseconds": median,
        "p99_milliseconds": late,
        "server_cpu_milliseconds_per_vote": round(1000 * (spent[1] - own[1]) / len(seconds), 1),
        "cpu_of_others": round(others / wall / (os.cpu_count() or 1), 2),
    }


@contextmanager
def serving(folder: Path) -> Iterator[dict[str, Any]]:
    """`lpips-sat annotate serve FOLDER` on a free port: its links. Ended as by Ctrl-C."""
    code = "from lpips_sat.cli import main; main()"
    command = [sys.executable, "-c", code, "annotate", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0, process.returncode


def crowd(links: Sequence[str], think: tuple[float, float]) -> list[float]:
    """All raters at once; returns the seconds of each vote."""
    seconds: list[float] = []
    failures: list[Exception] = []

    def one(link: str) -> None:
        try:
            rate(link, seconds, think)
        except Exception as error:  # must reach the main thread
            failures.append(error)

    threads = [threading.Thread(target=one, args=(link,)) for link in links]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return seconds


def rate(link: str, seconds: list[float], think: tuple[float, float]) -> None:
    """One rater: every vote after the state and the pictures of its trial, as the page does."""
    rng = np.random.default_rng(list(link.encode()))
    parts = urlsplit(link)
    at = parts.path.rstrip("/")
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def ask(method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, at + path, body and json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, (path, answer.status, content)
        return content

    state = json.loads(ask("GET", "/state"))
    while state["coming"]:
        position = state["coming"][0]["position"]
        for side in ("left", "ref", "right"):
            ask("GET", f"/image/{position}/{side}")
        time.sleep(rng.uniform(*think))
        vote = {"answer": "left", "confidence": 2, "seconds": 1.5, "nonce": f"{position:016d}"}
        before = time.perf_counter()
        state = json.loads(ask("PUT", f"/votes/{position}", vote))
        seconds.append(time.perf_counter() - before)
    connection.close()


def assert_each_once(study: Study) -> None:
    """Every rater answered every trial once."""
    with study.store() as store:
        kept = Counter((vote["rater"], vote["trial"]) for vote in store.votes())
        asked = {(rater.id, trial) for rater in store.raters() for trial in study.trials["id"]}
    assert set(kept) == asked, f"{len(asked - set(kept))} votes of {len(asked)} are missing"
    assert set(kept.values()) == {1}, "votes were doubled"


def _cpu() -> tuple[float, float]:
    """CPU seconds of this process, and of its children that have ended."""
    both = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    own, children = (used.ru_utime + used.ru_stime for used in both)
    return own, children


def _busy() -> float:
    """CPU seconds of all programs since the machine started."""
    user, nice, system = map(int, Path("/proc/stat").read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
