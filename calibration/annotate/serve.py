"""Running the application: one process, one event loop, a socket that is open before the links."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ...errors import MissingDependencyError
from .store import Store, StudyError
from .study import Study


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket; with ``port`` 0 the system picks a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((host, port))
        except OSError as error:
            raise StudyError(
                f"cannot listen on {host}:{port} ({error.strerror}): try another --port or --host"
            ) from error
        opened.listen(128)  # who follows a link at once waits, and is not refused
        yield opened


def serve_study(study: Study, store: Store, opened: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; what is refused is logged to stderr."""
    try:
        import uvicorn

        from .app import build_app
    except ImportError as error:
        raise MissingDependencyError(
            f"the annotation page needs {error.name}: pip install 'lpips-sat[annotate]'"
        ) from error
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # Addresses hold tokens, so there is no access log; the server names no software.
    config = uvicorn.Config(
        build_app(study, store), log_level="warning", access_log=False, server_header=False
    )
    with suppress(KeyboardInterrupt):  # uvicorn closes down in order, then hands Ctrl-C on
        uvicorn.Server(config).run(sockets=[opened])
