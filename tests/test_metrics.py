"""The counters of a rank, over HTTP and in a file, where others or the disk do not play along."""

from __future__ import annotations

import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from ronde import _metrics


@pytest.fixture
def server() -> Iterator[_metrics.Server]:
    server = _metrics.Server(0, lambda: "ronde_calls_total 1\n")
    yield server
    server.close()


def port_of(server: _metrics.Server) -> int:
    return int(server._server.server_address[1])


def scrape(server: _metrics.Server, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port_of(server)}{path}", timeout=30) as answer:
        return str(answer.read().decode())


def test_a_query_is_ignored_and_other_paths_are_not_there(server: _metrics.Server) -> None:
    assert scrape(server) == scrape(server, "/metrics?x=1") == scrape(server, "/")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        scrape(server, "/other")


def test_idle_connections_use_up_no_files(
    server: _metrics.Server, capfd: pytest.CaptureFixture[str]
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    address = "127.0.0.1", port_of(server)
    others = [socket.create_connection(address) for _ in range(50)]
    refused = 0
    for each in others[_metrics._AT_ONCE :]:
        each.settimeout(30)
        refused += each.recv(1) == b""
    assert refused == len(others) - _metrics._AT_ONCE
    assert len(os.listdir("/proc/self/fd")) <= before + len(others) + _metrics._AT_ONCE
    for each in others:
        each.close()
    deadline = time.monotonic() + 30
    while True:  # until those that have gone are noticed
        try:
            assert scrape(server)
            break
        except OSError:
            assert time.monotonic() < deadline
    assert "Traceback" not in capfd.readouterr().err


def test_a_forked_child_leaves_the_port_alone(server: _metrics.Server) -> None:
    child = os.fork()
    if child == 0:
        os._exit(server._server.socket.fileno() != -1)
    assert os.waitpid(child, 0)[1] == 0
    assert scrape(server)


def test_a_file_is_written_again_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_metrics, "_EVERY", 0.01)
    folder = tmp_path / "folder"
    folder.mkdir()
    file = _metrics.File(folder / "metrics.prom", lambda: "β\n")
    deadline = time.monotonic() + 30
    folder.rename(tmp_path / "elsewhere")
    while not caplog.records:
        assert time.monotonic() < deadline
    time.sleep(0.1)
    folder.mkdir()
    while not (folder / "metrics.prom").exists():
        assert time.monotonic() < deadline
    file.close()
    assert len(caplog.records) == 1 and "for now" in caplog.text
    assert (folder / "metrics.prom").read_text(encoding="utf-8") == "β\n"
