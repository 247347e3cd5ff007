"""Layers on a local Ray cluster of two workers: the same bytes as one process."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import sys
from pathlib import Path

import pytest
import ray

from mats_core import distributed, pipeline
from mats_core.checks import InputError
from mats_core.recipe import parse_recipe
from tests.conftest import family_recipe

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    flags = tmp_path_factory.mktemp("flags")
    with pytest.MonkeyPatch.context() as patch:  # the workers inherit it
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("MATS_TEST_FLAGS", str(flags))
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=80 * 2**20,
        )
        yield flags
        ray.shutdown()


def merged(family: Path, output: Path, method: str, engine: str, **settings):
    settings = {"evaluate": False, **settings, "engine": engine, "output": str(output)}
    return pipeline.merge(parse_recipe(family_recipe(family, method, **settings), family))


def digests(folder: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.glob("*.safetensors*"))
    }


def layers(report) -> list:
    return [dataclasses.replace(layer, seconds=0.0) for layer in report.layers]


@pytest.mark.parametrize("method", ["average", "ties", "essential", "kfac"])
def test_the_cluster_writes_what_one_process_writes(tiny_family, tmp_path, method):
    alone = merged(tiny_family, tmp_path / "alone", method, "local")
    together = merged(tiny_family, tmp_path / "together", method, "ray")
    assert digests(tmp_path / "alone") == digests(tmp_path / "together")
    assert layers(together) == layers(alone)
    assert not list((tmp_path / "together").glob(".*"))  # neither spool nor journal is left


def test_in_memory_it_gives_the_same_tensors(tiny_family):
    def tensors(engine):
        recipe = family_recipe(tiny_family, "essential", evaluate=False, engine=engine)
        *_, last = pipeline.run(parse_recipe(recipe, tiny_family))
        assert isinstance(last, pipeline.Finished)
        return last.tensors

    alone, together = tensors("local"), tensors("ray")
    assert alone.keys() == together.keys()
    assert all(alone[name].equal(together[name]) for name in alone)


def dying_once(shared, unit, threads):
    """`distributed._merge`, but the first worker that gets to a certain layer is killed."""
    flag = Path(os.environ["MATS_TEST_FLAGS"]) / "died"
    if "1.output.dense.weight" in unit.name and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return ORIGINAL(shared, unit, threads)


ORIGINAL = distributed._merge


def test_layers_of_a_killed_worker_are_merged_again(tiny_family, tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(distributed, "_merge", dying_once)
    merged(tiny_family, tmp_path / "together", "kfac", "ray")
    assert (cluster / "died").exists()
    monkeypatch.undo()
    merged(tiny_family, tmp_path / "alone", "kfac", "local")
    assert digests(tmp_path / "alone") == digests(tmp_path / "together")


def always_dying(shared, unit, threads):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_layer_that_ends_every_worker_is_told_and_can_be_resumed(
    tiny_family, tmp_path, monkeypatch
):
    monkeypatch.setattr(distributed, "_merge", always_dying)
    monkeypatch.setattr(distributed, "RETRIES", 0)
    with pytest.raises(InputError, match=r"on the Ray cluster.*--resume"):
        merged(tiny_family, tmp_path / "out", "average", "ray")
    assert not (tmp_path / "out").exists()


def test_a_merge_that_ray_left_is_resumed_here(tiny_family, tmp_path):
    content = family_recipe(tiny_family, "essential", evaluate=False, output=str(tmp_path / "out"))
    events = pipeline.run(parse_recipe({**content, "engine": "ray"}, tiny_family), resume=True)
    for event in events:
        if isinstance(event, pipeline.Event) and getattr(event, "index", 0) == 3:
            break
    events.close()  # type: ignore[attr-defined]
    assert not (tmp_path / "out").exists()
    pipeline.merge(parse_recipe(content, tiny_family), resume=True)
    merged(tiny_family, tmp_path / "alone", "essential", "local")
    assert digests(tmp_path / "alone") == digests(tmp_path / "out")


def refusing(shared, unit, threads):
    raise InputError("a file", expected="that it is there", found="none")


def test_bad_input_in_a_worker_is_bad_input_here(tiny_family, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "_merge", refusing)
    with pytest.raises(InputError, match="a file: expected that it is there, found none"):
        merged(tiny_family, tmp_path / "out", "average", "ray")


def test_without_ray_the_command_to_install_it_is_named(tiny_family, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "ray>=2.40,<3"'):
        merged(tiny_family, tmp_path / "out", "average", "ray")


def test_further_rounds_stay_in_one_process(tiny_family, tmp_path):
    with pytest.raises(InputError, match="'rounds' 2 with engine 'ray'"):
        merged(tiny_family, tmp_path / "out", "kfac", "ray", rounds=2)


def test_an_unknown_engine_is_refused(tiny_family):
    with pytest.raises(InputError, match="engine"):
        parse_recipe(family_recipe(tiny_family, "average", engine="rya"), tiny_family)
