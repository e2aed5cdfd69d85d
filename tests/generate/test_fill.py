"""Blanks, next sentences and vectors equal what transformers computes; texts keep their spaces."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_kinds import bert_words, core_of, t5_words
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Core

import lmworks
from lmworks.base.errors import InputError
from lmworks.families.folder import open_folder
from lmworks.generate.embed import embed
from lmworks.generate.fill import fill, next_sentence
from lmworks.generate.sampling import Rules
from lmworks.model.config import ModelConfig
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def shaken(model: Any) -> Any:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model.float().eval()


@pytest.fixture(name="bert", scope="module")
def _bert(tmp_path_factory) -> tuple[Any, Transformer]:
    """Theirs, with both heads, and ours."""
    from transformers import BertConfig, BertForPreTraining

    folder = tmp_path_factory.mktemp("bert")
    theirs = shaken(BertForPreTraining(BertConfig(vocab_size=32, max_position_embeddings=16, **SIZES)))
    theirs.save_pretrained(folder)
    return theirs, open_folder(folder).network


class TestMasks:
    @pytest.mark.parametrize("blank", ["[MASK]", "<mask>", "___", "_____"])
    def test_guesses_are_those_of_transformers_however_the_blank_is_written(self, bert, blank):
        theirs, network = bert
        words = bert_words()
        filled = fill(network, words, f"i love eating {blank} in my {blank} salad", top=4)
        ids = torch.tensor([words.encode("i love eating [MASK] in my [MASK] salad", special=True)])
        with torch.no_grad():
            likely = theirs(ids).prediction_logits[0, [5, 8]].softmax(-1)
        assert ids[0, [5, 8]].tolist() == [3, 3]
        for blank_guesses, wanted in zip(filled, likely, strict=True):
            values, tokens = wanted.topk(4)
            assert [piece for piece, _ in blank_guesses] == [words.piece(token) for token in tokens.tolist()]
            torch.testing.assert_close(torch.tensor([value for _, value in blank_guesses]), values)

    def test_all_pieces_together_are_certain(self, bert):
        (blank,) = fill(bert[1], bert_words(), "i love ___", top=1000)
        assert len(blank) == 32
        assert sum(value for _, value in blank) == pytest.approx(1)

    @pytest.mark.parametrize(
        ("text", "best", "wanted"),
        [
            ("I love  eating [MASK], in my salad", ["apple"], "I love  eating apple, in my salad"),
            ("i love eat ___ in", ["##ing"], "i love eating in"),
            ("(___ salad", ["apple"], "(apple salad"),
            ("___ love ___ ___.", ["i", "apple", "##s"], "i love apples."),
        ],
    )
    def test_the_text_is_filled_as_a_person_wrote_it(self, bert, monkeypatch, text, best, wanted):
        words = bert_words()
        chosen = iter([words.core.token_to_id(piece) for piece in best])
        logits = torch.full((len(best), 32), -9.0)
        for row in logits:
            row[next(chosen)] = 9.0
        network = bert[1]
        monkeypatch.setattr(network, "head", lambda hidden: logits)
        assert fill(network, words, text).text == wanted

    def test_a_byte_level_piece_brings_its_own_space(self, bert, monkeypatch):
        """As RoBERTa's: the mask token takes the space before it."""
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        core = Core(models.BPE({sign: index for index, sign in enumerate(["<mask>", *alphabet])}, []))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        core.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
        words = Tokenizer(core, mask_id=0)
        config = ModelConfig(architecture="encoder", vocab_size=257, max_position_embeddings=32, **SIZES)
        network = Transformer(config).eval()
        letter = core.token_to_id("s")
        monkeypatch.setattr(network, "head", lambda hidden: torch.eye(257)[[letter]] * 9)
        assert fill(network, words, "apple ___ in").text == "apples in"

    def test_bart_reads_the_text_on_both_sides(self, tmp_path):
        from transformers import BartConfig, BartForConditionalGeneration

        words = bert_words()
        config = BartConfig(
            vocab_size=32, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=32,
            decoder_start_token_id=2, pad_token_id=0, eos_token_id=2, bos_token_id=1,
        )  # fmt: skip
        theirs = shaken(BartForConditionalGeneration(config))
        theirs.save_pretrained(tmp_path)
        network = open_folder(tmp_path).network
        (blank,) = fill(network, words, "i love ___ salad", top=3, rules=Rules(decoder_start_token_id=2))
        ids = torch.tensor([words.encode("i love [MASK] salad", special=True)])
        with torch.no_grad():  # labels make theirs shift the text itself
            values, tokens = theirs(ids, labels=ids).logits[0, 3].softmax(-1).topk(3)
        assert [piece for piece, _ in blank] == [words.piece(token) for token in tokens.tolist()]
        torch.testing.assert_close(torch.tensor([value for _, value in blank]), values)


