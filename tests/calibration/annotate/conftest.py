"""Studies of textured patches, served over real HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pytest
import uvicorn

from lpips_sat.calibration.annotate.app import build_app
from lpips_sat.calibration.annotate.make import make_study
from lpips_sat.calibration.annotate.scenes import Patch
from lpips_sat.calibration.annotate.serve import listen
from lpips_sat.calibration.annotate.study import Study
from lpips_sat.calibration.annotate.trials import Plan

ABOUT = {"raters": "test machines", "licence": "CC0"}


class Client:
    """One rater's browser, or an attacker's: requests on one connection, JSON understood."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connection = HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], Any]:
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if body is not None else {}
        self.connection.request(method, path, body, sent | (headers or {}))
        answer = self.connection.getresponse()
        data, kind = answer.read(), answer.headers.get("content-type", "")
        content = json.loads(data) if kind.startswith("application/json") else data
        return answer.status, {k.lower(): v for k, v in answer.headers.items()}, content

    def close(self) -> None:
        self.connection.close()


class Server:
    """The application in a thread; it can be stopped and started again on its port."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.port = 0
        self.start()

    def start(self) -> None:
        self.store = self.study.store()
        self.socket = listen("127.0.0.1", self.port)
        opened = self.socket.__enter__()
        self.port = opened.getsockname()[1]
        app = build_app(self.study, self.store)
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [opened]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()
        self.socket.__exit__(None, None, None)
        self.store.close()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def vote(answer: str = "left", nonce: int | str = 0, **other: Any) -> dict[str, Any]:
    """What the page sends."""
    name = nonce if isinstance(nonce, str) else f"{nonce:016d}"
    return {"answer": answer, "confidence": 2, "seconds": 1.5, "nonce": name, **other}


@pytest.fixture(scope="session")
def patches(textured: Callable[..., Any]) -> Callable[..., list[Patch]]:
    def cut(count: int, *, side: int = 32, versions: tuple[str, ...] = ()) -> list[Patch]:
        made = []
        for i in range(count):
            image = textured(3, side, side, seed=300 + i, low=0.1, high=0.9).transpose(1, 2, 0)
            shown = np.rint(255 * image).astype(np.uint8)
            other = {name: np.roll(shown, k + 1, 0) for k, name in enumerate(versions)}
            made.append(Patch("here", f"scene_{i % 3}.tif:{i}:0", shown, other))
        return made

    return cut


@pytest.fixture(scope="session")
def make(
    patches: Callable[..., list[Patch]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Study]:
    def build(
        trials: int = 12,
        *,
        raters: int = 2,
        versions: tuple[str, ...] = (),
        break_every: int = 50,
        per_rater: int | None = None,
        **plan: Any,
    ) -> Study:
        asked = {"repeats": 0.0, "checks": 0.0, "distortions": ("blur", "noise", "shift"), **plan}
        return make_study(
            patches(min(trials + plan.get("jnd", 0), 12), versions=versions),
            Plan(trials, **asked),
            tmp_path_factory.mktemp("made") / "study",
            raters=[f"rater {i}" for i in range(raters)],
            break_every=break_every,
            per_rater=per_rater,
            about=ABOUT,
        )

    return build


@pytest.fixture
def serve() -> Iterator[Callable[[Study], Server]]:
    running: list[Server] = []

    def start(study: Study) -> Server:
        running.append(Server(study))
        return running[-1]

    yield start
    for server in running:
        if server.thread.is_alive():
            server.stop()


@pytest.fixture
def client() -> Iterator[Callable[[Server], Client]]:
    opened: list[Client] = []

    def connect(server: Server) -> Client:
        opened.append(Client(server.port))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()
