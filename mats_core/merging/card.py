"""The model card of an output directory: `README.md`, with the front matter that the hub reads.

Its numbers are the report's, its recipe the one that lies beside it; licences are those that the
inputs state in their own cards (`license:` in the front matter of README.md) or in `config.json`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..checkpoints import InMemory, Weights, stated_licence, stem_of
from ..errors import code_span, markdown, one_line
from ..families import Expert, Family
from ..methods import METHODS
from ..recipes import Recipe, Report, dump_recipe

TEXT = """\
---
{{ front }}---

# {{ method.title }} of {{ listed | cell }}{{ ", trained further" if report.trained }}

{{ experts | length }} expert{{ "s" if experts | length > 1 else "" }} fine-tuned from \
`{{ recipe.base | shown | code }}`, merged into one model.

## Method

**{{ method.title }}** ({{ method.source }}). {{ method.summary }}

$${{ method.formula }}$$

| option | value |
| --- | --- |
{% for name, value in report.options.items() %}
| `{{ name | code }}` | `{{ value | code }}` |
{% endfor %}
{% if experts | map(attribute="weight") | unique | list | length > 1 %}

| expert | weight |
| --- | --- |
{% for expert in experts %}
| {{ expert.name | cell }} | {{ "%g" | format(expert.weight) }} |
{% endfor %}
{% endif %}
{% if report.rounds > 1 %}

Merged in {{ report.rounds }} rounds: after each but the last, the statistics were measured again \
at the merged model, with each expert's head and on its own calibration examples, and the experts \
were merged once more.
{% endif %}
{% if report.by %}

Some layers have their own weights or options:

```yaml
{{ rules }}```
{% endif %}
{% if report.after %}

Steps on the merged update of every layer, in this order: {{ report.steps }}.
{% endif %}
{% if report.refined %}

After the merge: {{ report.refined.sentence }}.
{% endif %}
{% if report.routed %}
{% set routed = report.routed %}

## Routed

{{ routed.layers }} layers have a branch an expert beside the merge, of rank {{ routed.rank }}, \
and {{ chosen[routed.by] }}. Merge and branches are {{ "%.2f" | format(report.size) }} × the \
size of the base{% if report.normalised_accuracy is not none %}, and keep \
{{ report.normalised_accuracy | percent }} % of the experts' accuracy{% endif %}.
{% if routed.rightly %}

| expert | its calibration examples that take its branch, over all routed layers |
| --- | --- |
{% for name, share in routed.rightly.items() %}
| {{ name | cell }} | {{ share | percent }} % |
{% endfor %}
{% endif %}

`model.safetensors` alone is the static merge; `mats_core evaluate` and `mats_core.merge` add the \
branches in `routed/`.
{% endif %}
{% if report.lora %}

## As a LoRA

The merge is {{ report.as_lora }}.
{% if most_lost %}

| the matrices that lose most | rank | lost |
| --- | --- | --- |
{% for name, one in most_lost %}
| `{{ name | cell }}` | {{ one.rank }} | {{ "%.2g" | format(100 * one.lost) }} % |
{% endfor %}
{% endif %}
{% endif %}

Tensors: {{ counted }}. Arithmetic in {{ report.dtype }}, seed {{ report.seed }}.
{% for warning in report.warnings %}

Note: {{ warning | cell }}.
{% endfor %}
{% if report.tasks %}

## Results on the {{ report.split }} split

| task | metric | merged (95 % interval) | expert | pre-trained | examples |
| --- | --- | --- | --- | --- | --- |
{% for task in report.tasks %}
{% set merged, (low, high) = task.merged, task.merged.interval %}
| {{ task.name | cell }} | {{ merged.metric | cell }} | {{ merged.value | percent }} % \
({{ low | percent }} – {{ high | percent }}) | {{ task.finetuned.value | percent }} % \
| {{ task.pretrained.value | percent }} % | {{ merged.examples }} |
{% endfor %}
{% if report.normalised_accuracy is not none %}

{{ "Trained: mean" if report.trained else "Mean" }} of merged / expert \
{{ report.normalised_accuracy | percent }} %
{%- if report.gap_recovered is not none %}
; of the gap from pre-trained to expert {{ report.gap_recovered | percent }} %
{%- endif %}
. Each task is tested with its expert's head, on \
{{ report.tasks | sum(attribute="merged.examples") }} {{ report.split }} examples in all.
{% endif %}
{% endif %}

## Inputs

|  | model | licence | SHA-256 of its tensors |
| --- | --- | --- | --- |
{% for name, (reference, _) in inputs.items() %}
| {{ name | cell }} | `{{ reference | shown | code }}` \
| {{ (licences[name] or "not stated") | cell }} \
| `{{ report.fingerprints.get(name.removesuffix(" (expert)"), "") }}` |
{% endfor %}

## Loading

{% if report.lora %}
{% set class = architectures[0] if architectures else "AutoModel" %}
```python
from peft import PeftModel
from transformers import {{ class }}

base = {{ class }}.from_pretrained("PATH OF THE BASE")
model = PeftModel.from_pretrained(base, "PATH OF THIS FOLDER").merge_and_unload()
```

Heads are never merged: `heads/` has one for each expert.
{% elif not architectures %}
`{{ stem }}.safetensors` (or its shards) has the tensor names of the base.
{% else %}
```python
from transformers import {{ architectures[0] }}

model = {{ architectures[0] }}.from_pretrained("PATH OF THIS FOLDER")
```
{% if headed %}
{% set class, place = (headed.checkpoint.config | classes)[0], "heads/" ~ headed.name %}

Heads are never merged: `heads/` has one for each expert. The merged model with the head of \
{{ headed.name | cell }}:

