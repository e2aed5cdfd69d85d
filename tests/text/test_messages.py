"""Messages of a row: keys are honoured, refused by name, or said to be unused; lists of messages as prompts."""

import json

import pytest
from tiny_tokenizers import CHATML, byte_level

from lmworks.base.errors import InputError
from lmworks.data.answers import answer_examples
from lmworks.data.prompts import accepted_rows, prompts
from lmworks.text import chat, corpus
from lmworks.text.rows import DataSettings

CALLS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for c in m['tool_calls'] or [] %}<call>{{ c['function'] | tojson }}</call>{% endfor %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def user(text, **keys):
    return {"role": "user", "content": text, **keys}


def lines(text, **keys):
    return {"role": "assistant", "content": text, **keys}


def learned(tokenizer, messages, turns="all"):
    ids, loss = chat.encode(tokenizer, messages, turns=turns)
    text = tokenizer.decode([token for token, here in zip(ids, loss, strict=True) if here], skip_special=False)
    return text.split("<|im_end|>")[:-1]


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}, {"training": False}, {"loss": 0.0}])
def test_a_message_that_is_not_to_be_learned_carries_no_loss(mark):
    talk = [user("Tea?"), lines("No milk.", **mark), user("Sure?"), lines("Yes.")]
    table = corpus.read([{"messages": talk}])
    messages = table.rows[0].values["messages"]
    tokenizer = byte_level(CHATML)
    assert learned(tokenizer, messages) == ["Yes."]
    assert (
        chat.encode(tokenizer, messages)[0] == chat.encode(tokenizer, [user("Tea?"), lines("No milk."), *talk[2:]])[0]
    )
    (prompt,) = prompts(table, tokenizer, DataSettings())
    assert prompt.reference == "Yes."


def test_a_weight_on_the_last_message_changes_the_prompt():
    table = corpus.read([{"messages": [user("Tea?"), lines("Milk."), user("Sure?"), lines("No!", weight=0)]}])
    (prompt,) = prompts(table, byte_level(CHATML), DataSettings())
    assert (prompt.text, prompt.reference) == ("Tea?", "Milk.")


