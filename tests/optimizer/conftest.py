"""A world for the tests of this folder."""

from __future__ import annotations

import types
from collections.abc import Iterator

import pytest
from ronde import _core, context, settings
from ronde.process_set import global_process_set


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[context.World]:
    """A world of one rank without MPI; a world that other tests have is put back."""
    inproc = _core.InprocWorld(1)
    loaded = settings.load({})
    control = _core.Control(inproc.transport(0, 0), context.where, print)
    communicator = _core.Communicator(control, inproc.transport(0, 1), 0, [0], loaded.core)
    engine = _core.Engine(control, loaded.fusion_bytes, False, False)
    state = types.SimpleNamespace(settings=loaded, sets={}, forked=False, engine=engine)
    monkeypatch.setattr(context, "_world", state)
    with monkeypatch.context() as attached:
        for name, value in vars(global_process_set).items():
            attached.setattr(global_process_set, name, value)  # to be put back
        global_process_set._attach(0, communicator)
        yield state
