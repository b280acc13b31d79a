"""InfluxDB's protobuf messages (FORMATS.md: FieldValue, the raft log's entry, wal/).

The descriptors are built here, at the first use: no protoc, and protobuf is imported only where
something is parsed. Names are bytes, not strings: nothing keeps a client from writing a name
that is not UTF-8.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

Name: TypeAlias = Literal["FieldValue", "LogEntry", "Request", "Series", "Point"]


class _Field(NamedTuple):
    name: str
    number: int
    kind: str
    repeated: bool = False


_MESSAGES: dict[str, tuple[_Field, ...]] = {
    "FieldValue": (
        _Field("string_value", 1, "bytes"),
        _Field("double_value", 3, "double"),
        _Field("bool_value", 4, "bool"),
        _Field("int64_value", 5, "int64"),
        _Field("is_null", 6, "bool"),
    ),
    "LogEntry": (
        _Field("index", 1, "uint64"),
        _Field("term", 2, "uint64"),
        _Field("command_name", 3, "bytes"),
        _Field("command", 4, "bytes"),
    ),
    "Point": (
        _Field("values", 1, "FieldValue", repeated=True),
        _Field("timestamp", 2, "int64"),
        _Field("sequence_number", 3, "uint64"),
    ),
    "Series": (
        _Field("points", 1, "Point", repeated=True),
        _Field("name", 2, "bytes"),
        _Field("fields", 3, "bytes", repeated=True),
        _Field("field_ids", 4, "uint64", repeated=True),
    ),
    "Request": (
        _Field("id", 1, "uint32"),
        _Field("type", 2, "int32"),
        _Field("database", 3, "bytes"),
        _Field("multi_series", 4, "Series", repeated=True),
        _Field("sequence_number", 5, "uint64"),
        _Field("shard_id", 6, "uint32"),
        _Field("query", 7, "bytes"),
        _Field("user_name", 8, "bytes"),
        _Field("request_number", 9, "uint32"),
    ),
}


class MessageError(ValueError):
    """These bytes are no such message."""


def parse(name: Name, data: bytes) -> Any:
    """Parse a message.

    Args:
        name: which one.
        data: exactly its bytes.

    Returns:
        protobuf's own object; what was not sent is its field's default, HasField tells.

    Raises:
        MessageError: protobuf can't parse it.
    """
    from google.protobuf.message import DecodeError

    message = message_class(name)()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise MessageError(f"expected a {name}, found {data[:40]!r}") from None
    return message


def text(name: bytes) -> str:
    """Return a name as text; bytes that are not UTF-8 become surrogates, so none is lost."""
    return name.decode("utf-8", "surrogateescape")


def value_of(message: Any) -> str | bool | int | float | None:
    """Return what a parsed FieldValue holds; None for a null or for nothing at all."""
    if message.HasField("string_value"):
        return text(message.string_value)
    for field in ("double_value", "bool_value", "int64_value"):
        if message.HasField(field):
            found: bool | int | float = getattr(message, field)
            return found
    return None


def stored(value: str | bool | int | float) -> bytes:
    """Return a value as the FieldValue that a server stores."""
    kinds = {str: "string_value", bool: "bool_value", int: "int64_value", float: "double_value"}
    held = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    message = message_class("FieldValue")(**{kinds[type(value)]: held})
    found: bytes = message.SerializeToString()
    return found


def message_class(name: Name) -> Any:
    """Return protobuf's class for a message, to parse or to build one."""
    return _classes()[name]


@lru_cache(maxsize=1)
def _classes() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="shardtool/influxdb.proto", package="shardtool.influxdb", syntax="proto2"
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields:
            label = kinds.LABEL_REPEATED if field.repeated else kinds.LABEL_OPTIONAL
            made = message.field.add(name=field.name, number=field.number, label=label)
            if field.kind in _MESSAGES:
                made.type = kinds.TYPE_MESSAGE
                made.type_name = f".{file.package}.{field.kind}"
            else:
                made.type = getattr(kinds, f"TYPE_{field.kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))
        for name in _MESSAGES
    }
