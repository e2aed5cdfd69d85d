"""The settings of a studio: those of its server, which this machine alone reaches."""

from __future__ import annotations

from pydantic import Field, field_validator

from lmworks.serve.access import is_loopback
from lmworks.serve.settings import ServeSettings

ELSEWHERE = "from another machine: ssh -L PORT:127.0.0.1:PORT HOST, and open the address that is printed"


class StudioSettings(ServeSettings):
    """Where a studio is reached, and how much it takes on."""

    host: str = Field("127.0.0.1", description=f"An address of this machine alone; {ELSEWHERE}.")
    port: int = Field(8888, ge=0, le=65535, description="0: any that is free.")
    api_key_file: None = Field(None, description="Has no use here: the token in the address is the key.")

    @field_validator("host")
    @classmethod
    def _is_near(cls, host: str) -> str:
        if not is_loopback(host):
            raise ValueError(f"a studio is for this machine alone; {ELSEWHERE}")
        return host
