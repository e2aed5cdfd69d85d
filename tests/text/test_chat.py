"""Chat: the ids of a prompt are the beginning of the ids of what is trained on; the loss lies where it should."""

from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import CHATML, GEMMA, LLAMA2, LLAMA3, MISTRAL, THINKING, byte_level, sentencepiece

from lmworks.base.errors import InputError
from lmworks.base.sources import find
from lmworks.families.gguf import read_tokenizer
from lmworks.text import chat
from lmworks.text.tokenizer import Tokenizer

MADE = {
    "chatml": byte_level(CHATML),
    "llama3": byte_level(LLAMA3),
    "gemma": byte_level(GEMMA),
    "llama2": sentencepiece(LLAMA2),
    "mistral": sentencepiece(MISTRAL, legacy=False),
    "mistral, bytes": byte_level(MISTRAL),
}
CLOSINGS = {"chatml": 4, "llama3": 7, "gemma": 9, "llama2": 2, "mistral": 2, "mistral, bytes": 2}

contents = st.text(alphabet=st.sampled_from("The sky\n é漢?<|/[]x1"), min_size=1, max_size=20).filter(str.strip)
dialogues = st.lists(contents, min_size=1, max_size=6)


def talk(texts):
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]


@lru_cache
def smollm2():
    try:
        path = find("smollm2-135m-instruct", offline=True).path
    except InputError as error:
        pytest.skip(f"SmolLM2 is not in the cache: {error.fault}")
    return read_tokenizer(path) if path.suffix == ".gguf" else Tokenizer.open(path)


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=60)
@given(texts=dialogues)
def test_a_prompt_is_the_beginning_of_every_longer_conversation(name, texts):
    _check_prefixes(MADE[name], texts)


@settings(max_examples=25)
@given(texts=dialogues)
def test_a_prompt_is_the_beginning_with_the_real_smollm2(texts):
    _check_prefixes(smollm2(), texts)


def _check_prefixes(tokenizer, texts):
    messages = talk(texts)
    speakers = range(1, len(messages), 2)
    full, loss = chat.encode(tokenizer, messages)
    for index in speakers:
        prompt, _ = chat.encode(tokenizer, messages[:index], reply=True)
        assert full[: len(prompt)] == prompt
        answered, answered_loss = chat.encode(tokenizer, messages[: index + 1])
        assert answered[: len(prompt)] == prompt
        end = max((place for place, learned in enumerate(answered_loss) if learned), default=0) + 1
        assert full[:end] == answered[:end]  # what was said earlier never changes
        assert loss[:end] == answered_loss[:end]
    assert len(full) == len(loss)


@pytest.mark.parametrize("name", MADE)
def test_loss_lies_on_what_the_assistant_says_and_on_the_end_of_its_turn(name):
    tokenizer = MADE[name]
    messages = talk(["Who are you?", "I am nobody", "The sky?", "Blue"])
    ids, loss = chat.encode(tokenizer, messages)
    learned = [token for token, here in zip(ids, loss, strict=True) if here]
    turns = tokenizer.decode(learned, skip_special=False).split(tokenizer.piece(CLOSINGS[name]))
    assert [turn.strip() for turn in turns] == ["I am nobody", "Blue", ""]
    assert chat.end_of_turn(tokenizer) == CLOSINGS[name]
    _, last = chat.encode(tokenizer, messages, turns="last")
    remaining = [token for token, here in zip(ids, last, strict=True) if here]
    assert tokenizer.decode(remaining).strip() == "Blue"


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "mistral, bytes"])
def test_the_ids_are_those_of_transformers(name):
    from transformers import PreTrainedTokenizerFast

    created = MADE[name]
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=created.core, bos_token="<s>", eos_token="</s>", chat_template=created.chat_template
    )
    messages = talk(["Who are you?", "I am nobody; who are you?", "The sky is blue."])
    for reply, given_messages in ((True, messages), (False, messages[:2])):
        expected = theirs.apply_chat_template(
            given_messages, tokenize=True, add_generation_prompt=reply, return_dict=False
        )
        assert chat.encode(created, given_messages, reply=reply)[0] == expected


def test_the_ids_with_the_real_smollm2_are_those_of_transformers(tmp_path):
    from transformers import AutoTokenizer

    created = smollm2()
    created.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    messages = talk(["What is 12 + 30?", "It is 42.", "Are you sure?"])
    expected = theirs.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert chat.encode(created, messages, reply=True)[0] == expected
    assert chat.end_of_turn(created) == created.eos_id


def test_the_end_has_loss_even_where_pad_is_eos():
    created = byte_level(CHATML, pad_id=4)
    ids, loss = chat.encode(created, talk(["Who?", "I"]))
    assert ids[[place for place, here in enumerate(loss) if here][-1]] == 4


def test_a_template_that_rewrites_history_gives_a_note_and_still_chats():
    created = byte_level(THINKING)
    lines = talk(["Who?", "<think>hm</think>I", "Sure?", "Yes"])
    with pytest.raises(InputError, match="message 2"):
        chat.encode(created, lines)
    prompt, _ = chat.encode(created, lines[:3], reply=True)
    full, loss = chat.encode(created, lines, turns="last")
    assert full[: len(prompt)] == prompt
    learned = [token for token, here in zip(full, loss, strict=True) if here]
    assert created.decode(learned, skip_special=False) == "<think>\n\n</think>\n\nYes<|im_end|>"


def test_a_template_without_an_end_token_says_so():
    created = byte_level("{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
                      "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}")  # fmt: skip
    cut = chat.pieces(created, talk(["Who?", "I"]))
    assert [(piece.text, piece.loss, piece.ended) for piece in cut][1:] == [("I", True, False), ("\n", False, False)]
    assert chat.end_of_turn(created) is None


def test_templates_run_in_a_sandbox_with_the_functions_they_know():
    created = byte_level("{{ messages | tojson }}{% generation %}{{ strftime_now('%Y') | length }}{% endgeneration %}"
                      "{% for m in messages %}{% break %}{% endfor %}")  # fmt: skip
    assert chat.render(created, talk(["<é>"])) == '[{"role": "user", "content": "<é>"}]4'
    with pytest.raises(InputError, match="refuses"):
        chat.render(byte_level("{{ messages.append(1) }}"), talk(["a"]))
    with pytest.raises(InputError, match="refuses"):
        chat.render(
            byte_level("{{ ''.__class__.__mro__ }}{{ ().__class__.__bases__[0].__subclasses__() }}"), talk(["a"])
        )
    with pytest.raises(InputError, match="does not parse"):
        chat.render(byte_level("{% if %}"), talk(["a"]))
    with pytest.raises(InputError, match="take turns"):
        chat.encode(MADE["llama2"], [{"role": "assistant", "content": "I"}])


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([], "at least one"),
        ("hello", "list"),
        ([{"content": "a"}], "message 1: not a message"),
        ([{"role": "bot", "content": "a"}], "unknown role 'bot'"),
        ([{"role": "user", "content": None}], "not NoneType"),
        ([{"role": "user", "content": ["a"]}], "not list"),
    ],
)
def test_what_is_no_conversation_is_refused(messages, fault):
    with pytest.raises(InputError, match=fault):
        chat.encode(MADE["chatml"], messages)


def test_no_template_names_the_mend():
    with pytest.raises(InputError, match=r"no chat template[^$]*hint: give the model a chat template"):
        chat.encode(byte_level(), talk(["a"]))
