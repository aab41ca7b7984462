"""Small pieces of HTML, and the frame of the page: no script, no font or style from elsewhere, readable on a phone and on paper."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 62rem; background: #fff; color: #1a1a1a;
  font: 1rem/1.55 Georgia, "Times New Roman", serif; }
h1 { font-size: 1.5rem; margin: .2rem 0 .4rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-top: .5rem; border-top: 1px solid #bbb; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p, ul { margin: .5rem 0; }
a { color: #00497a; }
nav { font-size: .85rem; } nav a { margin-right: .8rem; white-space: nowrap; }
.verdict { border-left: .35rem solid #888; padding: .5rem .9rem; background: #f5f5f5; }
.verdict .headline { font-size: 1.2rem; font-weight: bold; margin: 0 0 .4rem; }
.detected { border-color: #007a5a; } .upper-limit { border-color: #b37700; } .unresolved { border-color: #b37700; }
.not-converged, .do-not-trust { border-color: #b30000; background: #fdf3f3; }
.mass { font-size: 1.2rem; }
figure { margin: 1.2rem 0; } figure img { max-width: 100%; height: auto; display: block; }
figure.column img { width: 27rem; } figure.page img { width: 100%; }
figcaption { font-size: .87rem; color: #333; margin-top: .35rem; max-width: 46rem; }
code, pre { font: .82em/1.4 ui-monospace, Menlo, Consolas, monospace; }
pre { background: #f5f5f5; padding: .7rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
code { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font: .76rem/1.3 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .38rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { border-bottom: 1.5px solid #555; text-align: right; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child, .left { text-align: left; }
td.prior-dominated { background: #f3e9d2; } td.bad { background: #f6d5d5; }
table.facts td { white-space: normal; overflow-wrap: anywhere; text-align: left; vertical-align: top; }
table.facts td:first-child { white-space: nowrap; color: #555; }
sup, sub { line-height: 0; font-size: .75em; }
.pm { display: inline-flex; flex-direction: column; vertical-align: middle; font-size: .78em;
  line-height: 1.1; text-align: left; margin-left: .15em; }
dt { font-weight: bold; } dd { margin: 0 0 .5rem 1.2rem; }
details { margin: .8rem 0; } summary { cursor: pointer; }
.note { font-size: .87rem; color: #444; }
@media print { body { max-width: none; font-size: 10pt; padding: 0; } nav { display: none; } figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; } .wide { overflow: visible; } table { font-size: 7pt; } th, td { padding: .1rem .25rem; } }
"""


def escape(text: object) -> str:
    """Text made safe."""
    return html.escape(str(text))


def paragraph(text: str, *, style: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def data_uri(content: bytes, kind: str) -> str:
    """Content as a URI that needs no file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def figure(png: bytes, *, name: str, alt: str, caption: str, unit: str, command: str, wide: bool) -> str:
    """A figure with its caption, units, files and the command that redraws it."""
    return (
        f'<figure id="figure-{escape(name)}" class="{"page" if wide else "column"}">'
        f'<img src="{data_uri(png, "image/png")}" alt="{escape(alt)}">'
        f'<figcaption>{escape(caption)} Units: {escape(unit)}. <a href="figures/{escape(name)}.png">PNG</a>, '
        f'<a href="figures/{escape(name)}.pdf">PDF</a>; redraw: <code>{escape(command)}</code></figcaption></figure>'
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "") -> str:
    """A table of cells that are HTML already; a cell may bring its own ``<td ...>``."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join("<tr>" + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    words = f'<caption class="note left">{escape(caption)}</caption>' if caption else ""
    return f'<div class="wide"><table>{words}<thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Two columns: what, and plain text."""
    body = "\n".join(f'<tr><td>{escape(name)}</td><td class="left">{escape(value)}</td></tr>' for name, value in rows)
    return f'<table class="facts"><tbody>\n{body}\n</tbody></table>'


def folded(title: str, content: str) -> str:
    """Content that opens on a click."""
    return f"<details><summary>{escape(title)}</summary>\n{content}\n</details>"


def section(identity: str, title: str, content: str) -> str:
    """A section with its heading."""
    return f'<section id="{identity}" aria-labelledby="h-{identity}">\n<h2 id="h-{identity}">{escape(title)}</h2>\n{content}\n</section>'


def page(title: str, lead: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """The whole page. ``sections`` are (identity, title, content); ``lead`` is HTML that stands above the contents."""
    contents = " ".join(f'<a href="#{identity}">{escape(name)}</a>' for identity, name, _ in sections)
    body = "\n".join(section(*part) for part in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="supermage">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n'
        f'<header>\n{lead}\n<nav aria-label="Contents">{contents}</nav>\n</header>\n<main>\n{body}\n</main>\n</body>\n</html>\n'
    )
