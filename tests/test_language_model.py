"""The library as a notebook uses it, on a tiny model and on the real one."""

import json
import shutil

import pytest
import torch
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
    assert "rope_theta" in refused.value.mend


def test_prepared_for_speed_it_answers_alike(tiny, tmp_path):
    shutil.copytree(tiny.save(tmp_path / "saved"), tmp_path / "again")
    fast = lmworks.load(tmp_path / "again").prepare("float32")
    assert fast.generate("Who are", max_tokens=12) == tiny.generate("Who are", max_tokens=12)


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
        found = lm.next("The sky is", top=20)
        assert len(found) == 20
        probabilities = [probability for _, probability in found]
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) < 1

    def test_the_network_is_a_module(self, lm):
        assert isinstance(lm.network, torch.nn.Module)
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
                told = theirs.generate(**ids, **settings)[0, ids.input_ids.shape[1] :]
                wanted = words.decode(told, skip_special_tokens=True)
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
