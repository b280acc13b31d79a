"""What is secret in a command line and in the environment never stands in a message or a mail.

The places that handle passwords show none of them; this is for what is given in a wrong place,
where a message about the wrong words would repeat it, and a second lock on the door.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from shardtool.influxdb.credentials import PASSWORD

VARIABLES = (PASSWORD, "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# --password, --secret-key=..., -p; no shardtool takes them, but people try.
_OPTION = re.compile(r"(--?[\w-]*(?:pass|secret|token|api-?key)[\w-]*|-p)(?:=(.*))?", re.I | re.S)
# Up to the last @ where a password begins: it may hold what ends a host.
_USER_INFO = re.compile(r"//([^/?#@:\s]*:.+|[^/?#\s]+)@", re.S)
_PARAMETER = re.compile(r"[?&](?:p|password)=([^&#\s]+)", re.I)
# In what is shorter, words that anybody may say would be taken for the secret.
_LEAST_GIVEN, _LEAST_KNOWN = 3, 8


def redacted(text: str, words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return a text with dots in the place of what is secret.

    Args:
        text: a message, or a command line.
        words: the command line's; what follows --password is secret, and so is a URL's user.
        environment: os.environ; what VARIABLES hold is secret.
    """
    found = {secret for secret in _given(words) if len(secret) >= _LEAST_GIVEN}
    known = (environment.get(name, "") for name in VARIABLES)
    found |= {secret for secret in known if len(secret) >= _LEAST_KNOWN}
    spellings = {spelling for secret in found for spelling in (secret, repr(secret)[1:-1])}
    # The longest first: one may be in another.
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, "...")
    return text


def _given(words: Sequence[str]) -> Iterator[str]:
    after_option = False
    for word in words:
        option = _OPTION.fullmatch(word)
        if after_option and option is None:
            yield word
        after_option = False
        if option is not None and not option[1].endswith("-file"):
            after_option = option[2] is None
            yield option[2] or ""
        for user_info in _USER_INFO.findall(word):
            yield from (user_info, user_info.partition(":")[2])
        yield from _PARAMETER.findall(word)
