"""A server by which the processes of a job find each other: MPICH and Intel MPI ask it who they are.

    python _pmi.py SIZE HOST

prints its port, and goes on in the background until all processes have left: the pipe that is its standard
input tells that the one which started it has ended. Launchers of MPI have such a server; this one is for
processes that something else has started (_torchrun.py). It speaks PMI-1, lines of `key=value`, which MPICH
uses where PMI_PORT is set: "PMI: A Scalable Parallel Process-Management Interface for Extreme-Scale Systems"
(Balaji et al., 2010), and the description of the wire protocol in MPICH's documents.

It imports nothing of Ronde, so that it starts at once.
"""

from __future__ import annotations

import os
import resource
import selectors
import socket
import sys
from contextlib import suppress

__all__: list[str] = []

Fields = dict[str, str]

# Of names, keys and values: as long as those of MPICH's own launcher.
_LIMITS = {"kvsname_max": 256, "keylen_max": 64, "vallen_max": 1024}
_LONGEST = 1 << 16  # line, in bytes
_PATIENCE = 5.0  # seconds


class Job:
    """What the processes have said."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.values: Fields = {}
        self.in_barrier: list[Process] = []

    def answer(self, process: Process, asked: Fields) -> None:
        """Says what there is to say to this line."""
        command = asked.get("cmd", "")
        if command == "initack":  # who it is was in its environment
            process.say("initack", rc=0)
            process.say("set", size=self.size)
            process.say("set", rank=asked["pmiid"])
            process.say("set", debug=0)
        elif command == "init":
            process.say("response_to_init", pmi_version=1, pmi_subversion=1, rc=0)
        elif command == "get_maxes":
            process.say("maxes", rc=0, **_LIMITS)
        elif command == "get_appnum":
            process.say("appnum", rc=0, appnum=0)
        elif command == "get_universe_size":
            process.say("universe_size", rc=0, size=self.size)
        elif command == "get_my_kvsname":
            process.say("my_kvsname", rc=0, kvsname="job")
        elif command == "put":
            self.values[asked["key"]] = asked["value"]
            process.say("put_result", rc=0, msg="success")
        elif command == "get":
            value = self.values.get(asked["key"])
            if value is None:
                process.say("get_result", rc=-1, msg="key_not_found", value="unknown")
            else:
                process.say("get_result", rc=0, msg="success", value=value)
        elif command == "barrier_in":
            self.in_barrier.append(process)
            if len(self.in_barrier) == self.size:
                for each in self.in_barrier:
                    each.say("barrier_out", rc=0)
                self.in_barrier.clear()
        elif command == "finalize":
            process.say("finalize_ack", rc=0)
        elif command != "abort":  # which whoever started the processes will see
            process.say(command, rc=-1, msg="not_supported")


class Process:
    """The connection to one of them."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(_PATIENCE)  # nobody waits for one that asks and does not read
        self.connection = connection
        self._received = b""

    def say(self, command: str, **fields: object) -> None:
        line = " ".join(f"{key}={value}" for key, value in {"cmd": command, **fields}.items())
        with suppress(OSError):  # it has ended, which the next look tells
            self.connection.sendall(line.encode() + b"\n")

    def lines(self) -> list[Fields] | None:
        """What it has said meanwhile. None once it has ended, or says nothing that makes sense."""
        try:
            received = self.connection.recv(1 << 16)
        except OSError:
            received = b""
        if not received or len(self._received) > _LONGEST:
            return None
        *lines, self._received = (self._received + received).split(b"\n")
        return [_fields(line.decode(errors="replace")) for line in lines]


def _fields(line: str) -> Fields:
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def serve(server: socket.socket, job: Job, starter: int) -> None:
    """Until the process that started this one has ended, and all that have connected."""
    selector = selectors.DefaultSelector()
    selector.register(server, selectors.EVENT_READ)
    selector.register(starter, selectors.EVENT_READ)
    processes: dict[int, Process] = {}
    started = True
    while started or processes:
        for key, _ in selector.select():
            if key.fd == starter:
                selector.unregister(starter)
                started = False
            elif key.fd == server.fileno():
                with suppress(OSError):  # who has left already
                    connection, _ = server.accept()
                    processes[connection.fileno()] = Process(connection)
                    selector.register(connection, selectors.EVENT_READ)
            else:
                process = processes[key.fd]
                lines = process.lines()
                with suppress(KeyError):  # a stranger, as anybody can connect
                    for line in lines or ():
                        job.answer(process, line)
                if lines is None:
                    selector.unregister(key.fd)
                    del processes[key.fd]
                    process.connection.close()


def main(size: str, host: str) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a file for each process
    server = socket.create_server((host, 0), backlog=int(size))
    print(server.getsockname()[1], flush=True)
    if os.fork():
        os._exit(0)
    os.setsid()  # Ctrl-C is not for it
    null = os.open(os.devnull, os.O_RDWR)
    for each in 1, 2:  # whoever started it waits for their end
        os.dup2(null, each)
    serve(server, Job(int(size)), starter=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
