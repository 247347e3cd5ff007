"""The large libraries, imported once: by the server at its start, in a thread, ahead of visitors.

Whoever needs them meanwhile waits for that thread: two threads that import the same packages at
once would wait for each other's locks, or see modules that are not whole.  Where no server has
begun (in tests, in a process of its own), they are imported by whoever is first.

Nothing that is imported here loads PyTorch.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import pkgutil
import sys
import threading
from collections.abc import Sequence

from mats_core.system import uncollected

log = logging.getLogger(__name__)
_lock = threading.Lock()
_thread: threading.Thread | None = None


def begin(rooms: Sequence[str]) -> threading.Thread:
    """The thread that imports the libraries and all modules of these packages, begun once."""
    global _thread
    with _lock:
        if _thread is None:
            _thread = threading.Thread(target=_load, args=(tuple(rooms),), name="mats-ahead")
            _thread.start()
        return _thread


def loading() -> bool:
    """Whether PyTorch is still to be imported, or what comes with it is being imported."""
    return "torch" not in sys.modules if _thread is None else _thread.is_alive()


def wait() -> None:
    """Return when the thread has ended, where one was begun."""
    if _thread is not None:
        _thread.join()


def _load(rooms: Sequence[str]) -> None:
    try:
        with uncollected():
            from ..work import prepare

            prepare.libraries()
            for room in rooms:
                package = importlib.import_module(room)
                for module in pkgutil.iter_modules(package.__path__, f"{room}."):
                    importlib.import_module(module.name)
            # The first thing that Streamlit draws looks through the stack (`env_util.is_repl`,
            # 1.67), where `inspect` asks which module a page is, which is none: it finds the real
            # paths of all, and remembers them.
            inspect.getmodule(compile("", "of no module", "exec"))
    except Exception:  # the first page imports them again, and says what is wrong
        log.exception("The libraries could not be loaded ahead")
