"""The model card of an output directory: `README.md`, with the front matter that the hub reads.

Its numbers are the report's, its recipe the one that lies beside it; licences are those that the
inputs state in their own cards (`license:` in the front matter of README.md) or in `config.json`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..checkpoints import InMemory, Weights
from ..families import Expert, Family
from ..methods import METHODS
from .recipe import Recipe, dump_recipe
from .report import Report

NAME = "README.md"
FRONT = re.compile(r"\A\ufeff?---\r?\n(.*?)\r?\n---\s*$", re.S | re.M)
LIMIT = 1_000_000  # bytes of another model's card that are looked at
NOT_STATED = "not stated"


def card(recipe: Recipe, report: Report, family: Family) -> str:
    """Front matter and text; `recipe` with all options resolved and every fingerprint."""
    inputs = _inputs(recipe, family)
    licences = {name: licence(checkpoint) for name, (_, checkpoint) in inputs.items()}
    front = yaml.safe_dump(
        _front(recipe, inputs, licences), sort_keys=False, allow_unicode=True, width=1000
    )
    parts = [
        f"---\n{front}---",
        _title(recipe),
        _method(recipe, report),
        _results(report),
        _origins(inputs, licences, report),
        _loading(family),
        _repeating(recipe, report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


Inputs = Mapping[str, tuple[str, Weights]]  # base and experts: (what the recipe calls it, files)


def _inputs(recipe: Recipe, family: Family) -> Inputs:
    found = {"base": (recipe.base, family.base)}
    for entry, expert in zip(recipe.experts, family.experts, strict=True):
        name = entry.name if entry.name != "base" else "base (expert)"
        found[name] = (entry.model, expert.checkpoint)
    return found


def licence(checkpoint: Weights) -> str:
    """The licence that a checkpoint's own directory states, or an empty text."""
    stated = checkpoint.config.get("license")
    if not isinstance(checkpoint, InMemory):  # beside which nothing lies
        folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
        stated = front_matter(folder / NAME).get("license") or stated
    if isinstance(stated, list):
        stated = ", ".join(str(one) for one in stated)
    return str(stated).strip() if stated else ""


def front_matter(file: Path) -> dict[str, Any]:
    """The YAML at the head of a model card; empty where there is none that can be read."""
    try:
        with file.open("rb") as handle:
            text = handle.read(LIMIT).decode("utf-8", "replace")
        found = FRONT.match(text)
        content = yaml.safe_load(found[1]) if found else None
    except (OSError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _front(recipe: Recipe, inputs: Inputs, licences: Mapping[str, str]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "base_model": list(dict.fromkeys(_shown(reference) for reference, _ in inputs.values())),
        "base_model_relation": "merge",
        "tags": ["merge", "mats-explorer", recipe.method.replace("_", "-")],
    }
    if inputs["base"][1].config.get("model_type"):
        content["library_name"] = "transformers"
    stated = sorted({one for one in licences.values() if one})
    if len(stated) == 1:
        content["license"] = stated[0]
    elif stated:
        content["license"] = "other"
        content["license_name"] = "those-of-the-inputs"
    return content


def _shown(reference: str) -> str:
    """A hub id without its revision; of a path its last part, for the rest is nobody's business."""
    repository = reference.partition("@")[0]
    return repository if re.fullmatch(r"[\w.-]+/[\w.-]+", repository) else Path(reference).name


def _title(recipe: Recipe) -> str:
    names = [entry.name for entry in recipe.experts]
    listed = ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]
    return (
        f"# {METHODS[recipe.method].title} of {listed}\n\n"
        f"{len(names)} expert{'s' * (len(names) > 1)} fine-tuned from "
        f"`{_shown(recipe.base)}`, merged into one model."
    )


def _method(recipe: Recipe, report: Report) -> str:
    method = METHODS[recipe.method]
    weights = {entry.name: entry.weight for entry in recipe.experts}
    lines = [
        "## Method",
        "",
        f"**{method.title}** ({method.source}). {method.summary}",
        "",
        f"$${method.formula}$$",
        "",
        *_table(["option", "value"], [(f"`{k}`", f"`{v}`") for k, v in report.options.items()]),
    ]
    if len(set(weights.values())) > 1:
        lines += ["", *_table(["expert", "weight"], [(n, f"{w:g}") for n, w in weights.items()])]
    if report.rounds > 1:
        lines += [
            "",
            f"Merged in {report.rounds} rounds: after each but the last, the statistics were "
            "measured again at the merged model, with each expert's head and on its own "
            "calibration examples, and the experts were merged once more.",
        ]
    counted = ", ".join(f"{count} {kind}" for kind, count in report.coverage.items() if count)
    lines += ["", f"Tensors: {counted}. Arithmetic in {report.dtype}, seed {report.seed}."]
    return "\n".join(line for line in lines)


