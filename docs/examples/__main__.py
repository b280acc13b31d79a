"""`python -m docs.examples`: run the examples of the pages and write what they print into them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from docs.examples.blocks import rewritten
from docs.examples.world import JOURNEY, NEEDS_SERVER, World

COMMANDS = Path(__file__).parents[1] / "commands"


def main() -> int:
    """Write the pages whose examples print something else; return the exit code."""
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory), (sys.executable, "-m", "shardtool"))
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
    new = rewritten(text, world.run)
    if new != text:
        page.write_text(new, encoding="utf-8")
        sys.stdout.write(f"{page}\n")


if __name__ == "__main__":
    sys.exit(main())
