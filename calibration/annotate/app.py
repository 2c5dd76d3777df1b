"""The page over HTTP: a starlette application that serves one study.

Every address of a rater or of the organiser begins with their token; without it there is only
"not found". Nothing in an address names a file: pictures are asked for by the number of the trial
in the rater's own order, static files by a fixed list.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from secrets import compare_digest
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .export import export_zip
from .headers import SecurityHeaders
from .quality import summary
from .store import ConflictError, Item, Rater, Store, StudyError, Vote
from .study import Study, add_rater

log = logging.getLogger("lpips_sat.annotate")

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".html": "text/html",
    ".svg": "image/svg+xml",
}
MAX_BODY = 2048  # bytes; a vote has about 150
MAX_NAME = 60
MAX_POSITION = 10**9  # what no study has and SQLite's integers hold
MAX_SECONDS = 86_400.0
AHEAD = 2  # pictures of so many trials beyond the next may be fetched in advance
NONCE = re.compile(r"[A-Za-z0-9_-]{16,64}")
ANSWERS = {"2afc": ("left", "right"), "jnd": ("same", "different")}


class RefusedError(HTTPException):
    """A request that is answered with a status and a reason, logged, and changes nothing."""


class Site:
    """The handlers; one instance per served study."""

    def __init__(self, study: Study, store: Store) -> None:
        self.study = study
        self.store = store
        self.static = {path.name: path.read_bytes() for path in STATIC.iterdir()}
        self.tasks = dict(zip(study.trials["id"], study.trials["task"], strict=True))

    def routes(self) -> list[Route]:
        """All addresses there are."""
        return [
            Route("/", self.nothing),
            Route("/static/{name}", self.asset),
            Route("/r/{token}/", self.rate_page),
            Route("/r/{token}/state", self.state),
            Route("/r/{token}/image/{position:int}/{side}", self.image),
            Route("/r/{token}/votes/{position:int}", self.vote, methods=["PUT"]),
            Route("/r/{token}/votes/{position:int}", self.undo, methods=["DELETE"]),
            Route("/admin/{token}/", self.admin_page),
            Route("/admin/{token}/progress", self.progress),
            Route("/admin/{token}/raters", self.invite, methods=["POST"]),
            Route("/admin/{token}/export.zip", self.export),
        ]

    # -- pages and their files. Handlers that are no coroutines run in a thread, as a whole.

    async def nothing(self, request: Request) -> Response:
        """The front door: a study is entered by a personal link only."""
        return self._file("door.html", status=404)

    async def asset(self, request: Request) -> Response:
        """A style sheet or a script of the page."""
        name = request.path_params["name"]
        if name not in self.static or name.endswith(".html"):
            raise RefusedError(404, "no such file")
        return self._file(name, cache="public, max-age=3600")

    def rate_page(self, request: Request) -> Response:
        """The page of a rater."""
        self._rater(request)
        return self._file("rate.html")

    def admin_page(self, request: Request) -> Response:
        """The page of the organiser."""
        self._organiser(request)
        return self._file("admin.html")

    def _file(self, name: str, *, status: int = 200, cache: str = "no-store") -> Response:
        headers = {"Cache-Control": cache}
        media = TYPES[Path(name).suffix]
        return Response(self.static[name], status, media_type=media, headers=headers)

    # -- the rater

    def state(self, request: Request) -> Response:
        """How far the rater is, and what comes next."""
        return self._state(self._rater(request))

    def image(self, request: Request) -> Response:
        """One picture of a trial that was shown, is shown, or comes next."""
        rater = self._rater(request)
        position, side = _position(request), request.path_params["side"]
        done, _ = self.store.progress(rater)
        item = self.store.item(rater, position)
        if item is None or position > done + AHEAD:
            raise RefusedError(404, f"no picture of trial {position} now")
        file = self._picture(item, side)
        if file is None:
            raise RefusedError(404, f"no picture {side[:20]!r}")
        headers = {"Cache-Control": "private, max-age=86400, immutable"}
        return Response(file.read_bytes(), media_type="image/png", headers=headers)

    def _picture(self, item: Item, side: str) -> Path | None:
        shown = {"left": "a", "ref": "ref", "right": "b"}
        if self.tasks[item.trial] == "jnd":
            shown = {"left": "ref", "right": "a"}
        if item.swapped:
            shown["left"], shown["right"] = shown["right"], shown["left"]
        return self.study.image_file(item.trial, shown[side]) if side in shown else None

    async def vote(self, request: Request) -> Response:
        """Record a vote; the answer comes when it is on disk."""
        vote = read_vote(await _json(request), _position(request))
        return await run_in_threadpool(self._record, request, vote)

    def _record(self, request: Request, vote: Vote) -> Response:
        rater = self._rater(request)
        item = self.store.item(rater, vote.position)
        if item is not None and vote.answer not in ANSWERS[self.tasks[item.trial]]:
            raise RefusedError(422, f"answer must be one of {ANSWERS[self.tasks[item.trial]]}")
        if not _stored(self.store.vote, rater, vote):
            log.info("%s: vote on trial %d came twice, recorded once", rater.name, vote.position)
        return self._state(rater)

    def undo(self, request: Request) -> Response:
        """Take back the last vote."""
        rater = self._rater(request)
        _stored(self.store.undo, rater, _position(request))
        return self._state(rater)

    def _state(self, rater: Rater) -> Response:
        done, total = self.store.progress(rater)
        items = [self.store.item(rater, done + ahead) for ahead in range(AHEAD)]
        coming = [
            {"position": item.position, "task": self.tasks[item.trial]} for item in items if item
        ]
        config = self.study.config
        return _no_store(
            {
                "title": config["title"],
                "size": config["size"],
                "break_every": config["break_every"],
                "done": done,
                "total": total,
                "coming": coming,
            }
        )

    # -- the organiser

    def progress(self, request: Request) -> Response:
        """Progress, agreement and speed."""
        self._organiser(request)
        return _no_store(summary(self.study))

    async def invite(self, request: Request) -> Response:
        """Add a rater."""
        body = await _json(request)
        return await run_in_threadpool(self._invite, request, body)

    def _invite(self, request: Request, body: dict[str, Any]) -> Response:
        self._organiser(request)
        name = body.get("name")
        if set(body) != {"name"} or not isinstance(name, str) or not _is_name(name.strip()):
            raise RefusedError(422, f"expected a name of 1 to {MAX_NAME} printable characters")
        token = _stored(add_rater, self.study, self.store, name.strip())
        return _no_store({"name": name.strip(), "token": token}, 201)

    def export(self, request: Request) -> Response:
        """The judgements so far, as `lpips-sat annotate export` writes them, in a zip."""
        self._organiser(request)
        try:
            data = export_zip(self.study)
        except StudyError as error:
            raise RefusedError(409, str(error)) from error
        headers = {
            "Cache-Control": "no-store",
            "Content-Disposition": 'attachment; filename="judgements.zip"',
        }
        return Response(data, media_type="application/zip", headers=headers)

    # -- who asks

    def _rater(self, request: Request) -> Rater:
        rater = self.store.rater(request.path_params["token"])
        if rater is None:
            raise RefusedError(404, "unknown link")
        return rater

    def _organiser(self, request: Request) -> None:
        token = request.path_params["token"].encode(errors="replace")
        if not compare_digest(token, self.store.admin_token.encode()):
            raise RefusedError(404, "unknown link")


def build_app(study: Study, store: Store) -> SecurityHeaders:
    """The application that serves ``study``."""
    app = Starlette(
        routes=Site(study, store).routes(),
        exception_handlers={HTTPException: _refused, ClientDisconnect: _gone},
    )
    return SecurityHeaders(app)


def read_vote(body: dict[str, Any], position: int) -> Vote:
    """The vote in a request's JSON; RefusedError (422) names what is wrong with it."""
    if set(body) != {"answer", "confidence", "seconds", "nonce"}:
        raise RefusedError(422, "expected answer, confidence, seconds and nonce, and nothing else")
    answer, confidence, seconds, nonce = (
        body[name] for name in ("answer", "confidence", "seconds", "nonce")
    )
    if not isinstance(answer, str):
        raise RefusedError(422, "answer must be text")
    if confidence is not None and (type(confidence) is not int or confidence not in (1, 2, 3)):
        raise RefusedError(422, "confidence must be 1, 2, 3 or null")
    if type(seconds) not in (int, float) or not 0 <= seconds <= MAX_SECONDS:
        raise RefusedError(422, f"seconds must be a number from 0 to {MAX_SECONDS:g}")
    if not isinstance(nonce, str) or not NONCE.fullmatch(nonce):
        raise RefusedError(422, f"nonce must match {NONCE.pattern}")
    return Vote(position, answer, confidence, float(seconds), nonce)


