"""ELIZA: a conversation by rules, without a model.

The mechanism of Weizenbaum 1966 ("ELIZA - a computer program for the study of natural language communication between
man and machine"); its rules are data (eliza.yaml, in words of our own):

1. A message is read clause by clause; the first clause with a keyword is answered, the others are forgotten.
2. Words are swapped ("I" becomes "you"). Keywords wait in a row: one that ranks higher than all before goes to its
   front, the others to its end.
3. The first keyword's decomposition patterns are tried in order. The first that matches gives a reply from its parts;
   the replies of a pattern take turns. A reply may go on with another keyword's rules, or with the next keyword.
4. A message with the keyword of the memory leaves a remark behind, which answers a later message without a keyword.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.notation import read_yaml

MOST_WORDS = 100
"""Words of a clause that are read; the rest is left out of the reply too."""
_CLAUSE_END = re.compile(r"[.,;:!?…()\[\]\n\"“”«»。！？、]+|\bbut\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_PART = re.compile(r"\{(\d+)\}")
GOTO, NEXT = "= ", "next"

Reply = str | dict[str, str]


@dataclass(frozen=True)
class Rule:
    """A decomposition pattern, and the replies that are made of its parts.

    Attributes:
        pattern: as written in the rules.
        replies: in the order in which they are used.
    """

    pattern: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class Keyword:
    """A word that rules know.

    Attributes:
        rank: the higher, the sooner it is answered.
        swap: what the word becomes before patterns are tried; empty: it stays.
        rules: tried in order; none: the word is only swapped.
        goto: the keyword whose rules are used; empty: its own.
    """

    rank: int = 0
    swap: str = ""
    rules: tuple[Rule, ...] = ()
    goto: str = ""


@dataclass(frozen=True)
class Script:
    """All rules.

    Attributes:
        greeting: said first.
        keywords: by the word, in lower case.
        none: rule for messages without a keyword; its pattern matches everything.
        memory: rules of the remarks that are kept.
        memory_keyword: the keyword whose messages leave a remark.
        memory_every: n: every n-th message without a keyword is answered from memory.
        tags: words by the name under which patterns know them.
    """

    greeting: str
    keywords: dict[str, Keyword]
    none: Rule
    memory: tuple[Rule, ...]
    memory_keyword: str
    memory_every: int
    tags: dict[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Script:
        """The rules of a YAML file.

        Raises:
            InputError: a keyword, a tag or a part is named that there is not, or something is missing.
        """
        values = read_yaml(path)
        try:
            tags = {name: frozenset(words) for name, words in values.get("tags", {}).items()}
            keywords = {str(word).lower(): _keyword(entry) for word, entry in values["keywords"].items()}
            memory = values["memory"]
            none = Rule("*", tuple(values["none"]))
            script = cls(
                values["greeting"], keywords, none, _rules(memory["rules"]), memory["keyword"], memory["every"], tags
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"is no list of rules ({error})", str(path), "see the rules of lmworks") from error
        script._check(str(path))
        return script

    def _check(self, place: str) -> None:
        for word, keyword in self.keywords.items():
            if keyword.goto and not self.keywords.get(keyword.goto, Keyword()).rules:
                raise InputError(f"{word} goes to {keyword.goto!r}, which has no rules", place, "name a keyword")
        everywhere = [rule for keyword in self.keywords.values() for rule in keyword.rules]
        for rule in (*everywhere, *self.memory, self.none):
            elements = rule.pattern.split()
            if unknown := [e for e in elements if e.startswith("@") and e[1:] not in self.tags]:
                raise InputError(f"{rule.pattern!r} names {unknown[0]}, which is no tag", place, "name a tag")
            if not rule.replies:
                raise InputError(f"{rule.pattern!r} has no replies", place, "write at least one")
            for reply in rule.replies:
                text, goto = _text_of(reply), _goto_of(reply)
                if any(not 1 <= int(part) <= len(elements) for part in _PART.findall(text)):
                    raise InputError(f"{text!r} names a part that {rule.pattern!r} has not", place, "count the parts")
                if goto and goto not in self.keywords:
                    raise InputError(f"{rule.pattern!r} goes to {goto!r}, which is no keyword", place, "name a keyword")


class Eliza:
    """One conversation.

    Args:
        script: its rules; default: those of lmworks.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or default_script()
        self.memory: deque[str] = deque()
        self._turns: Counter[tuple[str, str]] = Counter()
        self._without_keyword = 0

    @property
    def greeting(self) -> str:
        """What is said first."""
        return self.script.greeting

    def respond(self, message: str) -> str:
        """The reply to a message; there is one to any message, an empty one too."""
        words, keywords = self._read(message.replace("’", "'"))
        if keywords and keywords[0] == self.script.memory_keyword:
            self._remember(words)
        reply = self._reply(words, keywords)
        if reply is None:
            self._without_keyword += 1
            if self.memory and self._without_keyword % self.script.memory_every == 0:
                return self.memory.popleft()
            reply = _finish(self._in_turn("none", self.script.none))
        return reply

    def _read(self, message: str) -> tuple[list[str], list[str]]:
        """The first clause with a keyword, its words swapped, and its keywords, the one to be answered first."""
        for clause in _CLAUSE_END.split(message):
            words, keywords = list[str](), deque[str]()
            highest = -1
            for match in _WORD.finditer(clause):
                if len(words) >= MOST_WORDS:
                    break
                keyword = self.script.keywords.get(match[0].lower())
                words += keyword.swap.split() if keyword and keyword.swap else [match[0]]
                if keyword is None or not (keyword.rules or keyword.goto):
                    continue
                if keyword.rank > highest:
                    keywords.appendleft(match[0].lower())
                    highest = keyword.rank
                else:
                    keywords.append(match[0].lower())
            if keywords:
                return words, list(keywords)
        return [], []

    def _reply(self, words: list[str], keywords: Sequence[str]) -> str | None:
        """The reply by the first keyword that has one; None without."""
        for first in keywords:
            name, seen, clause = first, set[str](), words
            while name not in seen:
                seen.add(name)
                name = self.script.keywords[name].goto or name
                reply, parts = self._match(name, self.script.keywords[name].rules, clause)
                if reply is None or reply == NEXT:
                    break
                if not (goto := _goto_of(reply)):
                    return _finish(_fill(_text_of(reply), parts))
                if not isinstance(reply, str):
                    clause = _fill(_text_of(reply), parts).split()
                name = goto
        return None

    def _match(self, name: str, rules: Sequence[Rule], words: list[str]) -> tuple[Reply | None, list[str]]:
        """The reply whose turn it is of the first rule that matches, and the parts of the clause."""
        for rule in rules:
            parts = decompose(rule.pattern, words, self.script.tags)
            if parts is not None:
                return self._in_turn(name, rule), parts
        return None, []

    def _in_turn(self, name: str, rule: Rule) -> Any:
        turn = self._turns[name, rule.pattern]
        self._turns[name, rule.pattern] += 1
        return rule.replies[turn % len(rule.replies)]

    def _remember(self, words: list[str]) -> None:
        reply, parts = self._match("memory", self.script.memory, words)
        if reply is not None:
            self.memory.append(_finish(_fill(_text_of(reply), parts)))


