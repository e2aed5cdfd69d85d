"""The settings of a studio."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from lmworks.base.settings import Duration
from lmworks.serve.settings import EngineSettings, ServeSettings


class StudioSettings(EngineSettings):
    """Where a studio is reached, which is on this machine alone, and how much it takes on."""

    hints: ClassVar[dict[str, str]] = {
        "host": "a studio is for this machine alone; from another one: ssh -L 8888:127.0.0.1:8888 HOST"
    }
    port: int = Field(8888, ge=0, le=65535, description="0: any that is free.")
    stop_limit: Duration = Field(5.0, gt=0, description="How long answers may go on after SIGTERM.")

    @property
    def serving(self) -> ServeSettings:
        """Those of its server."""
        return ServeSettings(
            port=self.port, stop_limit=self.stop_limit, parallel=self.parallel, cache_memory=self.cache_memory
        )
