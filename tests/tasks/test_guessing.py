"""What files of examples are taken for, and that the YAML of a guess is a task."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mats_core import tasks
from mats_core.errors import InputError
from tests.conftest import make_task

Rows = list[dict[str, object]]


def write(file: Path, rows: Rows) -> Path:
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "\t" if file.suffix == ".tsv" else ","
        lines = [mark.join(map(str, row.values())) for row in rows]
        file.write_text("\n".join([mark.join(rows[0]), *lines]) + "\n")
    return file


def repeated(columns: dict[str, list[object]], count: int = 40) -> Rows:
    """Rows that run through the values of each column; `{}` is the number of the row."""

    def cell(value: object, row: int) -> object:
        return value.format(row) if isinstance(value, str) else value

    return [{n: cell(v[k % len(v)], k) for n, v in columns.items()} for k in range(count)]


@pytest.mark.parametrize(
    ("columns", "head", "inputs", "label", "classes"),
    [
        ({"text": ["good {}", "bad {}"], "label": ["pos", "neg"]}, (), ("text",), "label",
         ("neg", "pos")),
        ({"label": [1, 0, 2], "idx": ["{}"], "sentence": ["some words {}"]}, (), ("sentence",),
         "label", ("0", "1", "2")),
        ({"premise": ["a {}"], "hypothesis": ["b {}"], "gold": ["yes", "no"]}, (),
         ("premise", "hypothesis"), "gold", ("no", "yes")),
        ({"source": ["web", "book"], "body": ["a longer text {}"], "mood": ["Sad", "Glad"]},
         ("glad", "sad"), ("body",), "mood", ("Glad", "Sad")),
        ({"label": ["a", "b"], "topic": ["x", "y"], "text": ["t {}"]}, ("Y", "X"), ("text",),
         "topic", ("x", "y")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["csv", "jsonl", "tsv"])
def test_columns_label_and_classes_are_guessed(
    tmp_path, columns, head, inputs, label, classes, ending
):
    found = tasks.guessed(write(tmp_path / f"rows.{ending}", repeated(columns)), head)
    assert (found.kind, found.inputs, found.label, found.found) == ("text", inputs, label, classes)
    assert found.columns == tuple(columns)
    assert [row[label] for row in found.rows] == [
        str(columns[label][k % len(columns[label])]) for k in range(5)
    ]
    (tmp_path / "task.yaml").write_text(tasks.described(found, f"rows.{ending}", None, "mine"))
    task = tasks.load(tmp_path / "task.yaml")
    assert task.classes == classes
    assert (len(task.test), len(task.train) + len(task.validation)) == (8, 32)
    assert task.test.inputs.shape[1] == len(inputs)


def test_the_file_of_test_rows_is_the_one_beside_it(tmp_path):
    rows = repeated({"text": ["a {}"], "label": ["no", "yes"]})
    for name in ("mood.train.csv", "mood.test.csv", "trainer.csv"):
        write(tmp_path / name, rows)
    found = tasks.guessed(tmp_path / "mood.train.csv")
    assert found.test == tmp_path / "mood.test.csv"
    assert tasks.guessed(tmp_path / "trainer.csv").test is None
    text = tasks.described(found, "mood.train.csv", "mood.test.csv", "no")
    (tmp_path / "task.yaml").write_text(text)
    assert len(tasks.load(tmp_path / "task.yaml").test) == 40


def test_classes_in_another_order_are_written_for_the_head(tmp_path):
    from dataclasses import replace

    rows = repeated({"text": ["a {}"], "label": ["neg", "pos"]})
    found = tasks.guessed(write(tmp_path / "rows.csv", rows), ("POSITIVE", "NEGATIVE"))
    assert not tasks.same_classes(found.found, ("POSITIVE", "NEGATIVE"))
    text = tasks.described(replace(found, classes=("pos", "neg")), "rows.csv", None, "mine")
    (tmp_path / "task.yaml").write_text(text)
    task = tasks.load(tmp_path / "task.yaml")
    assert (task.classes, task.ordered) == (("pos", "neg"), True)


@pytest.mark.parametrize(
    ("found", "head", "same"),
    [
        (("neg", "pos"), ("Pos", "NEG"), True),
        (("neg",), ("Pos", "NEG"), True),
        (("0", "1"), ("0", "1"), False),
        (("0", "1"), ("LABEL_0", "LABEL_1"), False),
        (("a", "b"), ("a", "c"), False),
        ((), ("a",), False),
        (("a",), (), False),
    ],
)
def test_classes_are_those_of_a_head_where_their_names_say_so(found, head, same):
    assert tasks.same_classes(found, head) is same


def test_another_column_can_hold_the_label(tmp_path):
    rows = repeated({"text": ["a {}"], "label": ["no", "yes"], "topic": ["x", "y", "z"]})
    found = tasks.guessed(write(tmp_path / "rows.csv", rows))
    other = found.with_label("topic")
    assert (other.found, other.inputs) == (("x", "y", "z"), ("text",))


def test_arrays_and_descriptions_are_ready(tmp_path):
    make_task(tmp_path / "t.npz", 3, 0, ["a", "b", "c"])
    found = tasks.guessed(tmp_path / "t.npz")
    assert (found.kind, found.found) == ("ready", ("a", "b", "c"))
    (tmp_path / "t.yaml").write_text(
        "kind: text\ntrain: x.csv\ntest: 0.2\ninputs: [t]\nclasses: [p, q]"
    )
    assert tasks.guessed(tmp_path / "t.yaml").found == ("p", "q")


@pytest.mark.parametrize("halves", [True, False])
def test_folders_of_images_are_a_task(tmp_path, halves):
    for half in ("train", "test") if halves else (".",):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / half / name
            folder.mkdir(parents=True, exist_ok=True)
            for k in range(10):
                Image.fromarray(np.full((8, 8, 3), 20 * k, np.uint8)).save(folder / f"{k}.png")
    found = tasks.guessed(tmp_path / "photos")
    assert (found.kind, found.found) == ("image", ("cat", "dog"))
    assert (found.test == tmp_path / "photos" / "test") is halves
    train, test = ("photos/train", "photos/test") if halves else ("photos", None)
    (tmp_path / "task.yaml").write_text(tasks.described(found, train, test, "pets"))
    assert tasks.load(tmp_path / "task.yaml").classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.csv", "text,id\na,1\nb,2\nc,3\nd,4\ne,5\n", "a column of classes that repeat"),
        ("rows.csv", "", "rows"),
        ("rows.jsonl", "{", "line 1"),
        ("a.npz", "no arrays", "arrays of a task"),
        ("compose.yaml", "services: {}", "kind"),
    ],
)
def test_what_is_no_task_is_a_sentence(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        tasks.guessed(tmp_path / name)
