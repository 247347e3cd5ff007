"""The simulation of a cluster against what can be counted by hand."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.performance.cluster import RANK, tasks_of
from benchmarks.performance.models import GIANTS, statistics_bytes
from benchmarks.performance.real_workers import Speeds
from benchmarks.performance.simulated import Site, Task, simulate
from mats_core.system.speeds import Rates

FREE = Site(link=float("inf"), storage=float("inf"))
MIXED = [Task(10.0, 3.0, 5.0), Task(40.0, 0.0, 20.0), Task(0.0, 7.0, 0.0), Task(20.0, 1.0, 2.0)]


def test_one_worker_takes_the_sum():
    found = simulate(MIXED, 1, Site(link=10.0, storage=1000.0))
    assert found.seconds == pytest.approx(97 / 10 + 11)
    assert found.busy["links"] == pytest.approx(9.7 / found.seconds)
    assert found.busy["arithmetic"] == pytest.approx(11 / found.seconds)
    assert found.busy["file system"] == found.busy["driver"] == 0


def test_a_storage_slower_than_the_link_is_the_limit_of_one_worker():
    found = simulate(MIXED, 1, Site(link=10.0, storage=5.0))
    assert found.seconds == pytest.approx(97 / 5 + 11)
    assert found.busy["file system"] == pytest.approx(19.4 / found.seconds)


@pytest.mark.parametrize(("workers", "rounds"), [(1, 12), (5, 3), (6, 2), (12, 1), (100, 1)])
def test_arithmetic_alone_goes_in_rounds(workers, rounds):
    assert simulate([Task(0, 2.0, 0)] * 12, workers, FREE).seconds == pytest.approx(2 * rounds)


def test_a_shared_file_system_bounds_all_workers_together():
    tasks = [Task(100.0, 0.0, 20.0)] * 32
    found = simulate(tasks, 8, Site(link=10.0, storage=40.0))
    assert found.seconds == pytest.approx(32 * 120 / 40)
    assert found.busy["file system"] == pytest.approx(1)
    assert simulate(tasks, 8, Site(link=10.0, storage=80.0)).seconds == pytest.approx(48)


def test_a_slow_driver_hands_out_one_task_after_the_other():
    site = Site(link=float("inf"), storage=float("inf"), driver=3.0)
    found = simulate([Task(0, 1.0, 0)] * 10, 4, site)
    assert found.seconds == pytest.approx(10 * 3 + 1)
    assert found.busy["driver"] == pytest.approx(30 / 31)


def test_two_workers_by_hand():
    # Together they read 10 bytes a second: 4 s for both; the first computes until 6 and writes
    # alone until 7, while the second, done at 5, takes the third task: no byte of it, until 9.
    tasks = [Task(20.0, 2.0, 10.0), Task(20.0, 1.0, 0.0), Task(0.0, 4.0, 0.0)]
    assert simulate(tasks, 2, Site(link=10.0, storage=10.0)).seconds == pytest.approx(9)


def test_more_workers_never_take_longer_and_nothing_beats_its_bounds():
    site = Site(link=10.0, storage=25.0, driver=0.01)
    found = [simulate(MIXED * 5, count, site).seconds for count in (1, 2, 4, 8, 16)]
    assert all(later <= sooner + 1e-9 for sooner, later in itertools.pairwise(found))
    assert found[-1] >= max(5 * 97 / 25, 4 / 10 + 2 / 10, 20 * 0.01)


def test_the_tasks_of_a_model_read_all_of_it():
    speeds = Speeds(Rates("cpu", 6e10, 3e9, 8e9, 5e-6), 1e9, 1e9, 1e9, 1e9, 1e9)
    largest = GIANTS[-1]
    # Published: 405.85e9 less embedding and output (2 × 128256 × 16384).
    assert largest.parameters == pytest.approx(405.85e9 - 2 * 128256 * 16384, rel=1e-3)
    for method, beside in (("average", 0), ("kfac", 4 * statistics_bytes(largest, RANK))):
        tasks = tasks_of(largest, method, speeds, 1.0)
        assert len(tasks) == 126 * 7
        assert sum(task.read for task in tasks) == 10 * largest.parameters + beside
        assert sum(task.write for task in tasks) == 2 * largest.parameters
