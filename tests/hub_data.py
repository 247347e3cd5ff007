"""Data sets in the caches of `datasets` and of the hub's client, as these leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def caches(monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    """An empty home of both caches, without a network."""
    config = pytest.importorskip("datasets").config
    from huggingface_hub import constants

    monkeypatch.setenv("HF_DATASETS_CACHE", str(home / "datasets"))
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", home / "datasets")
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    return home


def prepared(
    home: Path, reference: str, splits: dict[str, list[dict[str, Any]]], names: list[str],
    subset: str = "default",
) -> Path:  # fmt: skip
    """The folder of a data set that `datasets` has prepared, with a column `label` of classes."""
    from datasets import ClassLabel, Features, Value
    from datasets.arrow_writer import ArrowWriter

    owner, _, name = reference.partition("/")
    folder = home / "datasets" / f"{owner}___{name}" / subset / "0.0.0" / COMMIT
    folder.mkdir(parents=True)
    first = next(iter(splits.values()))[0]
    kinds: dict[str, Any] = {key: Value("string") for key in first if key != "label"}
    features = Features({**kinds, "label": ClassLabel(names=names)})
    for split, rows in splits.items():
        writer = ArrowWriter(path=str(folder / f"{name}-{split}.arrow"), features=features)
        for row in rows:
            writer.write(row)
        writer.finalize()
    told = {
        "features": features.to_dict(), "builder_name": "parquet", "dataset_name": name,
        "config_name": subset, "version": {"version_str": "0.0.0"},
        "splits": {
            split: {"name": split, "num_bytes": 1, "num_examples": len(rows), "dataset_name": name}
            for split, rows in splits.items()
        },
    }  # fmt: skip
    (folder / "dataset_info.json").write_text(json.dumps(told))
    return folder


def fetched(home: Path, reference: str, files: dict[str, list[dict[str, Any]]], card: str) -> Path:
    """The snapshot of a data set whose files the hub's client has fetched, as .jsonl."""
    place = home / "hub" / ("datasets--" + reference.replace("/", "--"))
    folder = place / "snapshots" / COMMIT
    for name, rows in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "README.md").write_text(card)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    return folder
