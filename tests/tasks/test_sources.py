"""Named sources of tasks: registered, advertised by a package, or beside the library."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import numpy as np
import pytest

from mats_core import tasks
from mats_core.errors import InputError
from mats_core.tasks import sources
from sample_models import beside, source
from sample_models import tasks as drawn


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    monkeypatch.setattr(sources, "_REGISTERED", {})


def made(name: str, description: str = "") -> tasks.Task:
    images, labels = np.zeros((10, 2, 2), np.uint8), np.arange(10) % 2
    arrays = dict.fromkeys(("x_train", "x_test"), images)
    arrays |= {"y_train": labels, "y_test": labels, "classes": np.array(["a", "b"])}
    return tasks.Task.from_arrays(name, arrays, description)


def test_a_registered_source_makes_the_task_of_its_name():
    tasks.register("mine", made)
    task = tasks.load("mine:with:colons")
    assert task.name == "with:colons"
    assert task.classes == ("a", "b")
    tasks.register("mine", lambda name: made("another"))
    assert tasks.load("mine:first").name == "another"


def test_a_checkout_needs_no_call_for_the_sample_family():
    task = tasks.load("sample:letters")
    assert task is source.load("letters")
    assert task.description == drawn.DESCRIPTIONS["letters"]
    arrays = drawn.arrays("letters")
    np.testing.assert_array_equal(task.test.inputs, arrays["x_test"])
    np.testing.assert_array_equal(task.test.labels, arrays["y_test"])


def test_an_unknown_source_names_those_that_exist():
    tasks.register("mine", made)
    with pytest.raises(
        InputError, match=r"mine, sample, lm_eval, found 'sampl'.*Did you mean 'sample'"
    ):
        tasks.load("sampl:digits")


def test_installed_sources_are_known_and_the_checkout_comes_first(monkeypatch, tmp_path):
    points = [
        EntryPoint("sample", "tests.tasks.test_sources:made", sources.GROUP),
        EntryPoint("further", "tests.tasks.test_sources:made", sources.GROUP),
    ]
    monkeypatch.setattr(sources, "entry_points", lambda group: points)
    assert tasks.load("further:one").name == "one"
    with pytest.raises(InputError, match="sample task"):
        tasks.load("sample:one")
    sources._REGISTERED.clear()
    monkeypatch.setattr(sources, "PROJECT", tmp_path / "absent.toml")
    assert tasks.load("sample:one").classes == ("a", "b")
    sources._REGISTERED.clear()
    (tmp_path / "broken.toml").write_text("[")
    monkeypatch.setattr(sources, "PROJECT", tmp_path / "broken.toml")
    assert tasks.load("sample:one").classes == ("a", "b")


def test_a_path_is_no_source(tmp_path):
    for path in ("c:/task.npz", "C:\\task", "a:b.npz", "a b:c", str(tmp_path / "x.yaml")):
        with pytest.raises(InputError, match="nothing there"):
            tasks.load(path)


def test_a_missing_task_is_drawn_by_another_process_with_the_rest_of_its_family(
    monkeypatch, tmp_path
):
    names = ("digits", "letters")
    monkeypatch.setattr(beside.tasks, "TASKS", names)
    files = {name: tmp_path / "tasks" / f"{name}.npz" for name in names}
    assert beside.drawn("letters", files.__getitem__)
    assert beside.drawn("digits", files.__getitem__)
    for name, file in files.items():
        with np.load(file) as there:
            for key, value in drawn.arrays(name).items():
                np.testing.assert_array_equal(there[key], value)


def test_a_task_that_no_other_process_can_draw_is_drawn_here(monkeypatch, tmp_path):
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "new"))
    monkeypatch.setattr(beside.sys, "executable", str(tmp_path / "no python"))
    monkeypatch.setattr(beside, "_AT_WORK", {})
    task = source._load("letters")
    np.testing.assert_array_equal(task.test.labels, drawn.arrays("letters")["y_test"])
    assert len(list((tmp_path / "new" / "tasks").iterdir())) == 1

    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\nexit 3\n")
    failing.chmod(0o755)
    monkeypatch.setattr(beside.sys, "executable", str(failing))
    np.testing.assert_array_equal(
        source._load("digits").test.labels, drawn.arrays("digits")["y_test"]
    )
