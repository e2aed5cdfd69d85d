"""lm-evaluation-harness's model ``lmworks`` (extra ``lm-eval``): decoders here, asked by its tasks.

Requests are encoded, cut and windowed as its model ``hf`` does it, so that both score the same token ids. Likelihoods
are computed by ``choice_scores``: a context once for all of its continuations, and what contexts share once for all.

    python -m lmworks.integrations.lm_eval --model lmworks --model_args pretrained=runs/faq --tasks arc_easy
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import model_registry, register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from pydantic import Field
from tqdm import tqdm

from lmworks.base.errors import InputError
from lmworks.base.settings import Settings, build
from lmworks.evaluate.progress import listening
from lmworks.generate.sampling import SamplingSettings
from lmworks.generate.text import complete
from lmworks.language_model import engine_cache
from lmworks.language_model.opening import unfinished_run
from lmworks.language_model.text_methods import TextMethods
from lmworks.run.load import load
from lmworks.text import chat

log = logging.getLogger(__name__)
NAME = "lmworks"
CONTEXTS_AT_ONCE = 1024
"""Contexts after which scores go to the harness's cache of answers (--use_cache): killed, it goes on from there."""
ANSWERS_AT_ONCE = 16
"""Answers that are written side by side where the batch size is "auto"."""

Encoded = tuple[tuple[str, str] | None, list[int], list[int]]
"""Context and continuation as texts, where the harness caches the answer, and as token ids."""


class ModelArguments(Settings):
    """What ``--model_args`` takes, and what the harness adds."""

    pretrained: str = Field(description="A folder, GGUF file, run, alias or hub:owner/name: a decoder.")
    adapter: str | None = Field(None, description="A PEFT folder or a run: an adapter of it.")
    backend: Literal["native", "torch"] | None = Field(
        None, description="What computes: native: the engine, on a CPU; none: native where it computes the model."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Of the weights; auto: as the file has them, with PyTorch in float32."
    )
    max_length: int | None = Field(None, ge=2, description="Tokens of a text that are read at most; none: the context.")
    add_bos_token: bool | None = Field(None, description="Begin texts with BOS; none: as the tokenizer does it.")
    batch_size: int | str = Field("auto", description="Answers that are written side by side; likelihoods need none.")
    max_batch_size: int | None = Field(None, ge=1, description="The most that batch_size auto may become.")
    device: str = Field("cpu", description="Where PyTorch computes; the native engine is on the CPU, whatever it says.")


