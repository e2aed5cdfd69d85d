"""The page of a demo: a person writes, the model answers. It is copied into a Space, and runs without lmworks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import gradio
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TextIteratorStreamer,
)

HERE = Path(__file__).resolve().parent
MOST_TOKENS, SHOWN = 200, 5
CLASSES = {
    "chat": AutoModelForCausalLM,
    "text": AutoModelForCausalLM,
    "source": AutoModelForSeq2SeqLM,
    "classes": AutoModelForSequenceClassification,
    "fill": AutoModelForMaskedLM,
}


class Demo:
    """The model, and how its inputs are built.

    Args:
        settings: kind, model (a folder beside this file, or a name on the hub), pattern and column of an input, system.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        folder = HERE / settings["model"]
        place = str(folder) if folder.is_dir() else settings["model"]
        self.tokenizer = AutoTokenizer.from_pretrained(place)
        self.model = CLASSES[settings["kind"]].from_pretrained(place, dtype=torch.float32).eval()

    def page(self) -> Any:
        """The page for this kind of model."""
        kind, title = self.settings["kind"], self.settings["title"]
        if kind == "chat":
            return gradio.ChatInterface(self.chat, title=title)
        output = gradio.Label() if kind in ("classes", "fill") else gradio.Textbox(label="answer")
        function = {"text": self.write, "source": self.write, "classes": self.classify, "fill": self.fill}[kind]
        text = f"a text with {self.tokenizer.mask_token}" if kind == "fill" else "text"
        return gradio.Interface(function, gradio.Textbox(label=text), output, title=title, flagging_mode="never")

    def chat(self, message: Any, history: Sequence[dict[str, Any]]) -> Iterator[str]:
        """The answer to a message, which grows."""
        system = self.settings.get("system")
        messages = [{"role": "system", "content": system}] if system else []
        for turn in [*history, {"role": "user", "content": message}]:
            text = _text(turn["content"])
            messages.append({"role": turn["role"], "content": self.fill_in(text) if turn["role"] == "user" else text})
        inputs = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        yield from self.generate(inputs)

    def write(self, text: str) -> Iterator[str]:
        """What follows a text, or answers it, which grows."""
        yield from self.generate(self.tokenizer(self.fill_in(text), return_tensors="pt"))

    def generate(self, inputs: Any) -> Iterator[str]:
        """The text so far, after each piece."""
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        settings = {**inputs, "max_new_tokens": MOST_TOKENS, "do_sample": False, "streamer": streamer}
        Thread(target=self.model.generate, kwargs=settings).start()
        answer = ""
        for piece in streamer:
            answer += piece
            yield answer

    @torch.inference_mode()
    def classify(self, text: str) -> dict[str, float]:
        """The probability of each label."""
        logits = self.model(**self.tokenizer(self.fill_in(text), return_tensors="pt", truncation=True)).logits[0]
        several = self.model.config.problem_type == "multi_label_classification"
        shares = logits.sigmoid() if several else logits.softmax(-1)
        return {self.model.config.id2label[number]: share for number, share in enumerate(shares.tolist())}

    @torch.inference_mode()
    def fill(self, text: str) -> dict[str, float]:
        """The likeliest pieces for the first blank of a text."""
        inputs = self.tokenizer(text, return_tensors="pt")
        blanks = (inputs["input_ids"][0] == self.tokenizer.mask_token_id).nonzero()
        if not len(blanks):
            raise gradio.Error(f"The text has no {self.tokenizer.mask_token}.")
        best = self.model(**inputs).logits[0, blanks[0, 0]].softmax(-1).topk(SHOWN)
        return {
            self.tokenizer.decode([token]): share
            for share, token in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        }

    def fill_in(self, text: str) -> str:
        """A text as the model's inputs were built in training."""
        return self.settings["pattern"].format(**{self.settings["column"]: text})


def _text(content: Any) -> str:
    """The text of a message, which may be a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return "".join(part if isinstance(part, str) else part.get("text", "") for part in parts)


if __name__ == "__main__":
    Demo(json.loads((HERE / "demo.json").read_text(encoding="utf-8"))).page().launch()
