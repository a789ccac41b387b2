"""Control characters, shown instead of obeyed."""

from __future__ import annotations

#: control characters, which a terminal would obey, as their pictures; those above 127
#: have none and share one
_CONTROLS = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"},
    127: 0x2421,
    **dict.fromkeys(range(128, 160), 0x2426),
}


def visible(text: str) -> str:
    """Return a text without control characters but tabs and line ends."""
    return text.translate(_CONTROLS)
