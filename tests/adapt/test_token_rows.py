"""Trained rows of some tokens: the formula, gradients, merging, PEFT's folders both ways, vocabularies that grow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tiny_model import save_questions, save_tiny, settings
from torch import nn
from torch.nn import functional

import lmworks
from lmworks.adapt import adapters
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.adapt.registry import load_adapter
from lmworks.adapt.token_rows import EmbeddingRows, HeadRows
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.families.mapping import to_ours
from lmworks.families.registry import family_of
from lmworks.model import vocabulary
from lmworks.model.accumulation import accumulate_in_place
from lmworks.model.config import ModelConfig
from lmworks.model.initialization import draw
from lmworks.model.storage import BlockStorage, DenseStorage
from lmworks.model.stored_layers import store
from lmworks.model.transformer import Transformer
from lmworks.train.losses import language_loss

IDS = torch.arange(1, 15).reshape(2, 7)
ROWS = [2, 5, 9, 13]
SIZES = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}
KINDS = ["tied", "untied", "gpt2", "bert"]


def theirs_of(kind: str) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=61, n_embd=24, n_layer=2, n_head=4, n_positions=32, initializer_range=0.2
        )
        return transformers.GPT2LMHeadModel(config).eval()
    if kind == "bert":
        model = transformers.BertForMaskedLM(transformers.BertConfig(**SIZES, max_position_embeddings=32)).eval()
        nn.init.normal_(model.cls.predictions.bias)
        return model
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=kind == "tied")
    return transformers.LlamaForCausalLM(config).eval()


def ours_of(theirs: Any) -> tuple[Transformer, Any]:
    """Our network with the same weights, and its family."""
    config = theirs.config.to_dict() | {"architectures": [type(theirs).__name__]}
    family = family_of(config)
    network = Transformer(family.read_config(config))
    rows = family.table(network.config)
    wanted = {row.theirs for row in rows}
    state = {name: tensor for name, tensor in theirs.state_dict().items() if name in wanted}
    network.load_state_dict(to_ours(rows, state))
    return network.eval(), family


def logits(network: nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return network(ids).logits


def theirs_logits(model: Any, kind: str, ids: torch.Tensor = IDS) -> torch.Tensor:
    """PEFT's logits. Its layer of rows leaves out the bias of BERT's head; merged, the head has it."""
    return logits(model.merge_and_unload() if kind == "bert" else model, ids)


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def shake(network: nn.Module) -> None:
    """Factors and rows as training might leave them."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if "lora_B" in name or "token_rows" in name or "trainable_tokens_delta" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)


def applied(kind: str, **options: Any) -> tuple[Transformer, Any]:
    network, family = ours_of(theirs_of(kind))
    target = "q_proj,v_proj"
    LoRA(LoRASettings(rank=3, target_modules=target, trainable_token_indices=ROWS, **options)).apply(network, seed=4)
    shake(network)
    return network, family


@pytest.mark.parametrize("kind", KINDS)
def test_ours_loads_in_peft_to_the_same_logits(kind, tmp_path):
    peft = pytest.importorskip("peft")
    network, family = applied(kind)
    LoRA.write(network, tmp_path, family, "some/base")
    theirs = peft.PeftModel.from_pretrained(theirs_of(kind), tmp_path).eval()
    same(theirs_logits(theirs, kind), logits(network))
    again, _ = ours_of(theirs_of(kind))
    base = logits(again)
    assert load_adapter(again, tmp_path, family) == []
    same(logits(again), logits(network))
    assert not torch.allclose(logits(network)[..., ROWS], base[..., ROWS], atol=1e-2)


