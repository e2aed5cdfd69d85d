"""The library as a notebook uses it, on a tiny model and on the real one."""

import json
import shutil

import pytest
import torch
from tiny_kinds import save_both, save_encoder
from tiny_model import save_tiny

import lmworks
from lmworks.base.errors import InputError


@pytest.fixture(scope="module", name="tiny")
def _tiny(tmp_path_factory):
    return lmworks.load(save_tiny(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="module", name="lm")
def _lm(smollm2):
    return lmworks.load("smollm2-135m-instruct")


def test_streaming_gives_the_same_text(tiny):
    whole = tiny.generate("Who are", max_tokens=20)
    assert "".join(tiny.generate("Who are", max_tokens=20, stream=True)) == whole
    assert tiny.generate(["Who are", "The"], max_tokens=20)[0] == whole


def test_unknown_sampling_settings_are_refused_by_name(tiny):
    with pytest.raises(InputError, match="temperature"):
        tiny.generate("Who", temprature=1)


def test_saved_and_loaded_is_the_same(tiny, tmp_path):
    again = lmworks.load(tiny.save(tmp_path / "saved"))
    ids = torch.randint(0, 300, (2, 9))
    with torch.no_grad():
        assert torch.equal(again.network(ids).logits, tiny.network(ids).logits)
    assert again.tokenizer.encode("Who are you?") == tiny.tokenizer.encode("Who are you?")
    assert again.tokenizer.end_ids == tiny.tokenizer.end_ids


def test_half_width_is_half_the_bytes(tiny, tmp_path):
    sizes = [
        (tiny.save(tmp_path / dtype, dtype=dtype) / "model.safetensors").stat().st_size
        for dtype in ("float32", "bfloat16")
    ]
    assert sizes[1] < 0.6 * sizes[0]


def test_without_a_tokenizer_the_network_still_opens(tiny, tmp_path):
    folder = tiny.save(tmp_path / "bare")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    bare = lmworks.load(folder)
    assert bare.network(torch.tensor([[1, 2]])).logits.shape == (1, 2, tiny.config.vocab_size)
    with pytest.raises(InputError, match="tokenizer"):
        bare.generate("Who")


def test_a_config_key_that_nobody_reads_is_refused_by_name(tiny, tmp_path):
    folder = tiny.save(tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_thetta": 5}))
    with pytest.raises(InputError, match="rope_thetta") as refused:
        lmworks.load(folder)
    assert "rope_theta" in refused.value.hint


def test_prepared_for_speed_it_answers_alike(tiny, tmp_path):
    shutil.copytree(tiny.save(tmp_path / "saved"), tmp_path / "again")
    fast = lmworks.load(tmp_path / "again").prepare("float32")
    assert fast.generate("Who are", max_tokens=12) == tiny.generate("Who are", max_tokens=12)


class TestOtherKinds:
    """Encoders and encoder-decoders: what they do, and what they refuse by name."""

    @pytest.fixture(name="encoder", scope="class")
    def _encoder(self, tmp_path_factory):
        return lmworks.load(save_encoder(tmp_path_factory.mktemp("kinds") / "encoder"))

    @pytest.fixture(name="both", scope="class")
    def _both(self, tmp_path_factory):
        return lmworks.load(save_both(tmp_path_factory.mktemp("kinds") / "both"))

    def test_an_encoder_fills_compares_and_gives_vectors(self, encoder):
        filled = encoder.fill("i love [MASK] in my ___", top=3)
        assert [len(blank) for blank in filled] == [3, 3]
        assert filled.text.startswith("i love ")
        assert 0 < encoder.next_sentence("i love tea", "my cat") < 1
        assert encoder.embed(["i love tea", "my cat"]).shape == (2, 32)
        assert [len(states) for states in encoder.embed("i love tea", pooling="none")] == [5]

    def test_an_encoder_writes_nothing(self, encoder):
        for call in (
            lambda: encoder.generate("i love"),
            lambda: list(encoder.generate("i love", stream=True)),
            lambda: encoder.generate(["i love"], num_beams=3),
            lambda: encoder.chat([{"role": "user", "content": "i"}]),
            lambda: encoder.next("i love"),
        ):
            with pytest.raises(InputError, match="lmworks fill"):
                call()
        with pytest.raises(InputError, match="no encoder-decoder"):
            encoder.translate("i love")
        with pytest.raises(InputError, match="likelihood"):
            encoder.score("i love tea")

    def test_an_encoder_decoder_answers(self, both):
        whole = both.generate("i love tea", max_tokens=9)
        assert "".join(both.generate("i love tea", max_tokens=9, stream=True)) == whole
        texts = ["i love tea", "my cat", "fresh fruit salad in my tea"]
        for settings in ({}, {"temperature": 1.0, "seed": 3}, {"num_beams": 3}):
            together = both.generate(texts, max_tokens=9, **settings)
            assert together == [both.generate(text, max_tokens=9, **settings) for text in texts]
        beams = both.generate("i love tea", max_tokens=9, num_beams=3)
        assert "".join(both.generate("i love tea", max_tokens=9, num_beams=3, stream=True)) == beams
        assert both.embed(texts).shape == (3, 32)
        assert len(both.fill("i love ___ in my ___", top=2)) == 2
        with pytest.raises(InputError, match="answers a text"):
            both.next("i love")
        with pytest.raises(InputError, match="likelihood"):
            both.score("i love tea")

    def test_translating_is_beam_search_as_the_publisher_advises(self, both, tmp_path):
        text = "i love fruit salad"
        assert both.translate(text, max_tokens=8) == both.generate(text, max_tokens=8, num_beams=4)
        advised = {"num_beams": 3, "length_penalty": 0.5, "max_length": 7, "no_repeat_ngram_size": 2}
        output = lmworks.load(save_both(tmp_path / "told", {"decoder_start_token_id": 0, "eos_token_id": 4, **advised}))
        settings = {"num_beams": 3, "length_penalty": 0.5, "max_tokens": 6, "no_repeat_ngram_size": 2}
        assert output.translate([text, "my cat"]) == output.generate([text, "my cat"], **settings)
        assert output.translate(text, temperature=1.0, seed=1, max_tokens=6) == output.generate(
            text, temperature=1.0, seed=1, max_tokens=6
        )

    def test_what_the_decoder_begins_with_may_stand_in_either_file(self, both, tmp_path):
        folder = both.save(tmp_path / "saved")
        again = lmworks.load(folder)
        assert again.rules == both.rules
        assert again.rules.decoder_start_token_id == 0
        (folder / "generation_config.json").unlink()
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "decoder_start_token_id": 5}))
        older = lmworks.load(folder)
        assert older.rules.decoder_start_token_id == 5
        assert lmworks.load(older.save(tmp_path / "newer")).rules.decoder_start_token_id == 5

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_prepared_for_speed_they_answer_alike(self, encoder, both, tmp_path, precision):
        text = "i love tea"
        fast = lmworks.load(both.save(tmp_path / "both")).prepare(precision)
        assert fast.translate(text, max_tokens=8) == both.translate(text, max_tokens=8)
        assert fast.generate(text, max_tokens=8) == both.generate(text, max_tokens=8)
        quick = lmworks.load(encoder.save(tmp_path / "encoder")).prepare(precision)
        assert quick.fill("i love ___") == encoder.fill("i love ___")
        share = 1e-5 if precision == "float32" else 0.02
        torch.testing.assert_close(quick.embed(text), encoder.embed(text), atol=share, rtol=0)


