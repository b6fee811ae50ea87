"""What several of these tests need."""

import pytest

from stage import Upstream


@pytest.fixture
def upstream():
    upstream = Upstream()
    yield upstream
    upstream.close()
