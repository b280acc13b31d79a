"""What a proof tells of an old shard, to the letter: receipts, listings and causes rest on it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures import Node, Row, read
from fixtures.encode import field_value, value_key
from fixtures.raft import Space
from shardtool.influxdb.engines import EngineError, Stream
from shardtool.proof import compare, storage
from shardtool.proof.basis import Basis
from shardtool.proof.columns import Name
from shardtool.proof.compare import Suffix, Wanted
from shardtool.proof.prove import Asker, Finding, Loss, Lost, Question, _sizes, prove
from shardtool.proof.storage import Cover, LocalShard, NewStorage, Place
from tests.real.prove.world import (
    NOW,
    START,
    T0,
    Quiet,
    causes,
    proven,
    question,
    rows,
    setting,
)

SECOND = 1_000_000
NAME = Name("test", "s", "n")


class Told(Quiet):
    """Watches, and remembers."""

    def __init__(self) -> None:
        self.losses: list[object] = []
        self.ends: list[str] = []
        self.steps: list[tuple[object, ...]] = []

    def progress(self, *told: object) -> None:
        self.steps.append(told)

    def lost(self, lost: object) -> None:
        self.losses.append(lost)

    def column_ends(self, cause: str) -> None:
        self.ends.append(cause)


class Answers:
    """A cluster that has these values, under this name."""

    def __init__(self, *suffixes: Suffix, name: Name = NAME) -> None:
        self.suffixes = set(suffixes)
        self.name = name

    def strike_out(self, name: Name, wanted: Wanted) -> int:
        found = self.suffixes & wanted.missing.keys() if name == self.name else set()
        for one in found:
            del wanted.missing[one]
        wanted.unanswered.update(list(wanted.missing)[:1])
        return len(found)


def listed(node: Node, *, marked_us: int | None = NOW) -> tuple[Finding, Told]:
    """Prove old shard 7, with each loss told."""
    return _proven(node, Question(node.old[7].path, marked_us, NOW, "", listing=True))


def asked(node: Node, asker: Asker) -> Finding:
    """Prove old shard 7 with a cluster that can be asked."""
    return _proven(node, question(node, 7), asker)[0]


def _proven(node: Node, one: Question, asker: Asker | None = None) -> tuple[Finding, Told]:
    of, told = setting(node), Told()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        new = stack.enter_context(NewStorage(of.catalogue, of.local, scratch))
        return prove(one, of.catalogue, new, scratch, told, asker), told


def suffix(row: Row) -> Suffix:
    return value_key(b"", row.time_us, row.sequence)[-16:]


def sha(parts: Iterable[bytes]) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "BLOCK", 4)


# -- digests, and what a receipt keeps --


@pytest.mark.usefixtures("small_blocks")
def test_the_digest_is_over_all_values(node: Node) -> None:
    node.old_shard(7, rows=[*rows(10), *rows(3, column="m", value="x")], start=START)
    keys, values = zip(*read.values(node.old[7].path), strict=True)
    lengths = [len(value).to_bytes(4, "little") for value in values]
    expected = sha([sha(keys), sha(lengths), sha(values)]).hex()
    assert proven(node, 7).digest == expected


@pytest.mark.usefixtures("small_blocks")
def test_the_digest_of_losses_is_over_their_keys_and_what_is_there_instead(node: Node) -> None:
    node.old_shard(7, rows=rows(10), start=START)
    node.mark(7)
    other = [row._replace(value=9) for row in rows(2, first=7)]
    node.write_new([*rows(7), *other])
    keys = [key for key, _ in read.values(node.old[7].path)]
    there = field_value(9)
    different = [part for key in keys[7:9] for part in (key, len(there).to_bytes(4), there)]
    found = proven(node, 7)
    assert (found.missing, found.different, found.lost) == (1, 2, 3)
    assert found.losses_digest == sha([sha(keys[7:]), sha(different)]).hex()


@pytest.mark.usefixtures("small_blocks")
def test_a_receipt_rests_on_each_column_and_shard_in_which_anything_was_found(node: Node) -> None:
    node.old_shard(7, rows=[*rows(10), *rows(2, column="m"), *rows(2, column="o")], start=START)
    node.new_shard(20, rows=rows(10), start=START)
    node.new_shard(21, rows=rows(2, column="m"), start=START)
    node.new_shard(22, rows=rows(1, column="o", first=90), start=START)
    node.mark(7)
    of, found = setting(node), proven(node, 7)
    basis = Basis(of.catalogue)
    for column in ("n", "m"):
        basis.add_column(of.catalogue.ids["test"]["s"][column], Name("test", "s", column))
    for shard in found.new_states:
        basis.add_shard(shard)
    assert found.new_states.keys() == {"00020", "00021"}
    assert (found.ids, found.basis) == (basis.ids(), basis.hexdigest())


# -- counting --


@pytest.mark.usefixtures("small_blocks")
def test_a_column_of_many_pieces_is_counted_as_one(node: Node) -> None:
    node.old_shard(7, rows=rows(10), start=START)
    node.mark(7)
    other = [row._replace(value=9) for row in rows(10)[3:10:3]]
    node.write_new([*rows(10)[:9:3], *other])
    found = proven(node, 7)
    at = (T0 + SECOND, T0 + 9 * SECOND)
    assert found.losses == (Loss(NAME, 10, 6, 3, "unknown", *at),)
    assert (found.asked, found.elsewhere, found.unasked) == (0, False, False)


@pytest.mark.usefixtures("small_blocks")
def test_nothing_came_of_a_column_of_many_pieces(node: Node) -> None:
    node.old_shard(7, rows=rows(10), start=START)
    node.mark(7)
    node.write_new(rows(1, first=90))
    assert causes(proven(node, 7)) == {"not-migrated": 10}


def test_where_all_are_different_something_came(node: Node) -> None:
    node.old_shard(7, rows=rows(3), start=START)
    node.mark(7)
    node.write_new(rows(3, value=2))
    assert causes(proven(node, 7)) == {"unknown": 3}


def test_values_before_and_after_the_marker_have_their_own_causes(node: Node) -> None:
    node.old_shard(7, rows=rows(6), start=START)
    node.write_new(rows(1, first=90))
    found, told = listed(node, marked_us=T0 + 2 * SECOND)
    assert causes(found) == {"not-migrated": 3, "future": 3}
    assert [one.cause for one in told.losses if isinstance(one, Lost)] == [
        *[""] * 3,
        *["future"] * 3,
    ]


def test_another_value_after_the_marker_is_different_and_of_the_future(node: Node) -> None:
    node.old_shard(7, rows=rows(3), start=START)
    node.write_new([*rows(2, value=2), *rows(1, first=2)])
    found, _ = listed(node, marked_us=T0 - 1)
    assert (found.missing, found.different, causes(found)) == (0, 2, {"future": 2})


def test_a_column_of_two_names_is_looked_for_where_either_series_belongs(tmp_path: Path) -> None:
    spaces = (Space("rest", "/.*/", 7), Space("tilde", "/^a~b$/", 1))
    node = Node(tmp_path / "data", version="0.8", phantoms=False, spaces=spaces)
    day = 86_400 * SECOND
    first = [Row("test", "a~b", "c", T0 + n * day, 1, n) for n in range(3)]
    second = [Row("test", "a", "b~c", T0 + 9 + n * day, 1, n) for n in range(3)]
    node.old_shard(7, rows=[*first, *second], start=START)
    node.mark(7)
    node.write_new([*first[:2], *second])
    found = proven(node, 7)
    assert (found.values, found.missing, len(found.new_states)) == (6, 1, 3)


# -- listing --


@pytest.mark.usefixtures("small_blocks")
def test_each_loss_is_told_with_all_that_is_known_of_it(node: Node) -> None:
    node.old_shard(7, rows=rows(4), start=START)
    node.mark(7)
    node.write_new([*rows(2), *rows(1, first=2, value=2)])
    ((key, _),) = list(read.values(node.old[7].path))[:1]
    _, told = listed(node)
    two, three = (suffix(row) for row in rows(2, first=2))
    stored, there = field_value(1), field_value(2)
    assert told.losses == [
        Lost(NAME, two, stored, there, "", NAME, column_id=key[:8]),
        Lost(NAME, three, stored, None, "", NAME, column_id=key[:8]),
    ]
    assert told.ends == ["unknown"]


def test_what_was_dropped_is_told_as_unwanted(node: Node) -> None:
    node.old_shard(7, rows=rows(1), start=START)
    node.migrate(7)
    node.drop_series("test", "s")
    _, told = listed(node)
    assert [(one.cause, one.unwanted) for one in told.losses if isinstance(one, Lost)] == [
        ("dropped", "dropped")
    ]


@pytest.mark.usefixtures("small_blocks")
def test_each_value_that_lies_differently_in_a_space_not_asked_is_told_as_hidden(
    node: Node,
) -> None:
    node.old_shard(7, rows=rows(10), start=START)
    node.mark(7)
    node.new_shard(20, rows=[*rows(5), *rows(4, first=5, value=2)], start=START, space="long_term")
    node.write_new(rows(1, first=90))
    found, told = listed(node)
    assert (found.missing, found.different, found.unasked) == (10, 0, True)
    hidden = [one.suffix for one in told.losses if isinstance(one, Lost) and one.is_hidden]
    assert hidden == [suffix(row) for row in rows(4, first=5)]
    assert found.new_states == {}
    assert proven(node, 7).unasked  # nor need anybody list them


def test_tables_count_as_read_from_their_last_key_on() -> None:
    class Tables:
        path = Path("/shard_db/00007")

        def tables(self) -> list[tuple[bytes, int]]:
            return [(b"b", 10), (b"d", 200), (b"f", 3000)]

        def pairs(self, start: bytes) -> Stream:
            raise AssertionError("nothing is read")

        def value(self, key: bytes) -> bytes | None:
            raise AssertionError("nothing is read")

    done = _sizes(Tables())
    assert [done(key) for key in (b"a", b"b", b"c", b"e", b"f", b"g")] == [
        0,
        10,
        10,
        210,
        3210,
        3210,
    ]


@pytest.mark.parametrize("name", ["000099.sst", "000099.ldb"])
def test_a_table_that_the_old_shard_does_not_name_is_an_error(name: str, node: Node) -> None:
    node.old_shard(7, rows=rows(1), start=START)
    (node.old[7].path / name).write_bytes(b"left over")
    with pytest.raises(EngineError, match=name):
        proven(node, 7)


# -- other servers --


@pytest.fixture
def far(tmp_path: Path) -> Node:
    """A node whose column s.n has its new shard on another server."""
    node = Node(tmp_path / "data", version="0.8", phantoms=False, servers=2, server_id=2)
    node.old_shard(7, rows=rows(10), start=START)
    node.mark(7)
    node.write_new(rows(10))
    assert not node.new
    return node


def test_what_the_cluster_answers_is_not_lost(far: Node) -> None:
    found = asked(far, Answers(*map(suffix, rows(10))))
    assert (found.asked, found.missing, found.elsewhere) == (10, 0, False)
    assert found.losses == ()


@pytest.mark.usefixtures("small_blocks")
def test_one_piece_without_an_answer_is_enough_to_be_elsewhere(far: Node) -> None:
    found = asked(far, Answers(*map(suffix, rows(9, first=1))))
    assert (found.asked, found.missing, found.elsewhere) == (9, 1, True)
    assert found.losses[0].first_us == T0


def test_an_answer_under_another_name_is_none(far: Node) -> None:
    found = asked(far, Answers(*map(suffix, rows(10)), name=Name("test", "t", "n")))
    assert (found.asked, found.missing, found.elsewhere) == (0, 10, True)


def test_what_could_not_be_asked_for_is_told(far: Node) -> None:
    one = Question(far.old[7].path, NOW, NOW, "", listing=True)
    _, told = _proven(far, one, Answers())
    unanswered = [one.suffix for one in told.losses if isinstance(one, Lost) and one.is_unanswered]
    assert unanswered == [suffix(rows(1)[0])]


def test_where_all_shards_of_a_time_are_here_nobody_is_asked(node: Node) -> None:
    node.old_shard(7, rows=rows(3), start=START)
    node.migrate(7, lose=1)
    found = asked(node, Answers(*map(suffix, rows(3))))
    assert (found.asked, found.missing, found.elsewhere) == (0, 1, False)


# -- the new storage --


@pytest.mark.usefixtures("small_blocks")
def test_each_of_the_shards_of_a_time_is_looked_into(node: Node) -> None:
    node.old_shard(7, rows=rows(12), start=START)
    node.mark(7)
    node.new_shard(20, rows=rows(4, first=4), start=START)
    node.new_shard(21, rows=[*rows(4), *rows(4, first=8)], start=START)
    found = proven(node, 7)
    assert (found.missing, set(found.new_states)) == (0, {"00020", "00021"})


@pytest.mark.usefixtures("small_blocks")
def test_what_several_shards_have_is_taken_from_the_one_that_had_the_last_piece(
    node: Node,
) -> None:
    node.old_shard(7, rows=rows(12), start=START)
    node.mark(7)
    node.new_shard(20, rows=rows(8, first=4), start=START)
    node.new_shard(21, rows=rows(12), start=START)
    found = proven(node, 7)
    assert (found.missing, set(found.new_states)) == (0, {"00021"})


def test_a_series_has_its_place_in_the_space_that_takes_it_or_in_none(
    node: Node, tmp_path: Path
) -> None:
    node.new_shard(20, rows=rows(1), start=START)
    with NewStorage(setting(node).catalogue, {}, tmp_path) as new:
        assert new.place_of(NAME) == Place("test", "short_term")
        assert new.place_of(Name("test", "Capital", "n")) == Place("test", "long_term")
        assert new.place_of(Name("nowhere", "s", "n")) == Place("nowhere", None)


@pytest.mark.parametrize(("server", "missing"), [(1, 0), (2, 3)])
def test_a_shard_counts_on_the_server_that_owns_it(
    server: int, missing: int, tmp_path: Path
) -> None:
    node = Node(tmp_path / "data", version="0.8", phantoms=False, servers=2, server_id=server)
    node.old_shard(7, rows=rows(3), start=START)
    node.migrate(7)
    found = proven(node, 7)
    assert (found.missing, found.elsewhere) == (missing, bool(missing))


def test_any_shard_here_or_elsewhere_covers_but_none_that_is_not_asked() -> None:
    assert Cover(("00020",)).is_any
    assert Cover(elsewhere=True).is_any
    assert not Cover(unasked=("00020",)).is_any
    assert not Cover().is_any


def test_the_shard_that_was_not_needed_for_longest_is_closed(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_MOST_OPEN", 2)
    for number in (20, 21, 22):
        node.new_shard(number, rows=rows(1), start=START)
    of = setting(node)
    (scratch := tmp_path / "scratch").mkdir()
    with NewStorage(of.catalogue, of.local, scratch) as new:
        first, second = new.cursor("00020"), new.cursor("00021")
        assert new.cursor("00020") is first
        new.cursor("00022")
        assert len(list(scratch.iterdir())) == 2
        assert new.cursor("00020") is first
        assert new.cursor("00021") is not second
    assert list(scratch.iterdir()) == []
    assert new.cursor("00020") is not first  # what was closed is not given out again


def test_a_shard_that_cant_be_read_at_all_says_so_before_it_is_opened(
    node: Node, tmp_path: Path
) -> None:
    path = node.new_shard(20, rows=rows(1), start=START)
    local = {"00020": LocalShard(path, "leveldb", error="no type file")}
    with NewStorage(setting(node).catalogue, local, tmp_path) as new:
        with pytest.raises(EngineError, match="00020: can't be read: no type file"):
            new.cursor("00020")
        assert new.states == {}
