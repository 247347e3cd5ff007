"""The sentences of an advice, each computed from the family and from the study's rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import duration, listing, size
from ..methods import METHODS, describe
from ..tasks import SplitName
from .evidence import MEASURED, Choice, Evidence, of_number
from .merge_cost import Estimate
from .situation import Situation

FAMILIES = {
    "text": "texts (MiniLM)",
    "vision": "images (small ViT)",
    "sample": "the sample family",
}
LANGUAGE = "a language model's texts"
INPUTS = {"image": "images", "text": "texts"} | dict.fromkeys(
    ("causal", "seq2seq", "language"), LANGUAGE
)
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
# Options that say which way is taken; all others say how strongly.
WAYS = ("inputs", "curvature", "gram", "examples", "residual")
WITH_PILE = "With one unsorted pile of inputs of all tasks (no names, no labels)"
WITH_LABELS = "With the labels of these examples"
LARGER = "If the output may be larger than a checkpoint of the base"
ALONE = "There is one expert: a merge of it alone is that expert, by whichever method."
VECTORS = (
    "The experts are (IA)³ adapters, whose vectors are merged in the place of matrices: the study "
    "has no row of these. With labels each vector has its full Fisher block."
)


def way(row: Evidence) -> tuple[Any, ...]:
    """What ways of merging have in common that differ in the strength of something."""
    taken = tuple(row.options.get(name) for name in WAYS)
    return (row.method, row.rounds, *taken, row.routed.get("by"), row.routed.get("rank"))


def number(count: int) -> str:
    """A small number in letters."""
    return COUNTS[count] if count < len(COUNTS) else f"{count:,}"


def apart(known: Situation) -> str:
    """Why strangers are not merged."""
    said = ", ".join(f"'{name}' (cosine {known.cosines[name]:.3f})" for name in known.apart)
    return (
        f"Stop: {said} and the base have nothing in common, so a merge of their weights is noise. "
        "Name the base that they were fine-tuned from, or leave them out."
    )


def there(known: Situation) -> str:
    """What the family is."""
    experts = f"{number(known.experts).capitalize()} expert{'s' if known.experts != 1 else ''}"
    form = "trained in full" if known.form == "full" else f"as adapters ({known.form})"
    reads = f", on {INPUTS.get(known.kind, known.kind)}" if known.kind else ""
    near = "" if known.nearest is None else f", cosine with the base {known.nearest:.3f} or more"
    return f"{experts}, {form}{reads}{near}; {_data(known)}."


def _data(known: Situation) -> str:
    if known.untold:
        names = "no expert names" if len(known.untold) == known.experts else (
            f"{listing(known.untold, 3)} name{'s' if len(known.untold) == 1 else ''}"
        )  # fmt: skip
        none = "a task" if len(known.untold) == known.experts else "no task"
        measured = ", and statistics of all are there" if known.needs.measured else ""
        return f"{names} {none}, so there are no inputs of their own{measured}"
    if not known.needs.examples:
        return "no examples are to be used"
    labels = "with labels" if known.needs.labels else "whose labels are not used"
    return f"{known.needs.examples:,} examples a task at least, {labels}"


def split(rows: Sequence[Evidence]) -> SplitName:
    """The examples that figures of these rows are of: the test halves, where all were run there."""
    return "test" if all(row.test for row in rows) else "validation"


def kept(rows: Sequence[Evidence]) -> str:
    """What rows kept of the experts' accuracy, a family after the other, on the same split."""
    order, held = list(FAMILIES), split(rows)
    said = sorted(rows, key=lambda row: order.index(row.family) if row.family in order else 9)
    return " and ".join(
        f"{score.normalised:.1f} ± {score.half_width:.1f} % ({score.gap:.0f} % of the gap) on "
        f"{FAMILIES.get(row.family, row.family)}"
        for row in said
        if (score := row.on(held))
    )


def reasons(
    known: Situation,
    first: Choice,
    rows: Sequence[Evidence],
    cost: Estimate | None,
    *,
    timed: bool,
) -> tuple[str, ...]:
    """Why the first is proposed: what is there, what it kept, and what that cannot say."""
    held = {"test": "the test halves", "validation": "validation examples"}[split(first.rows)]
    best = (
        f"Of what these data allow, {named(first.rows[0])} stayed least behind the best in the "
        f"study: of the accuracy of {number(MEASURED)} experts it kept {kept(first.rows)}, "
        f"by {held}."
    )
    said = [there(known), best, _cost(first, cost, timed=timed)]
    if not any(row.kind == known.kind for row in first.rows):
        said.append(
            "No family of the study is of this kind: the choice is by all of its families, and may "
            "not hold here."
        )
    if known.form != "full":
        said.append("The study's experts were trained in full: it has no row of adapters.")
    return (*said, *_by_number(known, first, rows))


