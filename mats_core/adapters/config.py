"""What an adapter's directory lacks to be evaluated: the configuration of the model it belongs to.

peft saves no `config.json`.  It follows from the base's: the architecture from the adapter's task
type or from the class that peft noted, the number of classes from the head that was saved with it.
The names of the classes are not saved, so the head of an adapter has `LABEL_0`, `LABEL_1`, ...
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import models
from ..checkpoints import Entry, Weights, carry, config_files, read_config, staged_directory
from ..errors import MachineError
from ..families import HEAD_MODULES
from ..system import cache_folder, folder_of_process
from .settings import CONFIG, Settings

OUTPUT = ("lm_head.weight", "embed_out.weight")


def architecture(
    path: Path,
    base: Weights,
    settings: Settings,
    tensors: Mapping[str, Entry],
    saved: Iterable[str],
) -> dict[str, Any]:
    """The `config.json` of the model that was trained: the adapter's, where it has one.

    `saved`: the tensors that the adapter holds whole, among which its head is looked for.
    """
    own = path / "config.json"
    if own.is_file():
        return read_config(own)
    if not base.config:
        return {}
    config = dict(base.config)
    name = settings.architecture or models.class_for(
        str(config.get("model_type") or ""), settings.task_type
    )
    if name:
        config["architectures"] = [name]
    saved = list(saved)
    if config.get("model_type") and any(name.endswith(OUTPUT) for name in saved):
        config["tie_word_embeddings"] = False  # it was trained apart from the embedding
    classes = _classes(tensors, saved)
    if classes is not None:
        config["id2label"] = {str(index): f"LABEL_{index}" for index in range(classes)}
        config["label2id"] = {f"LABEL_{index}": index for index in range(classes)}
        config.pop("num_labels", None)
    return config


def _classes(tensors: Mapping[str, Entry], saved: Iterable[str]) -> int | None:
    """The outputs of the saved head: the rows of its last weight; None without one."""
    weights = [
        name
        for name in sorted(saved)
        if name.endswith(".weight")
        and len(tensors[name].shape) == 2
        and not HEAD_MODULES.isdisjoint(name.split("."))
    ]
    # `classifier.dense` comes before `classifier.out_proj` in RoBERTa's two layers.
    return tensors[weights[-1]].shape[0] if weights else None


def model_folder(path: Path, base: Weights, config: Mapping[str, Any]) -> Path | None:
    """A folder with `config.json` and the tokenizer or processor, made in the cache; None without.

    Files of the adapter go before those of the base.
    """
    if (path / "config.json").is_file():
        return path
    if base.directory is None or not config:
        return None
    files = {file.name: file for file in (*config_files(base.directory), *config_files(path))}
    files = {name: files[name] for name in sorted(files.keys() - {CONFIG, "config.json"})}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    key = hashlib.sha256(text.encode())
    for name, file in files.items():
        key.update(f"\0{name}\0".encode() + file.read_bytes())
    folder = cache_folder() / "adapters" / key.hexdigest()[:24]
    if not folder.is_dir():
        try:
            with staged_directory(folder, allow=lambda place: None) as staging:  # of the cache
                _fill(staging, files, text)
        except MachineError:  # a full cache: a folder that goes with this process
            folder = folder_of_process("adapter")
            _fill(folder, files, text)
    return folder


def _fill(folder: Path, files: Mapping[str, Path], config: str) -> None:
    for name, file in files.items():
        carry(file, folder / name)
    (folder / "config.json").write_text(config, "utf-8")
