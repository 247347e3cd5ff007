"""Which tokens two checkpoints do not share, from the tokenizer files beside them.

An embedding with two rows more is never cropped: the rows belong to tokens, and these are named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..checkpoints import Weights
from ..errors import InputError, lenient_json, parsing

SHOWN = 8


def tokens(checkpoint: Weights) -> dict[str, int]:
    """Token → id, from tokenizer.json, vocab.json or vocab.txt, and added_tokens.json.

    Empty where none of these can be read: a SentencePiece file alone is not enough.
    """
    folder = checkpoint.directory
    if folder is None:
        return {}
    found: dict[str, int] = {}
    with contextlib.suppress(InputError), parsing(f"tokenizer in '{folder}'", "tokens"):
        found = dict(_from_tokenizer(lenient_json(folder / "tokenizer.json")))
    if not found:
        found = _numbers(lenient_json(folder / "vocab.json")) or _lines(folder / "vocab.txt")
    return found | _numbers(lenient_json(folder / "added_tokens.json"))


def difference(base: Weights, expert: Weights) -> str:
    """`it has 2 more tokens: <a>, <b>`: how the expert's tokens differ; empty where they do not,
    or where either is unknown."""
    ours, theirs = tokens(base), tokens(expert)
    if not ours or not theirs:
        return ""
    more = _by_id(theirs, theirs.keys() - ours.keys())
    fewer = _by_id(ours, ours.keys() - theirs.keys())
    moved = _by_id(ours, [t for t in ours.keys() & theirs.keys() if ours[t] != theirs[t]])
    told = {"has": (more, "more"), "lacks": (fewer, "of the base")}
    told["gives another number to"] = (moved, "")
    parts = [f"{verb} {_counted(*which)}" for verb, which in told.items() if which[0]]
    return "it " + " and ".join(parts) if parts else ""


def _by_id(numbers: Mapping[str, int], chosen: Any) -> list[str]:
    return sorted(chosen, key=lambda token: (numbers[token], token))


def _counted(names: list[str], what: str) -> str:
    noun = "token" if len(names) == 1 else "tokens"
    count = f"{len(names)} {what} {noun}" if what == "more" else f"{len(names)} {noun} {what}"
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    # As Python writes it: a token may be a blank, a line break or half a character.
    return f"{count.strip()}: {', '.join(map(_shown, names[:SHOWN]))}{rest}"


def _shown(token: str) -> str:
    return token if token.isprintable() and token.strip() == token and token else repr(token)


def _from_tokenizer(content: Any) -> Iterator[tuple[str, int]]:
    """The `vocab` of a tokenizer.json: a mapping, or Unigram's list of (token, score)."""
    if not isinstance(content, dict):
        return
    model = content.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):
        yield from ((str(pair[0]), number) for number, pair in enumerate(vocab) if pair)
    else:
        yield from _numbers(vocab).items()
    for token in content.get("added_tokens") or ():
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            yield str(token.get("content")), token["id"]


def _numbers(content: Any) -> dict[str, int]:
    if not isinstance(content, dict):
        return {}
    return {str(token): number for token, number in content.items() if isinstance(number, int)}


def _lines(file: Path) -> dict[str, int]:
    try:
        return {line: n for n, line in enumerate(file.read_text("utf-8").split("\n")) if line}
    except (OSError, ValueError):
        return {}
