"""What a table asks of a language model: guessed, and read as it was guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mats_core import tasks
from mats_core.errors import InputError
from mats_core.evaluation import evaluate
from mats_core.models import tensors_of
from mats_core.tasks import column_names
from tests.tasks.test_guessing import Rows, repeated, write
from tests.text_cases import gpt2, save, t5

LETTERS = "ABCD"
LISTS = [["red", "blue", "green"], ["one", "two", "three"]]


def rows_of(
    named: dict[str, list[Any]] | None = None, count: int = 40, **columns: list[Any]
) -> Rows:
    return repeated({**(named or {}), **columns}, count)


def mapped(letters: str) -> list[dict[str, list[str]]]:
    return [{"text": one, "label": [*letters[:3]]} for one in LISTS]


CASES = [
    # Answers in columns of their own, told by a letter, a number from 0 or from 1, or a text.
    (rows_of(question=["what {}"], A=["a {}"], B=["b {}"], C=["c {}"], answer=["C", "A"]),
     "Question: {question}\nAnswer:", (" {A}", " {B}", " {C}"), "answer", ("A", "B", "C"), [2, 0]),
    (rows_of(idx=["{}"], ctx=["it is {}"], ending0=["bad {}"], ending1=["good {}"], label=[1, 0]),
     "{ctx}", (" {ending0}", " {ending1}"), "label", (), [1, 0]),
    (rows_of(sentence=["who _ {}"], option1=["Ann {}"], option2=["Bob {}"], answer=["2", "1"]),
     "{sentence}\nAnswer:", (" {option1}", " {option2}"), "answer", ("1", "2"), [1, 0]),
    (rows_of(goal=["to boil {}"], sol1=["cook"], sol2=["wait"], answer=["wait", "cook"]),
     "{goal}", (" {sol1}", " {sol2}"), "answer", (), [1, 0]),
    (rows_of(passage=["long {}"], question=["how {}"], choice_a=["x"], choice_b=["y"],
             correct=["b", "a"]),
     "{passage}\nQuestion: {question}\nAnswer:", (" {choice_a}", " {choice_b}"), "correct",
     ("a", "b"), [1, 0]),
    # The right answer in a column beside those of the wrong ones.
    (rows_of(question=["what {}"], distractor1=["salt {}"], distractor2=["tin {}"],
             correct_answer=["gold {}", "iron {}"]),
     "Question: {question}\nAnswer:", (" {distractor1}", " {distractor2}", " {correct_answer}"),
     "correct_answer", (), [2, 2]),
    (rows_of({"Question": ["what {}"], "Incorrect Answer 1": ["1"], "Incorrect Answer 2": ["2"],
              "Correct Answer": ["40", "70"]}),
     "Question: {Question}\nAnswer:",
     (" {Incorrect Answer 1}", " {Incorrect Answer 2}", " {Correct Answer}"), "Correct Answer", (),
     [2, 2]),
    # Answers in one column of lists, or in a mapping beside their letters.
    (rows_of(question=["what {}"], choices=LISTS, answer=[2, 1]), "Question: {question}\nAnswer:",
     tuple(f" {{choices[{k}]}}" for k in range(3)), "answer", (), [2, 1]),
    (rows_of(question=["what {}"], choices=mapped("ABC"), answerKey=["C", "A"]),
     "Question: {question}\nAnswer:", tuple(f" {{choices[text][{k}]}}" for k in range(3)),
     "answerKey", ("A", "B", "C"), [2, 0]),
    # The classes of a column of labels are the answers.
    (rows_of(text=["fine {}", "dull {}"], label=["good", "bad"]), "{text}\nAnswer:",
     (" bad", " good"), "label", ("bad", "good"), [1, 0]),
    (rows_of(premise=["a {}"], hypothesis=["b {}"], label=["yes", "no"]),
     "{premise}\n{hypothesis}\nAnswer:", (" no", " yes"), "label", ("no", "yes"), [1, 0]),
]  # fmt: skip
FOLLOWING = [
    (rows_of(prompt=["say {}"], completion=["well {}"]), "{prompt}", " {completion}"),
    (rows_of(instruction=["add {}"], input=["1 {}"], output=["2 {}"]),
     "{instruction}\n{input}", " {output}"),
    (rows_of(context=["once {}"], question=["who {}"], answer=["the king {}"]),
     "{context}\n{question}", " {answer}"),
    (rows_of(text=["a story {}"]), "", "{text}"),
]  # fmt: skip


def loaded(folder: Path, file: Path, found: tasks.Guess) -> tasks.Task:
    (folder / "task.yaml").write_text(tasks.described(found, file.name, None, "mine"))
    return tasks.load(folder / "task.yaml")


def whole(task: tasks.Task) -> dict[str, tuple[list[str], int]]:
    """prompt → (answers, number of the right one) of every row of a task."""
    parts = [task.train, task.validation, task.test]
    inputs = [[str(cell) for cell in row] for part in parts for row in part.inputs]
    labels = [int(label) for part in parts for label in part.labels]
    return {row[0]: (row[1:], label) for row, label in zip(inputs, labels, strict=True)}


def saved(folder: Path, rows: Rows, ending: str) -> Path:
    if ending != "parquet":
        return write(folder / f"rows.{ending}", rows)
    pd = pytest.importorskip("pandas")
    pd.DataFrame(rows).to_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "tsv"])
@pytest.mark.parametrize(("rows", "prompt", "choices", "label", "classes", "right"), CASES)
def test_a_question_with_answers(tmp_path, rows, prompt, choices, label, classes, right, ending):
    file = saved(tmp_path, rows, ending)
    found = tasks.guessed(file, speaks=True)
    assert (found.kind, found.prompt, found.choices) == ("choices", prompt, choices)
    assert (found.label, found.classes) == (label, classes)
    task = loaded(tmp_path, file, found)
    said = whole(task)
    assert len(said) == 40
    for k, shown in enumerate(found.asked()):
        answers, place = said[shown["reads"]]
        assert place == right[k % 2]
        assert answers[place].strip() == shown["right"]
        assert shown["answers"].split(" | ") == [one.strip() for one in answers]


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
@pytest.mark.parametrize(("rows", "prompt", "target"), FOLLOWING)
def test_a_text_that_should_follow(tmp_path, rows, prompt, target, ending):
    file = saved(tmp_path, rows, ending)
    found = tasks.guessed(file, speaks=True)
    assert (found.kind, found.prompt, found.target) == ("language", prompt, target)
    task = loaded(tmp_path, file, found)
    said = {tuple(row) for part in (task.train, task.validation, task.test) for row in part.inputs}
    assert len(said) == 40
    assert [tuple(row.values()) in said for row in found.asked()] == [True] * 5


def test_other_ways_are_offered_and_taken(tmp_path):
    rows = rows_of(prompt=["say {}"], completion=["well {}"], mood=["sad", "glad"])
    file = saved(tmp_path, rows, "jsonl")
    found = tasks.guessed(file, speaks=True)
    assert [way.kind for way in found.ways] == ["language", "choices", "language"]
    other = found.asking(found.ways[1])
    assert (other.choices, other.label, other.classes) == (
        (" glad", " sad"),
        "mood",
        ("glad", "sad"),
    )
    assert loaded(tmp_path, file, other).classes == ("glad", "sad")
    back = other.asking(found.ways[0])
    assert back == found


def test_a_classifier_is_asked_for_classes_as_before(tmp_path):
    file = saved(tmp_path, CASES[7][0], "jsonl")
    assert tasks.guessed(file).kind == "text"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["question", "A", "B", "C", "D", "answer"], ("A", "B", "C", "D")),
        (["opa", "opb", "opc", "cop"], ("opa", "opb", "opc")),
        (["ending0", "ending1", "ending3"], ("ending0", "ending1")),
        (["choice 1", "choice 2"], ("choice 1", "choice 2")),
        (["sentence1", "sentence2", "label"], ()),  # a pair of texts
        (["option2", "option3"], ()),  # does not begin
        (["a", "text"], ()),
    ],
)
def test_columns_that_count_on(names, found):
    assert column_names.numbered(names) == found


# Rows with fewer answers --------------------------------------------------------------------------


def uneven(folder: Path) -> Path:
    rows = rows_of(
        question=["what {}"], answer=[1, 0], choices=[["red", "blue", "green"], ["one", "two"]]
    )
    return write(folder / "rows.jsonl", rows)


def test_a_row_may_have_fewer_answers(tmp_path):
    file = uneven(tmp_path)
    found = tasks.guessed(file, speaks=True)
    assert len(found.choices) == 3
    said = whole(loaded(tmp_path, file, found))
    assert said["Question: what 1\nAnswer:"] == ([" one", " two", ""], 0)


@pytest.mark.parametrize(("model", "style"), [(gpt2, "gpt2"), (t5, "t5")])
@pytest.mark.parametrize("normalised", [False, True, tasks.Length("characters", 1)])
def test_an_answer_that_is_not_there_is_never_chosen(tmp_path, model, style, normalised):
    """The others are as likely as where they stand alone."""
    folder = save(model(seed=3), tmp_path / "model", style)
    both = {"a": "the film is", "b": "the day is"}
    texts = [[both["a"], " good", " bad", ""], [both["b"], " dull", " bright", " red blue"]]
    form = tasks.Form("choices", length_normalised=normalised)
    from mats_core.checkpoints import Checkpoint

    tensors = tensors_of(Checkpoint.open(folder))

    def asked(rows: list[list[str]]) -> torch.Tensor:
        split = tasks.Split(np.array(rows, dtype=object), np.zeros(len(rows), np.int64), form)
        return evaluate.asked(folder, tensors, split)

    said = asked(texts)
    assert said[0, 2] == -torch.inf
    assert said[1].isfinite().all()
    torch.testing.assert_close(said[:1, :2], asked([texts[0][:3]]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(said[1:], asked([texts[1]]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{choices[9]}", "none in row 1"),
        ("{chosen[0]}", "column in the template"),
        ("{q", "braces"),
    ],
)
def test_templates_that_name_nothing(tmp_path, template, words):
    rows = rows_of(question=["what {}"], choices=LISTS, label=[0, 1])
    write(tmp_path / "rows.jsonl", rows)
    (tmp_path / "task.yaml").write_text(
        "kind: language\ntrain: rows.jsonl\ntest: 0.2\nprompt: '{question}'\n"
        f"target: '{template}'\n"
    )
    with pytest.raises(InputError, match=words):
        tasks.load(tmp_path / "task.yaml")


def test_no_attribute_of_a_cell_is_reached(tmp_path):
    rows = rows_of(question=["what {}"], choices=LISTS, label=[0, 1])
    write(tmp_path / "rows.jsonl", rows)
    (tmp_path / "task.yaml").write_text(
        "kind: language\ntrain: rows.jsonl\ntest: 0.2\ntarget: '{question.__class__}'\n"
    )
    with pytest.raises(InputError, match="column in the template"):
        tasks.load(tmp_path / "task.yaml")
