"""Reads a page of HTML strictly."""

import base64
import collections
import html.parser

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Document(html.parser.HTMLParser):
    """Reads a page strictly: every element must be closed inside the element in which it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: collections.defaultdict[str, str] = collections.defaultdict(str)
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.words[self._open[-1] if self._open else ""] += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def decode(uri: str, kind: str) -> bytes:
    assert uri.startswith(f"data:{kind};base64,")
    return base64.b64decode(uri.split(",", 1)[1], validate=True)
