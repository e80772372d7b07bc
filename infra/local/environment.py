"""Execution environments: a handler's modules, loaded apart from all others, and a thread that runs one at a time.

Lambda gives every concurrent invocation an environment of its own, and product code leans on that (Chalice keeps the
current request on the application object). So here each environment imports the function's own directory afresh. What
lies in the layer (`dualtone`) is shared by all of them, as one process shares it.
"""

import importlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

Handler = Callable[[Any, Any], Any]
"""A Lambda handler: event and context in, JSON-able answer out."""

_IMPORT = threading.RLock()


@contextmanager
def _alone(names: set[str], directory: Path) -> Iterator[None]:
    """Put a directory first on the path, with none of its top-level modules loaded; restore what was there before."""

    def take() -> dict[str, ModuleType]:
        own = [name for name in sys.modules if name.partition(".")[0] in names]
        return {name: sys.modules.pop(name) for name in own}

    before = take()
    sys.path.insert(0, str(directory))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(directory))
        if before:
            take()
            sys.modules.update(before)


def load(directory: Path, handler: str) -> Handler:
    """Import a function's code and return its handler, leaving no trace that another environment could meet.

    Args:
        directory: what CodeUri names.
        handler: `module.attribute`, as Handler names it.

    Returns:
        The handler, bound to modules that no other call of `load` returns.

    Raises:
        ModuleNotFoundError: if the module is not there.
        AttributeError: if it has no such attribute.
    """
    module_name, _, attribute = handler.rpartition(".")
    names = {path.stem for path in directory.iterdir() if path.suffix == ".py" or path.is_dir()}
    with _IMPORT, _alone(names, directory):
        found: Handler = getattr(importlib.import_module(module_name.replace("/", ".")), attribute)
    return found


class Environment:
    """One loaded handler and the thread that calls it.

    Args:
        directory: what CodeUri names.
        handler: as Handler names it.
        name: of the thread.
    """

    def __init__(self, directory: Path, handler: str, name: str) -> None:
        self._handler = load(directory, handler)
        self._work: queue.SimpleQueue[tuple[Any, Any, Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, event: Any, context: Any) -> Future[Any]:
        """Start an invocation; the future has its answer or its exception. Never submit while one is running."""
        future: Future[Any] = Future()
        self._work.put((event, context, future))
        return future

    def close(self) -> None:
        """Let the thread end after what it is doing; a handler that hangs is left behind (the thread is a daemon)."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            event, context, future = work
            try:
                future.set_result(self._handler(event, context))
            except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its caller's to judge
                future.set_exception(error)
