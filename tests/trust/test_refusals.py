"""What a machine refuses while a command runs, in a process of its own: room, descriptors, leave to
write; and a command that is stopped or ended.

Exit code 2 and a sentence, 130 or 143: never 3, which is a fault, and never half an output.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from mats_core import InputError, load_recipe
from mats_core.cli.main import main
from mats_core.merging import engine, merge

from . import campaign


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A family of bare weights, and a recipe whose output is named by the test."""
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MATS_RESULTS", str(folder / "results"))
        campaign.family(folder)
    return folder


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 256 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(asked, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def recipe_of(weights: Path, output: Path, method: str = "regmean") -> str:
    content = yaml.safe_load((weights / "recipe.yaml").read_text())
    content |= {"output": str(output), "evaluate": False, "method": method}
    file = weights / f"{method} {os.getpid()}.yaml"
    file.write_text(yaml.safe_dump(content))
    return str(file)


def unjudged(recipe: str) -> int:
    """The exit code of a merge that nothing has judged before: so it meets the disk itself."""
    try:
        merge(load_recipe(recipe))
    except InputError as error:
        print(error)
        return 2
    return 0


def ran(
    arguments: list[str],
    said: Path,
    before: Callable[[], object] = lambda: None,
    work: Callable[[], int] = main,
) -> int:
    """The exit code of a command in a process of its own; `said`: what it told."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 99
    try:
        sys.stdout = sys.stderr = open(said, "w")
        sys.argv = ["mats", *arguments]
        before()
        code = work()
        sys.stdout.flush()
    finally:
        os._exit(code)


def filled(disk: Path, left: int) -> None:
    """Leave so many bytes on a disk."""
    (disk / "filler").unlink(missing_ok=True)
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(max(0, free.f_bavail * free.f_bsize - left)))


@pytest.mark.parametrize("method", ["regmean", "essential"])
def test_a_disk_that_is_full_at_any_write(weights, small_disk, tmp_path, method):
    out = small_disk / "out"
    recipe, codes = recipe_of(weights, out, method), []
    for pages in (0, 1, 2, 3, 4, 5, 6, 7, 9, 40):
        filled(small_disk, 4096 * pages)
        codes.append(ran([], tmp_path / "said", work=lambda: unjudged(recipe)))
        said = (tmp_path / "said").read_text()
        assert codes[-1] in (0, 2), said
        assert "Traceback" not in said
        if codes[-1] == 2:
            assert len(said) <= campaign.LONGEST
            assert not out.exists()
            assert "full disk" in said
        else:
            assert sorted(one.name for one in small_disk.iterdir()) == ["filler", "out"]
            shutil.rmtree(out)
    assert codes[0] == 2
    assert codes[-1] == 0


def test_too_few_descriptors_at_any_point(weights, tmp_path):
    recipe, codes = recipe_of(weights, tmp_path / "out"), []

    def few(more: int) -> Callable[[], object]:
        # The limit is one of numbers, and other tests leave holes among them.
        held = {n for n in range(4096) if os.path.exists(f"/proc/self/fd/{n}")}
        most = [n for n in range(4096) if n not in held][more]
        return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    for more in (0, 1, 2, 4, 40):
        codes.append(ran(["merge", recipe, "--force"], tmp_path / "said", few(more)))
        said = (tmp_path / "said").read_text()
        assert codes[-1] in (0, 2), said
        assert "Traceback" not in said
        if not codes[-1]:  # to remove a folder takes a descriptor, too: the next start does it
            assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "said"]
    assert codes[0] == 2
    assert codes[-1] == 0


def test_a_disk_that_cannot_be_written(weights, small_disk, tmp_path):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    recipe = recipe_of(weights, small_disk / "out")
    assert ran([], tmp_path / "said", work=lambda: unjudged(recipe)) == 2
    assert "read-only" in (tmp_path / "said").read_text()


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "stopped"), (signal.SIGTERM, 143, "ended")]
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_signal_ends_a_merge_in_one_sentence(weights, tmp_path, number, code, word, resume):
    def signalled(*args: object, **settings: object) -> None:
        os.kill(os.getpid(), number)

    def before() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        engine.made_of = signalled  # type: ignore[attr-defined]

    flags = ["--resume"] if resume else []
    recipe = recipe_of(weights, tmp_path / "out")
    assert ran(["merge", recipe, *flags], tmp_path / "said", before) == code
    said = " ".join((tmp_path / "said").read_text().split())
    assert f"{word}. Nothing was written" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    left = [one.name for one in tmp_path.iterdir() if one.name != "said"]
    assert left == ([".out.partial"] if resume else [])
    assert ran(["merge", recipe, *flags], tmp_path / "said") == 0
