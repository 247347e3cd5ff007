"""What a visitor sees first, wherever the app was started."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.browser.conftest import FAMILY, Visitor, missing, started

NUMBER = re.compile(r"Normalised accuracy \d+\.\d %")


def test_an_app_started_in_another_folder_shows_the_page(browser: Any, tmp_path: Path):
    if not (FAMILY / "family.yaml").is_file():
        missing("the sample family")
    log, results = tmp_path / "log", str(tmp_path / "results")
    with started(log, tmp_path, MATS_RESULTS=results) as (address, _):
        visitor = Visitor(browser, address)
        page = visitor.page
        page.goto(address)
        page.get_by_text(NUMBER).first.wait_for()  # also while PyTorch is loaded
        page.get_by_role("heading", name="Merge", level=1, exact=True).wait_for()
        page.get_by_role("combobox", name="Family of models", exact=True).wait_for()
        visitor.leave()
    assert "Traceback" not in log.read_text()
