"""What every test of builds with endpoints may count on."""

import pytest
from tests.data.factory.building import SECRET


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, no proxy on the way to this machine, and no time lost between attempts."""
    monkeypatch.setenv("STUDIO_KEY", SECRET)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("twgi.client.MAX_WAIT", 0.0)