@pytest.mark.parametrize(
    ("talk", "fault"),
    [
        ([user("a"), lines("b", weight=0.5)], "message 2: weight is 0.5"),
        ([user("a"), lines("b", train="no")], "message 2: train is 'no'"),
        ([user("a"), lines("b", weight=1, train=False)], "message 2: .* contradict"),
        ([user("a", train=True), lines("b")], "message 1: train: True of role 'user'"),
        ([user("a"), lines("b", weight=0)], "no assistant message is learned: each has weight 0"),
        ([user("a"), lines("b", function_call={"name": "f"})], "message 2: the key 'function_call'"),
        ([user("a"), lines("b", tool_calls=[{"function": {}}])], "message 2: a tool call without the name"),
        ([user("a", tool_calls=[{"function": {"name": "f"}}]), lines("b")], "message 1: tool_calls of role 'user'"),
        ([user("a"), lines("")], "message 2: has an empty assistant message"),
        ([user([{"type": "image_url", "image_url": {}}]), lines("b")], "message 1, part 1: a part .* type 'image_url'"),
        ([user("a"), lines([{"type": "text", "text": "b"}, 3])], "message 2, part 2: a part .* a int"),
        ([user("a"), lines("b\ud800")], "message 2: character 2 is half of a surrogate pair"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_file_line_and_message(tmp_path, talk, fault):
    path = tmp_path / "talk.jsonl"
    good = [user("a"), lines("b")]
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in (good, talk)))
    with pytest.raises(InputError, match=rf"talk\.jsonl:2: field 'messages': {fault}"):
        corpus.read(path)
    table = corpus.read(path, DataSettings(on_bad_row="skip"))
    assert (len(table), len(table.skipped)) == (1, 1)


def test_parts_of_text_are_joined_and_learned():
    asked = [{"type": "text", "text": "Open?"}, {"type": "text", "text": " Say."}]
    parts = [user(asked), lines([{"type": "text", "text": "Until nine."}])]
    table = corpus.read([{"messages": parts}])
    assert [message["content"] for message in table.rows[0].values["messages"]] == ["Open? Say.", "Until nine."]
    assert learned(byte_level(CHATML), table.rows[0].values["messages"]) == ["Until nine."]


def test_keys_that_nothing_reads_are_said():
    table = corpus.read([{"messages": [user("a", id=3, at="noon"), lines("b", weight=None)]}])
    assert "keys of messages not used: id, at" in table.notes
    assert table.rows[0].values["messages"] == [user("a"), lines("b")]
    named = corpus.read([{"messages": [user("a", name="Ada"), lines("b")]}])
    report = answer_examples(named, byte_level(CHATML), DataSettings(), 100).report
    assert any("does not write 'name'" in note for note in report.notes)


@pytest.mark.parametrize("content", [None, ""])
@pytest.mark.parametrize("arguments", ['{"shelf": 4}', {"shelf": 4}])
def test_tool_calls_are_written_and_learned(content, arguments):
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": arguments}}
    talk = [
        user("Where is it?"),
        {"role": "assistant", "content": content, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "hall 2"},
        lines("In hall 2."),
    ]
    table = corpus.read([{"messages": talk}])
    messages = table.rows[0].values["messages"]
    written = '<call>{"name": "find", "arguments": {"shelf": 4}}</call>'
    assert learned(byte_level(CALLS), messages) == [written, "In hall 2."]
    assert learned(byte_level(CALLS), messages, "last") == ["In hall 2."]
    raw = CALLS.replace("c['function'] | tojson", "c['function']['arguments']")
    assert learned(byte_level(raw), messages)[0] == '<call>{"shelf": 4}</call>'
    with pytest.raises(InputError, match="message 2: the model's chat template does not write tool_calls"):
        chat.encode(byte_level(CHATML), messages)
    (prompt,) = prompts(corpus.read([{"messages": talk[:2]}]), byte_level(CALLS), DataSettings())
    assert prompt.reference == written


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ([user("Tea?"), lines("Or coffee?"), user("Tea.")], [lines("With milk.")]),
        ([user("Tea?"), lines("Or coffee?"), user("Tea.")], "With milk."),
        ("Tea.", [lines("With milk.")]),
    ],
)
def test_prompts_and_completions_may_be_lists_of_messages(prompt, completion):
    plain = {"prompt": "Hall?", "completion": "The second."}
    table = corpus.read([plain, {"prompt": prompt, "completion": completion}])
    assert table.kind == "chat"
    assert any("lists of messages" in note for note in table.notes)
    assert [learned(byte_level(CHATML), row.values["messages"]) for row in table.rows] == [
        ["The second."],
        ["With milk."],
    ]


REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHATML


def test_rows_that_the_template_refuses_stop_or_are_left_out(tmp_path):
    path = tmp_path / "talk.jsonl"
    talks = [[user(f"Hall {n}?"), lines(f"Left {n}.")] for n in range(20)]
    talks[4].insert(0, {"role": "system", "content": "Be kind."})
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in talks))
    tokenizer, settings = byte_level(REFUSING), DataSettings()
    table = accepted_rows(corpus.read(path), tokenizer, settings)
    with pytest.raises(InputError, match=r"talk\.jsonl:5: .*no system here[^$]*on_bad_row skip"):
        answer_examples(table, tokenizer, settings, 200)
    settings = DataSettings(on_bad_row="skip")
    table = accepted_rows(corpus.read(path), tokenizer, settings)
    created = answer_examples(table, tokenizer, settings, 200)
    assert (len(created), created.report.skipped) == (19, 1)
    assert any("1 row left out" in note and "talk.jsonl:5" in note for note in created.report.notes)
