"""`docs/peers.md` from what was measured: plain values in, markdown out."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

KINDS = ("embeddings", "attention", "MLP", "norms", "head")

NOT_MEASURED = """\
## What was not measured

- GPUs, more than one thread, models that do not fit into memory, hub downloads, tokenizer merges:
  one thread of a CPU, local files in the page cache.
- mergekit's other methods; TIES over the whole model, which it does not have; our DARE, which is
  another one (`docs/export.md`).
- Whether a merged model is any good: the weights are drawn, not trained.
- FusionBench from the outside: its functions are called on a BERT of two layers, not its command
  line on CLIP."""


def page(results: Mapping[str, Any]) -> str:
    """The whole page."""
    parts = [
        "# Other tools beside this one",
        "Written by `python -m benchmarks.peers`; how to make the peers' environments stands in "
        "`benchmarks/peers/__init__.py`.",
        _machine(results["machine"]),
        _mergekit(results),
        _fusion(results.get("fusion"), results.get("costs") or {}),
        NOT_MEASURED,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine(machine: Mapping[str, Any]) -> str:
    versions = "; ".join(
        f"{side}: " + ", ".join(f"{name} {number}" for name, number in found.items())
        for side, found in machine["versions"].items()
    )
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} thread a process. "
        f"{versions}."
    )


# mergekit -----------------------------------------------------------------------------------------


def _mergekit(results: Mapping[str, Any]) -> str:
    cases = list(results.get("cases", {}).values())
    if not cases:
        return "## mergekit\n\nNot run: no interpreter with mergekit was given."
    loads = [load for case in cases for load in case["load"]]
    repeats = len(cases[0]["ours"])
    lines = [
        "## mergekit",
        "",
        f"mergekit runs the YAML that *Export* gives. {results['machine']['checkpoints']} All of "
        f"its {2 * repeats * len(cases)} runs and ours ended with exit code 0. Each side is a "
        f"process of its own; the two take turns; medians of {repeats}. Load average "
        f"{min(loads):.0f} to {max(loads):.0f} on {results['machine']['cores']} cores: on a busy "
        "machine CPU seconds (user and system) say more than seconds on the wall.",
        "",
        *_times(cases),
        "",
        _notes(results.get("imports", {})),
        "",
        *_apart(cases),
    ]
    return "\n".join(lines)


def _times(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| merge | CPU s, ours | mergekit | ratio | wall s, ours | mergekit | ratio "
        "| peak MB, ours | mergekit | anonymous MB, ours | mergekit | ratio |",
        "| --- |" + " --- |" * 11,
    ]
    for case in cases:
        cells = [_title(case)]
        for what, scale, digits, ratio in (
            ("cpu", 1, 1, True), ("seconds", 1, 1, True), ("peak", 1e6, 0, False),
            ("anonymous", 1e6, 0, True),
        ):  # fmt: skip
            ours, theirs = (_median(case[side], what) / scale for side in ("ours", "theirs"))
            cells += [f"{ours:.{digits}f}", f"{theirs:.{digits}f}"]
            cells += [f"**{theirs / ours:.1f}×**"] if ratio and ours else []
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _title(case: Mapping[str, Any]) -> str:
    return f"{case['title']}, {case['experts']} experts, {case['dtype']}"


def _median(runs: Sequence[Mapping[str, float]], what: str) -> float:
    return statistics.median(run[what] for run in runs)


def _notes(imports: Mapping[str, Mapping[str, float]]) -> str:
    text = (
        "A ratio is mergekit's number over ours. *Peak* is the largest resident set as the kernel "
        "counts it; mergekit maps its input files, and their pages count there although the kernel "
        "may take them back, so *anonymous* memory stands beside it, which it may not. Ours "
        "includes fingerprints (a hash of every input) and a check of every number; neither is "
        "part of mergekit's work."
    )
    if imports:
        text += " Of these, nothing but starting up and importing takes " + "; ".join(
            f"{side}: {own['cpu']:.1f} CPU s, {own['anonymous'] / 1e6:.0f} MB anonymous"
            for side, own in imports.items()
        )
        text += "."
    return text


def _apart(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "How far the tensors are apart: the largest |difference| of any number, and the largest "
        "‖difference‖ / ‖tensor‖ of any tensor. *Others*: numbers that differ by more than 1e-5 of "
        "their tensor's largest; in bfloat16 a neighbouring number is 4e-3 away.",
        "",
        "| merge | " + " | ".join(KINDS) + " | others |",
        "| --- |" + " --- |" * (len(KINDS) + 1),
    ]
    for case in cases:
        found = {one["kind"]: one for one in case["differences"]}
        cells = [f"{found[kind]['largest']:.0e} · {found[kind]['relative']:.0e}" for kind in KINDS]
        off = sum(one["off"] for one in found.values())
        total = sum(one["entries"] for one in found.values())
        lines.append(f"| {_title(case)} | {' | '.join(cells)} | {off:,} of {total:,} |")
    return lines


# FusionBench --------------------------------------------------------------------------------------


def _fusion(found: Mapping[str, Any] | None, costs: Mapping[str, Any]) -> str:
    if not found:
        return "## FusionBench\n\nNot run: no interpreter with FusionBench was given."
    if "failed" in found:
        return f"## FusionBench\n\nNot run: {found['failed']}"
    return "\n".join(
        [
            "## FusionBench: Fisher merging and RegMean",
            "",
            "A BERT of two layers with three classes, 32 wide, three experts with "
            f"{found['examples']} examples each, 3 to 16 tokens padded to 16. First both sides "
            "merge from *our* statistics; then each from its own. Differences are ‖a − b‖ / ‖a‖ "
            "over all tensors together.",
            "",
            "| the same statistics | difference |",
            "| --- | --- |",
            *(f"| {what} | {_number(found[key])} |" for what, key in SAME),
            "",
            "| what is measured, and what follows | number |",
            "| --- | --- |",
            *(f"| {what} | {_number(value)} |" for what, value in _own(found)),
            "",
            *_batches(found["certainty"]),
            "",
            *_costs(costs),
        ]
    )


SAME = (
    ("Fisher: no floor, no minimum, no normalisation", "fisher_same"),
    ("Fisher: its minimum of 1e-6 added, ours without a floor", "fisher_minimal"),
    ("Fisher: both sides' defaults", "fisher_defaults"),
    ("RegMean: no damping, both in float64", "regmean_same"),
    ("RegMean: off-diagonals times 0.9, both in float64", "regmean_off_diagonal"),
    ("RegMean: its inverse in float32 against float64", "regmean_single"),
    ("RegMean: ours in float32 (Cholesky in float64) against float64", "regmean_single_ours"),
    ("RegMean: both sides' defaults", "regmean_defaults"),
)


def _own(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        ("Our Fisher in batches of 1 against batches of 16", found["fisher_ours_by_batch"]),
        ("Its merged model, batches of 1 against batches of 16", found["fisher_merge_by_batch"]),
        ("Share of tokens that are not padding", found["real_tokens"]),
        ("Its input Grams against ours, padded examples", found["gram_padded"]),
        ("Its input Grams against ours, nothing padded", found["gram_unpadded"]),
        ("RegMean without damping from its Grams against ours", found["regmean_padded"]),
        (
            "Singular Grams (one example a task): its merge, distance from the average",
            found["singular_theirs"],
        ),
        ("The same, our default damping", found["singular_ours"]),
        ("For comparison: the experts' own distance from their average", found["experts_apart"]),
    ]


def _batches(certainty: Sequence[Mapping[str, Any]]) -> list[str]:
    sizes = list(certainty[0]["mass"])
    lines = [
        "Its Fisher is the square of a gradient that is summed over the classes (by √p) and over "
        "the batch; the definition sums squares, Σ p (∂ log p)² for each example. Sum of all "
        "entries as a share of the definition's, and the cosine between the two:",
        "",
        "| mean top probability | " + " | ".join(f"batches of {size}" for size in sizes) + " |",
        "| --- |" + " --- |" * len(sizes),
    ]
    for one in certainty:
        cells = [f"{100 * one['mass'][s]:.1f} %, {one['pattern'][s]:.2f}" for s in sizes]
        lines.append(f"| {one['top']:.2f} | {' | '.join(cells)} |")
    return lines


def _costs(costs: Mapping[str, Any]) -> list[str]:
    if not costs:
        return []
    lines = [
        "Merging 12 matrices of 768×768 from given statistics, medians of runs in processes of "
        "their own, one thread; memory is what is added to the peak by the call:",
        "",
        "| method | CPU s, ours | FusionBench | ratio | MB, ours | FusionBench |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for method, sides in costs.items():
        seconds, peak = (
            [_median(sides[side], what) for side in ("ours", "theirs")]
            for what in ("seconds", "peak")
        )
        lines.append(
            f"| {method} | {seconds[0]:.2f} | {seconds[1]:.2f} | {seconds[1] / seconds[0]:.1f}× "
            f"| {peak[0] / 1e6:.0f} | {peak[1] / 1e6:.0f} |"
        )
    return lines


def _number(value: Any) -> str:
    return str(value) if isinstance(value, str) else f"{value:.2g}"
