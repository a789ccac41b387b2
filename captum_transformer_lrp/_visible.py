"""What comes from outside, shown instead of obeyed, and in as much room as there is."""

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


def printed(text: str) -> str:
    """Return lines of text without what a terminal would obey."""
    lines = text.replace("\r\n", "\n").replace("\t", " ")
    return visible(lines).replace("\r", "␍")


def no_formula(text: str) -> str:
    """Return a cell of a table that no spreadsheet computes: its text, after a quote.

    Only texts that begin as formulas do get one (``=``, ``+``, ``-``, ``@``).
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def shortened(text: str, most: int) -> str:
    """Return a text in one line of at most ``most`` characters, its end cut off.

    Unlike :func:`textwrap.shorten` also within a word, since many scripts have no
    spaces.
    """
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"
