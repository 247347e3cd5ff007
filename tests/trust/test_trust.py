"""The mechanisms of docs/trust.md, each by a case that did harm, and a part of the campaign."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mats_core import InputError, Statistics, load_recipe, run, tasks
from mats_core.adapters.settings import matches
from mats_core.checkpoints import Checkpoint, hub, staged_file
from mats_core.errors import code_span, listing, markdown, parsing, plain_yaml, shell
from mats_core.linear import eigh, noted
from mats_core.linear.fallbacks import thin_svd
from mats_core.merging import card
from mats_core.system import drain, memory
from mats_core.tasks import pictures
from pages.shared.work import jobs, runs
from pages.shared.work.worker import Worker

from . import campaign, kills

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def family(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MATS_RESULTS", str(tmp_path / "results"))
    place = tmp_path / "family"
    place.mkdir()
    campaign.family(place)
    return place


# The campaign -------------------------------------------------------------------------------------


def test_damaged_files_are_taken_or_refused_in_a_sentence():
    found = campaign.campaign(7, 150, ["weights and statistics", "pictures and arrays", "states"])
    assert not found.faults
    assert found.share("taken") > 1 / 3
    assert found.share("refused") > 1 / 5


def test_the_campaign_sees_faults(tmp_path, monkeypatch):
    def fails(folder: Path) -> None:
        raise KeyError("x")

    def talks(folder: Path) -> None:
        error = InputError("x")
        error.args = ("x" * 2000,)
        raise error

    assert campaign.outcome(fails, tmp_path).startswith("KeyError")
    assert "2000 characters" in campaign.outcome(talks, tmp_path)

    def hangs(folder: Path) -> None:
        while True:
            sum(range(1000))

    assert campaign.outcome(hangs, tmp_path, 0.2).startswith("no answer within 0.2 s")
    # A door that waits takes nothing of a processor.
    assert campaign.outcome(lambda folder: time.sleep(0.3), tmp_path, 0.2) == "taken"
    monkeypatch.setattr(campaign, "WALL", 0.2)
    assert campaign.outcome(lambda folder: time.sleep(60), tmp_path).startswith("no answer")


def test_a_child_that_is_killed_at_work_says_how_it_ended(tmp_path):
    def full() -> None:
        staged = tmp_path / "a"
        with staged_file(staged) as place:
            place.write_bytes(b"x" * 100)

    def fails() -> None:
        raise KeyError("x" * 5000)  # more than a file may hold then

    def refuses() -> int:
        print("error: something else", file=sys.stderr)
        return 2

    def ended(run: Callable[[], object], most: int = 0) -> kills.Ended:
        return kills.child(kills.Work("a", "a", tmp_path, run), most_bytes=most)

    assert ended(full).code == 0
    assert ended(full, 10).code == 2
    assert ended(full, 10).wrong() == ""
    assert ended(fails, 10).code == 3
    assert "KeyError" in ended(fails, 10).said
    assert ended(fails, 10).wrong().startswith("ended with 3")
    assert "not what the disk refused" in ended(refuses).wrong()


def test_a_merge_that_is_killed_goes_on_to_the_same_bytes():
    command = [sys.executable, "-m", "tests.trust.kills", "--quick", "--kills", "6", "--seed", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith(", 0 faults"), done.stdout + done.stderr


# Names and paths ----------------------------------------------------------------------------------


def test_text_leaves_as_text(tmp_path):
    name = "a$(touch ran)`touch ran`\n'; touch ran"
    said = subprocess.run(["sh", "-c", f"printf %s {shell(name)}"], cwd=tmp_path, stdout=-1)
    assert said.stdout.decode() == name
    assert not (tmp_path / "ran").exists()
    assert shell("-rf") == "./-rf"
    assert markdown("a_b <b>*x*|\n# y") == r"a_b \<b\>\*x\*\| \# y"
    assert code_span("a`b|c\n") == "a'b\\|c "


def test_a_card_takes_no_code_from_a_configuration():
    assert card.class_names({"architectures": ["ViTModel"]}) == ["ViTModel"]
    for said in (["A\nimport os"], ["os.system('id')"], 5, [["x"]], "ViTModel"):
        assert card.class_names({"architectures": said}) == []


def test_a_run_speaks_of_its_own_file_alone(family):
    folder = runs.folder(campaign.FAMILY)
    kept = next(folder.glob("*.json"))
    content = json.loads(kept.read_text())
    for change in (
        {"id": "../../victim"},
        {"family": "another"},
        {"number": "x"},
        {"recipe": None},
    ):
        kept.write_text(json.dumps({**content, **change}))
        assert runs.everything(campaign.FAMILY) == []
    kept.write_text(json.dumps(content))
    assert [run.id for run in runs.everything(campaign.FAMILY)] == [kept.stem]


def test_a_mistyped_path_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_snapshot", lambda text: pytest.fail("the hub was asked"))
    (tmp_path / "outputs").mkdir()
    with pytest.raises(InputError, match="outputs/frist"):
        hub.locate("outputs/frist", tmp_path)


# What was judged is what is merged ----------------------------------------------------------------


def rewrite(file: Path) -> None:
    """Other bytes, under the same inode, size and time of modification."""
    was, content = file.stat(), bytearray(file.read_bytes())
    content[-2] ^= 1
    with file.open("r+b") as handle:
        handle.write(content)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


@pytest.mark.parametrize("name", ["e0.safetensors", "base.safetensors", "e1.stats.safetensors"])
def test_an_input_that_changes_ends_the_merge_with_its_name(family, name):
    recipe = load_recipe(family / "recipe.yaml").model_copy(update={"output": "out"})
    events = run(recipe)
    next(events)
    next(events)
    rewrite(family / name)
    with pytest.raises(InputError, match=name):
        list(events)
    assert not (family / "out").exists()


def test_other_rights_are_no_change(family):
    opened = Checkpoint.open(family / "e0.safetensors")
    opened.look_through()
    (family / "e0.safetensors").chmod(0o600)
    opened.require_unchanged()


def test_a_table_of_the_same_size_and_time_is_read_again(family):
    table = family / "rows.csv"
    first, was = tasks.load(family / "csv.yaml").digest, table.stat()
    table.write_text(table.read_text().replace("row 1", "ROW 1"))
    os.utime(table, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert tasks.load(family / "csv.yaml").digest != first


@pytest.mark.parametrize("shift", [0.5, 1e-3])
def test_an_indefinite_gram_is_refused_and_a_rounded_one_is_not(tmp_path, shift):
    x = torch.randn(3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = x.T @ x
    gram -= shift * gram.diagonal().min() * torch.eye(12, dtype=torch.float64)
    save_file({"fc.input_gram": gram}, tmp_path / "a.safetensors", {"format": "mats-statistics-1"})
    opened = Statistics.open(tmp_path / "a.safetensors")
    assert (gram.diagonal() >= 0).all()
    if shift < 0.01:
        assert opened.read("fc.input_gram", (12, 12)) is not None
        return
    with pytest.raises(InputError, match="negative eigenvalue"):
        opened.read("fc.input_gram", (12, 12))


# Budgets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "a: " + "x" * 600_000,
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{c}: &{c} [{','.join(['*' + b] * 9)}]\n" for b, c in pairwise("abcdefg")),
        "a: &a [*a]",
        "a: 0b" + "1" * 50_000 + "\na: 1",
    ],
)
def test_yaml_has_a_budget(text):
    begun = time.process_time()
    try:
        said = repr(plain_yaml("x", text))[:10]
    except (InputError, ValueError) as error:
        said = str(error)
    assert len(said) <= campaign.LONGEST
    assert time.process_time() - begun < 5


def test_what_is_packed_is_measured_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000_000)
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(b"text,label\n" + b"a" * 40_000_000))
    (tmp_path / "t.yaml").write_text("kind: text\ntrain: rows.csv.gz\ntest: 0.3\ninputs: [text]\n")
    with pytest.raises(InputError, match="once it is unpacked"):
        tasks.load(tmp_path / "t.yaml")
    with zipfile.ZipFile(tmp_path / "t.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x_train", "y_train", "x_test", "y_test", "classes"):
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, np.zeros(4_000_000, np.uint8))
    with pytest.raises(InputError, match="once it is unpacked"):
        tasks.load(tmp_path / "t.npz")


def test_a_picture_is_cut_before_it_is_scaled(tmp_path):
    Image.new("L", (60_000, 2)).save(tmp_path / "long.png")
    look = pictures.surveyed([tmp_path / "long.png"])
    assert pictures._picture(tmp_path / "long.png", 224, look).shape == (224, 224, 1)


def test_a_pattern_that_goes_back_and_forth_is_refused():
    with pytest.raises(InputError, match=r"more than 0\.5 s"):
        matches("(a|b|ab)*[0-9]", "ab" * 60, "the pattern")
    assert matches(r"(.*\.)?(fc)$", "block.0.fc", "the pattern")


# Nothing is left behind ---------------------------------------------------------------------------


def test_what_a_dead_process_left_is_swept_up_and_what_a_living_one_has_is_not(tmp_path):
    file = tmp_path / "a.json"
    dead, alive = tmp_path / ".a.json.dead.mats-part", tmp_path / ".a.json.alive.mats-part"
    dead.write_text("half")
    alive.write_text("half")
    with alive.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with staged_file(file) as place:
            place.write_text("whole")
        assert sorted(p.name for p in tmp_path.iterdir()) == [alive.name, "a.json"]


# One for all --------------------------------------------------------------------------------------


def test_work_that_ends_in_another_way_than_by_an_exception_ends_no_worker():
    worker = Worker()
    for error in (SystemExit(3), KeyboardInterrupt(), GeneratorExit()):

        def fails(tell: jobs.Tell, error: BaseException = error) -> None:
            raise error

        failed = worker.submit(jobs.Job(None, "Failing", fails))
        assert failed.wait(60)
        assert failed.snapshot().state == "failed"
    after = worker.submit(jobs.Job(None, "After", lambda tell: 5))
    assert after.wait(60)
    assert after.outcome() == 5
    worker.end()


def test_a_short_job_passes_a_long_one(monkeypatch):
    monkeypatch.setattr("pages.shared.work.worker.SLICE", 0.05)
    worker, release = Worker(), threading.Event()

    def long(tell: jobs.Tell) -> str:
        while not release.wait(0.01):
            tell(0.02, "on the way")
        return "long"

    first = worker.submit(jobs.Job(None, "Long", long))
    time.sleep(0.2)
    try:
        short = worker.submit(jobs.Job(None, "Short", lambda tell: "short"))
        assert short.wait(60)
        assert short.outcome() == "short"
        assert first.active
    finally:
        release.set()
    assert first.wait(60)
    assert first.outcome() == "long"
    worker.end()


# One door -----------------------------------------------------------------------------------------


def test_whatever_a_parser_raises_is_a_sentence():
    class PanicException(BaseException):
        """As of a library in Rust."""

    errors = (RecursionError(), KeyError("a"), PanicException("x"), SystemExit(1), OSError("x"))
    for error in errors:
        with pytest.raises(InputError, match="the file"), parsing("the file", "JSON"):
            raise error
    with pytest.raises(KeyboardInterrupt), parsing("the file", "JSON"):
        raise KeyboardInterrupt


def test_no_sentence_is_longer_than_a_paragraph():
    long = InputError("t" * 9000, expected="e" * 9000, found="f" * 9000, remedy="r" * 9000)
    assert len(str(long)) <= campaign.LONGEST
    kept = InputError("thing", expected="this", found="f" * 9000, remedy="r" * 500)
    assert kept.remedy == "r" * 500
    assert len(listing(["n" * 9000] * 9)) <= campaign.LONGEST


def test_decompositions_fall_back_and_say_so(monkeypatch):
    g = torch.Generator().manual_seed(0)
    matrix = torch.randn(9, 5, generator=g, dtype=torch.float64)
    gram = matrix.T @ matrix
    values = np.linalg.eigvalsh(gram.numpy())
    sigma = np.linalg.svd(matrix.numpy(), compute_uv=False)

    def gives_up(*args: object, **settings: object) -> None:
        raise RuntimeError("failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    monkeypatch.setattr(torch.linalg, "svd", gives_up)
    with noted() as ways:
        found, vectors = eigh(gram)
        left, singular, right = thin_svd(matrix)
    assert ways == ["eigh by MRRR", "SVD by QR iterations"]
    np.testing.assert_allclose(found, values, rtol=1e-10)
    np.testing.assert_allclose(vectors * found @ vectors.mT, gram, atol=1e-10)
    np.testing.assert_allclose(singular, sigma, rtol=1e-10)
    np.testing.assert_allclose(left * singular @ right, matrix, atol=1e-10)
    with pytest.raises(InputError, match="NaN or infinity"):
        eigh(gram * float("inf"))


def test_a_fallback_stands_in_the_status_of_the_layer(family, monkeypatch):
    def gives_up(*args: object, **settings: object) -> None:
        raise RuntimeError("failed to converge")

    recipe = load_recipe(family / "recipe.yaml").model_copy(update={"method": "iso_c"})
    monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    last = drain(run(recipe))
    statuses = [one.status for one in last.report.layers if one.method == "iso_c"]
    assert statuses
    assert all("eigh by MRRR" in said for said in statuses)
    assert load_file(family / "base.safetensors").keys() == last.tensors.keys()
