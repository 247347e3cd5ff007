"""The package: what a wheel holds, and that everything works where nothing but the wheel lies.

The wheel is built from a copy, so that nothing is written into the repository, and without the
network: the build backend is one of the development requirements.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from safetensors.torch import load_file, save_file

import mats_core

ROOT = Path(__file__).resolve().parent.parent
PARTS = (".streamlit", "mats_core", "pages", "sample_models")
FILES = (".gitignore", "app.py", "pyproject.toml", "README.md")
MOST_BYTES = 30e6
PATIENCE = 90  # seconds: two cores may be busy with other tests


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


# Requirements: pyproject.toml is the truth, the two files are the one-command way -----------------


def declared(extra: str = "") -> dict[str, str]:
    """Name → range of the dependencies, or of an extra with the extras that it names."""
    told = project()["project"]
    lines = told["optional-dependencies"][extra] if extra else told["dependencies"]
    wanted = [Requirement(line) for line in lines]
    ranges = {r.name: str(r.specifier) for r in wanted if r.name != told["name"]}
    for further in (other for r in wanted if r.name == told["name"] for other in r.extras):
        ranges |= declared(further)
    return ranges


def listed(file: str) -> dict[str, str]:
    lines = [
        line.partition("#")[0].strip() for line in (ROOT / file).read_text("utf-8").split("\n")
    ]
    wanted = [Requirement(line) for line in lines if line and not line.startswith("-r ")]
    assert len({r.name for r in wanted}) == len(wanted)
    return {r.name: str(r.specifier) for r in wanted}


def test_the_requirements_files_say_what_the_project_says():
    app = {**declared(), **declared("app")}
    assert listed("requirements.txt") == app
    assert listed("requirements-dev.txt") == {
        name: bounds for name, bounds in declared("dev").items() if name not in app
    }
    assert listed("requirements-notebook.txt") == {
        name: bounds for name, bounds in declared("notebook").items() if name not in app
    }
    for file in ("requirements-dev.txt", "requirements-notebook.txt"):
        assert "-r requirements.txt" in (ROOT / file).read_text("utf-8").split("\n")


def test_one_name_has_one_range():
    ranges: dict[str, str] = {}
    for extra in ("", *project()["project"]["optional-dependencies"]):
        for name, bounds in declared(extra).items():
            assert ranges.setdefault(name, bounds) == bounds, name
    (backend,) = map(Requirement, project()["build-system"]["requires"])
    assert ranges[backend.name] == str(backend.specifier)


# The wheel ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by pip, as a user's is."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, tree / file)
    # What measuring and merging leave beside the sample family must not travel.
    for left in ("statistics", "merged"):
        (tree / "sample_models" / "drawn" / left).mkdir(exist_ok=True)
        (tree / "sample_models" / "drawn" / left / "left.safetensors").write_bytes(b"left")
    words = ["--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", str(out), str(tree)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *words], check=True)
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_holds_the_library_the_app_and_the_sample_family(wheel):
    assert wheel.name.startswith(f"mats_explorer-{mats_core.__version__}-py3-none-any")
    assert wheel.stat().st_size < MOST_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"mats_explorer-{mats_core.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"mats_core", "mats_explorer", info}
    for part, home in zip(
        PARTS, ("mats_explorer/", "", "mats_explorer/", "mats_explorer/"), strict=True
    ):
        files = {file for file in (ROOT / part).rglob("*") if file.is_file()}
        for file in files:
            beside = file.relative_to(ROOT)
            left = beside.parts[0] == "sample_models" and {"statistics", "merged"} & {*beside.parts}
            if "__pycache__" not in beside.parts and not left:
                assert f"{home}{beside.as_posix()}" in names
    assert "mats_explorer/app.py" in names
    assert not [name for name in names if "left" in name or "__pycache__" in name]


def test_the_checkout_and_the_wheel_name_the_same_sources():
    told = project()
    installed = told["project"]["entry-points"]["mats_core.tasks"]
    beside = told["tool"]["mats_core"]["tasks"]
    # What stands in the library is called the same in the wheel.
    moved = {
        name: at if at.startswith("mats_core.") else f"mats_explorer.{at}"
        for name, at in beside.items()
    }
    assert installed == moved
    assert {"sample", "lm_eval"} == {*installed}


# Installed ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with the wheel and, by a path file, its dependencies."""
    home = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(home, symlinks=True)
    binaries = home / ("Scripts" if os.name == "nt" else "bin")
    place = subprocess.run(
        [binaries / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    Path(place, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    words = ["install", "--no-deps", "--no-index", "--force-reinstall", "-q", str(wheel)]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(binaries / "python"), *words], check=True
    )
    return binaries


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """An empty working directory, from which no checkout can be seen."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.delenv("MATS_FAMILIES", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(program: Path, *words: str) -> str:
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_installed_library_is_imported_and_loads_sample_tasks(installed, elsewhere):
    code = (
        "import mats_core, importlib.metadata as m; from mats_core import tasks; "
        "digits = tasks.load('sample:digits'); "
        "print(mats_core.__version__, m.version('mats-explorer'), mats_core.__file__, "
        "len(digits.train), digits.description, sep='\\n')"
    )
    version, packaged, file, examples, description = call(installed / "python", "-c", code).split(
        "\n"
    )[:5]
    assert version == packaged == mats_core.__version__
    assert Path(file).is_relative_to(installed.parent)
    assert examples == "958"
    assert "digits" in description


def test_no_name_but_its_own_two_is_taken_in_the_environment(installed, elsewhere):
    code = (
        "import importlib.util as u; "
        "print([n for n in ('app', 'pages', 'sample_models') if u.find_spec(n)])"
    )
    assert call(installed / "python", "-c", code) == "[]\n"


def test_the_installed_command_lists_methods_and_merges(installed, elsewhere):
    assert "usage: mats [-h]" in call(installed / "mats", "--help")
    printed = call(installed / "mats", "methods")
    assert all(f"\n{name} — " in f"\n{printed}" for name in mats_core.METHODS)
    for name, value in (("base", 0.0), ("one", 1.0), ("two", 3.0)):
        save_file({"w": torch.full((2, 3), value)}, elsewhere / f"{name}.safetensors")
    experts = "[{name: one, model: one.safetensors}, {name: two, model: two.safetensors}]"
    (elsewhere / "recipe.yaml").write_text(
        f"{{base: base.safetensors, experts: {experts}, method: average, output: out}}"
    )
    call(installed / "mats", "merge", "recipe.yaml")
    (written,) = (elsewhere / "out").glob("*.safetensors")
    torch.testing.assert_close(load_file(written)["w"], torch.full((2, 3), 2.0))


@pytest.fixture
def address(installed: Path, elsewhere: Path) -> Iterator[tuple[str, int]]:
    """The installed explorer on a free port; its log may tell of no error."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = elsewhere / "log"
    (elsewhere / ".streamlit").mkdir()  # settings of another project must not open ours
    (elsewhere / ".streamlit" / "config.toml").write_text('[server]\naddress = "0.0.0.0"\n')
    words = [str(installed / "mats"), "app", "--port", str(port), "--headless"]
    with log.open("w") as stream:
        app = subprocess.Popen(words, stdout=stream, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + PATIENCE
        while not answers(f"http://127.0.0.1:{port}/_stcore/health"):
            assert app.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", port
    finally:
        app.terminate()
        app.wait(20)
    assert "Traceback" not in log.read_text(), log.read_text()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def test_the_installed_explorer_starts_from_anywhere_for_this_machine_only(address):
    url, port = address
    assert answers(url)
    # Every 127.x.x.x is this machine on Linux: a server on all interfaces would answer there too.
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.2", port)) != 0
    # The settings beside app.py hold: a name that leads here is not enough to open a session.
    assert upgraded(port, f"localhost:{port}") == 101
    assert upgraded(port, f"elsewhere.example:{port}") == 403


def upgraded(port: int, host: str) -> int:
    """What a WebSocket of a session is answered, asked under the name `host`."""
    headers = {
        "Host": host, "Origin": f"http://{host}", "Connection": "Upgrade", "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/_stcore/stream", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


PAGE = """
import os, sys
from pathlib import Path
import mats_core
home = Path(mats_core.__file__).parents[1] / "mats_explorer"
sys.path.insert(0, str(home))  # as Streamlit does
from streamlit.testing.v1 import AppTest
app = AppTest.from_file(str(home / "app.py"), default_timeout=60).run()
print([e.value for e in app.exception], [e.value for e in app.error], [t.value for t in app.title])
print(app.selectbox(key="family").options)
sys.stdout.flush()
os._exit(0)  # the family is still being prepared
"""


def test_the_installed_explorer_opens_the_sample_family(installed, elsewhere):
    first, second = call(installed / "python", "-c", PAGE).splitlines()[-2:]
    assert first == "[] [] ['Merge']"
    assert second == "['Drawn eight']"
