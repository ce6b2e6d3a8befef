"""What an import had to assume, left out, or finds suspicious."""

from __future__ import annotations

_NAMES_SHOWN = 6


class Findings:
    """Remarks in the order in which they were first made; what is true of several parts is said once."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, remark: str, *names: str) -> None:
        """`remark`, about the parts of these names, if about any."""
        known = self._names.setdefault(remark, [])
        known += [n for n in names if n not in known]

    def lines(self) -> tuple[str, ...]:
        """One line for each remark, with the names of the parts in front."""
        return tuple(f"{_listed(names)}: {remark}" if names else remark for remark, names in self._names.items())


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
