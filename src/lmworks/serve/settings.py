"""The settings of a server, and of a batch."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from lmworks.base.figures import parse_byte_size
from lmworks.base.settings import Duration, Settings

ORIGIN = re.compile(r"\*|https?://[^/\s?#]+")


class EngineSettings(Settings):
    """How much a model takes on."""

    parallel: int = Field(
        16, ge=1, le=1024, description="Answers that a model writes at a time, where the native engine computes it."
    )
    cache_memory: str = Field(
        "256MB", description="Keys and values of what was read stay for later requests up to this size, for each model."
    )

    @field_validator("cache_memory")
    @classmethod
    def _is_memory(cls, text: str) -> str:
        parse_byte_size(text)
        return text

    @property
    def cache_bytes(self) -> int:
        """``cache_memory`` in bytes."""
        return parse_byte_size(self.cache_memory)


class BatchSettings(EngineSettings):
    """How much a model takes on, and the adapters beside it."""

    adapters: str | None = Field(
        None,
        description="A folder whose folders are LoRA adapters, or runs with one: all are served beside the models.",
    )


class ServeSettings(BatchSettings):
    """Where a server is reached, and how much it takes on."""

    host: str = Field("127.0.0.1", description="The address to serve at; others than this machine's own need a key.")
    port: int = Field(8080, ge=0, le=65535, description="0: any that is free.")
    api_key_file: str | None = Field(
        None, description="Keys of which clients must send one, one a line; LMWORKS_API_KEY has another one."
    )
    queue_size: int = Field(
        128, ge=1, description="Answers that may wait for each model; further requests get status 429."
    )
    time_limit: Duration = Field(600.0, gt=0, description="How long a request may take, waiting included.")
    stop_limit: Duration = Field(30.0, gt=0, description="How long requests may go on after SIGTERM.")
    body_limit: str = Field("4MB", description="The largest body of a request.")
    tls_certificate: str | None = Field(None, description="A PEM file with the certificate chain: serve HTTPS.")
    tls_key: str | None = Field(None, description="A PEM file with its key, where the certificate file has none.")
    cors_origins: list[str] = Field(
        default_factory=list,
        description="Web pages of these origins may ask, such as https://example.org; '*': of all.",
    )
    log_texts: bool = Field(False, description="Write the bodies of requests into the log, with their texts.")

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin: write scheme, host and port alone, as https://example.org")
        return origins

    @field_validator("body_limit")
    @classmethod
    def _is_size(cls, text: str) -> str:
        parse_byte_size(text)
        return text

    @property
    def body_bytes(self) -> int:
        """``body_limit`` in bytes."""
        return parse_byte_size(self.body_limit)
