"""The file format: round trip, metadata, and what is refused."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.models import settings_digest
from mats_core.statistics import possible
from mats_core.statistics.cache import cached_path, measuring_once
from mats_core.statistics.collect import BatchDone
from mats_core.statistics.settings import MeasureSettings
from mats_core.statistics.store import Statistics
from mats_core.system.stream import drain
from mats_core.tasks.loading import load as load_task


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(1)

    def gram(size):
        rows = torch.randn(size, size, generator=generator)
        return rows @ rows.T

    return {
        "enc.fc.input_gram": gram(4),
        "enc.fc.input_mean": torch.randn(4, generator=generator),
        "enc.fc.output_gradient_gram": gram(3),
        "enc.fc.weight.fisher": torch.randn(3, 4, generator=generator) ** 2,
        "enc.fc.bias.block": gram(3),
    }


def test_round_trip(tensors, tmp_path):
    file = tmp_path / "deep" / "one.safetensors"
    Statistics.of(tensors, {"tokens": "12", "fingerprint": "abc"}).save(file)
    found = Statistics.open(file)
    for name, value in tensors.items():
        read = found.read(name, tuple(value.shape))
        assert read is not None
        assert torch.equal(read, value)
    assert found.tokens == 12
    assert found.layers == ("enc.fc",)
    assert found.read("absent.fisher", (1,)) is None
    double = found.read("enc.fc.input_mean", (4,), dtype=torch.float64)
    assert double is not None
    assert double.dtype == torch.float64


def test_metadata_is_as_the_contract_says(tiny_family):
    with safe_open(tiny_family / "e0.stats.safetensors", framework="pt") as file:
        metadata, names = file.metadata(), set(file.keys())
    checkpoint = Checkpoint.open(tiny_family / "e0")
    assert metadata["format"] == "mats-statistics-1"
    assert metadata["examples"] == "48"
    assert metadata["tokens"] == str(48 * 10)
    assert metadata["seed"] == "0"
    assert metadata["labels"] == "empirical"
    assert metadata["fingerprint"] == checkpoint.fingerprint
    assert all(isinstance(value, str) for value in metadata.values())
    for name in (n for n in checkpoint.tensors if n.endswith("query.weight")):
        module = name.removesuffix(".weight")
        assert {f"{module}.input_gram", f"{module}.output_gradient_gram", f"{name}.fisher",
                f"{module}.bias.fisher"} <= names  # fmt: skip


def test_the_fingerprint_is_checked(tensors):
    Statistics.of(tensors, {"fingerprint": "abc"}).check("abc")
    with pytest.raises(InputError, match="another checkpoint"):
        Statistics.of(tensors, {"fingerprint": "abc"}).check("abd")
    with pytest.warns(UserWarning, match="do not say which checkpoint"):
        Statistics.of(tensors, {}).check("abc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Statistics.of(tensors, {"fingerprint": "abc"}).check("abc")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_files_of_other_tools_are_taken(tensors, tmp_path, metadata):
    save_file(tensors, tmp_path / "other.safetensors", metadata)
    with pytest.warns(UserWarning, match="taken as they are"):
        Statistics.open(tmp_path / "other.safetensors").check("abc")


def test_unknown_formats_models_and_pickles_are_refused(tensors, tmp_path):
    save_file(tensors, tmp_path / "new.safetensors", {"format": "mats-statistics-9"})
    with pytest.raises(InputError, match="mats-statistics-9"):
        Statistics.open(tmp_path / "new.safetensors")
    save_file({"enc.fc.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="the model instead of its statistics"):
        Statistics.open(tmp_path / "model.safetensors")
    (tmp_path / "stats.pt").write_bytes(b"anything")
    with pytest.raises(InputError, match="pickle"):
        Statistics.open(tmp_path / "stats.pt")
    with pytest.raises(InputError, match="nothing there"):
        Statistics.open(tmp_path / "absent.safetensors")


def test_wrong_shapes_and_numbers_that_are_not_finite_are_refused(tensors, tmp_path):
    tensors["enc.fc.input_mean"][1] = float("nan")
    statistics = Statistics.of(tensors, {})
    with pytest.raises(InputError, match=r"\[5, 5\].*\[4, 4\]"):
        statistics.read("enc.fc.input_gram", (5, 5))
    with pytest.raises(InputError, match=r"enc\.fc\.input_mean.*finite"):
        statistics.read("enc.fc.input_mean", (4,))


def changed(value, row, column, number):
    value = value.clone()
    value[row, column] = number
    return value


IMPOSSIBLE = {  # statistic → (what is done to it, what the error expects)
    "enc.fc.weight.fisher": ((0, 1, -1.0), "at least 0, for"),
    "enc.fc.input_gram": ((2, 2, -1.0), "at least 0 on its diagonal"),
    "enc.fc.output_gradient_gram": ((0, 2, 9.0), "symmetric"),
    "enc.fc.bias.block": ((1, 0, -9.0), "symmetric"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_statistics_that_no_model_has_are_refused_by_name(tensors, name):
    (row, column, number), expected = IMPOSSIBLE[name]
    shape = tuple(tensors[name].shape)
    broken = Statistics.of({**tensors, name: changed(tensors[name], row, column, number)}, {})
    with pytest.raises(InputError, match=rf"'{name}' of statistics .*{expected}"):
        broken.read(name, shape)
    for other, value in tensors.items():
        if other != name:
            assert broken.read(other, tuple(value.shape)) is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_rounding_leaves_is_possible(tensors, name, dtype):
    value = tensors[name]
    off = 1e-7 * float(value.abs().max())
    rounded = changed(value, 0, 1, -off).to(dtype)
    if name != "enc.fc.weight.fisher":
        rounded = (value * (1 + 1e-6 * torch.tril(torch.ones_like(value)))).to(dtype)
    assert Statistics.of({name: rounded}, {}).read(name, tuple(value.shape)) is not None


@pytest.mark.parametrize("size", [1, 1024, 1500])
def test_a_large_gram_is_compared_with_its_mirror_in_every_corner(size):
    rows = torch.randn(size, 3, generator=torch.Generator().manual_seed(2))
    gram = rows @ rows.T
    gram = (gram + gram.T) / 2
    assert possible.impossible("input_gram", gram) is None
    for row, column in {(0, size - 1), (size - 1, 0), (size - 1, max(0, size - 2))}:
        if row != column:
            found = possible.impossible("input_gram", changed(gram, row, column, 99.0))
            assert found is not None
            assert found[0] == "a symmetric matrix"


def test_the_cache_measures_once_and_again_for_anything_that_matters(
    tiny_family, tmp_path, monkeypatch
):
    monkeypatch.setenv("MATS_CACHE", str(tmp_path))
    checkpoint, task = Checkpoint.open(tiny_family / "e0"), load_task(tiny_family / "t0.npz")
    calls: list[BatchDone] = []
    settings = MeasureSettings(examples=4)
    first = drain(measuring_once(checkpoint, task, settings), calls.append)
    assert drain(measuring_once(checkpoint, task, settings), calls.append) == first
    assert [call.examples for call in calls] == [4]
    assert first.is_relative_to(tmp_path)
    Statistics.open(first).check(checkpoint.fingerprint)
    # The same numbers in other batches, or on another device, are the same file.
    elsewhere = replace(settings, batch_size=2, device="cpu")
    places = {
        cached_path(checkpoint, task, settings),
        cached_path(checkpoint, task, elsewhere),
        cached_path(checkpoint, task, replace(settings, examples=5)),
        cached_path(checkpoint, task, replace(settings, labels="true")),
        cached_path(checkpoint, task, replace(settings, seed=1)),
        cached_path(checkpoint, task, replace(settings, blocks=30)),
        cached_path(checkpoint, task, replace(settings, rank=8)),
        cached_path(checkpoint, task, replace(settings, dtype=torch.float64)),
        cached_path(Checkpoint.open(tiny_family / "e1"), task, settings),
        cached_path(checkpoint, load_task(tiny_family / "t1.npz"), settings),
    }
    assert first in places
    assert len(places) == 9
    # Files of before have another name: their numbers were not compared with single examples, and
    # a configuration that was changed since did not count.
    beside = settings_digest(tiny_family / "e0")
    parts = ("mats-statistics-1", "3", checkpoint.fingerprint, beside, task.digest)
    parts += ("4", "empirical", "0")
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    assert first.name == f"{task.name}-{name}.safetensors"


def test_statistics_that_another_process_has_measured_meanwhile_stay(
    tiny_family, tmp_path, monkeypatch
):
    monkeypatch.setenv("MATS_CACHE", str(tmp_path))
    checkpoint, task = Checkpoint.open(tiny_family / "e0"), load_task(tiny_family / "t0.npz")
    settings = MeasureSettings(examples=8)
    path = cached_path(checkpoint, task, settings)
    path.parent.mkdir()
    steps = measuring_once(checkpoint, task, settings)
    next(steps)
    path.write_bytes(b"of another process, which a merge has opened")
    assert drain(steps) == path
    assert path.read_bytes() == b"of another process, which a merge has opened"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"examples": 0}, "examples: expected a number from 1 on, found 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"rank": -1}, "rank"),
        ({"blocks": -1}, "blocks"),
        ({"labels": "imperical"}, "Did you mean 'empirical'"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        MeasureSettings(**wrong)
