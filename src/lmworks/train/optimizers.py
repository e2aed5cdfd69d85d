"""Parameter groups, AdamW and learning-rate schedules. Knows no loop and no loss."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from lmworks.adapt import registry as methods
from lmworks.base.errors import InputError
from lmworks.kernels import adamw as adamw_kernel
from lmworks.kernels.adamw import AdamWScalars
from lmworks.kernels.dispatch import supports
from lmworks.train import eight_bit, row_moments
from lmworks.train.paged_memory import PagedMemory, is_available, paged_bytes
from lmworks.train.settings import PORTION_BYTES, OptimizerSettings

MIN_8BIT_SIZE = 4096  # tensors with fewer elements have float32 moments
MOMENTS = ("exp_avg", "exp_avg_sq")
TOUCHED = "touched"  # in a parameter's state: which rows have moments; not saved, since the moments tell it
NO_FACTORS: Mapping[str, float] = MappingProxyType({})
SLICE_SIZE = 1024 * eight_bit.BLOCK  # weights whose moments are dequantized at a time


def peak_learning_rate(network: nn.Module, settings: OptimizerSettings) -> float:
    """The learning rate of the settings, or of the default method: the one for opened models where weights are frozen,
    else the one for new models."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    frozen = any(not parameter.requires_grad for parameter in network.parameters())
    return methods.default("opened" if frozen else "new").learning_rate


def learning_rate(step: int, total: int, peak: float, settings: OptimizerSettings) -> float:
    """Learning rate of a step (the first is 1) out of ``total``.

    Linear warm-up, ``peak * step / warmup``, then linear or cosine decay (Loshchilov & Hutter 2017, eq. 5) that reaches
    zero one step after the last, or a constant rate.
    """
    warmup = settings.warmup if settings.warmup >= 1 else settings.warmup * total
    warmup = min(math.ceil(warmup), total)
    if step <= warmup:
        return peak * step / warmup
    if settings.schedule == "constant":
        return peak
    progress = (step - 1 - warmup) / max(total - warmup, 1)
    progress = min(max(progress, 0.0), 1.0)
    factor = 1.0 - progress if settings.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return peak * factor


