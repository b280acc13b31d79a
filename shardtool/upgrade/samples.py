"""Names that a regex matches, made up from the regex: what is tried to compare two of them. Pure.

A small reader of RE2's syntax that gives a few strings for each piece. It claims nothing: whoever
uses the names asks RE2 which regex matches which, so what is misread here only makes a poorer
sample.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from random import Random

from shardtool.influxdb.regex import compiled, encoded
from shardtool.words import is_utf8

_MOST = 8  # names that a piece of a regex stands for
_LONGEST = 20_000  # characters of a name
_LONGEST_VARIED = 200  # one that is made longer, shorter, louder, or paired with another's
_SHUFFLES = 40
_DEEPEST = 50
# Tried against each class first: a few of every kind that names are made of.
_CHARACTERS = 'aZ0_.-xmAMz59 ~:/|"\\é\u042f\u4e2d'
_USUAL, _OWN = 4, 2  # of a class: of them, and of what is written in it
_RUNS = 6  # of neighbouring code points in a class
_ANY = "aZ0_."
_ASSERTIONS = "AzbB"
_QUANTIFIER = re.compile(r"(?:[*+?]|\{(\d{1,4})(,?)(\d{0,4})\})\??")
_GROUP = re.compile(r"\?(?:P?<\w*>|[imsU-]*(:|(?=\))))")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]", re.DOTALL)
_ESCAPE = re.compile(
    r"\\(?:[pP]\{\^?\w+\}|[pP]\w|x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{2}|0[0-7]{0,2}|[1-7][0-7]{1,2}|.)",
    re.DOTALL,
)
_QUOTED = re.compile(r"\\Q(.*?)(?:\\E|\Z)", re.DOTALL)


@lru_cache(maxsize=256)
def names_for(regex: str) -> tuple[str, ...]:
    """Return names that a space's regex is likely to match, and neighbours that it may not.

    Args:
        regex: as the space has it, with its slashes.
    """
    body = regex.removeprefix("/")
    body = body.removesuffix("/i") if body.endswith("/i") else body.removesuffix("/")
    found = _usable(_Reader(body).alternatives(0))
    pattern = compiled(regex)
    if pattern is None:
        return found
    # What hangs on two neighbours (a \b between them) is found by putting pieces together anew.
    random = Random(encoded(regex))
    for _ in range(_SHUFFLES):
        if any(pattern.search(name.encode()) for name in found):
            break
        found = _usable(_Reader(body, random).alternatives(0))
    return found


def _usable(names: Iterable[str]) -> tuple[str, ...]:
    """Return names with their variants, as far as a series can be called so."""
    found: dict[str, None] = {}
    for name in names:
        more = ("x" + name, name + "x", name.upper(), name.lower(), f"{name}.0")
        found.update(dict.fromkeys((name, *more) if len(name) <= _LONGEST_VARIED else (name,)))
    return tuple(name for name in found if name and is_utf8(name))


def names_between(regexes: Sequence[str]) -> Iterator[str]:
    """Yield names that several of the regexes may match: one's name followed by another's."""
    heads = [
        [name for name in names_for(regex)[:_MOST] if len(name) <= _LONGEST_VARIED]
        for regex in regexes
    ]
    for one in heads:
        for other in heads:
            if one is not other:
                yield from (head + tail for head in one for tail in other)


class _Reader:
    """Goes through a regex once; each method returns names for what it has read."""

    def __init__(self, text: str, random: Random | None = None) -> None:
        self._text, self._at = text, 0
        self._random = random  # puts pieces together by chance; None: the first with the first

    def alternatives(self, depth: int) -> list[str]:
        found = self._sequence(depth)
        while self._takes("|"):
            found = [*found[: _MOST // 2], *self._sequence(depth)]
        return _few(found)

    def _sequence(self, depth: int) -> list[str]:
        found = [""]
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            found = _joined(found, self._repeated(self._atom(depth)), self._random)
        if self._text[self._at : self._at + 1] == ")" and depth == 0:
            self._at = len(self._text)  # no regex of RE2's
        return found

    def _atom(self, depth: int) -> list[str]:
        text, at = self._text, self._at
        character = text[at]
        if character == "(" and depth < _DEEPEST:
            return self._group(depth)
        if character == "\\":
            return self._escape()
        self._at += 1
        if character in "^$":
            return [""]
        if character == ".":
            return list(_ANY)
        if character == "[" and (match := _CLASS.match(text, at)):
            self._at = match.end()
            return list(_in_class(match[0]))
        return [character]

    def _group(self, depth: int) -> list[str]:
        self._at += 1
        if match := _GROUP.match(self._text, self._at):
            self._at = match.end()
        found = self.alternatives(depth + 1)
        self._takes(")")
        return found

    def _escape(self) -> list[str]:
        text, at = self._text, self._at
        if match := _QUOTED.match(text, at):
            # As single characters: a quantifier behind it is the last one's.
            quoted = "".join(f"\\x{{{ord(character):x}}}" for character in match[1])
            self._text = text[:at] + quoted + text[match.end() :]
            return self._escape() if quoted else [""]
        match = _ESCAPE.match(text, at)
        escaped = match[0] if match else ""
        self._at += len(escaped) or 1
        if not escaped or escaped[1:] in _ASSERTIONS:
            return [""]
        if len(escaped) == 2 and not escaped[1].isalnum():
            return [escaped[1]]
        return list(_in_class(escaped))

    def _repeated(self, found: list[str]) -> list[str]:
        match = _QUANTIFIER.match(self._text, self._at)
        if not match:
            return found
        self._at = match.end()
        sign = match[0][0]
        least = int(match[1]) if sign == "{" else int(sign == "+")
        if sign == "{":
            most = least + 1 if match[2] and not match[3] else int(match[3] or least)
        else:
            most = 1 if sign == "?" else 2
        counts = dict.fromkeys((least, min(least + 1, most), min(least + 2, most)))
        return _few(name * n for n in counts for name in found if len(name) * n <= _LONGEST) or [""]

    def _takes(self, character: str) -> bool:
        if self._text[self._at : self._at + 1] != character:
            return False
        self._at += 1
        return True


@lru_cache(maxsize=256)
def _in_class(source: str) -> tuple[str, ...]:
    """Return characters of a class, of different kinds; RE2 says which are in it."""
    one, runs = compiled(f"/^(?:{source})$/"), compiled(f"/(?:{source})+/")
    if one is None or runs is None:
        return ("",)
    usual = [character for character in _CHARACTERS if one.search(character.encode())][:_USUAL]
    own = [c for c in source if c not in "[]^-\\" and is_utf8(c) and one.search(c.encode())]
    everything, edges = _all_characters(), list[str]()
    for match in islice(runs.finditer(everything), _RUNS):
        start, end = match.span()
        first = everything[start : start + 4].decode("utf-8", "ignore")[:1]
        last = everything[max(end - 4, start) : end].decode("utf-8", "ignore")[-1:]
        if first and last:
            edges += [chr((ord(first) + ord(last)) // 2), first, last]
    found = dict.fromkeys([*usual, *own[:_OWN], *edges])
    return tuple(c for c in found if is_utf8(c) and one.search(c.encode())) or ("",)


@lru_cache(maxsize=1)
def _all_characters() -> bytes:
    """Return every character there is, in the order of their numbers, in UTF-8 (4 MiB)."""
    # As UTF-32 first: a million strings of one character each would be 130 MB for a moment.
    numbers = array("I", range(0xD800)) + array("I", range(0xE000, 0x110000))
    return numbers.tobytes().decode("utf-32").encode()


def _joined(heads: list[str], tails: list[str], random: Random | None) -> list[str]:
    """Return heads followed by tails: each head and each tail at least once, within bounds."""
    if random is not None:
        heads, tails = random.sample(heads, len(heads)), random.sample(tails, len(tails))
    rounds = range(max(len(heads), len(tails)))
    return _few(heads[i % len(heads)] + tails[i % len(tails)] for i in rounds) or heads


def _few(names: Iterable[str]) -> list[str]:
    unique = dict.fromkeys(name for name in names if len(name) <= _LONGEST)
    return list(islice(unique, _MOST))
