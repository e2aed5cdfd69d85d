"""What a saved model is for: the hub's name of its task, and how it is used from Python and from the shell.

Decided by the files of the folder alone, as the hub and transformers decide it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.base.json_file import read_object
from lmworks.families.folder import CONFIG
from lmworks.families.sentence_pooling import MODULES
from lmworks.language_model.input_format import FILE, InputFormat

TEMPLATE = "chat_template.jinja"
ENDINGS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForPreTraining": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "MTModel": "text2text-generation",
}
"""How the name of a class of transformers ends, and the hub's name of what it does."""
LIBRARIES = {"sentence-similarity": "sentence-transformers"}
"""By task the library that opens the folder as it is, where it is not transformers."""


@dataclass(frozen=True)
class ModelUse:
    """What a saved model is for.

    Attributes:
        pipeline: the hub's name of its task; None of what transformers does not open.
        has_template: whether it reads conversations through a chat template.
        context: tokens of a text that it reads at a time; None where its config does not say.
        mask: the token that it fills, of a masked language model.
        input_format: how inputs looked in its run; None where the run had no format of its own.
    """

    pipeline: str | None
    has_template: bool = False
    context: int | None = None
    mask: str | None = None
    input_format: InputFormat | None = None

    @property
    def library(self) -> str:
        """The library that opens it."""
        return "lmworks" if self.pipeline is None else LIBRARIES.get(self.pipeline, "transformers")


def use_of(folder: Path) -> ModelUse:
    """What the model of a folder is for.

    Raises:
        InputError: config.json or lmworks.json is damaged.
    """
    form = InputFormat.read(folder)
    if not (folder / CONFIG).is_file():
        return ModelUse(None, input_format=form)
    config, tokenizer = read_object(folder / CONFIG), _tokenizer_config(folder)
    names = config.get("architectures") or []
    pipeline = next((task for end, task in ENDINGS.items() if any(str(name).endswith(end) for name in names)), None)
    if (folder / MODULES).is_file():
        pipeline = "sentence-similarity"
    context = config.get("max_position_embeddings") or config.get("n_positions")
    return ModelUse(
        pipeline,
        has_template=(folder / TEMPLATE).is_file() or bool(tokenizer.get("chat_template")),
        context=context if isinstance(context, int) else None,
        mask=_text(tokenizer.get("mask_token")),
        input_format=form,
    )


def python_example(use: ModelUse, name: str) -> str:
    """A few lines of Python that use the model by the library that opens it."""
    if use.library == "sentence-transformers":
        lines = ["from sentence_transformers import SentenceTransformer", "", f'model = SentenceTransformer("{name}")']
        return "\n".join([*lines, 'print(model.encode(["a text", "another text"]).shape)'])
    if use.pipeline == "text2text-generation":
        lines = ["from transformers import AutoModelForSeq2SeqLM, AutoTokenizer", ""]
        lines += [f'tokenizer = AutoTokenizer.from_pretrained("{name}")']
        lines += [f'model = AutoModelForSeq2SeqLM.from_pretrained("{name}")']
        lines += ['ids = model.generate(**tokenizer("a text", return_tensors="pt"), max_new_tokens=100)']
        return "\n".join([*lines, "print(tokenizer.decode(ids[0], skip_special_tokens=True))"])
    if use.pipeline is None or use.pipeline == "question-answering":
        call = 'answer_question("a question", "a text that answers it")' if use.pipeline else 'generate("a text")'
        return "\n".join(["import lmworks", "", f'model = lmworks.load("{_source(name)}")', f"print(model.{call})"])
    lines = ["from transformers import pipeline", "", f'model = pipeline("{use.pipeline}", "{name}")']
    if use.pipeline == "text-generation" and use.has_template:
        lines.append('messages = [{"role": "user", "content": "a question"}]')
        return "\n".join([*lines, 'print(model(messages, max_new_tokens=100)[0]["generated_text"][-1]["content"])'])
    if use.pipeline == "text-generation":
        return "\n".join([*lines, 'print(model("a text", max_new_tokens=100)[0]["generated_text"])'])
    text = f"a text with a {use.mask or '[MASK]'} in it" if use.pipeline == "fill-mask" else "a text"
    return "\n".join([*lines, f'print(model("{text}"))'])


def shell_example(use: ModelUse, name: str) -> str:
    """The command of lmworks that uses the model."""
    source, form = _source(name), use.input_format
    if use.pipeline == "sentence-similarity":
        return f'lmworks embed "a text" "another text" --model {source}'
    if use.pipeline == "fill-mask":
        return f'lmworks fill "a text with a {use.mask or "[MASK]"} in it" --model {source}'
    if use.pipeline == "question-answering":
        return f'lmworks answer {source} --context FILE --question "a question"'
    if use.pipeline in ("text-classification", "token-classification") or (form is not None and form.labels):
        return f'lmworks predict {source} --text "a text"'
    if use.has_template:
        return f'lmworks chat {source} --ask "a question"'
    return f'lmworks generate {source} "a text"'


def format_notes(use: ModelUse) -> list[str]:
    """What other libraries must be told of the inputs that the model was trained with, a sentence each."""
    form = use.input_format
    if form is None:
        return []
    notes = []
    if form.system:
        notes.append(f"It was trained with the system message {form.system!r}.")
    if pattern := form.prompt or form.text:
        notes.append(f"Its inputs were built by the pattern {pattern!r}.")
    if form.prefix:
        notes.append(f"Its inputs begin with {form.prefix!r}.")
    if form.labels:
        notes.append(f"It writes one of {len(form.labels)} labels; lmworks chooses the likeliest of them.")
    if notes:
        notes.append(f"lmworks does this by itself, from `{FILE}`; for other libraries do it yourself.")
    return notes


def _source(name: str) -> str:
    """How lmworks names the model: a repository of the hub, or a folder."""
    return f"hub:{name}" if "/" in name else name


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return read_object(path) if path.is_file() else {}


def _text(token: Any) -> str | None:
    """A special token of tokenizer_config.json, which may be an object with its content."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
