"""The forms of benchmarks by name."""

from __future__ import annotations

from lmworks.suites.choices import Choices
from lmworks.suites.entities import Entities
from lmworks.suites.form import Form
from lmworks.suites.texts import Generation, LastWord
from lmworks.suites.vectors import Retrieval, Similarity

FORMS: dict[str, Form] = {
    "choices": Choices(),
    "generation": Generation(),
    "last_word": LastWord(),
    "similarity": Similarity(),
    "retrieval": Retrieval(),
    "entities": Entities(),
}