def decompose(pattern: str, words: Sequence[str], tags: dict[str, frozenset[str]]) -> list[str] | None:
    """The words that each element of a pattern matches, as texts; None where the pattern does not match.

    What stands between two ``*`` is matched as early as possible, so that the time grows with the length of the words
    times that of the pattern.
    """
    elements = pattern.split()
    stars = [place for place, element in enumerate(elements) if element == "*"]
    parts = [""] * len(elements)

    def fits(first: int, last: int, at: int) -> bool:
        if at < 0 or at + last - first > len(words):
            return False
        return all(_is(elements[n], words[at + n - first], tags) for n in range(first, last))

    def take(first: int, last: int, at: int) -> None:
        for n in range(first, last):
            parts[n] = words[at + n - first]

    if not stars:
        if len(words) != len(elements) or not fits(0, len(elements), 0):
            return None
        take(0, len(elements), 0)
        return parts
    if not fits(0, stars[0], 0):
        return None
    take(0, stars[0], 0)
    done = stars[0]  # words that are matched
    for star, following in zip(stars, [*stars[1:], len(elements)], strict=True):
        first, size = star + 1, following - star - 1
        is_last = following == len(elements)  # it must end where the words end
        places = range(len(words) - size if is_last else done, len(words) - size + 1)
        at = next((place for place in places if place >= done and fits(first, following, place)), None)
        if at is None:
            return None
        parts[star] = " ".join(words[done:at])
        take(first, following, at)
        done = at + size
    return parts


def _is(element: str, word: str, tags: dict[str, frozenset[str]]) -> bool:
    word = word.lower()
    if element.startswith("@"):
        return word in tags[element[1:]]
    if element.startswith("["):
        return word in element[1:-1].lower().split("|")
    return element == "?" or element.lower() == word


def default_script() -> Script:
    """The rules that come with lmworks."""
    with resources.as_file(resources.files("lmworks.baselines").joinpath("eliza.yaml")) as path:
        return Script.read(Path(path))


def _keyword(entry: dict[str, Any]) -> Keyword:
    return Keyword(entry.get("rank", 0), entry.get("swap", ""), _rules(entry.get("rules", [])), entry.get("goto", ""))


def _rules(entries: list[dict[str, Any]]) -> tuple[Rule, ...]:
    return tuple(Rule(entry["pattern"], tuple(entry["replies"])) for entry in entries)


def _text_of(reply: Reply) -> str:
    """The text of a reply, or that of the clause that it makes anew."""
    return reply if isinstance(reply, str) else reply["pre"]


def _goto_of(reply: Reply) -> str:
    """The keyword with whose rules a reply goes on; empty where it does not."""
    if isinstance(reply, dict):
        return reply["goto"]
    return reply.removeprefix(GOTO).strip() if reply.startswith(GOTO) else ""


def _fill(text: str, parts: list[str]) -> str:
    return _PART.sub(lambda match: parts[int(match[1]) - 1], text)


def _finish(text: str) -> str:
    """A sentence: one space between words, none before a sign, a capital first."""
    text = re.sub(r"\s+([.,?!])", r"\1", " ".join(text.split()))
    return text[:1].upper() + text[1:]
