"""What is in the trash, and what the journal lets be done with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fixtures import MARKED_AT, Node
from shardtool.datadir.layout import find_layout
from shardtool.disk.durable import READ_DIRECTORY
from shardtool.disk.tree import measure
from shardtool.errors import ShardtoolError
from shardtool.journal import History
from shardtool.prune.trash import (
    Leftover,
    all_leftovers,
    gone_unrecorded,
    leftovers,
    open_trash,
    trash_name,
    trash_of,
)
from tests.conftest import Hold, Mount

RUN = "20261124T175153Z-4711"
NAME = f"00007.{RUN}"


@pytest.fixture
def trash(tmp_path: Path) -> Path:
    """Make a trash with one whole shard in it."""
    shard = Node(tmp_path / "data").old_shard(7, points=2, marked_at=MARKED_AT)
    trash = tmp_path / "data/db/.shardtool/trash"
    trash.mkdir(parents=True)
    shard.rename(trash / NAME)
    return trash


def intent(trash: Path, /, **changed: Any) -> dict[str, Any]:
    """Return the record that a run wrote before it renamed the shard."""
    descriptor = os.open(trash / NAME, READ_DIRECTORY)
    tree = measure(descriptor, fingerprint=True)
    os.close(descriptor)
    record = {"event": "intent", "shard": "00007", "trash": NAME, "inode": tree.inode}
    record["files"] = tree.files
    return {**record, "fingerprint": tree.fingerprint, "changes": tree.changes, **changed}


def renamed(**changed: Any) -> dict[str, Any]:
    """Return the record that a run wrote after it."""
    return {"event": "renamed", "shard": "00007", "trash": NAME, **changed}


def proven(intent: Mapping[str, Any]) -> bool:
    """Say that what an intent was evidence of still holds."""
    return True


def actions(trash: Path, *records: dict[str, Any]) -> dict[str, str]:
    """Return what is to be done with each entry."""
    return {left.name: left.action for left in leftovers(trash, History(records), proven)}


def test_the_name_tells_shard_and_run() -> None:
    assert trash_name("00007", RUN) == NAME


def test_a_missing_trash_is_empty(tmp_path: Path) -> None:
    assert leftovers(tmp_path / "nowhere", History(()), proven) == ()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_trash_that_is_no_directory_holds_nothing_of_ours(kind: str, trash: Path) -> None:
    other = trash.parent / "other"
    if kind == "file":
        other.touch()
    else:
        other.symlink_to(trash)
    assert leftovers(other, History((intent(trash),)), proven) == ()


def test_without_a_journal_nothing_is_touched(trash: Path) -> None:
    (found,) = leftovers(trash, History(()), proven)
    assert (found.name, found.shard, found.action) == (NAME, "", "leave")
    # What it holds is told all the same: it may be a whole shard.
    assert found.files > 0
    assert found.reclaimable_bytes > 0


def test_a_whole_shard_that_is_as_it_was_is_removed(trash: Path) -> None:
    assert actions(trash, intent(trash)) == {NAME: "remove"}


def test_what_is_removed_is_counted(trash: Path) -> None:
    (left,) = leftovers(trash, History((intent(trash),)), proven)
    assert (left.shard, left.files) == ("00007", len(os.listdir(trash / NAME)))
    assert left.reclaimable_bytes > 0


def test_a_whole_shard_that_changed_is_put_back(trash: Path) -> None:
    record = intent(trash)
    (trash / NAME / "999999.ldb").write_bytes(b"values")
    assert actions(trash, record) == {NAME: "put-back"}


def test_a_shard_whose_removal_had_begun_is_removed_whatever_is_left_of_it(trash: Path) -> None:
    record = intent(trash)
    (trash / NAME / "CURRENT").unlink()
    assert actions(trash, record, renamed()) == {NAME: "remove"}


def test_another_directory_under_the_same_name_is_left_alone(trash: Path) -> None:
    assert actions(trash, intent(trash, inode=1), renamed()) == {NAME: "leave"}


@pytest.mark.parametrize("inode", [None, "7", [], {}])
def test_an_intent_that_was_tampered_with_is_no_leave_to_remove(inode: Any, trash: Path) -> None:
    assert actions(trash, intent(trash, inode=inode), renamed()) == {NAME: "leave"}


@pytest.mark.parametrize("files", [None, "7", [], {}])
def test_a_number_of_files_that_was_tampered_with_lets_nothing_go(files: Any, trash: Path) -> None:
    (trash / NAME / "CURRENT").write_text("MANIFEST-000009\n")
    assert actions(trash, intent(trash, files=files) | {"changes": 0}) == {NAME: "put-back"}


def test_the_intent_of_another_run_is_none_for_this(trash: Path) -> None:
    other = f"00007.{RUN}1"
    record = intent(trash, trash=other)
    assert actions(trash, record, renamed(trash=other)) == {NAME: "leave"}


@pytest.mark.parametrize(
    "name",
    [
        "precious",
        "00007",
        "00007.",
        ".00007.run",
        "00007.run/..",
        "0007.run",
        "00007.run.below.x",
        "\x1b[2J",
        "\udcff",
        "00007.r\nun",
        "00007.\u0661",
    ],
)
def test_a_name_that_no_run_gives_is_left_alone(name: str, trash: Path) -> None:
    entry = trash / name.replace("/", "_")
    entry.mkdir()
    record = intent(trash, trash=entry.name, inode=entry.stat().st_ino)
    assert actions(trash, record, renamed(trash=entry.name))[entry.name] == "leave"


@pytest.mark.parametrize("kind", ["file", "link", "fifo"])
def test_what_is_no_directory_is_left_alone(kind: str, trash: Path) -> None:
    entry = trash / f"00008.{RUN}"
    if kind == "file":
        entry.touch()
    elif kind == "link":
        entry.symlink_to(trash / NAME)
    else:
        os.mkfifo(entry)
    record = intent(trash, trash=entry.name, inode=entry.lstat().st_ino)
    assert actions(trash, record, renamed(trash=entry.name))[entry.name] == "leave"


def test_a_directory_that_a_removal_had_lifted_out_is_removed(trash: Path) -> None:
    (trash / f"{NAME}.below.0").mkdir()
    found = actions(trash, intent(trash), renamed())
    assert found == {NAME: "remove", f"{NAME}.below.0": "remove"}


def test_a_lifted_directory_is_never_put_back_as_if_it_were_the_shard(trash: Path) -> None:
    """Its rename record may have been damaged; 0.8 would take the ruins for a shard."""
    (trash / f"{NAME}.below.0").mkdir()
    assert actions(trash, intent(trash))[f"{NAME}.below.0"] != "put-back"


def test_the_ruins_of_a_shard_are_never_put_back(trash: Path) -> None:
    """The rename record is damaged, a file is gone: removal had begun (HAZARDS.md, 12)."""
    record = intent(trash)
    record["files"] = len(os.listdir(trash / NAME))
    for name in ("MIGRATED", "CURRENT"):
        (trash / NAME / name).unlink()
    assert actions(trash, record) != {NAME: "put-back"}


def test_what_ended_as_failed_or_kept_does_not_count_as_begun(trash: Path) -> None:
    """A shard that could not be put back is whole; it goes only if it is as it was."""
    record = intent(trash)
    (trash / NAME / "999999.ldb").write_bytes(b"values")
    assert actions(trash, record, renamed(event="failed")) == {NAME: "put-back"}


def test_the_trash_is_in_shardtools_own_directory(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    layout = find_layout(str(node.path), None, {})
    assert trash_of(layout) == node.db / ".shardtool/trash"


def test_a_link_on_the_same_disk_needs_no_other_trash(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    node.shard_db.rename(tmp_path / "elsewhere")
    node.shard_db.symlink_to(tmp_path / "elsewhere")
    assert trash_of(find_layout(str(node.path), None, {})) == node.db / ".shardtool/trash"


def test_where_no_shard_is_left_the_trash_is_in_its_usual_place(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    layout = find_layout(str(node.path), None, {})
    shutil.rmtree(node.shard_db)
    assert trash_of(layout) == layout.own / "trash"


def test_shards_on_another_disk_have_their_trash_there(tmp_path: Path, mount: Mount) -> None:
    node = Node(tmp_path / "data")
    (tmp_path / "disk").mkdir()
    other = mount(tmp_path / "disk")
    shutil.move(node.shard_db, other / "shard_db")
    node.shard_db.symlink_to(other / "shard_db")
    layout = find_layout(str(node.path), None, {})
    assert trash_of(layout) == other / ".shardtool" / "trash"


def test_a_mount_point_has_no_trash(tmp_path: Path, mount: Mount) -> None:
    node = Node(tmp_path / "data")
    mount(node.shard_db)
    with pytest.raises(ShardtoolError, match="found a mount point"):
        trash_of(find_layout(str(node.path), None, {}))


def test_a_whole_shard_that_somebody_has_open_is_put_back(trash: Path, hold: Hold) -> None:
    meant = intent(trash, files=0)
    hold(trash / NAME / "LOCK", "lock")
    assert actions(trash, meant) == {NAME: "put-back"}


@pytest.mark.parametrize(("more", "action"), [(0, "put-back"), (1, "leave")])
def test_a_changed_shard_goes_back_if_no_file_of_it_is_gone(
    more: int, action: str, trash: Path
) -> None:
    (left,) = leftovers(trash, History((intent(trash),)), proven)
    meant = intent(trash, files=left.files + more, fingerprint="another")
    assert actions(trash, meant) == {NAME: action}


def test_the_trash_is_made_where_it_is_missing(tmp_path: Path) -> None:
    node = Node(tmp_path / "data")
    layout = find_layout(str(node.path), None, {})
    with open_trash(trash_of(layout), layout) as descriptor:
        assert os.path.samefile(f"/proc/self/fd/{descriptor}", node.db / ".shardtool/trash")


def test_the_names_that_lead_to_the_trash_are_on_disk_before_anything_is_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made them may have been killed before they were."""
    layout = find_layout(str(Node(tmp_path / "data").path), None, {})
    trash_of(layout).mkdir(parents=True)
    synced: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    with open_trash(trash_of(layout), layout):
        assert {str(layout.own), str(layout.db)} <= set(synced)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_stands_in_the_place_of_the_trash_is_told(kind: str, tmp_path: Path) -> None:
    layout = find_layout(str(Node(tmp_path / "data").path), None, {})
    layout.own.mkdir()
    if kind == "file":
        trash_of(layout).touch()
    else:
        trash_of(layout).symlink_to(tmp_path)
    with (
        pytest.raises(ShardtoolError, match="expected a directory of shardtool's own"),
        open_trash(trash_of(layout), layout),
    ):
        pass


