"""Where the parts of a set are scored: in this process, in several, or on a dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import islice
from multiprocessing.connection import wait as wait_for
from typing import Any

from .errors import LpipsSatError, MissingDependencyError
from .work import Outcome, Task, score_part

# What remains to be done once an outcome is known.
Follow = Callable[[Task, Outcome], Iterable[Task]]
Done = Generator[tuple[Task, Outcome]]
# Tasks in flight for each worker: enough that none waits for the next one.
AHEAD = 3
CONNECT_SECONDS = 10


def run_tasks(
    tasks: Iterable[Task], follow: Follow, *, workers: int = 1, dask: str | None = None
) -> Done:
    """Score tasks, and those that `follow` from their outcomes, and give them as they are done.

    Args:
        tasks: consumed as they are needed.
        follow: called in this process with every outcome.
        workers: processes on this machine; they share its threads.
        dask: address of a dask scheduler, whose workers must see the files and have this version
            of the package; a worker that dies costs nothing but the work under way.
    """
    if dask is None and workers == 1:
        yield from _here(tasks, follow)
        return
    with ExitStack() as stack:
        if dask is not None:
            pool, size = _cluster(stack, dask)
        else:
            pool, size = stack.enter_context(_processes(workers)), workers
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        yield from _elsewhere(pool, AHEAD * size, tasks, follow)


def _here(tasks: Iterable[Task], follow: Follow) -> Done:
    for first in tasks:
        queue = deque([first])
        while queue:
            task = queue.popleft()
            outcome = score_part(task)
            queue.extend(follow(task, outcome))
            yield task, outcome


def _elsewhere(pool: Executor, limit: int, tasks: Iterable[Task], follow: Follow) -> Done:
    coming, more = iter(tasks), deque[Task]()
    running: dict[Future[Outcome], Task] = {}
    while True:
        while more and len(running) < limit:  # finish a pair before the next one is begun
            _submit(pool, more.popleft(), running)
        for task in islice(coming, limit - len(running)):
            _submit(pool, task, running)
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            task = running.pop(future)
            outcome = _result(future)
            more.extend(follow(task, outcome))
            yield task, outcome


def _submit(pool: Executor, task: Task, running: dict[Future[Outcome], Task]) -> None:
    try:
        running[pool.submit(score_part, task)] = task
    except BrokenProcessPool as error:
        raise _died() from error


def _result(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise _died() from error
    except CancelledError as error:
        raise LpipsSatError("lost the dask cluster; with --out, run again to go on") from error
    except Exception as error:
        if type(error).__name__ != "KilledWorker":  # dask's, which need not be installed
            raise
        return Outcome(reason=f"every worker that tried it died (out of memory?): {error}")


def _died() -> LpipsSatError:
    return LpipsSatError(
        "a worker process died, perhaps out of memory; with --out, run again to go on, and take "
        "fewer --workers or a smaller --tile-size"
    )


def _processes(workers: int) -> ProcessPoolExecutor:
    import torch

    threads = max(1, torch.get_num_threads() // workers)
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),  # torch's threads do not survive a fork
        initializer=_begin_worker,
        initargs=(threads,),
    )


def _begin_worker(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int) -> None:
    """End this worker when its parent is gone, even killed: nobody else would tell it."""
    wait_for([sentinel])
    os._exit(1)


def _cluster(stack: ExitStack, address: str) -> tuple[Any, int]:
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingDependencyError(
            "--dask needs the package distributed: pip install 'lpips-sat[distributed]'"
        ) from error
    try:
        client = stack.enter_context(Client(address, timeout=CONNECT_SECONDS, set_as_default=False))
    except (OSError, ValueError) as error:
        raise LpipsSatError(
            f"cannot reach a dask scheduler at {address} ({error}): expected an address such as "
            "tcp://host:8786"
        ) from error
    pool = client.get_executor(pure=False)
    stack.callback(pool.shutdown, wait=False)  # which cancels what is under way
    return pool, max(4, sum(client.nthreads().values()))
