"""The gob decoder on what Go itself wrote, on an encoder of our own, and on garbage."""

from __future__ import annotations

import time
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import gob as encoder
from fixtures.encode import microseconds
from shardtool.influxdb.gob import GobError, decode, time_us

VECTORS = Path(__file__).parents[1] / "vectors" / "gob"


def vector(name: str) -> Any:
    return decode((VECTORS / f"{name}.gob").read_bytes())


# -- what Go wrote --


def test_numbers_keep_sign_and_size() -> None:
    zoo = vector("zoo")
    assert (zoo["Negative"], zoo["Least"], zoo["Most"]) == (-1, -(1 << 63), (1 << 63) - 1)
    assert (zoo["Unsigned"], zoo["Small"], zoo["Last"]) == ((1 << 64) - 1, -128, 255)
    assert (zoo["Half"], zoo["Minus"], zoo["Floats"]) == (0.5, -1e300, [0.0, -0.25])
    assert zoo["Third"] == pytest.approx(1 / 3, abs=1e-7)
    assert zoo["Complex"] == 1 - 2j
    assert zoo["True"] is True


def test_fields_that_are_zero_are_absent() -> None:
    zoo = vector("zoo")
    assert not {"False", "NoMap"} & set(zoo)
    assert zoo["EmptyMap"] == {}
    assert zoo["Empty"] == {}


def test_text_and_bytes_are_told_apart_and_none_is_lost() -> None:
    zoo = vector("zoo")
    assert zoo["Wide"] == "ünïcöde ☃ 𝄞"
    assert zoo["NotUtf8"].encode("utf-8", "surrogateescape") == b"a\xff\xfeb"
    assert zoo["Bytes"] == b"\x00\x01\xff"


def test_containers_nest() -> None:
    zoo = vector("zoo")
    assert zoo["Array"] == [-1, 0, 1]
    assert zoo["ByteArray"] == [1, 0, 0, 255]
    assert zoo["Nested"] == {"a": {-5: {True: "yes", False: "no"}}, "b": {}}
    assert zoo["Structs"] == [{}, {"Name": "x", "Split": 2}]
    assert zoo["Slices"] == [[[1], []], []]
    assert (zoo["Pointer"], zoo["Pointers"]) == (-7, "pointed at")


def test_a_recursive_type_is_decoded() -> None:
    leaf = {"Name": "leaf"}
    children = [{"Name": "left"}, {"Name": "right", "Children": [leaf]}]
    assert vector("zoo")["Tree"] == {"Name": "root", "Children": children}


def test_types_that_encode_themselves_stay_bytes() -> None:
    zoo = vector("zoo")
    assert (zoo["Marshals"], zoo["Encodes"]) == (b"binary:a", b"gob:b")


def test_times_in_every_zone_are_moments() -> None:
    zoo = vector("zoo")
    assert time_us(zoo["Utc"]) == 1_412_266_800_123_456
    assert time_us(zoo["East"]) == 1_412_293_800_000_000
    lmt = timezone(timedelta(minutes=53, seconds=28))  # version 2: an offset with seconds
    assert zoo["Seconds"][0] == 2
    assert time_us(zoo["Seconds"]) == microseconds(datetime(1890, 1, 1, tzinfo=lmt))
    assert time_us(zoo["Ancient"]) == microseconds(datetime(1677, 1, 1, 0, 0, 0, 1, UTC))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("string", "a string alone"),
        ("int", -70000),
        ("map", {"a": 1, "b": -1}),
        ("array", ["x", "y"]),
        ("saved-08-empty", {"MetaStore": {}}),
    ],
)
def test_a_value_alone_is_decoded(name: str, expected: object) -> None:
    assert vector(name) == expected


def test_an_interface_is_refused() -> None:
    with pytest.raises(GobError, match="interface"):
        vector("interface")


def test_a_second_value_is_refused() -> None:
    with pytest.raises(GobError, match=r"at offset 7: expected the end, found 7 bytes more"):
        vector("two-values")


def test_the_configuration_of_each_version_has_its_own_shape() -> None:
    old, new = vector("saved-07"), vector("saved-08")
    assert old["LongTermShards"][0]["Id"] == 300
    assert "MetaStore" not in old
    assert new["MetaStore"]["StringsToIds"]["test"] == {
        "cpu": {"value": 1, "host": 300},
        "gone": {},
    }
    assert [space["Name"] for space in new["DatabaseShardSpaces"]["test"]] == [
        "long_term",
        "short_term",
    ]


# -- what our own encoder wrote --

