"""Models that lie below some folders, judged by names, sizes and JSON: no tensor is read.

A search is bounded in depth, entries, models and seconds, and says what it left out.  Links are
followed only to what lies below one of the roots, and no folder is entered twice.  In the cache of
the Hugging Face hub a model is called by its id.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError, listing
from . import hub
from .card import (
    ADAPTER,
    CONFIG,
    settings_in,
    stated_bases,
    stated_classes,
    stated_data,
    stated_licence,
)
from .files import read_header
from .folder import SAFE, STATE, is_pickle, is_shard, is_weights, weight_files

ModelKind = Literal["model", "adapter", "pickle", "other"]
DATA = (".npz", ".csv", ".tsv", ".jsonl", ".parquet", ".yaml", ".yml")
DATA += tuple(f"{ending}.gz" for ending in (".csv", ".tsv", ".jsonl"))
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
HALVES = ("train", "training", "test", "testing", "val", "valid", "validation", "dev")
NO_DATA = ("family.yaml", "recipe.yaml", "recipe.yml")
SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages", "lost+found", "wandb"})
ENVIRONMENT = "pyvenv.cfg"  # lies in a virtual environment
HEAD = "head.safetensors"  # of a merge's output: a part of a model
MERGED = ("report.json", "recipe.yaml")  # lie beside a merge
WEIGHTS_OF_ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")
PICKLED_MODEL = ("pytorch_model", "model", "adapter_model", "consolidated")
AT_ONCE = 64  # entries between two looks at the clock


@dataclass(frozen=True)
class Limits:
    """How far a search goes.

    depth     folders below a root
    entries   names of files and folders that are looked at, all roots together
    models    that are listed
    seconds   after which what was not reached is left out
    """

    depth: int = 6
    entries: int = 40_000
    models: int = 400
    seconds: float = 4.0


@dataclass(frozen=True)
class ListedModel:
    """A model as a search sees it.

    path          its folder, or the file of a bare one
    reference     what a family or a recipe calls it: an id of the hub, or the path
    kind          `model`, `adapter`, `pickle`, or `other`: weights of a format that is not read
    nbytes        of its weights' files
    modified      when these were written last, in seconds since 1970
    architecture  the class that `config.json` names, of an adapter its method; empty where unknown
    licence       as it is stated; empty where it is not
    made_from     what it says that it was made from, most telling first
    classes       of its head, in their order; empty where they are not named
    data          (id, subset) of the data sets that its card names
    merged        whether a merge wrote it
    problem       why it cannot be opened as it is, with the remedy; empty where it can
    """

    path: Path
    reference: str
    kind: ModelKind
    nbytes: int = 0
    modified: float = 0.0
    architecture: str = ""
    licence: str = ""
    made_from: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    data: tuple[tuple[str, str], ...] = ()
    merged: bool = False
    problem: str = ""

    @property
    def name(self) -> str:
        """The last part of what it is called, without revision and suffix."""
        last = self.reference.partition("@")[0] if self.of_hub else self.path.name
        return last.rstrip("/").rpartition("/")[2].removesuffix(SAFE)

    @property
    def of_hub(self) -> bool:
        """Whether it is called by an id of the hub."""
        return self.reference != str(self.path)

    @property
    def state(self) -> tuple[str, int, float]:
        """A key that changes when the model's files do."""
        return str(self.path), self.nbytes, self.modified


@dataclass(frozen=True)
class ModelSearch:
    """What lies below some folders.

    models    by their paths, those of the hub's cache last
    data      files that may hold the examples of a task, and folders with images by class
    left_out  what was not looked at, a sentence each
    """

    models: tuple[ListedModel, ...] = ()
    data: tuple[Path, ...] = ()
    left_out: tuple[str, ...] = ()


def search_models(
    roots: Sequence[Path], limits: Limits | None = None, without: Sequence[Path] = ()
) -> ModelSearch:
    """The models below folders, the cache of the hub included where it is one of them, and without
    what lies in the folders `without`.

    What cannot be read is left out, with a sentence; nothing is raised for it.
    """
    left_out = frozenset(map(os.path.realpath, without))
    return _Search(tuple(roots), limits or Limits(), left_out).run()


