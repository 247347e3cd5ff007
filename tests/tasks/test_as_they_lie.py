"""Data as they lie on disks: encodings, separators, labels that are none, pictures of all kinds."""

from __future__ import annotations

import codecs
import gzip
import json
import os

import numpy as np
import pytest
import yaml

from mats_core import tasks
from mats_core.errors import InputError
from mats_core.tasks.classes import matched

ROWS = [{"text": f"Käse {i}", "label": ["no", "yes"][i % 2]} for i in range(12)]


def load(folder, **content):
    told = {"kind": "text", "train": "rows.jsonl", "test": 0.25, "inputs": ["text"], **content}
    told = {name: value for name, value in told.items() if value is not None}
    (folder / "t.yaml").write_text(yaml.safe_dump(told, allow_unicode=True), "utf-8")
    return tasks.load(folder / "t.yaml")


def everything(task):
    """Every row of a task with its class, in the order of the texts."""
    parts = (task.train, task.validation, task.test)
    return sorted(
        (text, task.classes[label])
        for part in parts
        for text, label in zip(part.inputs[:, 0], part.labels, strict=True)
    )


def lines(rows=ROWS, end="\n"):
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows)


def table(rows=ROWS, by=",", end="\n"):
    return by.join(rows[0]) + end + "".join(by.join(map(str, r.values())) + end for r in rows)


# Encodings and separators -------------------------------------------------------------------------

FILES = {
    "byte-order mark": ("a.jsonl", codecs.BOM_UTF8 + lines().encode()),
    "lines of Windows": ("a.jsonl", lines(end="\r\n").encode() + b"\r\n\r\n"),
    "an old Macintosh": ("a.jsonl", lines(end="\r").encode()),
    "UTF-16 with a mark": ("a.jsonl", lines().encode("utf-16")),
    "UTF-16, big end first": ("a.csv", codecs.BOM_UTF16_BE + table().encode("utf-16-be")),
    "UTF-16 without one": ("a.jsonl", lines().encode("utf-16-le")),
    "UTF-32": ("a.json", json.dumps(ROWS).encode("utf-32")),
    "Windows-1252": ("a.csv", table().encode("cp1252")),
    "packed, with a mark": ("a.csv.gz", gzip.compress(codecs.BOM_UTF8 + table().encode())),
    "semicolons": ("a.csv", table(by=";").encode()),
    "semicolons and a mark": ("a.csv", codecs.BOM_UTF8 + table(by=";", end="\r\n").encode()),
    "tabs in a .csv": ("a.csv", table(by="\t").encode()),
    "Excel's first line": ("a.csv", b"sep=;\r\n" + table(by=";", end="\r\n").encode()),
    "blank lines": ("a.csv", table(end="\n\n").encode()),
    "blanks in the header": ("a.csv", table().replace("text,label", " text , label").encode()),
    "lines in a .json": ("a.json", lines().encode()),
    "packed, and not called so": ("a.csv", gzip.compress(table().encode())),
    "an ending in capitals": ("a.csv.GZ", gzip.compress(table().encode())),
    "a list called lines": ("a.jsonl", json.dumps(ROWS, indent=1).encode()),
    "semicolons, a comma in a name": (
        "a.csv",
        table([dict(row, more=i) for i, row in enumerate(ROWS)], by=";")
        .replace("more", '"more, and more"')
        .encode(),
    ),
    "columns twice that nothing reads": (
        "a.csv",
        table([dict(row, x=1, y=2) for row in ROWS]).replace("x,y", "x,x").encode(),
    ),
    "U+2028 is no line end": ("a.jsonl", lines().encode()),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_table_holds_the_same_rows(tmp_path, kind):
    name, content = FILES[kind]
    (tmp_path / name).write_bytes(content)
    task = load(tmp_path, train=name)
    assert everything(task) == sorted((row["text"], row["label"]) for row in ROWS)
    guessed = [note for note in task.notes if "is read as" in note]
    assert bool(guessed) == (kind in ("Windows-1252", "UTF-16 without one"))


def test_a_quotation_mark_in_a_tsv_is_a_letter(tmp_path):
    rows = [dict(row, text=f'"{row["text"]}') if i in (2, 7) else row for i, row in enumerate(ROWS)]
    rows[4] = dict(rows[4], text='5" and 6"')
    (tmp_path / "a.tsv").write_text(table(rows, "\t"), "utf-8")
    assert everything(load(tmp_path, train="a.tsv")) == sorted(
        (r["text"], r["label"]) for r in rows
    )


def test_a_quoted_cell_of_a_csv_may_hold_commas_and_lines(tmp_path):
    content = 'text,label\n"a, b",no\n"c\nd",yes\n"say ""e""",no\nf,yes\ng,no\n'
    (tmp_path / "a.csv").write_text(content)
    found = [text for text, _ in everything(load(tmp_path, train="a.csv", test=0.4))]
    assert found == sorted(["a, b", "c\nd", 'say "e"', "f", "g"])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "text,label\na,no\nb,yes,more\n", "Expected 2 fields in line 3, saw 3"),
        ("a.csv", "text,label\na,no\nb\nc,yes\n", r"label in row 2 of train rows.*'a\.csv'"),
        ("a.jsonl", '{"text": "a", "label": 0}\n{"text": 1\n', "line 2"),
        ("a.jsonl", "[1]\n", "not an object"),
    ],
)
def test_a_damaged_row_is_named(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=says):
        load(tmp_path, train=name)


