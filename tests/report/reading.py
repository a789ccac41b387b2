"""A reader of pages, and texts that must never become markup."""

from __future__ import annotations

from html.parser import HTMLParser

ATTACK = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br", "input"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        self.tags.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def named(self, name, **wanted):
        """Return the attributes of each tag of a name that has what is wanted."""
        found = [attributes for tag, attributes in self.tags if tag == name]
        return [a for a in found if all(a.get(k) == v for k, v in wanted.items())]

    def hovered(self, name="span"):
        """Return the numbers under the mouse."""
        return [a["data-v"] for a in self.named(name) if "data-v" in a]

    @property
    def written(self) -> str:
        """The text that a person reads."""
        return "".join(self.text)


def style_of(attributes):
    """Return the declarations of a style attribute."""
    parts = [part.split(":", 1) for part in attributes["style"].split(";") if part]
    return dict(parts)
