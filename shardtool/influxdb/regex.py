"""Shard spaces' regexes, as 0.8 writes and compiles them: Go's, which are RE2."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_OTHER_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


@lru_cache(maxsize=256)
def compiled(regex: str) -> Any:
    """Return RE2's pattern for a space's regex, to search in bytes; None for what 0.8 can't use.

    `/.../` is what stands between, `/.../i` the same in any case; without a slash before it the
    whole text is the regex; and whatever the last character of another is, it is cut off (0.8's
    published source, cluster/shard_space.go).
    """
    import re2

    options = re2.Options()
    options.log_errors = False  # it would write to stderr itself
    body = regex
    if regex.startswith("/"):
        options.case_sensitive = not regex.endswith("/i")
        body = regex[1:-1] if options.case_sensitive else regex[1:-2]
        if len(regex) < (2 if options.case_sensitive else 3):
            return None  # the server panics
    try:
        return re2.compile(encoded(body), options)
    except re2.error:
        return None


def encoded(text: str) -> bytes:
    """Return a name or a regex of raft's as the server has it.

    A byte that is no UTF-8 came here as one surrogate; any other lone surrogate stood in JSON as
    an escape, of which Go makes the replacement character.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return _OTHER_SURROGATES.sub("\ufffd", text).encode("utf-8", "surrogateescape")
