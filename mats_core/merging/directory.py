"""What lies beside the weights in an output directory: heads, recipe, report and card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..checkpoints import TensorFileWriter, config_files
from . import card
from .plan import Plan
from .recipe import Recipe, dump_recipe, pinned_models
from .report import Report


def finish_directory(plan: Plan, folder: Path, report: Report) -> None:
    """Everything beside the weights: the base's files, the heads, the recipe and the report."""
    family = plan.inputs.family
    if family.base.directory is not None:
        for file in config_files(family.base.directory):
            if not (folder / file.name).exists():
                shutil.copyfile(file, folder / file.name)
    for expert in family.experts:
        names = family.head_of(expert)
        if not names:
            continue
        place = folder / "heads" / expert.name
        place.mkdir(parents=True, exist_ok=True)
        entries = expert.checkpoint.tensors
        specs = {expert.own(name): (entries[name].dtype, entries[name].shape) for name in names}
        writer = TensorFileWriter(place / "head.safetensors", specs)
        for name in names:
            writer.add(expert.own(name), expert.checkpoint.read(name))
        writer.close()
        if expert.checkpoint.directory is not None:
            shutil.copyfile(expert.checkpoint.directory / "config.json", place / "config.json")
    (folder / "recipe.yaml").write_text(dump_recipe(pinned(plan), absolute=True), "utf-8")
    (folder / "report.json").write_text(report.to_json(), "utf-8")
    (folder / card.NAME).write_text(card.card(pinned(plan), report, family), "utf-8")
    if plan.recipe.output_dtype and (folder / "config.json").is_file():
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config.pop("torch_dtype", None)
        config["dtype"] = plan.recipe.output_dtype
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def pinned(plan: Plan) -> Recipe:
    """The recipe with all options resolved and every input's fingerprint."""
    family, recipe = plan.inputs.family, pinned_models(plan.recipe)
    entries = tuple(
        entry.model_copy(update={"fingerprint": expert.checkpoint.fingerprint})
        for entry, expert in zip(recipe.experts, family.experts, strict=True)
    )
    return recipe.model_copy(
        update={
            "experts": entries,
            "base_fingerprint": family.base.fingerprint,
            "options": plan.options.model_dump(),
        }
    )
