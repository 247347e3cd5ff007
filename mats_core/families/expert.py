"""An expert beside its base: the one translation between their tensors' names.

A base model and the same model with a head differ by a prefix: `BertModel` saves
`encoder.layer.0…`, `BertForSequenceClassification` saves `bert.encoder.layer.0…`.  transformers
calls it `base_model_prefix`; here it is read off the names, so that it needs no list of
architectures.  Everything works with the BASE's names; an expert with other names is read through a
`Renamed` view of its checkpoint, and `Expert.own` gives the name in its file back.

The rule: a prefix is stripped from the expert's names, or put before them, if that makes more
tensors match the base (name and shape) than the names as they are, and at least half of the
smaller checkpoint.  It must be the only prefix that does so.  `LayerNorm.gamma` and `.beta` of old
files count as `.weight` and `.bias`.  Where blocks are left over on both sides, `renaming.py` looks
for the names of another version.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..checkpoints import Renamed, Weights
from ..errors import InputError
from ..names import module_of, moved, prefixes
from .anatomy import Ask, unknown
from .renaming import by_prefixes, by_table, left_over

LEGACY = re.compile(r"LayerNorm\.(gamma|beta)$")


@dataclass(frozen=True)
class Expert:
    """One fine-tuned checkpoint.

    name         of the expert in its recipe
    checkpoint   its tensors, under the base's names
    task         reference of its task; empty where the recipe names none
    """

    name: str
    checkpoint: Weights
    task: str = ""

    @property
    def can_be_asked(self) -> bool:
        """Whether it names a task and lies in a directory of which a model is built."""
        return bool(self.task) and self.checkpoint.directory is not None

    def own(self, name: str) -> str:
        """The name that a tensor has in the files and the configuration of this expert."""
        return self.checkpoint.own(name)


def aligned(base: Weights, experts: Sequence[Expert], ask: Ask = unknown) -> tuple[Expert, ...]:
    """The experts under the base's names; those that have them already are returned as they are.

    `ask` is asked for the names that classes have today where a file has other ones in its blocks.
    Raises `InputError` where two prefixes fit equally well.
    """
    return tuple(_aligned(base, expert, ask) for expert in experts)


def _aligned(base: Weights, expert: Expert, ask: Ask) -> Expert:
    checkpoint = expert.checkpoint
    ours = {name: entry.shape for name, entry in base.tensors.items()}
    theirs = {name: entry.shape for name, entry in checkpoint.tensors.items()}
    thing = f"expert '{expert.name}' ('{checkpoint.path}')"
    names = translation(ours, theirs, thing)
    if all(left_over(ours, names)):
        names = _renamed(base, checkpoint, names, ask, thing)
    if all(name == own for own, name in names.items()):
        return expert
    view = Renamed.of(checkpoint, {name: own for own, name in names.items()})
    return replace(expert, checkpoint=view)


def _renamed(
    base: Weights, own: Weights, names: dict[str, str], ask: Ask, thing: str
) -> dict[str, str]:
    """A translation that brings more of the blocks' tensors to the base's; `names` without one."""
    ours = {name: entry.shape for name, entry in base.tensors.items()}
    theirs = {name: entry.shape for name, entry in own.tensors.items()}
    of_base, of_own = ask(base), ask(own)
    known = of_base or of_own
    if known is not None:
        first, second = (of_base or known).renamed, (of_own or known).renamed
        better = _with(by_table(ours, theirs, first, second), names)
        if better and not all(left_over(ours, better)):
            return better
    better = _with(by_prefixes(ours, theirs, thing), names)
    lost, still = (len(left_over(ours, one)[1]) for one in (names, better or names))
    return better if better and still < lost else names


def _with(found: dict[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """What was found, and the names as they were of all others; empty where two would collide."""
    whole = {name: found.get(name, ours) for name, ours in names.items()}
    return whole if found and len(set(whole.values())) == len(whole) else {}


Shapes = Mapping[str, tuple[int, ...]]


def translation(base: Shapes, own: Shapes, thing: str = "expert") -> dict[str, str]:
    """The base's name of each of an expert's tensors; tensors that the base lacks keep theirs.

    Raises `InputError` where two prefixes fit equally well.
    """
    by_modern = {_modern(name): name for name in base}
    strip, add = _prefix({_modern(n): s for n, s in base.items()}, own, thing)
    found: dict[str, str] = {}
    for name in own:
        ours = moved(name, strip, add)
        # What the base has no tensor for (a head) keeps its name, less the prefix.
        found[name] = by_modern.get(_modern(ours), ours if strip else name)
    twice = {name for name, count in Counter(found.values()).items() if count > 1}
    settled = {name: name if ours in twice else ours for name, ours in found.items()}
    # A tensor must never hide another one: then the names stay as they are, and are refused.
    return settled if len(set(settled.values())) == len(own) else {name: name for name in own}


def _prefix(base: Shapes, own: Shapes, thing: str) -> tuple[str, str]:
    """(stripped, added): one of them empty; both, where the names need no change."""
    modern = {_modern(name): shape for name, shape in own.items()}
    # Every candidate is scored by what it makes of the shared tensors, names and shapes alike.
    scores = {
        (strip, add): sum(base.get(moved(n, strip, add)) == shape for n, shape in modern.items())
        for strip, add in prefixes(modern, base)
    }
    enough = max(
        sum(base.get(name) == shape for name, shape in modern.items()) + 1,
        (min(len(base), len(own)) + 1) // 2,
    )
    best = max(scores.values(), default=0)
    if best < enough:
        return "", ""
    first, *others = sorted(pair for pair, score in scores.items() if score == best)
    if others:
        shown = " and ".join(f"'{strip or add}'" for strip, add in (first, *others[:1]))
        raise InputError(
            thing,
            expected="names that match the base's by one prefix",
            found=f"two prefixes that match equally well, {shown}",
            remedy="Save it with the same class of model as the base.",
        )
    return first


def _modern(name: str) -> str:
    """`LayerNorm.gamma` → `LayerNorm.weight`, as transformers itself does on loading."""
    if not LEGACY.search(name):
        return name
    return f"{module_of(name)}.{'weight' if name.endswith('gamma') else 'bias'}"
