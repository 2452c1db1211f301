"""The counters of a rank as Prometheus reads them: over HTTP, or in a file."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from . import _core, _files

if TYPE_CHECKING:
    from .context import World

__all__ = ["File", "Server", "counters", "start"]

_log = logging.getLogger("ronde")
_EVERY = 10.0  # seconds between two writes of a file
_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def counters(world: World) -> dict[str, float]:
    """What this rank has done since `ronde.init`, by the names of COUNTERS."""
    values: dict[str, float] = {}
    for (name, unit, _), count in zip(_core.COUNTERS, world.record.counts, strict=True):
        values[name] = count if unit == 1 else count * unit
    live = (process_set._communicator for process_set, _ in list(world.sets.values()))
    values["bytes_sent"] = world.sent + sum(each.bytes_sent for each in live if each is not None)
    return values


def start(world: World, rank: int, local_rank: int) -> Iterator[Server | File]:
    """What the settings ask for. What cannot be had is a warning: the job works without it."""

    def read() -> str:
        return _text(counters(world), rank)

    port, file = world.settings.metrics_port, world.settings.metrics_file
    if port is not None:
        try:
            yield Server(port + local_rank, read)
        except (OSError, OverflowError) as error:
            _log.warning("RONDE_METRICS_PORT: port %d cannot be used: %s", port + local_rank, error)
    if file is not None:
        try:
            yield File(_files.of_rank(file, rank).absolute(), read)
        except OSError as error:
            _log.warning("RONDE_METRICS_FILE: %s cannot be written: %s", file, error.strerror)


def _text(values: dict[str, float], rank: int) -> str:
    """The format that Prometheus calls text: https://prometheus.io/docs/instrumenting/exposition_formats"""
    lines = []
    for name, _, meaning in _core.COUNTERS:
        lines.append(f"# HELP ronde_{name}_total {meaning}")
        lines.append(f"# TYPE ronde_{name}_total counter")
        lines.append(f'ronde_{name}_total{{rank="{rank}"}} {values[name]!r}')
    return "\n".join(lines) + "\n"


class Server:
    """Answers at /metrics of a port of localhost, from a thread."""

    def __init__(self, port: int, read: Callable[[], str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path not in ("/", "/metrics"):
                    self.send_error(404)
                    return
                body = read().encode()
                self.send_response(200)
                self.send_header("Content-Type", _TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nobody asked for a line for each request."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="ronde-metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class File:
    """Is written anew every ten seconds and at the end, so that readers always find a whole one."""

    def __init__(self, path: Path, read: Callable[[], str]) -> None:
        self._path, self._read = path, read
        self._write()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._work, name="ronde-metrics", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._ends.wait(_EVERY):
            try:
                self._write()
            except OSError as error:
                _log.warning("the counters cannot be written to %s: %s", self._path, error.strerror)
                return

    def _write(self) -> None:
        _files.replace(self._path, self._read())

    def close(self) -> None:
        self._ends.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._write()
