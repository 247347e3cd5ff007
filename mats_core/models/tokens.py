"""Texts as tokens: what each kind of task asks of each kind of model, before any tensor.

Causal models read prompt and answer as one text, and what is asked begins after the longest
beginning that all answers share with the prompt; the logits at a position are about the next
token, so targets stand one position to the left.  Encoder-decoder models read the prompt and are
asked for the answer's tokens, its end included.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, parsing
from ..system import recall, state_of
from ..tasks import Split
from .architecture import quiet
from .kinds import Facts, facts_of
from .sizes import Shapes

COPY = "Copy its files again from where the model was saved."
IGNORED = -100  # a target that nobody asks for
FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "tokenizer.model",
    "sentencepiece.bpe.model",
)  # fmt: skip


@dataclass(frozen=True)
class Text:
    """One text.  `targets` are as long as `ids` (causal), or as `answer` (encoder-decoder)."""

    ids: list[int]
    segments: list[int] | None = None
    targets: list[int] | None = None
    answer: list[int] | None = None


@dataclass(frozen=True)
class Tokenised:
    """The texts of a split, `each` of them an example, side by side; `pad` fills them up."""

    texts: tuple[Text, ...]
    each: int
    pad: int

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """(n,): tokens of each example's longest text, its answer included."""
        sizes = np.array([len(t.ids) + len(t.answer or ()) for t in self.texts], dtype=np.int64)
        return sizes.reshape(-1, self.each).max(1)


def tokenised(split: Split, directory: Path | None, shapes: Shapes | None = None) -> Tokenised:
    """A split's texts for the model in `directory`; remembered by their contents.

    `shapes` of the model's tensors: tokens and their number are held against the weights.  Raises
    `InputError` for a model that cannot be asked this, or without tokenizer files.
    """
    facts = facts_of(directory, shapes)
    assert directory is not None  # `facts` has refused that
    key = ("tokens", split.digest, tokenizer_digest(directory), facts)
    return recall(key, lambda: _tokenised(split, directory, facts))


def _tokenised(split: Split, directory: Path, facts: Facts) -> Tokenised:
    tokenizer = load_tokenizer(directory)
    # What its files say is believed until it is used: a limit in words, a token that it lacks.
    with parsing(f"tokenizer of '{directory}'", "one that can be used", COPY):
        limit = _limit(split, tokenizer, facts, directory)
        if split.form.kind == "text":
            texts, each = _texts(split, tokenizer, facts, limit), 1
        else:
            asked = _answered if facts.reads == "seq2seq" else _continued
            rows = [asked(row, tokenizer, facts, limit) for row in split.inputs]
            texts, each = [text for row in rows for text in row], split.inputs.shape[1] - 1
    _require_rows(texts, tokenizer, facts, directory)
    return Tokenised(tuple(texts), each, facts.pad)


def _require_rows(texts: Sequence[Text], tokenizer: Any, facts: Facts, directory: Path) -> None:
    """Raise `InputError` for a token that the embedding has no row for."""
    rows = facts.vocabulary
    highest = max((max((*t.ids, *(t.answer or ())), default=0) for t in texts), default=0)
    if rows is not None and highest >= rows:
        raise InputError(
            f"tokenizer of '{directory}'",
            expected=f"tokens below {rows}, the rows of the model's embedding",
            found=f"{highest}, '{tokenizer.convert_ids_to_tokens(highest)}'",
            remedy="Use the tokenizer that was saved with the model, or resize its embedding.",
        )


def load_tokenizer(directory: Path) -> Any:
    """The tokenizer beside a checkpoint; nothing is downloaded and no code is run."""
    if not any((directory / name).is_file() for name in FILES):
        raise InputError(
            f"model '{directory}'",
            expected="its tokenizer's files (tokenizer.json or others)",
            found="none",
            remedy="Copy those of the pre-trained model beside its config.json.",
        )
    import transformers  # seconds to import

    with parsing(f"tokenizer of '{directory}'", "one that transformers can read", COPY), quiet():
        return transformers.AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )


def tokenizer_digest(directory: Path) -> str:
    """SHA-256 of a tokenizer's files: two directories with the same ones share its tokens."""
    return files_digest(directory, FILES)


def files_digest(directory: Path, names: Sequence[str]) -> str:
    """SHA-256 of the files of these names that a directory holds."""
    digest = hashlib.sha256()
    for name in names:
        file = directory / name
        if file.is_file():
            key = ("digest of a file", state_of(file))
            digest.update(recall(key, functools.partial(_file_digest, file)).encode())
    return digest.hexdigest()


def _file_digest(file: Path) -> str:
    return hashlib.sha256(file.name.encode() + b"\0" + file.read_bytes()).hexdigest()


def _limit(split: Split, tokenizer: Any, facts: Facts, directory: Path) -> int:
    """Tokens of an example: what the task says, else what tokenizer and model can take."""
    asked = split.form.max_length
    if asked is not None:
        if facts.positions is not None and asked > facts.positions:
            raise InputError(
                "'max_length' of the task",
                expected=f"at most the {facts.positions} tokens of '{directory}'",
                found=f"{asked}",
            )
        return asked
    known = [size for size in (facts.positions, tokenizer.model_max_length) if size]
    # Without a limit of its own a tokenizer says 10³⁰.
    return min((size for size in known if size < 10**9), default=512)


