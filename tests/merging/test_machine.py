"""What the machine refuses during a merge is one sentence; what is done is kept and said."""

from __future__ import annotations

import errno
import gc
import io
import os
from typing import Any

import pytest
import torch

from mats_core.checkpoints.writer import TensorFileWriter
from mats_core.cli.main import main
from mats_core.errors import MachineError, foreseen, machine_error
from mats_core.merging import directory, engine, journal, sinks
from mats_core.merging.pipeline import merge, run
from mats_core.recipes import LayerDone, load_recipe, parse_recipe
from mats_core.statistics import Statistics
from tests.merging.test_companions import family

CODES = {
    "ENOSPC": "a full disk", "EDQUOT": "quota", "EROFS": "read-only", "EACCES": "permission",
    "EPERM": "permission", "EIO": "input/output error", "EFBIG": "larger", "EMFILE": "ulimit -n",
    "ENAMETOOLONG": "too long", "ENOMEM": "memory", "EISDIR": "a directory", "ESTALE": "network",
    "ENOTDIR": "a file on the way", "ELOOP": "circle", "ENOENT": "nothing there",
    "EBUSY": os.strerror(errno.EBUSY), "ETIMEDOUT": os.strerror(errno.ETIMEDOUT),
}  # fmt: skip


def raising(error):
    def raises(*_, **__):
        raise error

    return raises


@pytest.mark.parametrize("code", CODES)
def test_every_refusal_of_the_system_is_said_as_what_it_is(code):
    error = OSError(getattr(errno, code), os.strerror(getattr(errno, code)))
    with pytest.raises(MachineError) as caught, foreseen("output 'x'"):
        raise error
    assert CODES[code] in str(caught.value)
    assert str(caught.value).startswith("output 'x': expected")


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "memory of the GPU"),
        (RuntimeError("can't start new thread"), "memory"),
        (OSError("no such device (os error 19)"), "no such device"),
    ],
)
def test_memory_is_one_of_them(error, word):
    assert word in str(machine_error("merge", error))


def test_other_errors_are_none_of_the_machine():
    assert machine_error("merge", RuntimeError("mat1 and mat2 cannot be multiplied")) is None
    with pytest.raises(BrokenPipeError), foreseen("x"):
        raise BrokenPipeError


PLACES = {  # where a merge is when the disk fills
    "writing": (TensorFileWriter, "add"),
    "syncing": (os, "fsync"),
    "at the end": (directory, "files_in"),
    "the card": (directory.card, "card"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("resume", [False, True])
def test_a_full_disk_at_any_point(tmp_path, monkeypatch, capsys, place, resume):
    monkeypatch.setattr(journal, "INTERVAL", 0.0)
    recipe = family(tmp_path)
    full = raising(OSError(errno.ENOSPC, "No space left on device"))
    with monkeypatch.context() as patch:
        patch.setattr(*PLACES[place], full)
        assert main(["merge", recipe, *(["--resume"] if resume else [])]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "a full disk" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    late = place in ("at the end", "the card")
    assert ("are kept: --resume goes on" in said) == (resume and late)
    assert ("Nothing was written" in said) != (resume and late)
    assert main(["merge", recipe, *(["--resume"] if resume else [])]) == 0


def left_open(folder):
    """Files in a folder that are open for writing, whoever holds them."""
    handles: list[Any] = [o for o in gc.get_objects() if isinstance(o, io.BufferedIOBase)]
    named = [str(one.name) for one in handles if not one.closed and hasattr(one, "name")]
    return [name for name in named if name.startswith(str(folder))]


def spooled(folder):
    """A recipe of a method with a second pass, whose first one lies in a file beside."""
    recipe = load_recipe(family(folder))
    stem, square = "enc.fc", torch.eye(4)
    grams = {f"{stem}.{kind}": square for kind in ("input_gram", "output_gradient_gram")}
    means = {f"{stem}.input_mean": torch.ones(4), f"{stem}.weight.fisher": torch.ones(4, 4)}
    Statistics.of({**grams, **means}, {}).save(folder / "s.safetensors")
    experts = [{"name": name, "model": name, "statistics": "s.safetensors"} for name in "ab"]
    content = recipe.model_dump(exclude_defaults=True) | {"method": "essential", "experts": experts}
    return parse_recipe(content, folder)


BROKEN = {  # where a merge is when something breaks
    **PLACES,
    "merging": (engine, "made_of"),
    "a merged layer": (engine, "_report"),
    "the journal": (journal.Journal, "layer"),
    "the last file": (TensorFileWriter, "close"),
    "a head": (directory, "_write_head"),
    "the second pass": (engine, "_second_pass"),
    "the spool": (sinks.Spool, "__init__"),
}


def of_one_pass(folder):
    return load_recipe(family(folder))


PASSES = [(place, spooled) for place in BROKEN]
PASSES += [(place, of_one_pass) for place in BROKEN if place != "the second pass"]


@pytest.mark.parametrize(("place", "made"), PASSES)
@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), ZeroDivisionError("broken")])
def test_no_file_stays_open_wherever_a_merge_breaks(tmp_path, monkeypatch, place, error, made):
    recipe = made(tmp_path)
    monkeypatch.setattr(*BROKEN[place], raising(error))
    with pytest.raises((MachineError, ZeroDivisionError)) as caught:
        merge(recipe)
    assert left_open(tmp_path) == []  # while the error, and what led to it, are still held
    del caught


def test_no_file_stays_open_where_a_merge_is_cancelled(tmp_path):
    events = run(load_recipe(family(tmp_path)))
    next(event for event in events if isinstance(event, LayerDone))
    assert left_open(tmp_path) != []
    events.close()
    assert left_open(tmp_path) == []


def test_a_merge_that_was_stopped_says_what_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(journal, "INTERVAL", 0.0)
    recipe = family(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_report", raising(KeyboardInterrupt()))
        assert main(["merge", recipe]) == 130
    assert "stopped. Nothing was written to" in " ".join(capsys.readouterr().err.split())
    with monkeypatch.context() as patch:
        patch.setattr(directory.card, "card", raising(KeyboardInterrupt()))
        assert main(["merge", recipe, "--resume"]) == 130
    assert "--resume goes on from there" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("cache", ["a file", "nowhere", "a name too long", "a link in a circle"])
def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path, monkeypatch, cache):
    (tmp_path / "file").write_text("")
    os.symlink("loop", tmp_path / "loop")
    place = {"a file": "file", "nowhere": "file/deeper", "a name too long": "x" * 300}
    monkeypatch.setenv("MATS_CACHE", str(tmp_path / place.get(cache, "loop")))
    monkeypatch.setattr("mats_core.checkpoints.contents.WORTH", 1)
    monkeypatch.setattr("mats_core.checkpoints.contents.SETTLED", 0.0)
    assert merge(load_recipe(family(tmp_path))).layers


def test_what_nobody_foresaw_is_one_paragraph(tmp_path, monkeypatch, capsys):
    class Panic(BaseException):
        """What libraries in Rust raise."""

    recipe = family(tmp_path)
    for error in (ZeroDivisionError("float division"), Panic("index out of bounds")):
        monkeypatch.setattr(engine, "_report", raising(error))
        assert main(["merge", recipe]) == 3
        said = capsys.readouterr().err
        assert "a fault of MaTS Explorer, not of yours" in " ".join(said.split())
        assert "Traceback" not in said
        for arguments in (["--debug", "merge", recipe], ["merge", recipe, "--debug"]):
            assert main(arguments) == 3
            assert "Traceback" in capsys.readouterr().err