def _position(request: Request) -> int:
    position: int = request.path_params["position"]
    if position > MAX_POSITION:
        raise RefusedError(404, "no such trial")
    return position


def _is_name(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME and name.isprintable()


def _stored(call: Callable[..., Any], *args: Any) -> Any:
    """Write; what contradicts the records is a conflict (409)."""
    try:
        return call(*args)
    except ConflictError as error:
        raise RefusedError(409, str(error)) from error


async def _json(request: Request) -> dict[str, Any]:
    """The body as a JSON object, of a declared type and at most ``MAX_BODY`` bytes."""
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        raise RefusedError(415, "expected application/json")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise RefusedError(413, f"more than {MAX_BODY} bytes")
    try:
        body = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "not JSON") from error
    if not isinstance(body, dict):
        raise RefusedError(422, "expected a JSON object")
    return body


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _no_store(content: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(content, status, headers={"Cache-Control": "no-store"})


async def _refused(request: Request, error: Exception) -> Response:
    """Log a refusal without the token, and tell the page why."""
    assert isinstance(error, HTTPException)
    client = request.client.host if request.client else "?"
    where = re.sub(r"^/(r|admin)/[^/]*", r"/\1/*", request.url.path)[:120]
    log.warning(
        "refused %s %r from %s: %d %s",
        *(request.method, where, client, error.status_code, error.detail),
    )
    headers = {"Cache-Control": "no-store", **(error.headers or {})}
    return JSONResponse({"error": error.detail}, error.status_code, headers=headers)


async def _gone(request: Request, error: Exception) -> Response:
    """The page left in the middle of a request: nobody reads this answer."""
    return Response(status_code=400)
