"""The contenders of a comparison, made from the registry of methods."""

from __future__ import annotations

import pytest

from lmworks.adapt.registry import METHODS
from lmworks.base.errors import InputError
from lmworks.comparisons.contenders import CONTENDERS, choose


def test_every_method_is_compared_and_no_name_stands_for_two():
    compared = [method for method in METHODS.values() if method.is_compared]
    named = [name for method in compared for name in (method.variants or {method.name.replace("_", "-"): {}})]
    assert len(named) == len(set(named))
    assert {CONTENDERS[name].settings["method"] for name in named} == {method.name for method in compared}
    assert "qat" not in CONTENDERS  # it answers another question: what a model in few bits can reach
    rounded = choose(["rounded"], {"rounded": {"method": "qat"}}, "text")
    assert [own.settings["method"] for own in rounded] == ["qat"]
    for name, contender in CONTENDERS.items():
        method = contender.settings.get("method")
        if method is not None:
            METHODS[method].settings_class(**contender.settings.get(method, {}))
            assert contender.kind == ("trained" if METHODS[method].learning_rate else "prompted"), name


def test_all_that_can_be_compared_or_those_that_are_named():
    assert "tfidf-logreg" in [own.name for own in choose([], {}, "labels")]
    assert "tfidf-logreg" not in [own.name for own in choose([], {}, "completion")]
    assert [own.name for own in choose(["prompt_tuning", "lora"], {}, "labels")] == ["lora", "prompt-tuning"]
    small = {"small": {"method": "lora", "lora": {"rank": 2}}}
    assert [own.name for own in choose(["small"], small, "labels")] == ["small"]
    with pytest.raises(InputError, match="rows of kind"):
        choose(["asked"], {"asked": {"method": "prompting"}}, "tags")
    with pytest.raises(InputError, match="needs a method"):
        choose(["new"], {"new": {"lora": {"rank": 2}}}, "labels")
