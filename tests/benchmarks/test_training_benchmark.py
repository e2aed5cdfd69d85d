"""Arms count tokens and time alike, and see the same documents in the same order."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import arms
import breakdown
import figures
import limit
import ours
import pytest
import training
import work

from lmworks.data.sampler import BatchSampler
from lmworks.model.config import ModelConfig
from lmworks.model.sizes import linears

DOCUMENTS = [{"ids": list(range(5 + n % 3)), "prompt": 2, "number": n} for n in range(28)]


def test_summarize_excludes_the_warm_up_from_the_speed_only() -> None:
    result = figures.summarize(
        [100, 100, 30, 50], [10, 10, 20, 20], [9.0, 9.0, 1.0, 1.0], [4.0, 4.0, 1.0, 2.0], 3.5, 8e9
    )
    assert result["tokens_per_second"] == 40
    assert result["mean_loss"] == (4 * 20 + 1 * 20 + 2 * 20) / 60
    assert (result["tokens"], result["answer_tokens"]) == (280, 60)
    assert result["gflops"] == 4
    assert result["gflop_per_token"] == 0.1


def test_summarize_refuses_steps_that_do_not_match() -> None:
    with pytest.raises(SystemExit, match="as many"):
        figures.summarize([1] * 4, [1] * 4, [1.0] * 3, [1.0] * 4, 0.0)
    with pytest.raises(SystemExit, match="more than"):
        figures.summarize([1] * 2, [1] * 2, [1.0] * 2, [1.0] * 2, 0.0)


def test_lmworks_trains_on_the_documents_in_the_order_given() -> None:
    documents = [{**item, "ids": [item["number"], 1, 2]} for item in DOCUMENTS]
    examples = ours.arranged(documents)
    shuffled = [int(examples[place].ids[0]) for step in BatchSampler(len(examples), 8, epochs=1) for place in step]
    assert shuffled == list(range(len(documents)))
    assert ours.settings("lora", "float32").seed == 0  # the stream's


def test_loss_stands_on_the_answers() -> None:
    for example in ours.arranged(DOCUMENTS):
        assert example.loss.tolist() == [False] * 2 + [True] * (len(example) - 2)


def test_steps_hold_eight_documents() -> None:
    assert [len(step) for step in ours.steps_of(DOCUMENTS)] == [8, 8, 8, 4]


def test_flops_are_those_of_weights_and_visible_pairs() -> None:
    sizes = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2}
    config = ModelConfig(**sizes, num_attention_heads=2, max_position_embeddings=9)
    weights = sum(item.weights for item in linears(config))
    document = {"ids": list(range(6)), "prompt": 2}
    pairs, answers = 5 * 6 // 2, 4  # the last token is only predicted
    attention = 3 * 4 * 8 * pairs * config.num_hidden_layers
    head = 2 * 8 * 11 * answers
    assert ours.flops_of(config, [document], "full") == 6 * weights * 5 + attention + 3 * head
    adapters = 2 * 4 * work.RANK * (8 + 8)  # q, k, v, o of two layers
    assert ours.flops_of(config, [document], "lora") == 4 * weights * 5 + attention + 2 * head + 6 * adapters * 5


def test_peers_collator_pads_and_counts() -> None:
    pytest.importorskip("peft")
    import peers

    items = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [8]}]
    counted = peers.Counted(peers.padded)
    batch = counted(items)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [8, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    counted(items[1:])
    counted(items[:1])
    assert counted.by_step(1) == ([4, 1, 3], [3, 1, 2])
    assert counted.by_step(2) == ([5, 3], [4, 2])


@dataclass
class Event:
    name: str
    self_cpu_time_total: float
    cpu_parent: Any = field(default=None)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("aten::mm", breakdown.PRODUCTS),
        ("aten::addmm_", breakdown.PRODUCTS),
        ("mkldnn::_linear_pointwise", breakdown.PRODUCTS),
        ("kernel:matmul", breakdown.PRODUCTS),
        ("kernel:varlen_attention_backward", breakdown.ATTENTION),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", breakdown.ATTENTION),
        ("kernel:rms_norm", breakdown.PASSES),
        ("kernel:cross_entropy", breakdown.PASSES),
        ("aten::mul", breakdown.PASSES),
        ("optimizer:advance", breakdown.OPTIMIZER),
        ("_BlockBackward", breakdown.REST),
    ],
)
def test_parts_of_a_step(name: str, part: str) -> None:
    assert breakdown.part_of(name) == part


def test_sums_leave_python_what_is_left() -> None:
    update = Event("optimizer:advance", 1e6)
    inner = Event("aten::mul", 2e6, Event("anything", 0.0, update))
    events = [
        update,
        inner,
        Event("aten::mm", 5e6),
        Event("kernel:varlen_attention", 1e6),
        Event("_BlockBackward", 9e5),
    ]
    parts, costliest = breakdown.sums(events, 12.0)
    assert parts[breakdown.OPTIMIZER] == 3
    assert parts[breakdown.PRODUCTS] == 5
    assert parts[breakdown.REST] == 3
    assert sum(parts.values()) == 12
    assert costliest[0] == ("aten::mm", 5.0)
    lines = breakdown.table({"float32": {"parts": parts, "seconds": 12.0, "steps": 2, "costliest": costliest}})
    assert "2.500 s" in lines[1]
    assert "41.7 %" in lines[1]


def test_announced_kernels_reach_the_profiler() -> None:
    torch = pytest.importorskip("torch")

    class Library:
        number = 3

        def rms_norm(self, x: int, y: int = 0) -> int:
            return x + y

    announced = breakdown.Announced(Library())
    assert announced.number == 3
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        assert announced.rms_norm(1, y=2) == 3
        assert announced.rms_norm(4) == 4
    assert [event.name for event in profile.events()].count("kernel:rms_norm") == 2


def test_rate_counts_both_products() -> None:
    rates = limit.rates([(8, 4), (4, 8)], ["float32"], tokens=4, repeats=3)
    assert rates["float32"] == max(rates.values()) > 0
    assert rates["float32 by pytorch"] > 0


@pytest.mark.parametrize("workload", list(training.TITLES))
def test_arms_are_those_that_the_machine_can_tell_of(workload: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "bfloat16_is_faster", lambda: False)
    monkeypatch.setattr(arms, "worth_running", lambda precision: precision == "float32")
    plain = training.arms_of(workload)
    assert {arm.role for arm in plain} >= {training.OURS, training.PEER}
    assert not [arm.name for arm in plain if "bf" in arm.name]
    monkeypatch.setattr(arms, "bfloat16_is_faster", lambda: True)
    monkeypatch.setattr(arms, "worth_running", lambda precision: True)
    every = training.arms_of(workload)
    assert {arm.name for arm in every} > {arm.name for arm in plain}
    assert len({arm.name for arm in every}) == len(every)
    assert all((training.HERE / arm.command[0]).is_file() for arm in every)


def test_an_arm_that_fails_is_reported_and_excluded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    output = {"peak_gb": 1.0, "mean_loss": 2.0, "first_steps_s": 1.0, "tokens": 9, "answer_tokens": 5, "losses": [2.0]}
    arm = f"import json, sys; print(json.dumps({{**{output}, 'tokens_per_second': float(sys.argv[1])}}))"
    (tmp_path / "arm.py").write_text(arm)
    (tmp_path / "few.py").write_text(arm.replace("'tokens': 9", "'tokens': 3 if '--steps' in sys.argv else 9"))
    (tmp_path / "bad.py").write_text("raise SystemExit('it broke')")
    (tmp_path / "limit.py").write_text('print(\'{"float32": 100.0, "bfloat16": 900.0}\')')
    monkeypatch.setattr(training, "HERE", tmp_path)
    monkeypatch.setattr(arms, "bfloat16_is_faster", lambda: True)
    chosen = [
        training.Arm("mine", ("arm.py", "30"), training.OURS),
        training.Arm("bad", ("bad.py",), training.EXTRA),
        training.Arm("fast", ("arm.py", "20"), training.PEER),
        training.Arm("slow", ("arm.py", "5"), training.PEER),
        training.Arm("tried", ("few.py", "7"), training.PEER, doubtful=True),
        training.Arm("good after all", ("few.py", "19"), training.PEER, doubtful=True),
        training.Arm("once", ("arm.py", "6"), training.EXTRA),
    ]
    result = training.take_turns(chosen, [], 2)
    assert (result.left, list(result.faults), len(result.rates)) == (["slow", "tried"], ["bad"], 2)
    every = {"mine": 2, "fast": 2, "slow": 1, "tried": 1, "good after all": 2, "once": 1}
    assert {name: len(rounds) for name, rounds in result.rounds.items()} == every
    assert result.tried == ["tried"]
    assert capsys.readouterr().out.count("it broke") == 1
    lines = training.table(chosen, result)
    assert lines[0].startswith("best peer: fast")
    assert "bad: failed, see above" in lines
    assert training.losses("lora", result) == ["every arm saw 9 tokens, 5 of them with loss"]
