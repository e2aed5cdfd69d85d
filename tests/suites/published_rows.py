"""A row or two of each benchmark in the layouts in which it is published, written for the tests, and how it is asked."""

# ruff: noqa: E501

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyarrow import Table, parquet


@dataclass(frozen=True)
class Published:
    """A file in a published layout.

    Attributes:
        benchmark: its name.
        file: its path below the data folder.
        content: the rows of a Parquet or JSONL file, or the text of another one.
        prompt: of the first row, for its first option.
        options: of the first row, as they follow.
        references: of the first row.
        beside: further files, by their path.
        rows: how many there are.
    """

    benchmark: str
    file: str
    content: list[dict[str, Any]] | str
    prompt: str
    options: list[str]
    references: list[Any]
    beside: dict[str, str] = field(default_factory=dict)
    rows: int = 1

    def write(self, folder: Path) -> None:
        """Write all files."""
        for name, text in {self.file: self.content, **self.beside}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(text, str):
                path.write_text(text, encoding="utf-8")
            elif path.suffix == ".parquet":
                parquet.write_table(Table.from_pylist(text), path)
            else:
                path.write_text("".join(json.dumps(row) + "\n" for row in text), encoding="utf-8")


WET = "Question: What is wet?\nAnswer:"
AI2 = {"id": "1", "question": {"stem": "What is wet?", "choices": [
    {"text": "sand", "label": "1"}, {"text": "rain", "label": "2"}]}, "answerKey": "2"}  # fmt: skip
OF_HUB = {
    "id": "1",
    "question": "What is wet?",
    "choices": {"text": ["sand", "rain"], "label": ["A", "B"]},
    "answerKey": "B",
}
SCENE = {"ind": 1, "activity_label": "Swimming", "ctx_a": "A man jumps.", "ctx_b": "he", "ctx": "A man jumps. he",
         "endings": ["[step] swims  away.", "flies.", "is a fish.", "sings."], "label": 0}  # fmt: skip
SWIM = "Swimming: A man jumps. He"
SUPER = {"premise": "It rains.", "hypothesis": "It is wet"}

