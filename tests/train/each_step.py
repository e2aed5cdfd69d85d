"""Calls a function after each step of a training, with the step's journal line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lmworks.base.journal import RunFolder


@contextmanager
def after_each_step(function: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    write = RunFolder.write

    def written(self: RunFolder, event: str, **fields: Any) -> dict[str, Any]:
        line = write(self, event, **fields)
        if event == "step":
            function(fields)
        return line

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "write", written)
        yield
