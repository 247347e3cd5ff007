"""What a table asks of a language model: a question with answers, or a text that should follow.

Answers stand in several columns (`option_a`, `ending0`, `A`), in one column of lists, or are the
classes of a column of labels; the right one is told by its number, its letter or its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import answers
from .classes import text_of
from .column_names import (
    BEGINNINGS,
    FOLLOWING,
    KEYS,
    PAIRS,
    QUESTIONS,
    READ,
    RIGHT,
    TEXTS,
    first_of,
    numbered,
    pair_of,
)
from .templates import holding

Cells = Mapping[str, Sequence[str]]
Answers = tuple[list[str], tuple[str, ...], list[list[str]]]  # columns, templates, those of rows
BRACES = frozenset("{}[]!:")  # in a column's name: no template can name it
MOST = 26  # answers of one question
WORDS = 8  # of an answer that is the name of a class


@dataclass(frozen=True)
class Wording:
    """Templates of what is asked; see `description.py` for their meaning.

    kind     `choices`, or `language` for a text that should follow
    prompt   what is read before; of `language` it may be empty
    choices  templates of the answers
    label    the column that tells the right answer
    labels   column → what the answers are called in it, of columns that may tell it
    target   template of the text that should follow
    """

    kind: Literal["choices", "language"]
    prompt: str
    choices: tuple[str, ...] = ()
    label: str = ""
    labels: Mapping[str, tuple[str, ...]] | None = None
    target: str = ""


def wordings(
    rows: Mapping[str, Sequence[Any]], texts: Cells, classes: Mapping[str, tuple[str, ...]]
) -> tuple[Wording, ...]:
    """What may be asked, the likeliest first, by the names and first cells of columns.

    rows     the cells of each column, as they are
    texts    the same as texts
    classes  column → the classes in it, of columns that may hold classes
    """
    texts = {name: cells for name, cells in texts.items() if not BRACES & {*name}}
    few = {n: of for n, of in classes.items() if n in texts and _are_answers(of)}
    known = [name for name in few if name.lower() in KEYS]
    found = [
        *_answered(rows, texts),
        *(_classified(texts, few, name) for name in known),
        *_followed(texts),
        *(_classified(texts, few, name) for name in few if name not in known),
    ]
    if texts:
        plain = first_of(TEXTS, texts) or longest(texts)
        found.append(Wording("language", "", target=_braced(plain)))
    return tuple(one for one in found if one is not None)


def longest(texts: Cells) -> str:
    """The column with the longest texts; empty where there is none."""
    return max(texts, key=lambda name: sum(map(len, texts[name])), default="")


def _answered(rows: Mapping[str, Sequence[Any]], texts: Cells) -> Iterator[Wording]:
    """Questions whose answers stand in their row."""
    for used, names, offered in (*_listed(rows), *_side_by_side(texts)):
        others = {name: cells for name, cells in texts.items() if name not in used}
        told = {n: answers.named(cells, offered) for n, cells in others.items()}
        labels = {n: called for n, called in told.items() if called is not None}
        label = first_of(KEYS, labels) or next(iter(labels), "")
        left = {n: cells for n, cells in others.items() if n != label}
        if label and left:
            yield Wording("choices", prompt(left), names, label, labels)


def _listed(rows: Mapping[str, Sequence[Any]]) -> Iterator[Answers]:
    """Columns whose cells are lists of texts, or mappings with such a list."""
    for name, cells in rows.items():
        held = [holding(cell) for cell in cells]
        keys = [""]
        if isinstance(first := next(iter(held), None), Mapping):
            # Beside the texts a mapping may hold their letters: the longer ones are the texts.
            lists = {str(key): str(one) for key, one in first.items() if holding(one) is not None}
            keys = sorted(lists, key=lambda key: -len(lists[key]))[:1]
        for key in keys:
            offered = [_texts_in(one.get(key) if key and one else one) for one in held]
            count = max(map(len, offered), default=0)
            if all(len(one) > 1 for one in offered) and count <= MOST and not BRACES & {*name}:
                under = f"[{key}]" if key else ""
                yield [name], tuple(f" {{{name}{under}[{k}]}}" for k in range(count)), offered


def _texts_in(cell: Any) -> list[str]:
    """The texts of a list; none of anything else."""
    held = holding(cell)
    if held is None or isinstance(held, Mapping):
        return []
    plain = all(isinstance(one, str | int | float) for one in held)
    return [text_of(one).strip() for one in held] if plain else []


def _side_by_side(texts: Cells) -> Iterator[Answers]:
    """Columns that hold an answer each; the right one may have a column beside the wrong ones'."""
    names = [*numbered(texts)][:MOST]
    offered = _offered(texts, names)
    if not names or not all(all(row) for row in offered):
        return
    right = first_of(RIGHT, texts)
    if right and all(texts[right]) and answers.named(texts[right], offered) is None:
        yield names, _templates([*names, right]), _offered(texts, [*names, right])
    yield names, _templates(names), offered


def _templates(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f" {_braced(name)}" for name in names)


def _offered(texts: Cells, names: Sequence[str]) -> list[list[str]]:
    return [list(row) for row in zip(*(texts[name] for name in names), strict=True)]


def _are_answers(classes: Sequence[str]) -> bool:
    return len(classes) <= MOST and all(len(one.split()) <= WORDS for one in classes)


def _classified(texts: Cells, classes: Mapping[str, tuple[str, ...]], label: str) -> Wording | None:
    """A column of classes, whose names are the answers."""
    left = {name: cells for name, cells in texts.items() if name != label}
    names = [one.replace("{", "{{").replace("}", "}}") for one in classes[label]]
    asked = tuple(f" {one}" for one in names)
    one = {label: classes[label]}
    return Wording("choices", prompt(left), asked, label, one) if left else None


def _followed(texts: Cells) -> Iterator[Wording]:
    """A prompt, and the text that should follow it."""
    if pair := pair_of(FOLLOWING, texts):
        read = first_of(READ, texts)
        before = [name for name in (read, pair[0]) if name not in ("", pair[1])]
        if pair[0].lower() == "instruction":  # what it is about comes after it
            before.reverse()
        asked = "\n".join(_braced(name) for name in dict.fromkeys(before))
        yield Wording("language", asked, target=f" {_braced(pair[1])}")


def prompt(texts: Cells) -> str:
    """The template of a question, with what is to be read before it."""
    question = first_of(QUESTIONS, texts)
    if pair := [] if question else pair_of(PAIRS, texts):
        return "\n".join(map(_braced, pair)) + "\nAnswer:"
    if not question:
        if begun := first_of(BEGINNINGS, texts):
            return _braced(begun)
        return f"{_braced(first_of(TEXTS, texts) or longest(texts))}\nAnswer:"
    read = first_of((*READ, *TEXTS), {name: "" for name in texts if name != question})
    before = f"{_braced(read)}\n" if read else ""
    return f"{before}Question: {_braced(question)}\nAnswer:"


def _braced(name: str) -> str:
    return f"{{{name}}}"
