from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

DEVICES = 2


class Device:
    used = -1

    def __init__(self, number: int) -> None:
        assert number in range(DEVICES)
        self._number = number

    def use(self) -> None:
        Device.used = self._number


class Stream:
    ptr = 0x57

    def __init__(self) -> None:
        self.queue: list[Callable[[], None]] = []

    def synchronize(self) -> None:
        for each in self.queue:
            each()
        self.queue.clear()


_stream = Stream()
runtime = SimpleNamespace(getDeviceCount=lambda: DEVICES)


def get_current_stream() -> Stream:
    return _stream