class LmworksLM(TemplateLM):
    """A decoder behind the harness's interface: ``simple_evaluate(model=LmworksLM("runs/faq"), tasks=["arc_easy"])``.

    Args:
        pretrained: what ``lmworks.load`` opens, or has opened.
        **arguments: other fields of :class:`ModelArguments`.

    Raises:
        InputError: there is no such model or argument, or the model is no decoder.
    """

    def __init__(self, pretrained: str | TextMethods | None = None, **arguments: Any) -> None:
        super().__init__()
        source = pretrained.source if isinstance(pretrained, TextMethods) else pretrained
        named = {} if source is None else {"pretrained": source}
        self.arguments = build(ModelArguments, {**named, **arguments}, "model_args")
        self.model: Any = pretrained if isinstance(pretrained, TextMethods) else _open(self.arguments)
        if not isinstance(self.model, TextMethods) or self.model.architecture != "decoder":
            hint = "take a decoder, such as smollm2-135m-instruct"
            raise InputError("the model gives no likelihood of a continuation", str(source), hint)
        self.tokenizer = self.model.tokenizer
        self.batch_size = self._answers_at_once()
        prefix = self.tokenizer.eos_id if self.tokenizer.bos_id is None else self.tokenizer.bos_id
        if prefix is None or (self.tokenizer.bos_id is None and self.arguments.add_bos_token):
            raise InputError("its tokenizer has no BOS token", str(source), "leave add_bos_token out, or take another")
        self._prefix = prefix

    def _answers_at_once(self) -> int:
        given = str(self.arguments.batch_size)
        if given.partition(":")[0] == "auto":
            return min(ANSWERS_AT_ONCE, self.arguments.max_batch_size or ANSWERS_AT_ONCE)
        if not given.isdecimal() or int(given) < 1:
            raise InputError(f"{given!r} is no batch size", "batch_size", "give a number from 1 on, or auto")
        return int(given)

    @property
    def eot_token_id(self) -> int:
        """The token at the end of a text."""
        return self.prefix_token_id if self.tokenizer.eos_id is None else self.tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """The token after which a text without context begins: BOS, or EOS where there is no BOS."""
        return self._prefix

    @property
    def max_length(self) -> int:
        """Tokens of a text that are read at most."""
        most = self.model.context or sys.maxsize
        return min(most, self.arguments.max_length or most)

    @property
    def tokenizer_name(self) -> str:
        """The source of the model, in the names of the harness's caches."""
        return self.model.source.replace("/", "__")

    def get_model_info(self) -> dict[str, str]:
        """What the results say of the model: what computed it, and the formats of its weights."""
        return {"lmworks_signature": self.model.signature}

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """The ids of a text; a text that begins with BOS already, as of a chat template, gets no second one."""
        adds_bos = self.arguments.add_bos_token
        if add_special_tokens is not None:
            return self.tokenizer.encode(string, special=add_special_tokens)
        if string.startswith(self.tokenizer.decode([self.prefix_token_id], skip_special=False)):
            return self.tokenizer.encode(string)
        if adds_bos is None:
            return self.tokenizer.encode(string, special=True)
        return [*([self.prefix_token_id] if adds_bos else []), *self.tokenizer.encode(string)]

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as text, open for an answer, or for the rest of its last message.

        Raises:
            InputError: the model has no template, or it refuses the messages.
        """
        try:
            text = chat.render(self.tokenizer, chat_history, reply=add_generation_prompt)
        except InputError:
            others = [message for message in chat_history if message["role"] != "system"]
            if len(others) == len(chat_history) or self.tokenizer.chat_template is None:
                raise
            log.warning("the chat template refuses the system message: it is left out")
            return self.apply_chat_template(others, add_generation_prompt)
        if add_generation_prompt:
            return text
        last = chat_history[-1]["content"]
        last = last if last in text else last.strip()
        return text[: text.rindex(last) + len(last)]

    # Likelihoods

    def _loglikelihood_tokens(
        self, requests: Sequence[Encoded], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """For each request log p of its continuation, and whether greedy decoding would write it."""
        answers: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        members: dict[tuple[int, ...], list[int]] = {}
        for index, request in enumerate(requests):
            members.setdefault(tuple(self._cut(request)), []).append(index)
        contexts = sorted(members)
        with _progress("Running loglikelihood requests", len(requests), disable_tqdm):
            for begin in range(0, len(contexts), CONTEXTS_AT_ONCE):
                part = contexts[begin : begin + CONTEXTS_AT_ONCE]
                choices = [[requests[index][2] for index in members[context]] for context in part]
                for context, scores in zip(part, self.model.choice_scores(part, choices), strict=True):
                    values = zip(scores.log_probabilities.tolist(), scores.is_greedy.tolist(), strict=True)
                    for index, answer in zip(members[context], values, strict=True):
                        answers[index] = answer
                        if (texts := requests[index][0]) is not None:
                            self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def _cut(self, request: Encoded) -> list[int]:
        """The end of a context for which there is room; the last token of the continuation is not read."""
        texts, context, continuation = request
        place = repr(texts[1] if texts is not None else self.tokenizer.decode(continuation))
        if not continuation:
            raise InputError("a continuation without tokens has no likelihood", place, "give it at least one token")
        room = self.max_length + 1 - len(continuation)
        if room < 1:
            fault = f"a continuation of {len(continuation)} tokens; the most are {self.max_length}"
            raise InputError(fault, place, "shorten it, or take a model with a longer context")
        if len(context) > room:
            log.warning("a context of %d tokens loses its first %d: %s", len(context), len(context) - room, place)
        return context[-room:]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """log p of whole texts, in windows of max_length tokens in which each token is predicted once."""
        windows: list[Encoded] = []
        owners: list[int] = []
        for owner, request in enumerate(requests):
            ids, prefix = self.tok_encode(request.args[0]), self.prefix_token_id
            for pair in get_rolling_token_windows(ids, prefix, max_seq_len=self.max_length, context_len=1):
                begin, end = make_disjoint_window(pair)
                windows.append((None, begin, end))
                owners.append(owner)
        totals = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[owner] += value
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    # Answers

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The answer to each request; each is what it would be alone."""
        groups: dict[str, list[tuple[int, list[int]]]] = {}
        settings: dict[str, SamplingSettings] = {}
        asked: dict[str, int] = {}
        for index, request in enumerate(requests):
            context, given = request.args
            own = self._sampling(given, asked.setdefault(repr(request.args), 0))
            asked[repr(request.args)] += 1
            ids = self._cut_prompt(context, own.max_tokens)
            key = own.model_dump_json()
            settings[key] = own
            groups.setdefault(key, []).append((index, ids))
        texts = [""] * len(requests)
        with _progress("Running generate_until requests", len(requests), disable_tqdm) as bar:
            for key, group in groups.items():
                group.sort(key=lambda entry: -len(entry[1]))
                for begin in range(0, len(group), self.batch_size):
                    part = group[begin : begin + self.batch_size]
                    prompts = [ids for _, ids in part]
                    replies = complete(self.model.stepper(), self.tokenizer, prompts, settings[key], self.model.rules)
                    for (index, _), reply in zip(part, replies, strict=True):
                        texts[index] = reply.text
                        self.cache_hook.add_partial("generate_until", requests[index].args, reply.text)
                    bar.update(len(part))
        return texts

    def _sampling(self, given: dict[str, Any], earlier: int) -> SamplingSettings:
        """The harness's generation arguments as ours.

        Args:
            given: arguments of a task, or of --gen_kwargs.
            earlier: how often the same was asked before: an answer that is drawn is another one each time.

        Raises:
            InputError: there is no such setting.
        """
        values = dict(normalize_gen_kwargs(given, default_max_gen_toks=256))
        until, draws = values.pop("until"), values.pop("do_sample", False)
        values["max_tokens"] = values.pop("max_gen_toks")
        values["temperature"] = given.get("temperature", 1.0) if draws else 0.0
        values["seed"] = values.get("seed", 0) + (earlier if draws else 0)
        end = self.tokenizer.decode([self.eot_token_id], skip_special=False)
        values["stop"] = [text for text in (*until, end) if text]
        return build(SamplingSettings, values, "the generation arguments")

    def _cut_prompt(self, context: str, new_tokens: int) -> list[int]:
        """The ids of a prompt; its end, where there is no room for all of it and the new tokens."""
        room, ids = self.max_length - new_tokens, self.tok_encode(context)
        if room < 1:
            fault = f"{new_tokens} new tokens leave no room for a prompt in {self.max_length}"
            raise InputError(fault, "max_gen_toks", "ask for fewer: --gen_kwargs max_gen_toks=64")
        if len(ids) > room:
            log.warning("a prompt of %d tokens loses its first %d", len(ids), len(ids) - room)
        return ids[-room:]


