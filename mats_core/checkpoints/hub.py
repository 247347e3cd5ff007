"""Checkpoints by their hub id: `org/name` or `org/name@revision`.

A path that exists always wins.  Otherwise the local cache of `huggingface_hub` is asked first, so
that what was downloaded once opens without a network, and only then the hub itself.  Nothing but
weights in safetensors, configuration, tokenizer and processor files is fetched, from the top
folder of the repository and from the modules of sentence-transformers.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import InputError, existing
from .folder import weight_files

ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./+-]+))?")
WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]
# Copies for other programs (onnx/, original/, openvino/), but not the modules of
# sentence-transformers, which are called 1_Pooling/, 2_Dense/ and so on.
TIMEOUT = 20.0  # seconds that the hub has to answer
MODELS = "models--"  # how the folders of models begin in the hub's cache
ELSEWHERE = ["[!0-9]*/*", "[0-9][!_]*/*"]


def is_id(reference: str, folder: Path = Path()) -> bool:
    """Whether a reference is taken as a hub id: it looks like one, and no such path exists."""
    with contextlib.suppress(OSError):  # a name that is too long, which is that of nothing
        if (folder / home(reference)).exists():
            return False
    found = ID.fullmatch(reference)
    return found is not None and not found["repo"].endswith((".safetensors", ".json"))


def locate(reference: str | Path, folder: Path = Path()) -> Path:
    """The path of a checkpoint that a recipe, a family or a command names.

    Raises `InputError` for a hub id that is neither in the local cache nor can be downloaded.
    """
    text = str(reference)
    if not is_id(text, folder):
        return folder / home(text)
    if (folder / text.partition("/")[0]).is_dir():
        # Rather a mistyped path than the id of a model whose owner is called like a folder here.
        return cached(text) or existing("checkpoint", folder / text)
    return _snapshot(text)


def home(reference: str) -> Path:
    """A path with its `~` replaced; raises `InputError` for the home of an unknown user."""
    try:
        return Path(reference).expanduser()
    except RuntimeError:
        raise InputError(
            f"path '{reference}'",
            expected="the home folder of a user of this machine after '~'",
            found="an unknown user",
            remedy="Write the whole path, or ./ before a folder whose name begins with '~'.",
        ) from None


def pinned(reference: str, folder: Path = Path()) -> str:
    """A hub id with the commit that it stands for now; anything else as it is."""
    if not is_id(reference, folder):
        return reference
    return f"{reference.partition('@')[0]}@{_snapshot(reference).name}"


def cache_folder() -> Path:
    """The folder in which this machine keeps what it downloaded from the hub, made or not."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def snapshots(folder: Path) -> list[tuple[str, Path]]:
    """(reference, folder) of every revision in one folder of the hub's cache; none of another one.

    The revision that the branch `main` names needs no `@commit` after its id.
    """
    owner, _, name = folder.name.removeprefix(MODELS).partition("--")
    if not folder.name.startswith(MODELS) or not name:
        return []
    id = f"{owner}/{name}"
    with contextlib.suppress(OSError, ValueError):
        ref = folder / "refs" / "main"
        main = ref.read_text("utf-8").strip() if ref.is_file() else ""
        found = sorted(one for one in (folder / "snapshots").iterdir() if one.is_dir())
        return [(id if one.name == main else f"{id}@{one.name}", one) for one in found]
    return []


@dataclass(frozen=True)
class Offer:
    """What a download from the hub would fetch.

    reference  id of the model, with its revision if one is named
    host       that is asked
    files      number of files that are wanted
    nbytes     of them
    """

    reference: str
    host: str
    files: int
    nbytes: int


def host() -> str:
    """The host that is asked for models."""
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc or constants.ENDPOINT


def offer(reference: str) -> Offer:
    """How large the download of a model is; the hub is asked, and nothing is fetched.

    Raises `InputError` for what is no id, and where the hub does not answer or has no such model.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    thing = f"model '{reference}' of the hub"
    if not is_id(reference):
        raise InputError(thing, expected="an id: owner/name, or owner/name@revision", found="none")
    repo, _, revision = reference.partition("@")
    try:
        about = HfApi().model_info(
            repo, revision=revision or None, files_metadata=True, timeout=TIMEOUT
        )
    except Exception as error:  # of the client's transport as well, which has no common base
        raise InputError(
            thing,
            expected=f"an answer of {host()}",
            found=_first(error)[:200],
            remedy="Check the spelling and the network. What lies in the cache is listed without.",
        ) from None
    sizes = {file.rfilename: file.size or 0 for file in about.siblings or []}
    kept = [*filter_repo_objects(sizes, allow_patterns=WANTED, ignore_patterns=ELSEWHERE)]
    return Offer(reference, host(), len(kept), sum(sizes[name] for name in kept))


def cached(reference: str) -> Path | None:
    """The whole snapshot of a model in this machine's cache, whose name is the commit."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    with contextlib.suppress(LocalEntryNotFoundError, OSError):
        found = Path(_download(reference)(local_files_only=True))
        return found if _complete(found) else None
    return None


def _download(reference: str) -> Any:
    from huggingface_hub import snapshot_download

    repo, _, revision = reference.partition("@")
    wanted: Any = {"allow_patterns": WANTED, "ignore_patterns": ELSEWHERE}
    return partial(snapshot_download, repo, revision=revision or None, **wanted)


def _snapshot(reference: str) -> Path:
    """The snapshot's folder in the cache; its name is the commit."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if (kept := cached(reference)) is not None:
        return kept
    repo, _, revision = reference.partition("@")
    snapshot = _download(reference)
    try:
        found = Path(snapshot(local_files_only=False))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise InputError(
            f"checkpoint '{reference}'",
            expected="an existing path, or a model of the Hugging Face hub that is in the local "
            "cache or can be downloaded",
            found=f"no such path, no whole copy in the cache, and no download: {_first(error)}",
            remedy=f"Check the spelling, or fetch it once where there is a network: hf download "
            f"{repo}{f' --revision {revision}' if revision else ''}",
        ) from None
    if not _complete(found):
        raise InputError(
            f"checkpoint '{reference}'",
            expected="weights in safetensors",
            found="none, or not all of them, in the top folder of that revision",
            remedy="If it has pickles only: load it with transformers where you trust it, "
            "save_pretrained it, and name that folder.",
        )
    return found


def _complete(folder: Path) -> bool:
    """Whether the weights are there: other programs may have fetched the configuration only."""
    try:
        return bool(weight_files(folder).files)
    except InputError:
        return len(list(folder.glob("*.safetensors"))) > 1 and not any(folder.glob("*.index.json"))


def _first(error: Exception) -> str:
    """The first line of an error, which says what happened; the rest is for developers."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")


def push(folder: Path, name: str, *, private: bool = True) -> str:
    """The address of a repository that holds the files of a folder; made if it does not exist.

    Raises what `huggingface_hub` raises: not logged in, no rights, no network.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    made = api.create_repo(name, private=private, exist_ok=True)
    api.upload_folder(folder_path=folder, repo_id=made.repo_id, commit_message="A merge")
    return str(made)
