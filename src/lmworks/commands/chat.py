"""lmworks chat: talk with a model in the terminal."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from typing import TYPE_CHECKING

from lmworks.base.errors import InputError
from lmworks.base.settings import build, nearest, parse_overrides
from lmworks.commands.generate import add_options, as_list, explain_stop, grammar_of, note_format
from lmworks.commands.generate import epilog as epilog
from lmworks.commands.opening import open_writer
from lmworks.language_model.saved_source import is_eliza

if TYPE_CHECKING:
    from lmworks.data.prompts import Prompt
    from lmworks.generate.grammar import Grammar
    from lmworks.generate.sampling import SamplingSettings
    from lmworks.generate.text import TextStream
    from lmworks.language_model.model import LanguageModel
    from lmworks.language_model.native_model import NativeModel
    from lmworks.language_model.text_methods import TextMethods

ABOUT = """Talk with a model; it remembers the conversation. /help lists the commands, /quit or the end of the input
ends. Sampling is set by further options, as for generate. A model that a run trained is asked with the system message
and the prompt of that run; a classifier labels each text. lmworks chat eliza: a conversation of 1966, by rules."""
HELP = """\
/new    start another conversation
/help   show this
/quit   leave; so do /exit and the end of the input (Ctrl-D)
Ctrl-C ends an answer. A message of several lines stands between two lines of \"\"\"; one that begins with / is written
with //."""
COMMANDS = ["new", "help", "quit", "exit"]
BLOCK = '"""'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL, a system prompt, questions to ask and leave."""
    parser.description = ABOUT
    parser.add_argument("model", help="a folder, GGUF file, run, alias, hub:owner/name or pypi:distribution")
    parser.add_argument("--system", help="what the model is told before the conversation")
    parser.add_argument("--ask", action="append", metavar="QUESTION", help="ask this, print the answer and leave")
    parser.add_argument(
        "--held-out", type=int, metavar="N", help="of a run: ask N questions that it was never trained on, and leave"
    )
    add_options(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Ask and answer until the person leaves."""
    from lmworks.generate.sampling import SamplingSettings

    if is_eliza(args.model):
        return _talk_with_eliza(args, rest)
    settings = build(SamplingSettings, as_list(parse_overrides(rest)), "the command line")
    grammar = grammar_of(args)
    model = open_writer(args)
    model.check_writes()
    note_format(model, args.raw)
    conversation = Conversation(model, settings, args.system, args.raw, grammar)
    if not (args.ask or args.held_out):
        return _talk(conversation)
    for question in args.ask or []:
        print(f"> {question}")
        conversation.restart()
        conversation.say(question)
    for prompt in _held_out(model, args.model, args.held_out) if args.held_out else []:
        print(f"> {prompt.text}")
        _print_answer(model, model.answer(prompt, settings), settings.num_beams)
        print(f"(the row says: {prompt.reference})\n")
    return 0


class Conversation:
    """What was said, and the model that answers."""

    def __init__(
        self,
        model: TextMethods,
        settings: SamplingSettings,
        system: str | None,
        raw: bool,
        grammar: Grammar | None = None,
    ) -> None:
        self.model, self.raw, self.settings, self.grammar = model, raw, settings, grammar
        self._system = [{"role": "system", "content": system}] if system else []
        self.messages = list(self._system)

    def restart(self) -> None:
        """Forget all but the system message."""
        self.messages = list(self._system)

    def say(self, text: str) -> None:
        """Stream the answer to a message; a message without an answer is forgotten.

        Raises:
            InputError: it cannot be answered, for instance because the context is full.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        options = self.settings.model_dump()
        stream = self.model.chat(messages, stream=True, raw=self.raw, grammar=self.grammar, **options)
        answer = _print_answer(self.model, stream, self.settings.num_beams)
        if answer:
            self.messages = [*messages, {"role": "assistant", "content": answer}]


class ElizaConversation:
    """A conversation with ELIZA."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what was said, and which rules were used."""
        from lmworks.baselines.eliza import Eliza  # its rules are YAML, for which no model need wait

        self.eliza = Eliza()

    def say(self, text: str) -> None:
        """Print the reply to a message."""
        print(self.eliza.respond(text), end="\n\n" if sys.stdin.isatty() else "\n", flush=True)


