"""Names that a regex matches, made up from the regex: what is tried to compare two of them. Pure.

A small reader of RE2's syntax that gives a few strings for each piece. It claims nothing: whoever
uses the names asks RE2 which regex matches which, so what is misread here only makes a poorer
sample.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from shardtool.influxdb.regex import compiled

_MOST = 8  # names that a piece of a regex stands for
_LONGEST = 2000  # characters of a name
_DEEPEST = 50
# Tried against each class: a few of every kind that names are made of.
_CHARACTERS = 'aZ0_.-xmAMz59 ~:/|"\\é\u042f\u4e2d\n'
_ANY = "aZ0_."
_ASSERTIONS = "AzbB"
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_QUANTIFIER = re.compile(r"(?:[*+?]|\{(\d{1,4})(,?)(\d{0,4})\})\??")
_GROUP = re.compile(r"\?(?:P?<\w*>|[imsU-]*(:|(?=\))))")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]", re.DOTALL)
_ESCAPED_CLASS = re.compile(r"\\(?:[dDsSwW]|[pP](?:\{\^?\w+\}|\w))")
_HEX = re.compile(r"\\x(?:\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{2}))")
_QUOTED = re.compile(r"\\Q(.*?)(?:\\E|\Z)", re.DOTALL)


def names_for(regex: str) -> list[str]:
    """Return names that a space's regex is likely to match, and neighbours that it may not.

    Args:
        regex: as the space has it, with its slashes.
    """
    body = regex.removeprefix("/")
    body = body.removesuffix("/i") if body.endswith("/i") else body.removesuffix("/")
    found: dict[str, None] = {}
    for name in _Reader(body).alternatives(0):
        found.update(
            dict.fromkeys((name, "x" + name, name + "x", name.upper(), name.lower(), f"{name}.0"))
        )
    return [name for name in found if name and len(name) <= _LONGEST and _is_utf8(name)]


def names_between(regexes: Sequence[str]) -> Iterator[str]:
    """Yield names that several of the regexes may match: one's name followed by another's."""
    heads = [names_for(regex)[:_MOST] for regex in regexes]
    for one in heads:
        for other in heads:
            if one is not other:
                yield from (head + tail for head in one for tail in other)


class _Reader:
    """Goes through a regex once; each method returns names for what it has read."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def alternatives(self, depth: int) -> list[str]:
        found = self._sequence(depth)
        while self._takes("|"):
            found = [*found[: _MOST // 2], *self._sequence(depth)]
        return _few(found)

    def _sequence(self, depth: int) -> list[str]:
        found = [""]
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            found = _joined(found, self._repeated(self._atom(depth)))
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
            return _in_class(match[0])
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
        if match := _HEX.match(text, at):
            self._at = match.end()
            code = int(match[1] or match[2], 16)
            return [chr(code)] if code < 0x110000 else [""]
        if match := _ESCAPED_CLASS.match(text, at):
            self._at = match.end()
            return _in_class(match[0])
        escaped = text[at + 1 : at + 2]
        self._at += 2
        return [""] if escaped in _ASSERTIONS else [_CONTROLS.get(escaped, escaped)]

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


def _in_class(source: str) -> list[str]:
    """Return characters of a class, of different kinds; RE2 says which are in it."""
    pattern = compiled(f"/^(?:{source})$/")
    if pattern is None:
        return [""]
    tried = dict.fromkeys([*_CHARACTERS, *source, *_between(source)])
    return _few(c for c in tried if _is_utf8(c) and pattern.search(c.encode())) or [""]


def _between(source: str) -> Iterator[str]:
    """Yield what lies in the middle of each range of a class, and behind its last character."""
    for low, high in re.findall(r"(.)-(.)", source, re.DOTALL):
        yield from (chr((ord(low) + ord(high)) // 2), chr(min(ord(high) + 1, 0x10FFFF)))


def _joined(heads: list[str], tails: list[str]) -> list[str]:
    """Return heads followed by tails: each head and each tail at least once, within bounds."""
    rounds = range(max(len(heads), len(tails)))
    return _few(heads[i % len(heads)] + tails[i % len(tails)] for i in rounds) or heads


def _few(names: Iterable[str]) -> list[str]:
    unique = dict.fromkeys(name for name in names if len(name) <= _LONGEST)
    return list(islice(unique, _MOST))


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in name)
