"""The worker: one thread for all, in order, and nobody waits for what nobody waits for."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mats_core.errors import InputError
from pages.shared.work.jobs import Job, Tell
from pages.shared.work.worker import Desk, Worker

WAIT = 20.0


@pytest.fixture
def worker() -> Worker:
    return Worker()


def until(condition, what: str) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def ended(job: Job) -> Job:
    until(lambda: not job.active, f"{job.title} did not end")
    return job


class Gate:
    """Work that goes on step by step, as long as the test lets it."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name, self.open = log, name, threading.Event()
        self.entered = threading.Event()

    def __call__(self, tell: Tell) -> str:
        self.log.append(f"{self.name} begins")
        self.entered.set()
        while not self.open.is_set():
            tell(0.5, "working")
            time.sleep(0.005)
        self.log.append(f"{self.name} ends")
        return self.name


def test_jobs_of_all_sessions_run_one_after_another_in_order(worker):
    log: list[str] = []
    gates = [Gate(log, name) for name in "abc"]
    desks = [Desk(worker) for _ in gates]
    jobs = [desk.submit(Job(g.name, g.name, g)) for desk, g in zip(desks, gates, strict=True)]
    assert gates[0].entered.wait(WAIT)
    before = [desk.before(job) for desk, job in zip(desks, jobs, strict=True)]
    assert before == [[], ["a"], ["a", "b"]]
    for gate in gates:
        gate.open.set()
    assert [ended(job).outcome() for job in jobs] == ["a", "b", "c"]
    assert log == [f"{n} {what}" for n in "abc" for what in ("begins", "ends")]


def test_what_somebody_waits_for_goes_before_and_into_the_background(worker):
    log: list[str] = []
    sweep, merge, later = Gate(log, "sweep"), Gate(log, "merge"), Gate(log, "later")
    desk = Desk(worker)
    running = desk.submit(Job(0, "sweep", sweep, background=True))
    assert sweep.entered.wait(WAIT)
    waiting = desk.submit(Job(1, "later", later, background=True))
    urgent = desk.submit(Job(2, "merge", merge))
    merge.open.set()
    assert ended(urgent).outcome() == "merge", "it ran while the sweep was under way"
    assert running.active
    assert waiting.snapshot().state == "waiting"
    for gate in (sweep, later):
        gate.open.set()
    assert ended(waiting).outcome() == "later"
    order = ["sweep begins", "merge begins", "merge ends", "sweep ends", "later begins"]
    assert log[:5] == order


def test_a_closed_session_ends_its_own_jobs_only(worker):
    log: list[str] = []
    mine, theirs = Gate(log, "mine"), Gate(log, "theirs")
    me, them = Desk(worker), Desk(worker)
    running = me.submit(Job(0, "mine", mine))
    queued = me.submit(Job(1, "queued", lambda tell: log.append("queued")))
    other = them.submit(Job(2, "theirs", theirs))
    assert mine.entered.wait(WAIT)
    me.close()
    theirs.open.set()
    assert ended(running).snapshot().state == "cancelled"
    assert ended(queued).snapshot().state == "cancelled"
    assert ended(other).outcome() == "theirs"
    assert "queued" not in log


def test_a_shared_job_outlives_its_session_and_another_finds_it_and_its_result(worker):
    mine, log = Desk(worker), list[str]()
    gate = Gate(log, "shared")
    job = mine.submit(Job(0, "shared", gate, name="ladder", shared=True))
    assert gate.entered.wait(WAIT)
    mine.close()
    assert Desk(worker).named("ladder") is job
    gate.open.set()
    assert ended(job).outcome() == "shared"
    assert Desk(worker).named("ladder") is job
    again = Desk(worker).submit(Job(1, "again", lambda tell: "again", name="ladder", shared=True))
    ended(again)
    assert Desk(worker).named("ladder") is again


def test_of_shared_jobs_those_with_a_result_are_found_and_the_oldest_go(worker, monkeypatch):
    desk = Desk(worker)

    def fail(tell: Tell) -> None:
        raise InputError("no")

    ended(desk.submit(Job(0, "failed", fail, name="failed", shared=True)))
    assert desk.named("failed") is None
    monkeypatch.setattr("pages.shared.work.worker.MOST_SHARED", 3 * 80)

    def share(name: str, numbers: int) -> None:
        result = np.zeros(numbers)
        ended(desk.submit(Job(0, "", lambda tell: result, name=name, shared=True)))

    for name in "abc":
        share(name, 10)
    assert desk.named("a"), "asked for, it is not the oldest any more"
    share("d", 10)
    assert [name for name in "abcd" if desk.named(name)] == ["a", "c", "d"]
    share("large", 100)
    assert [name for name in ("a", "c", "d", "large") if desk.named(name)] == ["large"]
    ended(desk.submit(Job(0, "merge", lambda tell: 1, name="merge")))
    assert desk.named("merge") is None, "only what was asked to be shared is kept"


def test_a_result_stays_while_the_next_one_of_its_name_is_under_way(worker):
    desk, gate = Desk(worker), Gate([], "second")
    first = ended(desk.submit(Job(0, "", lambda tell: "first", name="map", shared=True)))
    second = desk.submit(Job(0, "", gate, name="map", shared=True))
    assert gate.entered.wait(WAIT)
    assert (desk.named("map"), desk.finished("map")) == (second, first)
    second.cancel()
    ended(second)
    assert (desk.named("map"), desk.finished("map")) == (first, first)