def _open(arguments: ModelArguments) -> Any:
    """The model that the arguments name.

    Raises:
        InputError: there is no such model, or the native engine is asked for and does not compute it.
    """
    base = None if arguments.adapter is None else arguments.pretrained
    source, device = arguments.adapter or arguments.pretrained, _device_of(arguments)
    dtype = "bfloat16" if arguments.dtype == "bfloat16" else "float32"
    if arguments.backend == "torch" or device != "cpu":
        return load(source, base=base, dtype=dtype, device=device)
    is_stored = arguments.dtype == "auto" and unfinished_run(source, base=base) is None
    if is_stored and (cached := engine_cache.open_cached(source, base)) is not None:
        return cached
    model = load(source, base=base, storage="stored" if is_stored else None)
    if getattr(model, "architecture", "") == "decoder":
        model.prepare(dtype)
        if model.engine_fault and arguments.backend == "native":
            fault = f"the native engine does not compute this model: {model.engine_fault}"
            raise InputError(fault, source, "backend=torch")
    return model


def _device_of(arguments: ModelArguments) -> str:
    """Where the model is computed; where nobody says it, the harness names its first GPU, which there may not be."""
    if arguments.backend == "native" or (arguments.device.startswith("cuda") and not torch.cuda.is_available()):
        if arguments.device != "cpu":
            log.info("computed on the CPU, not on %s", arguments.device)
        return "cpu"
    return arguments.device


@contextmanager
def _progress(title: str, total: int, disable: bool) -> Iterator[Any]:
    """A live line on standard error, as the harness's other models have it."""
    with tqdm(total=total, desc=title, disable=disable) as bar, listening(_Bar(bar)):
        yield bar


class _Bar:
    """Shows the progress of likelihoods."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def begin(self, part: str, total: int) -> None:
        """The line says it already."""

    def advance(self, count: int) -> None:
        """So many more are done."""
        self._bar.update(count)


def register() -> None:
    """Make the model known by its name; releases of the harness that look for entry points find it by themselves."""
    if NAME not in model_registry:
        register_model(NAME)(LmworksLM)


def main() -> int:
    """The harness's own command, which knows the model ``lmworks``."""
    from lm_eval.__main__ import cli_evaluate

    register()
    try:
        cli_evaluate()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
