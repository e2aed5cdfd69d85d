"""ELIZA: each mechanism by rules of its own, the rules that come with lmworks, and hostile input."""

from __future__ import annotations

import fnmatch
import io
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lmworks
from lmworks.base.errors import InputError
from lmworks.baselines.eliza import MOST_WORDS, Eliza, Script, decompose, default_script
from lmworks.commands.main import main

RULES = """
greeting: Begin.
none: [none one, none two]
memory:
  keyword: my
  every: 2
  rules: [{pattern: "* your *", replies: ["earlier your {3}", "again your {3}"]}]
tags: {pets: [cat, dog]}
keywords:
  i: {swap: you, rules: [{pattern: "* you *", replies: ["first {3}", "second {3}", "third {3}"]}]}
  you: {swap: I}
  me: {swap: you}
  my:
    swap: your
    rank: 2
    rules:
      - {pattern: "* your * @pets *", replies: ["a {4}"]}
      - {pattern: "* your *", replies: ["your {3}"]}
  low: {rank: 1, rules: [{pattern: "*", replies: ["low"]}]}
  high: {rank: 9, rules: [{pattern: "* [is|was] *", replies: ["high {3}"]}, {pattern: "*", replies: [next]}]}
  link: {rank: 5, rules: [{pattern: "* link *", replies: ["= low"]}]}
  alias: {rank: 5, goto: low}
  anew: {rank: 5, rules: [{pattern: "* anew *", replies: [{pre: "you {3}", goto: i}]}]}
  ping: {rank: 5, rules: [{pattern: "*", replies: ["= pong"]}]}
  pong: {rank: 5, rules: [{pattern: "*", replies: ["= ping"]}]}
  narrow: {rank: 7, rules: [{pattern: "narrow ?", replies: ["narrow {2}"]}]}
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return Script.read(path)


@pytest.fixture
def eliza(script):
    return Eliza(script)


@pytest.mark.parametrize(
    ("pattern", "words", "parts"),
    [
        ("*", "", [""]),
        ("* a *", "x a y", ["x", "a", "y"]),
        ("* a *", "x y", None),
        ("* a *", "a", ["", "a", ""]),
        ("a *", "b a", None),
        ("* a", "a b a", ["a b", "a"]),
        ("* a b *", "a a b c", ["a", "a", "b", "c"]),
        ("* a * b *", "b a c b b", ["b", "a", "c", "b", "b"]),
        ("a ?", "a b", ["a", "b"]),
        ("a ?", "a b c", None),
        ("* [a|b] *", "x B y", ["x", "B", "y"]),
        ("* @pets *", "the dog barks", ["the", "dog", "barks"]),
        ("* a * a", "x a", None),
    ],
)
def test_decomposition(pattern, words, parts):
    assert decompose(pattern, words.split(), {"pets": frozenset({"dog"})}) == parts


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from(["a", "b", "*", "?"]), max_size=6))
@settings(deadline=None)
def test_the_parts_together_are_the_words(words, elements):
    parts = decompose(" ".join(elements), words, {})
    matches = fnmatch.fnmatchcase("".join(words), "".join(elements))
    assert (parts is not None) == matches
    if parts is not None:
        assert " ".join(filter(None, parts)) == " ".join(words)


def test_pronouns_are_swapped(eliza):
    assert eliza.respond("I like you and me") == "First like I and you"


def test_replies_take_turns_and_none_comes_again_before_its_turn(eliza):
    replies = [eliza.respond("I go") for _ in range(6)]
    assert replies == ["First go", "Second go", "Third go"] * 2


def test_the_highest_rank_is_answered(eliza):
    assert eliza.respond("low is high") == "High high"
    assert eliza.respond("I am low") == "Low"


def test_a_rule_may_leave_the_message_to_the_next_keyword(eliza):
    assert eliza.respond("high low") == "Low"
    assert eliza.respond("high") == "None one"


def test_where_no_pattern_matches_the_next_keyword_is_answered(eliza):
    assert eliza.respond("narrow lane low") == "Low"
    assert eliza.respond("narrow lane") == "Narrow lane"


def test_keywords_share_rules_and_rules_go_to_keywords(eliza):
    assert eliza.respond("alias") == "Low"
    assert eliza.respond("a link here") == "Low"
    assert eliza.respond("anew swim") == "First swim"


def test_rules_that_go_in_a_circle_end(eliza):
    assert eliza.respond("ping") == "None one"


def test_tags_stand_for_their_words(eliza):
    assert eliza.respond("my old cat sleeps") == "A cat"
    assert eliza.respond("my old house") == "Your old house"


def test_the_first_clause_with_a_keyword_is_answered(eliza):
    assert eliza.respond("Well, I go. high is here") == "First go"
    assert eliza.respond("it rains but I stay") == "Second stay"


def test_memory_answers_each_second_message_without_a_keyword_in_order(eliza):
    eliza.respond("my house burns")
    eliza.respond("my cat sleeps")
    replies = [eliza.respond("mm") for _ in range(6)]
    assert replies == [
        "None one",
        "Earlier your house burns",
        "None two",
        "Again your cat sleeps",
        "None one",
        "None two",
    ]


def test_the_keyword_of_the_memory_must_be_the_one_that_is_answered(eliza):
    eliza.respond("my link is high")
    assert not eliza.memory


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('"= low"', '"= lower"', "no keyword"),
        ("goto: low", "goto: me", "has no rules"),
        ("narrow {2}", "narrow {3}", "names a part"),
        ("@pets", "@cars", "no tag"),
        ('["low"]', "[]", "no replies"),
        ("none: [none one, none two]", "", "no list of rules"),
        ("keywords:", "words:", "no list of rules"),
    ],
)
def test_rules_that_cannot_work_are_named(tmp_path, old, new, fault):
    path = tmp_path / "rules.yaml"
    path.write_text(RULES.replace(old, new))
    with pytest.raises(InputError, match=fault):
        Script.read(path)


# The rules that come with lmworks


def test_every_keyword_of_the_own_rules_has_an_answer():
    script = default_script()
    for word, keyword in script.keywords.items():
        reply = Eliza(script).respond(f"{word} my thing")
        assert reply
        assert "{" not in reply, keyword


def test_own_rules_say_nothing_twice_in_a_row():
    eliza = Eliza()
    messages = ["I am sad", "my mother calls", "mm", "you are kind", "why", "I dreamt of rain", "I remember snow"]
    for message in messages:
        replies = [eliza.respond(message) for _ in range(8)]
        assert all(first != second for first, second in itertools.pairwise(replies)), replies


@pytest.mark.parametrize(
    "message",
    [
        "",
        " ",
        "\n",
        "?!",
        "{3}",
        "= what",
        "next",
        "\udc80",
        "i\u0307 am",
        "ＩＡＭ",
        "我很难过。",
        "🙂" * 50,
        "my" * 5000,
        "\x00",
    ],
)
def test_there_is_a_reply_to_anything(message):
    eliza = Eliza()
    assert all(eliza.respond(message) for _ in range(4))


def test_a_very_long_message_is_answered_by_its_first_words():
    reply = Eliza().respond("I want " + "rain and " * 200_000)
    assert len(reply.split()) < MOST_WORDS + 20
    assert Eliza().respond(", ".join(["hm"] * 200_000) + ", yes") == "You agree rather quickly."


@given(st.text(max_size=200))
@settings(deadline=None, max_examples=200)
def test_any_text_gets_a_reply(text):
    assert Eliza(SCRIPT).respond(text)


SCRIPT = default_script()


# The command


def test_chat_opens_it(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("I am sad\nI am sad\n/new\nI am sad\n/quit\n"))
    assert main(["chat", "eliza"]) == 0
    greeting, first, second, again = capsys.readouterr().out.splitlines()
    assert greeting == SCRIPT.greeting
    assert first == again != second
    assert main(["chat", "eliza", "--ask", "I am sad"]) == 0
    assert capsys.readouterr().out.splitlines() == ["> I am sad", first]


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "eliza", "hi"],
        ["score", "eliza", "hi"],
        ["next", "hi", "--model", "eliza"],
        ["chat", "eliza", "--temperature", "1"],
        ["chat", "eliza", "--system", "You are kind."],
    ],
)
def test_what_rules_cannot_do_is_refused(words, capsys):
    assert main(words) == 2
    assert "lmworks chat eliza" in capsys.readouterr().err


def test_it_is_no_model():
    with pytest.raises(InputError, match="it only talks"):
        lmworks.load("eliza")
