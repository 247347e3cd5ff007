"""`python -m sample_models.build`: base, experts, and the table of accuracies, from nothing.

With `--images DIR` the experts are fine-tuned on `.npz` files instead (arrays `x_train, y_train,
x_test, y_test, classes`), from the family's base or from `--base`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.nn import functional

from . import tasks, training
from .training import Settings

HERE = Path(__file__).parent
PROCESSES = 2


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(
        prog="python -m sample_models.build", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--out", type=Path, default=HERE / "drawn", help="family folder to write")
    parser.add_argument("--images", type=Path, help="folder of .npz files, instead of the drawings")
    parser.add_argument("--base", type=Path, help="fine-tune from this base, instead of a new one")
    parser.add_argument("--steps", type=int, help="fine-tuning steps a task")
    parser.add_argument("--base-steps", type=int, help="pre-training steps")
    parser.add_argument("--no-table", action="store_true", help="leave the README's table as it is")
    chosen = parser.parse_args(arguments)
    if chosen.images is not None and chosen.out == HERE / "drawn":
        parser.error("--images needs --out DIR, so that the sample family is not overwritten")
    if chosen.out != HERE / "drawn" and chosen.out.exists() and any(chosen.out.iterdir()):
        parser.error(f"--out {chosen.out}: expected an empty or a new folder, found one with files")
    settings = Settings()
    if chosen.steps is not None:
        settings = replace(settings, steps=chosen.steps)
    if chosen.base_steps is not None:
        settings = replace(settings, base_steps=chosen.base_steps)
    started = time.perf_counter()
    build(chosen.out, settings, images=chosen.images, base=chosen.base)
    if chosen.images is None:
        from .scores import write_scores
        from .shipped import write_results

        write_scores(chosen.out)
        write_results(chosen.out)
    print(f"models: {(time.perf_counter() - started) / 60:.1f} minutes", flush=True)
    if not chosen.no_table:
        from .table import write_table

        write_table(chosen.out, HERE / "README.md" if chosen.out == HERE / "drawn" else None)
        print(f"with the table: {(time.perf_counter() - started) / 60:.1f} minutes", flush=True)


def build(
    out: Path, settings: Settings, *, images: Path | None = None, base: Path | None = None
) -> None:
    """Write base, experts and `family.yaml` into `out`."""
    sources = _sources(images)
    context = multiprocessing.get_context("spawn")
    if base is None and images is not None:
        base = HERE / "drawn" / "base"
    if base is None:
        with context.Pool(1) as pool:  # a process of its own, so that its one thread stays one
            pool.apply(_build_base, (out / "base", settings))
    elif base.resolve() != (out / "base").resolve():
        shutil.copytree(base, out / "base", dirs_exist_ok=True)
    jobs = [(out, name, reference, settings) for name, reference in sources.items()]
    with context.Pool(PROCESSES) as pool:
        for line in pool.imap(_build_expert, jobs):
            print(line, flush=True)
    _write_family(out, sources, drawn_base=images is None)


def _sources(images: Path | None) -> dict[str, str]:
    """Task name → reference, as in a recipe."""
    if images is None:
        return {name: f"sample:{name}" for name in tasks.TASKS}
    files = sorted(images.glob("*.npz"))
    if not files:
        raise SystemExit(f"error: no .npz file in '{images}'")
    return {file.stem: str(file.resolve()) for file in files}


def _build_base(folder: Path, settings: Settings) -> None:
    drawn = {
        name: tasks.arrays(name, train=settings.base_images, test=0) for name in tasks.PRETRAINING
    }
    started = time.perf_counter()

    def progress(step: int, loss: float) -> None:
        seconds = time.perf_counter() - started
        print(
            f"base: step {step} of {settings.base_steps}, loss {loss:.2f}, {seconds:.0f} s",
            flush=True,
        )

    training.save(training.pretrain(drawn, settings, progress), folder)


def _build_expert(job: tuple[Path, str, str, Settings]) -> str:
    out, name, reference, settings = job
    started = time.perf_counter()
    base = training.load(out / "base")
    settings = replace(
        settings,
        width=base.config.hidden_size,
        layers=base.config.num_hidden_layers,
        heads=base.config.num_attention_heads,
        hidden=base.config.intermediate_size,
        image=base.config.image_size,
        patch=base.config.patch_size,
    )
    arrays = load_arrays(reference, settings.image)
    training.save(training.fine_tune(base, arrays, settings), out / name)
    return f"{name}: {time.perf_counter() - started:.0f} s"


def load_arrays(reference: str, size: int) -> Mapping[str, Any]:
    """A task's arrays, images resized to `size` and to three channels."""
    if reference.startswith("sample:"):
        return tasks.arrays(reference.removeprefix("sample:"))
    with np.load(reference, allow_pickle=False) as file:
        arrays = dict(file)
    for key in ("x_train", "x_test"):
        arrays[key] = _fit(arrays[key], size)
    return arrays


def _fit(images: np.ndarray, size: int) -> np.ndarray:
    values = images if images.ndim == 4 else images[..., None]
    if values.shape[-1] == 1:
        values = np.repeat(values, 3, axis=-1)
    if values.shape[1:3] == (size, size):
        return values
    resized = functional.interpolate(
        torch.from_numpy(values).permute(0, 3, 1, 2).float(),
        (size, size),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )
    return resized.permute(0, 2, 3, 1).round().clamp(0, 255).byte().numpy()


def _write_family(out: Path, sources: Mapping[str, str], *, drawn_base: bool) -> None:
    content: dict[str, Any] = {"name": "Drawn eight" if drawn_base else out.name, "base": "base"}
    if drawn_base:
        content["base_task"] = "sample:pretraining"
    content["experts"] = [
        {"name": name, "model": name, "task": reference} for name, reference in sources.items()
    ]
    (out / "family.yaml").write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")


if __name__ == "__main__":
    main()
