"""A W&B server for the tests that want one."""

from collections.abc import Iterator

import pytest

from tests.tracking.server import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as it:
        yield it
