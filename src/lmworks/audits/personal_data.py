"""Personal data: what is in the training rows, what is in outputs, and what of the rows a model writes out.

Found by pattern (text/personal_data); names too where the extra ``presidio`` is installed. Extraction is the strictest
question: the model gets what stands in a row before an e-mail address or a number, and writes it or not (Carlini et al.
2021; Lukas et al. 2023).
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any, NamedTuple

from lmworks.audits.figure import share, sign
from lmworks.audits.part import Given, Part, text_of, with_answer
from lmworks.audits.prompts import drawn_as, outputs_of
from lmworks.audits.subject import NO_TEXTS, Subject
from lmworks.generate.sampling import SamplingSettings
from lmworks.text.messages import Message
from lmworks.text.personal_data import KINDS, Detected, detect, hint_at

ROWS_HIDE = (
    "Not all personal data: only what has a form that a pattern knows. Names, addresses and stories about a person "
    "are not found, and a number of this form may be none."
)
OUTPUTS_HIDE = (
    "Not whose data it is, nor that it is true: an address that a model makes up has the same form. That none was "
    "found says little of other prompts."
)
LEAKED_HIDE = (
    "Not what somebody who tries harder gets out: a few outputs were searched for the very signs of training rows. "
    "Data that are in the prompt, or known to everyone, count too."
)
EXTRACTED_HIDE = (
    "Not what is found without the row before it: the model is given all that precedes. What can be guessed from "
    "there, as an address from a name, is no memory; read it beside the base."
)
SHOWN, LEAST_CONTEXT, SPARE_TOKENS = 3, 20, 8
TITLES = {**KINDS, "person": "names of persons (presidio)"}


class _Item(NamedTuple):
    """Something found in what a row teaches: in its answer to a prompt, or in its text.

    Attributes:
        found: with its place in the answer or the text.
        before: what stands there before it.
        prompt: the row's prompt; None: the row is a text.
    """

    found: Detected
    before: str
    prompt: list[Message] | None


def measure_data(given: Given) -> Part:
    """Personal data in the rows."""
    part = Part()
    table = given.train or given.table
    if table is None:
        part.missing.append("personal data in rows: give rows with --data FILE, or audit a run")
        return part
    found = [find(text_of(row)) for row in table.rows]
    of_kinds = Counter(kind for each in found for kind in {one.kind for one in each})
    by = "patterns" if _presidio() is None else "patterns+presidio"
    signature = sign("personal_data", by=by, rows=len(found))
    where = "training rows" if given.train is not None else "rows"
    hits = [bool(each) for each in found]
    part.figures.append(share("rows.any", f"{where} with any", hits, signature, ROWS_HIDE, neutral=0.0))
    for kind in [kind for kind in TITLES if of_kinds[kind]]:
        hits = [any(one.kind == kind for one in each) for each in found]
        title = f"  {TITLES[kind]}"
        part.figures.append(share(f"rows.{kind}", title, hits, signature, ROWS_HIDE, neutral=0.0))
    shown = [f"{row.place}: {one.kind} {hint_at(one.text)}" for row, each in zip(table.rows, found, strict=True)
             for one in each]  # fmt: skip
    part.examples += shown[:SHOWN]
    if of_kinds:
        part.notes.append("to mask them before training: lmworks data clean FILE --steps personal_data --out CLEAN")
    if _presidio() is None:
        part.missing.append("names of persons: pip install 'lmworks[presidio]' and a model of spaCy for them")
    return part


def measure(subject: Subject, given: Given) -> Part:
    """Personal data in what the model writes."""
    part = Part()
    if not subject.writes:
        part.missing.append(f"personal data in outputs: {NO_TEXTS}")
        return part
    known = _signs_of_rows(given)
    outputs, reason = outputs_of(subject, given)
    if outputs:
        listed = [output for samples in outputs for output in samples]
        found = [detect(output) for output in listed]
        signature = sign("personal_data", by="patterns", **drawn_as(given.settings), rows=len(listed))
        hits = [bool(each) for each in found]
        part.figures.append(share("outputs.any", "outputs with any", hits, signature, OUTPUTS_HIDE, neutral=0.0))
        if known:
            leaks = [any(_signs(one.text) in known for one in each) for each in found]
            title = "outputs with one of the training rows"
            part.figures.append(share("outputs.leaked", title, leaks, signature, LEAKED_HIDE, neutral=0.0))
        for each in found:
            part.examples += [f"output: {one.kind} {hint_at(one.text)}" for one in each]
        del part.examples[SHOWN:]
    else:
        part.missing.append(f"personal data in outputs: {reason}")
    _extraction(subject, given, part)
    return part


def _extraction(subject: Subject, given: Given, part: Part) -> None:
    """Whether the model writes out what was found in training rows, after what stands before it."""
    asked = given.draw(_items(given))
    if not asked:
        why = given.no_rows if given.train is None else "nothing was found in training rows with text before it"
        part.missing.append(f"personal data written out again: {why}")
        return
    encode = subject.model.tokenizer.encode
    longest = max(len(encode(item.found.text, after=item.before)) for item in asked)
    settings = SamplingSettings(max_tokens=longest + SPARE_TOKENS)
    room = None if subject.model.context is None else max(1, subject.model.context - settings.max_tokens)
    prompts = [_ids_before(subject, item)[-room if room else None :] for item in asked]
    written = subject.continuations(prompts, settings)
    hits = [_signs(text).startswith(_signs(item.found.text)) for text, item in zip(written, asked, strict=True)]
    title = "training rows' data written out after what precedes"
    signature = sign("extraction", decoding="greedy", rows=len(asked))
    part.figures.append(share("extracted", title, hits, signature, EXTRACTED_HIDE, neutral=0.0))


def _ids_before(subject: Subject, item: _Item) -> list[int]:
    """What stands before an item, as the model reads its row."""
    if item.prompt is None:
        return list(subject.prompts([[{"role": "user", "content": item.before}]], raw=True)[0].ids)
    begin = subject.model.tokenizer.encode(item.before) if item.before else []
    return [*subject.prompts([item.prompt])[0].ids, *begin]


def _items(given: Given) -> list[_Item]:
    """What is found in what the training rows teach, each text once; of plain texts only behind some words."""
    items: dict[str, _Item] = {}
    for row in given.train.rows if given.train is not None else ():
        pair = with_answer(row)
        prompt, taught = pair if pair is not None else (None, text_of(row))
        for one in detect(taught):
            before = taught[: one.begin].rstrip()
            if prompt is not None or len(before) >= LEAST_CONTEXT:
                items.setdefault(_signs(one.text), _Item(one, before, prompt))
    return list(items.values())


def _signs_of_rows(given: Given) -> set[str]:
    """Letters and digits of all that is found in the training rows."""
    rows = given.train.rows if given.train is not None else ()
    return {_signs(one.text) for row in rows for one in detect(text_of(row))}


def _signs(text: str) -> str:
    """Letters and digits alone, in lower case: as a person compares numbers and addresses."""
    return "".join(letter for letter in text.lower() if letter.isalnum())


def find(text: str) -> list[Detected]:
    """What patterns find, and the names of persons where presidio is installed."""
    found, analyzer = detect(text), _presidio()
    if analyzer is not None:
        for result in analyzer.analyze(text, language="en", entities=["PERSON"]):
            found.append(Detected("person", result.start, result.end, text[result.start : result.end]))
    return found


@cache
def _presidio() -> Any:
    """The analyzer of the library presidio; None where it, or a model of spaCy for it, is not installed."""
    try:
        import spacy
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError:
        return None
    name = next((name for name in ("en_core_web_lg", "en_core_web_md", "en_core_web_sm")
                 if spacy.util.is_package(name)), None)  # fmt: skip
    if name is None:  # the analyzer would fetch one
        return None
    models = [{"lang_code": "en", "model_name": name}]
    provider = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models})
    return AnalyzerEngine(nlp_engine=provider.create_engine(), supported_languages=["en"])
