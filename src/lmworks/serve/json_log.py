"""The log: JSON objects, one a line. It has no texts of requests, also where something fails that should not."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import TextIO

LOGGER = "lmworks.serve"
FIELDS = "fields"
"""The attribute of a log record with more values: ``extra={FIELDS: {...}}``."""


class JsonFormatter(logging.Formatter):
    """A log record as a JSON object. Of an exception its type and where it was raised: its message may hold a text."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        values = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage() if record.name == LOGGER else record.name,
            **getattr(record, FIELDS, {}),
        }
        if record.name != LOGGER and record.exc_info is None:
            values["message"] = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])
            values["exception"] = record.exc_info[0].__name__
            values["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(values, ensure_ascii=False)


def start_log(stream: TextIO | None = None) -> None:
    """Write what the server and uvicorn log to a stream; default: standard error."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name, level in ((LOGGER, logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
