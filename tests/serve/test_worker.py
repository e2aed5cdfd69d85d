"""The worker: models that come and go while it runs."""

from __future__ import annotations

import pytest
from tiny_server import Served, open_tiny, wait_until

from lmworks.serve.request import Finished, Stopping
from lmworks.serve.worker import Worker


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory):
    return open_tiny(tmp_path_factory.mktemp("model"), context=200_000)


@pytest.fixture(name="worker")
def _worker():
    worker = Worker([])
    worker.start()
    yield worker
    worker.stop()


def test_a_model_that_is_added_is_computed(model, worker):
    served = Served(model)
    asked = served.ask("one", limit=5)
    assert asked.events == []
    worker.add(served.scheduler)
    wait_until(lambda: asked.of(Finished, 0))


def test_a_model_that_is_removed_ends_what_it_writes_and_others_go_on(model, worker):
    leaving, staying = Served(model), Served(model)
    for served in (leaving, staying):
        worker.add(served.scheduler)
    written, other = leaving.ask("one", limit=100_000), staying.ask("two", limit=100_000)
    wait_until(lambda: written.events and other.events)
    gone = Stopping("closed")
    worker.remove(leaving.scheduler, gone)
    assert written.error is gone
    assert leaving.scheduler.running() == 0
    count = len(other.events)
    wait_until(lambda: len(other.events) > count)
    assert other.error is None
    late = leaving.ask("three")
    assert late.error is gone
    assert leaving.scheduler.waiting() == 0
