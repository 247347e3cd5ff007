"""What lies beside a model's weights: carried along into a merge, or left out and named.

Carried along are configuration, tokenizer and processor files, code, licences, and subfolders of
such; of sentence-transformers the folders of the modules that `modules.json` names, with their
weights.  Never other weights, the state of a training, large files of other kinds, or what a link
fetches from elsewhere: a merge is made to be shared.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError, listing, plain_json, read_json
from .files import Checkpoint
from .folder import ADAPTER, PICKLES, SAFE, STATE, is_weights
from .source import Weights
from .view import original

LARGE = 32_000_000  # bytes of a file that is no part of a tokenizer
MANY = 1000  # files of a subfolder
TOKENIZER = re.compile(
    r"(tokenizer|vocab|merges|spiece|sentencepiece|tekken).*|.*\.(model|tiktoken)"
)
PARSED = frozenset({
    "config.json", "preprocessor_config.json", "processor_config.json", "modules.json",
})  # fmt: skip
REWRITTEN = frozenset({"README.md", "recipe.yaml", "report.json"})
# Of version control, the system and editors: no part of a model, and not spoken of.
BOOKKEEPING = frozenset({
    ".git", ".gitattributes", ".gitignore", ".gitkeep", ".cache", ".huggingface", ".DS_Store",
    ".ipynb_checkpoints", ".idea", ".vscode", "__pycache__", "Thumbs.db", "desktop.ini",
})  # fmt: skip
TRAINING = re.compile(
    r"(all|train|eval|test|predict)_results\.json|trainer_log\.jsonl|latest|zero_to_fp32\.py"
    r"|.*\.log|runs|logs|wandb|mlruns|lightning_logs|checkpoint-\d+|global_step\d+"
)
QUANTISED = frozenset({
    "quantize_config.json", "quant_config.json", "hf_quant_config.json", "quantization_config.json",
})  # fmt: skip
WEIGHTS, STATES, ELSEWHERE = "other weights", "of a training", "a link to somewhere else"


@dataclass(frozen=True)
class Companions:
    """The files beside a model's weights, by their names relative to its folder.

    copied     name → the file, of what a merge takes over
    weights    names among these that hold weights: of modules that are not merged
    left_out   name → why, of what it does not take over
    """

    copied: Mapping[str, Path] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of the files that a merge takes over."""
        return sum(file.stat().st_size for file in self.copied.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What users should know about these files, a sentence each."""
        reasons: dict[str, list[str]] = {}
        for name, why in self.left_out.items():
            reasons.setdefault(why, []).append(name.encode("utf-8", "replace").decode())
        told = "; ".join(f"{listing(names, 20)} ({why})" for why, names in reasons.items())
        found = [f"files beside the base's weights are left out: {told}"] if told else []
        if self.weights:
            found.append(f"taken over from the base, not merged: {listing(self.weights, 20)}")
        return tuple(found)


def carry(file: Path, place: Path) -> None:
    """Copy a file that lies beside weights: byte for byte, but JSON that is read here in UTF-8.

    What is understood in UTF-16, or after a byte-order mark, others could not read in the output.
    """
    shutil.copyfile(file, place)
    if file.name in PARSED:
        raw = file.read_bytes()
        plain = plain_json(raw)
        if plain != raw:
            place.write_bytes(plain)


def companions(base: Weights) -> Companions:
    """What lies beside the weights of a base; nothing where it is a bare file, or in memory."""
    source = original(base)
    if not isinstance(source, Checkpoint):
        return Companions()
    folder = source.directory or (source.path if source.path.is_dir() else None)
    if folder is None:
        return Companions()
    weights = {entry.file.resolve() for entry in source.tensors.values()}
    roots = {folder.resolve(), *(file.parent for file in weights)}
    return _Folder(folder, weights, roots).companions()


@dataclass(frozen=True)
class _Folder:
    """A base's folder; links may lead to `roots`: itself, and where its weights really lie."""

    path: Path
    weights: set[Path]
    roots: set[Path]

    def companions(self) -> Companions:
        copied, left_out = dict[str, Path](), dict[str, str]()
        modules = self._modules()
        for entry in sorted(self.path.iterdir()):
            name = entry.name
            if name in BOOKKEEPING | REWRITTEN or name.startswith(".mats-"):
                continue
            if entry.is_dir() and name in modules:
                copied |= self._module(entry)
                continue
            why = self._why_not_folder(entry) if entry.is_dir() else self._why_not(entry)
            if why == "its own":
                continue
            if why:
                left_out[f"{name}/" if entry.is_dir() else name] = why
            elif entry.is_dir():
                copied |= {self._name(file): file for file in _files(entry)}
            else:
                copied[name] = entry
        own = tuple(name for name in copied if is_weights(name))
        return Companions(copied, own, left_out)

    def _why_not(self, file: Path) -> str:
        """Why a file is left out; "" for one that is taken over."""
        name = file.name
        if not _is_text(name):
            return "a name that is no text"
        if file.is_symlink() and not self._inside(file):
            return ELSEWHERE if file.exists() else "a link to nothing"
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            return "no file that could be copied"
        if file.resolve() in self.weights or name.endswith(f"{SAFE}.index.json"):
            return "its own"
        if TRAINING.fullmatch(name) or (STATE.match(name) and not name.endswith("_config.json")):
            return STATES
        if is_weights(name) or name == ADAPTER:
            return WEIGHTS
        if name in QUANTISED:
            return "of a quantised model"
        if name.startswith("."):
            return "hidden"
        large = found.st_size > LARGE and not TOKENIZER.fullmatch(name)
        return f"large: {found.st_size / 1e6:.0f} MB" if large else ""

    def _why_not_folder(self, folder: Path) -> str:
        if folder.is_symlink() and not self._inside(folder):
            return ELSEWHERE
        if TRAINING.fullmatch(folder.name):
            return STATES
        if folder.name.startswith("."):
            return "hidden"
        files = list(_files(folder))
        if len(files) > MANY:
            return f"more than {MANY} files"
        reasons = [why for file in files if (why := self._why_not(file))]
        return "" if not reasons else WEIGHTS if "its own" in reasons else reasons[0]

    def _module(self, folder: Path) -> dict[str, Path]:
        """The files of a module of sentence-transformers, its weights in one format."""
        found = {}
        for file in _files(folder):
            plain = any(file.parent.glob(f"*{SAFE}"))
            if (file.is_symlink() and not self._inside(file)) or not file.is_file():
                continue
            if STATE.match(file.name) or (plain and file.name.endswith(PICKLES)):
                continue
            found[self._name(file)] = file
        return found

    def _modules(self) -> set[str]:
        """The subfolders that `modules.json` names, as sentence-transformers reads it."""
        file = self.path / "modules.json"
        try:
            rows = read_json(file) if file.is_file() else []
            paths = [str(row["path"]) for row in rows]
        except (InputError, TypeError, KeyError):
            return set()
        parts = [Path(path).parts for path in paths if path]
        return {first for first, *_ in parts if first not in ("/", "..", ".")}

    def _inside(self, link: Path) -> bool:
        """Whether a link leads into the base's folder, or to where its weights lie."""
        try:
            parents = link.resolve().parents
        except (OSError, RuntimeError):
            return False
        return not self.roots.isdisjoint(parents)

    def _name(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, at most `MANY` and one; links to folders are not followed."""
    count = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - BOOKKEEPING)
        for name in sorted(set(names) - BOOKKEEPING):
            count += 1
            yield Path(place) / name
            if count > MANY:
                return


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
