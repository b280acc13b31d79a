"""`python -m docs.examples`: run the examples of the pages and write what they print into them."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.examples.blocks import Example, rewritten, same
from docs.examples.world import JOURNEY, NEEDS_SERVER, World, new_world

COMMANDS = Path(__file__).parents[1] / "commands"


def main() -> int:
    """Write the pages whose examples print something else; return the exit code."""
    with new_world((sys.executable, "-m", "shardtool")) as world:
        before = JOURNEY.index(NEEDS_SERVER)
        for name in JOURNEY[:before]:
            _write(name, world)
        with world.server():
            for name in JOURNEY[before:]:
                _write(name, world)
    return 0


def _write(name: str, world: World) -> None:
    page = COMMANDS / f"{name}.md"
    text = page.read_text(encoding="utf-8")

    def output(example: Example) -> str:
        printed = world.run(example)
        return example.output if same(example, printed) else printed

    new = rewritten(text, output)
    if new != text:
        page.write_text(new, encoding="utf-8")
        sys.stdout.write(f"{page}\n")


if __name__ == "__main__":
    sys.exit(main())
