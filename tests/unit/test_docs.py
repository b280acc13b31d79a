"""docs/: what is made from the code is up to date, and no link leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.examples.blocks import examples_of
from docs.examples.world import JOURNEY
from docs.generate.__main__ import DOCS, made
from docs.generate.environment import MEANINGS
from docs.generate.facts import commands, kind_of
from docs.generate.pages import UnmarkedError, with_part
from docs.generate.text import blocks_of
from docs.generate.text import examples_of as examples_of_help
from docs.generate.words import short
from shardtool.cli import app
from shardtool.cli.completing import KINDS

REPOSITORY = DOCS.parent
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_NAMES = [command.name for command in commands()]
_PAGES = sorted(
    [*DOCS.rglob("*.md"), *(REPOSITORY / "deploy").rglob("*.md"), *REPOSITORY.glob("*.md")]
)


def test_what_is_made_from_the_code_is_as_the_code_makes_it() -> None:
    stale = [
        str(path.relative_to(REPOSITORY))
        for path, text in made().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, f"not as the code gives it: {stale}; mend it with: python -m docs.generate"


def test_there_is_no_page_of_a_command_that_is_gone() -> None:
    there = {path.stem for path in (DOCS / "commands").iterdir()}
    assert there == set(_NAMES)
    pages = {path.name for path in (DOCS / "man").iterdir()}
    assert pages == {"shardtool.1", *(f"shardtool-{name}.1" for name in _NAMES)}


@pytest.mark.parametrize("name", _NAMES)
def test_a_page_says_what_a_command_changes_shows_it_and_tells_exit_codes_and_json(
    name: str,
) -> None:
    page = (DOCS / "commands" / f"{name}.md").read_text(encoding="utf-8")
    assert re.search(r"\*\*[Cc]hange", page)
    titles = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert titles == ["Example", "What can go wrong", "Exit codes", "JSON", "Usage"]
    examples = examples_of(page)
    assert any(example.is_json for example in examples)
    assert all(example.output for example in examples if example.is_json)
    assert f"shardtool/{name}/1" in page


def test_each_command_has_its_place_in_the_journey_of_the_examples() -> None:
    assert sorted(JOURNEY) == sorted(_NAMES)


@pytest.mark.parametrize("path", _PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_each_link_leads_to_a_file(path: Path) -> None:
    for link in _LINK.findall(re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)):
        if not re.match(r"[a-z]+:", link):
            target, _, heading = link.partition("#")
            there = path.parent / target if target else path
            assert there.exists(), f"{path}: {link}"
            if heading:
                assert heading in _anchors(there.read_text("utf-8")), f"{path}: {link}"


def _anchors(page: str) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    }


def test_each_variable_of_the_code_is_told_of() -> None:
    code = "".join(path.read_text("utf-8") for path in (REPOSITORY / "shardtool").rglob("*.py"))
    assert set(re.findall(r'"(SHARDTOOL_[A-Z_]+)"', code)) <= set(MEANINGS)


# -- help --


def test_the_programs_help_names_the_man_pages_and_the_documentation() -> None:
    text = app.program_parser().format_help()
    assert "man shardtool" in text
    assert "docs/README.md" in text


@pytest.mark.parametrize("name", ["", *_NAMES])
def test_help_has_an_example_of_the_command(name: str) -> None:
    parser = app.command_parser(name) if name else app.program_parser()
    found = examples_of_help(parser.epilog or "")
    assert any(line.startswith(f"shardtool {name}".strip()) for line in found)


# -- the blocks of a help text --


def test_rows_of_terms_take_their_continuation_and_terms_as_long_as_the_column() -> None:
    text = "causes:\n  name      0.8 skips\n            those\n  long-name no room\n"
    (block,) = blocks_of(text)
    assert block.title == "causes"
    assert block.rows == (("name", "0.8 skips those"), ("long-name", "no room"))


def test_lines_that_are_no_rows_stay_as_they_are() -> None:
    paragraph, block = blocks_of('A file:\nof two lines\n\n  [[spaces]]\n  name = "a"')
    assert paragraph.lines == ("A file:", "of two lines")
    assert (block.kind, block.lines) == ("lines", ("[[spaces]]", 'name = "a"'))


def test_examples_lose_what_is_said_beside_them() -> None:
    text = "examples:\n  shardtool prune --dry-run     what would go\n  shardtool prune --yes"
    assert examples_of_help(text) == ["shardtool prune --dry-run", "shardtool prune --yes"]


def test_a_page_without_a_place_for_its_generated_part_is_refused() -> None:
    with pytest.raises(UnmarkedError, match="expected one line"):
        with_part("# prune\n", "usage")


def test_a_long_help_is_cut_at_a_word_for_a_list() -> None:
    assert short("print the plan; do nothing") == "print the plan"
    assert short("word " * 30) == " ".join(["word"] * 14) + "..."


def test_every_kind_of_name_that_the_scripts_ask_for_is_one_that_the_command_gives() -> None:
    static = {"", "choices", "files", "directories"}
    kinds = {
        argument.kind
        for command in commands()
        for argument in (*command.positionals, *command.options)
    }
    assert kinds - static == set(KINDS)
    assert kind_of(app.command_parser("prune")._actions[1], "prune") == "old-shards"
