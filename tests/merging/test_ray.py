"""Layers, experts that are measured and trials of a search on a local Ray cluster of two workers:
the same as in one process."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from mats_core.analysis import SearchTrialDone, Space, searching
from mats_core.checkpoints import InMemory
from mats_core.cli.main import main
from mats_core.errors import InputError
from mats_core.merging import pipeline
from mats_core.merging import ray as distributed
from mats_core.recipes.family_file import load_family, measure_all, measuring_all
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import parse_recipe
from mats_core.statistics import ray as apart
from mats_core.statistics.ray import ClusterReady, Member, MemberDone, measuring_on_ray
from mats_core.statistics.settings import MeasureSettings
from mats_core.system import cluster
from mats_core.system.stream import drain
from mats_core.tasks.loading import load
from tests.conftest import family_recipe
from tests.layer_cases import raw_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def flags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flags")
    with pytest.MonkeyPatch.context() as patch:  # the workers inherit it
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("MATS_TEST_FLAGS", str(folder))
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster._begin(  # as often as a user's cluster on a busy machine
            ray,
            "of the tests",
            cluster.STARTS,
            address="local",  # also where some cluster runs already
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=80 * 2**20,
        )
        yield folder
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


def test_layers_of_a_killed_worker_are_merged_again(tiny_family, tmp_path, flags, monkeypatch):
    monkeypatch.setattr(distributed, "_merge", dying_once)
    merged(tiny_family, tmp_path / "together", "kfac", "ray")
    assert (flags / "died").exists()
    monkeypatch.undo()
    merged(tiny_family, tmp_path / "alone", "kfac", "local")
    assert digests(tmp_path / "alone") == digests(tmp_path / "together")


def always_dying(shared, unit, threads):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_layer_that_ends_every_worker_is_told_and_can_be_resumed(
    tiny_family, tmp_path, monkeypatch
):
    monkeypatch.setattr(distributed, "_merge", always_dying)
    monkeypatch.setattr(cluster, "RETRIES", 0)
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


def elsewhere(shared, unit, threads):
    """`distributed._merge` on a machine that does not see the output's folder."""
    *before, folder, shard_bytes, contents = shared
    return ORIGINAL((*before, folder / "unseen", shard_bytes, contents), unit, threads)


def test_a_worker_that_does_not_see_the_output_says_so(tiny_family, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "_merge", elsewhere)
    with pytest.raises(InputError, match=r"unseen' on machine .* a file system that all machines"):
        merged(tiny_family, tmp_path / "out", "average", "ray")


def test_what_no_machine_has_is_refused_instead_of_waited_for(tiny_family, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "layer_bytes", lambda job, unit: 1e12)
    with pytest.raises(InputError, match=r"expected a machine with 1 CPUs and 1e\+03 GB, found 2 "):
        merged(tiny_family, tmp_path / "out", "average", "ray")
    monkeypatch.undo()
    torch.set_num_threads(3)
    try:
        with pytest.raises(InputError, match=r"a machine with 3 CPUs .*OMP_NUM_THREADS"):
            merged(tiny_family, tmp_path / "out", "average", "ray")
    finally:
        torch.set_num_threads(1)


def test_workers_open_files_again_that_changed_since_the_last_merge(tmp_path):
    def digest(engine, dtype):
        generator = torch.Generator().manual_seed(0)
        base, *experts = (
            {"fc.weight": torch.randn(6, 4, generator=generator).to(dtype)} for _ in range(4)
        )
        output = str(tmp_path / "out")
        recipe = raw_recipe(tmp_path, base, experts, "average", engine=engine, output=output)
        pipeline.merge(recipe, force=True)
        return digests(tmp_path / "out")

    before = digest("ray", torch.float64)
    after = digest("ray", torch.bfloat16)  # other offsets in files of the same names
    assert before != after == digest("local", torch.bfloat16)


def late(shared, unit, threads):
    """`distributed._merge`, but the first layer is not done before ten others are."""
    flags = Path(os.environ["MATS_TEST_FLAGS"])
    try:
        (flags / "first").touch(exist_ok=False)
    except FileExistsError:
        (flags / f"{unit.name}.done").touch()
        return ORIGINAL(shared, unit, threads)
    deadline = time.monotonic() + 30
    while len(list(flags.glob("*.done"))) < 10:
        assert time.monotonic() < deadline, "nobody else was given a layer"
        time.sleep(0.01)
    return ORIGINAL(shared, unit, threads)


