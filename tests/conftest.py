"""A tiny family that is built once a session, in a temporary folder; nothing else is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mats_core import models
from mats_core.checkpoints.files import Checkpoint
from mats_core.checkpoints.source import Weights
from mats_core.methods.table import METHODS
from mats_core.statistics.of_task import measure_task
from mats_core.tasks.loading import load
from tests.layer_cases import write_raw

CLASSES = (3, 4, 5)  # of the three tasks
# Files that take long (CPU seconds, all processes counted) begin before all others: of two workers
# none should end with a long one.  The first two fill the cache with what the app would measure at
# its start.  `test_journey` counts the runs of an app that others use after it.
LONGEST = (
    "test_docs.py",
    "notebooks/test_notebooks.py",
    "browser/test_journey.py",
    "browser/test_accessibility.py",
    "browser/test_steps.py",
    "browser/test_hands.py",
    "browser/test_questions.py",
    "browser/test_learn.py",
    "browser/test_lab.py",
    "browser/test_new_family.py",
    "browser/test_keyboard.py",
    "merging/test_ray.py",
    "test_sample_models.py",
    "tasks/test_harness.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of long files come first; all others, and those within a file, stay in order."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    assert all(file.is_file() for file in places), "LONGEST names a file that is not here"
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session", autouse=True)
def quiet_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread, no network, and a cache of the session's own, shared by its workers."""
    torch.set_num_threads(1)
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MATS_CACHE", str(shared / "cache"))
        patch.setenv("MATS_RESULTS", str(tmp_path_factory.mktemp("results")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_in_the_working_directory() -> Iterator[None]:
    """Fails the session if a test leaves a file where it was started."""
    ignored = {".pytest_cache", ".ruff_cache", "__pycache__", ".coverage", ".hypothesis"}
    before = set(os.listdir())
    yield
    left = {
        name
        for name in set(os.listdir()) - before - ignored
        if not name.startswith(".coverage") and name.endswith((".safetensors", ".npz", "out"))
    }
    assert not left, f"tests wrote {left} into the working directory"


def vit(classes: int, names: list[str], seed: int):
    """A random ViTForImageClassification for grey images of 12×12."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40,
        image_size=12, patch_size=4, num_channels=1, num_labels=classes,  # type: ignore[call-arg]
        id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)},
    )  # fmt: skip
    return ViTForImageClassification(config)


def class_names(classes: int) -> list[str]:
    return [f"kind {i} of {classes}" for i in range(classes)]


def loaded(checkpoint: Weights) -> torch.nn.Module:
    """The module of a checkpoint directory, with its weights, in evaluation mode."""
    return models.build(checkpoint.directory, models.tensors_of(checkpoint))


def make_task(file: Path, classes: int, seed: int, names: list[str]) -> None:
    """Noise with a class-dependent stripe: learnable, and small."""
    rng = np.random.default_rng(seed)

    def half(count: int):
        labels = rng.integers(0, classes, count)
        images = rng.integers(0, 120, (count, 12, 12), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 2] += 100
        return images, labels

    (x_train, y_train), (x_test, y_test) = half(120), half(60)
    np.savez(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test,
             classes=np.array(names))  # fmt: skip


@pytest.fixture(scope="session")
def tiny_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `family.yaml`, a base, three experts, their tasks and statistics files."""
    folder = tmp_path_factory.mktemp("family")
    base = vit(5, class_names(5), seed=0)
    base.save_pretrained(folder / "base")
    make_task(folder / "t_base.npz", 5, 50, class_names(5))
    shared = base.state_dict()
    for m, classes in enumerate(CLASSES):
        names = [f"{name}, task {m}" for name in class_names(classes)]
        expert = vit(classes, names, seed=10 + m)
        own = expert.state_dict()
        generator = torch.Generator().manual_seed(m)
        for name in own:
            if not name.startswith("classifier"):
                noise = torch.randn(own[name].shape, generator=generator)
                own[name] = shared[name] + 0.03 * noise
            elif name.endswith("weight"):
                own[name] = own[name] * 20  # heads that tell their classes apart
        expert.load_state_dict(own)
        expert.save_pretrained(folder / f"e{m}")
        make_task(folder / f"t{m}.npz", classes, 60 + m, names)
        statistics = measure_task(
            Checkpoint.open(folder / f"e{m}"), load(folder / f"t{m}.npz"), examples=48, blocks=30
        )
        statistics.save(folder / f"e{m}.stats.safetensors")
    measure_task(Checkpoint.open(folder / "base"), load(folder / "t_base.npz"), examples=48).save(
        folder / "base.stats.safetensors"
    )
    description = {
        "name": "Tiny three",
        "base": "base",
        "base_task": "t_base.npz",
        "experts": [{"name": f"e{m}", "model": f"e{m}", "task": f"t{m}.npz"} for m in range(3)],
    }
    (folder / "family.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    return folder


def family_recipe(folder: Path, method: str, **settings: object) -> dict[str, object]:
    """A recipe over the tiny family, as a dictionary; paths start at its folder.

    Over all three experts, or over as many as the method takes.
    """
    return {
        "base": "base",
        "base_statistics": "base.stats.safetensors",
        "experts": [
            {
                "name": f"e{m}",
                "model": f"e{m}",
                "task": f"t{m}.npz",
                "statistics": f"e{m}.stats.safetensors",
            }
            for m in range(METHODS[method].experts or 3)
        ],
        "method": method,
        "device": "cpu",
        **settings,
    }


@pytest.fixture(scope="session")
def raw_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bare files without any config.json: base.safetensors, e0…e2.safetensors."""
    folder = tmp_path_factory.mktemp("raw")
    generator = torch.Generator().manual_seed(7)

    def tensors(seed_shift: float) -> dict[str, torch.Tensor]:
        return {
            "block.0.fc1.weight": torch.randn(6, 4, generator=generator) + seed_shift,
            "block.0.fc1.bias": torch.randn(6, generator=generator),
            "block.0.norm.weight": torch.ones(4) + 0.1 * torch.randn(4, generator=generator),
            "block.1.fc1.weight": torch.randn(6, 4, generator=generator),
            "block.1.fc1.bias": torch.randn(6, generator=generator),
            "position_ids": torch.arange(5),
        }

    write_raw(folder, "base.safetensors", tensors(0))
    for m in range(3):
        write_raw(folder, f"e{m}.safetensors", tensors(0.1 * m))
    return folder