@pytest.mark.parametrize("records", [(), (renamed(),)])
def test_a_whole_shard_whose_proof_holds_no_more_goes_back(
    records: tuple[dict[str, Any], ...], trash: Path
) -> None:
    history = History((intent(trash, evidence="proof"), *records))
    (left,) = leftovers(trash, history, lambda intent: intent["evidence"] != "proof")
    assert left.action == "put-back"


@pytest.mark.parametrize("change", ["mode-and-back", "linked"])
def test_a_whole_shard_whose_times_alone_have_changed_goes_only_if_its_proof_holds(
    change: str, trash: Path, tmp_path: Path
) -> None:
    history = History((intent(trash, evidence="proof"), renamed()))
    current = trash / NAME / "CURRENT"
    if change == "linked":
        (tmp_path / "link").hardlink_to(current)
        (tmp_path / "link").unlink()
    else:
        mode = current.stat().st_mode
        current.chmod(0o600 if mode & 0o777 != 0o600 else 0o644)
        current.chmod(mode)
    (held,) = leftovers(trash, history, proven)
    (lost,) = leftovers(trash, history, lambda intent: False)
    assert (held.action, lost.action) == ("remove", "put-back")


def test_what_nobody_can_tell_from_a_whole_shard_is_left_where_its_proof_holds_no_more(
    trash: Path,
) -> None:
    history = History((intent(trash), renamed()))
    (trash / NAME / "CURRENT").write_text("MANIFEST-000009\n")
    (held,) = leftovers(trash, history, proven)
    (lost,) = leftovers(trash, history, lambda intent: False)
    assert (held.action, lost.action) == ("remove", "leave")


