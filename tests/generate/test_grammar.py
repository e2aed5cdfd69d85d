"""Texts of any model keep to their grammar, also where their limit cuts them; faults are named by their place."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import regex
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import SENTENCES, byte_level, sentencepiece
from tiny_writers import BYTES, CONTEXT, MERGED, PIECES, network_for, write
from tokenizers import decoders, models, pre_tokenizers

from lmworks.base.errors import InputError
from lmworks.generate.grammar import Grammar
from lmworks.generate.grammar_matcher import CompiledGrammar, matchers_of
from lmworks.generate.grammar_vocabulary import vocabulary_of
from lmworks.generate.sampling import SamplingSettings
from lmworks.generate.text import complete
from lmworks.generate.torch_stepper import TorchStepper
from lmworks.text.tokenizer import Tokenizer

jsonschema = pytest.importorskip("jsonschema")

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
NODE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["value", "next"],
    "additionalProperties": False,
}
SCHEMAS = {
    "any object": {"type": "object"},
    "any value": True,
    "object": PERSON,
    "nested": {
        "type": "object",
        "properties": {"people": {"type": "array", "items": PERSON, "minItems": 1}, "open": {"type": "boolean"}},
        "required": ["people", "open"],
    },
    "optional": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"const": 3}}},
    "linked": {"$defs": {"node": NODE}, "$ref": "#/$defs/node"},
    "map": {"type": "object", "additionalProperties": {"type": "integer"}},
    "array": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 4},
    "tuple": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "items": False, "minItems": 2},
    "enum": {"enum": ["red", "green", 3, None, "}"]},
    "any of": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "boolean"}, PERSON]},
    "all of": {"allOf": [PERSON, {"properties": {"age": {"minimum": 18}}}]},
    "types": {"type": ["integer", "null", "string"]},
    "lengths": {"type": "string", "minLength": 3, "maxLength": 6},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"},
    "address": {"type": "string", "pattern": "^[a-z]+@[a-z]+\\.org$"},
    "date": {"type": "string", "format": "date"},
    "bounds": {"type": "number", "exclusiveMinimum": -2, "maximum": 7.5},
    "multiple": {"type": "integer", "multipleOf": 5, "minimum": 10},
}
TOKENIZERS = {"bytes": BYTES, "pieces": PIECES, "merged": MERGED}
DOCUMENTS = {
    "any object": {"it's": [{"a": ""}, [[], "'\"' z"], {}], "b": -1.5e3, "c": None},
    "nested": {"people": [{"name": "O'Hara", "age": 7}, {"name": "", "age": 120}], "open": True},
    "optional": {"a": "Who?", "b": 3},
    "linked": {"value": 1, "next": {"value": -20, "next": None}},
    "map": {"one": 1, "'": 2},
    "any of": {"name": "z", "age": 0},
    "pattern": "AB123",
    "address": "me@sky.org",
    "date": "2024-02-28",
}
"""Valid by the schemas of the same names."""


def check(text: str, schema) -> None:
    value = json.loads(text)
    jsonschema.validate(value, schema)
    if schema == SCHEMAS["date"]:  # the year 0 is no date in Python
        assert re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", value)


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_every_text_of_a_random_model_is_valid(name, tokenizer):
    schema = SCHEMAS[name]
    for max_tokens, temperature in ((80, 0.0), (80, 3.0), (140, 1.0)):
        options = {"max_tokens": max_tokens, "temperature": temperature}
        for reply in write(tokenizer, Grammar.json_schema(schema), ("The sky", "Who"), **options):
            check(reply.text, schema)
            assert reply.stop_reason in ("end", "length")
            assert len(reply.ids) <= max_tokens


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_an_ending_is_known_after_every_token_of_a_valid_text(name, tokenizer):
    """So a text is ended where its limit demands it, and not before."""
    vocabulary, text = vocabulary_of(tokenizer), json.dumps(DOCUMENTS[name])
    matcher, known = vocabulary.start(Grammar.json_schema(SCHEMAS[name]))
    ids = tokenizer.encode(text, after="x")
    for place in range(len(ids) + 1):
        assert len(known) < 120
        check(tokenizer.decode([tokenizer.encode("x")[-1], *ids[:place], *known])[1:], SCHEMAS[name])
        if place < len(ids):
            assert matcher.consume_token(ids[place])
            known = vocabulary.ending(matcher, 120, known)
            assert vocabulary.ending(matcher, 120) is not None
    assert known == []


names = st.sampled_from(["a", "b c", 'd"', "é", "0"])
leaves = st.one_of(
    st.sampled_from([{"type": "string"}, {"type": "boolean"}, {"type": "null"}, {"type": "number"}, True]),
    st.integers(-9, 9).map(lambda number: {"type": "integer", "minimum": number}),
    st.lists(names, min_size=1, unique=True).map(lambda values: {"enum": values}),
    st.integers(0, 4).map(lambda size: {"type": "string", "minLength": size, "maxLength": size + 2}),
)


def larger(schemas):
    objects = st.dictionaries(names, schemas, max_size=3)
    return st.one_of(
        st.tuples(objects, st.booleans()).map(
            lambda pair: {
                "type": "object",
                "properties": pair[0],
                "required": sorted(pair[0])[:2],
                "additionalProperties": pair[1],
            }
        ),
        st.tuples(schemas, st.integers(0, 2)).map(
            lambda pair: {"type": "array", "items": pair[0], "minItems": pair[1], "maxItems": pair[1] + 2}
        ),
        st.lists(schemas, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
    )


@settings(max_examples=25)
@given(schema=st.recursive(leaves, larger, max_leaves=6), seed=st.integers(0, 99))
def test_every_text_is_valid_by_any_schema(schema, seed):
    try:
        (reply,) = write(BYTES, Grammar.json_schema(schema), seed=seed, temperature=2.0, max_tokens=300)
    except InputError as error:
        if "Unsatisfiable" in str(error) or "max_tokens" in str(error):  # as anyOf of nothing
            return
        raise
    check(reply.text, schema)


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_expressions_choices_and_grammars(tokenizer):
    for seed in range(4):
        options = {"seed": seed, "temperature": 1.5, "max_tokens": 60}
        (reply,) = write(tokenizer, Grammar.regex(r"[0-9]{3}-[a-f]{2}(, ok)?"), **options)
        assert re.fullmatch(r"[0-9]{3}-[a-f]{2}(, ok)?", reply.text)
        choices = ["yes", "no", "yes, but (a+b)*c?", "Größe"]
        (reply,) = write(tokenizer, Grammar.choices(choices), **options)
        assert reply.text in choices
        (reply,) = write(tokenizer, Grammar.lark('start: "(" start ")" | "x"'), **options)
        assert re.fullmatch(r"\(*x\)*", reply.text)
        assert reply.text.count("(") == reply.text.count(")")


def test_a_text_ends_within_its_limit_and_says_that_it_was_cut():
    schema = {"type": "array", "items": {"type": "string", "minLength": 3}, "minItems": 1}
    (reply,) = write(BYTES, Grammar.json_schema(schema), max_tokens=12)
    check(reply.text, schema)
    assert reply.stop_reason == "length"
    (reply,) = write(BYTES, Grammar.json_schema({"const": "is"}), max_tokens=12)
    assert (reply.text, reply.stop_reason) == ('"is"', "end")
    long, options = [40] * (CONTEXT - 30), SamplingSettings(max_tokens=900, temperature=1.0)
    grammar = Grammar.json_schema({"type": "array", "items": {"type": "string"}, "minItems": 3})
    (reply,) = complete(TorchStepper(network_for(BYTES)), BYTES, [long], options, grammar=grammar)
    assert len(json.loads(reply.text)) >= 3
    assert reply.stop_reason == "context"


def test_a_limit_without_room_for_any_text_is_refused():
    with pytest.raises(InputError, match="no text of the grammar was found that ends within 5 tokens") as caught:
        write(BYTES, Grammar.json_schema(PERSON), max_tokens=5)
    needed = int(re.search(r"set max_tokens to (\d+) or more", caught.value.hint)[1])
    (reply,) = write(BYTES, Grammar.json_schema(PERSON), max_tokens=needed)
    check(reply.text, PERSON)


@pytest.mark.parametrize(
    ("schema", "place", "fault"),
    [
        ({"type": "object", "properties": {"a": {"type": "strng"}}}, "#/properties/a", "strng"),
        ({"type": "array", "items": {"anyOf": [{}, {"not": {}}]}}, "#/items/anyOf/1", "not"),
        (
            {"$defs": {"t": {"type": "string", "format": "no-format"}}, "properties": {"x/y": {"$ref": "#/$defs/t"}}},
            "#/$defs/t",
            "no-format",
        ),
        ({"properties": {"a b": {"type": "string", "pattern": "("}}}, "#/properties/a b", "regex"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "#/properties/a", "none"),
    ],
)
def test_a_fault_in_a_schema_is_named_by_its_place(schema, place, fault):
    with pytest.raises(InputError, match="the schema cannot be compiled") as caught:
        matchers_of(Grammar.json_schema(schema, "schema.json"), BYTES, 330, 1)
    assert caught.value.place == f"schema.json: {place}"
    assert fault in caught.value.fault


def test_faults_of_other_grammars_are_named():
    for grammar, match in (
        (Grammar.regex("a("), "the regular expression cannot be compiled"),
        (Grammar.lark("start: nothing"), "the grammar cannot be compiled.*nothing"),
    ):
        with pytest.raises(InputError, match=match):
            matchers_of(grammar, BYTES, 330, 1)
    with pytest.raises(InputError, match="no text to choose"):
        Grammar.choices([])
    with pytest.raises(InputError, match="a str cannot be used here"):
        Grammar.json_schema('{"type": "object"}')


def test_without_the_library_the_line_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(InputError) as caught:
        vocabulary_of(byte_level())
    assert caught.value.hint == "pip install 'lmworks[grammar]'"


def test_a_vocabulary_is_built_once_and_anew_after_tokens_were_added():
    tokenizer = byte_level()
    first = vocabulary_of(tokenizer)
    assert vocabulary_of(tokenizer) is first
    tokenizer.add_tokens(["<new>"])
    assert vocabulary_of(tokenizer).size == first.size + 1


@pytest.mark.parametrize("tokenizer", [BYTES, PIECES, sentencepiece(legacy=False)], ids=["bytes", "sp", "metaspace"])
def test_the_bytes_of_tokens_make_the_text(tokenizer):
    for text in (*SENTENCES, "漢字 é\n{}"):
        ids = tokenizer.encode(text, after="x")
        assert b"".join(map(tokenizer.token_bytes, ids)).decode() == text


def test_a_tokenizer_that_puts_spaces_between_tokens_is_refused():
    core = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    with pytest.raises(InputError, match="puts spaces between its tokens"):
        vocabulary_of(Tokenizer(core, unk_id=0))


def small_tokenizer() -> Tokenizer:
    """Few tokens, some of which are written by others too."""
    signs = [*'ab01{}":,', "Ġ"]
    pairs = [("a", "b"), ("0", "1"), ('"', ":"), (":", "Ġ"), ("1", "}"), ("ab", "01")]
    vocabulary = ["</s>", *signs, *map("".join, pairs)]
    core = tokenizers.Tokenizer(models.BPE({token: number for number, token in enumerate(vocabulary)}, pairs))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["</s>"])
    return Tokenizer(core, eos_id=0)


@pytest.mark.parametrize("expression", [r"(ab|b1)*a?", r"[01]{2,4}", r"\{(\"a\": [01]+,? ?)*\}", r"a*b*|01"])
def test_a_mask_is_what_trying_every_token_gives(expression):
    tokenizer = small_tokenizer()
    texts = [tokenizer.token_bytes(number).decode() for number in range(tokenizer.vocab_size)]
    generator = np.random.default_rng(0)
    for _ in range(12):
        (matcher,) = matchers_of(Grammar.regex(expression), tokenizer, tokenizer.vocab_size, 1)
        text = "".join(texts[token] for token in matcher.begin(40))
        for left in range(30, 0, -1):
            if matcher.is_finished:
                assert regex.fullmatch(expression, text)
                break
            wanted = [bool(regex.fullmatch(expression, text + token, partial=True)) for token in texts]
            wanted[0] = bool(regex.fullmatch(expression, text))
            mask = matcher.mask()
            assert [texts[token] for token in np.flatnonzero(mask)] == [
                texts[token] for token in np.flatnonzero(wanted)
            ]
            token = int(generator.choice(np.flatnonzero(mask)))
            if token == 0:
                break
            text += "".join(texts[token] for token in matcher.accept(token, left))


def test_tokens_beyond_the_embedding_and_padding_rows_are_never_chosen():
    grammar = Grammar.json_schema(PERSON)
    for rows in (BYTES.vocab_size + 50, BYTES.vocab_size - 8):
        stepper = TorchStepper(network_for(BYTES, rows=rows))
        options = SamplingSettings(temperature=2.0, max_tokens=80)
        for reply in complete(stepper, BYTES, [BYTES.encode("e")], options, grammar=grammar):
            assert max(reply.ids) < min(rows, BYTES.vocab_size)
            check(reply.text, PERSON)
    (matcher,) = matchers_of(grammar, BYTES, BYTES.vocab_size + 50, 1)
    assert matcher.mask().shape == (BYTES.vocab_size + 50,)


def test_threads_share_a_compiled_grammar_and_not_what_they_write():
    compiled = CompiledGrammar(Grammar.json_schema(SCHEMAS["nested"]), BYTES, BYTES.vocab_size)

    def text(seed: int) -> str:
        generator, matcher = np.random.default_rng(seed), compiled.matcher()
        ids, left = matcher.begin(200), 200
        while not matcher.is_finished:
            token = int(generator.choice(np.flatnonzero(matcher.mask())))
            ids += matcher.accept(token, left - len(ids))
        return BYTES.decode(ids)

    wanted = [text(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(text, [*range(8)] * 3)) == wanted * 3
    assert len(set(wanted)) == 8
    for written in wanted:
        check(written, SCHEMAS["nested"])


def test_response_formats_of_the_api():
    assert Grammar.response_format({"type": "text"}) is None
    assert Grammar.response_format({"type": "json_object"}) == Grammar.json_object()
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
    assert Grammar.response_format(wanted) == Grammar.json_schema(PERSON)
    faulty = {"type": "object", "properties": {"a": {"type": "strng"}}}
    grammar = Grammar.response_format({"type": "json_schema", "json_schema": {"name": "x", "schema": faulty}})
    with pytest.raises(InputError) as caught:
        CompiledGrammar(grammar, BYTES, BYTES.vocab_size)
    assert caught.value.place == "response_format.json_schema.schema: #/properties/a"
    for wrong, place in (
        ({"type": "json"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"schema": "x"}}, "response_format.json_schema.schema"),
        ("json_object", "response_format"),
    ):
        with pytest.raises(InputError) as caught:
            Grammar.response_format(wrong)
        assert caught.value.place == place
