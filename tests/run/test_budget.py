"""A budget of memory is kept by the plan's figures, with the least that has to change; what cannot fit is refused."""

from __future__ import annotations

from typing import Any

import pytest

from lmworks.adapt.lora import LoRASettings
from lmworks.adapt.registry import make
from lmworks.base.errors import InputError
from lmworks.base.figures import parse_byte_size
from lmworks.base.probes import Rates
from lmworks.base.settings import build, parse_overrides
from lmworks.model.config import ModelConfig
from lmworks.run import plan
from lmworks.run.budget import MARGIN
from lmworks.run.footprint import DataStatistics, ProcessMemory
from lmworks.run.largest_row import LargestRow
from lmworks.run.timing import Timing
from lmworks.train.settings import TrainSettings

CONFIG = ModelConfig(
    vocab_size=64, hidden_size=64, intermediate_size=256, num_hidden_layers=8, num_attention_heads=4,
    max_position_embeddings=512,
)  # fmt: skip
LARGE_VOCABULARY = CONFIG.model_copy(update={"vocab_size": 100_000})  # its embeddings take most of the memory
LENGTHS = [100, 120, 90, 200] * 4
PLENTY = 1 << 50

TIMING = Timing(step=0.1, step_tokens=40, evaluation=0.001, answer=0.0, answer_rows=0)


def _plan(
    memory: str | None = None,
    available: int = PLENTY,
    method: str = "lora",
    bfloat16: float = 0.0,
    config: ModelConfig = CONFIG,
    **changes: object,
) -> plan.Plan:
    values = {"precision": "float32", "batch_size": 8, "row_tokens": 1024, "memory": memory} | changes
    measured = {"float32": 100.0, "bfloat16": bfloat16, "share": 1.0}
    rates = Rates(**(dict.fromkeys(Rates.__dataclass_fields__, 0) | measured))  # type: ignore[arg-type]
    train = TrainSettings(**values)  # type: ignore[arg-type]
    chosen = make(method, LoRASettings(rank=4) if method == "lora" else None)
    return plan.make(
        config, chosen, train, DataStatistics(LENGTHS), ProcessMemory(10_000_000, available=available), rates, TIMING
    )


def test_nothing_changes_where_it_fits() -> None:
    created = _plan("100GB")
    assert (created.recompute, created.row_tokens, created.choice) == (0, 1024, "")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_fewest_blocks_that_fit(method: str) -> None:
    whole = _plan(method=method).memory["total"]
    least = min(_plan(method=method, recompute=blocks).memory["total"] for blocks in range(9))
    assert least < whole
    most = (whole + least) // 2
    created = _plan(f"{round(most / (1 - MARGIN))}B", method=method)
    assert created.memory["total"] <= most
    assert created.row_tokens == 1024
    assert 0 < created.recompute <= 8
    assert _plan(method=method, recompute=created.recompute - 1).memory["total"] > most
    assert f"{created.recompute} of 8 blocks" in created.choice
    assert any(created.choice in line for line in created.lines())


def test_then_smaller_rows_but_no_document_is_divided() -> None:
    least = min(_plan(recompute=blocks).memory["total"] for blocks in range(9))
    created = _plan(f"{round((least - 10_000) / (1 - MARGIN))}B")
    assert 200 <= created.row_tokens < 1024
    assert created.memory["total"] <= least - 10_000
    train = TrainSettings()
    created.apply_to(train)
    assert (train.recompute, train.row_tokens) == (created.recompute, created.row_tokens)


def test_a_budget_below_the_weights_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        _plan("11MB")
    assert caught.value.place == "train.memory"
    assert "weights and libraries alone" in caught.value.fault
    assert "--memory" in caught.value.hint


