"""Peak memory of merges of large checkpoints: `python -m benchmarks.memory FOLDER [--write]`.

Makes Llama-like checkpoints in FOLDER (a base and four experts of 1 GB each, bfloat16, sharded,
with an embedding of 260 MB), merges them by every method in a process of its own, and reports the
peak of its resident memory (VmHWM) less that of a process that only imports the library, beside the
bound (M + 2) × the largest tensor as stored + 100 MB.  Methods that decompose matrices get the same
embedding with one block: their peak is that of one layer, their time grows with the layers.
Methods with statistics get a small checkpoint with random statistics, beside the bytes of the
largest layer's.  Everything is streamed and seeded; FOLDER needs 9 GB and is emptied again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from mats_core.checkpoints import Checkpoint, CheckpointWriter, Spec, TensorFileWriter
from mats_core.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
EXPERTS = 4
SHARD = 400_000_000
PIECE = 1 << 22
SHIFTS = 1_000_003
SLACK = 100e6
DECOMPOSING = ("tsv_m", "iso_c", "iso_cts")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "average": ("average", {}),
    "task_arithmetic": ("task_arithmetic", {}),
    "ties, global": ("ties", {}),
    "ties, tensor": ("ties", {"scope": "tensor"}),
    "dare": ("dare", {}),
    "dare, then ties": ("dare", {"then": "ties"}),
}


@dataclass(frozen=True)
class Size:
    """The sizes of a Llama-like decoder."""

    blocks: int
    hidden: int
    inner: int
    keys: int
    vocabulary: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        h = self.hidden
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, h)}
        for block in range(self.blocks):
            at = f"model.layers.{block}"
            found |= {
                f"{at}.self_attn.q_proj.weight": (h, h),
                f"{at}.self_attn.k_proj.weight": (self.keys, h),
                f"{at}.self_attn.v_proj.weight": (self.keys, h),
                f"{at}.self_attn.o_proj.weight": (h, h),
                f"{at}.mlp.gate_proj.weight": (self.inner, h),
                f"{at}.mlp.up_proj.weight": (self.inner, h),
                f"{at}.mlp.down_proj.weight": (h, self.inner),
                f"{at}.input_layernorm.weight": (h,),
                f"{at}.post_attention_layernorm.weight": (h,),
            }
        return found | {"model.norm.weight": (h,)}


LARGE = Size(blocks=33, hidden=1024, inner=2816, keys=256, vocabulary=128_256)
SHORT = Size(blocks=1, hidden=1024, inner=2816, keys=256, vocabulary=128_256)
MEASURED = Size(blocks=1, hidden=768, inner=2048, keys=256, vocabulary=8_192)


# Making -------------------------------------------------------------------------------------------


def make(folder: Path, size: Size, dtype: torch.dtype, *, statistics: bool = False) -> None:
    """A base and its experts, tensor by tensor and piece by piece."""
    shapes = size.shapes()
    specs: dict[str, Spec] = {name: (dtype, shape) for name, shape in shapes.items()}
    names = ["base", *(f"e{m}" for m in range(EXPERTS))]
    writers = []
    for name in names:
        (folder / name).mkdir(parents=True)
        writers.append(CheckpointWriter(folder / name, specs, shard_bytes=SHARD))
    pool = torch.randn(PIECE + SHIFTS, generator=torch.Generator().manual_seed(0))
    for index, (name, shape) in enumerate(shapes.items()):
        elements = torch.Size(shape).numel()
        for start in range(0, elements, PIECE):
            count = min(PIECE, elements - start)
            base = 0.02 * _drawn(pool, count, index, start)
            for m, writer in enumerate(writers):
                value = base + 0.002 * _drawn(pool, count, index, start + m) if m else base
                whole = count == elements
                value = value.to(dtype)
                writer.add(name, value.reshape(shape) if whole else value, None if whole else start)
    for writer in writers:
        writer.close()
    if statistics:
        for m, name in enumerate(names):
            _statistics(folder / f"{name}.stats.safetensors", shapes, m)


def _drawn(pool: torch.Tensor, count: int, tensor: int, place: int) -> torch.Tensor:
    """Normal numbers from somewhere in the pool: drawing 2.5 billion of them would take longer."""
    at = (7919 * tensor + 104_729 * place) % SHIFTS
    return pool[at : at + count]


def _statistics(file: Path, shapes: Mapping[str, tuple[int, ...]], seed: int) -> None:
    """Random positive definite Grams and positive Fishers under the names of the format."""
    generator = torch.Generator().manual_seed(seed)
    specs: dict[str, Spec] = {}
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        specs[f"{name}.fisher"] = (torch.float32, shape)
        if len(shape) == 2 and "embed" not in name:
            specs[f"{module}.input_gram"] = (torch.float32, (shape[1],) * 2)
            specs[f"{module}.input_mean"] = (torch.float32, (shape[1],))
            specs[f"{module}.output_gradient_gram"] = (torch.float32, (shape[0],) * 2)
    writer = TensorFileWriter(file, specs, {"format": "mats-statistics-1"})
    for name, (_, shape) in specs.items():
        if name.endswith("_gram"):
            tokens = torch.randn(shape[0] // 2, shape[0], generator=generator)
            writer.add(name, tokens.T @ tokens / len(tokens))
        elif name.endswith(".fisher"):
            writer.add(name, torch.randn(shape, generator=generator) ** 2)
        else:
            writer.add(name, 0.1 * torch.randn(shape, generator=generator))
    writer.close()


def recipe(folder: Path, method: str, options: Mapping[str, Any], statistics: bool) -> Path:
    """A recipe file over what `make` made."""

    def measured(name: str) -> dict[str, str]:
        return {"statistics": f"{name}.stats.safetensors"} if statistics else {}

    names = [f"e{m}" for m in range(EXPERTS)]
    content = {
        "base": "base",
        **({"base_statistics": "base.stats.safetensors"} if statistics else {}),
        "experts": [{"name": name, "model": name, **measured(name)} for name in names],
        "method": method,
        "options": dict(options),
        "output": "merged",
        "device": "cpu",
        "evaluate": False,
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


# Measuring ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peak:
    """What a process took: bytes of memory at its peak, seconds, bytes read and written.

    `expected`: bytes of memory by the estimate before the merge, `estimating` its seconds.
    """

    memory: int
    expected: int
    estimating: float
    seconds: float
    read: int
    written: int


def child(file: str) -> None:
    """In the process that is measured: merge, or only import; print what it took."""
    from mats_core.estimating import estimate
    from mats_core.merging import merge
    from mats_core.recipes import load_recipe, open_inputs
    from mats_core.system import speeds as machine

    speeds = machine.rates()  # measured once a process, whatever is estimated
    begun, expected, estimating = time.perf_counter(), 0, 0.0
    if file:
        recipe = load_recipe(file)
        found = estimate(open_inputs(recipe, contents=False), recipe, speeds=speeds)
        expected, estimating = found.memory_bytes, time.perf_counter() - begun
        merge(recipe)
    result = {
        "memory": _status("VmHWM"),
        "expected": expected,
        "estimating": estimating,
        "seconds": time.perf_counter() - begun,
    }
    print(json.dumps({**result, **_traffic()}))


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024


def _traffic() -> dict[str, int]:
    rows = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {"read": int(rows["rchar"]), "written": int(rows["wchar"])}


def measured(file: Path | None) -> Peak:
    command = [sys.executable, "-m", "benchmarks.memory", "--child", str(file or "")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{file}: exit code {done.returncode}\n{done.stderr}")
    if file is not None:
        shutil.rmtree(file.parent / "merged")
    found = Peak(**json.loads(done.stdout.splitlines()[-1]))
    print(f"{file and file.parent.name}: {found}", file=sys.stderr)
    return found


# Tables -------------------------------------------------------------------------------------------


def without_statistics(folder: Path, size: Size, cases: Any, empty: Peak) -> Iterator[str]:
    place = folder / "family"
    make(place, size, torch.bfloat16)
    base = Checkpoint.open(place / "base")
    largest = max(entry.nbytes for entry in base.tensors.values())
    bound = (EXPERTS + 2) * largest + SLACK
    total = (EXPERTS + 1) * base.nbytes
    for label, (method, options) in cases.items():
        found = measured(recipe(place, method, options, statistics=False))
        extra = found.memory - empty.memory
        yield (
            f"| {label} | {total / 1e9:.1f} GB | {largest / 1e6:.0f} MB | **{extra / 1e6:.0f} MB** "
            f"| {bound / 1e6:,.0f} MB | {'yes' if extra <= bound else '**no**'} "
            f"| {found.expected / 1e6:.0f} MB | {found.estimating:.2f} | {found.seconds:.0f} "
            f"| {found.read / 1e9:.1f} | {found.written / 1e9:.1f} |"
        )
    shutil.rmtree(place)


def with_statistics(folder: Path, empty: Peak) -> Iterator[str]:
    place = folder / "measured"
    make(place, MEASURED, torch.float32, statistics=True)
    for method, row in METHODS.items():
        options = row.options()
        kinds = row.reads(options)
        if not kinds:
            continue
        largest = max(_layer_bytes(name, shape, kinds) for name, shape in MEASURED.shapes().items())
        found = measured(recipe(place, method, {}, statistics=True))
        extra = found.memory - empty.memory
        yield (
            f"| {method} | {largest / 1e6:.0f} MB | **{extra / 1e6:.0f} MB** "
            f"| {extra / largest:.1f} | {found.expected / 1e6:.0f} MB | {found.seconds:.0f} "
            f"| {found.read / 1e9:.1f} |"
        )
    shutil.rmtree(place)


def _layer_bytes(name: str, shape: tuple[int, ...], kinds: frozenset[str]) -> int:
    """Base, experts and the statistics that a method reads of a layer, in float32."""
    elements = torch.Size(shape).numel()
    found = (EXPERTS + 1) * elements
    sizes = {"fisher": elements}
    if len(shape) == 2 and "embed" not in name:
        sizes |= {"input_gram": shape[1] ** 2, "output_gradient_gram": shape[0] ** 2}
    return 4 * (found + EXPERTS * sum(sizes.get(kind, 0) for kind in kinds))


def tables(folder: Path) -> str:
    empty = measured(None)
    load = os.getloadavg()[0]
    decomposing = {name: (name, {}) for name in DECOMPOSING}
    rows = [
        *without_statistics(folder, LARGE, CASES, empty),
        *without_statistics(folder, SHORT, decomposing, empty),
    ]
    own = list(with_statistics(folder, empty))
    return "\n".join(
        [
            f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}, load average {load:.1f} at the start and "
            f"{os.getloadavg()[0]:.1f} at the end. A process that only imports the library takes "
            f"{empty.memory / 1e6:.0f} MB, which is subtracted everywhere.",
            "",
            f"Base and {EXPERTS} experts in bfloat16, arithmetic in float32, read from disk and "
            f"written to disk; *bound* is (M + 2) × the largest tensor as stored + "
            f"{SLACK / 1e6:.0f} MB:",
            "",
            "| method | inputs | largest tensor | peak | bound | kept | estimated | in s | seconds "
            "| GB read | GB written |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            "Methods with statistics, float32, one block of width "
            f"{MEASURED.hidden}/{MEASURED.inner}; *largest layer* is its base, its experts and "
            "their statistics of the kinds that the method reads:",
            "",
            "| method | largest layer | peak | times that | estimated | seconds | GB read |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *own,
        ]
    )


MARK = "<!-- benchmarks/memory.py writes from here on -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where 9 GB are free")
    parser.add_argument("--write", action="store_true", help="write the tables to docs/memory.md")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(arguments.child)
        return
    if arguments.folder is None:
        parser.error("name a folder where 9 GB are free")
    text = tables(arguments.folder.resolve())
    print(text)
    if arguments.write:
        file = ROOT / "docs" / "memory.md"
        head = file.read_text("utf-8").partition(MARK)[0]
        file.write_text(f"{head}{MARK}\n\n{text}\n", "utf-8")


if __name__ == "__main__":
    main()