def test_a_long_layer_keeps_no_worker_from_the_others(tiny_family, tmp_path, monkeypatch):
    assert 2 * distributed.AHEAD < 10
    monkeypatch.setattr(distributed, "_merge", late)
    merged(tiny_family, tmp_path / "together", "average", "ray")
    merged(tiny_family, tmp_path / "alone", "average", "local")
    assert digests(tmp_path / "alone") == digests(tmp_path / "together")


def stuck(shared, unit, threads):
    time.sleep(600)


def test_whoever_stops_ends_the_tasks_under_way(tiny_family, tmp_path, monkeypatch):
    def interrupted(*of):
        raise KeyboardInterrupt

    ended, cancel = [], cluster.cancel
    monkeypatch.setattr(distributed, "_merge", stuck)
    monkeypatch.setattr(cluster, "GRACE", 0.0)
    monkeypatch.setattr(cluster, "PATIENCE", 2.0)
    monkeypatch.setattr(distributed, "_taken", interrupted)
    monkeypatch.setattr(
        cluster, "cancel", lambda ray, them: ended.extend(them) or cancel(ray, them)
    )
    with pytest.raises(KeyboardInterrupt):
        merged(tiny_family, tmp_path / "out", "average", "ray")
    assert len(ended) == 2 * distributed.AHEAD  # also the one that was waited for
    assert not ray.wait(ended, num_returns=len(ended), timeout=0)[1]


def test_without_ray_the_command_to_install_it_is_named(tiny_family, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "ray>=2.52,<3"'):
        merged(tiny_family, tmp_path / "out", "average", "ray")


def test_further_rounds_stay_in_one_process(tiny_family, tmp_path):
    with pytest.raises(InputError, match="'rounds' 2 with engine 'ray'"):
        merged(tiny_family, tmp_path / "out", "kfac", "ray", rounds=2)


def test_an_unknown_engine_is_refused(tiny_family):
    with pytest.raises(InputError, match="engine"):
        parse_recipe(family_recipe(tiny_family, "average", engine="rya"), tiny_family)


# Measuring shares the cluster, whose start takes longer than all of this -------------------------


def test_the_cluster_measures_what_one_process_measures(tiny_family, tmp_path, capsys):
    def measure(engine):
        out = tmp_path / engine
        command = ["measure", "--family", str(tiny_family), "--out", str(out), "--engine", engine]
        assert main([*command, "--examples", "8", "--blocks", "20", "--labels", "true"]) == 0
        return digests(out), capsys.readouterr().out

    (alone, said), (together, told) = measure("local"), measure("ray")
    assert together == alone
    assert len(alone) == 4
    of_each = sorted(line.replace(str(tmp_path / "ray"), "") for line in told.splitlines())
    lines = sorted(line.replace(str(tmp_path / "local"), "") for line in said.splitlines())
    assert [line for line in of_each if line.startswith("/")] == lines
    assert "until the cluster was there" in told
    assert not list((tmp_path / "ray").glob(".*"))


def test_a_family_is_measured_once_on_either_engine(tiny_family, tmp_path, monkeypatch):
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    family, seen = load_family(tiny_family), []
    steps = measuring_all(family, MeasureSettings(examples=6), engine="ray")
    files = drain(steps, seen.append)
    done = [event for event in seen if isinstance(event, MemberDone)]
    assert {event.member.name for event in done} == set(files) == {"e0", "e1", "e2", "base"}
    assert done[-1].fraction == 1
    assert all(event.seconds > 0 for event in done)
    before = {name: file.read_bytes() for name, file in files.items()}
    assert measure_all(family, examples=6) == files  # nothing is measured again
    for file in files.values():
        file.unlink()
    measure_all(family, examples=6)
    assert {name: file.read_bytes() for name, file in files.items()} == before


def test_a_worker_refuses_in_the_sentence_of_one_process(tiny_family, tmp_path, capsys):
    def said(engine):
        command = ["measure", str(tiny_family / "e0"), "--task", "sample:news"]
        out = str(tmp_path / "out.safetensors")
        assert main([*command, "--out", out, "--engine", engine]) == 2
        return capsys.readouterr().err

    assert said("ray") == said("local")
    assert not list(tmp_path.iterdir())


def dead(*of):
    os.kill(os.getpid(), signal.SIGKILL)


def sleeping(*of):
    time.sleep(600)


@pytest.fixture
def members(tiny_family, tmp_path):
    task = load(tiny_family / "t0.npz")
    return [Member(n, tiny_family / n, None, task, tmp_path / n) for n in ("e0", "e1", "e2")]


def test_measuring_that_ends_every_worker_is_told(members, tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "_measure", dead)
    monkeypatch.setattr(cluster, "RETRIES", 0)
    with pytest.raises(InputError, match=r"measuring 'e\d' on the Ray cluster.*measure again"):
        drain(measuring_on_ray(members, MeasureSettings(examples=4)))
    assert not list(tmp_path.iterdir())


def test_measuring_that_is_stopped_leaves_nothing(members, tmp_path, monkeypatch):
    ended, cancel = [], cluster.cancel
    monkeypatch.setattr(apart, "_measure", sleeping)
    monkeypatch.setattr(cluster, "GRACE", 0.0)
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    monkeypatch.setattr(
        cluster, "cancel", lambda ray, them: ended.extend(them) or cancel(ray, them)
    )
    looks = []

    def looked(ray, thing, needs):
        looks.append(thing)
        if len(looks) > len(members):  # the first look after all are under way
            assert len(list(tmp_path.glob(".e?.*"))) == len(members)
            raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "require_machine", looked)
    with pytest.raises(KeyboardInterrupt):
        drain(measuring_on_ray(members, MeasureSettings(examples=4)))
    assert len(ended) == len(members)
    assert not ray.wait(ended, num_returns=len(ended), timeout=0)[1]
    assert not list(tmp_path.iterdir())


