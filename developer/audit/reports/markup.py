"""HTML as a tree: whatever is put into it is escaped where it is written."""

from __future__ import annotations

from xml.etree.ElementTree import Element, tostring

Child = Element | str | None


def element(tag: str, *children: Child, **attributes: str) -> Element:
    """An element with its children.

    Args:
        tag: its name.
        children: in order; None is left out.
        attributes: by name; `class_` is `class`, other underscores are hyphens.
    """
    named = {
        name.removesuffix("_").replace("_", "-"): printable(text)
        for name, text in attributes.items()
    }
    made = Element(tag, named)
    for child in children:
        if isinstance(child, str):
            _append_text(made, printable(child))
        elif child is not None:
            made.append(child)
    return made


def rendered(root: Element) -> str:
    """The document of a root element."""
    return "<!doctype html>\n" + tostring(root, encoding="unicode", method="html") + "\n"


def printable(text: str) -> str:
    """Text without what is no character of a document."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


def _append_text(parent: Element, text: str) -> None:
    last = parent[-1] if len(parent) else None
    if last is None:
        parent.text = (parent.text or "") + text
    else:
        last.tail = (last.tail or "") + text