# Classes ------------------------------------------------------------------------------------------


def _texts(split: Split, tokenizer: Any, facts: Facts, limit: int) -> list[Text]:
    columns = [list(map(str, column)) for column in split.inputs.T]
    found = tokenizer(*columns, truncation=True, max_length=limit)
    segments = found.get("token_type_ids") if facts.segments else None
    return [
        Text(ids, segments[row] if segments else None) for row, ids in enumerate(found["input_ids"])
    ]


# Answers ------------------------------------------------------------------------------------------


def _continued(row: Sequence[str], tokenizer: Any, facts: Facts, limit: int) -> list[Text]:
    """Prompt and answer as one text, for a causal model."""
    prompt, *answers = map(str, row)
    before = list(tokenizer(prompt)["input_ids"])
    offered = [answer for answer in answers if answer]  # a row may have fewer than others
    wholes = [_unended(tokenizer, prompt + answer) for answer in offered]
    # A token may reach over the border (a space that belongs to the answer's first word): what all
    # answers share with the prompt is given, everything after it is asked, of each alike.
    given = min(_shared(before, whole) for whole in wholes)
    given = max(given, 1)  # the first token of a bare text follows nothing
    texts = []
    for answer, whole in zip(offered, wholes, strict=True):
        over = max(0, len(whole) - limit)
        if len(whole) - given < 1 or over >= given:
            raise _no_room(answer, len(whole) - given, limit)
        ids = whole[:1] + whole[1 + over :] if over else whole  # the start token stays
        first = given - over
        targets = [IGNORED] * (first - 1) + ids[first:] + [IGNORED]
        texts.append(Text(ids, targets=targets))
    return _with_gaps(texts, answers)


def _answered(row: Sequence[str], tokenizer: Any, facts: Facts, limit: int) -> list[Text]:
    """The prompt to read and each answer to give, for an encoder-decoder."""
    prompt, *answers = map(str, row)
    if not prompt.strip():
        raise InputError(
            "task",
            expected="a 'prompt', which an encoder-decoder reads",
            found="none",
            remedy="Give 'prompt' and 'target'.",
        )
    ids = tokenizer(prompt, truncation=True, max_length=limit)["input_ids"]
    texts = []
    for answer in filter(None, answers):
        targets = tokenizer(text_target=answer)["input_ids"]
        if not targets or len(targets) > limit:
            raise _no_room(answer, len(targets), limit)
        start = facts.start if facts.start is not None else facts.pad
        texts.append(Text(ids, targets=targets, answer=[start, *targets[:-1]]))
    return _with_gaps(texts, answers)


def _with_gaps(texts: Sequence[Text], answers: Sequence[str]) -> list[Text]:
    """A text for each answer; of an empty one, which is not offered, no token is asked."""
    left = iter(texts)
    nothing = replace(texts[0], targets=[IGNORED] * len(texts[0].targets or ()))
    return [next(left) if answer else nothing for answer in answers]


def _unended(tokenizer: Any, text: str) -> list[int]:
    """A text's tokens without the end token that some tokenizers add."""
    ids = list(tokenizer(text)["input_ids"])
    end = tokenizer.eos_token_id
    bare = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return ids[:-1] if end is not None and ids[-1:] == [end] and bare[-1:] != [end] else ids


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _no_room(answer: str, tokens: int, limit: int) -> InputError:
    return InputError(
        f"answer '{answer[:60]}'",
        expected=f"between 1 and {limit - 1} tokens, so that a part of the prompt is left",
        found=f"{tokens}",
        remedy="Raise 'max_length' or shorten the answer.",
    )


# Padding ------------------------------------------------------------------------------------------


def padding(texts: Sequence[Text], pad: int) -> dict[str, np.ndarray]:
    """Arrays (texts, tokens), filled up on the right to the longest: a model's keyword arguments,
    and `targets`.

    What a decoder reads never gets the width of what its encoder reads, so that every layer's mask
    can be told from the number of its tokens.
    """
    width = max(len(t.ids) for t in texts)
    found = {
        "input_ids": _filled([t.ids for t in texts], width, pad),
        "attention_mask": _filled([[1] * len(t.ids) for t in texts], width, 0),
    }
    if texts[0].segments is not None:
        found["token_type_ids"] = _filled([t.segments or [] for t in texts], width, 0)
    if texts[0].answer is not None:
        answers = [t.answer or [] for t in texts]
        longest = max(map(len, answers))
        width = longest + (longest == width)
        found["decoder_input_ids"] = _filled(answers, width, pad)
        found["decoder_attention_mask"] = _filled([[1] * len(a) for a in answers], width, 0)
    if texts[0].targets is not None:
        found["targets"] = _filled([t.targets or [] for t in texts], width, IGNORED)
    return found


def _filled(rows: Sequence[Sequence[int]], width: int, value: int) -> np.ndarray:
    found = np.full((len(rows), width), value, dtype=np.int64)
    for row, values in zip(found, rows, strict=True):
        row[: len(values)] = values
    return found
