"""Methods that train a few of a model's own weights: BitFit and the head alone; what each takes, refuses and says."""

from __future__ import annotations

import pytest
import torch
from tiny_model import save_questions, save_tiny, settings

import lmworks
from lmworks.adapt.head_weights import head_parameters
from lmworks.adapt.registry import METHODS, make
from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.model.config import HeadConfig, ModelConfig
from lmworks.model.transformer import Transformer

SIZES = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "max_position_embeddings": 32}
BERT = {"architecture": "encoder", "norm": "layer", "norm_position": "post", "gated": False, "activation": "gelu"}
BERT |= {"positions": "learned", "qkv_bias": True}
CELLS = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "max_position_embeddings": 32}
CLASSES = (HeadConfig(name="sequence_classification", kind="pooled", size=3),)
WITH_HEAD = {"language_head": False, "heads": CLASSES, "pooler": True}
LABELLED = [{"text": f"{n} is {'even' if n % 2 == 0 else 'odd'}", "label": "ab"[n % 2]} for n in range(60)]


def config(**changes: object) -> ModelConfig:
    return ModelConfig(**(SIZES | changes))


def trained(name: str, **changes: object) -> set[str]:
    return set(make(name).trained_parameters(config(**changes)).own)


class TestBitFit:
    def test_it_trains_all_vectors_and_no_matrix(self):
        network = Transformer(config(**BERT))
        vectors = {name for name, parameter in network.named_parameters() if parameter.ndim == 1}
        assert {name.rpartition(".")[2] for name in vectors} == {"weight", "bias"}
        assert trained("bitfit", **BERT) == vectors

    def test_of_a_model_without_biases_it_trains_the_norms_and_says_so(self):
        assert all("norm" in name for name in trained("bitfit"))
        (note,) = make("bitfit").notes(config())
        assert f"{len(trained('bitfit'))} x norm weight" in note
        assert note.endswith("this model has no biases")

    def test_biases_and_norms_are_counted(self):
        own = trained("bitfit", **BERT)
        biases = sum(name.endswith(".bias") for name in own)
        (note,) = make("bitfit").notes(config(**BERT))
        assert note == f"bitfit trains {biases} x bias, {len(own) - biases} x norm weight"

    def test_the_head_of_a_task_is_trained_whole(self):
        network = Transformer(config(**BERT, **WITH_HEAD))
        assert set(head_parameters(network)) <= trained("bitfit", **BERT, **WITH_HEAD)
        assert "and the task's head" in make("bitfit").notes(config(**BERT, **WITH_HEAD))[0]

    @pytest.mark.parametrize("layer", ["rnn", "lstm"])
    def test_recurrent_cells_have_biases(self, layer):
        cells = ModelConfig(**CELLS, layer=layer)
        names = make("bitfit").trained_parameters(cells).own
        assert {name.rpartition(".")[2] for name in names} == {"bias_ih_l0", "bias_hh_l0"}
        assert make("bitfit").notes(cells) == [f"bitfit trains {len(names)} x bias"]


class TestHead:
    def test_it_is_what_a_task_added_and_the_pooler_that_it_reads(self):
        assert trained("head", **BERT, **WITH_HEAD) == {
            "heads.sequence_classification.weight", "heads.sequence_classification.bias", "pooler.weight", "pooler.bias"
        }  # fmt: skip

    def test_or_a_language_head_of_its_own(self):
        assert trained("head", tie_word_embeddings=False) == {"lm_head.weight"}

    def test_no_layer_saves_anything_for_the_backward_pass(self):
        network = Transformer(config(**BERT, **WITH_HEAD)).train()
        make("head").apply(network)
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            hidden = network.hidden_states(torch.arange(1, 15).reshape(2, 7))
        assert saved == []
        assert not hidden.requires_grad
        assert network.head_logits("sequence_classification", hidden[:, 0]).requires_grad

    def test_a_tied_head_is_refused_with_methods_that_fit(self):
        with pytest.raises(InputError, match="embeddings' matrix") as caught:
            trained("head")
        named = [name for name in METHODS if name in caught.value.hint.partition(";")[0].replace(",", "").split()]
        assert len(named) > 3
        assert all(make(name).trained_parameters(config()).count for name in named)

    def test_without_any_head_it_is_refused(self):
        with pytest.raises(InputError, match="no head") as caught:
            trained("head", **BERT, language_head=False)
        assert "--method lora" in caught.value.hint

    @pytest.mark.parametrize("method", ["head", "bitfit"])
    def test_a_decoder_with_tied_embeddings_learns_labels(self, method, tmp_path):
        """Whether the head can be trained depends on the head that the task gives."""
        model, data = save_tiny(tmp_path / "tiny"), save_questions(tmp_path / "rows.jsonl", LABELLED)
        values = settings()
        given = {"source": str(data), **values.pop("data")}
        values["train"] |= {"steps": 4}
        run = lmworks.tune(str(model), given, method=method, task="classify", out=tmp_path / "run", **values)
        base, tuned = lmworks.load(str(model)).network, run.model.network
        frozen = [name for name, parameter in base.named_parameters() if parameter.ndim > 1]
        assert all(torch.equal(base.get_parameter(name), tuned.get_parameter(name)) for name in frozen)
        assert run.model.predict(["3 is"])[0].label in ("a", "b")
        notes = RunFolder(run.folder).events("start")[0]["notes"]
        assert any(note.startswith("bitfit trains") for note in notes) is (method == "bitfit")
        with pytest.raises(InputError, match="embeddings' matrix"):
            lmworks.plan(str(model), [{"text": "It is."}] * 30, method="head")


def test_methods_that_cells_cannot_take_name_those_that_can():
    recurrent = ModelConfig(**CELLS, layer="gru", tie_word_embeddings=False)
    for name in METHODS:
        try:
            make(name).trained_parameters(recurrent)
        except InputError as error:
            hinted = [other for other in METHODS if other in error.hint.replace(",", "").split()]
            assert hinted, name
            assert all(make(other).trained_parameters(recurrent).count for other in hinted), name
    with pytest.raises(InputError, match="gru layers have none"):
        make("lora").trained_parameters(recurrent)


@pytest.mark.parametrize("model", ["tfidf-logreg", "5-gram", "ngram-5"])
@pytest.mark.parametrize("method", ["bitfit", "head"])
def test_models_without_a_network_have_no_method(model, method, capsys):
    from lmworks.commands.main import main

    for words in (["--method", method], [f"--{method}.size", "3"]):
        assert main(["tune", model, "rows.jsonl", *words]) == 2
        assert "hint:" in capsys.readouterr().err