class TestRealModel:
    def test_it_continues_and_answers(self, lm):
        assert lm.generate("The capital of France is", max_tokens=6).strip().startswith("Paris")
        answer = lm.chat([{"role": "user", "content": "What is the capital of France?"}], max_tokens=12)
        assert "Paris" in answer

    def test_it_prefers_english_in_order(self, lm):
        right, wrong = lm.score(["The sky is blue.", "Blue is the the."])
        assert right.bits_per_byte < wrong.bits_per_byte
        assert right.tokens > 0

    def test_next_is_a_distribution(self, lm):
        result = lm.next("The sky is", top=20)
        assert len(result) == 20
        probabilities = [probability for _, probability in result]
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) < 1

    def test_the_network_is_a_module(self, lm):
        assert lm.network(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 49152)

    @pytest.mark.slow
    @pytest.mark.timeout(1500)
    def test_ten_greedy_answers_equal_those_of_transformers_and_peft(self, lm, tmp_path):
        """Saved here, opened there: ten prompts, fifty tokens; bare, and with an adapter trained there."""
        peft = pytest.importorskip("peft")
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = lm.save(tmp_path / "saved")
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        words = AutoTokenizer.from_pretrained(folder)

        def compare(ours, theirs):
            for prompt in PROMPTS:
                ids = words(prompt, return_tensors="pt")
                settings = {"max_new_tokens": 50, "do_sample": False, "pad_token_id": 2}
                output = theirs.generate(**ids, **settings)[0, ids.input_ids.shape[1] :]
                wanted = words.decode(output, skip_special_tokens=True)
                assert ours.generate(prompt, max_tokens=50) == wanted

        compare(lm, theirs)
        torch.manual_seed(0)
        config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
        adapted = peft.get_peft_model(theirs, config)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        adapted.peft_config["default"].base_model_name_or_path = str(folder)
        adapted.save_pretrained(tmp_path / "adapter")
        compare(lmworks.load(tmp_path / "adapter"), adapted.eval())


PROMPTS = [
    "The sky is",
    "Water boils at",
    "Once upon a time",
    "def fibonacci(n):",
    "The largest planet of the solar system is",
    "To make bread, you need",
    "In 1969, the first man",
    "The opposite of hot is",
    "Dear Sir or Madam,",
    "Three primary colours are",
]


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("generate", None),
        ("generate", 3),
        ("generate", ["a", None]),
        ("score", None),
        ("score", 3),
        ("score", ["a", None]),
        ("embed", None),
        ("embed", [3]),
        ("chat", None),
        ("chat", "hi"),
        ("chat", ["hi"]),
        ("next", None),
        ("fill", 3),
    ],
)
def test_arguments_of_other_types_are_refused(tiny, method, value):
    with pytest.raises(InputError, match="cannot be used here") as caught:
        getattr(tiny, method)(value)
    assert caught.value.hint.startswith("give a ")


@pytest.mark.parametrize("door", [lmworks.report, lmworks.resume, lmworks.load])
def test_a_folder_that_is_none_is_refused(door):
    with pytest.raises(InputError):
        door(None)


@pytest.mark.parametrize("door", [lmworks.plan, lmworks.tune, lmworks.pretrain])
def test_a_run_of_nothing_is_refused(door):
    with pytest.raises(InputError, match="NoneType cannot be used here"):
        door(None, None)
    with pytest.raises(InputError, match="data"):
        door("tinygpt", None)
