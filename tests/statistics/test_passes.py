"""Statistics under a budget of memory: several passes, the same numbers bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mats_core.checkpoints.files import Checkpoint
from mats_core.statistics.collect import BatchDone
from mats_core.statistics.of_task import measure_task
from mats_core.statistics.passes import grouped, measuring_to_file, statistics_bytes
from mats_core.statistics.settings import DEFAULT, MeasureSettings
from mats_core.statistics.store import Statistics
from mats_core.system.stream import drain
from mats_core.tasks.loading import load


@pytest.fixture(scope="module")
def expert(tiny_family):
    return Checkpoint.open(tiny_family / "e1"), load(tiny_family / "t1.npz")


HOW: dict[str, Any] = {"examples": 20, "batch_size": 8, "blocks": 30, "seed": 3}


@pytest.mark.parametrize("labels", ["empirical", "true"])
def test_several_passes_give_the_bytes_of_one(expert, tmp_path, labels):
    once = measure_task(*expert, **HOW, labels=labels)
    told: list[BatchDone] = []
    file = tmp_path / "deep" / "x.safetensors"
    settings = MeasureSettings(**HOW, labels=labels)
    steps = measuring_to_file(expert[0], expert[1], file, settings, memory=30_000)
    found = drain(steps, told.append)
    assert len(grouped(expert[0], 30_000, settings)) > 3
    assert found.shapes == dict(sorted(once.shapes.items()))
    assert dict(found.metadata) == dict(once.metadata)
    for name in once.shapes:
        assert torch.equal(found.stored(name), once.stored(name)), name
    once.save(tmp_path / "once.safetensors")
    assert file.read_bytes() == (tmp_path / "once.safetensors").read_bytes()
    assert [p.name for p in file.parent.iterdir()] == ["x.safetensors"]
    fractions = [event.fraction for event in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert told[-1].examples == 20
    assert told[-1].text.startswith("Measuring statistics: example 20 of 20, pass ")


def test_groups_fit_and_are_whole_modules(expert):
    checkpoint, _ = expert
    budget = 40_000
    groups = grouped(checkpoint, budget, DEFAULT)
    assert sorted(name for group in groups for name in group) == sorted(checkpoint.tensors)
    modules = [{name.rpartition(".")[0] for name in group} for group in groups]
    assert sum(len(own) for own in modules) == len(set().union(*modules))
    for group, own in zip(groups, modules, strict=True):
        size = sum(statistics_bytes(n, checkpoint.tensors[n].shape, DEFAULT) for n in group)
        assert size <= budget or len(own) == 1
    assert len(grouped(checkpoint, float("inf"), DEFAULT)) == 1
    assert len(grouped(checkpoint, 1, DEFAULT)) == len(set().union(*modules))


def test_the_size_counted_is_the_size_measured(expert):
    """An expectation by name and shape alone, held against what a model really has."""
    checkpoint, _ = expert
    found = measure_task(*expert, **HOW)
    settings = MeasureSettings(**HOW)
    counted = sum(statistics_bytes(n, e.shape, settings) for n, e in checkpoint.tensors.items())
    measured = sum(found.stored(name).nbytes for name in found.shapes)
    assert counted == pytest.approx(measured, rel=0.05)


def test_saving_holds_one_tensor_at_a_time(tmp_path):
    alive, most = [0], [0]

    class Counted(torch.Tensor):
        def __del__(self):
            alive[0] -= 1

    def read(name):
        value = torch.full((3,), float(name)).as_subclass(Counted)
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        return value

    names = [str(n) for n in range(6)]
    Statistics({f"{n}": (3,) for n in names}, {"a": "b"}, read).save(tmp_path / "x.safetensors")
    assert most[0] <= 2
    saved = Checkpoint.open(tmp_path / "x.safetensors")
    assert saved.metadata["a"] == "b"
    assert [float(saved.read(n)[0]) for n in names] == [0, 1, 2, 3, 4, 5]
