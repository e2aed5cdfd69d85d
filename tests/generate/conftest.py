"""What tests of the native engine share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lmworks.kernels.native_module import native_module


@pytest.fixture(params=native_module().instruction_sets() if native_module() else [])
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of this processor, selected."""
    module = native_module()
    before = module.instruction_set()
    module.set_instruction_set(request.param)
    yield request.param
    module.set_instruction_set(before)