def test_a_machine_too_small_is_an_error_before_the_start() -> None:
    whole = _plan().memory["total"]
    with pytest.raises(InputError) as caught:
        _plan(available=whole - 1)
    assert "this machine has" in caught.value.fault
    assert caught.value.place == "memory"
    assert _plan(f"{whole - 1}B", available=whole).recompute > 0
    with pytest.raises(InputError, match="needs") as caught:
        _plan("100GB", available=1000)
    assert caught.value.hint == "a machine with more memory"


def _least(**changes: object) -> int:
    """Bytes with all blocks recomputed and rows of one document."""
    return min(_plan(recompute=blocks, row_tokens=200, **changes).memory["total"] for blocks in range(9))


def _obeyed(hint: str) -> dict[str, Any]:
    """The settings that the options in a hint mean."""
    values = parse_overrides(hint.split(",")[0].split())
    return values.get("train", values)


@pytest.mark.parametrize("method", ["lora", "full", "last_layers"])
@pytest.mark.parametrize("part", [0.2, 0.4, 0.6, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("changes", [{}, {"packing": False}, {"optimizer_state": "int8", "packing": False}])
@pytest.mark.parametrize("budgeted", [True, False])
def test_every_hint_works_when_it_is_obeyed(method: str, part: float, changes: dict, budgeted: bool) -> None:
    whole = _plan(method=method, **changes).memory["total"]
    given = {"memory": f"{round(part * whole)}B"} if budgeted else {"available": round(part * whole)}
    try:
        _plan(method=method, **(changes | given))
    except InputError as error:
        hints = error.hint.split(" or ")
        for hint in (hint for hint in hints if hint.startswith("--")):
            assert _plan(**({"method": method} | changes | given | _obeyed(hint)))
    else:
        assert budgeted, "nothing is changed where nobody gave a budget"


def test_full_training_that_does_not_fit_suggests_lora_if_that_fits() -> None:
    full = {"method": "full", "optimizer_state": "int8"}
    with pytest.raises(InputError) as caught:
        _plan(f"{round((_least(**full) - 1000) / (1 - MARGIN))}B", **full)
    assert "--method lora" in caught.value.hint


def test_an_open_precision_is_float32_before_the_run_is_refused() -> None:
    """Frozen weights are held in bfloat16 beside float32, so that float32 alone takes less."""
    lora = {"method": "lora", "precision": "auto", "bfloat16": 200.0, "config": LARGE_VOCABULARY}
    assert _plan(**lora).precision == "bfloat16"
    least = {name: _least(precision=name, config=LARGE_VOCABULARY) for name in ("float32", "bfloat16")}
    assert least["float32"] < least["bfloat16"]
    budget = round((least["float32"] + least["bfloat16"]) / 2 / (1 - MARGIN))
    created = _plan(f"{budget}B", **lora)
    assert created.precision == "float32"
    assert created.memory["total"] <= budget
    assert "float32 instead of bfloat16, which would need" in created.choice
    assert created.choice == created.precision_reason
    train = TrainSettings()
    created.apply_to(train)
    assert train.precision == "float32"
    with pytest.raises(InputError, match="needs"):
        _plan(f"{budget}B", precision="bfloat16", config=LARGE_VOCABULARY)
    with pytest.raises(InputError, match="needs"):
        _plan("12MB", **lora)


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2 * 10**9), ("1500 MB", 15 * 10**8), ("1.5GiB", 3 << 29), ("512m", 512 * 10**6)]
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_byte_size(text) == size


@pytest.mark.parametrize("text", ["2 bananas", "", "-1GB", "0GB", "GB", "1,5GB"])
def test_what_is_no_size_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(InputError) as caught:
        build(TrainSettings, {"memory": text})
    assert "memory" in str(caught.value)
    assert "2GB" in str(caught.value)


def test_the_largest_row_is_that_of_the_steps_to_come() -> None:
    few = TrainSettings(steps=1, batch_size=1, seed=1)
    assert LargestRow.of(LENGTHS, [], few).lengths in ([100], [120], [90], [200])
    assert sum(LargestRow.of(LENGTHS, [], TrainSettings(batch_size=8, row_tokens=256)).lengths) <= 256