@dataclass
class _Search:
    roots: tuple[Path, ...]
    limits: Limits
    without: frozenset[str] = frozenset()
    models: list[ListedModel] = field(default_factory=list)
    data: list[Path] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    entries: int = 0
    unread: list[str] = field(default_factory=list)
    pictured: set[Path] = field(default_factory=set)
    cut: str = ""
    deep: int = 0

    def run(self) -> ModelSearch:
        self.until = time.monotonic() + self.limits.seconds
        self.real = [os.path.realpath(root) for root in self.roots]
        waiting = deque((root, 0) for root in self.roots)
        while waiting and not self.cut:
            folder, depth = waiting.popleft()
            waiting.extend((below, depth + 1) for below in self._look(folder, depth))
        data = tuple(sorted({*self.data, *self._by_class()}))
        return ModelSearch(tuple(self._sorted()), data, self._left_out(waiting))

    def _by_class(self) -> set[Path]:
        """Folders with at least two folders of images: the classes, or those of one half."""
        above = [folder.parent for folder in self.pictured]
        several = {folder for folder in above if above.count(folder) > 1}
        return {one.parent if one.name.lower() in HALVES else one for one in several}

    def _look(self, folder: Path, depth: int) -> list[Path]:
        """List what a folder holds; returns the folders in it that are to be looked into."""
        real = os.path.realpath(folder)
        if real in self.seen or self._is_without(real):
            return []
        self.seen.add(real)
        try:
            files, folders = self._names(folder)
        except OSError as error:
            if depth or os.path.lexists(folder):
                self.unread.append(f"'{folder}' ({error.strerror or 'it cannot be read'})")
            return []
        if ENVIRONMENT in files:
            return []
        self.models += _models_in(folder, files)
        self.data += [folder / name for name in files if _may_be_data(name, files)]
        if depth and files and files[0].lower().endswith(PICTURES):
            self.pictured.add(folder)
        below = [folder / name for name in folders if self._is_way_on(folder / name)]
        if depth >= self.limits.depth:
            self.deep += len(below)
            return []
        return [one for one in below if not self._of_hub(one)]

    def _is_without(self, real: str) -> bool:
        """Whether a folder is one that is left out, or lies in one."""
        return any(real == one or real.startswith(f"{one}{os.sep}") for one in self.without)

    def _names(self, folder: Path) -> tuple[list[str], list[str]]:
        """Names of the files and of the folders in a folder, as many as may still be looked at."""
        files, folders = list[str](), list[str]()
        with os.scandir(folder) as entries:
            for entry in entries:
                self.entries += 1
                if self._ended():
                    break
                if not entry.name.startswith("."):
                    (folders if _is_folder(entry) else files).append(entry.name)
        return sorted(files), sorted(folders)

    def _ended(self) -> bool:
        """Whether a limit was reached; says which."""
        if self.entries > self.limits.entries:
            self.cut = f"more than {self.limits.entries} files and folders lie there"
        elif len(self.models) >= self.limits.models:
            self.cut = f"{self.limits.models} models are listed"
        elif self.entries % AT_ONCE == 0 and time.monotonic() > self.until:
            self.cut = f"{self.limits.seconds:g} s were over"
        return bool(self.cut)

    def _is_way_on(self, folder: Path) -> bool:
        if folder.name in SKIPPED or folder.name.startswith(("datasets--", "spaces--")):
            return False
        if not folder.is_symlink():
            return True
        real = os.path.realpath(folder)
        return any(real == root or real.startswith(f"{root}{os.sep}") for root in self.real)

    def _of_hub(self, folder: Path) -> bool:
        """Whether a folder is that of a model in the hub's cache; lists its snapshots then."""
        for reference, snapshot in hub.snapshots(folder):
            with contextlib.suppress(OSError):
                self.models += _models_in(snapshot, self._names(snapshot)[0], reference)
        return folder.name.startswith(hub.MODELS)

    def _sorted(self) -> list[ListedModel]:
        return sorted(self.models, key=lambda m: (m.of_hub, str(m.path)))

    def _left_out(self, waiting: Sequence[tuple[Path, int]]) -> tuple[str, ...]:
        said = []
        if self.cut:
            rest = [str(folder) for folder, _ in waiting]
            of = f", among them {listing(rest, 3)}" if rest else ""
            said.append(f"The search ended because {self.cut}; the rest is left out{of}")
        if self.deep:
            depth = f"more than {self.limits.depth} folders deep"
            said.append(f"{self.deep} folders that lie {depth} were not looked into")
        if self.unread:
            said.append(f"Not read: {listing(self.unread, 3)}")
        return tuple(said)


