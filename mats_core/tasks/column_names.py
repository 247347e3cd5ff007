"""Names by which the columns of a table are known, in lower case, the most telling first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

LABELS = ("label", "labels", "class", "category", "target", "answer", "gold", "y")
PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("text1", "text2"),
    ("question1", "question2"), ("question", "sentence"), ("question", "passage"),
    ("text_a", "text_b"),
)  # fmt: skip
TEXTS = ("text", "sentence", "content", "review", "tweet", "document", "utterance", "title")

# What a language model is asked, what it is given to read before, and the text that should follow.
QUESTIONS = ("question", "query", "question_stem")
BEGINNINGS = ("prompt", "ctx", "goal", "instruction", "input", "stem", "premise", "startphrase")
READ = ("passage", "context", "support", "article", "story", "input")
FOLLOWING = (
    ("prompt", "completion"), ("prompt", "response"), ("prompt", "target"), ("prompt", "chosen"),
    ("prompt", "answer"), ("prompt", "output"), ("instruction", "output"),
    ("instruction", "response"), ("question", "answer"), ("question", "response"),
    ("input", "target"), ("input", "output"), ("inputs", "targets"), ("source", "target"),
    ("article", "highlights"), ("article", "summary"), ("document", "summary"),
    ("dialogue", "summary"), ("text", "summary"), ("context", "target"),
)  # fmt: skip
KEYS = (
    "answerkey", "answer_key", "answer_idx", "answer_index", "answer_id", "correct",
    "correct_answer", "correct answer", "right_answer", "best_answer", "correct_option", "cop",
    "gold_label", "gold_idx", *LABELS,
)  # fmt: skip
RIGHT = ("correct_answer", "correct answer", "correct", "right_answer", "best_answer")  # as a text
NUMBERED = re.compile(r"(?P<stem>.*?)[ _.-]?(?P<place>[A-Za-z]|\d)")  # `option_a`, `ending0`, `B`


def first_of(known: Iterable[str], names: Iterable[str]) -> str:
    """The name, as it is written, of the first known one that occurs; empty where none does."""
    lower = {name.lower(): name for name in names}
    return next((lower[one] for one in known if one in lower), "")


def pair_of(pairs: Iterable[tuple[str, str]], names: Iterable[str]) -> tuple[str, ...]:
    """The names, as they are written, of the first known pair that occurs; empty for none."""
    lower = {name.lower(): name for name in names}
    found = (pair for pair in pairs if all(one in lower for one in pair))
    return tuple(lower[one] for one in next(found, ()))


def numbered(names: Iterable[str]) -> tuple[str, ...]:
    """Columns that differ in a letter or a digit at their end, which count on from a, A, 0 or 1:
    the answers of a question.  The longest such row; a known pair of texts is none."""
    by_stem: dict[str, dict[str, str]] = {}
    known = {one for pair in PAIRS for one in pair}
    for name in names:
        match = NUMBERED.fullmatch(name)
        if match and name.lower() not in known:
            by_stem.setdefault(match["stem"].lower(), {})[match["place"]] = name
    rows = (_run(places, first) for places in by_stem.values() for first in "aA01")
    found = max(rows, key=len, default=())
    return found if len(found) > 1 else ()


def _run(places: Mapping[str, str], first: str) -> tuple[str, ...]:
    found = []
    while first in places:
        found.append(places[first])
        first = chr(ord(first) + 1)
    return tuple(found)
