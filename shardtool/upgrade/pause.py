"""How long the migrator rests after each 10,000 points."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

_PART = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(us|ms|u|s|m)", re.ASCII)
_MICROSECONDS = {"u": 1, "us": 1, "ms": 1000, "s": 1_000_000, "m": 60_000_000}
_LONGEST = 3_600_000_000


@dataclass(frozen=True)
class Pause:
    """A pause.

    Args:
        us: its length in us.
        sent: as the server understands it, a Go duration.
    """

    us: int
    sent: str

    @classmethod
    def of(cls, text: str) -> Pause:
        """Given a pause in the guide's units (u ms s m), return it.

        Example: '100u' is sent as '100us', which is what Go's time.ParseDuration takes.

        Raises:
            ValueError: it is no pause from 0s to 60m.
        """
        parts = _PART.findall(text.strip())
        whole = "".join(number + unit for number, unit in parts)
        length = sum(Decimal(number) * _MICROSECONDS[unit] for number, unit in parts)
        if not parts or whole != text.strip() or length > _LONGEST:
            raise ValueError(
                f"expected a pause from 0s to 60m such as 100ms (units u ms s m), found {text!r}"
            )
        sent = "".join(number + ("us" if unit == "u" else unit) for number, unit in parts)
        return cls(int(length), sent)
