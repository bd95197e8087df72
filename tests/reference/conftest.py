"""What every reference test must leave behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch.overrides import _get_current_function_mode_stack


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """See that a test leaves no gates and taps behind: they would act in every test after it."""
    before = len(_get_current_function_mode_stack())
    yield
    assert len(_get_current_function_mode_stack()) == before