OTHERS = {
    "zip": (b"PK\x03\x04" + bytes(30), "a zip archive"),
    "bzip2": (b"BZh91AY&SY" + bytes(30), "packed by bzip2"),
    "html": (b"\n<!DOCTYPE html><html>404</html>", "a page of HTML"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
    "parquet": (b"PAR1\x15\x04" + bytes(30), "a table in Parquet"),
    "an old workbook": (b"\xd0\xcf\x11\xe0" + bytes(30), "an old Excel"),
    "pickle": (b"\x80\x04\x95" + bytes(30), "a pickle"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.csv.gz"])
def test_what_is_no_text_is_named_by_its_first_bytes(tmp_path, name, kind):
    content, says = OTHERS[kind]
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(InputError, match=says) as caught:
        load(tmp_path, train=name)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("text", ["a", "b"], "row 4.*a list"),
        ("text", {"role": "user", "content": "hi"}, "row 4.*a dict"),
        ("label", [1, 0], "row 4.*a list"),
        ("label", {"id": 1}, "row 4.*a dict"),
    ],
)
def test_a_cell_of_several_values_is_refused(tmp_path, column, value, says):
    rows = [dict(row, **({column: value} if i == 3 else {})) for i, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text(lines(rows), "utf-8")
    with pytest.raises(InputError, match=says):
        load(tmp_path)


def test_bytes_of_a_table_are_texts(tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = [{name: value.encode() for name, value in row.items()} for row in ROWS]
    pandas.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    task = load(tmp_path, train="rows.parquet")
    assert everything(task) == sorted((row["text"], row["label"]) for row in ROWS)


@pytest.mark.parametrize("column", ["text", "label"])
def test_a_column_whose_name_stands_twice_is_refused(tmp_path, column):
    (tmp_path / "a.csv").write_text(
        table([dict(row, other=1) for row in ROWS]).replace("other", column), "utf-8"
    )
    with pytest.raises(InputError, match=f"column '{column}'.*two or more"):
        load(tmp_path, train="a.csv")


def test_values_to_be_predicted_are_no_classes(tmp_path):
    rows = [dict(row, label=i / 7) for i, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text(lines(rows), "utf-8")
    with pytest.raises(InputError, match="12 different numbers"):
        load(tmp_path)
    stars = [dict(row, label=[0.5, 1.0, 1.5][i % 3]) for i, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text(lines(stars), "utf-8")
    assert load(tmp_path).classes == ("0.5", "1", "1.5")
    (tmp_path / "rows.jsonl").write_text(lines(rows), "utf-8")
    names = [str(row["label"]) if i % 7 else str(i // 7) for i, row in enumerate(rows)]
    assert len(load(tmp_path, classes=names).classes) == 12


def test_half_characters_are_replaced_and_counted(tmp_path):
    odd = '{"text": "x \\ud83d y", "label": "no"}\n'
    odd += '{"text": "\\udc00\\ud83d\\ude00", "label": "yes"}\n'
    (tmp_path / "rows.jsonl").write_text(lines() + odd)
    task = load(tmp_path)
    texts = [text for text, _ in everything(task)]
    assert "x � y" in texts
    assert "�\N{GRINNING FACE}" in texts
    assert any(note.startswith("2 half characters in 'rows.jsonl'") for note in task.notes)


# Labels -------------------------------------------------------------------------------------------

ABSENT = [None, "", "  ", float("nan"), -1, "-1", -100, -1.0]


@pytest.mark.parametrize("value", ABSENT)
@pytest.mark.parametrize("classes", [None, ["no", "yes"]])
def test_an_absent_label_is_named_or_dropped_and_counted(tmp_path, value, classes):
    rows = [dict(row, label=value) if i in (3, 8) else row for i, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text(lines(rows), "utf-8")
    with pytest.raises(
        InputError, match=r"label in row 4 and 1 more of .*'rows\.jsonl'.*missing: "
    ):
        load(tmp_path, classes=classes)
    task = load(tmp_path, classes=classes, missing="drop")
    assert len(everything(task)) == 10
    assert task.classes == ("no", "yes")
    assert any(note.startswith("2 of 12 train rows of task 't'") for note in task.notes)


@pytest.mark.parametrize("value", ABSENT)
def test_hidden_test_labels_are_refused_with_a_hint(tmp_path, value):
    (tmp_path / "rows.jsonl").write_text(lines(), "utf-8")
    (tmp_path / "hidden.jsonl").write_text(lines([dict(row, label=value) for row in ROWS]))
    for missing in ("error", "drop"):
        with pytest.raises(InputError, match=r"test rows.*hidden.*validation file"):
            load(tmp_path, test="hidden.jsonl", missing=missing)


def test_minus_one_is_a_class_where_it_is_named(tmp_path):
    rows = [dict(row, label=[-1, 1][i % 2]) for i, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text(lines(rows))
    with pytest.raises(InputError, match="name it in 'classes'"):
        load(tmp_path)
    assert load(tmp_path, classes=["-1", "1"]).test.labels.max() == 1


def test_rows_without_a_text_are_dropped_too(tmp_path):
    rows = [dict(row, text=" ") if i == 5 else row for i, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text(lines(rows), "utf-8")
    with pytest.raises(InputError, match=r"none in row 6.*missing: drop"):
        load(tmp_path)
    task = load(tmp_path, missing="drop")
    assert len(everything(task)) == 11
    assert any("1 of 12 train rows" in note and "no text" in note for note in task.notes)


def test_labels_are_matched_without_case_and_punctuation(tmp_path):
    rows = [dict(row, label=["Not_Entailed", "entailed "][i % 2]) for i, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text(lines(rows))
    task = load(tmp_path, classes=["entailed", "not entailed"])
    assert {label for _, label in everything(task)} == {"entailed", "not entailed"}
    assert any("'Not_Entailed' is taken for 'not entailed'" in note for note in task.notes)


@pytest.mark.parametrize(
    ("names", "among", "expected"),
    [
        (["POS", "neg"], ["neg", "pos"], {"POS": "pos", "neg": "neg"}),
        (["sci-tech", "Sci/Tech"], ["Sci/Tech", "World"], {"Sci/Tech": "Sci/Tech"}),
        (["a"], ["A", "a."], {}),
        (["C"], ["C++", "C#"], {}),
        (["1"], ["-1", "1.0", "10"], {}),
        (["1.0"], ["10"], {}),
        (
            ["not-entailment"],
            ["entailment", "not_entailment"],
            {"not-entailment": "not_entailment"},
        ),
        (["?"], ["!"], {}),
        (["Ｙｅｓ"], ["yes"], {"Ｙｅｓ": "yes"}),
    ],
)
def test_names_match_where_that_is_unambiguous(names, among, expected):
    assert matched(names, among) == expected


SPELT = {  # labels in turn, and the classes that they are where these are named
    "case": (["Positive", "positive", "negative"], ["positive", "positive", "negative"]),
    "blanks": (["not ok", "ok", "not_ok", "OK"], ["not ok", "ok", "not ok", "ok"]),
    "three ways": (["Sci/Tech", "sci-tech", "SCI TECH", "World"], ["Sci/Tech"] * 3 + ["World"]),
}


@pytest.mark.parametrize("kind", SPELT)
def test_one_class_in_several_spellings_is_told_and_may_be_named(tmp_path, kind):
    said, meant = SPELT[kind]
    rows = [dict(row, label=said[i % len(said)]) for i, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text(lines(rows))
    apart = load(tmp_path)
    assert apart.classes == tuple(sorted(said))
    (note,) = [note for note in apart.notes if "are different classes" in note]
    assert all(repr(s) in note for s in said if said.count(s) == 1 and meant.count(s) != 1)
    named = load(tmp_path, classes=sorted(set(meant)))
    expected = [(row["text"], meant[i % len(said)]) for i, row in enumerate(ROWS)]
    assert everything(named) == sorted(expected)
    assert not any("are different classes" in note for note in named.notes)


@pytest.mark.parametrize("names", [("a", "A"), ("c++", "C++"), ("yes", "YES")])
def test_classes_that_are_named_apart_stay_apart(tmp_path, names):
    rows = [dict(row, label=names[i % 2]) for i, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text(lines(rows))
    task = load(tmp_path, classes=list(names))
    assert everything(task) == sorted((r["text"], r["label"]) for r in rows)
    assert not any("are different classes" in note for note in task.notes)


def test_halves_with_different_classes_share_one_list(tmp_path):
    (tmp_path / "rows.jsonl").write_text(lines())
    other = [{"text": f"t{i}", "label": ["maybe", "yes"][i % 2]} for i in range(6)]
    (tmp_path / "test.jsonl").write_text(lines(other))
    task = load(tmp_path, test="test.jsonl")
    assert task.classes == ("maybe", "no", "yes")
    assert [task.classes[k] for k in task.test.labels] == ["maybe", "yes"] * 3
    assert any(note == "task 't' has no test text of class no" for note in task.notes)


def test_rows_in_both_halves_are_counted(tmp_path):
    (tmp_path / "rows.jsonl").write_text(lines())
    fresh = [{"text": "new", "label": "no"}, {"text": "newer", "label": "yes"}]
    (tmp_path / "test.jsonl").write_text(lines([*ROWS[:3], *fresh]))
    assert (
        "3 of 5 test texts of task 't' are among its training texts too"
        in load(tmp_path, test="test.jsonl").notes
    )
    (tmp_path / "test.jsonl").write_text(lines(fresh))
    assert load(tmp_path, test="test.jsonl").notes == ()


# YAML ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "names"),
    [("[no, yes]", ("no", "yes")), ("[0, 1]", ("0", "1")), ("[off, ON]", ("off", "ON")),
     ("[1e3, 2e3]", ("1e3", "2e3")), ("[2020-01-01, 2021-01-01]", ("2020-01-01", "2021-01-01")),
     ("[null, ~]", ("null", "~")), ("[007, 0x1F]", ("007", "0x1F")),
     ("[1.0, 1.10]", ("1.0", "1.10")),
     ("\n- no\n- 12:30\n", ("no", "12:30"))],
)  # fmt: skip
def test_class_names_stay_as_they_are_written(tmp_path, written, names):
    rows = [dict(row, label=names[i % 2]) for i, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text(lines(rows))
    told = f"kind: text\ntrain: rows.jsonl\ntest: 0.25\ninputs: text\nseed: 1\nclasses: {written}\n"
    (tmp_path / "t.yaml").write_text(told)
    task = tasks.load(tmp_path / "t.yaml")
    assert task.classes == names
    assert {label for _, label in everything(task)} == set(names)


def test_a_column_may_be_called_as_yaml_pleases(tmp_path):
    rows = [{"y": row["text"], "no": row["label"]} for row in ROWS]
    (tmp_path / "rows.jsonl").write_text(lines(rows))
    told = "kind: text\ntrain: rows.jsonl\ntest: 0.25\ninputs: [y]\nlabel: no\n"
    (tmp_path / "t.yaml").write_bytes(codecs.BOM_UTF8 + told.encode())
    assert len(everything(tasks.load(tmp_path / "t.yaml"))) == 12


def test_a_key_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "t.yaml").write_text("kind: text\ntrain: a\ntest: b\ninputs: text\ntrain: c\n")
    with pytest.raises(InputError, match=r"'train': expected each key once.*line 2 and in line 5"):
        tasks.load(tmp_path / "t.yaml")
    (tmp_path / "t.yaml").write_text("{kind: text, train: a, test: 0.1, test: 0.2, inputs: text}")
    with pytest.raises(InputError, match="'test': expected each key once"):
        tasks.load(tmp_path / "t.yaml")


# Pictures -----------------------------------------------------------------------------------------


def pictures(folder, make, ending="png", **more):
    for half in ("train", "test"):
        for name in ("a", "b"):
            place = folder / half / name
            place.mkdir(parents=True, exist_ok=True)
            for i in range(4):
                make(i, half).save(place / f"{i}.{ending}", **more)


def photos(folder, **content):
    return load(folder, kind="image", train="train", test="test", inputs=None, **content)


def ramp(top, dtype, low=0.0):
    values = np.linspace(low, top, 64)[None].repeat(4, 0)
    return (
        values.round().astype(dtype) if np.issubdtype(dtype, np.integer) else values.astype(dtype)
    )


@pytest.mark.parametrize(
    ("ending", "top", "dtype", "low", "said"),
    [
        ("png", 65535, np.uint16, 0, "0 to 65535"), ("tif", 65535, np.uint16, 0, "0 to 65535"),
        ("png", 4095, np.uint16, 0, "0 to 4095"), ("tif", 900, np.uint16, 0, "0 to 1023"),
        ("tiff", 1, np.float32, 0, "0 to 1"), ("tiff", 750, np.float32, 0, "0 to 750"),
        ("tiff", 3071, np.int32, -1024, "-1024 to 3071"), ("tif", 255, np.uint16, 0, ""),
    ],
)  # fmt: skip
def test_deep_pictures_keep_their_levels(tmp_path, ending, top, dtype, low, said):
    from PIL import Image

    pictures(tmp_path, lambda i, half: Image.fromarray(ramp(top, dtype, low)), ending)
    task = photos(tmp_path)
    row = task.test.inputs[0, 0, :, 0].astype(int)
    assert (row[0], row[-1]) == (0, 255 if said.split()[-1:] != ["1023"] else 224)
    assert np.abs(np.diff(row)).max() <= 5
    assert any(f"values from {said}" in note for note in task.notes) == bool(said)


def test_one_deep_picture_stays_brighter_than_another(tmp_path):
    from PIL import Image

    def make(i, half):
        return Image.fromarray(np.full((4, 4), 10000 * (i + 1), np.uint16))

    pictures(tmp_path, make)
    assert sorted(set(photos(tmp_path).test.inputs.ravel())) == [39, 78, 117, 156]


def test_values_that_are_not_finite_are_refused(tmp_path):
    from PIL import Image

    bad = np.ones((4, 4), np.float32)
    bad[1, 1] = np.nan
    pictures(tmp_path, lambda i, half: Image.fromarray(bad), "tiff")
    with pytest.raises(InputError, match=r"0\.tiff.*not finite"):
        photos(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_pictures_stand_as_their_note_says(tmp_path, orientation, ending):
    from PIL import Image, ImageOps

    values = np.arange(6 * 10, dtype=np.uint8).reshape(6, 10) * 4
    note = Image.Exif()
    note[274] = orientation
    pictures(tmp_path, lambda i, half: Image.fromarray(values), ending, exif=note)
    plain = Image.fromarray(values)
    if ending == "jpg":  # its numbers are near those that were stored
        plain.save(tmp_path / "plain.jpg")
        plain = Image.open(tmp_path / "plain.jpg")
    plain.getexif()[274] = orientation
    upright = np.asarray(ImageOps.exif_transpose(plain))
    assert upright.shape == ((10, 6) if orientation > 4 else (6, 10))
    assert np.array_equal(photos(tmp_path).test.inputs[0, ..., 0], upright)


@pytest.mark.parametrize(
    "left", [".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/._0.png", "a/._0.png", ".git/x.png",
             "@eaDir/0.png", "a/Thumbs.db", "Thumbs.db", "a/.DS_Store", "a/nested.png/notes.txt",
             "a/deep/.hidden/1.png", "a/deep/@eaDir/1.png", "a/deep/._0.png"],
)  # fmt: skip
def test_what_systems_leave_behind_is_no_picture(tmp_path, left):
    from PIL import Image

    pictures(tmp_path, lambda i, half: Image.new("L", (4, 4), 50 * i + 20 * (half == "test")))
    file = tmp_path / "train" / left
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_bytes(b"whatever")
    task = photos(tmp_path)
    assert task.classes == ("a", "b")
    assert len(task.train) + len(task.validation) == 8


DEEP = ["a/1.png", "a/indoors/2.png", "a/indoors/night/3.png", "b/4.png", "b/more.png/5.png",
        "c/x/y/z/6.png", "c/x/7.PNG"]  # fmt: skip


def test_a_class_is_read_as_deep_as_it_goes_like_torchvision(tmp_path):
    from PIL import Image

    places = {}
    for half, shift in (("train", 0), ("test", 100)):
        for number, name in enumerate(DEEP):
            file = tmp_path / half / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), shift + 10 * number).save(file, "png")
            places[shift + 10 * number] = name[0]
    task = photos(tmp_path)
    assert task.classes == ("a", "b", "c")
    parts = (task.train, task.validation, task.test)
    read = {
        int(x[0, 0, 0]): "abc"[y] for p in parts for x, y in zip(p.inputs, p.labels, strict=True)
    }
    assert read == places
    assert sum(map(len, parts)) == 2 * len(DEEP)


def test_a_folder_that_holds_much_else_is_no_folder_of_images(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setattr("mats_core.tasks.folders.OTHERS", 40)
    pictures(tmp_path, lambda i, half: Image.new("L", (4, 4), 50 * i + 20 * (half == "test")))
    for number in range(36):
        (tmp_path / "train" / "a" / f"{number}.txt").touch()
    assert photos(tmp_path).classes == ("a", "b")
    for number in range(36, 42):
        (tmp_path / "train" / "a" / f"{number}.txt").touch()
    with pytest.raises(InputError, match="found more than 40 other files and folders below it"):
        photos(tmp_path)


def test_links_to_folders_are_followed_and_never_in_a_circle(tmp_path):
    from PIL import Image

    pictures(tmp_path, lambda i, half: Image.new("L", (4, 4), 50 * i + 20 * (half == "test")))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.new("L", (4, 4), 7).save(elsewhere / "1.png")
    os.symlink(elsewhere, tmp_path / "train" / "c")
    os.symlink(elsewhere, tmp_path / "train" / "a" / "more")
    os.symlink(tmp_path / "train", tmp_path / "train" / "b" / "again")
    task = photos(tmp_path)
    assert task.classes == ("a", "b", "c")
    assert len(task.train) + len(task.validation) == 8 + 2
    assert photos(tmp_path).digest == task.digest
    for level, file in enumerate(("1.png", "2.png"), 1):  # changed behind the link, and one more
        Image.new("L", (4, 4), 99).save(elsewhere / file)
        changed = photos(tmp_path)
        assert changed.digest != task.digest, "a remembered task is not that of these pictures"
        assert len(changed.train) + len(changed.validation) == 8 + 2 * level
        task = changed


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        ("photos", "photos", r"'test', 'train', which are halves.*Write 'photos/test'"),
        ("photos/train", "photos", r"test images.*halves"),
        ("wrapped", "photos/test", None),
        ("flat", "flat", r"found 4 images in no subfolder"),
        ("empty", "empty", r"a subfolder of images .* found an empty folder"),
        ("one", "one", r"at least two, found 1, 'pictures'"),
    ],
)
def test_subfolders_that_are_no_classes_are_refused(tmp_path, train, test, says):
    from PIL import Image

    def make(i, half):
        return Image.new("L", (4, 4), 50 * i + 20 * (half == "test"))

    pictures(tmp_path / "photos", make)
    for place in ("flat", "one/pictures/a", "one/pictures/b", "wrapped/a", "wrapped/train"):
        (tmp_path / place).mkdir(parents=True)
        for i in range(4):
            make(i, "train").save(tmp_path / place / f"{i}.png")
    (tmp_path / "empty").mkdir()
    if says is None:  # a class may be called train, where others are not
        assert load(tmp_path, kind="image", train=train, test=test, inputs=None).classes == (
            "a", "b", "train",
        )  # fmt: skip
        return
    with pytest.raises(InputError, match=says):
        load(tmp_path, kind="image", train=train, test=test, inputs=None)


def test_pictures_beside_the_classes_are_counted(tmp_path):
    from PIL import Image

    pictures(tmp_path, lambda i, half: Image.new("L", (4, 4), 50 * i + 20 * (half == "test")))
    for i in range(3):
        Image.new("L", (4, 4), i).save(tmp_path / "train" / f"{i}.png")
    note = "3 train images of task 't' lie in no subfolder, have no class and are left out"
    assert note in photos(tmp_path).notes


def test_halves_that_are_the_classes_can_be_named(tmp_path):
    from PIL import Image

    pictures(tmp_path / "train", lambda i, half: Image.new("L", (4, 4), 50 * i))
    task = load(tmp_path, kind="image", train="train", inputs=None, classes=["train", "test"])
    assert (len(task.train) + len(task.validation) + len(task.test)) == 16


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["cat/a.svg", "dog/b.heic"], "subfolders with files of .heic, .svg"),
        (["a.png", "b.png"], "2 images in no subfolder"),
        ([], "an empty folder"),
    ],
)
def test_what_lies_in_place_of_pictures_is_named(tmp_path, files, says):
    (tmp_path / "all").mkdir()
    for name in files:
        (tmp_path / "all" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "all" / name).write_bytes(b"x")
    with pytest.raises(InputError, match=says):
        load(tmp_path, kind="image", train="all", inputs=None)


def test_a_dangling_link_is_named(tmp_path):
    from PIL import Image

    pictures(tmp_path, lambda i, half: Image.new("L", (4, 4), 50 * i))
    os.symlink("/nowhere/7.png", tmp_path / "train" / "a" / "7.png")
    with pytest.raises(InputError, match=r"7\.png', a link to '/nowhere/7\.png', which is missing"):
        photos(tmp_path)


def test_pictures_in_both_halves_are_counted(tmp_path):
    from PIL import Image

    def make(i, half):
        return Image.new("L", (4, 4), 10 * i + (100 if half == "test" and i > 1 else 0))

    pictures(tmp_path, make)
    assert (
        "4 of 8 test images of task 't' are among its training images too" in photos(tmp_path).notes
    )
