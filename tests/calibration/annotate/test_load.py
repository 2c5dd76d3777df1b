"""Many raters at once, over HTTP, against the installed command in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

import numpy as np
import pytest

from .conftest import Client, vote


@pytest.fixture
def command(tmp_path):
    """`lpips-sat annotate serve STUDY` on a free port: its links and its process."""
    running = []

    def start(folder):
        code = "from lpips_sat.cli import main; main()"
        log = (tmp_path / "log.txt").open("w")
        process = subprocess.Popen(
            [sys.executable, "-c", code, "annotate", "serve", str(folder), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        log.close()
        running.append(process)
        return json.loads(process.stdout.readline()), process

    yield start
    for process in running:
        process.terminate()
        process.wait()
        process.stdout.close()


def rate(link, seconds, think):
    """One rater: every vote after the state and the pictures of its trial, as the page does.

    think: the shortest and longest pause before a vote, in seconds.
    """
    rng = np.random.default_rng(sum(link.encode()))
    parts = urlsplit(link)
    client, at = Client(parts.port), parts.path.rstrip("/")
    state = client.ask("GET", f"{at}/state")[2]
    while state["coming"]:
        position = state["coming"][0]["position"]
        for side in ("left", "ref", "right"):
            assert client.ask("GET", f"{at}/image/{position}/{side}")[0] == 200
        time.sleep(rng.uniform(*think))
        before = time.perf_counter()
        status, _, state = client.ask("PUT", f"{at}/votes/{position}", vote(nonce=position))
        seconds.append(time.perf_counter() - before)
        assert status == 200
    client.close()


def crowd(study, links, *, think=(0, 0)):
    """All raters at once; every vote must be there once. Returns the seconds of each vote."""
    seconds, failures = [], []

    def one(link):
        try:
            rate(link, seconds, think)
        except Exception as error:  # must reach the main thread
            failures.append(error)

    threads = [threading.Thread(target=one, args=(link,)) for link in links]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with study.store() as store:
        kept = Counter((v["rater"], v["trial"]) for v in store.votes())
        asked = {(r.id, trial) for r in store.raters() for trial in study.trials["id"]}
    assert set(kept) == asked
    assert set(kept.values()) == {1}
    return np.array(seconds)


def test_five_raters_at_once_lose_and_double_nothing(make, command):
    study = make(20, raters=5)
    links, process = command(study.folder)
    seconds = crowd(study, links["raters"].values())
    assert len(seconds) == 100
    process.send_signal(signal.SIGINT)  # Ctrl-C
    assert process.wait() == 0
    with study.store() as store:
        assert len(store.votes()) == 100


@pytest.mark.slow
def test_twenty_raters_of_200_votes_are_answered_within_200_ms(make, command):
    study = make(200, raters=20)
    links, _ = command(study.folder)
    # nobody looks at three images and answers in less than a third of a second
    seconds = crowd(study, links["raters"].values(), think=(0.3, 0.9))
    assert len(seconds) == 4000
    p50, p99 = np.quantile(seconds, [0.5, 0.99])
    print(f"{len(seconds)} votes: median {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms")  # noqa: T201
    assert p99 < 0.2
