"""What sessions may do here: everything on a machine of one's own, little on a shared server.

`MATS_DEMO=1` (or `mats app --demo`) is the one switch.  It is read once, and every door asks
`current()`: families, uploads, jobs, runs, outputs.  What is not named in a policy is refused where
the work is done, whatever a page shows.

On a shared server a session is a `Visitor`: its runs and outputs lie in a temporary folder that
goes with it, its jobs are its own, and what others have made is neither listed nor opened by a
link.  Nothing here loads PyTorch or Streamlit.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mats_core.errors import InputError, size
from mats_core.system import folder_of_process, results_folder

SWITCH = "MATS_DEMO"
OFF = ("", "0", "false", "no", "off")
SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MEGABYTE = 1_000_000


class Act(StrEnum):
    """What a page may ask of the machine beyond the families that came with the app; the value
    names it in a sentence."""

    TYPED_PATHS = "opening files by their path"
    FAMILIES = "making, changing and removing families"
    MODELS = "looking for models in this machine's folders and caches"
    UPLOADS = "uploading models and data"
    HUB = "asking the Hugging Face hub for models"
    OUTPUTS = "writing models into a folder of this machine"


WHY = {
    Act.TYPED_PATHS: "a path would open the server's own files",
    Act.FAMILIES: "only the families that came with the app are open to all",
    Act.MODELS: "what lies on the server is its owner's",
    Act.UPLOADS: "files of others would be opened beside the work of all",
    Act.HUB: "the server fetches nothing",
    Act.OUTPUTS: "what a session makes ends with it; download it instead",
}


@dataclass(frozen=True)
class Policy:
    """What a session may do, and how much of it.

    acts      what is allowed
    work      the modules of `work` whose functions may be jobs; None: any function
    apart     each session keeps its runs, results and jobs for itself, and they end with it
    checks    whether merges that came with a family are made again to check them
    runs      finished merges that are kept of a family; drafts: the same of Live's
    shelf     runs whose tensors and answers a session keeps in memory
    results   bytes of measured results that are kept of a session
    jobs      a session's jobs that wait or run at once, and as many in the background
    seconds   that one job may work
    example   bytes of an own example; recipe: bytes of a recipe that is read back
    download  bytes of a model that is downloaded
    disk      bytes in the folder of a session
    """

    acts: frozenset[Act] = frozenset()
    work: frozenset[str] | None = frozenset()
    apart: bool = True
    checks: bool = False
    runs: float = 24
    drafts: float = 8
    shelf: float = 1
    results: float = 32 * MEGABYTE
    jobs: float = 4
    seconds: float = 300.0
    example: float = 2 * MEGABYTE
    recipe: float = MEGABYTE
    download: float = 50 * MEGABYTE
    disk: float = 100 * MEGABYTE

    def permits(self, act: Act) -> bool:
        return act in self.acts

    def require(self, act: Act) -> None:
        """Raise `InputError` for what is switched off."""
        if not self.permits(act):
            raise InputError(
                f"{act}", expected="a server of one's own", found="a shared one",
                remedy=f"It is switched off here, because {WHY[act]}.",
            )  # fmt: skip

    def require_family(self, folder: Path) -> None:
        """The same for a family that did not come with the app."""
        if Act.TYPED_PATHS in self.acts:
            return
        if not folder.resolve().is_relative_to(SAMPLES.resolve()):
            raise InputError(
                "family", expected="one that came with the app", found="another",
                remedy=f"This is a shared server: {WHY[Act.FAMILIES]}.",
            )  # fmt: skip

    def require_work(self, work: Callable[..., object]) -> None:
        """The same for a job that is not listed."""
        if self.work is None:
            return
        while isinstance(work, functools.partial):
            work = work.func
        room, _, module = getattr(work, "__module__", "").rpartition(".")
        if room != f"{__package__}.work" or module not in self.work:
            raise InputError(
                "this work", expected="work that a shared server does", found="other work",
                remedy="It is switched off here: a server of one's own does it.",
            )  # fmt: skip

    def require_size(self, what: str, nbytes: int, most: float) -> None:
        """The same for what is larger than `most`, one of the limits."""
        if nbytes > most:
            raise InputError(
                what, expected=f"at most {size(most)}", found=size(nbytes),
                remedy="A shared server takes no more of one session.",
            )  # fmt: skip

    @property
    def sentences(self) -> list[str]:
        """What is switched off and why, and what ends with the session; none where nothing is."""
        off = [f"{act[0].upper()}{act[1:]}: {WHY[act]}." for act in Act if act not in self.acts]
        if not self.apart:
            return off
        return [
            *off,
            "Your merges are yours alone, and are forgotten when this tab is closed or reloaded: "
            f"the last {self.runs} of a family are kept until then.",
            f"At most {self.jobs:g} pieces of your work wait or run at once, and as many in the "
            f"background, each for at most {self.seconds / 60:g} minutes: others wait too.",
            f"An example of yours may have {size(self.example)}, and a model that you download "
            f"{size(self.download)}.",
        ]


OPEN = Policy(
    acts=frozenset(Act), work=None, apart=False, checks=True, runs=math.inf, drafts=math.inf,
    shelf=math.inf, results=math.inf, jobs=math.inf, seconds=math.inf, example=math.inf,
    recipe=math.inf, download=math.inf, disk=math.inf,
)  # fmt: skip
DEMO = Policy(
    work=frozenset({
        "between", "chosen", "confusion", "conflict", "convergence", "export", "feature_map",
        "film", "final", "intermediate", "ladder", "layers", "leaderboard", "lesson", "loading",
        "merge", "own_example", "predicted_loss", "prepare", "search", "sizes", "soup", "stepping",
        "survey", "sweep", "why",
    }),
)  # fmt: skip


@functools.cache
def current() -> Policy:
    """The policy of this process; any value of the switch that does not say no means a shared
    server."""
    return OPEN if os.environ.get(SWITCH, "").strip().lower() in OFF else DEMO


def begin() -> None:
    """Before anything heavy is imported: no library asks the hub, and what is prepared for all
    goes with the process unless a folder is named for it."""
    if current().apart:
        os.environ["HF_HUB_OFFLINE"] = "1"
        own = _home()  # what servers left that were killed goes now, and not with the first visitor
        if not os.environ.get("MATS_CACHE"):
            os.environ["MATS_CACHE"] = str(own / "cache")


# Sessions -----------------------------------------------------------------------------------------


class Visitor:
    """A session on a shared server, and the temporary folder that goes with it."""

    def __init__(self) -> None:
        self._lock, self._folder, self.closed = threading.Lock(), None, False

    @property
    def folder(self) -> Path:
        """Where its runs and outputs lie; `InputError` once the session has ended."""
        with self._lock:
            if self.closed:
                raise InputError("session", expected="one that is open", found="one that has ended")
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(dir=_home()))
            return self._folder

    def close(self) -> None:
        """End the session: nothing of it stays."""
        with self._lock:
            self.closed = True
        self.sweep()

    def sweep(self) -> None:
        """Remove what a job of a closed session was still writing."""
        if self.closed and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def require_room(self, nbytes: int) -> None:
        """Raise `InputError` where so many bytes more are too many for its folder."""
        files = (file for file in self.folder.rglob("*") if file.is_file())
        held = sum(file.stat().st_size for file in files)
        current().require_size("what this session keeps", held + nbytes, current().disk)


_visiting: ContextVar[Visitor | None] = ContextVar("visiting", default=None)
_find: list[Callable[[], Visitor | None]] = []  # how the page that is drawn finds its session


def arrival() -> Visitor | None:
    """The visitor that a new session is; None where sessions share what they make."""
    return Visitor() if current().apart else None


def found_by(find: Callable[[], Visitor | None]) -> None:
    """Have `present` ask this where no job runs."""
    _find[:] = [find]


@contextlib.contextmanager
def visiting(visitor: Visitor | None) -> Iterator[None]:
    """Work for this visitor meanwhile."""
    token = _visiting.set(visitor)
    try:
        yield
    finally:
        _visiting.reset(token)


def present() -> Visitor | None:
    """The visitor that something is done for; None where sessions share what they make.

    Raises `InputError` on a shared server where it is done for no session.
    """
    if not current().apart:
        return None
    visitor = _visiting.get() or next((found for find in _find if (found := find())), None)
    if visitor is None:
        raise InputError("session", expected="one that asks for it", found="none")
    return visitor


def kept_folder() -> Path:
    """Where finished runs are kept: the session's own folder on a shared server."""
    visitor = present()
    return results_folder() if visitor is None else visitor.folder


@functools.cache
def _home() -> Path:
    """The folder of this process, which goes with it; those of processes that were killed go now,
    told by their locks."""
    return folder_of_process("demo")
