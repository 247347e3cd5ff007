"""Data sets in this machine's caches are listed, guessed and read without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mats_core import tasks
from mats_core.checkpoints import cached_data
from mats_core.recipes import task_of
from tests.hub_data import caches, fetched, prepared


def moods(count: int, hidden: bool = False) -> list[dict[str, Any]]:
    return [{"text": f"t {k}", "label": -1 if hidden else k % 2} for k in range(count)]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return caches(monkeypatch, tmp_path / "hf")


def listed() -> list[tuple[str, tuple[str, ...]]]:
    return [(one.title, one.splits) for one in cached_data()]


def written(folder: Path, found: tasks.Guess) -> tasks.Task:
    """The task that the page writes of a guess, read again."""
    reference, text = task_of("mine", folder, found)
    (folder / "tasks").mkdir()
    (folder / reference).write_text(text)
    return tasks.load(reference, root=folder)


def test_both_caches_are_listed_and_other_folders_are_not(home):
    assert listed() == []
    prepared(home, "owner/mood", {"train": moods(4), "test": moods(2)}, ["bad", "good"])
    prepared(home, "owner/glue", {"train": moods(4)}, ["bad", "good"], subset="sst2")
    fetched(home, "owner/news", {"data/train-0.jsonl": moods(4), "data/test-0.jsonl": moods(2)}, "")
    card = "---\nconfigs:\n- config_name: one\n- config_name: two\n---\n"
    files = {f"{one}/{half}.jsonl": moods(2) for one in ("one", "two") for half in ("train", "val")}
    fetched(home, "owner/two", files, card)
    (home / "datasets" / "json" / "default-1").mkdir(parents=True)
    (home / "hub" / "datasets--owner--empty" / "snapshots" / "c0ffee").mkdir(parents=True)
    assert listed() == [
        ("owner/glue (sst2)", ("train",)),
        ("owner/mood", ("train", "test")),
        ("owner/news", ("train", "test")),
        ("owner/two (one)", ("validation", "train")),
        ("owner/two (two)", ("validation", "train")),
    ]


def test_what_was_prepared_is_a_task_with_the_names_of_its_classes(home, tmp_path):
    splits = {"train": moods(20), "test": moods(10)}
    folder = prepared(home, "owner/mood", splits, ["sad", "happy"])
    found = tasks.guessed(folder, ("Happy", "Sad"))
    assert (found.inputs, found.label, found.tested) == (("text",), "label", "test")
    assert tasks.same_classes(found.found, ("Happy", "Sad"))
    task = written(tmp_path, found)
    assert (task.classes, len(task.test)) == (("sad", "happy"), 10)
    assert "dataset: owner/mood" in (tmp_path / "tasks" / "mine.yaml").read_text()


def test_files_that_were_fetched_are_read_where_nothing_was_prepared(home, tmp_path):
    rows = [{"text": f"t {k}", "label": ["bad", "good"][k % 2]} for k in range(20)]
    folder = fetched(home, "owner/news", {"train.jsonl": rows, "test.jsonl": rows[:6]}, "")
    found = tasks.guessed(folder)
    task = written(tmp_path, found)
    assert (task.classes, len(task.test)) == (("bad", "good"), 6)


def test_labels_that_are_hidden_are_not_tested_on(home):
    splits = {"train": moods(20), "test": moods(4, hidden=True), "validation": moods(6)}
    folder = prepared(home, "owner/glue", splits, ["bad", "good"], subset="sst2")
    assert tasks.guessed(folder).tested == "validation"


def test_a_language_model_is_asked_for_its_classes(home, tmp_path):
    folder = prepared(home, "owner/mood", {"train": moods(20)}, ["sad", "happy"])
    found = tasks.guessed(folder, speaks=True)
    assert (found.kind, found.choices) == ("choices", (" happy", " sad"))
    assert written(tmp_path, found).form.kind == "choices"