def _may_be_data(name: str, files: Sequence[str]) -> bool:
    """Whether a file may hold examples; what lies beside a model is a part of it."""
    return name.lower().endswith(DATA) and name not in NO_DATA and CONFIG not in files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


# One folder ---------------------------------------------------------------------------------------


def _models_in(folder: Path, names: Sequence[str], reference: str = "") -> Iterator[ListedModel]:
    """The models whose files lie in a folder: none, one, or several bare files."""
    reference = reference or str(folder)
    if ADAPTER in names:
        yield _adapter(folder, names, reference)
        return
    weights = [n for n in names if is_weights(n) and not STATE.match(n) and n != HEAD]
    if not weights or not (CONFIG in names or any(map(_tells_of_a_model, weights))):
        return
    try:
        files = weight_files(folder).files
    except InputError as error:
        bare = [name for name in weights if name.endswith(SAFE) and not is_shard(name)]
        if CONFIG not in names and len(bare) > 1:
            yield from filter(None, (_bare(folder / name) for name in bare))
            return
        files = tuple(folder / name for name in weights)
        kind = "pickle" if any(map(is_pickle, weights)) else "other"
        yield _listed(folder, reference, kind, files, problem=str(error))
        return
    if CONFIG in names or not _foreign(files[0]):
        yield _listed(folder, reference, "model", files)


def _tells_of_a_model(name: str) -> bool:
    return name.endswith((SAFE, ".gguf")) or (is_pickle(name) and name.startswith(PICKLED_MODEL))


def _bare(file: Path) -> ListedModel | None:
    return None if _foreign(file) else _listed(file, str(file), "model", (file,))


def _foreign(file: Path) -> bool:
    """Whether a file without configuration holds something else: statistics, whose format stands
    in the header, or nothing that can be read."""
    try:
        return read_header(file)[1].get("format", "pt") != "pt"
    except InputError:
        return True


def _adapter(folder: Path, names: Sequence[str], reference: str) -> ListedModel:
    files = tuple(folder / name for name in WEIGHTS_OF_ADAPTER if name in names)
    problem = ""
    if not any(file.suffix == SAFE for file in files):
        try:  # which refuses the pickle, with the command that converts it
            weight_files(files[0] if files else folder / WEIGHTS_OF_ADAPTER[0])
        except InputError as error:
            problem = str(error)
    kind = "pickle" if files and problem else "adapter"
    return _listed(folder, reference, kind, files, problem=problem)


def _listed(
    path: Path, reference: str, kind: ModelKind, files: Sequence[Path], problem: str = ""
) -> ListedModel:
    states = [state for file in files if (state := _state(file))]
    home = path if path.is_dir() else path.parent
    beside = path.is_dir() or (home / CONFIG).is_file()
    config = settings_in(home / CONFIG) if beside else {}
    return ListedModel(
        path,
        reference,
        kind,
        nbytes=sum(state.st_size for state in states),
        modified=max((state.st_mtime for state in states), default=0.0),
        architecture=_method(home) if (home / ADAPTER).is_file() else _architecture(config),
        licence=stated_licence(home, config) if beside else "",
        made_from=stated_bases(home) if beside else (),
        classes=stated_classes(home) if config.get("id2label") else (),
        data=stated_data(home) if beside else (),
        merged=all((home / name).is_file() for name in MERGED),
        problem=problem,
    )


def _state(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:
        return None


def _method(folder: Path) -> str:
    return str(settings_in(folder / ADAPTER).get("peft_type") or "adapter")[:40]


def _architecture(config: Mapping[str, Any]) -> str:
    """The class of a configuration as another program wrote it, in any form."""
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else names
    return first[:80] if isinstance(first, str) else str(config.get("model_type") or "")[:80]