def _talk_with_eliza(args: argparse.Namespace, rest: list[str]) -> int:
    """Talk with ELIZA; refuse options of models."""
    names = (
        "system",
        "held_out",
        "base",
        "backend",
        "kv_cache",
        "raw",
        "json_object",
        "json_schema",
        "regex",
        "choices",
    )
    given = [name for name in names if getattr(args, name, None)]
    if given or rest:
        option = f"--{given[0].replace('_', '-')}" if given else rest[0].split("=")[0]
        raise InputError("eliza answers by rules, and has no such option", option, "leave it out: lmworks chat eliza")
    conversation = ElizaConversation()
    if not args.ask:
        print(conversation.eliza.greeting)
        return _talk(conversation)
    for question in args.ask:
        print(f"> {question}")
        conversation.restart()
        conversation.say(question)
    return 0


def _talk(conversation: Conversation | ElizaConversation) -> int:
    if sys.stdin.isatty():
        print("/help lists the commands", file=sys.stderr)
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (input() then edits lines and takes a paste as one message)
    while (message := _read_message()) is not None:
        command = re.fullmatch(r"/(\w*)", message)
        if command is None:
            try:
                conversation.say(message[1:] if message.startswith("//") else message)
            except InputError as error:
                print(f"error: {error}\n  /new starts another conversation", file=sys.stderr)
            except KeyboardInterrupt:  # before the first word came
                print(file=sys.stderr)
        elif command[1] in ("quit", "exit"):
            break
        elif command[1] == "new":
            conversation.restart()
        elif command[1] == "help":
            print(HELP)
        else:
            near = nearest(command[1], COMMANDS)
            hint = f"did you mean /{near[0]}? " if near else ""
            print(f"error: there is no command {message}\n  hint: {hint}/help lists the commands", file=sys.stderr)
    return 0


def _read_message() -> str | None:
    """The person's next message: a line, or the lines between two lines of three quotes; None when they leave."""
    interrupted = False
    while True:
        try:
            line = _read_line("> ")
            if line is None:
                return None
            if line.strip() == BLOCK:
                lines = []
                while (line := _read_line("  ")) is not None and line.strip() != BLOCK:
                    lines.append(line)
                message = "\n".join(lines).strip()
            else:
                message = line.strip()
        except KeyboardInterrupt:  # of a line that is being typed; a second one leaves
            if interrupted:
                return None
            interrupted = True
            print("\n(once more, Ctrl-D or /quit: leave)", file=sys.stderr)
            continue
        if message:
            return message


def _read_line(prompt: str) -> str | None:
    try:
        return input(prompt if sys.stdin.isatty() else "")
    except EOFError:
        if sys.stdin.isatty():
            print()
        return None


def _print_answer(model: TextMethods, stream: TextStream, num_beams: int) -> str:
    """Print an answer as it comes; Ctrl-C ends it, not the conversation. Gives what was said."""
    parts = []
    try:
        for piece in stream:
            parts.append(piece)
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        print(" ...", end="")
    reply = stream.reply
    if reply is not None and reply.label_probabilities is not None:
        print(f" ({reply.label_probabilities[reply.text]:.0%})", end="")
    print("\n" if sys.stdin.isatty() else "", flush=True)
    if reply is not None:
        explain_stop(model, [reply], num_beams)
    return "".join(parts)


def _held_out(model: LanguageModel | NativeModel, run: str, count: int) -> list[Prompt]:
    """Prompts of rows that the run held out; the report's samples are not among them."""
    from lmworks.base.journal import RunFolder
    from lmworks.run import recipe as recipes
    from lmworks.tasks.registry import task_class
    from lmworks.text import corpus

    recipe = recipes.read(RunFolder(run).recipe)
    table = corpus.read(recipe.data.source, recipe.data)
    task = task_class(recipe.task.name)
    if recipe.data.on_bad_row == "skip":
        table = task.usable_rows(table, model.tokenizer, recipe.data)
    _, rows = corpus.split(table, recipe.data)
    start = model.rules.decoder_start_token_id
    prompts = task(recipe.task, model.tokenizer, model.config, start).prompts(rows, recipe.data)
    if not prompts:
        raise InputError(f"rows of kind {rows.kind} hold no single questions", "--held-out", "ask with --ask")
    after = recipe.evaluate.samples or 0
    return prompts[after : after + count]