PUBLISHED = [
    Published("arc-easy", "ARC-V1-Feb2018-2/ARC-Easy/ARC-Easy-Test.jsonl", [AI2], WET, ["sand", "rain"], [1]),
    Published("arc-challenge", "ARC-Challenge/ARC-Challenge-Test.jsonl", [AI2], WET, ["sand", "rain"], [1]),
    Published("arc-easy", "ARC-Easy/test-00000-of-00001.parquet", [OF_HUB], WET, ["sand", "rain"], [1]),
    Published("arc-easy", "arc_easy.jsonl", [{"query": "Question: What is wet?", "choices": ["sand", "rain"], "gold": 1}],
              WET, ["sand", "rain"], [1]),
    Published("hellaswag", "hellaswag_val.jsonl", [SCENE], SWIM, ["swims away.", "flies.", "is a fish.", "sings."], [0]),
    Published("hellaswag", "data/validation-00000-of-00001.parquet", [{**SCENE, "label": "2"}], SWIM,
              ["swims away.", "flies.", "is a fish.", "sings."], [2]),
    Published("piqa", "valid.jsonl", [{"goal": "Dry a cat", "sol1": "towel", "sol2": "oven"}] * 2,
              "Question: Dry a cat\nAnswer:", ["towel", "oven"], [0], {"valid-labels.lst": "0\n1\n"}, rows=2),
    Published("winogrande", "winogrande_1.1/dev.jsonl",
              [{"sentence": "The bag fits the box as _ is big.", "option1": "box", "option2": "bag", "answer": "1"}],
              "The bag fits the box as box", [" is big.", " is big."], [0]),
    Published("openbookqa", "OpenBookQA-V1-Sep2018/Data/Main/test.jsonl", [AI2], "What is wet?", ["sand", "rain"], [1]),
    Published("commonsenseqa", "dev_rand_split.jsonl", [AI2],
              "Question: What is wet?\nA. sand\nB. rain\nAnswer:", ["A", "B"], [1]),
    Published("mmlu", "data/test/abstract_algebra_test.csv", '"Find 1 + 1, as ""n""",0,1,2,3,C\n',
              'Find 1 + 1, as "n"\nA. 0\nB. 1\nC. 2\nD. 3\nAnswer:', ["A", "B", "C", "D"], [2]),
    Published("mmlu", "all/test-00000-of-00001.parquet",
              [{"question": "Find 1 + 1", "subject": "algebra", "choices": ["0", "2"], "answer": 1}],
              "Find 1 + 1\nA. 0\nB. 2\nAnswer:", ["A", "B"], [1]),
    Published("blimp", "blimp/data/wh_island.jsonl",
              [{"sentence_good": "Who is he?", "sentence_bad": "Who he is?", "UID": "wh_island"}], "",
              ["Who is he?", "Who he is?"], [0]),
    Published("winogender", "all_sentences.tsv",
              "sentid\tsentence\nnurse.patient.1.male.txt\tThe nurse told the patient that he could go.\n"
              "nurse.someone.0.female.txt\tThe nurse told someone that she could go.\n",
              'The nurse told the patient that he could go. "He" refers to', ["the nurse", "the patient"], [1], rows=2),
    Published("sentiment", "imdb_labelled.txt", 'A "good film.\t1\n', 'Review: A "good film.\nSentiment:',
              ["negative", "positive"], [1]),
    Published("cola", "CoLA/dev.tsv", "gj04\t1\t\tThey ran.\n",
              "They ran.\nQuestion: Does this sentence make sense?\nAnswer:", ["no", "yes"], [1]),
    Published("sst2", "SST-2/dev.tsv", "sentence\tlabel\na dull film \t0\n", "Review: a dull film\nSentiment:",
              ["negative", "positive"], [0]),
    Published("mrpc", "MRPC/dev.tsv", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tIt rains.\tRain falls.\n",
              "Sentence 1: It rains.\nSentence 2: Rain falls.\n"
              "Question: Do both sentences mean the same thing?\nAnswer:", ["no", "yes"], [1]),
    Published("qqp", "QQP/dev.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tWho?\tWhy?\t0\n",
              "Question 1: Who?\nQuestion 2: Why?\nQuestion: Do both questions ask the same thing?\nAnswer:",
              ["no", "yes"], [0]),
    Published("mnli", "MNLI/dev_matched.tsv",
              "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\tIt rains.\tIt is dry.\tneutral\tcontradiction\n",
              "It rains.\nQuestion: It is dry. True, False or Neither?\nAnswer:", ["True", "Neither", "False"], [2]),
    Published("mnli-mismatched", "mnli/validation_mismatched-00000-of-00001.parquet",
              [{"premise": "It rains.", "hypothesis": "It is dry.", "label": 2, "idx": 0}],
              "It rains.\nQuestion: It is dry. True, False or Neither?\nAnswer:", ["True", "Neither", "False"], [2]),
    Published("qnli", "QNLI/dev.tsv", "index\tquestion\tsentence\tlabel\n0\tWho?\tHe did.\tnot_entailment\n",
              "Who?\nHe did.\nQuestion: Does this response answer the question?\nAnswer:", ["yes", "no"], [1]),
    Published("rte", "glue/RTE/dev.tsv", "index\tsentence1\tsentence2\tlabel\n57\tIt rains.\tIt is wet.\tentailment\n",
              "It rains.\nQuestion: It is wet. True or False?\nAnswer:", ["True", "False"], [0]),
    Published("wnli", "WNLI/dev.tsv", "index\tsentence1\tsentence2\tlabel\n40\tHe ran, as he had to.\tBob ran.\t0\n",
              "He ran, as he had to.\nQuestion: Bob ran. True or False?\nAnswer:", ["False", "True"], [0]),
    Published("boolq", "BoolQ/val.jsonl", [{"passage": "Rain is water.", "question": "is rain wet", "label": True}],
              "Rain is water.\nQuestion: is rain wet?\nAnswer:", ["no", "yes"], [1]),
    Published("cb", "CB/val.jsonl", [{**SUPER, "label": "neutral"}],
              "It rains.\nQuestion: It is wet. True, False or Neither?\nAnswer:", ["True", "False", "Neither"], [2]),
    Published("copa", "COPA/val.jsonl",
              [{"premise": "He got wet.", "choice1": "It rained.", "choice2": "He slept.", "question": "cause", "label": 0}],
              "He got wet because", ["it rained.", "he slept."], [0]),
    Published("multirc", "MultiRC/val.jsonl", [{"idx": 3, "passage": {"text": "<b>Sent 1: </b>It rains.", "questions": [
        {"question": "What falls?", "idx": 0, "answers": [{"text": "Rain", "label": 1}, {"text": "Sand", "label": 0}]}]}}],
        " Sent 1:  It rains.\nQuestion: What falls?\nProposed answer: Rain\nIs the proposed answer right?",
        ["no", "yes"], [1], rows=2),
    Published("record", "ReCoRD/val.jsonl", [{
        "passage": {"text": "Ada met Bob.\n@highlight\nAda won", "entities": [
            {"start": 0, "end": 2}, {"start": 8, "end": 10}, {"start": 24, "end": 26}]},
        "qas": [{"query": "Then @placeholder cried.", "answers": [{"start": 8, "end": 10, "text": "Bob"}]}]}],
        "Ada met Bob.\n\nAda won\nThen Ada", [" cried.", " cried."], [1]),
    Published("wic", "WiC/val.jsonl", [{"word": "run", "sentence1": "I run.", "sentence2": "A run.", "label": False}],
              'Sentence 1: I run.\nSentence 2: A run.\nQuestion: Is the word "run" used in the same way in both '
              "sentences?\nAnswer:", ["no", "yes"], [0]),
    Published("wsc", "WSC/val.jsonl",
              [{"text": "Ann ran as she could.", "target": {"span1_text": "Ann", "span2_text": "she"}, "label": True}],
              'Passage: Ann ran as she could.\nQuestion: In the passage above, does the pronoun "she" refer to "Ann"?'
              "\nAnswer:", ["no", "yes"], [1]),
    Published("superglue-rte", "RTE/val.jsonl", [{**SUPER, "label": "entailment"}],
              "It rains.\nQuestion: It is wet True or False?\nAnswer:", ["True", "False"], [0]),
    Published("gsm8k", "grade_school_math/data/test.jsonl", [{"question": "1 + 1?", "answer": "It is <<1+1=2>>2.\n#### 2"}],
              "Question: 1 + 1?\nAnswer:", [], ["It is <<1+1=2>>2.\n#### 2"]),
    Published("squad", "dev-v1.1.json", json.dumps({"data": [{"title": "Rain", "paragraphs": [{
        "context": "Rain is water.", "qas": [{"id": "1", "question": "What is rain?", "answers": [
            {"text": "water", "answer_start": 8}]}]}]}]}),
        "Answer with the few words of the text that answer the question.\nText: Rain is water.\n"
        "Question: What is rain?\nAnswer:", [], ["water"]),
    Published("pud-en-de", "pud_en_fr_de.tsv", "id\ten\tfr\tde\n1\tRain.\tPluie.\tRegen.\n",
              "Translate from English into German.\nEnglish: Rain.\nGerman:", [], ["Regen."]),
    Published("flores-en-fr", "devtest/eng_Latn.devtest", "Rain.\nSun.\n",
              "Translate from English into French.\nEnglish: Rain.\nFrench:", [], ["Pluie."],
              {"devtest/fra_Latn.devtest": "Pluie.\nSoleil.\n"}, rows=2),
    Published("scitldr", "SciTLDR-A/test.jsonl", [{"source": ["We  try.", "It works."], "target": ["It works.", "We try."]}],
              "Abstract: We try. It works.\nThe paper in one sentence:", [], ["It works.", "We try."]),
    Published("lambada", "lambada_test_plain_text.txt", "he opened the old door\n", "he opened the old", ["door"], [0]),
    Published("lambada", "lambada_openai.jsonl", [{"context": "he opened the old", "continuation": " door"}],
              "he opened the old", ["door"], [0]),
    Published("stsb", "STS-B/dev.tsv", "index\tsentence1\tsentence2\tscore\n0\tIt rains.\tRain falls.\t4.8\n", "", [], [4.8]),
    Published("sts-benchmark", "stsbenchmark/sts-test.csv", 'news\tf\t2012\t1\t4.5\tIt "rains.\tRain falls.\n', "", [], [4.5]),
    Published("sts-images", "sts14_15_images.tsv", "year\tscore\tsentence1\tsentence2\n2014\t3\tA cat.\tA dog.\n", "", [], [3.0]),
    Published("scifact", "scifact/queries.jsonl", [{"_id": "q", "text": "what is wet"}], "", [], [{"d": 1.0}],
              {"scifact/corpus.jsonl": '{"_id": "d", "title": "", "text": "Rain"}\n', "scifact/qrels/test.tsv": "q\td\t1\n"}),
    Published("wnut17", "emerging.test.annotated", "Ada\tB-person\nwon\tO\n\nOh\tO\n\n",
              'Name the entities of the text as "type: name" with ";" between them, or write "none". Types: person, '
              "location, corporation, group, product, creative work.\nText: Ada won\nEntities:", [], [["B-person", "O"]], rows=2),
]  # fmt: skip
