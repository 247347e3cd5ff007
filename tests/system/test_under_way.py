"""What is under way is told from what was left behind by locks."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest

from mats_core.system import (
    file_under_way,
    folder_of_process,
    folder_under_way,
    temporary_folder,
    under_way,
)

fcntl = pytest.importorskip("fcntl")
NAMES = (".a.json.x1_.mats-part", ".a.json.x2.mats-part")


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


@pytest.mark.parametrize("made", [file_under_way, folder_under_way])
def test_what_dead_processes_left_goes_however_young_it_is(tmp_path, made):
    others = [".a.x.mats-part", ".a.json.b.c.mats-part", ".b.json.x.mats-part", ".a.json.x.other"]
    for name in others:  # of other names
        (tmp_path / name).touch()
    (tmp_path / NAMES[0]).touch()  # made, and killed before it was locked
    (tmp_path / NAMES[1]).mkdir()
    (tmp_path / NAMES[1] / "half").touch()
    with made(tmp_path / "a.json") as mine:
        assert names(tmp_path) == sorted([*others, mine.name])
    assert names(tmp_path) == sorted(others)


@pytest.mark.parametrize("made", [file_under_way, folder_under_way])
def test_what_the_living_have_stays(tmp_path, made):
    with made(tmp_path / "a") as mine, file_under_way(tmp_path / "a") as other:
        assert mine.exists()
        assert other.exists()


def test_a_link_is_neither_followed_nor_removed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").touch()
    (tmp_path / NAMES[0]).symlink_to(tmp_path / "mine")
    with file_under_way(tmp_path / "a.json"):
        pass
    assert names(tmp_path) == [NAMES[0], "mine"]
    assert names(tmp_path / "mine") == ["kept"]


@pytest.mark.parametrize("made", [file_under_way, folder_under_way])
def test_what_another_one_sweeps_before_it_is_locked_is_made_again(tmp_path, monkeypatch, made):
    lock, swept = under_way.lock, []

    def late(handle: int, name: str | Path, *, wait: bool = False) -> under_way.Holder:
        if wait and not swept:  # another process comes between making and locking
            swept.append(name)
            monkeypatch.setattr(under_way, "lock", lock)
            under_way.sweep(tmp_path / "a")
        return lock(handle, name, wait=wait)

    monkeypatch.setattr(under_way, "lock", late)
    with made(tmp_path / "a") as mine:
        assert str(mine) not in swept
        assert names(tmp_path) == [mine.name]
    assert names(tmp_path) == []


def test_a_file_system_without_locks_keeps_what_it_cannot_tell(tmp_path, monkeypatch):
    def refuses(*_: object) -> None:
        raise OSError("no locks")

    (tmp_path / NAMES[0]).touch()
    monkeypatch.setattr(under_way.fcntl, "flock", refuses)
    with file_under_way(tmp_path / "a.json") as mine:
        assert names(tmp_path) == sorted([NAMES[0], mine.name])


def test_temporary_folders_of_the_killed_go_with_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    pid = os.fork()
    if not pid:
        try:
            (folder_of_process("x") / "large").touch()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    (left,) = tmp_path.iterdir()
    assert names(left) == ["large"]
    with temporary_folder("x") as mine:
        assert names(tmp_path) == [mine.name]
    assert names(tmp_path) == []
