"""Tiny networks and documents as fixtures."""

import pytest
import torch
from tiny_networks import make_examples, make_network


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny products are not worth a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(name="make_network")
def _make_network():
    return make_network


@pytest.fixture(name="make_examples")
def _make_examples():
    return make_examples
