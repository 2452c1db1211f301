"""The server by which processes find each other, asked as MPICH asks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from ronde import _pmi


class Server:
    """Of two processes. It ends when `starter` has been closed and all have left."""

    def __init__(self) -> None:
        here, self.starter = os.pipe()
        command = [sys.executable, "-I", _pmi.__file__, "2", "127.0.0.1"]
        printed = subprocess.run(command, stdin=here, stdout=subprocess.PIPE, text=True, check=True)
        os.close(here)
        self.port = int(printed.stdout)

    def process(self) -> Process:
        return Process(socket.create_connection(("127.0.0.1", self.port), timeout=30))

    def has_ended(self) -> bool:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                self.process().close()
            except ConnectionError:
                return True
            time.sleep(0.01)
        return False


class Process:
    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.lines = connection, connection.makefile("r")

    def say(self, text: str) -> None:
        self.connection.sendall(text.encode())

    def ask(self, line: str, answers: int = 1) -> list[str]:
        self.say(line + "\n")
        return [self.lines.readline().strip() for _ in range(answers)]

    def close(self) -> None:
        self.lines.close()
        self.connection.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    os.close(made.starter)
    assert made.has_ended()


def test_a_process_learns_who_it_is(server: Server) -> None:
    process = server.process()
    assert process.ask("cmd=initack pmiid=1", 4) == [
        "cmd=initack rc=0",
        "cmd=set size=2",
        "cmd=set rank=1",
        "cmd=set debug=0",
    ]
    assert process.ask("cmd=init pmi_version=1 pmi_subversion=1") == [
        "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0"
    ]
    assert process.ask("cmd=get_universe_size") == ["cmd=universe_size rc=0 size=2"]
    process.close()


def test_values_are_exchanged(server: Server) -> None:
    one, other = server.process(), server.process()
    assert one.ask("cmd=get kvsname=job key=where") == [
        "cmd=get_result rc=-1 msg=key_not_found value=unknown"
    ]
    one.ask("cmd=put kvsname=job key=where value=a#b=c:1$")
    one.say("cmd=barrier_in\n")
    assert other.ask("cmd=barrier_in") == ["cmd=barrier_out rc=0"]
    assert one.lines.readline() == "cmd=barrier_out rc=0\n"
    assert other.ask("cmd=get kvsname=job key=where") == [
        "cmd=get_result rc=0 msg=success value=a#b=c:1$"
    ]
    one.close(), other.close()


def test_lines_that_come_in_parts_or_together(server: Server) -> None:
    process = server.process()
    process.say("cmd=get_appn")
    time.sleep(0.05)
    process.say("um\ncmd=get_my_kvsname\n")
    assert process.lines.readline() == "cmd=appnum rc=0 appnum=0\n"
    assert process.lines.readline() == "cmd=my_kvsname rc=0 kvsname=job\n"
    process.close()


def test_what_it_does_not_know_and_nonsense(server: Server) -> None:
    process = server.process()
    assert process.ask("cmd=spawn nprocs=2") == ["cmd=spawn rc=-1 msg=not_supported"]
    process.say("GET / HTTP/1.1\n\x00\x01\n\ncmd=put\ncmd=initack\n" + "x" * (1 << 18))
    process.close()
    silent = server.process()
    silent.ask("cmd=get_maxes")
    silent.close()


def test_it_stays_until_all_have_left() -> None:
    server = Server()
    process = server.process()
    process.ask("cmd=get_appnum")
    os.close(server.starter)
    time.sleep(0.1)
    assert process.ask("cmd=get_appnum") == ["cmd=appnum rc=0 appnum=0"]
    process.close()
    assert server.has_ended()
