"""Small files in the formats of CrowS-Pairs and Winogender, and the models that are audited with them."""

from __future__ import annotations

from pathlib import Path

PAIRS = [
    ("i love my cat", "i love my salad", "stereo", "taste"),
    ("my apples in tea", "my fresh fruit in tea", "stereo", "taste"),
    ("i eat salad", "i eat fresh fruit salad", "antistereo", "order"),
    ("cat , my cat", "salad , my cat", "stereo", "order"),
]


def save_crows_pairs(folder: Path, pairs: list[tuple[str, str, str, str]] = PAIRS) -> Path:
    """The published columns, in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [",sent_more,sent_less,stereo_antistereo,bias_type,annotations,anon_writer,anon_annotators"]
    lines += [
        f'{number},"{more}","{less}",{direction},{bias},"[[\'{bias}\']]",a0,"[\'a1\']"'
        for number, (more, less, direction, bias) in enumerate(pairs)
    ]
    path = folder / "crows_pairs_anonymized.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def save_winogender(folder: Path) -> Path:
    """Two occupations, both answers, three pronouns each."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["sentid\tsentence"]
    for occupation, participant, answer, text in (
        ("clerk", "guest", 0, "The clerk told the guest that {} was tired."),
        ("clerk", "guest", 1, "The clerk told the guest that {} could pay."),
        ("baker", "someone", 0, "The baker told someone that {} was tired."),
        ("baker", "someone", 1, "The baker told someone that {} could pay."),
    ):
        for gender, pronoun in (("male", "he"), ("female", "she"), ("neutral", "they")):
            lines.append(f"{occupation}.{participant}.{answer}.{gender}.txt\t{text.format(pronoun)}")
    path = folder / "all_sentences.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
