"""The tiny tokenizers of tests/text, for examples made of them."""

import sys
from pathlib import Path

import hypothesis

sys.path.insert(0, str(Path(__file__).parents[1] / "text"))

hypothesis.settings.register_profile("unhurried", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("unhurried")