VALUE = encoder.Struct(
    "Value",
    (
        ("Number", encoder.INT),
        ("Big", encoder.UINT),
        ("Fraction", encoder.FLOAT),
        ("Yes", encoder.BOOL),
        ("Text", encoder.STRING),
        ("Raw", encoder.BYTES),
        ("Pair", encoder.Array(encoder.INT, 2)),
        ("Ids", encoder.Map(encoder.STRING, encoder.Map(encoder.STRING, encoder.UINT))),
        ("List", encoder.Slice(encoder.Struct("Inner", (("At", encoder.Time()),)))),
    ),
)
UINT64 = st.integers(0, (1 << 64) - 1)
MOMENTS = st.datetimes(timezones=st.just(UTC))
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "Number": st.integers(-(1 << 63), (1 << 63) - 1).filter(bool),
        "Big": UINT64.filter(bool),
        "Fraction": st.floats(allow_nan=False).filter(bool),
        "Yes": st.just(True),
        "Text": st.text(min_size=1),
        "Raw": st.binary(min_size=1),
        "Pair": st.lists(st.integers(-9, 9), min_size=2, max_size=2),
        "Ids": st.dictionaries(st.text(), st.dictionaries(st.text(), UINT64, max_size=3)),
        "List": st.lists(st.fixed_dictionaries({"At": MOMENTS}), min_size=1, max_size=3),
    },
)


@given(VALUES)
def test_what_was_encoded_comes_back(value: dict[str, Any]) -> None:
    found = decode(encoder.encode(VALUE, value))
    assert isinstance(found, dict)
    if "List" in value:
        times = [time_us(one["At"]) for one in found.pop("List")]
        assert times == [microseconds(one["At"]) for one in value["List"]]
    assert found == {name: one for name, one in value.items() if name != "List"}


@given(MOMENTS, st.integers(-14 * 60, 14 * 60))
def test_a_time_is_the_same_moment_in_every_zone(moment: datetime, minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    if not 1 < moment.year < 9999:
        moment = moment.replace(year=2014, day=1)
    assert time_us(encoder.time(moment.astimezone(zone))) == microseconds(moment)


# -- garbage --

WHOLE = [path.read_bytes() for path in sorted(VECTORS.glob("*.gob"))]


def decodes_or_says_why(data: bytes) -> None:
    try:
        decode(data)
    except GobError as error:
        assert 0 <= error.offset <= len(data)
        assert f"at offset {error.offset}: " in str(error)


@pytest.mark.parametrize("name", ["saved-08", "zoo"])
def test_a_stream_cut_anywhere_is_refused(name: str) -> None:
    data = (VECTORS / f"{name}.gob").read_bytes()
    for end in range(len(data)):
        with pytest.raises(GobError):
            decode(data[:end])


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_decoded_or_refused(data: bytes) -> None:
    decodes_or_says_why(data)


@given(st.data())
def test_a_changed_stream_is_decoded_or_refused(data: st.DataObject) -> None:
    changed = bytearray(data.draw(st.sampled_from(WHOLE)))
    places = st.integers(0, len(changed) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(places)] = data.draw(st.integers(0, 255))
    decodes_or_says_why(bytes(changed))


@pytest.mark.slow
def test_every_changed_byte_is_decoded_or_refused() -> None:
    whole = (VECTORS / "saved-08.gob").read_bytes()
    for place in range(len(whole)):
        for byte in (0, 1, 0x7F, 0x80, 0xF8, 0xFF):
            decodes_or_says_why(whole[:place] + bytes([byte]) + whole[place + 1 :])


@given(st.binary(max_size=20))
def test_other_bytes_are_no_time(data: bytes) -> None:
    try:
        assert isinstance(time_us(data), int)
    except GobError:
        return
    assert len(data) in (15, 16)


def recursive_list() -> bytes:
    """A type that is a list of itself: type 65 = []65."""
    wire = encoder.signed(-65) + bytes([2, 1, 2]) + encoder.signed(65) + b"\0"
    body = wire + bytes([1]) + encoder.signed(65) + b"\0\0"
    return encoder.unsigned(len(body)) + body


def test_values_nested_without_end_are_refused() -> None:
    body = encoder.signed(65) + b"\0" + b"\1" * 100_000
    with pytest.raises(GobError, match="nested up to 64 deep"):
        decode(recursive_list() + encoder.unsigned(len(body)) + body)


def test_64_values_within_each_other_are_decoded() -> None:
    body = encoder.signed(65) + b"\0" + b"\1" * 63 + b"\0"
    found = decode(recursive_list() + encoder.unsigned(len(body)) + body)
    for _ in range(63):
        assert isinstance(found, list)
        (found,) = found
    assert found == []


@pytest.mark.parametrize("byte", [0x80, 0xF7])
def test_a_number_of_more_than_8_bytes_is_refused(byte: int) -> None:
    body = encoder.signed(3) + b"\0" + bytes([byte]) + bytes(200)
    with pytest.raises(GobError, match=f"up to 8 bytes, found one of {256 - byte}"):
        decode(encoder.unsigned(len(body)) + body)


def test_a_type_that_stands_for_itself_is_decoded_as_deep_as_it_is() -> None:
    body = encoder.signed(65) + b"\0" + b"\2\1\0\0"
    assert decode(recursive_list() + encoder.unsigned(len(body)) + body) == [[[]], []]


@pytest.mark.parametrize("claimed", [1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_claim_of_many_elements_takes_neither_time_nor_memory(claimed: int) -> None:
    body = encoder.signed(65) + b"\0" + encoder.unsigned(claimed) + b"\0" * 50
    data = recursive_list() + encoder.unsigned(len(body)) + body
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(GobError, match="claimed"):
        decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - began < 1
    assert peak < 1 << 20
