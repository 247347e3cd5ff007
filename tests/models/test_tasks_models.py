"""Tasks: arrays, splits and what is refused. Models: pixels, names, heads, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mats_core import models, tasks
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.tasks.task import Task
from tests.conftest import loaded


def arrays(train=50, test=20, classes=3, **change):
    rng = np.random.default_rng(1)
    return {
        "x_train": rng.integers(0, 256, (train, 4, 5), dtype=np.uint8),
        "y_train": rng.integers(0, classes, train),
        "x_test": rng.integers(0, 256, (test, 4, 5, 3), dtype=np.uint8),
        "y_test": rng.integers(0, classes, test),
        "classes": np.array([f"c{i}" for i in range(classes)]),
        **change,
    }


def test_splits():
    given = arrays()
    task = Task.from_arrays("t", given)
    assert (len(task.train), len(task.validation), len(task.test)) == (40, 10, 20)
    assert task.train.inputs.shape == (40, 4, 5, 1)
    assert task.test.inputs.shape == (20, 4, 5, 3)
    # Validation is the last fifth of the training half, and never a part of the rest.
    assert np.array_equal(task.train.inputs[..., 0], given["x_train"][:40])
    assert np.array_equal(task.validation.labels, given["y_train"][40:])
    assert task.split("validation") is task.validation
    assert len(task.test.first(3)) == 3
    assert len(task.test.first(None)) == 20
    assert len(Task.from_arrays("t", arrays(train=5000)).validation) == tasks.VALIDATION_MOST
    with pytest.raises(InputError, match="Did you mean 'test'"):
        task.split("tset")


def test_the_digest_is_of_everything():
    given = arrays()
    digest = Task.from_arrays("t", given).digest
    assert Task.from_arrays("other name", given).digest == digest
    changed = given["x_test"].copy()
    changed[3, 2, 1, 0] ^= 1
    assert Task.from_arrays("t", {**given, "x_test": changed}).digest != digest
    renamed = {**given, "classes": np.array(["a", "b", "c"])}
    assert Task.from_arrays("t", renamed).digest != digest


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x_train": np.zeros((50, 4, 5))}, "uint8 images"),
        ({"x_train": np.zeros((50, 20), np.uint8)}, "uint8 images"),
        ({"y_test": np.zeros(19, int)}, "20 integer labels"),
        ({"y_test": np.zeros(20)}, "integer labels"),
        ({"y_train": np.full(50, 3)}, "labels from 0 to 2"),
        ({"y_train": np.full(50, -1)}, "labels from 0 to 2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, says):
    with pytest.raises(InputError, match=says):
        Task.from_arrays("t", arrays(**change))


def test_files(tmp_path):
    np.savez(tmp_path / "t.npz", **arrays())
    for task in (tasks.load(tmp_path / "t.npz"), tasks.load("t.npz", root=tmp_path)):
        assert (task.name, task.classes) == ("t", ("c0", "c1", "c2"))
    np.savez(tmp_path / "few.npz", x_train=np.zeros(3))
    with pytest.raises(InputError, match="no y_train"):
        tasks.load(tmp_path / "few.npz")
    pickled = arrays()
    pickled["classes"] = np.array([{}, [], ()], dtype=object)
    np.savez(tmp_path / "pickled.npz", **pickled)
    with pytest.raises(InputError, match="plain arrays"):
        tasks.load(tmp_path / "pickled.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    (tmp_path / "t.csv").write_text("")
    for name in ("bad.npz", "t.csv", "absent.npz"):
        with pytest.raises(InputError, match=name):
            tasks.load(tmp_path / name)


def test_sample_tasks_by_name():
    names = pytest.importorskip("sample_models.tasks").TASKS
    with pytest.raises(InputError, match="one of"):
        tasks.load("sample:nonsense")
    assert len(list(names)) >= 8


# Models -------------------------------------------------------------------------------------------


def directory(folder, **config):
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_pixels_are_normalised_as_the_preprocessor_says(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 1), dtype=np.uint8)
    plain = models.pixel_values(images, directory(tmp_path, num_channels=1, image_size=4))
    expected = (images.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5
    assert plain.numpy() == pytest.approx(expected, abs=1e-6)
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 2.0, 4.0]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    colour = models.pixel_values(images, directory(tmp_path, num_channels=3, image_size=[4, 4]))
    for channel, (mean, std) in enumerate(zip([0.1, 0.2, 0.3], [1, 2, 4], strict=True)):
        grey = (images[..., 0] / 255 - mean) / std
        assert colour[:, channel].numpy() == pytest.approx(grey, abs=1e-6)


def test_pixels_are_resized_and_made_grey(tmp_path):
    images = np.full((1, 4, 4, 3), 51, np.uint8)
    images[..., 1] = 102
    values = models.pixel_values(images, directory(tmp_path, num_channels=1, image_size=8))
    assert values.shape == (1, 1, 8, 8)
    grey = ((51 + 102 + 51) / 3 / 255 - 0.5) / 0.5
    assert values.numpy() == pytest.approx(np.full((1, 1, 8, 8), grey), abs=1e-5)
    with pytest.raises(InputError, match="images of 4 channels"):
        models.pixel_values(images, directory(tmp_path, num_channels=4))


def test_build_reads_names_of_the_file(tiny_family):
    checkpoint = Checkpoint.open(tiny_family / "e1")
    model = loaded(checkpoint)
    assert not model.training
    from transformers import AutoModelForImageClassification

    reference = AutoModelForImageClassification.from_pretrained(tiny_family / "e1")
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_what_cannot_be_built_is_refused(tiny_family, tmp_path):
    checkpoint = Checkpoint.open(tiny_family / "e1")
    tensors = models.tensors_of(checkpoint)
    with pytest.raises(InputError, match=r"config\.json"):
        models.build(None, tensors)
    without = {n: v for n, v in tensors.items() if not n.startswith("classifier")}
    with pytest.raises(InputError, match=r"no classifier\.bias, classifier\.weight"):
        models.build(tiny_family / "e1", without)
    directory(tmp_path, model_type="unheard-of", architectures=["Nothing"])
    with pytest.raises(InputError, match="a model type and settings that transformers knows"):
        models.build(tmp_path, tensors)
    directory(tmp_path, model_type="vit", architectures=["NoSuchModel"])
    with pytest.raises(InputError, match="NoSuchModel"):
        models.build(tmp_path, tensors)
    directory(tmp_path, model_type="vit")
    with pytest.raises(InputError, match="architectures"):
        models.build(tmp_path, tensors)


def test_code_that_comes_with_a_checkpoint_is_never_run(tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    directory(tmp_path, model_type="evil", architectures=["Evil"],
              auto_map={"AutoConfig": "evil.Config"})  # fmt: skip
    with pytest.raises(InputError):
        models.build(tmp_path, {})


def test_tensors_of_converts_only_what_floats(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2).half(), "n": torch.arange(2)}, tmp_path / "x.safetensors")
    tensors = models.tensors_of(Checkpoint.open(tmp_path / "x.safetensors"))
    assert tensors["w"].dtype == torch.float32
    assert tensors["n"].dtype == torch.int64
