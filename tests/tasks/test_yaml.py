"""Tasks from a YAML: every kind of file, what a split is made of, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from mats_core import tasks
from mats_core.errors import InputError
from tests.text_cases import write_rows, write_task

ROWS = [{"text": f"text {i}", "other": f"o{i}", "label": i % 2, "name": ["no", "yes"][i % 2]}
        for i in range(30)]  # fmt: skip
NAMES = ["no", "yes"]


def described(folder, **content):
    (folder / "t.yaml").write_text(yaml.safe_dump(content))
    return tasks.load(folder / "t.yaml")


def text(folder, **change):
    write_rows(folder / "train.jsonl", ROWS)
    write_rows(folder / "test.jsonl", ROWS[:6])
    content = {"kind": "text", "train": "train.jsonl", "test": "test.jsonl", "inputs": ["text"],
               "classes": NAMES, **change}  # fmt: skip
    return described(folder, **{k: v for k, v in content.items() if v is not None})


# What is read -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "csv", "csv.gz", "tsv", "parquet"])
def test_every_kind_of_table_holds_the_same_task(tmp_path, ending):
    import pandas as pd

    expected = text(tmp_path)
    for name, rows in (("train", ROWS), ("test", ROWS[:6])):
        frame, file = pd.DataFrame(rows), tmp_path / f"{name}.{ending}"
        if ending.startswith("jsonl"):
            write_rows(file, rows)
        elif ending == "json":
            file.write_text(json.dumps(rows))
        elif ending == "parquet":
            frame.to_parquet(file)
        else:
            frame.to_csv(file, index=False, sep="\t" if ending == "tsv" else ",")
    found = text(tmp_path, train=f"train.{ending}", test=f"test.{ending}")
    assert found.digest == expected.digest
    assert found.train.inputs[3].tolist() == ["text 3"]
    assert found.train.labels[:4].tolist() == [0, 1, 0, 1]


def test_the_last_fifth_is_held_out_unless_the_rows_are_sorted(tmp_path):
    task = text(tmp_path)
    assert (len(task.train), len(task.validation), len(task.test)) == (24, 6, 6)
    assert task.validation.inputs[:, 0].tolist() == [f"text {i}" for i in range(24, 30)]
    write_rows(tmp_path / "sorted.jsonl", sorted(ROWS, key=lambda row: row["label"]))
    mixed = text(tmp_path, train="sorted.jsonl")
    assert set(mixed.validation.labels) == {0, 1}
    everything = sorted([*mixed.train.inputs[:, 0], *mixed.validation.inputs[:, 0]])
    assert everything == sorted(row["text"] for row in ROWS)


def test_shares_are_drawn_with_a_seed_and_do_not_overlap(tmp_path):
    task = text(tmp_path, test=0.2, validation=0.5)
    assert (len(task.train), len(task.validation), len(task.test)) == (12, 12, 6)
    parts = [set(s.inputs[:, 0]) for s in (task.train, task.validation, task.test)]
    assert len(set.union(*parts)) == 30
    assert text(tmp_path, test=0.2, validation=0.5).digest == task.digest
    assert text(tmp_path, test=0.2, validation=0.5, seed=1).digest != task.digest
    # The test rows do not depend on what is validated on.
    assert set(text(tmp_path, test=0.2).test.inputs[:, 0]) == parts[2]
    write_rows(tmp_path / "own.jsonl", ROWS[:3])
    assert len(text(tmp_path, validation="own.jsonl").validation) == 3


def test_labels_may_be_names_or_numbers(tmp_path):
    by_number, by_name = text(tmp_path), text(tmp_path, label="name")
    assert by_name.digest == by_number.digest
    assert text(tmp_path, classes=None).classes == ("0", "1")
    assert text(tmp_path, classes=None, label="name").classes == ("no", "yes")
    (tmp_path / "names.json").write_text(json.dumps(NAMES))
    assert text(tmp_path, classes="names.json").digest == by_number.digest
    # Numbers that are also names: all of them are names, or none of them is.
    rows = [{"text": "x", "label": i % 3} for i in range(9)]
    write_rows(tmp_path / "stars.jsonl", rows)
    stars = {"train": "stars.jsonl", "test": "stars.jsonl"}
    assert text(tmp_path, classes=["1", "2", "3"], **stars).test.labels.tolist() == [0, 1, 2] * 3
    assert text(tmp_path, classes=["0", "2", "1"], **stars).test.labels.tolist() == [0, 2, 1] * 3


def test_cells_of_a_csv_stay_texts(tmp_path):
    (tmp_path / "odd.csv").write_text("text,label\nNA,0\n007,1\n1e3,0\ntrue,1\n2020-01-01,0\n")
    task = text(tmp_path, test="odd.csv")
    assert task.test.inputs[:, 0].tolist() == ["NA", "007", "1e3", "true", "2020-01-01"]


def test_the_digest_is_of_contents_and_of_what_is_asked(tmp_path):
    task = text(tmp_path)
    assert text(tmp_path, name="another", description="x").digest == task.digest
    for change in ({"max_length": 9}, {"metric": "f1"}, {"classes": ["a", "b"]},
                   {"inputs": ["text", "other"]}):  # fmt: skip
        assert text(tmp_path, **change).digest != task.digest
    changed = [dict(ROWS[0], text="text 0 "), *ROWS[1:]]
    write_rows(tmp_path / "changed.jsonl", changed)
    assert text(tmp_path, train="changed.jsonl").digest != task.digest
    assert task.name == "t"


def test_a_file_that_changed_is_read_again(tmp_path):
    first = text(tmp_path)
    assert tasks.load("t.yaml", root=tmp_path) is first
    write_rows(tmp_path / "test.jsonl", ROWS[:7])
    assert len(tasks.load(tmp_path / "t.yaml").test) == 7


def test_choices_fill_their_templates(tmp_path):
    task = text(tmp_path, kind="choices", inputs=None, prompt="{{{text}}} or {other}?",
                choices=["no", " {other}"], classes=None)  # fmt: skip
    assert task.test.inputs[1].tolist() == ["{text 1} or o1?", "no", " o1"]
    assert task.classes == ("no", "choice 2")
    assert text(tmp_path, kind="choices", inputs=None, prompt="{text}", choices=[" no", " yes"],
                classes=None, label="name").test.labels.tolist() == [0, 1] * 3  # fmt: skip


def test_language_has_no_classes(tmp_path):
    plain = text(tmp_path, kind="language", classes=None)
    assert plain.classes == ()
    assert plain.test.inputs[0].tolist() == ["", "text 0"]
    asked = text(tmp_path, kind="language", classes=None, inputs=None, prompt="{text}:",
                 target=" {other}")  # fmt: skip
    assert asked.test.inputs[0].tolist() == ["text 0:", " o0"]
    assert asked.form.metric == "likelihood"


# Images -------------------------------------------------------------------------------------------


def picture(file, value, size=(6, 4), mode="L"):
    from PIL import Image

    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(file)


def test_folders_of_images(tmp_path):
    for half, count in (("train", 10), ("test", 4)):
        for k, name in enumerate(("cat", "dog")):
            for i in range(count):
                picture(tmp_path / half / name / f"{i}.png", 100 * k + i)
    task = described(tmp_path, kind="image", train="train", test="test")
    assert task.classes == ("cat", "dog")
    assert task.test.inputs.shape == (8, 4, 6, 1)
    assert (task.test.inputs[:, 0, 0, 0] // 100 == task.test.labels).all()
    assert sorted(task.test.inputs[:, 0, 0, 0]) == [0, 1, 2, 3, 100, 101, 102, 103]
    assert set(task.validation.labels) == {0, 1}
    # Saved as arrays in the same order it is the same task, with the same statistics.
    whole = np.concatenate([task.train.inputs, task.validation.inputs])
    labels = np.concatenate([task.train.labels, task.validation.labels])
    np.savez(tmp_path / "t.npz", x_train=whole, y_train=labels, x_test=task.test.inputs,
             y_test=task.test.labels, classes=np.array(task.classes))  # fmt: skip
    assert tasks.load(tmp_path / "t.npz").digest == task.digest
    packed = described(tmp_path, kind="image", train="t.npz", metric="matthews")
    assert packed.test.form.metric == "matthews"


def test_images_of_several_sizes_are_cut_to_a_square(tmp_path):
    from PIL import Image

    wide = Image.new("RGB", (40, 20), (255, 0, 0))
    wide.paste((0, 0, 255), (10, 0, 30, 20))  # the square in the middle
    for name in ("a", "b"):
        (tmp_path / "x" / name).mkdir(parents=True)
        for i in range(4):
            wide.save(tmp_path / "x" / name / f"{i}.png")
        picture(tmp_path / "x" / name / "other.jpg", (0, 255, 0), (30, 50), "RGB")
    task = described(tmp_path, kind="image", train="x", test=0.2, size=10)
    assert task.test.inputs.shape == (2, 10, 10, 3)
    both = np.concatenate([task.train.inputs, task.test.inputs, task.validation.inputs])
    blue = (both[:, 2:-2, 2:-2] == (0, 0, 255)).all((1, 2, 3))
    assert blue.sum() == 8
    assert described(tmp_path, kind="image", train="x", test=0.2).test.inputs.shape[1] == 224


def test_tables_of_paths(tmp_path):
    rows = []
    for i in range(10):
        picture(tmp_path / "pictures" / f"{i}.png", 20 * i)
        rows.append({"image": f"pictures/{i}.png", "label": ["even", "odd"][i % 2]})
    write_rows(tmp_path / "all.jsonl", rows)
    task = described(tmp_path, kind="image", train="all.jsonl", test=0.4)
    assert task.classes == ("even", "odd")
    values = task.test.inputs[:, 0, 0, 0].astype(int) // 20
    assert (values % 2 == task.test.labels).all()
    (tmp_path / "pictures" / "3.png").unlink()
    with pytest.raises(InputError, match=r"no .*3\.png"):
        described(tmp_path, kind="image", train="all.jsonl", test=0.4, seed=1)
    (tmp_path / "pictures" / "3.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match="a picture that Pillow can read"):
        described(tmp_path, kind="image", train="all.jsonl", test=0.4, seed=2)


# The hub ------------------------------------------------------------------------------------------


def test_a_hub_data_set_from_the_cache_or_a_clear_sentence(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=NAMES)}
    )
    asked = []

    def load(name, subset, split, revision):
        asked.append((name, subset, split, revision, datasets.config.HF_HUB_OFFLINE))
        if name != "some/set":
            raise ConnectionError("offline")
        rows = [{"text": f"{split} {i}", "label": i % 2} for i in range(10)]
        return datasets.Dataset.from_list(rows, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load)
    told = {"kind": "text", "inputs": "text", "dataset": "some/set", "subset": "s",
            "revision": "abc", "test": "other"}  # fmt: skip
    task = described(tmp_path, **told)
    assert task.classes == ("no", "yes"), "the data set's own names, in its own order"
    assert task.test.inputs[0].tolist() == ["other 0"]
    assert asked == [
        ("some/set", "s", "train", "abc", True),
        ("some/set", "s", "other", "abc", True),
    ]
    with pytest.raises(
        InputError, match=r"its split 'train' in this machine's cache.*found offline"
    ):
        described(tmp_path, **{**told, "dataset": "nobody/none"})


def test_images_of_a_hub_data_set(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["odd", "even"])}
    )

    def load(name, subset, split, revision):
        rows = [
            {"img": Image.new("RGB", (6, 5), (10 * i, 0, 1)), "label": i % 2} for i in range(20)
        ]
        return datasets.Dataset.from_list(rows, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load)
    task = described(tmp_path, kind="image", dataset="some/pictures")
    assert task.classes == ("odd", "even"), "the data set's own names, in its own order"
    assert task.train.inputs.shape == (16, 5, 6, 3)
    assert len(task.validation) == 4
    red = task.test.inputs[:, 0, 0, 0]
    assert sorted(red) == [10 * i for i in range(20)]
    assert (task.test.labels == red // 10 % 2).all(), "every picture keeps its label"
    assert (task.test.inputs[:, 0, 0, 2] == 1).all()
    with pytest.raises(InputError, match=r"column 'label'.*an image in every row.*found str"):
        described(tmp_path, kind="image", dataset="some/pictures", inputs=["label"])


def test_without_the_library_of_data_sets_its_name_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(InputError, match="pip install datasets"):
        described(tmp_path, kind="text", inputs="text", dataset="a/b")


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"train": "absent.jsonl"}, r"train rows of task 't' '.*absent\.jsonl'.*nothing there"),
        ({"inputs": ["txt"]}, r"column of train rows.*Did you mean 'text'"),
        ({"label": "lable"}, "Did you mean 'label'"),
        ({"classes": ["a", "b", "c"], "label": "name"}, "label in row 1 .*found 'no'"),
        ({"classes": ["a"]}, "at least two"),
        ({"classes": ["a", "a"]}, "a different name for each"),
        ({"classes": "no, yes"}, "Write a list"),
        ({"classes": None, "inputs": None}, "expected 'inputs'"),
        ({"inputs": ["text", "other", "name"]}, "at most 2 items"),
        ({"test": None}, "test: 0.2"),
        ({"test": 1.5}, "less than 1"),
        ({"test": 0.001}, "at least one row on either side"),
        ({"metric": "f2"}, "'metric'"),
        ({"prompt": "{text}"}, "'prompt', which this kind does not use"),
        ({"lable": "x"}, "Did you mean 'label'"),
        ({"kind": "choices", "inputs": None, "prompt": "{txet}", "choices": ["a", "b"]},
         "Did you mean 'text'"),
        ({"kind": "choices", "inputs": None, "prompt": "{text", "choices": ["a", "b"]},
         "columns in braces"),
        ({"kind": "choices", "inputs": None, "prompt": "{text}", "choices": ["a", "b", "c"]},
         "3, one for each of its choices"),
        ({"kind": "language", "classes": None, "target": "{text}"}, "found both"),
        ({"kind": "picture"}, "'kind'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path, change, says):
    with pytest.raises(InputError, match=says):
        text(tmp_path, **change)


def test_f1_needs_two_classes(tmp_path):
    rows = [{"text": "x", "label": i % 3} for i in range(9)]
    write_rows(tmp_path / "three.jsonl", rows)
    with pytest.raises(InputError, match="Use 'macro'"):
        text(tmp_path, train="three.jsonl", classes=None, metric="f1")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"text": "a", "label": 2}], "label in row 1 .*a number from 0 to 1.*found 2"),
        ([{"text": "a", "label": 0}, {"text": " ", "label": 1}], "none in row 2"),
        ([{"text": "a", "label": 0}, {"text": None, "label": 1}], "none in row 2"),
        ([{"text": "a", "label": 0}, {"text": "b"}], "label in row 2"),
        ([], "at least one row"),
    ],
)
def test_rows_that_cannot_be_asked_are_named(tmp_path, rows, says):
    write_rows(tmp_path / "odd.jsonl", rows)
    with pytest.raises(InputError, match=says):
        text(tmp_path, test="odd.jsonl")


def test_files_that_are_not_what_their_names_say(tmp_path):
    for name, content, says in (
        ("bad.jsonl", b'{"text": 1}\n{"text"\n', "line 2"),
        ("bad.jsonl.gz", b"not gzip", "a table in jsonl"),
        ("bad.parquet", b"no parquet", "a table in parquet"),
        ("list.jsonl", b"[1, 2]\n", "not an object"),
        ("bad.xlsx", b"", r"a file \.jsonl"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=says):
            text(tmp_path, test=name)
    (tmp_path / "t.yaml").write_text("- a\n- b\n")
    with pytest.raises(InputError, match="a YAML mapping"):
        tasks.load(tmp_path / "t.yaml")
    (tmp_path / "rows.csv").write_text("text,label\n")
    with pytest.raises(InputError, match=r"needs a short \.yaml"):
        tasks.load(tmp_path / "rows.csv")


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match="a subfolder of images"):
        described(tmp_path, kind="image", train="empty", test=0.2)


def test_write_task_of_the_cases_is_a_task(tmp_path):
    assert len(tasks.load(write_task(tmp_path, "x", ROWS, ROWS, classes=NAMES)).test) == 30
