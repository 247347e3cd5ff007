"""What a server leaves behind that is ended as service managers and containers end it."""

from __future__ import annotations

from tests.browser.conftest import started


def test_a_shared_server_that_is_terminated_leaves_nothing_of_its_visitors(tmp_path):
    kept = {"MATS_DEMO": "1", "TMPDIR": str(tmp_path), "MATS_CACHE": str(tmp_path / "cache")}
    with started(tmp_path / "log", **kept):
        (own,) = tmp_path.glob(".mats-*")
        (own / "session").mkdir(exist_ok=True)
    assert not own.exists()
    assert not list(tmp_path.glob(".mats-*"))
    assert "Traceback" not in (tmp_path / "log").read_text()
