"""Tiny networks and documents as fixtures."""

import pytest
from tiny_networks import make_examples, make_network


@pytest.fixture(name="make_network")
def _make_network():
    return make_network


@pytest.fixture(name="make_examples")
def _make_examples():
    return make_examples
