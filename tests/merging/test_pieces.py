"""Large tensors piece by piece: the same numbers, and never the whole tensor in memory."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

import mats_core
from mats_core.checkpoints import reading_ahead
from mats_core.checkpoints.files import Checkpoint
from mats_core.checkpoints.reading_ahead import Buffers, Wanted
from mats_core.checkpoints.renamed import Renamed
from mats_core.checkpoints.source import Weights
from mats_core.cli.main import main
from mats_core.errors import InputError
from mats_core.estimating import fitting
from mats_core.estimating.fitting import require
from mats_core.estimating.merge_cost import estimate
from mats_core.linear.updates import Updates
from mats_core.merging import reading
from mats_core.merging.pipeline import merge, run
from mats_core.merging.reading import pieces, read_layer, read_pieces
from mats_core.recipes.events import Finished
from mats_core.recipes.plan import open_inputs, prepare, units
from mats_core.recipes.recipe import parse_recipe
from mats_core.system import memory
from mats_core.system.remember import Memo
from tests.conftest import family_recipe
from tests.estimating.test_merge_cost import ROUND
from tests.layer_cases import close, raw_recipe, write_raw

SHAPES = {"embed.weight": (40, 16), "fc.weight": (24, 16), "fc.bias": (24,), "scalar": ()}
CASES = [
    ("average", {}), ("task_arithmetic", {}), ("ties", {"density": 0.3}),
    ("ties", {"density": 0.3, "scope": "tensor"}), ("tsv_m", {}), ("iso_c", {}),
    ("breadcrumbs", {"density": 0.6, "gamma": 0.1}), ("consensus", {}), ("model_stock", {}),
    ("sce", {"select": 0.5}), ("karcher", {}), ("della", {}),
]  # fmt: skip


def tensors(seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(s, generator=generator).to(dtype) for n, s in SHAPES.items()}


def family(folder, method, options, *, dtype="float32", stored=torch.float32, **settings):
    experts = [tensors(m, stored) for m in (1, 2, 3)]
    return raw_recipe(folder, tensors(0, stored), experts, method, options, dtype=dtype, **settings)


def finished(recipe) -> Finished:
    *_, last = run(recipe)
    assert isinstance(last, Finished)
    return last


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("method", "options"), CASES)
def test_pieces_make_the_same_tensor(tmp_path, monkeypatch, method, options, dtype, stored):
    recipe = family(tmp_path, method, options, dtype=dtype, stored=stored)
    whole = finished(recipe)
    monkeypatch.setattr(reading, "PIECE", 64)
    parts = finished(recipe)
    for name, value in whole.tensors.items():
        assert torch.equal(value, parts.tensors[name]), name
    for one, other in zip(whole.report.layers, parts.report.layers, strict=True):
        assert (one.name, one.treatment, one.method) == (other.name, other.treatment, other.method)
        assert other.details.get("kept") == pytest.approx(one.details.get("kept"))


@pytest.mark.parametrize(("method", "options"), [*CASES, ("dare", {}), ("dare", {"then": "ties"})])
def test_disk_and_memory_agree_in_pieces(tmp_path, monkeypatch, method, options):
    monkeypatch.setattr(reading, "PIECE", 100)  # the last piece is a shorter one
    recipe = family(tmp_path, method, options)
    held = finished(recipe).tensors
    merge(recipe.model_copy(update={"output": "out"}))
    written = Checkpoint.open(tmp_path / "out")
    assert all(torch.equal(written.read(name), value) for name, value in held.items())


def test_masks_of_dare_differ_from_piece_to_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "PIECE", 256)
    recipe = family(tmp_path, "dare", {"drop": 0.5, "scaling": 1.0})
    base = tensors(0, torch.float32)["embed.weight"].reshape(-1)
    update = finished(recipe).tensors["embed.weight"].reshape(-1) - base
    dropped = update == 0  # by all three experts: an eighth
    assert float(dropped.float().mean()) == pytest.approx(1 / 8, abs=0.05)
    assert not torch.equal(dropped[:256], dropped[256:512])


def test_a_large_tensor_is_never_read_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "PIECE", 128)
    recipe = family(tmp_path, "ties", {}, output="out")
    inputs = open_inputs(recipe)
    read = Checkpoint.read

    def small_ones(self, name, **how):
        assert self.tensors[name].elements <= 128, name
        return read(self, name, **how)

    monkeypatch.setattr(Checkpoint, "read", small_ones)
    merge(recipe, inputs=inputs)


def test_an_average_in_pieces_leaves_the_base_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "PIECE", 64)
    recipe = family(tmp_path, "average", {})
    inputs = open_inputs(recipe, Memo(1 << 20))
    read, fill = [], Checkpoint.fill
    monkeypatch.setattr(
        Checkpoint, "fill", lambda self, *a: read.append(self.path.name) or fill(self, *a)
    )
    *_, last = run(recipe, inputs=inputs)
    assert isinstance(last, Finished)
    assert read
    assert "base.safetensors" not in read
    # What was remembered of it must not pass for the base of another method.
    other = recipe.model_copy(update={"method": "task_arithmetic"})
    *_, remembered = run(other, inputs=inputs)
    assert isinstance(remembered, Finished)
    fresh = finished(other)
    assert all(torch.equal(fresh.tensors[n], v) for n, v in remembered.tensors.items())


def test_buffers_read_what_they_do_not_hold_already():
    filled: list[str] = []

    def wanted(key, count, elements, dtype=torch.float32):
        def fill(values):
            filled.append(key)
            for value in values:
                value.fill_(len(filled))

        return Wanted(key, count, elements, dtype, fill)

    def fail(values):
        values[0].fill_(-1.0)
        raise InputError("disk")

    failing = Wanted("b", 2, 5, torch.float32, fail)
    buffers = Buffers()
    one = buffers.filled(wanted("a", 2, 5))
    assert [v.tolist() for v in one] == [[1.0] * 5] * 2
    assert buffers.filled(wanted("a", 2, 5))[0].data_ptr() == one[0].data_ptr()
    assert filled == ["a"]
    buffers.ahead(wanted("c", 2, 5))
    assert [v.tolist() for v in buffers.filled(wanted("c", 2, 5))] == [[2.0] * 5] * 2
    assert [v.tolist() for v in one] == [[1.0] * 5] * 2  # read beside it, not over it
    assert filled == ["a", "c"]
    buffers.ahead(failing)  # over a, and who knows what half of b is there
    with pytest.raises(InputError):
        buffers.filled(failing)
    assert [v.tolist() for v in buffers.filled(wanted("a", 2, 5))] == [[3.0] * 5] * 2
    assert [v.tolist() for v in buffers.filled(wanted("a", 3, 2, torch.float64))] == [[4.0] * 2] * 3


def test_the_next_piece_is_read_while_one_is_merged(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "PIECE", 10)
    job = prepare(family(tmp_path, "average", {}))
    threads, fill = [], Checkpoint.fill
    monkeypatch.setattr(
        Checkpoint,
        "fill",
        lambda self, *of: threads.append(threading.current_thread().name) or fill(self, *of),
    )
    unit = next(unit for unit in units(job) if len(pieces(job, unit)) > 2)
    whole = read_layer(job, unit, with_statistics=False)
    for layer in read_pieces(job, unit):
        assert layer.offset is not None
        place = slice(layer.offset, layer.offset + layer.experts[0].numel())
        for piece, tensor in zip(layer.experts, whole.experts, strict=True):
            assert torch.equal(piece, tensor.reshape(-1)[place])
    first, ahead = threads[: len(job.weights)], threads[len(job.weights) :]
    assert set(first) == {threading.current_thread().name}
    assert ahead
    assert all(name.startswith("read ahead") for name in ahead)


def test_a_cuda_device_fetches_pieces_from_pinned_memory_before_others_are_read_over_them(
    tmp_path, monkeypatch
):
    """Without such a device: the queue is this list, and memory is pinned in name."""
    monkeypatch.setattr(reading, "PIECE", 10)
    made, waited, waits = [], [], []

    def pinned(count, elements, *, dtype):
        made.append((count, elements))
        return torch.empty(count, elements, dtype=dtype)

    def queued():
        number = len(waits)
        waits.append(number)
        return lambda: waited.append((number, threading.current_thread().name))

    sent = Buffers.sent
    monkeypatch.setattr(reading_ahead, "pinned", pinned)
    monkeypatch.setattr(reading_ahead, "queued", queued)
    monkeypatch.setattr(Buffers, "sent", lambda self, wanted, device: sent(self, wanted, "cpu"))
    job = prepare(family(tmp_path, "average", {}))
    unit = next(unit for unit in units(job) if len(pieces(job, unit)) > 3)
    whole = read_layer(job, unit, with_statistics=False)
    there = replace(job, device="cuda", buffers=Buffers())
    every = list(read_pieces(there, unit))  # none is overwritten by the next
    for layer in every:
        assert layer.offset is not None
        place = slice(layer.offset, layer.offset + layer.experts[0].numel())
        for piece, tensor in zip(layer.experts, whole.experts, strict=True):
            assert torch.equal(piece, tensor.reshape(-1)[place])
    assert made == [(len(job.weights), 10)] * 2  # two sets serve all pieces
    assert waits == list(range(len(every)))
    # Before a piece is read into a set, the one that was fetched from it, two before, is waited for
    assert [number for number, _ in waited] == list(range(len(every) - 2))
    assert all(name.startswith("read ahead") for _, name in waited)


def test_what_is_read_over_waits_even_where_nothing_was_read_ahead(monkeypatch):
    waited: list[str] = []
    monkeypatch.setattr(reading_ahead, "queued", lambda: lambda: waited.append("fetched"))
    buffers = Buffers()

    def wanted(key):
        return Wanted(key, 1, 3, torch.float32, lambda values: values[0].fill_(len(key)))

    first = buffers.sent(wanted("a"), "cpu")
    second = buffers.sent(wanted("bb"), "cpu")
    assert waited == []
    buffers.filled(wanted("ccc"))
    assert waited == ["fetched"]
    assert [v.tolist() for v in (*first, *second)] == [[1.0] * 3, [2.0] * 3]


def test_matrices_of_other_methods_stay_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "PIECE", 10)

    def in_pieces(method):
        job = prepare(family(tmp_path, method, {}))
        return {unit.name for unit in units(job) if pieces(job, unit)}

    assert in_pieces("average") == {"embed.weight", "fc.weight", "fc.bias"}
    assert in_pieces("tsv_m") == {"embed.weight", "fc.bias"}


def test_a_view_that_computes_is_read_whole(tmp_path, monkeypatch):
    write_raw(tmp_path, "x.safetensors", tensors(0, torch.float32))
    plain = Checkpoint.open(tmp_path / "x.safetensors")

    class Doubled(Weights):
        path, tensors, metadata = plain.path, plain.tensors, plain.metadata

        def read(self, name, **how):
            return 2 * plain.read(name, **how)

        def reads_parts(self, name):
            return False

        def fill(self, name, start, value):
            raise AssertionError("nothing is read in parts")

        def digest(self, name):
            return plain.digest(name)

    view = Doubled()
    assert plain.reads_parts("embed.weight")
    assert not view.reads_parts("embed.weight")
    assert torch.equal(next(view.parts("embed.weight", 5)), 2 * plain.read("embed.weight"))
    renamed = Renamed.of(plain, {"wte": "embed.weight"})
    expected = plain.read("embed.weight").reshape(-1)[3:9].double()
    assert torch.equal(renamed.part("wte", 3, 9, dtype=torch.float64), expected)
    parts = torch.cat(list(renamed.parts("wte", 100)))
    assert torch.equal(parts, plain.read("embed.weight").flatten())
    monkeypatch.setattr(Renamed, "reads_parts", lambda self, name: False)
    assert len(list(renamed.parts("wte", 100))) == 1


def test_updates_are_subtracted_when_asked_for(tmp_path):
    job = prepare(family(tmp_path, "average", {}))
    layer = read_layer(job, units(job)[0])
    assert isinstance(layer.updates, Updates)
    assert len(layer.updates) == 3
    for one, expert in zip(layer.updates[1:], layer.experts[1:], strict=True):
        close(one, expert - layer.base, 0)


# Refusing -----------------------------------------------------------------------------------------


def test_pieces_need_less_memory(tmp_path, monkeypatch):
    recipe = family(tmp_path, "ties", {})
    inputs = open_inputs(recipe)
    whole = estimate(inputs, recipe, speeds=ROUND).memory["largest layer"]
    monkeypatch.setattr(reading, "PIECE", 64)
    assert estimate(inputs, recipe, speeds=ROUND).memory["largest layer"] < whole / 3


def test_what_cannot_fit_is_refused_before_anything_is_read(tmp_path, monkeypatch, capsys):
    recipe = family(tmp_path, "average", {}, output="out")
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "{base: base.safetensors, method: average, output: out, experts: "
        "[{name: a, model: e0.safetensors}]}"
    )
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "read", None)
        patch.setattr(memory, "available_memory", lambda: 1000)
        with pytest.raises(InputError, match="memory for 'average'"):
            mats_core.merge(recipe)
        assert main(["merge", str(file)]) == 2
    assert "found 1 kB" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    assert main(["merge", str(file), "--no-estimate"]) == 0


def test_a_full_disk_is_refused_with_what_would_help(tiny_family, tmp_path, monkeypatch):
    content = family_recipe(tiny_family, "average", output=str(tmp_path / "out"), evaluate=False)
    recipe = parse_recipe(content, tiny_family)
    found = estimate(open_inputs(recipe, contents=False), recipe, speeds=ROUND)
    needed = found.disk_bytes + fitting.DISK_RESERVE
    monkeypatch.setattr(memory, "free_disk", lambda path: needed)
    require(found)
    monkeypatch.setattr(memory, "free_disk", lambda path: needed - 1)
    with pytest.raises(InputError, match=r"disk for .*bfloat16"):
        require(found)
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(bytes(1 << 16))  # its place is taken already
    require(found)
    assert list(tmp_path.iterdir()) == [partial]


def test_sizes_are_parsed():
    texts = ["4GB", "500 MB", "2e9", "1.5GiB", "7k"]
    assert [memory.parse_bytes(t) for t in texts] == [4e9, 5e8, 2e9, 1.5e9, 7e3]
    for text in ("four", "1.2.3GB", "-1", "4XB"):
        with pytest.raises(InputError, match="4GB"):
            memory.parse_bytes(text)


def test_disk_of_a_place_that_is_not_there_yet(tmp_path):
    assert memory.free_disk(tmp_path / "a" / "b") == pytest.approx(
        memory.free_disk(tmp_path), rel=0.1
    )
    assert memory.allocated(tmp_path / "a") == 0
