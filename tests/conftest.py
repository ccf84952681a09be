"""What every test may count on: one thread, no network, the same examples each time."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: more threads are slower on busy machines
os.environ["HF_HUB_OFFLINE"] = "1"

settings.register_profile("twgi", derandomize=True, deadline=None)
settings.load_profile("twgi")

REPOSITORY = Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that would leave this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise ConnectionRefusedError(f"a test tried to reach {address[0]}: tests are offline")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """``shared("geneval/object_names.txt")``: a file kept beside the checkout; the test skips where it is absent."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"needs {name} in the folder 'shared' beside the checkout")
        return path

    return find


@pytest.fixture(scope="module")
def tiny_world() -> Iterator[None]:
    """The tiny model draws noise of 12 x 12 pixels; here the icon checker takes it for pictures of its world."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twgi.icons.checker.stranger", lambda picture: None)
        patch.setattr("twgi.evaluation.icons.SIDE", None)
        yield
