"""LoRA experts of the sample family in every space: `python -m benchmarks.lora FOLDER`.

One adapter a task is trained on the sample family's base by peft, the linear layers of the encoder
with a head, and kept under FOLDER.  Every method that has an option `space` is then merged in each
space, its scaling chosen on validation rows; the best one of each is tested once.  The table is
printed in Markdown, for `docs/adapters.md`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mats_core.merging import run as run_recipe
from mats_core.recipes import parse_recipe
from mats_core.system import drain
from sample_models import training
from sample_models.build import load_arrays

FAMILY = Path(__file__).resolve().parents[1] / "sample_models/drawn"
TASKS = ("digits", "shapes", "textures", "flags")
RANK, STEPS, BATCH = 8, 150, 32
ADAPTER_RATE = 2e-3
ROWS = 200  # of each task's validation and of its test half
SPACES = ("full", "knots", "core")
# Scalings that are tried: each method's own order of magnitude, wide enough for every space.
SCALINGS = (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
LARGER = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 6.0, 8.0, 12.0)
METHODS: dict[str, tuple[Mapping[str, Any], Sequence[float]]] = {
    "task_arithmetic": ({}, SCALINGS),
    "ties": ({"scope": "tensor"}, SCALINGS),
    "dare": ({"then": "ties"}, SCALINGS),
    "tsv_m": ({}, SCALINGS),
    "iso_c": ({}, LARGER),
    "iso_cts": ({}, LARGER),
    "dc_merge": ({"density": 0.02}, LARGER),
    "dc_merge, ρ 5": ({"density": 0.02, "smoothing": 5.0}, LARGER),
}


def train(task: str, folder: Path) -> None:
    """One LoRA expert of the sample family's base, written by peft."""
    from peft import LoraConfig, get_peft_model

    base = training.load(FAMILY / "base")
    settings = training.Settings(steps=STEPS)
    arrays = load_arrays(f"sample:{task}", settings.image)
    training.prepare(settings.seed + 1)
    model = training.new_model([str(label) for label in arrays["classes"]], settings)
    model.vit.load_state_dict(base.vit.state_dict())
    names = [name for name, one in model.vit.named_modules() if type(one).__name__ == "Linear"]
    targets = [f"vit.{name}" for name in names]
    adapted = get_peft_model(
        model,
        LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets, modules_to_save=["classifier"]),
    )
    parts = [(name, one) for name, one in adapted.named_parameters() if one.requires_grad]
    images, labels = training.training_part(arrays)
    training.train(
        adapted, images, labels,
        [
            {"params": [p for n, p in parts if "lora_" in n], "lr": ADAPTER_RATE,
             "weight_decay": 0.0},
            {"params": [p for n, p in parts if "lora_" not in n], "lr": settings.head_rate,
             "weight_decay": 0.0},
        ],
        steps=settings.steps, batch=BATCH, seed=settings.seed + 1,
    )  # fmt: skip
    adapted.save_pretrained(folder)


def merged(folder: Path, method: str, options: Mapping[str, Any], tried: Sequence[float]) -> Any:
    """The report of the merge whose scaling is best on validation rows, tested."""
    recipe = {
        "base": str(FAMILY / "base"), "method": method, "options": dict(options),
        "experts": [
            {"name": task, "model": str(folder / task), "task": f"sample:{task}"} for task in TASKS
        ],
        "search": {"scaling": list(tried)},
        "evaluate": {"split": "test", "examples": ROWS},
    }  # fmt: skip
    return drain(run_recipe(parse_recipe(recipe))).report


def row(folder: Path, method: str, space: str) -> str:
    options, tried = METHODS[method]
    options = dict(options) if method == "task_arithmetic" else {**options, "space": space}
    report = merged(folder, method.partition(",")[0], options, tried)
    best = max(report.search, key=lambda trial: trial.normalised_accuracy)
    scaling = best.options["scaling"]
    edge = " (edge)" if scaling in (tried[0], tried[-1]) else ""
    return (
        f"| `{method}` | {space} | {scaling:g}{edge} | {100 * best.normalised_accuracy:.1f} % | "
        f"{100 * report.normalised_accuracy:.1f} % | {100 * report.gap_recovered:.0f} % |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the adapters are kept")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    arguments = parser.parse_args()
    for task in TASKS:
        if not (arguments.folder / task / "adapter_config.json").exists():
            begun = time.process_time()
            train(task, arguments.folder / task)
            print(f"{task}: {time.process_time() - begun:.0f} CPU s", flush=True)
    print("| method | space | scaling | validation | test | gap recovered |")
    print("| --- | --- | --- | --- | --- | --- |")
    for method in arguments.methods:
        for space in SPACES if method != "task_arithmetic" else SPACES[:1]:
            print(row(arguments.folder, method, space), flush=True)


if __name__ == "__main__":
    main()
