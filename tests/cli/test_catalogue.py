"""The methods are listed without PyTorch, from a file that says what is declared."""

from __future__ import annotations

import json
import shutil

import pytest

from mats_core.cli import catalogue, listing, main
from tests.importing import loads_none_of


def test_the_file_is_the_declaration():
    content = json.loads(catalogue.FILE.read_text("utf-8"))
    written = {key: content[key] for key in ("methods", "steps")}
    assert (written, content["declared in"]) == (catalogue.declared(), catalogue.sources()), (
        "mats_core/cli/catalogue.json is stale: python -m mats_core.cli.catalogue"
    )
    assert list(written["methods"]) == list(catalogue.declared()["methods"])  # as they are listed


@pytest.mark.parametrize("words", [[], ["kfac"], ["--markdown"], ["--json"], ["none"]])
def test_listing_imports_neither_torch_nor_what_declares(words):
    lines = f"from mats_core.cli import main; assert main({['methods', *words]}) in (0, 2)"
    loads_none_of(lines, "torch", "numpy", "pydantic", "yaml", "mats_core.methods")


def test_help_and_version_import_no_parser_of_yaml():
    lines = "import mats_core.__main__; from mats_core.cli.main import parser; parser()"
    loads_none_of(lines, "torch", "numpy", "pydantic", "yaml", "json.tool")


def test_an_edit_of_a_declaration_is_seen(tmp_path, monkeypatch):
    folder = tmp_path / "methods"
    shutil.copytree(catalogue.METHODS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(catalogue, "METHODS", folder)
    before = catalogue.sources()
    assert before == json.loads(catalogue.FILE.read_text("utf-8"))["declared in"]
    ties = folder / "ties.py"
    text = ties.read_text("utf-8")
    for old, new, changes in (
        ("        0.2,\n", "        0.3,\n", True),  # a default
        ('    space: InSpace = "full"\n', "", True),
        ('    title="TIES",', '    title="Ties",', True),
        ("    return _agreed(torch.stack(", "    return _agreed(torch.cat(", False),  # computes
        ("import torch\n", "# a remark\n\nimport torch\n", False),
        ("\n", "\r\n", False),
    ):
        assert old in text
        ties.write_text(text.replace(old, new, 1 if old != "\n" else -1), "utf-8", newline="")
        assert (catalogue.sources() != before) is changes, old
    ties.write_text(text, "utf-8")
    (folder / "another.py").write_text('NAME = "another"\n')
    assert catalogue.sources() != before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"declared in": {"ties.py": "0"}}'])
def test_a_file_that_is_stale_or_damaged_counts_for_nothing(content, tmp_path, monkeypatch):
    file = tmp_path / "catalogue.json"
    file.write_text(content)
    monkeypatch.setattr(catalogue, "FILE", file)
    monkeypatch.setattr(catalogue, "declared", lambda: {"methods": {}, "steps": {}})
    monkeypatch.delitem(catalogue.sys.modules, "mats_core.methods")
    assert catalogue.known() == {"methods": {}, "steps": {}}


def test_what_is_printed_is_the_same_from_the_file_and_as_declared(monkeypatch, capsys):
    content = json.loads(catalogue.FILE.read_text("utf-8"))
    for words in ([], ["ties"], ["--json"], ["--markdown"]):
        told = []
        for known in (lambda: content, catalogue.declared):
            monkeypatch.setattr(catalogue, "known", known)
            assert main(["methods", *words]) == 0
            told.append(capsys.readouterr().out)
        assert told[0] == told[1]
    assert listing.markdown(content) == told[0]


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("MaTS Explorer 0.")