def test_a_failure_is_a_sentence_and_the_next_job_runs(worker):
    desk = Desk(worker)

    def fails(tell: Tell) -> None:
        raise ZeroDivisionError("a bug")

    def refuses(tell: Tell) -> None:
        raise InputError("scaling", expected="a number", found="none")

    broken, refused = desk.submit(Job(0, "This", fails)), desk.submit(Job(1, "That", refuses))
    fine = desk.submit(Job(2, "fine", lambda tell: 7))
    assert ended(fine).outcome() == 7
    assert "This stopped unexpectedly (ZeroDivisionError: a bug)" in broken.snapshot().error
    assert refused.snapshot().error == "scaling: expected a number, found none"
    with pytest.raises(InputError, match="a bug"):
        broken.outcome()


def test_ten_sessions_see_their_own_results_and_their_place(worker):
    desks = [Desk(worker) for _ in range(10)]
    gate = Gate([], "first")
    desks[0].submit(Job(-1, "first", gate))
    assert gate.entered.wait(WAIT)
    jobs = [d.submit(Job(i, f"job {i}", lambda tell, i=i: i * i)) for i, d in enumerate(desks)]
    before = [len(desk.before(job)) for desk, job in zip(desks, jobs, strict=True)]
    assert before == list(range(1, 11))
    gate.open.set()
    assert [ended(job).outcome() for job in jobs] == [i * i for i in range(10)]


def test_partial_results_can_be_watched(worker):
    seen = threading.Event()

    def work(tell: Tell) -> None:
        tell(0.3, "a third", partial=[1, 2])
        seen.wait(WAIT)
        tell(0.6, "more")

    job = Desk(worker).submit(Job(0, "work", work))
    until(lambda: job.snapshot().partial is not None, "nothing partial")
    assert job.snapshot().partial == [1, 2]
    assert job.snapshot().fraction == 0.3
    seen.set()
    assert ended(job).snapshot().partial == [1, 2]


def test_the_worker_ends_with_its_process(worker):
    begun, steps = threading.Event(), []

    def long(tell):
        begun.set()
        while True:
            tell(0.5, "on and on")
            steps.append(time.sleep(0.01))

    running, waiting = (worker.submit(Job(n, str(n), long)) for n in range(2))
    assert begun.wait(5)
    worker.end()
    assert not worker._thread.is_alive()
    assert {running.snapshot().state, waiting.snapshot().state} == {"cancelled"}


def test_a_process_that_ends_takes_its_jobs_with_it_in_silence(monkeypatch, caplog):
    def loses_its_threads(tell: Tell) -> None:
        monkeypatch.setattr("concurrent.futures.thread._shutdown", True)  # as Python sets it
        ThreadPoolExecutor(1).submit(int)

    job = Job(0, "This", loses_its_threads)
    job.run()
    assert job.snapshot().state == "cancelled"
    assert caplog.text == ""


def test_work_in_the_background_rests_while_a_page_is_drawn(worker):
    log: list[str] = []
    steps: list[int] = []

    def counted(tell: Tell) -> None:
        while not gate.open.is_set():
            tell(0.5, "working")
            steps.append(1)
            time.sleep(0.001)

    gate, desk = Gate(log, "wanted"), Desk(worker)
    job = desk.submit(Job(None, "counting", counted, background=True))
    until(lambda: len(steps) > 3, "it did not begin")
    desk.attend(1)
    until(lambda: not _goes_on(steps), "it does not rest")
    wanted = desk.submit(Job(None, "wanted", lambda tell: log.append("done")))
    ended(wanted)  # what is waited for is done meanwhile
    desk.attend(-1)
    until(lambda: _goes_on(steps), "it does not go on")
    gate.open.set()
    assert ended(job).snapshot().state == "done"
    assert log == ["done"]


def _goes_on(steps: list[int]) -> bool:
    before = len(steps)
    time.sleep(0.1)
    return len(steps) > before + 1


def test_a_page_that_hangs_stops_no_work_for_good(worker, monkeypatch):
    monkeypatch.setattr("pages.shared.work.worker.REST", 0.01)
    desk = Desk(worker)
    desk.attend(1)
    job = Job(None, "few", lambda tell: [tell(0.5, "working") for _ in range(3)], background=True)
    assert ended(desk.submit(job)).snapshot().state == "done"


def test_a_short_merge_passes_a_long_one_that_has_just_begun(worker):
    long = Gate([], "long")
    running = Desk(worker).submit(Job(0, "long", lambda tell: _slowly(long, tell)))
    assert long.entered.wait(WAIT)
    short = Desk(worker).submit(Job(1, "short", lambda tell: "short"))
    assert ended(short).outcome() == "short"
    assert running.active
    long.open.set()
    assert ended(running).outcome() == "long"


def test_what_takes_the_result_of_another_job_does_not_pass_it(worker):
    gate, desk = Gate([], "prepared"), Desk(worker)
    preparing = desk.submit(Job(0, "preparing", lambda tell: _slowly(gate, tell)))
    assert gate.entered.wait(WAIT)
    merging = desk.submit(Job(1, "merging", lambda tell: preparing.outcome(), after=preparing))
    passing = Desk(worker).submit(Job(2, "passing", lambda tell: "passed"))
    assert ended(passing).outcome() == "passed"
    assert merging.snapshot().state == "waiting"
    gate.open.set()
    assert ended(merging).outcome() == "prepared"


def _slowly(gate: Gate, tell: Tell) -> str:
    """Work of which a hundredth is done: far more is left than a short job takes."""
    return gate(lambda fraction, text, partial=None: tell(0.01, text, partial))