def _results(report: Report) -> str:
    if not report.tasks:
        return ""
    rows = []
    for result in report.tasks:
        low, high = result.merged.interval
        rows.append(
            (
                result.name,
                result.merged.metric,
                f"{100 * result.merged.value:.1f} % ({100 * low:.1f} – {100 * high:.1f})",
                f"{100 * result.finetuned.value:.1f} %",
                f"{100 * result.pretrained.value:.1f} %",
                f"{result.merged.examples}",
            )
        )
    heads = ["task", "metric", "merged (95 % interval)", "expert", "pre-trained", "examples"]
    lines = [f"## Results on the {report.split} split", "", *_table(heads, rows)]
    if report.normalised_accuracy is not None:
        summary = f"Mean of merged / expert {100 * report.normalised_accuracy:.1f} %"
        if report.gap_recovered is not None:
            summary += f"; of the gap from pre-trained to expert {100 * report.gap_recovered:.1f} %"
        lines += ["", f"{summary}. Each task is tested with its expert's head."]
    return "\n".join(lines)


def _origins(inputs: Inputs, licences: Mapping[str, str], report: Report) -> str:
    rows = [
        (
            name,
            f"`{_shown(reference)}`",
            licences[name] or NOT_STATED,
            f"`{report.fingerprints.get(name.removesuffix(' (expert)'), '')}`",
        )
        for name, (reference, _) in inputs.items()
    ]
    heads = ["", "model", "licence", "SHA-256 of its tensors"]
    return "\n".join(["## Inputs", "", *_table(heads, rows)])


def _loading(family: Family) -> str:
    named = family.base.config.get("architectures") or []
    lines = ["## Loading"]
    if not named:
        lines += ["", "`model.safetensors` (or its shards) has the tensor names of the base."]
        return "\n".join(lines)
    lines += [
        "",
        "```python",
        f"from transformers import {named[0]}",
        "",
        f'model = {named[0]}.from_pretrained("PATH OF THIS FOLDER")',
        "```",
    ]
    headed = [expert for expert in family.experts if _plain_head(family, expert)]
    if headed:
        lines += ["", *_head(headed[0])]
    return "\n".join(lines)


def _plain_head(family: Family, expert: Expert) -> bool:
    """Whether the expert's own class loads the merged tensors and its head by their names."""
    same = all(expert.own(name) == name for name in expert.checkpoint.tensors)
    architectures = expert.checkpoint.config.get("architectures")
    return bool(family.head_of(expert)) and same and bool(architectures)


def _head(expert: Expert) -> Sequence[str]:
    named = expert.checkpoint.config["architectures"][0]
    place = f"heads/{expert.name}"
    return (
        "Heads are never merged: `heads/` has one for each expert. The merged model with the head "
        f"of {expert.name}:",
        "",
        "```python",
        "from glob import glob",
        "from safetensors.torch import load_file",
        f"from transformers import AutoConfig, {named}",
        "",
        f'files = [*glob("*.safetensors"), "{place}/head.safetensors"]',
        "tensors = {name: value for file in files for name, value in load_file(file).items()}",
        f'config = AutoConfig.from_pretrained("{place}")',
        f"model = {named}.from_pretrained(None, config=config, state_dict=tensors)",
        "```",
    )


def _repeating(recipe: Recipe, report: Report) -> str:
    text = dump_recipe(recipe.model_copy(update={"output": None}))
    return (
        "## Repeating it\n\n"
        "`python -m mats_core merge recipe.yaml --output again` with the inputs above gives the "
        "same bytes on the same machine; `recipe.yaml` and `report.json` lie beside this card.\n\n"
        f"```yaml\n{text}```"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [
        f"| {' | '.join(heads)} |",
        f"| {' | '.join('---' for _ in heads)} |",
        *(f"| {' | '.join(row)} |" for row in cells),
    ]