def test_measuring_that_no_machine_has_room_for_is_refused(members, monkeypatch):
    monkeypatch.setattr(apart, "_bytes", lambda *of: 10**15)
    with pytest.raises(InputError, match=r"measuring 'e0' on the Ray cluster.*1e\+06 GB"):
        drain(measuring_on_ray(members, MeasureSettings(examples=4)))


def test_a_search_on_the_cluster_is_that_of_one_process(tiny_family):
    """Trial by trial; the cluster's start is told before any work."""
    recipe = parse_recipe(family_recipe(tiny_family, "kfac"), tiny_family)
    values = {"damping": (0.01, 0.1), "iterations": (1, 2, 3)}
    space = Space(options=("damping", "iterations"), values=values)
    settings = {"trials": 5, "examples": 8, "at_once": 2}
    alone = drain(searching(recipe, space, **settings))
    seen = []
    together = drain(searching(recipe, space, engine="ray", **settings), seen.append)
    assert [replace(one, seconds=0.0) for one in together.trials] == [
        replace(one, seconds=0.0) for one in alone.trials
    ]
    assert len({one.accuracy for one in alone.trials}) > 1
    assert all(one.seconds > 0 for one in together.trials)
    assert isinstance(seen[0], ClusterReady)


def test_a_stopped_search_ends_its_trials_and_goes_on_here(tiny_family, tmp_path, monkeypatch):
    recipe = parse_recipe(family_recipe(tiny_family, "average"), tiny_family)
    space = Space(weights=True)
    settings = {"trials": 4, "examples": 8}
    ended, cancel = [], cluster.cancel
    monkeypatch.setattr(
        cluster, "cancel", lambda ray, them: ended.extend(them) or cancel(ray, them)
    )
    events = searching(
        recipe, space, engine="ray", at_once=3, journal=tmp_path / "journal", **settings
    )
    done = next(event for event in events if isinstance(event, SearchTrialDone))
    events.close()
    assert done.trial.number == 1
    assert len(ended) == 2
    assert not ray.wait(ended, num_returns=len(ended), timeout=0)[1]
    resumed = searching(recipe, space, journal=tmp_path / "journal", resume=True, **settings)
    whole = drain(searching(recipe, space, at_once=3, **settings))
    assert [one.values for one in drain(resumed).trials] == [one.values for one in whole.trials]


def test_a_search_over_models_in_memory_stays_here(tiny_family):
    recipe = parse_recipe(family_recipe(tiny_family, "average"), tiny_family)
    inputs = open_inputs(recipe)
    held = InMemory.of({n: inputs.family.base.read(n) for n in inputs.family.base.tensors}, "base")
    inputs = replace(inputs, family=replace(inputs.family, base=held))
    with pytest.raises(InputError, match="models in memory: the base"):
        drain(searching(recipe, Space(weights=True), engine="ray", inputs=inputs))
