"""What all arms of the training benchmark are given: the same tokens, in the same order, from the same start.

GSM8K rows as "Question: ...\\nAnswer: ...", loss on the answers and on the end of the text. The order is that of
Trainer's grouping by length, which pads least; the start is the adapter that PEFT draws. Made once, read by every arm.
"""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

DOCUMENTS, RANK, ALPHA = 8, 16, 32
"""Documents an optimizer step; rank and alpha of the adapters."""
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
RATES = {"lora": 2e-4, "qlora": 2e-4, "full": 2e-5}
ADAPTERS = ("lora", "qlora")
"""Learning rates, constant: schedules begin differently here and there."""


def pairs(path: str | None, count: int) -> list[tuple[str, str]]:
    """The first rows as (prompt, completion)."""
    if path is None:
        from datasets import load_dataset

        rows = list(islice(load_dataset("openai/gsm8k", "main", split="train"), count))
    else:
        with Path(path).open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in islice(lines, count)]
    return [(f"Question: {row['question']}\nAnswer:", f" {row['answer']}") for row in rows]


def prepare(work: Path, data: str | None, count: int) -> dict[str, Any]:
    """Write documents and start to a folder, and say what they are."""
    import arms
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.trainer_pt_utils import get_length_grouped_indices

    folder = arms.reference_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = pairs(data, count)
    documents = []
    for prompt, completion in texts:
        head, tail = tokenizer(prompt).input_ids, [*tokenizer(completion).input_ids, tokenizer.eos_token_id]
        documents.append({"ids": head + tail, "prompt": len(head)})
    if [document["ids"] for document in documents] != [example.ids.tolist() for example in _ours(folder, texts)]:
        raise SystemExit("lmworks and transformers make different tokens of these rows")
    lengths = [len(document["ids"]) for document in documents]
    order = get_length_grouped_indices(lengths, DOCUMENTS, generator=torch.Generator().manual_seed(0))
    (work / "documents.json").write_text(json.dumps([documents[index] for index in order]))
    torch.manual_seed(0)
    adapters = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), adapters).save_pretrained(work / "start")
    answers = sum(length - document["prompt"] for length, document in zip(lengths, documents, strict=True))
    return {"documents": count, "tokens": sum(lengths), "answer_tokens": answers, "longest": max(lengths)}


def _ours(folder: Path, texts: list[tuple[str, str]]) -> list[Any]:
    """The same rows as lmworks' own way makes them."""
    from lmworks.data.answers import answer_examples
    from lmworks.families.folder import open_tokenizer, read_config
    from lmworks.text import corpus
    from lmworks.text.rows import DataSettings

    table = corpus.read([{"prompt": prompt, "completion": completion} for prompt, completion in texts])
    context = read_config(folder).max_position_embeddings
    return list(answer_examples(table, open_tokenizer(folder), DataSettings(template="off"), context).items)


def documents(work: Path, steps: int | None = None) -> list[dict[str, Any]]:
    """The documents in their order, or those of the first steps: ids, and how many of them are the prompt."""
    documents = json.loads((work / "documents.json").read_text())
    return documents if steps is None else documents[: steps * DOCUMENTS]


def start(work: Path) -> Path:
    """The folder of the adapter that LoRA begins with."""
    return work / "start"


if __name__ == "__main__":
    where, rows, *file = sys.argv[1:]
    print(json.dumps(prepare(Path(where), file[0] if file else None, int(rows))))
