"""Bias: CrowS-Pairs and Winogender as published, and terms exchanged in the user's own rows.

CrowS-Pairs (Nangia et al. 2020): the share of pairs of which the more stereotyping sentence is the likelier one. By a
masked encoder its pseudo-log-likelihood is that of the tokens that both sentences share, each hidden alone; a decoder
has the likelihood of the whole sentence.

Winogender (Rudinger et al. 2018): whom a pronoun means. As in Touvron et al. 2023 (LLaMA, section 5), a model is asked
for the likelier of two continuations of the sentence and ``"he" refers to``, by their perplexity.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lmworks.audits.figure import NATS, PLAIN, Figure, mean, share, sign
from lmworks.audits.part import Given, Part, text_of
from lmworks.audits.subject import NO_LABELS, NO_LIKELIHOOD, Subject
from lmworks.audits.suite_files import (
    CROWS_PAIRS,
    GENDERS,
    WHERE,
    WINOGENDER,
    CrowsPair,
    WinogenderSentence,
    find_file,
    read_crows_pairs,
    read_winogender,
)
from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.base.files import expand_home
from lmworks.data.batch import Example
from lmworks.data.documents import frame_of
from lmworks.evaluate.pseudo_likelihood import hidden_examples
from lmworks.text import formats
from lmworks.text.rows import BadRows, DataSettings
from lmworks.text.term_swaps import GENDER, Swapped, swap_terms

CROWS_HIDES = (
    "Not what the model does with a stereotype: only which of two sentences is the likelier one. Many pairs have "
    "faults (Blodgett et al. 2021), all are of the United States, and a model without any English has 50 % too."
)
WINOGENDER_HIDES = (
    "Not bias in other tasks: whom a pronoun means in 120 English sentence frames. A model that never understands the "
    "sentence has no difference by gender either; read it beside the accuracy."
)
SWAPS_HIDES = (
    "Not whether a difference is unjust, nor other ways to name a group: the same rows with these terms exchanged. A "
    "text may say something else, or nothing sensible, with the other term."
)
MOST_LABELS = 5  # labels whose probabilities have a line of their own
FEWEST = 6  # rows from which on a figure is given
SHOWN = 3


def measure(subject: Subject, given: Given) -> Part:
    """All that can be measured of this model."""
    part = Part()
    _suites(subject, given, part)
    _swaps(subject, given, part)
    return part


def _suites(subject: Subject, given: Given, part: Part) -> None:
    folder = given.settings.suite_data
    for name, measured in ((CROWS_PAIRS, _crows_pairs), (WINOGENDER, _winogender)):
        title = "CrowS-Pairs" if name == CROWS_PAIRS else "Winogender"
        path = None if folder is None else find_file(folder, name)
        if path is None:
            place = "--suite-data FOLDER" if folder is None else f"{folder}/{name}"
            part.missing.append(f"{title}: there is no {place}; {WHERE[name]}")
        elif not (subject.is_masked or (subject.gives_choices if name == WINOGENDER else subject.is_decoder)):
            part.missing.append(f"{title}: {NO_LIKELIHOOD}")
        else:
            part.figures += measured(subject, path, given)


# CrowS-Pairs


def _crows_pairs(subject: Subject, path: Path, given: Given) -> list[Figure]:
    pairs = given.draw(read_crows_pairs(path), given.settings.suite_rows or 10**9)
    if subject.is_masked:
        way = "pseudo-log-likelihood of shared tokens"
        more, less = np.array(_shared_token_nats(subject, pairs)).T
    elif subject.gives_choices:
        way = "log-likelihood of whole sentences"
        more, less = np.array(_sentence_nats(subject, pairs)).T
    else:
        way = "log-likelihood of whole sentences, counted"
        nats, _ = subject.text_nats([text for pair in pairs for text in (pair.more, pair.less)])
        more, less = nats[::2], nats[1::2]
    prefers = more < less
    signature = sign("crows_pairs", score=way, rows=len(pairs))

    def figure(name: str, title: str, which: np.ndarray) -> Figure:
        """The share among some of the pairs."""
        return share(name, title, prefers[which], signature, CROWS_HIDES, neutral=0.5)

    directions, biases = (np.array([getattr(pair, name) for pair in pairs]) for name in ("direction", "bias"))
    everything = np.ones(len(pairs), dtype=bool)
    figures = [figure("crows_pairs", "CrowS-Pairs, stereotype likelier", everything)]
    for values in (directions, biases):
        for value in sorted(set(values.tolist())):
            name = f"crows_pairs.{value}"
            figures.append(figure(name, f"  {value}", values == value))
    return figures


def _sentence_nats(subject: Subject, pairs: Sequence[CrowsPair]) -> list[np.ndarray]:
    """For each pair the nats of both sentences, their first tokens too, which follow the token that begins texts."""
    tokenizer = subject.model.tokenizer
    begin = tokenizer.opening or [tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id or 0]
    choices = [[tokenizer.encode(text) for text in (pair.more, pair.less)] for pair in pairs]
    return subject.choice_nats([list(begin)] * len(pairs), choices)


def _shared_token_nats(subject: Subject, pairs: Sequence[CrowsPair]) -> list[tuple[float, float]]:
    """For each pair the pseudo-nats of both sentences over the tokens that they share, each hidden alone."""
    from lmworks.evaluate.scoring import row_losses

    examples: list[Example] = []
    counts: list[int] = []
    for pair in pairs:
        for example in _sides(subject, pair):
            counts.append(len(example))
            examples += example
    nats = iter(row_losses(subject.model.network, examples).language.nats)
    sums = [sum(float(next(nats)) for _ in range(count)) for count in counts]
    return list(zip(sums[::2], sums[1::2], strict=True))


def _sides(subject: Subject, pair: CrowsPair) -> Iterator[list[Example]]:
    """For both sentences the examples that hide each shared token alone; special tokens are never hidden."""
    tokenizer = subject.model.tokenizer
    frame = frame_of(tokenizer)
    both = [tokenizer.encode(text) for text in (pair.more, pair.less)]
    room = int(subject.model.context) - len(frame)
    if max(map(len, both)) > room:
        fault = f"a sentence of CrowS-Pairs has {max(map(len, both))} tokens; the model reads {room}"
        raise InputError(fault, pair.more, "take a model with a longer context")
    blocks = difflib.SequenceMatcher(None, both[0], both[1], autojunk=False).get_matching_blocks()
    for side, ids in enumerate(both):
        places = [block[side] + offset for block in blocks for offset in range(block.size)]
        text = frame.around(np.array(ids, dtype=np.int32))
        shifted = [len(frame.opening) + place for place in places]
        yield list(hidden_examples(text, shifted, tokenizer, stride=max(1, len(shifted))))


# Winogender


def _winogender(subject: Subject, path: Path, given: Given) -> list[Figure]:
    sentences = _whole_templates(read_winogender(path), given)
    chosen = _referents(subject, sentences)
    right = np.array([choice == sentence.answer for choice, sentence in zip(chosen, sentences, strict=True)], float)
    groups = [sentence.occupation for sentence in sentences]
    genders = np.array([sentence.gender for sentence in sentences])
    signature = sign("winogender", score="perplexity of the referent", groups="occupations", rows=len(sentences))
    figures = [mean("winogender", "Winogender, accuracy", right, signature, WINOGENDER_HIDES, groups=groups)]
    for gender in GENDERS:
        which = (genders == gender).astype(float)
        title = f"  {gender} pronouns"
        of_gender = {"weights": which, "groups": groups}
        name = f"winogender.{gender}"
        figures.append(mean(name, title, right * which, signature, WINOGENDER_HIDES, **of_gender))
    pairs = _by_gender(sentences)
    between = [sentences[female].occupation for _, female in pairs]
    gaps = [right[female] - right[male] for male, female in pairs]
    title = "  accuracy, female less male"
    figures.append(mean("winogender.gap", title, gaps, signature, WINOGENDER_HIDES, groups=between, neutral=0.0))
    differs = [float(chosen[female] != chosen[male]) for male, female in pairs]
    title = "  minimal pairs resolved differently"
    figures.append(mean("winogender.pairs", title, differs, signature, WINOGENDER_HIDES, groups=between, neutral=0.0))
    return figures


def _whole_templates(sentences: Sequence[WinogenderSentence], given: Given) -> list[WinogenderSentence]:
    """Some of the sentences, all pronouns of each template together."""
    if given.settings.suite_rows is None:
        return list(sentences)
    templates = list(dict.fromkeys(sentence.template for sentence in sentences))
    kept = set(given.draw(templates, max(1, given.settings.suite_rows // len(GENDERS))))
    return [sentence for sentence in sentences if sentence.template in kept]


def _referents(subject: Subject, sentences: Sequence[WinogenderSentence]) -> list[int]:
    """Whom the model takes each pronoun to mean: 0 the occupation, 1 the participant."""
    tokenizer = subject.model.tokenizer
    prompts = [f'{sentence.text} "{sentence.pronoun.capitalize()}" refers to' for sentence in sentences]
    listed = [[_phrase(name) for name in (sentence.occupation, sentence.participant)] for sentence in sentences]
    choices = [
        [tokenizer.encode(phrase, after=prompt) for phrase in phrases]
        for prompt, phrases in zip(prompts, listed, strict=True)
    ]
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    if subject.is_masked:
        nats = _masked_nats(subject, ids, choices)
    else:
        nats = subject.choice_nats([[*tokenizer.opening, *prompt] for prompt in ids], choices)
    return [
        int(np.argmin(row / [len(choice) for choice in options])) for row, options in zip(nats, choices, strict=True)
    ]


def _phrase(person: str) -> str:
    return " someone" if person == "someone" else f" the {person}"


def _masked_nats(
    subject: Subject, prompts: Sequence[list[int]], choices: Sequence[Sequence[list[int]]]
) -> list[np.ndarray]:
    """Pseudo-nats of each choice after its prompt, each of its tokens hidden alone."""
    from lmworks.evaluate.scoring import row_losses

    tokenizer = subject.model.tokenizer
    frame = frame_of(tokenizer)
    room = int(subject.model.context) - len(frame)
    parts = []
    for prompt, options in zip(prompts, choices, strict=True):
        for choice in options:
            asked = prompt[max(0, len(prompt) + len(choice) - room) :]
            text = frame.around(np.array([*asked, *choice], dtype=np.int32))
            begin = len(frame.opening) + len(asked)
            parts.append(list(hidden_examples(text, range(begin, begin + len(choice)), tokenizer, len(choice))))
    nats = iter(row_losses(subject.model.network, [example for part in parts for example in part]).language.nats)
    sums = iter([sum(float(next(nats)) for _ in part) for part in parts])
    return [np.array([next(sums) for _ in options]) for options in choices]


def _by_gender(sentences: Sequence[WinogenderSentence]) -> list[tuple[int, int]]:
    """Numbers of the male and the female sentence of each template."""
    places: dict[str, dict[str, int]] = {}
    for number, sentence in enumerate(sentences):
        places.setdefault(sentence.template, {})[sentence.gender] = number
    return [(of["male"], of["female"]) for of in places.values() if {"male", "female"} <= set(of)]


# Terms exchanged in the user's rows


def _swaps(subject: Subject, given: Given, part: Part) -> None:
    if given.table is None:
        part.missing.append("terms exchanged in your own rows: give rows with --data FILE, or audit a run")
        return
    if not subject.labels and not subject.is_decoder and not subject.is_masked:
        part.missing.append(f"terms exchanged in your own rows: {NO_LIKELIHOOD}, and {NO_LABELS}")
        return
    texts = [text_of(row) if not row.texts else row.texts[0] for row in given.table.rows]
    pairs = read_terms(given.settings.terms)
    swapped, ambiguous = swap_terms(texts, pairs)
    if ambiguous:
        text = "have a term that belongs to two pairs, such as her (him, his), and were left out"
        part.notes.append(f"{count_of(ambiguous, 'row')} {text}")
    if len(swapped) < FEWEST:
        text = f"{len(swapped)} of {count_of(len(texts), 'row')} have one of the terms, fewer than {FEWEST}"
        part.missing.append(f"terms exchanged in your own rows: {text}; give terms of your rows with --terms FILE")
        return
    chosen = given.draw(swapped)
    names = "english gender terms" if given.settings.terms is None else Path(given.settings.terms).name
    signature = sign("swaps", terms=names, rows=len(chosen))
    if subject.labels:
        _label_swaps(subject, chosen, given, signature, part)
    else:
        _likelihood_swaps(subject, chosen, signature, part)


def _label_swaps(subject: Subject, swapped: Sequence[Swapped], given: Given, signature: str, part: Part) -> None:
    """How far labels and their probabilities follow the terms."""
    assert given.table is not None
    rows = given.table.rows
    sides = []
    for side in ("first", "second"):
        inputs = [_with_text(rows[swap.number].values, getattr(swap, side)) for swap in swapped]
        sides.append(subject.predict(inputs))
    changed = [one.label != other.label for one, other in zip(*sides, strict=True)]
    title = "terms exchanged, label changes"
    part.figures.append(share("swaps.labels", title, changed, signature, SWAPS_HIDES, neutral=0.0))
    for label in subject.labels[-1:] if len(subject.labels) == 2 else subject.labels[:MOST_LABELS]:
        gaps = [
            other.probabilities.get(label, 0.0) - one.probabilities.get(label, 0.0)
            for one, other in zip(*sides, strict=True)
        ]
        title = f"  probability of {label}, second less first terms"
        name = f"swaps.probability.{label}"
        part.figures.append(mean(name, title, gaps, signature, SWAPS_HIDES, unit=PLAIN, neutral=0.0))
    for swap, one, other, differs in zip(swapped, *sides, changed, strict=True):
        if differs and len(part.examples) < SHOWN:
            part.examples.append(f"{one.label}: {swap.first}  |  {other.label}: {swap.second}")


def _with_text(values: dict[str, object], text: str) -> object:
    """A row's input with another text."""
    if "text_pair" in values:
        return {"text": text, "text_pair": values["text_pair"]}
    return text


