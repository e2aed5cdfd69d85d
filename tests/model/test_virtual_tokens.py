"""Virtual tokens in a network: every document gets its own, in whatever row and with whatever cache; gradients too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from block_kinds import KINDS

from lmworks.generate.encode import encode_texts
from lmworks.generate.stepper import RowStart
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.generate.word_states import layer_states
from lmworks.kernels.native_module import native_module
from lmworks.model import fused
from lmworks.model.config import HeadConfig, ModelConfig
from lmworks.model.transformer import Transformer
from lmworks.model.virtual_tokens import ExpandedRows, Prefix, SoftPrompt, VirtualTokens

SIZES = {"vocab_size": 61, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 3,
         "num_attention_heads": 4, "max_position_embeddings": 64}  # fmt: skip
COUNT = 3
LENGTHS = (5, 2, 9, 9)
EXTRA: dict[str, dict[str, Any]] = {
    "window": {
        "num_key_value_heads": 2,
        "sliding_window": 4,
        "layer_kinds": ("sliding_attention", "full_attention", "sliding_attention"),
    },
    "types": KINDS["bert"] | {"type_vocab_size": 2, "embedding_norm": True},
    "capped": {"attention_softcap": 4.0},
    "scaled": {"embedding_scale": 7.0, "qk_norm": True},
}
kinds = pytest.mark.parametrize("kind", [*KINDS, *EXTRA])
both = pytest.mark.parametrize("virtual", ["soft", "prefix"])


def make_network(kind: str, virtual: str) -> Transformer:
    torch.manual_seed(0)
    network = Transformer(ModelConfig(**(SIZES | (KINDS | EXTRA)[kind])))
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    network.requires_grad_(False)
    network.virtual_tokens = make_virtual_tokens(network, virtual)
    return network.eval()


def make_virtual_tokens(network: Transformer, virtual: str) -> VirtualTokens:
    config = network.config
    if virtual == "soft":
        return SoftPrompt(torch.randn(COUNT, config.embedding_width))
    return Prefix(torch.randn(network.depth, 2, COUNT, config.key_value_heads, config.head_size))


def documents() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(0, 61, (length,), generator=generator) for length in LENGTHS]


def flat_row(padding: int = 0) -> dict[str, torch.Tensor]:
    """All documents in a flat row, filled up with padding."""
    zeros = torch.zeros(padding, dtype=torch.int64)
    return {
        "ids": torch.cat([*documents(), zeros])[None],
        "segments": torch.cat([torch.full((n,), number) for number, n in enumerate(LENGTHS, 1)] + [zeros])[None],
        "positions": torch.cat([*map(torch.arange, LENGTHS), zeros])[None],
    }


def test_where_the_tokens_of_a_row_lie():
    segments = torch.tensor([[0, 0, 1, 1, 2], [1, 1, 1, 0, 0]])
    rows = ExpandedRows.of(2, segments, segments)
    assert rows.shape == (2, 9)
    assert rows.segments(segments).tolist() == [[0, 0, 1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 0, 0, 0, 0]]
    positions = torch.tensor([[0, 0, 2, 3, 2], [2, 3, 4, 0, 0]])
    assert rows.positions(positions).tolist() == [[0, 0, 0, 1, 2, 3, 0, 1, 2], [0, 1, 2, 3, 4, 0, 0, 0, 0]]
    values = torch.arange(10.0).view(2, 5, 1)
    put = rows.insert(values, torch.tensor([[-1.0], [-2.0]]))
    assert put[0, :, 0].tolist() == [0, 1, -1, -2, 2, 3, -1, -2, 4]
    assert torch.equal(rows.tokens_of(put.flatten(0, 1)).view(2, 5, 1), values)
    assert rows.virtual_sum(put.flatten(0, 1)).tolist() == [[-3.0], [-6.0]]


@both
@kinds
@torch.no_grad()
def test_a_packed_row_and_padded_rows_give_each_document_what_it_gets_alone(kind, virtual):
    network = make_network(kind, virtual)
    alone = [network.hidden_states(ids[None])[0] for ids in documents()]
    assert [len(states) for states in alone] == list(LENGTHS)
    network.virtual_tokens.enabled = False
    assert not torch.allclose(network.hidden_states(documents()[0][None])[0], alone[0], atol=1e-2)
    network.virtual_tokens.enabled = True
    row = flat_row(padding=4)
    packed = network.hidden_states(**row)[0].split([*LENGTHS, 4])
    for states, expected in zip(packed, alone, strict=False):
        torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-4)
    for states, expected in zip(encode_texts(network, [ids.tolist() for ids in documents()]), alone, strict=True):
        torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-4)
    for left in (False, True):
        width = max(LENGTHS)
        ids, segments, positions = (torch.zeros(len(LENGTHS), width, dtype=torch.int64) for _ in range(3))
        slots = [slice(width - n, width) if left else slice(0, n) for n in LENGTHS]
        for number, (slot, document) in enumerate(zip(slots, documents(), strict=True)):
            ids[number, slot], segments[number, slot] = document, 1
            positions[number, slot] = torch.arange(len(document))
        padded = network.hidden_states(ids, segments=segments, positions=positions)
        for number, slot in enumerate(slots):
            torch.testing.assert_close(padded[number, slot], alone[number], rtol=1e-4, atol=1e-4)


@both
@pytest.mark.parametrize("kind", ["llama", "gpt2", "partial", "window", "capped", "scaled"])
@torch.no_grad()
def test_token_by_token_rows_get_what_they_get_at_once(kind, virtual):
    network = make_network(kind, virtual)
    texts = [ids.tolist() for ids in documents()]

    def expected(ids: list[int]) -> torch.Tensor:
        return network(torch.tensor([ids])).logits[0, -1]

    stepper = TorchStepper(network)
    assert stepper.context == 64 - COUNT
    stepper.prefill([RowStart(text) for text in texts[:2]])
    stepper.step([7, 8])
    stepper.add([RowStart(texts[2])])
    stepper.step([9, 10, 11])
    stepper.keep([1, 2, 2])
    stepper.step([1, 2, 3])
    stepper.add([RowStart(texts[0])])
    rows = [[*texts[1], 8, 10, 1], [*texts[2], 11, 2], [*texts[2], 11, 3], texts[0]]
    assert stepper.lengths == [len(row) for row in rows]
    for logits, row in zip(stepper.logits, rows, strict=True):
        torch.testing.assert_close(logits, expected(row), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_soft_prompt_of_a_texts_embeddings_is_that_text_before_every_document():
    network = make_network("scaled", "soft")
    words = torch.tensor([[5, 6, 7]])
    network.virtual_tokens = SoftPrompt(network.token_embeddings(words)[0].clone())
    adapted = network.hidden_states(documents()[2][None])
    network.virtual_tokens = None
    plain = network.hidden_states(torch.cat([words, documents()[2][None]], dim=1))[:, 3:]
    torch.testing.assert_close(adapted, plain, rtol=1e-4, atol=1e-5)


@both
def test_the_states_of_every_layer_are_those_of_the_texts_own_tokens(virtual):
    network, ids = make_network("bert", virtual), documents()[0]
    states = layer_states(network, ids.tolist())
    assert states.shape == (network.depth + 1, len(ids), 48)
    torch.testing.assert_close(states[-1:], network.hidden_states(ids[None]).detach())


@torch.no_grad()
def test_heads_of_the_first_token_read_the_first_virtual_one():
    network = make_network("bert", "soft")
    plain = network.hidden_states(**flat_row())
    head = HeadConfig(name="sequence", kind="first", size=2)
    network.config = network.config.model_copy(update={"heads": (head,)})
    states = network.hidden_states(**flat_row())
    first = torch.tensor([0, *LENGTHS[:-1]]).cumsum(0)
    changed = (states != plain).any(-1)[0].nonzero().squeeze(1)
    assert torch.equal(changed, first)


def gradients(network: Transformer, row: dict[str, torch.Tensor], grad_output: torch.Tensor) -> list[torch.Tensor]:
    network.zero_grad()
    torch.manual_seed(4)
    out = network.hidden_states(**row)
    out.backward(grad_output)
    (virtual,) = network.virtual_tokens.parameters()
    return [out.detach(), virtual.grad.clone()]


def close(received: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for mine, its in zip(received, expected, strict=True):
        torch.testing.assert_close(mine, its, atol=1e-3 * float(its.abs().max()), rtol=1e-3)


@pytest.mark.skipif(native_module() is None, reason="the native kernels were not built here")
@both
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_fused_blocks_give_the_outputs_and_gradients_of_the_modules(kind, dropout, virtual, monkeypatch):
    network = make_network(kind, virtual)
    if dropout:
        network.config = network.config.model_copy(update={"hidden_dropout": dropout})
        for block in network.layers:
            block.dropout = dropout
    network.train()
    row, calls, run = flat_row(padding=4), [], fused.run
    grad_output = torch.randn(1, sum(LENGTHS) + 4, 48)
    monkeypatch.setattr(fused, "run", lambda *given: calls.append(1) or run(*given))
    fast = gradients(network, row, grad_output)
    assert len(calls) == network.depth
    monkeypatch.setattr(fused, "can_run", lambda *_: False)
    close(fast, gradients(network, row, grad_output))


@both
def test_recomputed_blocks_give_the_same_gradients(virtual):
    network = make_network("llama", virtual).train()
    row, grad_output = flat_row(), torch.randn(1, sum(LENGTHS), 48)
    plain = gradients(network, row, grad_output)
    network.recompute_lowest(2)
    close(gradients(network, row, grad_output), plain)


@both
def test_the_gradient_of_a_row_is_the_sum_of_those_of_its_documents(virtual):
    network = make_network("llama", virtual).train()
    grads = torch.randn(1, sum(LENGTHS), 48)
    together = gradients(network, flat_row(), grads)[1]
    alone = [
        gradients(network, {"ids": ids[None]}, grad)[1]
        for ids, grad in zip(documents(), grads.split(LENGTHS, dim=1), strict=True)
    ]
    close([together], [torch.stack(alone).sum(0)])
