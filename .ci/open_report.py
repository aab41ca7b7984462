"""Open a report as a reader without a network would: is everything that it promises there?

Usage: python .ci/open_report.py FOLDER. Prints one line for each thing that is missing; exit code 1 if there is any.
"""

from __future__ import annotations

import base64
import sys
from html.parser import HTMLParser
from pathlib import Path

SECTIONS = ("verdict", "mass", "parameter", "data", "residual", "velocity", "posterior", "convergence", "recipe")
"""Words that the headings must bring, in this order."""

WORDS = ("M is proportional to D; the distance's error is not included", "sphere of influence", "R-hat", "prior")
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
VERDICTS = ("DETECTED", "UPPER LIMIT", "UNRESOLVED", "NOT CONVERGED", "DO NOT TRUST")


class Page(HTMLParser):
    """Headings, text, pictures, links, and tags that are not closed in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.text: list[str] = []
        self.pictures: list[dict[str, str]] = []
        self.links: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag brings."""
        given = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)
        if tag in {"h1", "h2"}:
            self.headings.append("")
        if tag == "img":
            self.pictures.append(given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in {"script", "iframe", "link"} or any(value.startswith(("http:", "https:", "//")) for name, value in given.items()
                                                      if name in {"src", "srcset", "data"}):
            self.faults.append(f"the page must be self-contained, got <{tag}> at line {self.getpos()[0]}")

    def handle_endtag(self, tag: str) -> None:
        """Close a tag."""
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"tags must be closed in their order, got </{tag}> at line {self.getpos()[0]}")

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        if self.open and self.open[-1] in {"style", "title"}:
            return
        self.text.append(data)
        if {"h1", "h2"} & set(self.open):
            self.headings[-1] += data


def faults(folder: Path) -> list[str]:
    """Everything that is missing from a report."""
    index = folder / "index.html"
    if not index.is_file():
        return [f"a report must hold index.html, got none in {folder}"]
    page = Page()
    page.feed(index.read_text(encoding="utf-8"))
    page.close()
    text = " ".join(" ".join(page.text).split())
    found = [*page.faults, *[f"tags must be closed, got an open <{tag}>" for tag in page.open]]
    found += [f"the page must say '{words}', got it nowhere" for words in WORDS if words.lower() not in text.lower()]
    if not any(verdict in text[:600] for verdict in VERDICTS):
        found.append(f"the page must begin with the verdict, got '{text[:80]}'")
    found += _headings(page.headings)
    found += _pictures(page)
    found += _files(page, folder)
    return found


def _headings(headings: list[str]) -> list[str]:
    """Sections must be there and in their order."""
    position, found = 0, []
    lower = [heading.lower() for heading in headings]
    for word in SECTIONS:
        after = [i for i in range(position, len(lower)) if word in lower[i]]
        if after:
            position = after[0]
        else:
            found.append(f"a section on '{word}' must follow '{headings[position] if headings else ''}', got {headings}")
    return found


def _pictures(page: Page) -> list[str]:
    """Pictures must be embedded, whole, and described."""
    found = [] if page.pictures else ["the page must show figures, got none"]
    for picture in page.pictures:
        kind, _, content = picture.get("src", "").partition(";base64,")
        if kind != "data:image/png" or not base64.b64decode(content).startswith(b"\x89PNG"):
            found.append(f"figures must be embedded PNG, got '{picture.get('src', '')[:60]}'")
        if not picture.get("alt"):
            found.append("figures must be described in words, got one without alt")
    return found


def _files(page: Page, folder: Path) -> list[str]:
    """Links must lead to files of the report that are not empty, every figure to PNG and PDF."""
    local = [link for link in page.links if not link.startswith(("#", "http:", "https:"))]
    found = [f"links must lead to files, got {link}" for link in local
             if not (folder / link).is_file() or not (folder / link).stat().st_size]
    found += [f"every figure must be there as {kind}, got {sum(link.endswith(kind) for link in local)} of {len(page.pictures)}"
              for kind in (".png", ".pdf") if sum(link.endswith(kind) for link in local) < len(page.pictures)]
    for kind in (".tex", ".bib", ".fits"):
        if not any(link.endswith(kind) for link in local):
            found.append(f"the page must link to a {kind} file, got none")
    return found


def main(folder: Path) -> int:
    """Print what is missing; return the exit code."""
    missing = faults(folder)
    for line in missing:
        print(line)
    if not missing:
        print(f"the report in {folder} opens, and everything that it promises is there")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
