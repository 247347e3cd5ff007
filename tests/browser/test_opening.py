"""What a visitor sees first, wherever the app was started and whatever is loaded by then."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.browser.conftest import FAMILY, Visitor, missing, started

NUMBER = re.compile(r"Normalised accuracy \d+\.\d %")
# When the number and the first figure come: 0 while they are not there.
WATCH = """(() => { window.came = { number: 0, figure: 0 }; setInterval(() => {
  const here = { number: [...document.querySelectorAll('[data-testid=stCaptionContainer]')]
      .some((one) => /Normalised accuracy \\d+\\.\\d %/.test(one.innerText)),
    figure: document.querySelector('.js-plotly-plot') };
  for (const one in here) if (here[one] && !window.came[one]) window.came[one] = performance.now();
}, 20); })()"""


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


def test_the_number_is_there_before_the_figures(browser: Any, address: str):
    visitor = Visitor(browser, address)
    visitor.page.add_init_script(WATCH)
    visitor.page.goto(address)
    visitor.page.locator(".js-plotly-plot").first.wait_for()
    visitor.page.wait_for_timeout(100)
    came = visitor.page.evaluate("window.came")
    assert 0 < came["number"] < came["figure"]
    visitor.leave()
