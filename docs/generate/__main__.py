"""`python -m docs.generate`: write anew what is made from the code. No network, no version."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.generate import bash, fish, zsh
from docs.generate.facts import Command, commands, program
from docs.generate.pages import INDEX_BEGIN, UnmarkedError, index_of, part_of, with_part
from docs.generate.troff import man_page

DOCS = Path(__file__).parents[1]


def made() -> dict[Path, str]:
    """Return each file of docs/ that holds something generated, as it has to be.

    Raises:
        UnmarkedError: a page has no place for it. The message names the page.
        OSError: a command has no page.
    """
    found, whole = commands(), program()
    files = {DOCS / "README.md": _page(DOCS / "README.md", index_of(found), INDEX_BEGIN)}
    for command in found:
        page = DOCS / "commands" / f"{command.name}.md"
        files[page] = _page(page, part_of(command))
    for command in (whole, *found):
        name = command.program.replace(" ", "-")
        files[DOCS / "man" / f"{name}.1"] = man_page(command, found)
    return files | _completions(whole, found)


def _completions(whole: Command, found: list[Command]) -> dict[Path, str]:
    scripts = {"shardtool.bash": bash, "_shardtool": zsh, "shardtool.fish": fish}
    return {
        DOCS / "completions" / name: shell.script(whole, found) for name, shell in scripts.items()
    }


def _page(path: Path, part: str, *begin: str) -> str:
    try:
        return with_part(path.read_text(encoding="utf-8"), part, *begin)
    except UnmarkedError as error:
        raise UnmarkedError(f"{path}: {error}") from None


def main() -> int:
    """Write the files that are not as they have to be, and name them; return the exit code."""
    try:
        files = made()
    except (UnmarkedError, OSError) as error:
        sys.stderr.write(f"docs.generate: {error}\n")
        return 1
    for path, text in files.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
