"""Times training and evaluation on this machine with networks like the run's that have few layers.

Two networks that differ only in their number of layers are built with random weights, adapted by the run's own method
and timed on documents of the run's own lengths. Their difference gives the time of a layer; the shallow one gives the
time of everything else: head, embeddings, calls, optimizer. So a timing holds for this processor, this precision and
this model, without constants of other machines. Timings are cached.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle
from typing import Any, TypeVar

import numpy as np
import torch

from lmworks.adapt.method import Method
from lmworks.base import measurements, preparation
from lmworks.base.contention import UNDISTURBED_SHARE, ShareMeter
from lmworks.base.errors import InputError
from lmworks.data.batch import CONTRASTIVE, Example, Labels
from lmworks.data.pairs import pair_example
from lmworks.evaluate.scoring import row_losses
from lmworks.families.opened import matrices_of
from lmworks.generate.decode import decode
from lmworks.generate.sampling import Rules, SamplingSettings
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.kernels import matmul
from lmworks.kernels.native_module import native_module as kernels
from lmworks.model import initialization, sizes
from lmworks.model.config import HeadConfig, ModelConfig
from lmworks.model.quant_types import QUANT_TYPES
from lmworks.model.quantization import quantize
from lmworks.model.storage import BlockStorage, DenseStorage
from lmworks.model.stored_layers import store
from lmworks.model.training_cost import Workload
from lmworks.model.transformer import Transformer
from lmworks.run.base_weights import WeightFormat
from lmworks.run.footprint import TrainingSetup
from lmworks.run.largest_row import length_pairs
from lmworks.train import optimizers
from lmworks.train.arithmetic import evaluation_providers, training_providers
from lmworks.train.step import accumulate_gradients, cast_frozen_weights

DEEP = 12  # layers of the deeper network: its weights and activations do not fit into the caches, as those of the run
EXTRA_LAYERS = 2  # the deeper network has at least so many more than the shallow one
TIMED_TOKENS = 2048  # of the documents that are timed, at most
MOST_REPEATS, MOST_SECONDS = 5, 1.5  # of one timing
NEW_TOKENS = 6  # generated for each text that is timed
LARGEST_NETWORK_BYTES = 1 << 30  # of the deeper network; time of a larger model is planned by the rate of its products
VERSION = 6  # of the way of timing; cached timings of other versions are not used


@dataclass(frozen=True)
class Timing:
    """Seconds that parts of a run take on this machine.

    Attributes:
        step: seconds of an optimizer step over ``step_tokens`` tokens.
        step_tokens: tokens of the timed documents, those of sources included.
        evaluation: seconds of one token in evaluation.
        answer: seconds of generating one token for each of ``answer_rows`` texts at once.
        answer_rows: number of these texts.
        is_undisturbed: whether no other program ran meanwhile.
    """

    step: float
    step_tokens: int
    evaluation: float
    answer: float
    answer_rows: int
    is_undisturbed: bool = True


@dataclass(frozen=True)
class StepTiming:
    """Seconds of an optimizer step over so many tokens."""

    seconds: float
    tokens: int
    is_undisturbed: bool = True


@dataclass(frozen=True)
class InferenceTiming:
    """Seconds of a token that is evaluated, and of a token generated for each row; see :class:`Timing`."""

    evaluation: float
    answer: float
    is_undisturbed: bool = True


T = TypeVar("T", StepTiming, InferenceTiming)


def read_or_measure(
    setup: TrainingSetup, method: Method[Any], answer_rows: int = 0, measures: bool = True
) -> Timing | None:
    """The timing of a run, from the cache or measured now.

    Args:
        setup: the run, with precision and activation checkpointing chosen.
        method: how the model is trained.
        answer_rows: texts that are generated at once in evaluation; 0: none.
        measures: whether it may be measured, which takes seconds.

    Returns:
        The timing; None if even the networks with few layers are too large, or nothing may be measured.
    """
    inference = read_or_measure_inference(setup, method, answer_rows, measures)
    if inference is None:
        return None
    depths = _depths(setup.config, method)
    step = _cached(_step_conditions(setup, method), StepTiming, partial(_measure_step, setup, method, depths))
    is_undisturbed = step.is_undisturbed and inference.is_undisturbed
    return Timing(step.seconds, step.tokens, inference.evaluation, inference.answer, answer_rows, is_undisturbed)


def read_or_measure_inference(
    setup: TrainingSetup, method: Method[Any], answer_rows: int = 0, measures: bool = True
) -> InferenceTiming | None:
    """The timing of evaluation alone; arguments as of :func:`read_or_measure`."""
    depths = _depths(setup.config, method)
    if not measures or _network_bytes(setup.config, depths[-1]) > LARGEST_NETWORK_BYTES:
        return None
    measure = partial(_measure_inference, setup, depths, answer_rows)
    return _cached(_inference_conditions(setup, depths, answer_rows), InferenceTiming, measure)


def _cached(conditions: list[Any], kind: type[T], measure: Callable[[], T]) -> T:
    """A measurement from the cache, or made now; one that other programs disturbed is kept for a short time only.

    Args:
        conditions: everything that it depends on except the machine.
        kind: its dataclass.
        measure: makes it.
    """
    conditions = [VERSION, kind.__name__, *conditions, kernels() is not None]
    name = "timing " + hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:24]
    cached = measurements.read(name, kind)
    if cached is not None and (cached.is_undisturbed or measurements.is_recent(name)):
        return cached
    meter = ShareMeter(torch.get_num_threads())
    with preparation.timed(preparation.MEASURING):
        timing = measure()
    timing = replace(timing, is_undisturbed=meter.share() >= UNDISTURBED_SHARE)
    measurements.write(name, asdict(timing))
    return timing


def _depths(config: ModelConfig, method: Method[Any]) -> list[int]:
    """Layers of the shallow network, the fewest that the method fits, and of the deeper one, as many as memory allows;
    a single number if the method fits only the whole model."""
    for depth in range(1, config.num_hidden_layers):
        with contextlib.suppress(InputError):
            method.trained_parameters(_shallow(config, depth))
            deep = max(DEEP, depth + EXTRA_LAYERS)
            while deep > depth + EXTRA_LAYERS and _network_bytes(config, deep) > LARGEST_NETWORK_BYTES:
                deep -= 1
            return [depth, min(deep, config.num_hidden_layers)]
    return [config.num_hidden_layers]


def _network_bytes(config: ModelConfig, depth: int) -> int:
    """Bytes of a network of this depth in float32."""
    return 4 * sizes.parameters(_shallow(config, depth))["total"]


def _step_conditions(setup: TrainingSetup, method: Method[Any]) -> list[Any]:
    """Everything that the time of a training step depends on except the machine."""
    train = setup.train.model_dump(include={"batch_size", "row_tokens", "packing", "recompute", "optimizer_state"})
    return [*_model_conditions(setup), method.name, method.settings.model_dump(mode="json"), train, setup.precision]


def _inference_conditions(setup: TrainingSetup, depths: list[int], answer_rows: int) -> list[Any]:
    """Everything that the time of evaluation depends on, which is the same in every precision of training."""
    return [*_model_conditions(setup), depths, answer_rows]


def _model_conditions(setup: TrainingSetup) -> list[Any]:
    documents = [(len(example.ids), example.num_targets, example.total) for example in _random_documents(setup)]
    return [setup.config.model_dump(mode="json"), setup.weights.precision, setup.weights.block_format, documents]


def _measure_step(setup: TrainingSetup, method: Method[Any], depths: list[int]) -> StepTiming:
    documents = _random_documents(setup)
    seconds: dict[int, float] = {}
    for depth in depths:
        network = _network(_shallow(setup.config, depth), setup.weights)
        seconds[depth] = _step_seconds(network, setup, method, documents)
    whole = _step_flops(setup, method, setup.config, documents)
    flops = {depth: _step_flops(setup, method, _shallow(setup.config, depth), documents) for depth in depths}
    return StepTiming(_extended(seconds, flops, whole), sum(example.size for example in documents))


def _measure_inference(setup: TrainingSetup, depths: list[int], answer_rows: int) -> InferenceTiming:
    documents = _random_documents(setup)
    evaluation: dict[int, float] = {}
    answer: dict[int, float] = {}
    for depth in depths:
        network = _network(_shallow(setup.config, depth), setup.weights)
        with matmul.providers(evaluation_providers(network)):
            evaluation[depth] = _token_seconds(partial(_evaluate, network, documents))
            if answer_rows:
                answer[depth] = _answer_seconds(network, documents, answer_rows)
    layers = {depth: float(depth) for depth in depths}
    all_layers = float(setup.config.num_hidden_layers)
    answer_seconds = _extended(answer, layers, all_layers) if answer else 0.0
    return InferenceTiming(_extended(evaluation, layers, all_layers), answer_seconds)


def _extended(seconds: dict[int, float], work: dict[int, float], whole: float) -> float:
    """Seconds of the whole model, extrapolated from those of the timed networks; more work never takes less time.

    Args:
        seconds: by number of layers.
        work: of the timed networks, by number of layers: FLOPs, or the layers themselves.
        whole: work of the whole model.
    """
    shallow, deep = min(seconds), max(seconds)
    if shallow == deep:
        return seconds[shallow] * whole / work[shallow]
    each = max(0.0, seconds[deep] - seconds[shallow]) / (work[deep] - work[shallow])
    return seconds[shallow] + each * (whole - work[shallow])


def _shallow(config: ModelConfig, depth: int) -> ModelConfig:
    """The same model with fewer layers in each stack."""
    changes: dict[str, Any] = {"num_hidden_layers": min(depth, config.num_hidden_layers)}
    if config.num_decoder_layers is not None:
        changes["num_decoder_layers"] = min(depth, config.num_decoder_layers)
    if config.num_layer_groups is not None:
        changes["num_layer_groups"] = min(config.num_layer_groups, changes["num_hidden_layers"])
    if config.layer_kinds is not None:
        changes["layer_kinds"] = config.layer_kinds[-changes["num_hidden_layers"] :]
    return config.model_copy(update=changes)


def _network(config: ModelConfig, weights: WeightFormat) -> Transformer:
    """A network with random weights in this format; quantized blocks are zero, which takes the same time."""
    network = Transformer(config)
    initialization.draw(network, torch.Generator().manual_seed(0))
    if weights.precision in QUANT_TYPES:
        quantize(network, weights.precision)
        return network.eval()
    for name in sorted(matrices_of(network)) if weights.precision != "float32" else ():
        matrix = network.get_parameter(name).detach()
        (rows, columns), block_format = matrix.shape, weights.block_format
        blocks = BlockStorage.zeros(rows, columns, block_format) if block_format else None
        store(network, name.removesuffix(".weight"), blocks or DenseStorage(matrix.bfloat16()))
    return network.eval()


def _random_documents(setup: TrainingSetup, shift: int = 0) -> list[Example]:
    """Documents of random tokens, as many as a step has: their lengths are spread evenly over those of the run, and so
    many of their tokens have loss as in the run on average.

    Args:
        setup: the run.
        shift: 1, 2, ... gives each document a neighbour's length, as steps of a run differ in their lengths.
    """
    documents = setup.documents
    lengths = sorted(length_pairs(documents.lengths, documents.sources))
    count = min(setup.train.batch_size, len(lengths))
    pairs = [lengths[((2 * index + 1) * len(lengths) // (2 * count) + shift) % len(lengths)] for index in range(count)]
    while len(pairs) > 1 and sum(map(sum, pairs)) > TIMED_TOKENS:
        pairs = pairs[1::2] or pairs[:1]
    loss_share = documents.total_loss_tokens / max(1, sum(documents.lengths))
    rng = np.random.default_rng(0)
    if CONTRASTIVE in documents.labels:
        return [_pair(length, setup.config, rng) for length, _ in pairs]
    return [_example(length, source, loss_share, setup.config, rng) for length, source in pairs]


def _example(length: int, source: int, loss_share: float, config: ModelConfig, rng: np.random.Generator) -> Example:
    """A document of random tokens; of a model without a language head, with a label for each of its heads."""
    ids = rng.integers(0, config.vocab_size, length, dtype=np.int32)
    read = rng.integers(0, config.vocab_size, source, dtype=np.int32) if source else None
    if not config.language_head:
        labels = {head.name: _labels(head, length) for head in config.heads}
        return Example(ids, np.zeros(length, dtype=bool), targets=ids, source=read, labels=labels)
    loss = np.arange(length) >= length - max(1, round(loss_share * length))
    return Example(ids, loss, targets=ids, source=read)


def _pair(length: int, config: ModelConfig, rng: np.random.Generator) -> Example:
    """Texts to compare: two, or as many as the context asks for."""
    count = max(2, -(-length // config.max_position_embeddings))
    ids = rng.integers(0, config.vocab_size, max(length, count), dtype=np.int32)
    return pair_example(np.array_split(ids, count), "mean", 1.0)


def _labels(head: HeadConfig, length: int) -> Labels:
    """Labels of a document for a head, all the same."""
    places = np.array(head.places(length))
    if head.problem == "span":
        return Labels.of_span(places, 0, length - 1)
    if head.problem == "single_label":
        return Labels.of_tokens(places, np.zeros_like(places))
    return Labels.of_text(np.zeros(head.size), places[0])


def _token_seconds(call: Callable[[int], int]) -> float:
    """Seconds per token: the median of a few calls, after a first one that is not timed.

    Args:
        call: gets the number of the call; returns how many tokens it has computed.
    """
    call(0)
    timings: list[float] = []
    end = time.perf_counter() + MOST_SECONDS
    while not timings or (len(timings) < MOST_REPEATS and time.perf_counter() < end):
        start = time.perf_counter()
        tokens = call(len(timings) + 1)
        timings.append((time.perf_counter() - start) / tokens)
    return statistics.median(timings)


def _evaluate(network: Transformer, documents: Sequence[Example], _: int) -> int:
    """Evaluate the documents; returns their tokens."""
    row_losses(network, documents)
    return sum(example.size for example in documents)


def _step_seconds(
    network: Transformer, setup: TrainingSetup, method: Method[Any], documents: Sequence[Example]
) -> float:
    """Seconds of one optimizer step over as many tokens as ``documents`` have."""
    depth = network.config.num_hidden_layers
    recompute = round(setup.train.recompute * depth / setup.config.num_hidden_layers)
    method.apply(network)
    network.train()
    network.recompute_lowest(min(depth, recompute))
    optimizer = optimizers.make(network, setup.train)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]

    def step(number: int) -> int:
        """One step; returns its tokens."""
        batch = _random_documents(setup, number)
        accumulate_gradients(network, batch, setup.train, 1, setup.precision, torch.device("cpu"))
        optimizer.advance(0.0, optimizers.gradient_norm(trained), 1.0)
        return sum(example.size for example in batch)

    providers = training_providers(network, setup.precision, setup.train.row_capacity)
    with (
        cast_frozen_weights(network, setup.precision),
        matmul.providers(providers),
        torch.random.fork_rng(devices=[]),
    ):
        return _token_seconds(step) * sum(example.size for example in documents)


def _step_flops(setup: TrainingSetup, method: Method[Any], config: ModelConfig, documents: Sequence[Example]) -> float:
    """FLOPs of forward and backward passes over the timed documents."""
    workload = Workload.of(documents, sum(example.num_targets for example in documents))
    recompute = round(setup.train.recompute * config.num_hidden_layers / setup.config.num_hidden_layers)
    return float(workload.flops(config, method.trained_parameters(config), recompute).total)


def _answer_seconds(network: Transformer, documents: Sequence[Example], rows: int) -> float:
    """Seconds of generating one token for each of ``rows`` texts at once, without the prefill of their prompts."""
    max_prompt_tokens = max(1, network.config.max_position_embeddings - NEW_TOKENS - 1)
    texts = [example.ids[~example.loss] if example.source is None else example.source for example in documents]
    prompts = [ids.tolist()[:max_prompt_tokens] or [0] for ids, _ in zip(cycle(texts), range(rows), strict=False)]
    settings = SamplingSettings(max_tokens=NEW_TOKENS + 1, temperature=0)

    def generate() -> float:
        steps = decode(TorchStepper(network), prompts, settings, set(), Rules(decoder_start_token_id=0))
        next(steps)
        start = time.perf_counter()
        count = sum(1 for _ in steps)
        return (time.perf_counter() - start) / max(1, count)

    generate()
    timings: list[float] = []
    end = time.perf_counter() + MOST_SECONDS
    while not timings or (len(timings) < 3 and time.perf_counter() < end):
        timings.append(generate())
    return statistics.median(timings)
