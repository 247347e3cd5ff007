"""Writes this folder's files; run once by commit 68a66e7 (version 0.1.0), from its root:

    python path/to/make.py FOLDER

Everything but the app's run file and the journal is written by the command line.  The absolute path
of FOLDER is replaced by FOLDER in the files, so that they can be read anywhere.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import yaml

CLASSES = {"one": 2, "two": 3}


def vit(classes: int, seed: int):
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=8, patch_size=4, num_channels=1, num_labels=classes,  # type: ignore[call-arg]
        id2label={i: f"class {i}" for i in range(classes)},
        label2id={f"class {i}": i for i in range(classes)},
    )  # fmt: skip
    return ViTForImageClassification(config)


def family(folder: Path) -> None:
    base = vit(2, 0)
    base.save_pretrained(folder / "base")
    for seed, (name, classes) in enumerate(CLASSES.items(), 1):
        expert = vit(classes, seed)
        state, generator = expert.state_dict(), torch.Generator().manual_seed(seed)
        for key, value in base.state_dict().items():
            if not key.startswith("classifier"):
                state[key] = value + 0.1 * torch.randn(value.shape, generator=generator)
        expert.load_state_dict(state)
        expert.save_pretrained(folder / name)
        draw = np.random.default_rng(seed)
        arrays = {}
        for half, count in (("train", 20), ("test", 8)):
            arrays[f"x_{half}"] = draw.integers(0, 256, (count, 8, 8), dtype=np.uint8)
            arrays[f"y_{half}"] = draw.integers(0, classes, count)
        classes_ = np.array([f"class {i}" for i in range(classes)])
        np.savez_compressed(folder / f"{name}.npz", **arrays, classes=classes_)
    members = [{"name": n, "model": n, "task": f"{n}.npz"} for n in CLASSES]
    description = {"name": "Tiny two", "base": "base", "experts": members}
    (folder / "family.yaml").write_text(yaml.safe_dump(description, sort_keys=False))


def recipes(folder: Path) -> None:
    experts: list[dict[str, object]] = [
        {"name": n, "model": n, "statistics": f"{n}.stats.safetensors", "task": f"{n}.npz"}
        for n in CLASSES
    ]
    experts[1]["weight"] = 0.5
    common = {"base": "base", "experts": experts, "device": "cpu", "dtype": "float64"}
    fisher = {**common, "method": "fisher", "search": {"floor": [0.1, 0.5]}, "output": "fisher"}
    kfac = {**common, "method": "kfac", "options": {"damping": 0.3, "fold_bias": True}, "rounds": 2}
    (folder / "fisher.yaml").write_text(yaml.safe_dump(fisher, sort_keys=False))
    (folder / "kfac.yaml").write_text(yaml.safe_dump(kfac, sort_keys=False))


def command(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "mats_core", *map(str, words)], check=True)


def run_file(folder: Path) -> None:
    """The app's file of a finished merge in two rounds."""
    runs = importlib.import_module("pages.shared.runs")
    core = importlib.import_module("mats_core")
    recipe = core.load_recipe(folder / "kfac.yaml")
    runs.add("Tiny two", 2, recipe, core.merge(recipe))
    (file,) = (Path(os.environ["MATS_RESULTS"]) / "runs").rglob("*.json")
    shutil.copy(file, folder / "run.json")


def journal(folder: Path) -> None:
    """The journal of a merge that was stopped after five layers."""
    pipeline = importlib.import_module("mats_core.pipeline")
    recipe = importlib.import_module("mats_core").load_recipe(folder / "fisher.yaml")
    recipe = recipe.model_copy(update={"output": "unfinished", "search": None, "evaluate": False})
    done = 0
    for event in pipeline.run(recipe, resume=True):
        done += type(event).__name__ == "LayerDone"
        if done == 5:
            break
    shutil.copy(folder / ".unfinished.partial" / ".journal.jsonl", folder / "journal.jsonl")
    shutil.rmtree(folder / ".unfinished.partial")


def main(folder: Path) -> None:
    sys.path.insert(0, "")
    folder.mkdir(parents=True, exist_ok=True)
    family(folder)
    recipes(folder)
    for name, more in (("one", ()), ("two", ("--rank", 2))):
        out = folder / f"{name}.stats.safetensors"
        task = folder / f"{name}.npz"
        command("measure", folder / name, "--task", task, "--out", out, "--examples", 12, *more)
    command("merge", folder / "fisher.yaml")
    run_file(folder)
    journal(folder)
    for file in folder.rglob("*"):
        if file.suffix in (".yaml", ".json", ".jsonl", ".md"):
            file.write_text(file.read_text("utf-8").replace(str(folder), "FOLDER"), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
