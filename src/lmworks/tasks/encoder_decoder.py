"""What tasks of encoder-decoders share: how a decoder's text begins and ends, and what samples show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lmworks.base.errors import InputError
from lmworks.data.batch import Example
from lmworks.data.documents import Frame, end_id, frame_of, role_id
from lmworks.evaluate.settings import EvaluateSettings
from lmworks.tasks.settings import TaskSettings
from lmworks.tasks.task import Task
from lmworks.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel

STARTS = {"denoising": "eos"}
"""Role of the token that a decoder reads first, where it is not pad: BART's eos (Lewis et al. 2020)."""


class EncoderDecoderTask(Task):
    """A decoder learns to write a target from the source that an encoder reads."""

    architecture = "encoder-decoder"

    @property
    def start(self) -> int:
        """The id that the decoder reads first: as the settings or the model say, else as published."""
        if self.settings.decoder_start == "auto" and self.decoder_start is not None:
            return self.decoder_start
        return decoder_start(self.settings, self.name, self.tokenizer)

    def samples(self, model: LanguageModel, examples: Sequence[Example], settings: EvaluateSettings) -> list[dict]:
        """What the encoder reads, and what the decoder writes."""
        from lmworks.tasks.writing import rewrite_texts

        return rewrite_texts(model, examples, settings)


def decoder_start(settings: TaskSettings, task: str, tokenizer: Tokenizer) -> int:
    """The id that a decoder beside an encoder reads first; generation must begin with it too.

    Raises:
        InputError: the tokenizer has no such token.
    """
    role = STARTS.get(task, "pad") if settings.decoder_start == "auto" else settings.decoder_start
    start = role_id(tokenizer, role)
    if start is None:
        has = [role for role in ("pad", "bos", "eos") if role_id(tokenizer, role) is not None]
        hint = f"take another one (decoder_start {' or '.join(has)}), or train" if has else "train"
        fault = f"the tokenizer has no {role} token for a decoder to begin with"
        raise InputError(fault, "task.decoder_start", f"{hint} a tokenizer of style t5 or bart")
    return start


def closed(tokenizer: Tokenizer, what: str) -> Frame:
    """What stands around a text that must end: the tokenizer's own, with the end-of-text token if it adds none."""
    around = frame_of(tokenizer)
    return around if around.closing else replace(around, closing=(end_id(tokenizer, what),))