```python
from glob import glob
from safetensors.torch import load_file
from transformers import AutoConfig, {{ class }}

files = [*glob("*.safetensors"), "{{ place }}/head.safetensors"]
tensors = {name: value for file in files for name, value in load_file(file).items()}
config = AutoConfig.from_pretrained("{{ place }}")
model = {{ class }}.from_pretrained(None, config=config, state_dict=tensors)
```
{% endif %}
{% endif %}

## Repeating it

`python -m mats_core merge recipe.yaml --output again` with the inputs above gives \
{{ "this merge, to rounding" if report.earlier else "the same bytes on the same machine" }}; \
`recipe.yaml` and `report.json` lie beside this card.

{{ fence }}yaml
{{ repeated }}{{ fence }}
"""

NAME = re.compile("[A-Za-z][A-Za-z0-9_]{0,99}")
CHOSEN = {
    "prototypes": "each layer's input chooses the expert whose mean input it is most like",
    "first_pass": "the input chooses the expert in a first pass, for all layers alike",
    "discriminant": "the input chooses the expert, by a linear discriminant of the experts' inputs",
    "updates": "the input chooses the expert whose update answers it most",
    "smile": "each token chooses the updates that answer it most",
}
# Base and experts: (what the recipe calls it, files), or the folder of the merge that it was in.
Inputs = Mapping[str, tuple[str, Weights | Path]]


def card(recipe: Recipe, report: Report, family: Family, before: Path | None = None) -> str:
    """Front matter and text; `recipe` with all options resolved and every fingerprint.

    `before`: the folder of the merge that experts were added to, whose experts come first.
    """
    from jinja2 import Environment, StrictUndefined

    inputs = _inputs(recipe, family, before)
    licences = {name: licence(checkpoint) for name, (_, checkpoint) in inputs.items()}
    front = _front(recipe, inputs, licences)
    repeated = dump_recipe(recipe.model_copy(update={"output": None}))
    *names, last = [entry.name for entry in recipe.experts]
    page = Environment(
        trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined, autoescape=False
    )
    page.filters |= {
        "shown": _shown,
        "cell": _cell,
        "code": lambda value: code_span(str(value)),
        "classes": class_names,
        "percent": lambda share: f"{100 * share:.1f}",
    }
    return page.from_string(TEXT).render(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000),
        recipe=recipe,
        report=report,
        chosen=CHOSEN,
        rules=yaml.safe_dump(list(report.by), sort_keys=False, allow_unicode=True),
        experts=recipe.experts,
        listed=f"{', '.join(names)} and {last}" if names else last,
        method=METHODS[recipe.method],
        most_lost=_most_lost(report),
        counted=", ".join(f"{count} {kind}" for kind, count in report.coverage.items() if count),
        inputs=inputs,
        stem=stem_of(family.base),
        licences=licences,
        architectures=class_names(family.base.config),
        headed=next((e for e in family.experts if _plain_head(family, e)), None),
        repeated=repeated,
        fence=max(["``", *re.findall("`+", repeated)], key=len) + "`",
    )


def _most_lost(report: Report) -> list[tuple[str, Mapping[str, Any]]]:
    """The five matrices of which a LoRA loses most, if it is more than rounding."""
    layers = report.lora.get("layers", {}).items()
    lossy = [(name, one) for name, one in layers if one["lost"] > 1e-9]
    return sorted(lossy, key=lambda pair: -pair[1]["lost"])[:5]


def _inputs(recipe: Recipe, family: Family, before: Path | None) -> Inputs:
    found: dict[str, tuple[str, Weights | Path]] = {"base": (recipe.base, family.base)}
    opened = {expert.name: expert.checkpoint for expert in family.experts}
    for entry in recipe.experts:
        name = entry.name if entry.name != "base" else "base (expert)"
        weights = opened.get(entry.name, before)
        assert weights is not None
        found[name] = (entry.model, weights)
    return found


def licence(checkpoint: Weights | Path) -> str:
    """The licence that a checkpoint's own directory states, or an empty text."""
    if isinstance(checkpoint, Path):
        return stated_licence(checkpoint, {})
    if isinstance(checkpoint, InMemory):  # beside which nothing lies
        return stated_licence(None, checkpoint.config)
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    return stated_licence(folder, checkpoint.config)


def _front(recipe: Recipe, inputs: Inputs, licences: Mapping[str, str]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "base_model": list(dict.fromkeys(_shown(reference) for reference, _ in inputs.values())),
        "base_model_relation": "merge",
        "tags": ["merge", "mats-explorer", recipe.method.replace("_", "-")],
    }
    base = inputs["base"][1]
    if not isinstance(base, Path) and base.config.get("model_type"):
        content["library_name"] = "peft" if recipe.lora else "transformers"
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
    hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", repository)
    return repository if hub_id else one_line(Path(reference).name)


def _cell(value: Any) -> str:
    """A value in a line or a table of Markdown, as text and nothing else."""
    return markdown(str(value))


def _plain_head(family: Family, expert: Expert) -> bool:
    """Whether the expert's own class loads the merged tensors and its head by their names."""
    same = all(expert.own(name) == name for name in expert.checkpoint.tensors)
    return bool(family.head_of(expert)) and same and bool(class_names(expert.checkpoint.config))


def class_names(config: Mapping[str, Any]) -> list[str]:
    """The classes that a configuration names, where all are names that Python takes: the card has
    them in code that its readers run."""
    said = config.get("architectures")
    named = said if isinstance(said, list) else []
    return named if all(isinstance(one, str) and NAME.fullmatch(one) for one in named) else []