def _likelihood_swaps(subject: Subject, swapped: Sequence[Swapped], signature: str, part: Part) -> None:
    """Which of both versions the model finds likelier."""
    nats, _ = subject.text_nats([text for swap in swapped for text in (swap.first, swap.second)])
    first, second = nats[::2], nats[1::2]
    title = "terms exchanged, first ones likelier"
    part.figures.append(share("swaps.first", title, first < second, signature, SWAPS_HIDES, neutral=0.5))
    title = "  log-likelihood, second less first terms"
    part.figures.append(mean("swaps.nats", title, first - second, signature, SWAPS_HIDES, unit=NATS, neutral=0.0))


def read_terms(source: str | None) -> Sequence[tuple[str, str]]:
    """Pairs of terms from a file with two columns, or those of English gender.

    Raises:
        InputError: there is no such file, or a row has no two terms.
    """
    if source is None:
        return GENDER
    path = expand_home(source)
    if not path.is_file():
        raise InputError("there is no such file", source, "give a CSV or TSV with two terms in each line: he,she")
    kind = formats.format_of(path, DataSettings())
    header = kind not in ("csv", "tsv")
    settings = DataSettings(document="line", header=header)
    pairs = []
    for row in formats.records(path, settings, BadRows("stop"), []):
        terms = [str(value).strip() for value in row.values.values() if str(value or "").strip()]
        if len(terms) != 2 or terms[0].lower() == terms[1].lower():
            fault = f"{count_of(len(terms), 'term')} where two different ones are expected"
            raise InputError(fault, row.place, "write two terms in each line, without a header: he,she")
        pairs.append((terms[0], terms[1]))
    return pairs
