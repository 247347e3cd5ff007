"""A shared server: every door is tried, not only by its button, and sessions stay apart."""

from __future__ import annotations

import functools
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from mats_core.errors import InputError
from mats_core.recipes import load_family
from pages.shared import policy
from pages.shared.frame import caches, folders
from pages.shared.policy import DEMO, OPEN, Act, Policy, Visitor, visiting
from pages.shared.work import Desk, Draft, Job, Shelf, bringing, drafts, export, prepare, runs
from pages.shared.work.merge import Request
from pages.shared.work.own_example import ask_own
from tests.pages.driving import held, merge, sentences, settle, texts_of

Open = Callable[..., AppTest]
PAGES = ("merge", "compare", "inside", "subspaces", "family", "learn", "export")
WAIT = 20.0


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The switch is on; folders of sessions lie in the test's own."""
    monkeypatch.setenv(policy.SWITCH, "1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    policy.current.cache_clear()
    policy._home.cache_clear()
    yield
    policy.current.cache_clear()
    policy._home.cache_clear()


def limited(monkeypatch: pytest.MonkeyPatch, **limits: Any) -> None:
    """Another policy from now on."""
    monkeypatch.setattr(policy, "current", functools.cache(lambda: Policy(**limits)))


@pytest.fixture
def visitor_app(open_app: Open, demo: None, tiny_family: Path, monkeypatch) -> Open:
    """The app on a shared server, whose shipped family is the tiny one."""

    desks: dict[int, Desk] = {}
    numbers = itertools.count(1)

    def worker() -> Desk:  # AppTest has one name for all its sessions, and so one desk
        number = st.session_state.get("number of the test's app", 0)
        return desks.setdefault(number, Desk(caches._worker(), policy.arrival()))

    monkeypatch.setattr(caches, "worker", worker)

    def start(page: str = "merge", **address: str) -> AppTest:
        app = open_app()
        app.session_state["number of the test's app"] = next(numbers)
        monkeypatch.setattr(policy, "SAMPLES", tiny_family)
        app.query_params.update(address)
        app.run()
        if page != "merge":
            app.switch_page(f"pages/{page}.py")
        return app.run()

    return start


def visitor_of(app: AppTest) -> Visitor:
    """The session of an app that has a job."""
    return app.session_state["preparation"].visitor


def kept_by(app: AppTest) -> list[runs.Run]:
    with visiting(visitor_of(app)):
        return runs.everything("Tiny three")


@pytest.mark.parametrize(
    ("said", "meant"),
    [("", OPEN), ("0", OPEN), ("No", OPEN), ("1", DEMO), ("true", DEMO), ("maybe", DEMO)],
)
def test_the_switch_is_on_unless_it_says_no(monkeypatch, said, meant):
    monkeypatch.setenv(policy.SWITCH, said)
    policy.current.cache_clear()
    assert policy.current() is meant
    policy.current.cache_clear()


def test_what_a_policy_does_not_name_is_refused():
    for act in Act:
        with pytest.raises(InputError, match="switched off"):
            Policy().require(act)
        OPEN.require(act)
    with pytest.raises(InputError, match="switched off"):
        Policy().require_work(prepare.prepare)
    assert OPEN.sentences == []
    assert len(DEMO.sentences) > len(Act)


def test_a_shared_server_allows_no_act_and_only_work_that_it_names():
    assert DEMO.acts == frozenset()
    assert DEMO.work is not None
    there = {file.stem for file in Path(prepare.__file__).parent.glob("*.py")}
    assert there >= DEMO.work
    for refused in (drafts.write_mean, bringing.fetch, lambda tell: None, Path.cwd, print):
        with pytest.raises(InputError, match="switched off"):
            DEMO.require_work(partial(partial(refused)))
    DEMO.require_work(partial(partial(prepare.prepare)))


def quiet(fraction: float, text: str, partial: Any = None) -> None:
    """Told, and not passed on."""


DOORS: dict[str, Callable[[Path], object]] = {
    "a typed path": lambda place: folders.locate(str(place), [place]),
    "a typed path in a root": lambda place: folders.locate(".", [place]),
    "models below a folder": lambda place: drafts.looked([place]),
    "a family is written": lambda place: drafts.save(load_family(place), {}, replace=True),
    "a family is removed": lambda place: drafts.remove(place / "family.yaml"),
    "a mean is written": lambda place: drafts.write_mean(load_family(place), quiet),
    "files are dropped": lambda place: bringing.receive([], place),
    "the hub's cache": lambda place: bringing.is_cached("a/b"),
    "the hub is asked": lambda place: bringing.offer("a/b"),
    "the hub is fetched from": lambda place: bringing.fetch("a/b", quiet),
    "another family": lambda place: prepare.prepare(load_family(place), "key", quiet),
    "a merge of another family": lambda place: Request(
        load_family(place), "average", {}, ("e0", "e1")
    ).recipe(),
    "a large example": lambda place: ask_own(Shelf(), {}, "e0", b"x" * 3_000_000, _never, quiet),
    "a large text": lambda place: ask_own(Shelf(), {}, "e0", ["x" * 3_000_000], _never, quiet),
    "a large recipe": lambda place: export.read_back(b"x" * 2_000_000, [], quiet),
    "runs without a session": lambda place: runs.everything("Tiny three"),
    "outputs without a session": lambda place: export.outputs_folder(),
}


def _never() -> prepare.Prepared:
    raise AssertionError("it was opened")


@pytest.mark.parametrize("door", DOORS)
def test_every_door_is_shut_where_the_work_is_done(demo, tiny_family, door, monkeypatch):
    monkeypatch.setattr(policy, "_find", [])
    before = sorted(tiny_family.rglob("*"))
    with pytest.raises(InputError) as caught:
        DOORS[door](tiny_family)
    assert len(str(caught.value)) < 1000
    assert sorted(tiny_family.rglob("*")) == before


def test_an_option_that_is_a_path_opens_nothing(demo, tiny_family, monkeypatch):
    monkeypatch.setattr(policy, "SAMPLES", tiny_family)
    collection = load_family(tiny_family)
    chosen = ("e0", "e1", "e2")
    by = ({"match": "*", "options": {"start": "/etc/passwd"}},)
    for options, rules in (({"start": "/etc/passwd"}, ()), ({}, by)):
        with pytest.raises(InputError, match="by their path"):
            Request(collection, "kfac", options, chosen, by=rules).recipe()
    assert Request(collection, "kfac", {"start": "average"}, chosen).recipe().method == "kfac"


def test_families_named_in_the_environment_are_not_listed(demo, tiny_family, monkeypatch):
    monkeypatch.setenv(folders.ROOTS, str(tiny_family))
    monkeypatch.setattr(policy, "SAMPLES", tiny_family / "none")
    assert folders.found(folders.places()) == {}


@pytest.mark.parametrize("page", PAGES)
def test_every_page_says_what_is_switched_off_and_offers_none_of_it(visitor_app, page):
    app = settle(visitor_app(page), "preparation")
    assert sentences(app) == ""
    said = " ".join(one.label for one in app.expander)
    assert ("shared server" in said) == (page != "learn")
    if page != "learn":
        assert "Opening files by their path" in texts_of(app)
    labels = {one.label for one in (*app.button, *app.text_input)}
    assert not labels & {"New family", "Open another family", "Path", "Open", "This family"}


ADDRESSES = {
    "a family by its path": {"family": "/etc"},
    "a family above": {"family": "../../etc"},
    "a folder": {"dir": "/etc", "path": "/etc/passwd"},
    "a run of nobody": {"run": "0123456789"},
    "a run by a path": {"run": "../../../etc/passwd"},
    "settings with a path": {
        "settings": json.dumps(
            {
                "method": "kfac",
                "options": {"start": "/etc/passwd"},
                "experts": [],
                "weights": {},
                "rounds": 1,
            }
        )
    },
    "settings with rules that are none": {
        "settings": json.dumps(
            {
                "method": "kfac",
                "options": {},
                "by": [5, {"options": 5}],
                "experts": [],
                "weights": {},
                "rounds": 1,
            }
        )
    },
    "another's work": {"asked": "0" * 20, "sweep": "0" * 20},
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_open_nothing(visitor_app, address):
    app = settle(visitor_app("merge", **ADDRESSES[address]), "preparation")
    assert sentences(app) == ""
    assert "root:" not in texts_of(app)
    options = [one.options for one in app.selectbox if one.label == "Family of models"]
    assert options == [["Tiny three"]]
    assert kept_by(app) == []


def test_a_session_made_by_hand_opens_nothing(visitor_app, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "family.yaml").write_text("name: theirs\nbase: b\nexperts: []\n")
    app = settle(visitor_app("family"), "preparation")
    app.session_state["opened families"] = (str(tmp_path / "theirs"), "/etc")
    app.session_state["chosen family"] = "theirs"
    app.session_state["draft"] = Draft(1, file=tmp_path / "theirs" / "family.yaml")
    app.session_state["hub id"] = "owner/name"
    app.session_state["family path"] = "/etc"
    app = settle(app, "preparation")
    assert sentences(app) == ""
    assert "draft" not in app.session_state
    assert "theirs" not in texts_of(app)


def test_other_sessions_find_nothing_of_a_run_and_it_ends_with_its_own(visitor_app):
    app = merge(settle(visitor_app(), "preparation"))
    (run,) = kept_by(app)
    folder = visitor_of(app).folder
    assert run.id in app.query_params["run"]
    assert not (Path(os.environ["MATS_RESULTS"]) / "runs").exists()
    other = settle(visitor_app("merge", run=run.id), "preparation")
    assert kept_by(other) == []
    assert "in this session" in " ".join(one.value for one in other.info)
    assert not other.metric
    compare = settle(visitor_app("compare", run=run.id), "preparation")
    assert "no finished merge" in " ".join(one.value for one in compare.info)
    caches._worker().forget(visitor_of(app))
    assert not folder.exists()


def test_a_merge_under_way_is_no_other_sessions(visitor_app, monkeypatch):
    monkeypatch.setattr("pages.shared.work.worker.SLICE", 1e9)  # nothing passes what is held
    app = settle(visitor_app(), "preparation")
    with held():
        job = next(b for b in app.button if b.label == "Merge").click().run()
        mine = job.session_state["merging"]
        assert mine.active
        other = visitor_app("merge", run=mine.name)
        assert "merging" not in other.session_state
        Desk(caches._worker(), Visitor()).close()
        assert mine.active
        assert Desk(caches._worker(), mine.visitor).named(mine.name) is mine
    settle(app, "merging")


def test_a_model_is_written_for_the_session_and_downloaded(visitor_app, monkeypatch):
    app = merge(settle(visitor_app(), "preparation"))
    (run,) = kept_by(app)
    prepared = app.session_state["preparation"].outcome()
    with visiting(visitor_of(app)):
        folder = export.write(run, lambda: prepared, quiet)
        assert folder.is_relative_to(visitor_of(app).folder.resolve())
        archive = export.zipped(run, folder, "")
        assert io.BytesIO(archive.read()).read(2) == b"PK"
        archive.close()
        for limit in ("download", "disk"):
            limited(monkeypatch, **{limit: 1000})
            with pytest.raises(InputError, match="at most 1 kB"):
                export.write(run, lambda: prepared, quiet)
    limited(monkeypatch, work=DEMO.work, download=1000)
    app = settle(app.switch_page("pages/export.py"), "preparation")
    assert "Download as zip" not in {one.label for one in app.download_button}
    assert str(folder) not in " ".join(one.value for one in app.code)


def test_a_session_has_so_many_jobs_and_each_so_much_time(demo, monkeypatch):
    monkeypatch.setattr(Policy, "require_work", lambda self, work: None)
    worker = caches._worker()
    desk, other = Desk(worker, Visitor()), Desk(worker, Visitor())
    with held():
        jobs = [desk.submit(Job(n, f"job {n}", lambda tell: 1)) for n in range(6)]
        states = [job.snapshot().state for job in jobs]
        assert states == ["waiting"] * int(DEMO.jobs) + ["failed"] * (6 - int(DEMO.jobs))
        assert "at most 4 pieces of work" in jobs[-1].snapshot().error
        later = [desk.submit(Job(n, f"{n}", lambda tell: 1, background=True)) for n in range(5)]
        assert [job.active for job in later] == [True] * 4 + [False]
        assert other.submit(Job(9, "theirs", lambda tell: 2)).active
    limited(monkeypatch, seconds=-1)
    slow = Desk(worker, Visitor()).submit(Job(0, "Slow", lambda tell: tell(0.5, "half")))
    assert slow.wait(WAIT)
    assert "others wait too" in slow.snapshot().error


def test_what_a_session_has_measured_is_its_own_bounded_and_goes(demo, monkeypatch):
    monkeypatch.setattr(Policy, "require_work", lambda self, work: None)
    limited(monkeypatch, work=None, results=100)
    worker, visitor = caches._worker(), Visitor()
    desk, other = Desk(worker, visitor), Desk(worker, Visitor())
    for name in ("first", "second"):
        job = desk.submit(Job(0, name, lambda tell: bytes(80), name=name, shared=True))
        assert job.wait(WAIT)
    assert desk.finished("first") is None
    assert desk.finished("second") is not None
    assert other.finished("second") is None
    assert other.named("second") is None
    folder = visitor.folder
    desk.close()
    assert worker.finished("second", visitor) is None
    assert not folder.exists()
    assert desk.submit(Job(0, "late", lambda tell: 1)).snapshot().state == "cancelled"


@pytest.mark.parametrize("end", [MemoryError("none left"), SystemExit(1), KeyboardInterrupt()])
def test_what_ends_one_sessions_job_ends_no_others(demo, monkeypatch, end):
    monkeypatch.setattr(Policy, "require_work", lambda self, work: None)

    def fails(tell: object) -> None:
        raise end

    mine, theirs = (Desk(caches._worker(), Visitor()) for _ in range(2))
    broken, fine = mine.submit(Job(0, "a", fails)), theirs.submit(Job(1, "b", lambda tell: 7))
    assert broken.wait(WAIT)
    assert fine.wait(WAIT)
    assert broken.snapshot().state == "failed"
    assert fine.outcome() == 7


def test_what_a_killed_server_left_goes_and_a_living_ones_stays(demo, tmp_path):
    dead = tmp_path / ".mats-demo.dead.mats-part"
    (dead / "session").mkdir(parents=True)
    living = policy._home()
    assert not dead.exists()
    policy._home.cache_clear()
    assert policy._home() != living
    assert living.exists()


def test_what_a_killed_server_left_goes_at_the_start_of_the_next(demo, tmp_path, monkeypatch):
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    dead = tmp_path / ".mats-demo.dead.mats-part"
    (dead / "session").mkdir(parents=True)
    policy.begin()
    assert not dead.exists()