@pytest.mark.parametrize(
    ("kind", "indices"),
    [
        ("tied", ROWS),
        ("tied", ROWS[::-1]),
        ("untied", ROWS),
        ("untied", {"embed_tokens": [3, 4], "lm_head": [9, 2, 40]}),
        ("untied", {"lm_head": [9]}),
        ("tied", {"embed_tokens": ROWS, "lm_head": ROWS}),
        ("gpt2", {"wte": ROWS}),
        ("bert", ROWS),
    ],
)
def test_theirs_loads_here_to_the_same_logits_and_goes_back(kind, indices, tmp_path):
    peft = pytest.importorskip("peft")
    targets = {"gpt2": ["c_attn"], "bert": ["query", "value"]}.get(kind, ["q_proj", "v_proj"])
    config = peft.LoraConfig(r=3, target_modules=targets, trainable_token_indices=indices)
    theirs = peft.get_peft_model(theirs_of(kind), config).eval()
    shake(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    network, family = ours_of(theirs_of(kind))
    load_adapter(network, tmp_path / "theirs", family)
    expected = theirs_logits(theirs, kind)
    same(logits(network), expected)
    LoRA.write(network, tmp_path / "ours", family)
    back = peft.PeftModel.from_pretrained(theirs_of(kind), tmp_path / "ours").eval()
    same(theirs_logits(back, kind), expected)


@pytest.mark.parametrize("kind", ["tied", "untied", "bert"])
@pytest.mark.parametrize("writes_tables", [True, False])
def test_a_vocabulary_that_grew_in_transformers_grows_here(kind, writes_tables, tmp_path):
    peft = pytest.importorskip("peft")
    plain, new, ids = theirs_of(kind), [61, 62, 63], torch.tensor([[1, 61, 5, 63, 62, 7]])
    plain.save_pretrained(tmp_path / "base")
    network, family = ours_of(plain)
    base, config = logits(network), network.config
    grown = type(plain).from_pretrained(tmp_path / "base").eval()
    grown.resize_token_embeddings(64)
    if kind == "bert":  # where transformers begins the bias of new tokens with zeros
        grown.cls.predictions.bias.data[61:] = network.head_bias.detach().mean()
    indices = {"embed_tokens": new, "lm_head": new} if kind == "untied" else new
    targets = ["query", "value"] if kind == "bert" else ["q_proj", "v_proj"]
    theirs = peft.get_peft_model(grown, peft.LoraConfig(r=3, target_modules=targets, trainable_token_indices=indices))
    shake(theirs.eval())
    theirs.save_pretrained(tmp_path / "adapter", save_embedding_layers=writes_tables)
    if kind == "bert" and writes_tables:
        with pytest.raises(InputError, match=r"unexpected tensor .*base_layer.bias"):
            load_adapter(network, tmp_path / "adapter", family)
        return
    load_adapter(network, tmp_path / "adapter", family)
    expected = theirs_logits(theirs, kind, ids)
    assert network.config.vocab_size == 64
    same(logits(network, ids), expected)
    with adapters.disabled(network):
        assert torch.equal(logits(network), base)
    with adapters.merged(network):
        same(logits(network, ids), expected)
    LoRA().detach(network)
    assert network.config == config
    assert torch.equal(logits(network), base)


def test_a_tied_head_with_other_rows_than_the_embeddings_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    network, family = applied("tied")
    LoRA.write(network, tmp_path, family)
    path = tmp_path / "adapter_model.safetensors"
    rows = {"base_model.model.lm_head.token_adapter.trainable_tokens_delta": torch.zeros(4, 24)}
    save_file(load_file(path) | rows, path)
    with pytest.raises(InputError, match="differs from the embeddings"):
        load_adapter(ours_of(theirs_of("tied"))[0], tmp_path, family)


@pytest.mark.parametrize("kind", KINDS)
def test_disabled_detached_and_merged(kind):
    base, _ = ours_of(theirs_of(kind))
    expected, state = logits(base), base.state_dict()
    network, _ = applied(kind)
    adapted = logits(network)
    with adapters.disabled(network):
        assert torch.equal(logits(network), expected)
    with adapters.merged(network):
        same(logits(network), adapted)
        assert network.state_dict().keys() == state.keys()
    assert torch.equal(logits(network), adapted)
    assert adapters.fingerprint(network) == adapters.fingerprint(base)
    adapters.detach(network)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_the_rows_alone_are_replaced_in_embeddings_and_logits():
    table, head = nn.Embedding(8, 4), nn.Linear(4, 8, bias=False)
    rows = torch.randn(3, 4)
    ids, hidden = torch.tensor([[0, 2, 9], [8, 1, 7]]), torch.randn(5, 4)
    merged = torch.cat([table.weight, torch.zeros(2, 4)]).index_copy(0, torch.tensor([2, 8, 9]), rows)
    assert torch.equal(EmbeddingRows(table, [2, 8, 9], rows)(ids), functional.embedding(ids, merged))
    merged = torch.cat([head.weight, torch.zeros(2, 4)]).index_copy(0, torch.tensor([2, 8, 9]), rows)
    torch.testing.assert_close(HeadRows(head, [2, 8, 9], rows)(hidden), functional.linear(hidden, merged))
    with pytest.raises(IndexError):
        EmbeddingRows(table, [2], rows[:1])(torch.tensor([8]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stored", [False, True])
def test_the_loss_in_chunks_has_the_gradients_of_the_merged_matrix(kind, stored):
    network, _ = applied(kind)
    if stored:
        for name in ("embed_tokens", "lm_head"):
            if getattr(network, name) is not None:
                store(network, f"{name}.base", DenseStorage(getattr(network, name).base.weight.detach()))
    hidden = torch.randn(40, 24, requires_grad=True)
    targets, weights = torch.arange(40) % 16, torch.rand(40)
    table = network.embed_tokens if network.lm_head is None else network.lm_head
    with accumulate_in_place():
        loss = language_loss(network, hidden, targets, weights)
        loss.backward()
    weight = network.head_weight if not stored else network.head_storage.dequantized()
    whole = weight.detach().index_copy(0, table.indices, table.token_rows.detach()).requires_grad_(True)
    plain = hidden.detach().requires_grad_(True)
    scores = functional.linear(network.before_head(plain), whole, network.head_bias)
    expected = (functional.cross_entropy(scores, targets, reduction="none") * weights).sum()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(hidden.grad, plain.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(table.token_rows.grad, whole.grad[ROWS], rtol=1e-4, atol=1e-5)
    trained = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert {name.rpartition(".")[2] for name in trained} == {"token_rows"}


def test_what_is_trained_is_counted():
    network, _ = ours_of(theirs_of("untied"))
    method = LoRA(LoRASettings(rank=3, trainable_token_indices=ROWS))
    counted = method.trained_parameters(network.config)
    method.apply(network)
    assert counted.count == sum(own.numel() for own in network.parameters() if own.requires_grad)
    without = LoRA(LoRASettings(rank=3)).trained_parameters(network.config)
    assert counted.count == without.count + 2 * 4 * 24
    assert counted.linears(network.config) == without.linears(network.config)
    assert sum(counted.saved.values()) == sum(without.saved.values())


def test_what_cannot_be_trained_is_refused():
    network, _ = ours_of(theirs_of("untied"))
    for options, words in (
        ({"trainable_token_indices": [61]}, "no token with id 61"),
        ({"trainable_token_indices": [1], "target_modules": "lm_head"}, "lm_head has an update"),
    ):
        with pytest.raises(InputError, match=words):
            LoRA(LoRASettings(**options)).trained_parameters(network.config)
    with pytest.raises(ValueError, match="0 or more"):
        LoRASettings(trainable_token_indices=[-1])
    with pytest.raises(ValueError, match="spaces"):
        LoRASettings(new_tokens=["<a >", " <b>"])


@pytest.mark.parametrize(
    ("indices", "words"),
    [
        (None, "unexpected tensor"),
        ([2, 5], "4 rows of model.embed_tokens for the 2 ids"),
        ([2, 5, 9, 9], "an id twice"),
        ([2, 5, 9, "x"], "trainable_token_indices is"),
        ([2, 5, 9, 70], "no row of embed_tokens for token 61"),
        ({"wte": ROWS}, "no table of tokens 'wte'"),
        ({"wte": ROWS, "wpe": ROWS}, "no table of tokens 'wte'"),
        ({"embed_tokens": ROWS, "wte": [2, 5]}, "no table of tokens 'wte'"),
        ({"embed_tokens": []}, "no id of it"),
    ],
)
def test_folders_whose_parts_do_not_belong_together_are_refused(indices, words, tmp_path):
    network, family = applied("tied")
    LoRA.write(network, tmp_path, family)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trainable_token_indices": indices}))
    with pytest.raises(InputError, match=words):
        load_adapter(ours_of(theirs_of("tied"))[0], tmp_path, family)


@pytest.mark.parametrize("kind", ["untied", "bert"])
def test_new_rows_are_the_mean_of_all(kind):
    network, _ = ours_of(theirs_of(kind))
    before, old = adapters.fingerprint(network), logits(network)
    vocabulary.grow(network, 63)
    new = logits(network)
    torch.testing.assert_close(new[..., :61], old, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(new[..., 61:], old.mean(-1, keepdim=True).expand(2, 7, 2), rtol=1e-4, atol=1e-4)
    assert adapters.fingerprint(network) == before


def test_quantized_tables_have_trained_and_new_rows():
    sizes = SIZES | {"hidden_size": 32, "max_position_embeddings": 32}
    network = Transformer(ModelConfig(**sizes))
    draw(network, torch.Generator().manual_seed(0))
    data = gguf.quants.quantize(network.embed_tokens.weight.detach().numpy(), gguf.GGMLQuantizationType.Q8_0)
    store(network.eval(), "embed_tokens", BlockStorage(torch.from_numpy(data), "Q8_0"))
    before, old = adapters.fingerprint(network), logits(network)
    LoRA(LoRASettings(rank=2, trainable_token_indices=ROWS)).apply(network)
    same(logits(network), old)
    shake(network)
    adapted = logits(network)
    assert not torch.allclose(adapted, old, atol=1e-2)
    with adapters.merged(network):
        same(logits(network), adapted)
    adapters.detach(network)
    assert torch.equal(logits(network), old)
    vocabulary.grow(network, 63)
    same(logits(network)[..., :61], old)
    same(logits(network)[..., 61:], old.mean(-1, keepdim=True).expand(2, 7, 2))
    assert adapters.fingerprint(network) == before


class TestRuns:
    """Whole runs with new tokens."""

    ROWS = tuple({"prompt": f"What is {n}?", "completion": f"<tool> {n} </tool>"} for n in range(60))

    def run(self, base: Path, out: Path, **changes: Any) -> Any:
        data = save_questions(out.parent / "calls.jsonl", list(self.ROWS))
        values = settings()
        given = {"source": str(data), **values.pop("data")}
        values["train"] |= {"steps": 4, "learning_rate": 1e-2}
        lora = {"rank": 2, "new_tokens": ["<tool>", "</tool>"], **changes}
        return lmworks.tune(str(base), given, out=out, lora=lora, **values)

    @pytest.fixture(scope="class", name="base")
    def _base(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return save_tiny(tmp_path_factory.mktemp("tokens") / "base")

    @pytest.fixture(scope="class", name="result")
    def _result(self, base: Path) -> Any:
        return self.run(base, base.parent / "run")

    def test_they_are_one_token_each_and_their_rows_are_trained(self, base: Path, result: Any) -> None:
        model, plain = result.model, lmworks.load(base)
        size = plain.config.vocab_size
        assert model.notes == []
        assert model.tokenizer.encode("<tool> 5 </tool>")[0] == size
        assert model.tokenizer.decode([size, size + 1], skip_special=True) == "<tool></tool>"
        assert model.config.vocab_size == size + 2
        mean = plain.network.embed_tokens.weight.mean(0)
        rows = model.network.embed_tokens.token_rows
        assert rows.shape == (2, plain.config.hidden_size)
        assert (rows - mean).abs().amax(1).min() > 1e-3
        base_rows = model.network.embed_tokens.base.weight
        assert torch.equal(base_rows, plain.network.embed_tokens.weight)

    def test_transformers_and_peft_open_the_result(self, base: Path, result: Any, tmp_path: Path) -> None:
        transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
        model = result.model
        ids = torch.tensor([model.tokenizer.encode("<tool> 5 </tool> What")])
        expected = logits(model.network, ids)
        final = result.folder / "final"
        theirs = transformers.AutoModelForCausalLM.from_pretrained(base)
        tokenizer = transformers.AutoTokenizer.from_pretrained(final)
        assert tokenizer("<tool> 5 </tool> What", add_special_tokens=False)["input_ids"] == ids[0].tolist()
        theirs.resize_token_embeddings(len(tokenizer))
        same(logits(peft.PeftModel.from_pretrained(theirs, final).eval(), ids), expected)
        model.save(tmp_path / "whole")
        whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
        same(logits(whole, ids), expected)
        assert torch.equal(logits(model.network, ids), expected)

    def test_another_adapter_beside_it_has_the_base_vocabulary(self, base: Path, result: Any) -> None:
        model = lmworks.load(base)
        expected = logits(model.network)
        model.add_adapter("tools", result.folder)
        with model.adapter("tools"):
            assert model.config.vocab_size == 2 + lmworks.load(base).config.vocab_size
            assert len(model.tokenizer.encode("<tool>")) == 1
        assert len(model.tokenizer.encode("<tool>")) > 1
        assert torch.equal(logits(model.network), expected)

    def test_a_run_that_has_not_finished_opens(self, result: Any, tmp_path: Path) -> None:
        import shutil

        copy = Path(shutil.copytree(result.folder, tmp_path / "copy"))
        shutil.rmtree(copy / "final")
        model = lmworks.load(copy)
        assert model.config.vocab_size == result.model.config.vocab_size

    def test_a_token_that_is_there_keeps_its_id_and_is_trained(self, base: Path, tmp_path: Path) -> None:
        run = self.run(base, tmp_path / "run", new_tokens=["<|im_end|>", "<tool>"])
        model, plain = run.model, lmworks.load(base)
        known = plain.tokenizer.added["<|im_end|>"]
        rows = model.network.embed_tokens
        assert rows.indices.tolist() == [known, plain.config.vocab_size]
        assert not torch.equal(rows.token_rows[0], plain.network.embed_tokens.weight[known])
        notes = RunFolder(run.folder).events("start")[0]["notes"]
        assert f"tokens added to the tokenizer: <tool> ({plain.config.vocab_size})" in notes
        assert f"in the tokenizer already, and their rows trained: <|im_end|> ({known})" in notes

    def test_the_plan_has_them(self, base: Path) -> None:
        rows, common = list(self.ROWS), {"train": {"steps": 2}}
        plain = lmworks.plan(str(base), rows, lora={"rank": 2}, **common)
        grown = lmworks.plan(str(base), rows, lora={"rank": 2, "new_tokens": ["<tool>"]}, **common)
        assert grown.trainable == plain.trainable + lmworks.load(base).config.hidden_size

    def test_a_new_model_gets_none(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="a model that is opened"):
            lmworks.pretrain(
                "tinygpt",
                [{"text": "a text of words"}] * 20,
                method="lora",
                lora={"new_tokens": ["<a>"]},
                out=tmp_path / "run",
            )