def groups(network: nn.Module, weight_decay: float, factors: Mapping[str, float] = NO_FACTORS) -> list[dict[str, Any]]:
    """Trainable parameters in groups of one weight decay and learning rate: the linears' matrices decay, all others do
    not, and come last.

    Norms, biases and embeddings (and a head tied to them) do not decay: decay would shrink the embeddings of rare
    tokens, which seldom get a gradient.

    Args:
        network: whose trainable parameters.
        weight_decay: of those that decay.
        factors: what the learning rate of a parameter is multiplied by, by its name; 1 where nothing is said.
    """
    tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    members: defaultdict[tuple[bool, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            is_vector = parameter.ndim < 2 or id(parameter) in tables
            members[is_vector, factors.get(name, 1.0)].append(parameter)
    return [
        {"params": parameters, "weight_decay": 0.0 if is_vector else weight_decay, "learning_rate_factor": factor}
        for (is_vector, factor), parameters in sorted(members.items(), key=lambda item: item[0])
    ]


class AdamW:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2) with gradient clipping in the same pass over memory: one call of a
    native kernel, or PyTorch's fused AdamW.

    Not a ``torch.optim.Optimizer``: the first of these makes torch import its compiler, which takes seconds and 130 MB,
    and its bookkeeping takes a noticeable part of a small network's step. Embeddings of which few rows have a gradient
    are updated by a kernel of our own (train/row_moments).

    Args:
        param_groups: each with ``params`` and ``weight_decay``, and mostly a ``learning_rate_factor``.
        betas, eps: decay of the two moments; what is added to the root of the second.
        folder: where the moments lie in a file, of which a portion is in memory at a time (a paged optimizer, Dettmers
            et al. 2023, section 3); None: they are in memory. The results are the same, bit for bit.

    Attributes:
        state: by parameter, once it was updated: ``step``, and its moments ``exp_avg`` and ``exp_avg_sq``.
    """

    def __init__(
        self,
        param_groups: Sequence[dict[str, Any]],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        folder: Path | None = None,
    ) -> None:
        self.param_groups = [
            {"learning_rate_factor": 1.0, **group, "betas": betas, "eps": eps} for group in param_groups
        ]
        self.state: defaultdict[nn.Parameter, dict[str, torch.Tensor]] = defaultdict(dict)
        self._moments: dict[nn.Parameter, dict[str, torch.Tensor]] = {}  # in the file
        self._memory: PagedMemory | None = None
        if folder is not None:
            self._page(folder)

    def _page(self, folder: Path) -> None:
        """Make room for all moments in a file."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        size = sum(self._state_bytes(parameter) for parameter in parameters)
        self._memory = PagedMemory(folder, size, "the optimizer's state")
        for parameter in parameters:
            shapes = self._moment_shapes(parameter)
            self._moments[parameter] = {name: self._memory.zeros(*shape) for name, shape in shapes.items()}

    @property
    def held_bytes(self) -> int:
        """Bytes of the moments that are in memory at a time."""
        if self._memory is None:
            return sum(value.nbytes for state in self.state.values() for value in state.values())
        portions = (portion for group in self.param_groups for portion in self._portions(group["params"]))
        return max(sum(map(self._state_bytes, portion)) for portion in portions)

    def release(self) -> None:
        """Take moments that lie in a file out of memory."""
        if self._memory is not None:
            self._memory.release()

    def restore(self, parameter: nn.Parameter, state: dict[str, torch.Tensor]) -> None:
        """Set the state of a parameter to one that was saved, which is copied."""
        own = self._initial_state(parameter)
        for name, value in state.items():
            own[name].copy_(value)
        self.release()

    def advance(self, learning_rate: float, norm: float = 0.0, max_norm: float = 0.0) -> None:
        """One step with the parameters' gradients, which are set to None afterwards.

        Args:
            learning_rate: of this step.
            norm: global norm of the gradients.
            max_norm: gradients with a larger norm are scaled down to this norm; 0: no clipping.
        """
        scale = torch.tensor(norm / max_norm) if 0 < max_norm < norm else None  # gradients are divided by it
        for group in self.param_groups:
            group["lr"] = learning_rate * group["learning_rate_factor"]
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            with torch.no_grad():
                for portion in self._portions(parameters):
                    self._update(portion, group, scale)
                    self.release()
            for parameter in group["params"]:
                parameter.grad = None

    def _portions(self, parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
        """The parameters that are updated together: all, or as many as have moments of PORTION_BYTES in a file."""
        portion: list[nn.Parameter] = []
        size = 0
        for parameter in parameters:
            added = 0 if self._memory is None else self._state_bytes(parameter)
            if portion and size + added > PORTION_BYTES:
                yield portion
                portion, size = [], 0
            portion.append(parameter)
            size += added
        yield portion

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any], scale: torch.Tensor | None) -> None:
        dense = []
        for parameter in parameters:
            if _has_sparse_gradient(parameter, group):
                self._update_rows(parameter, self.state[parameter] or self._initial_state(parameter), group, scale)
            else:
                dense.append(parameter)
        parameters = dense
        states = [self.state[parameter] or self._initial_state(parameter) for parameter in parameters]
        first, second, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
        gradients = [_gradient(parameter) for parameter in parameters]
        numbers = {float(step) for step in steps}  # more than one where a parameter had no gradient in some step
        if len(numbers) != 1 or not adamw_kernel.can_run(*parameters, *gradients):
            _fused(parameters, gradients, first, second, steps, group, scale)
            return
        torch._foreach_add_(steps, 1)
        adamw_kernel.adamw_step(parameters, gradients, first, second, _scalars(group, numbers.pop() + 1, scale))

    def _update_rows(
        self, parameter: nn.Parameter, state: dict[str, torch.Tensor], group: dict[str, Any], scale: torch.Tensor | None
    ) -> None:
        first, second = state["exp_avg"], state["exp_avg_sq"]
        if TOUCHED not in state:  # the first step of a session
            state[TOUCHED] = row_moments.has_moments(first, second)
        state["step"] += 1
        scalars = _scalars(group, float(state["step"]), scale)
        row_moments.adamw_step(parameter, _gradient(parameter), first, second, state[TOUCHED], scalars)

    def _initial_state(self, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
        state = {"step": torch.zeros((), device=parameter.device)}
        if parameter in self._moments:
            state |= {name: moment.zero_() for name, moment in self._moments[parameter].items()}
        else:
            state |= self._new_moments(parameter)
        self.state[parameter] = state
        return state

    def _new_moments(self, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
        return {name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in MOMENTS}

    def _moment_shapes(self, parameter: nn.Parameter) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and type of each moment, by its name in the state."""
        return {name: (tuple(parameter.shape), parameter.dtype) for name in MOMENTS}

    def _state_bytes(self, parameter: nn.Parameter) -> int:
        """Bytes of a parameter's moments in a file."""
        return sum(paged_bytes(*shape) for shape in self._moment_shapes(parameter).values())


class EightBitAdamW(AdamW):
    """AdamW with both moments in 8 bits (train/eight_bit): 2 bytes per weight instead of 8, and a scale per block.

    A native kernel updates weights and moments in one pass over memory. Without it, a step processes the weights slice
    by slice: it dequantizes the slice's moments to float32, calls torch's fused AdamW and quantizes them again, so
    float32 moments of only one slice exist at a time. Small tensors (norms, biases) have float32 moments, as
    the paper advises.
    """

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any], scale: torch.Tensor | None) -> None:
        small = [parameter for parameter in parameters if not _has_8bit_moments(parameter)]
        if small:
            super()._update(small, group, scale)
        for parameter in parameters:
            if _has_8bit_moments(parameter):
                parameter.grad = _gradient(parameter).to_dense()
                self._update_8bit(parameter, self.state[parameter] or self._initial_state(parameter), group, scale)

    def _update_8bit(
        self, parameter: nn.Parameter, state: dict[str, torch.Tensor], group: dict[str, Any], scale: torch.Tensor | None
    ) -> None:
        weights, gradient = parameter.view(-1), _gradient(parameter).reshape(-1)
        if supports(parameter, gradient):
            moments = [(state[name], state[f"{name}_scale"]) for name in ("exp_avg", "exp_avg_sq")]
            state["step"] += 1
            eight_bit.adamw_step(weights, gradient, moments, _scalars(group, float(state["step"]), scale))
            return
        levels = (eight_bit.signed(parameter.device), eight_bit.unsigned(parameter.device))
        for begin in range(0, len(weights), SLICE_SIZE):
            place = slice(begin, begin + SLICE_SIZE)
            blocks = slice(begin // eight_bit.BLOCK, (begin + SLICE_SIZE) // eight_bit.BLOCK)
            stored = [(state[name][place], state[f"{name}_scale"][blocks]) for name in ("exp_avg", "exp_avg_sq")]
            first, second = (
                eight_bit.dequantize(codes, table, scales)
                for (codes, scales), table in zip(stored, levels, strict=True)
            )
            step = state["step"].clone()  # every slice has the same step number
            _fused([weights[place]], [gradient[place]], [first], [second], [step], group, scale)
            for values, table, (codes, scales) in zip((first, second), levels, stored, strict=True):
                eight_bit.quantize(values, table, codes, scales)
        state["step"] += 1

    def _new_moments(self, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
        if not _has_8bit_moments(parameter):
            return super()._new_moments(parameter)
        shapes = self._moment_shapes(parameter)  # a scale of zero makes every code zero
        return {name: torch.zeros(size, dtype=dtype, device=parameter.device) for name, (size, dtype) in shapes.items()}

    def _moment_shapes(self, parameter: nn.Parameter) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        if not _has_8bit_moments(parameter):
            return super()._moment_shapes(parameter)
        shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        for name in MOMENTS:
            shapes[name] = (parameter.numel(),), torch.uint8
            shapes[f"{name}_scale"] = (eight_bit.num_scales(parameter.numel()),), torch.float32
        return shapes


def _scalars(group: dict[str, Any], step: float, scale: torch.Tensor | None) -> AdamWScalars:
    beta1, beta2 = group["betas"]
    return AdamWScalars(
        learning_rate=group["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=group["weight_decay"],
        epsilon=group["eps"],
        first_correction=1 - beta1**step,
        second_correction=math.sqrt(1 - beta2**step),
        gradient_factor=1.0 if scale is None else 1.0 / float(scale),
    )


def _has_8bit_moments(parameter: nn.Parameter) -> bool:
    """Whether its moments are stored in 8 bits."""
    return parameter.numel() >= MIN_8BIT_SIZE and parameter.is_contiguous() and parameter.dtype == torch.float32


def _has_sparse_gradient(parameter: nn.Parameter, group: dict[str, Any]) -> bool:
    """Whether its gradient is one of rows that the kernel takes; any other sparse gradient is made dense."""
    gradient = _gradient(parameter)
    if gradient.is_sparse and (group["weight_decay"] or not supports(parameter, gradient)):
        parameter.grad = gradient.to_dense()
    return _gradient(parameter).is_sparse


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _fused(
    parameters: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    first: Sequence[torch.Tensor],
    second: Sequence[torch.Tensor],
    steps: Sequence[torch.Tensor],
    group: dict[str, Any],
    scale: torch.Tensor | None,
) -> None:
    """PyTorch's fused AdamW: updates weights, moments and steps in place; gradients are divided by ``scale``."""
    if not parameters:
        return
    torch._foreach_add_(list(steps), 1)
    torch._fused_adamw_(
        list(parameters),
        list(gradients),
        list(first),
        list(second),
        [],
        list(steps),
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
        grad_scale=scale,
    )


def make(
    network: nn.Module,
    settings: OptimizerSettings,
    factors: Mapping[str, float] = NO_FACTORS,
    folder: Path | None = None,
) -> AdamW:
    """AdamW over all trainable parameters.

    Args:
        network: whose parameters.
        settings: of the optimizer.
        factors: of learning rates, as of :func:`groups`.
        folder: for its moments, if the settings ask for a paged optimizer; None: they stay in memory.

    Raises:
        InputError: a paged optimizer cannot be had here, or there is no room on the disk.
    """
    kind = EightBitAdamW if settings.optimizer_state == "int8" else AdamW
    betas = (settings.beta1, settings.beta2)
    paged = folder if settings.paged_optimizer else None
    if paged is not None and not (is_available() and all(own.is_cpu for own in network.parameters())):
        fault = "only weights in a CPU's memory have it, on Linux or macOS"
        raise InputError(fault, "train.paged_optimizer", "leave it out")
    return kind(groups(network, settings.weight_decay, factors), betas, settings.epsilon, paged)


def peak_rates(optimizer: AdamW, peak: float) -> list[dict[str, float]]:
    """The peak learning rates, and of how many parameters each is, for the journal.

    Args:
        optimizer: whose groups may have factors of the learning rate.
        peak: where the factor is 1.
    """
    numbers: Counter[float] = Counter()
    for group in optimizer.param_groups:
        numbers[group["learning_rate_factor"]] += sum(parameter.numel() for parameter in group["params"])
    return [{"learning_rate": peak * factor, "trainable": number} for factor, number in numbers.items()]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float:
    """Euclidean norm of all gradients together."""
    gradients = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()  # a token that was read twice has one row
            gradients.append(parameter.grad.values())
        elif parameter.grad is not None:
            gradients.append(parameter.grad)
    if adamw_kernel.can_run(*gradients):
        return math.sqrt(adamw_kernel.sum_of_squares(gradients))
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))) if gradients else 0.0
