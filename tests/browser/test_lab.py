"""The panel in a real JupyterLab: by keyboard, in both themes, and what is left in the file."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.browser.conftest import OURS, ROOT, _wait

pytestmark = pytest.mark.browser
pytest.importorskip("jupyterlab")

PATIENCE = 90_000  # milliseconds: the kernel imports torch on a busy machine
SETTINGS = "lab/user-settings/@jupyterlab/apputils-extension"
MOST_BYTES = 100_000
CODE = (
    "import mats_core as mats\nx = mats.explore({folder!r}, examples=48)",
    "import threading\n"
    "print('threads', sum(t.name == 'mats-explore' for t in threading.enumerate()))",
)
CONTRAST = """
element => {
  const numbers = colour => (colour.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const over = (front, back) => {
    const alpha = front.length > 3 ? front[3] : 1;
    return [0, 1, 2].map(i => alpha * front[i] + (1 - alpha) * back[i]);
  };
  const chain = [];
  for (let node = element; node; node = node.parentElement) chain.unshift(node);
  let back = [255, 255, 255], opacity = 1;
  for (const node of chain) {
    const style = getComputedStyle(node);
    back = over(numbers(style.backgroundColor), back);
    opacity *= Number(style.opacity);
  }
  const front = over([...numbers(getComputedStyle(element).color).slice(0, 3), opacity], back);
  const light = colour => {
    const [r, g, b] = colour.map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}
"""

BEYOND = """
element => element.getBoundingClientRect().right
  - element.closest('.jp-OutputArea-output').getBoundingClientRect().right
"""


def theme(folder: Path, name: str) -> None:
    """The theme of the next page that is loaded; and no question about news."""
    place = folder / "config" / SETTINGS
    place.mkdir(parents=True, exist_ok=True)
    (place / "themes.jupyterlab-settings").write_text(json.dumps({"theme": f"JupyterLab {name}"}))
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (place / "notification.jupyterlab-settings").write_text(json.dumps(quiet))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, tiny_family: Path) -> Iterator[tuple[str, Path]]:
    """JupyterLab on a free port, over a folder with one notebook: (address, folder)."""
    folder = tmp_path_factory.mktemp("lab")
    v4 = nbformat.v4
    cells = [v4.new_code_cell(text.format(folder=str(tiny_family))) for text in CODE]
    (folder / "work").mkdir()
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(book, folder / "work" / "explore.ipynb")
    theme(folder, "Light")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        **{f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA")},
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }
    words = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token=t"]
    words += [
        f"--ServerApp.root_dir={folder / 'work'}",
        "--allow-root",
        "--ServerApp.port_retries=0",
    ]
    with (folder / "log").open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *words],
            env=environment, cwd=folder, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        _wait(f"http://127.0.0.1:{port}/api?token=t", folder / "log")
        yield f"http://127.0.0.1:{port}/lab/tree/explore.ipynb?token=t", folder
    finally:
        server.terminate()
        server.wait(20)


class Reader:
    """A window on the notebook that remembers what was asked outside, and complaints."""

    def __init__(self, browser: Any, address: str, width: int = 1280) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 1200})
        self.page.set_default_timeout(PATIENCE)
        self.outside: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda r: None if OURS.match(r.url) else self.outside.append(r.url))
        self.page.on(
            "console", lambda m: self.complaints.append(m.text) if m.type == "error" else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)
        self.page.get_by_text(re.compile(r"\| Idle")).first.wait_for()
        self.number = self.page.locator(".mats-live .mats-number").first

    def run_all(self) -> None:
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    def legible(self) -> None:
        """Text of the panel against its ground: 4.5 to 1, as WCAG asks."""
        for where in (".mats-number", ".mats-x td", ".mats-x .quiet", ".mats-x .r", "label"):
            for element in self.page.locator(f".mats-live {where}").all()[:12]:
                if element.is_visible():
                    ratio = element.evaluate(CONTRAST)
                    assert ratio >= 4.5, f"{where}: {ratio:.1f}"

    def picture(self, name: str) -> None:
        folder = os.environ.get("MATS_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=f"{folder}/lab-{name}.png")

    def leave(self) -> None:
        self.page.close()
        assert self.outside == []
        assert self.complaints == []


def test_a_panel_in_jupyterlab(lab: tuple[str, Path], browser: Any) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)
    address, folder = lab
    reader = Reader(browser, f"{address}&reset")
    page, number = reader.page, reader.number
    reader.run_all()
    expect(number).to_have_text(re.compile(r"^\d+\.\d %$"))
    expect(page.get_by_text("threads 1")).to_be_visible()
    reader.legible()

    # A knob by keyboard: the number changes.
    before = number.inner_text()
    handle = page.locator(".widget-slider", has_text="Scaling").locator(".noUi-handle").first
    handle.focus()
    page.keyboard.press("End")  # far enough to tell by a few examples
    expect(number).not_to_have_text(before)
    assert page.locator(".mats-live [aria-live=polite] .mats-number").count() == 1

    # The code is copied where the button says so.
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="As code").click()
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    lines = page.locator(".mats-live pre.all").inner_text()
    assert "merged = mats.merge(family.recipe(" in lines
    assert page.evaluate("navigator.clipboard.readText()").strip() == lines.strip()

    # Conjugate gradients: the curve, and what it says.
    page.get_by_label("Method", exact=True).select_option("K-FAC block (MaTS)")
    page.get_by_role("button", name="Solve", exact=True).focus()
    page.keyboard.press("Enter")
    curve = page.get_by_role("img", name="relative residual by iteration")
    expect(curve.first).to_be_visible()
    expect(page.locator(".mats-live").get_by_text("Accuracy along the iterations")).to_be_visible()
    reader.legible()
    reader.picture("light")

    # A layer out of the picture of the model.
    page.get_by_role("button", name="Layer", exact=True).click()
    page.locator(".mats-live button[title$='query']").first.click()
    expect(page.get_by_text("Effective rank from").first).to_be_visible()

    # Running the cell again leaves one thread, and what is saved is small and says something.
    reader.run_all()
    expect(number).to_have_text(re.compile(r"^\d+\.\d %$"))
    expect(page.get_by_text("threads 1")).to_be_visible()
    expect(page.locator(".mats-live progress")).to_have_count(0)
    page.keyboard.press("Control+s")
    file = folder / "work" / "explore.ipynb"
    page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
    text = file.read_text("utf-8")
    assert len(text.encode()) < MOST_BYTES
    (saved,) = (
        "".join(output["data"]["text/html"])
        for output in json.loads(text)["cells"][0]["outputs"]
        if "text/html" in output.get("data", {})
    )
    assert "of the experts' accuracy" in saved
    assert "<table>" in saved
    reader.leave()

    # Dark, and narrow: restored by the page, legible, and not wider than the window.
    theme(folder, "Dark")
    dark = Reader(browser, address, width=700)
    expect(dark.number).to_be_visible()
    assert dark.page.evaluate("document.body.dataset.jpThemeLight") == "false"
    dark.picture("dark")
    dark.legible()
    for shown in dark.page.locator(".mats-live .mats-x").all():
        assert shown.evaluate(BEYOND) <= 1
    dark.leave()
