"""What tasks of encoder-decoders share: how a decoder's text begins and ends, and what samples show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from lmworks.base.errors import InputError
from lmworks.data.batch import Example
from lmworks.data.documents import role_id
from lmworks.evaluate.settings import EvaluateSettings
from lmworks.tasks.settings import TaskSettings
from lmworks.tasks.task import Task
from lmworks.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel


class EncoderDecoderTask(Task):
    """A decoder learns to write a target from the source that an encoder reads.

    Class attributes:
        decoder_start_role: role of the token that the decoder of a new model reads first.
    """

    architectures = ("encoder-decoder",)
    decoder_start_role: ClassVar[str] = "pad"

    @property
    def start(self) -> int:
        """The id that the decoder reads first: by the settings, the model's files, or ``decoder_start_role``."""
        if self.settings.decoder_start == "auto" and self.decoder_start is not None:
            return self.decoder_start
        return self.new_decoder_start(self.settings, self.tokenizer)

    @classmethod
    def new_decoder_start(cls, settings: TaskSettings, tokenizer: Tokenizer) -> int:
        """See :meth:`Task.new_decoder_start`; generation begins with it too."""
        role = cls.decoder_start_role if settings.decoder_start == "auto" else settings.decoder_start
        start = role_id(tokenizer, role)
        if start is None:
            others = [role for role in ("pad", "bos", "eos") if role_id(tokenizer, role) is not None]
            hint = f"take another one (decoder_start {' or '.join(others)}), or train" if others else "train"
            fault = f"the tokenizer has no {role} token for a decoder to begin with"
            raise InputError(fault, "task.decoder_start", f"{hint} a tokenizer of style t5 or bart")
        return start

    def samples(self, model: LanguageModel, examples: Sequence[Example], settings: EvaluateSettings) -> list[dict]:
        """What the encoder reads, and what the decoder writes."""
        from lmworks.tasks.generation import rewrite_texts

        return rewrite_texts(model, examples, settings)
