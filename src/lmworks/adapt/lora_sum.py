"""Weighted sums of LoRA adapters, as PEFT's add_weighted_adapter computes them: of several updates w_i s_i B_i A_i of
each linear one update B A, of scale 1.

cat     the factors beside each other: exactly the sum; its rank is the sum of the ranks.
svd     the product of this rank that is nearest to the sum (Eckart & Young 1936), by its singular values; by default of
        the largest rank of the summands.
linear  A = sum of sqrt(|w_i s_i|) A_i and B = sum of sqrt(|w_i s_i|) B_i, with the sign in A: of equal ranks alone, and
        no sum of the updates, since B A has products of different adapters, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch

from lmworks.adapt.lora_files import Factors
from lmworks.base.errors import InputError

Combination = Literal["cat", "svd", "linear"]


def weighted_sum(
    adapters: Mapping[str, Mapping[str, Factors]],
    weights: Mapping[str, float],
    how: Combination = "cat",
    rank: int | None = None,
) -> dict[str, Factors]:
    """The updates of a weighted sum of adapters; a linear that an adapter leaves as it is has an update of 0 there.

    Args:
        adapters: by name: updates by the names of the linears.
        weights: by the same names.
        how: see the file.
        rank: of svd; no update gets a larger one than its sum has.

    Raises:
        InputError: there is no such way, it takes no rank, or the ranks differ where they must be equal.
    """
    if how not in get_args(Combination):
        raise InputError(f"{how!r} is no way to add adapters", "how", "one of: " + ", ".join(get_args(Combination)))
    if rank is not None and (how != "svd" or rank < 1):
        raise InputError(f"the rank {rank} was given for {how}", "rank", "a rank of 1 or more is chosen for svd alone")
    result: dict[str, Factors] = {}
    for linear in dict.fromkeys(name for updates in adapters.values() for name in updates):
        present = {name: updates[linear] for name, updates in adapters.items() if linear in updates}
        if how == "linear":
            _check_equal_ranks(linear, present)
            result[linear] = _linear(present, weights)
            continue
        result[linear] = _concatenated(present, weights)
        if how == "svd":
            largest = max(update.rank for updates in adapters.values() for update in updates.values())
            result[linear] = _truncated(result[linear], largest if rank is None else rank)
    return result


def _concatenated(updates: Mapping[str, Factors], weights: Mapping[str, float]) -> Factors:
    a = torch.cat([update.a * (weights[name] * update.scale) for name, update in updates.items()])
    return Factors(a, torch.cat([update.b for update in updates.values()], dim=1), 1.0)


def _truncated(update: Factors, rank: int) -> Factors:
    """The nearest update of a rank: the singular values of B A are those of the small matrix between the orthogonal
    parts of B and A, so the product itself, as large as the weight, is never computed."""
    left, between_left = torch.linalg.qr(update.b.double())
    right, between_right = torch.linalg.qr(update.a.double().t())
    u, values, v = torch.linalg.svd(between_left @ between_right.t(), full_matrices=False)
    b, a = left @ (u * values)[:, :rank], v[:rank] @ right.t()
    return Factors(a.float().contiguous(), b.float().contiguous(), update.scale)


def _linear(updates: Mapping[str, Factors], weights: Mapping[str, float]) -> Factors:
    factors = {name: weights[name] * update.scale for name, update in updates.items()}
    a = [update.a * (abs(factors[name]) ** 0.5 * (1 if factors[name] >= 0 else -1)) for name, update in updates.items()]
    b = [update.b * abs(factors[name]) ** 0.5 for name, update in updates.items()]
    return Factors(torch.stack(a).sum(0), torch.stack(b).sum(0), 1.0)


def _check_equal_ranks(linear: str, updates: Mapping[str, Factors]) -> None:
    if len({update.rank for update in updates.values()}) > 1:
        ranks = ", ".join(f"{name} {update.rank}" for name, update in updates.items())
        raise InputError(f"linear adds updates of equal ranks; those of {linear}: {ranks}", "how", "take cat or svd")
