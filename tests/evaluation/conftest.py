"""What tests of evaluation share."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def tiny_world() -> Iterator[None]:
    """The tiny model draws noise of 12 x 12 pixels; here the icon checker takes it for pictures of its world."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twgi.icons.checker.stranger", lambda picture: None)
        patch.setattr("twgi.evaluation.icons.SIDE", None)
        yield
