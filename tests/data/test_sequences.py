"""Source and target: what the encoder reads, what the decoder learns to say, what is cut and refused."""

from pathlib import Path

import numpy as np
import pytest
from tiny_tasks import TEXTS, bert_like, make_task, model, roberta_like, t5_like

from lmworks.base.errors import InputError
from lmworks.data.packing import pack
from lmworks.text import corpus
from lmworks.text.rows import DataSettings

T5, BART = t5_like(), roberta_like()
PAIRS = [{"source": "The sky is blue", "target": "Nobody is é"}, {"source": "Who?", "target": "you"}]
PUD = Path(__file__).parents[3] / "shared" / "data" / "translation_pud" / "pud_en_fr_de.tsv"


def make(rows, tokenizer=T5, context=64, output=None, **settings):
    task = make_task("seq2seq", tokenizer, model("encoder-decoder"), **(output or {}))
    data = DataSettings(**settings)
    return task.examples(corpus.read(rows, data), data, context)


def test_the_decoder_says_the_target_and_ends():
    first, second = make(PAIRS)
    assert first.source.tolist() == [*T5.encode("The sky is blue"), T5.eos_id]
    assert first.ids.tolist() == [T5.pad_id, *T5.encode("Nobody is é"), T5.eos_id]
    assert first.loss.tolist() == [False] + [True] * (len(first) - 1)
    assert (first.bytes, second.bytes) == (len("Nobody is é".encode()), 3)
    (example, _) = make(PAIRS, BART, output={"decoder_start": "eos"})
    assert example.ids.tolist() == [2, 0, *BART.encode("Nobody is é"), 2]
    assert example.source.tolist() == [0, *BART.encode("The sky is blue"), 2]


def test_a_prefix_stands_before_each_source():
    created = make(PAIRS, output={"prefix": "are you? "})
    assert created[0].source.tolist() == [*T5.encode("are you? The sky is blue"), T5.eos_id]


def test_the_causal_shift_serves_the_decoder():
    (batch,) = pack(make(PAIRS).items, 1000)
    weighted = batch.weights[0] > 0
    assert batch.targets[0][weighted].tolist() == [
        *T5.encode("Nobody is é"), T5.eos_id, *T5.encode("you"), T5.eos_id
    ]  # fmt: skip
    assert batch.source.segments.max() == 2


def test_prompts_and_labels_are_pairs_too():
    (item,) = make([{"prompt": "Who?", "completion": "you"}])
    (two,) = make([{"text": "Who?", "label": "you"}])
    (three,) = make([{"source": "Who?", "target": "you"}])
    assert item.ids.tolist() == two.ids.tolist() == three.ids.tolist()
    assert item.source.tolist() == two.source.tolist() == three.source.tolist()


def test_long_sides_are_cut_skipped_or_refused():
    long = {"source": TEXTS[0], "target": TEXTS[1]}
    whole = make([long], context=500)[0]
    created = make([long, *PAIRS], max_tokens=20)
    cut = created[0]
    assert cut.source.tolist() == [*whole.source[:19].tolist(), T5.eos_id]
    assert cut.ids.tolist() == whole.ids[:20].tolist()
    assert cut.dropped == len(whole.source) - 20 + len(whole) - 20
    assert cut.bytes == len(T5.decode(cut.ids[1:].tolist()).encode())
    assert created.report.truncated == 1
    assert len(make([long, *PAIRS], max_tokens=20, on_long="skip")) == 2
    with pytest.raises(InputError, match="row 1: its source is"):
        make([long], max_tokens=20, on_long="stop")


def test_what_does_not_go_together_is_refused():
    with pytest.raises(InputError, match="rows of kind text have no source and target"):
        make([{"text": "The sky"}])
    with pytest.raises(InputError, match="row 2: field 'target' is empty"):
        make([PAIRS[0], {"source": "a", "target": " "}])
    with pytest.raises(InputError, match="no room for a text"):
        make(PAIRS, context=1)


def test_a_tokenizer_without_an_end_uses_what_closes_its_texts():
    bert = bert_like()
    (example, _) = make(PAIRS, bert)
    assert example.ids[-1] == bert.closing[-1]


def test_translations(tmp_path):
    if not PUD.is_file():
        pytest.skip("../shared/data/translation_pud is not here")
    created = make(PUD, columns={"source": "en", "target": "fr"}, limit=20, context=400)
    assert len(created) == 20
    assert created.report.loss_tokens == sum(len(example) - 1 for example in created)
    assert not created.report.truncated


# Causal texts from random places


def test_causal_windows_begin_anywhere_and_count_their_bytes():
    task = make_task("causal", BART, model("decoder"), windows="random")
    created = task.examples(corpus.read([{"text": TEXTS[0]}]), DataSettings(), 12)
    still = make_task("causal", BART, model("decoder"))
    rng = np.random.default_rng(0)
    whole = [*BART.opening, *BART.encode(TEXTS[0]), *BART.closing]
    seen = set()
    for _ in range(2000):
        drawn = task.sample(created[0], rng)
        assert drawn.width == 12
        learned = drawn.ids[drawn.loss].tolist()
        assert drawn.bytes == len(BART.decode(learned).encode())
        assert drawn.loss.tolist() == [False] + [True] * 12
        seen.add(tuple(drawn.ids.tolist()))
    assert seen == {tuple(whole[begin : begin + 13]) for begin in range(len(whole) - 12)}
    for example in created:
        assert task.sample_for_evaluation(example, rng) is example
        assert still.sample(example, rng) is example


def test_general_texts_are_asked_as_the_model_was_pretrained_on_them():
    shown = make_task("seq2seq", T5, model("encoder-decoder")).general_examples(TEXTS, 64)
    assert len(shown) >= len(TEXTS)
    assert T5.core.token_to_id("<extra_id_0>") in shown[0].source.tolist()
    damaged = make_task("seq2seq", BART, model("encoder-decoder"), decoder_start="eos").general_examples(TEXTS, 64)
    assert BART.mask_id in damaged[0].source.tolist()
    for without in (t5_like(0), t5_like(1)):  # as Marian's; and fewer sentinels than a text has spans
        assert make_task("seq2seq", without, model("encoder-decoder")).general_examples(TEXTS, 512) == []
