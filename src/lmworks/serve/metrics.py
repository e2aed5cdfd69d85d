"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from lmworks.serve.request import FinishReason
from lmworks.serve.scheduler import Observer, Scheduler

CONTENT_TYPE = CONTENT_TYPE_LATEST
TOKEN_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
BATCH_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128)
REQUEST_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Metrics:
    """The counts of one server."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "lmworks_requests", "Requests by path and status of HTTP.", ["path", "status"], registry=registry
        )
        self.tokens = Counter(
            "lmworks_tokens", "Tokens: of prompts read and reused, of answers.", ["model", "kind"], registry=registry
        )
        self.finished = Counter("lmworks_answers", "Answers by why they ended.", ["model", "reason"], registry=registry)
        self.first_token = Histogram(
            "lmworks_time_to_first_token_seconds",
            "From a request to its first token.",
            ["model"],
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self.between = Histogram(
            "lmworks_time_between_tokens_seconds",
            "From a token of an answer to its next one.",
            ["model"],
            buckets=TOKEN_SECONDS,
            registry=registry,
        )
        self.seconds = Histogram(
            "lmworks_answer_seconds",
            "From a request to the end of an answer.",
            ["model"],
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self.batch = Histogram(
            "lmworks_batch_size",
            "Answers that were computed together, one token of each.",
            ["model"],
            buckets=BATCH_SIZES,
            registry=registry,
        )
        self._gauges = {
            "waiting": Gauge("lmworks_answers_waiting", "Answers without a place.", ["model"], registry=registry),
            "running": Gauge("lmworks_answers_running", "Answers with a place.", ["model"], registry=registry),
            "cache": Gauge("lmworks_cache_bytes", "Bytes of keys and values.", ["model"], registry=registry),
        }

    def of_model(self, model: str) -> Observer:
        """What counts for a model's scheduler."""
        return _ModelObserver(self, model)

    def watch(self, model: str, scheduler: Scheduler) -> None:
        """Ask a model's scheduler for its gauges, whenever somebody reads them."""
        self._gauges["waiting"].labels(model).set_function(scheduler.waiting)
        self._gauges["running"].labels(model).set_function(scheduler.running)
        self._gauges["cache"].labels(model).set_function(lambda: scheduler.cache_bytes)

    def unwatch(self, model: str) -> None:
        """Forget a model that is no longer served; what was counted of it stays."""
        for gauge in self._gauges.values():
            gauge.remove(model)

    def text(self) -> bytes:
        """All counts in Prometheus' format."""
        return generate_latest(self._registry)


class _ModelObserver(Observer):
    """Counts what a scheduler does under its model's name."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._read = metrics.tokens.labels(model, "prompt")
        self._reused = metrics.tokens.labels(model, "reused")
        self._written = metrics.tokens.labels(model, "answer")
        self._first, self._between = metrics.first_token.labels(model), metrics.between.labels(model)
        self._seconds, self._batch = metrics.seconds.labels(model), metrics.batch.labels(model)
        self._finished = metrics.finished
        self._model = model

    def prompt_read(self, tokens: int) -> None:
        """A part of a prompt was read."""
        self._read.inc(tokens)

    def prompt_reused(self, tokens: int) -> None:
        """So many tokens of a prompt need not be read."""
        self._reused.inc(tokens)

    def first_token(self, seconds: float) -> None:
        """The first token of an answer came."""
        self._written.inc()
        self._first.observe(seconds)

    def next_token(self, seconds: float) -> None:
        """Another token came."""
        self._written.inc()
        self._between.observe(seconds)

    def step(self, answers: int) -> None:
        """So many answers were computed together."""
        self._batch.observe(answers)

    def finished(self, reason: FinishReason, seconds: float) -> None:
        """An answer ended."""
        self._finished.labels(self._model, reason).inc()
        self._seconds.observe(seconds)
