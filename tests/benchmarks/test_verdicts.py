"""What is printed as reached follows from the figures."""

from __future__ import annotations

from typing import Any

import pytest
import verdicts
from verdicts import Verdict


def arm(speed: float, peak: float = 8.0, losses: tuple[float, ...] = (2.0, 1.0), gflops: float = 150.0) -> Any:
    return {"tokens_per_second": speed, "peak_gb": peak, "losses": list(losses), "gflops": gflops}


ROUNDS: dict[str, Any] = {
    "lmworks float32": [arm(400, 2.0), arm(100, 1.5), arm(340, 1.6)],
    "slow peer": [arm(90)],
    "peer": [arm(200), arm(60), arm(170)],
}
RATES = [{"float32": rate, "float32 by pytorch": rate} for rate in (190.0, 200.0, 900.0)]


def test_a_ratio_is_taken_within_each_round() -> None:
    assert verdicts.ratio(ROUNDS, "lmworks float32", "peer", "tokens_per_second") == 2.0
    assert verdicts.ratio(ROUNDS, "slow peer", "peer", "tokens_per_second") == 0.45


def test_the_best_peer_ran_in_every_round() -> None:
    lucky = {**ROUNDS, "slow peer": [arm(10_000)]}
    assert verdicts.best(lucky, ["slow peer", "peer"]) == "peer"
    assert verdicts.best(lucky, ["slow peer"]) == "slow peer"
    assert verdicts.best({}, ["peer"]) is None


def test_peers_far_behind() -> None:
    first = {name: rounds[:1] for name, rounds in ROUNDS.items()}
    assert verdicts.far_behind(first, ["slow peer", "peer", "failed"], 0.8) == ["slow peer"]
    assert verdicts.far_behind({}, ["peer"], 0.8) == []


def test_each_figure_is_judged_by_its_own_bound() -> None:
    rounds = {**ROUNDS, "bf16 peer": [arm(250), arm(70), arm(200)]}
    by_name = {item.name: item for item in verdicts.lora(rounds, ["peer float32", "bf16 peer"], RATES, False)}
    assert by_name["LoRA float32: tokens/s beside the best peer"].reached is None
    rounds["peer float32"] = rounds.pop("peer")
    by_name = {item.name: item for item in verdicts.lora(rounds, ["peer float32", "bf16 peer"], RATES, False)}
    speed = by_name["LoRA float32: tokens/s beside peer float32"]
    best = by_name["LoRA float32: tokens/s beside bf16 peer"]
    share = by_name["LoRA float32: share of the machine's limit"]
    peak = by_name["LoRA float32: peak memory"]
    assert (speed.measured, speed.asked, speed.reached) == (2.0, 1.45, True)
    assert (best.measured, best.asked, best.reached) == (1.6, 1.45, True)
    assert (share.measured, share.asked, share.reached) == (75.0, 85, False)
    assert (peak.measured, peak.reached) == (1.6, True)


def test_bfloat16_is_judged_where_it_is_faster() -> None:
    rounds = {**ROUNDS, "lmworks bfloat16": [arm(580, losses=(2.0, 1.2)), arm(170), arm(500)]}
    rates = [{**rate, "bfloat16": 800.0} for rate in RATES]
    _, speed, *_, apart = verdicts.lora(rounds, ["peer"], rates, has_bfloat16=True)
    assert (round(speed.measured or 0, 2), speed.asked, speed.reached) == (2.9, 3.0, False)
    assert apart.measured == pytest.approx(100 * 0.1 / 1.5)
    assert not apart.reached
    assert "NOT REACHED" in apart.line()


def test_more_is_asked_where_pytorch_leaves_a_processor_idle() -> None:
    idle = [{"float32": 480.0, "float32 by pytorch": 210.0, "bfloat16": 900.0}]
    busy = [{"float32": 210.0, "float32 by pytorch": 200.0, "bfloat16": 500.0}]
    assert verdicts.targets(idle, True).best == 3.2
    assert verdicts.targets(idle, False).float32 == 1.8
    assert verdicts.targets(busy, True).best == 1.45
    assert verdicts.targets([{**busy[0], "bfloat16": 2400.0}], True).best == 3.0


def test_a_failed_figure_is_reported_and_never_reached() -> None:
    without = {"peer": ROUNDS["peer"]}
    rates = [{**rate, "bfloat16": 300.0} for rate in RATES]
    lines = verdicts.lora(without, ["peer"], rates, has_bfloat16=True)
    assert all(item.reached is None and item.why for item in lines)
    (alone,) = verdicts.compared({"lmworks float32": [arm(9)]}, "lmworks float32", ["peer"], "x", 2.0)
    assert alone.reached is None
    assert "no peer" in alone.line()


def test_bounds_count_as_reached() -> None:
    assert Verdict("", 2.0, 2.0).reached
    assert Verdict("", 2.0, 2.0, is_upper_bound=True).reached
    assert Verdict("", 2.01, 2.0, is_upper_bound=True).reached is False


def test_losses_step_by_step() -> None:
    rounds = {"a": [arm(1, losses=(2.0, 1.0, 4.0))], "b": [arm(1, losses=(2.0, 1.25, 4.0))]}
    assert verdicts.difference(rounds, "a", "b") == 0.2
    with pytest.raises(ValueError, match="argument 2"):
        verdicts.difference({**rounds, "b": [arm(1, losses=(2.0,))]}, "a", "b")
