"""The comparison with other tools: what it counts, what it draws, what the page says of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.peers import llama
from benchmarks.peers.differences import compare, kind_of
from benchmarks.peers.page import page
from benchmarks.peers.processes import run
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from tests.layer_cases import write_raw

TINY = llama.Size(hidden=8, intermediate=12, layers=2, vocabulary=20, heads=2)


def test_two_small_files_are_compared_tensor_by_tensor(tmp_path: Path):
    ours = {
        "model.layers.0.mlp.up_proj.weight": torch.tensor([[1.0, 2.0], [2.0, 4.0]]),
        "model.layers.1.mlp.up_proj.weight": torch.tensor([[3.0, 0.0], [4.0, 0.0]]),
        "model.norm.weight": torch.tensor([1.0, -1.0]),
    }
    theirs = {name: value.clone() for name, value in ours.items()}
    theirs["model.layers.1.mlp.up_proj.weight"][0, 1] = 0.5
    theirs["model.layers.0.mlp.up_proj.weight"][1, 1] += 1e-6  # too little to be another number
    write_raw(tmp_path, "a.safetensors", ours)
    write_raw(tmp_path, "b.safetensors", theirs)
    found = {d.kind: d for d in compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors")}
    assert set(found) == {"MLP", "norms"}
    mlp = found["MLP"]
    assert (mlp.tensors, mlp.entries, mlp.off) == (2, 8, 1)
    assert mlp.largest == 0.5
    assert mlp.relative == pytest.approx(0.5 / 5)
    assert (found["norms"].largest, found["norms"].relative, found["norms"].off) == (0, 0, 0)


def test_other_tensors_are_an_error_and_other_dtypes_are_not(tmp_path: Path):
    value = torch.tensor([1.0, 2.0])
    write_raw(tmp_path, "a.safetensors", {"x.weight": value})
    write_raw(tmp_path, "half.safetensors", {"x.weight": value.bfloat16()})
    write_raw(tmp_path, "b.safetensors", {"x.weight": value[None], "y.weight": -value})
    (same,) = compare(tmp_path / "a.safetensors", tmp_path / "half.safetensors")
    assert (same.kind, same.largest) == ("other", 0)
    with pytest.raises(InputError, match=r"others: x\.weight, y\.weight"):
        compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors")


def test_the_drawn_family_is_a_llama_in_shards_with_pairs_on_both_sides_of_slerps_limit(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    llama.write_family(tmp_path, TINY, torch.bfloat16)
    base, first, second = (Checkpoint.open(tmp_path / n) for n in ("base", "first", "second"))
    assert len(list((tmp_path / "first").glob("*.safetensors"))) > 2
    expected = LlamaForCausalLM(LlamaConfig(**base.config)).state_dict()
    assert {n: e.shape for n, e in base.tensors.items()} == {
        n: tuple(v.shape) for n, v in expected.items()
    }
    cosines: dict[str, float] = {}
    for name in base.tensors:
        a, b = (c.read(name).double().reshape(-1) for c in (first, second))
        assert not torch.equal(a, b)
        cosines[kind_of(name)] = float(a @ b / (a.norm() * b.norm()))
    assert cosines["embeddings"] > 0.9995 > 0.95 > cosines["attention"] > 0.7
    again = tmp_path / "again"
    llama.write_family(again, TINY, torch.bfloat16)
    assert Checkpoint.open(again / "second").fingerprint == second.fingerprint


def test_a_process_is_timed_and_its_memory_is_its_own(tmp_path: Path):
    held = "import time; held = bytearray(150_000_000); time.sleep(0.1)"
    large = run([sys.executable, "-S", "-c", held], folder=tmp_path)
    small = run([sys.executable, "-S", "-c", "print('x')"], folder=tmp_path)
    assert (large.code, large.errors) == (0, "")
    assert 140e6 < large.peak - small.peak < 160e6
    assert large.seconds > 0.1 > 0
    assert small.cpu > 0
    failed = run([sys.executable, "-S", "-c", "raise SystemExit('no such thing')"], folder=tmp_path)
    assert failed.code == 1
    assert "no such thing" in failed.errors


def test_the_page_divides_their_medians_by_ours_and_says_what_did_not_run():
    def ran(cpu: float, peak: float) -> dict[str, float]:
        return {"cpu": cpu, "seconds": 2 * cpu, "peak": peak, "anonymous": peak / 2}

    kinds = ("embeddings", "attention", "MLP", "norms", "head")
    case = {
        "title": "average", "experts": 3, "dtype": "float32", "load": (3.2, 7.9),
        "ours": [ran(2.0, 3e8), ran(2.5, 2e8), ran(90.0, 2e8)],
        "theirs": [ran(5.0, 6e8)] * 3,
        "differences": [
            {"kind": k, "largest": 1e-8, "relative": 2e-7, "off": 1, "entries": 10} for k in kinds
        ],
    }  # fmt: skip
    machine = {
        "processor": "x86_64", "cores": 2, "threads": 1, "checkpoints": "Drawn ones.",
        "versions": {"ours": {"torch": "2"}},
    }  # fmt: skip
    text = page({"machine": machine, "cases": {"average-float32": case}})
    row = next(line for line in text.splitlines() if line.startswith("| average, 3 experts"))
    assert row == (
        "| average, 3 experts, float32 | 2.5 | 5.0 | **2.0×** | 5.0 | 10.0 | **2.0×** "
        "| 200 | 600 | 100 | 300 | **3.0×** |"
    )
    assert "5 of 50" in text
    assert "1e-08 · 2e-07" in text
    assert "Load average 3 to 8 on 2 cores" in text
    assert "FusionBench\n\nNot run" in text
    assert "What was not measured" in text
    assert "mergekit\n\nNot run" in page({"machine": machine})
