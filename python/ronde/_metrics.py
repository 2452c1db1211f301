"""The counters of a rank as Prometheus reads them: over HTTP, or in a file."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _core, _files

if TYPE_CHECKING:
    from .context import World

__all__ = ["File", "Server", "counters", "start"]

_log = logging.getLogger("ronde")
_EVERY = 10.0  # seconds between two writes of a file
_AT_ONCE = 4  # connections that are open
_PATIENCE = 5.0  # seconds until one sends something
_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def counters(world: World) -> dict[str, float]:
    """What this rank has done since `ronde.init`, by the names of COUNTERS."""
    values: dict[str, float] = {}
    for (name, unit, _), count in zip(_core.COUNTERS, world.record.counts, strict=True):
        values[name] = count if unit == 1 else count * unit
    with world.counting:
        live = (process_set._communicator for process_set, _ in list(world.sets.values()))
        sent = sum(each.bytes_sent for each in live if each is not None)
        values["bytes_sent"] = world.sent + sent
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


class _Listener(ThreadingHTTPServer):
    """Every user of the machine can connect: each in a thread, but few at once."""

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self._free = threading.Semaphore(_AT_ONCE)
        super().__init__(("127.0.0.1", port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The other side has gone, which is nothing for the output of the job."""


class Server:
    """Answers at /metrics of a port of localhost, from a thread."""

    def __init__(self, port: int, read: Callable[[], str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = _PATIENCE

            def do_GET(self) -> None:
                if self.path.partition("?")[0] not in ("/", "/metrics"):
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

        self._server = _Listener(port, Handler)
        # Else the port would stay taken as long as a child lives.
        os.register_at_fork(after_in_child=self._server.socket.close)
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
        failing = False
        while not self._ends.wait(_EVERY):
            try:
                self._write()
                failing = False
            except OSError as error:
                if not failing:
                    why = error.strerror
                    _log.warning(
                        "the counters cannot be written to %s for now: %s", self._path, why
                    )
                failing = True

    def _write(self) -> None:
        _files.replace(self._path, [self._read().encode()])

    def close(self) -> None:
        self._ends.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._write()