class TestSpans:
    @pytest.fixture(name="t5", scope="class")
    def _t5(self, tmp_path_factory) -> Any:
        from transformers import T5Config, T5ForConditionalGeneration

        torch.manual_seed(2)  # one of those whose spans end
        config = T5Config(vocab_size=24, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
        theirs = T5ForConditionalGeneration(config).eval()
        folder = tmp_path_factory.mktemp("t5")
        theirs.save_pretrained(folder)
        return theirs, open_folder(folder).network

    def test_probabilities_are_those_of_whole_spans(self, t5):
        theirs, network = t5
        words = t5_words()
        text = "i love ___ in my ___"
        filled = fill(network, words, text, top=3, rules=Rules(decoder_start_token_id=0))
        assert [len(blank) for blank in filled] == [3, 3]
        source = torch.tensor([words.encode("i love <extra_id_0> in my <extra_id_1>", special=True)])
        assert source[0].tolist()[-2:] == [6, 4]
        for piece, probability in filled[0]:
            span = words.encode(piece)
            assert not set(span) & set(words.specials.values())
            with torch.no_grad():
                logits = theirs(source, decoder_input_ids=torch.tensor([[0, 5, *span]])).logits[0, 1:].log_softmax(-1)
            written = logits[:-1].gather(-1, torch.tensor(span, dtype=torch.int64)[:, None]).sum()
            ends = [math.exp(written + logits[-1, end]) for end in (6, 4)]  # the next sentinel, or the end of all
            assert any(probability == pytest.approx(wanted, rel=1e-4) for wanted in (*ends, sum(ends)))
        assert len({piece for piece, _ in filled[0]}) == 3
        values = [value for _, value in filled[0]]
        assert values == sorted(values, reverse=True)

    def test_more_blanks_than_sentinels_are_refused(self, t5):
        with pytest.raises(InputError, match="3 blanks"):
            fill(t5[1], t5_words(), "___ love ___ ___", rules=Rules(decoder_start_token_id=0))


class TestRefusals:
    def test_each_says_what_to_do(self, bert):
        network, words = bert[1], bert_words()
        decoder = Transformer(ModelConfig(vocab_size=32, max_position_embeddings=16, **SIZES))
        headless = ModelConfig(
            architecture="encoder", vocab_size=32, max_position_embeddings=16, language_head=False, **SIZES
        )
        with pytest.raises(InputError, match="lmworks next"):
            fill(decoder, words, "i ___")
        with pytest.raises(InputError, match="no language head"):
            fill(Transformer(headless), words, "i ___")
        with pytest.raises(InputError, match="no mask token"):
            fill(network, t5_words(), "i ___")
        with pytest.raises(InputError, match="no blank"):
            fill(network, words, "i love tea")
        with pytest.raises(InputError, match="context holds 16"):
            fill(network, words, "i ___" + " love" * 20)
        with pytest.raises(InputError, match="at least 1"):
            fill(network, words, "i ___", top=0)
        with pytest.raises(InputError, match="follows another"):
            next_sentence(decoder, words, "i", "love")
        with pytest.raises(InputError, match="context holds 16"):
            next_sentence(network, words, "i love " * 5, "tea " * 5)
        with pytest.raises(InputError, match="one of: mean, first"):
            embed(network, words, ["i"], pooling="median")  # type: ignore[arg-type]
        with pytest.raises(InputError, match="text 2"):
            embed(network, words, ["i", "love " * 20])
        with pytest.raises(InputError, match="empty"):
            embed(decoder, Tokenizer(core_of([], [])), [""])


def test_next_sentence_is_that_of_transformers(bert):
    theirs, network = bert
    words = bert_words()
    pair = words.core.encode("i love tea", "my cat", add_special_tokens=True)
    assert pair.type_ids == [0, 0, 0, 0, 0, 1, 1, 1]
    with torch.no_grad():
        logits = theirs(torch.tensor([pair.ids]), token_type_ids=torch.tensor([pair.type_ids])).seq_relationship_logits
    wanted = logits.softmax(-1)[0, 0].item()
    assert next_sentence(network, words, "i love tea", "my cat") == pytest.approx(wanted, rel=1e-5)
    assert next_sentence(network, words, "my cat", "i love tea") != pytest.approx(wanted, rel=1e-5)


class TestVectors:
    TEXTS = ("i love tea", "my cat", "fresh fruit salad, apples in tea", "i")

    def test_pooled_without_padding_they_equal_theirs_alone(self, bert):
        theirs, network = bert
        words = bert_words()
        alone = []
        for text in self.TEXTS:
            with torch.no_grad():
                alone.append(theirs.bert(torch.tensor([words.encode(text, special=True)])).last_hidden_state[0])
        for mine, state in zip(embed(network, words, self.TEXTS, "none"), alone, strict=True):
            torch.testing.assert_close(mine, state)
        means = torch.stack([state.mean(0) for state in alone])
        torch.testing.assert_close(embed(network, words, self.TEXTS, normalize=False), means)
        torch.testing.assert_close(embed(network, words, self.TEXTS), means / means.norm(dim=-1, keepdim=True))
        firsts = torch.stack([state[0] for state in alone])
        torch.testing.assert_close(embed(network, words, self.TEXTS, "first", normalize=False), firsts)

    @pytest.mark.parametrize("architecture", ["decoder", "encoder", "encoder-decoder"])
    @pytest.mark.parametrize("positions", ["rotary", "relative", "learned"])
    def test_any_architecture_gives_together_what_it_gives_alone(self, architecture, positions):
        torch.manual_seed(0)
        both = {"num_decoder_layers": 1} if architecture == "encoder-decoder" else {}
        config = ModelConfig(
            architecture=architecture, vocab_size=32, max_position_embeddings=64, positions=positions, **SIZES, **both
        )
        network, words = Transformer(config).eval(), bert_words()
        together = embed(network, words, self.TEXTS)
        alone = torch.cat([embed(network, words, [text]) for text in self.TEXTS])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
        assert together.shape == (4, 32)

    def test_real_sentences_equal_those_of_sentence_transformers(self):
        theirs = pytest.importorskip("sentence_transformers")
        from lmworks.base.sources import find

        try:
            folder = Path(find("minilm-l6").path)
        except InputError as error:
            pytest.skip(f"the real model is not here: {error}")
        texts = [
            "He went to the bank to deposit money.",
            "The river bank was muddy.",
            "unhappiness",
            "Hello world! " * 9,
        ]
        model = lmworks.load(folder)
        wanted = torch.tensor(theirs.SentenceTransformer(str(folder), device="cpu").encode(texts))
        torch.testing.assert_close(model.embed(texts), wanted, atol=1e-4, rtol=0)
        assert model.embed(texts[:1], pooling="none")[0].shape == (11, 384)