def named(row: Evidence) -> str:
    """A way of merging, in words."""
    title = METHODS[row.method].title
    parts = {
        ("sequential", "own"): f"on {row.examples:,} inputs a task",
        ("sequential", "pool"): "on a pool of no task",
        ("sequential", "pile"): "on an unsorted pile",
    }
    said = [parts.get((row.method, row.data), "")]
    if row.options.get("gram") == "update":
        said.append("from the weights alone")
    if row.options.get("curvature") == "answers":
        said.append("with how the answers turn")
    if row.options.get("curvature") == "measured":
        said.append("with measured curvature")
    if row.options.get("curvature") == "identity":
        said.append("without curvature")
    if row.rounds > 1:
        said.append(f"in {row.rounds} rounds")
    if row.routed:
        said.append(f"with branches of rank {row.routed['rank']}")
    return " ".join([title, *filter(None, said)])


def _cost(first: Choice, cost: Estimate | None, *, timed: bool) -> str:
    there = f"It took {duration(first.cpu)} of one processor there"
    if cost is None:
        return (
            f"{there}. What it takes here is known once statistics are measured "
            "(`python -m mats_core measure`)."
        )
    time = f"{duration(cost.seconds)} and " if timed else ""
    return f"{there}; here it takes about {time}{size(cost.memory_bytes)} of memory."


def _by_number(known: Situation, first: Choice, rows: Sequence[Evidence]) -> tuple[str, ...]:
    """What the study does not know of merges of so many experts."""
    count = known.experts
    if count == MEASURED:
        return ()
    alike = of_number(rows, count, known.kind)
    if not alike:
        return (
            f"The study has no row of {number(count)} experts: its figures are of "
            f"{number(MEASURED)}.",
        )
    said = [
        f"on {FAMILIES.get(family, family)}: "
        + ", ".join(
            f"{named(row)} {row.kept.normalised:.1f}" for row in alike if row.family == family
        )
        for family in dict.fromkeys(row.family for row in alike)
    ]
    tried = any(row.recipe == first.recipe for row in alike)
    return (
        f"Of {number(count)} experts the study has, in percent, {'; '.join(said)}."
        + ("" if tried else f" {named(first.rows[0])} was not among these."),
    )


def behind(choice: Choice, first: Choice) -> str:
    """Why a choice comes after the first."""
    points = choice.lost - first.lost
    width = max(row.kept.half_width for row in choice.rows)
    how = (
        "as good on validation examples, and slower" if round(points, 1) <= 0
        else f"{points:.1f} points behind on validation examples"
    )  # fmt: skip
    if 0 < round(points, 1) < width:
        how += f", which is within the interval of ± {width:.1f}"
    if choice.rows[0].routed:
        how += f"; {choice.rows[0].size:.1f} × the base's size"
    if choice.rows[0].data == "none":
        how += "; reads nothing but weights"
    ratio = choice.cpu / first.cpu if first.cpu else 1.0
    if ratio < 0.67:
        how += f"; {100 * ratio:.0f} % of the time"
    held = {"test": "", "validation": " of validation examples"}[split(choice.rows)]
    return f"{how[0].upper()}{how[1:]}. It kept {kept(choice.rows)}{held}."


def with_examples(count: int) -> str:
    """What so many examples are called."""
    return f"With {number(count)} unlabelled examples a task"


def further(said: str, choice: Choice) -> str:
    """What further data would make possible."""
    sizes = [row.size for row in choice.rows]
    larger = f", at {max(sizes):.1f} × the size" if max(sizes) > 1 else ""
    return f"{said}: {named(choice.rows[0])}, which kept {kept(choice.rows)}{larger}."


def too_large(dropped: Iterable[Choice]) -> str:
    """What does not fit into memory."""
    names = listing((named(choice.rows[0]) for choice in dropped), 3)
    return f"Passed over, as the memory is not there for it: {names}."


def notes(known: Situation) -> tuple[str, ...]:
    """What else to know before the merge."""
    found = []
    if known.barrier:
        found.append(f"Sequential calibration is not possible: {known.barrier}.")
    if known.doubtful:
        said = ", ".join(f"'{name}' ({known.cosines[name]:.2f})" for name in known.doubtful)
        found.append(
            f"Little in common with the base: {said}. Were these fine-tuned from another one?"
        )
    if known.strangers and known.apart:
        found.append(
            f"{listing(known.apart)} and the base have nothing in common; expect little of a merge."
        )
    for module, times in known.rewritten.items():
        found.append(
            f"Every expert wrote '{module}' anew ({times:.0f} times further from the base than its "
            "blocks): it belongs to the heads. To keep it apart, name it and the heads under "
            f'`heads`: ["{module}.*", …].'
        )
    few = [
        f"{method.title} {field.default:g}"
        for method in METHODS.values()
        for field in describe(method.name, known.experts)
        if known.experts in dict(field.by_experts)
    ]
    if few:
        found.append(
            f"For {number(known.experts)} experts some methods have another scaling by default "
            f"than for eight, as the sample family wants it: {', '.join(few)}."
        )
    return tuple(found)
