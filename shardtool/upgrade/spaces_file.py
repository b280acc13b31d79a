"""A file of shard spaces, TOML or JSON, in the server's own keys: read, all its problems told."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from shardtool.influxdb.model import Space
from shardtool.influxdb.spaces import problems

MOST_BYTES = 1 << 20
_MOST_SPACES = 200
_TEXTS = ("database", "name", "regex", "retentionPolicy", "shardDuration")
_NUMBERS = ("replicationFactor", "split")
_KINDS: dict[str, type] = {**dict.fromkeys(_TEXTS, str), **dict.fromkeys(_NUMBERS, int)}
_EXPECTED = {str: "text in quotes", int: "a whole number"}
# TOML's tables begin with a bracket too, but with a name behind it.
_LOOKS_LIKE_JSON = re.compile(r"\s*(?:\{|\[\s*[{\]])")


@dataclass(frozen=True)
class SpacesFile:
    """What a file says.

    Args:
        spaces: in the file's order; sound if there are no problems.
        problems: what is wrong, a line each that begins with the file's name.
    """

    spaces: tuple[Space, ...]
    problems: tuple[str, ...] = ()

    @classmethod
    def checked(cls, spaces: Sequence[Space]) -> SpacesFile:
        """Return spaces that come from no file, with what is wrong with them."""
        return cls(
            tuple(spaces),
            tuple(f"{space.name}: {wrong}" for space in spaces for wrong in problems(space)),
        )


def read_spaces(name: str, content: bytes, database: str | None) -> SpacesFile:
    """Return the spaces of a file, or all that is wrong with it.

    JSON is a list of spaces, {"spaces": [...]}, one space, or several one after the other as in
    the guide; TOML is a [[spaces]] table each.

    Args:
        name: the file's, for the messages; its ending says which form it has, or its content.
        content: its bytes.
        database: whose spaces they are that say nothing of it; None where each has to say.
    """
    try:
        found = _entries(name, content)
    except ValueError as error:  # _FormError is one, and so are TOML's and JSON's
        return SpacesFile((), (f"{name}: {error}",))
    if not found:
        return SpacesFile((), (f"{name}: expected shard spaces, found none",))
    if len(found) > _MOST_SPACES:
        return SpacesFile(
            (), (f"{name}: expected at most {_MOST_SPACES} spaces, found {len(found)}",)
        )
    spaces, wrong = [], []
    for number, entry in enumerate(found, 1):
        space, troubles = _space(entry, database)
        if space is not None:
            spaces.append(space)
            troubles += problems(space)
        where = f"{name}: {_called(entry) or f'space {number}'}"
        wrong += [f"{where}: {trouble}" for trouble in troubles]
    return SpacesFile(tuple(spaces), tuple(wrong + _doubles(name, spaces)))


def _doubles(name: str, spaces: Sequence[Space]) -> list[str]:
    seen: dict[tuple[str, str], None] = {}
    wrong = []
    for space in spaces:
        key = space.database, space.name
        if key in seen:
            wrong.append(f"{name}: {space.name}: expected once in {space.database}, found again")
        seen[key] = None
    return wrong


class _FormError(ValueError):
    """The file has another form than expected."""


def _entries(name: str, content: bytes) -> list[object]:
    """Return the file's spaces as they stand there. Raises ValueError."""
    if len(content) > MOST_BYTES:
        raise _FormError("expected shard spaces, found over 1 MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _FormError(f"expected UTF-8, found other bytes at offset {error.start}") from None
    ending = name.rpartition(".")[2].lower()
    is_json = ending == "json" or (ending != "toml" and bool(_LOOKS_LIKE_JSON.match(text)))
    read: Callable[[str], list[object]] = _from_json if is_json else _from_toml
    try:
        return read(text)
    except RecursionError:
        raise _FormError("expected shard spaces, found something nested too deep") from None


def _from_toml(text: str) -> list[object]:
    try:
        return _of_document(tomllib.loads(text), single=False)
    except tomllib.TOMLDecodeError as error:
        raise _FormError(f"expected TOML ([[spaces]] tables) or JSON, found: {error}") from None


def _from_json(text: str) -> list[object]:
    decoder = json.JSONDecoder(object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    documents, at = [], 0
    try:
        while (at := at + len(text[at:]) - len(text[at:].lstrip())) < len(text):
            document, at = decoder.raw_decode(text, at)
            documents.append(document)
    except json.JSONDecodeError as error:
        raise _FormError(
            f"expected JSON, found: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    if len(documents) == 1:
        return _of_document(documents[0], single=True)
    return documents


def _of_document(document: object, *, single: bool) -> list[object]:
    if isinstance(document, list):
        return document
    if isinstance(document, dict) and ("spaces" in document or not single):
        spaces, others = document.get("spaces", []), [key for key in document if key != "spaces"]
        if others:
            raise _FormError(f"expected spaces, found {others[0][:40]!r}, which means nothing here")
        if not isinstance(spaces, list):
            raise _FormError("expected spaces to be a list ([[spaces]] in TOML), found no list")
        return spaces
    return [document]


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise _FormError(f"expected each key once, found {double[:40]!r} twice in one object")
    return found


def _no_constant(name: str) -> float:
    raise _FormError(f"expected JSON, found {name}")


def _space(entry: object, database: str | None) -> tuple[Space | None, list[str]]:
    """Return a space, None where its parts are not of the right kinds; and what is wrong so far."""
    if not isinstance(entry, dict):
        return None, ["expected a space with name, regex, retentionPolicy and shardDuration"]
    usual: dict[str, Any] = {"replicationFactor": 1, "split": 1}
    parts = usual | ({} if database is None else {"database": database}) | entry
    wrong = [f"{key[:40]!r} means nothing in a space" for key in entry if key not in _KINDS]
    unsound = []
    for key, kind in _KINDS.items():
        if key not in parts:
            hint = "; say it there or with --database" if key == "database" else ""
            unsound.append(f"{key}: expected {_EXPECTED[kind]}, found none{hint}")
        elif type(parts[key]) is not kind:  # a bool is an int to isinstance
            unsound.append(f"{key}: expected {_EXPECTED[kind]}, found {_shown(parts[key])}")
    if unsound:
        return None, wrong + unsound
    if database is not None and parts["database"] != database:
        wrong.append(f"database: --database says {database!r}, found {parts['database']!r}")
    own, name, regex, retention, duration, replication, split = (parts[key] for key in _KINDS)
    return Space(name, own, regex, retention, duration, replication, split), wrong


def _called(entry: object) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    return name[:40] if isinstance(name, str) else ""


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return str(value).lower() if isinstance(value, bool) else repr(value)[:40]