def test_ruins_are_finished_whatever_became_of_their_proof(trash: Path) -> None:
    meant = intent(trash)
    (trash / NAME / "CURRENT").unlink()
    (left,) = leftovers(trash, History((meant, renamed())), lambda intent: False)
    assert left.action == "remove"


def gone(trash: Path, shard_db: Path, *records: dict[str, Any]) -> list[str]:
    """Return the shards that went and of which the journal does not say so."""
    (trash / NAME).rename(trash.parent / "elsewhere")
    return [left.shard for left in gone_unrecorded(trash, History(records), shard_db)]


def test_a_shard_that_went_right_before_a_kill_is_yet_to_be_recorded(
    trash: Path, tmp_path: Path
) -> None:
    begun = (intent(trash, trash_in=str(trash)), renamed())
    assert gone(trash, tmp_path, *begun) == ["00007"]


@pytest.mark.parametrize("wrong", [{"trash": 7}, {"trash": None}, {"shard": None}, {"shard": []}])
def test_a_record_that_was_tampered_with_hides_none_behind_it(
    wrong: dict[str, Any], trash: Path, tmp_path: Path
) -> None:
    meant = intent(trash, trash_in=str(trash))
    good, bad = (meant, renamed()), (meant | wrong, renamed(**wrong))
    (trash / NAME).rename(tmp_path / "elsewhere")
    found = gone_unrecorded(trash, History((*bad, *good)), tmp_path)
    assert found == (Leftover(NAME, "00007", "remove"),)


