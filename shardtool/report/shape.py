"""Read JSON that anyone may have written into dataclasses, by their own annotations.

Knows nothing of any document: each field must be there and of its type, numbers are counts, and
the first thing that is not so is told with its place. Fields that no class knows are passed over,
so that a later version may add some.
"""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_MOST = 1 << 63


class ShapeError(ValueError):
    """A document is not as expected; the message says where, what was expected and found."""


def shaped(kind: type[T], found: object, where: str = "") -> T:
    """Return the JSON value `found` as a dataclass.

    Args:
        kind: the dataclass; its fields are dataclasses, tuples, Literals, dicts, texts, booleans,
            whole numbers from 0 to 2^63 - 1, or one of these and None.
        found: what json.loads returned.
        where: the place in the document, for the message.

    Raises:
        ShapeError: it is none.
    """
    result: T = _taken(kind, found, where)
    return result


def _taken(kind: Any, found: Any, where: str) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return found
    if origin in (Union, types.UnionType):
        (inner,) = (one for one in get_args(kind) if one is not types.NoneType)
        return None if found is None else _taken(inner, found, where)
    if origin is Literal:
        if not isinstance(found, str) or found not in get_args(kind):
            raise _unexpected(where, f"one of {', '.join(map(repr, get_args(kind)))}", found)
        return found
    if origin is tuple:
        inner = get_args(kind)[0]
        items = _of(list, "a list", found, where)
        return tuple(_taken(inner, one, f"{where}[{place}]") for place, one in enumerate(items))
    if origin is dict:
        inner = get_args(kind)[1]
        items = _of(dict, "an object", found, where)
        return {key: _taken(inner, value, f"{where}[{key!r:.40}]") for key, value in items.items()}
    if is_dataclass(kind):
        return _object(kind, _of(dict, "an object", found, where), where)
    if kind is int:
        number = _of(int, "a whole number", found, where)
        if not 0 <= number < _MOST:
            raise ShapeError(f"{where}: expected a count, found one below 0 or far too large")
        return number
    return _of(kind, {str: "text", bool: "true or false"}[kind], found, where)


def _object(kind: Any, found: dict[str, Any], where: str) -> Any:
    parts = {}
    for name, hint in _hints(kind):
        if name not in found:
            raise ShapeError(f"{where or 'the document'}: expected {name!r}, found none")
        parts[name] = _taken(hint, found[name], f"{where}.{name}" if where else name)
    return kind(**parts)


@cache
def _hints(kind: Any) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(kind)
    return tuple((field.name, hints[field.name]) for field in fields(kind))


def _of(kind: type[Any], words: str, found: Any, where: str) -> Any:
    # type(), for to Python a boolean is a whole number too.
    if type(found) is not kind:
        raise _unexpected(where, words, found)
    return found


def _unexpected(where: str, expected: str, found: object) -> ShapeError:
    kinds = {dict: "an object", list: "a list", type(None): "null"}
    shown = kinds.get(type(found)) or f"{found!r:.40}"
    return ShapeError(f"{where or 'the document'}: expected {expected}, found {shown}")
