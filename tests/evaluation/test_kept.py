"""Scores of experts and bases are known from earlier processes, as long as nothing changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from mats_core.evaluation import evaluate, kept
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import parse_recipe
from mats_core.system.remember import memory
from mats_core.tasks import load
from tests.conftest import family_recipe


@pytest.fixture
def folder(tiny_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_family, tmp_path / "family"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whom a model was asked for."""
    found: list[str] = []
    real = evaluate.evaluate_expert

    def ask(encoder, family, expert, split, **settings):
        found.append(expert.name)
        return real(encoder, family, expert, split, **settings)

    monkeypatch.setattr(evaluate, "evaluate_expert", ask)
    return found


def first(folder: Path):
    """The family, its first expert and the expert's task."""
    content = {**family_recipe(folder, "average"), "base_statistics": None}
    content["experts"] = [{"name": "e0", "model": "e0", "task": "t0.npz"}]
    family = open_inputs(parse_recipe(content, folder)).family
    return family, family.experts[0], load(folder / "t0.npz")


def scores(folder: Path):
    """Both scores of the first expert, as another process would get them."""
    memory().clear()
    return evaluate.baselines(*first(folder), "test", None, "cpu")


def configured(folder: Path) -> None:
    file = folder / "e0" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"layer_norm_eps": 1e-3}))


def processed(folder: Path) -> None:
    settings = {"image_mean": [0.1], "image_std": [0.7], "size": {"height": 12, "width": 12}}
    (folder / "e0" / "preprocessor_config.json").write_text(json.dumps(settings))


def weighed(folder: Path) -> None:
    file = folder / "base" / "model.safetensors"
    tensors = {name: value * 1.01 for name, value in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})


def other_data(folder: Path) -> None:
    arrays = dict(np.load(folder / "t0.npz"))
    arrays["x_test"] = arrays["x_test"][::-1]
    np.savez(folder / "t0.npz", **arrays)


def damaged(folder: Path) -> None:
    (file,) = (folder.parent / "cache" / "scores").glob("*.json")
    file.write_text(file.read_text()[:40])


def test_a_second_process_asks_no_model(folder: Path, asked: list[str]):
    first = scores(folder)
    assert asked == ["e0", "e0"]
    assert scores(folder) == first
    assert len(asked) == 2


@pytest.mark.parametrize("change", [configured, processed, weighed, other_data, damaged])
def test_whatever_decides_the_answers_has_them_asked_again(
    folder: Path, asked: list[str], change: Callable[[Path], None]
):
    scores(folder)
    change(folder)
    again = scores(folder)
    assert len(asked) == 4
    assert scores(folder) == again
    assert len(asked) == 4


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    folder: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
):
    def full(file: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mats_core.evaluation.kept.write_atomically", full)
    assert scores(folder) == scores(folder)
    assert len(asked) == 4


def honest(content: dict) -> dict:
    return content


def exaggerated(content: dict) -> dict:
    flipped = str.maketrans("01", "10")
    for pair in content.values():
        pair[1]["answers"] = pair[1]["answers"].translate(flipped)
    return content


def shortened(content: dict) -> dict:
    for pair in content.values():
        pair[0]["answers"] = pair[0]["answers"][:5]
    return content


def of_others(content: dict) -> dict:
    return {name[::-1]: pair for name, pair in content.items()}


@pytest.mark.parametrize(
    ("change", "whole"), [(honest, 0), (exaggerated, 2), (shortened, 2), (of_others, 2), (list, 2)]
)
def test_scores_that_a_package_brings_count_once_some_answers_were_confirmed(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict], object],
    whole: int,
):
    family, expert, task = first(folder)
    known, file = scores(folder), folder / "scores.json"
    kept.write(file, {evaluate.baselines_key(family, expert, task, "test", None): known})
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    shutil.rmtree(folder.parent / "cache")
    sizes: list[int] = []
    real = evaluate.evaluate_expert

    def ask(encoder, family, expert, split, **settings):
        sizes.append(len(split))
        return real(encoder, family, expert, split, **settings)

    monkeypatch.setattr(evaluate, "evaluate_expert", ask)
    monkeypatch.setattr(evaluate, "CONFIRMED", 6)
    monkeypatch.setattr(kept, "_BROUGHT", {})
    kept.bring(file)
    assert scores(folder) == known
    assert sizes.count(len(task.test)) == whole
    assert len(task.test) > 6