@pytest.mark.parametrize("event", ["deleted", "finished", "put-back"])
def test_what_the_journal_has_the_end_of_is_not_recorded_twice(
    event: str, trash: Path, tmp_path: Path
) -> None:
    ended = renamed(event=event)
    assert gone(trash, tmp_path, intent(trash, trash_in=str(trash)), renamed(), ended) == []


def test_a_shard_that_was_moved_back_by_hand_is_not_gone(trash: Path, tmp_path: Path) -> None:
    (tmp_path / "00007").mkdir()
    assert gone(trash, tmp_path, intent(trash, trash_in=str(trash)), renamed()) == []


def test_a_shard_that_went_to_another_trash_is_not_gone(trash: Path, tmp_path: Path) -> None:
    assert gone(trash, tmp_path, intent(trash, trash_in="/elsewhere"), renamed()) == []


def test_what_still_has_a_part_in_the_trash_is_not_gone(trash: Path, tmp_path: Path) -> None:
    meant = intent(trash, trash_in=str(trash))
    (trash / f"{NAME}.below.0").mkdir()
    assert gone(trash, tmp_path, meant, renamed()) == []


def test_it_is_told_whether_the_journal_has_the_rename(trash: Path) -> None:
    meant = intent(trash)
    for records in ((meant,), (meant, renamed())):
        (left,) = leftovers(trash, History(records), proven)
        assert left.recorded == (len(records) == 2)


def test_what_is_left_over_is_in_the_trash_or_gone_from_it(trash: Path, tmp_path: Path) -> None:
    meant, layout = intent(trash), find_layout(str(tmp_path / "data"), None, {})
    history = History((meant, renamed()))
    assert all_leftovers(layout, history, proven) == leftovers(trash, history, proven)
    (trash / NAME).rename(tmp_path / "elsewhere")
    history = History((meant | {"trash_in": str(trash)}, renamed()))
    assert all_leftovers(layout, history, proven) == (Leftover(NAME, "00007", "remove"),)
