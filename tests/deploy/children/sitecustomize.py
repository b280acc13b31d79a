"""Keeps the bytecode of Ansible's modules: imported at the start of each Python under a playbook.

A module comes to its node as a zip of source, and Python keeps no bytecode of what it imports from
one: each start of a module compiles the same 50 files, twice each, and does little else. What is
imported here is what any Python has imported already.
"""

from __future__ import annotations

import _imp
import marshal
import os
import sys
import zipimport

_KEPT = f"{os.path.dirname(__file__)}/__pycache__"
_RELEASE = sys.hexversion
# zipimport has no public place at which bytecode could be kept; typeshed names public ones alone.
_compile = zipimport._compile_source  # type: ignore[attr-defined]
_had: dict[str, object] = {}  # the second time is a moment after the first


def _compiled(path: str, source: bytes) -> object:
    file = f"{_KEPT}/{_imp.source_hash(_RELEASE, source).hex()}-{len(source)}.bytecode"
    if file not in _had:
        _had[file] = _kept_in(file, path, source)
    return _had[file]


def _kept_in(file: str, path: str, source: bytes) -> object:
    """Compile the source, or take what was kept of the very same source."""
    try:
        with open(file, "rb") as kept:
            return marshal.loads(kept.read())
    except (OSError, ValueError, EOFError, TypeError):
        code = _compile(path, source)
    try:
        part = f"{file}.{os.getpid()}"
        with open(part, "wb") as written:
            written.write(marshal.dumps(code))
        os.replace(part, file)
    except OSError:
        pass  # it is compiled again next time
    return code


if not sys.dont_write_bytecode:
    os.makedirs(_KEPT, exist_ok=True)
    # In the place of that function: see above.
    zipimport._compile_source = _compiled  # type: ignore[attr-defined]
