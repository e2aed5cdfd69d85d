"""An audit as one HTML file; no network."""

from __future__ import annotations

from collections.abc import Sequence

from lmworks.audits.audit import Audit
from lmworks.audits.audit_table import ABOUT, FigureTable, SectionText, heading, sections
from lmworks.reports.markup import document, prose, section, table, text

HTML = "audit.html"
_STYLE = "td { white-space: normal; } .of { color: var(--soft); }\n"


def render(audit: Audit) -> str:
    """The whole page."""
    computed = zip(audit.models, audit.signatures, strict=True)
    facts = [f"{name}: {signature}" for name, signature in computed]
    header = (
        f'<header><p class="eyebrow">Audit</p><h1>{text(heading(audit))}</h1>'
        f'<p class="soft">{prose(ABOUT)}</p></header>\n'
    )
    body = "".join(_section(part) for part in sections(audit))
    notes = _list([*facts, *audit.notes])
    return document(heading(audit), f'{header}{body}<section class="notes">{notes}</section>', _STYLE)


def _section(part: SectionText) -> str:
    content = [f'<p class="soft">{prose(part.about)}</p>', *(_table(each) for each in part.tables)]
    if part.hides:
        said = "".join(f'<li><span class="of">{text(title)}:</span> {prose(line)}</li>' for title, line in part.hides)
        content.append(f"<h3>What these figures do not say</h3><ul>{said}</ul>")
    for title, lines in (("Rows", part.examples), ("Notes", part.notes), ("Not measured", part.missing)):
        if lines:
            content.append(f"<h3>{title}</h3>{_list(lines)}")
    return section(part.title, "".join(content))


def _table(each: FigureTable) -> str:
    rows = [
        f'<tr><th scope="row">{text(cells[0])}</th>{"".join(f"<td>{text(cell)}</td>" for cell in cells[1:])}</tr>'
        for cells in each.rows
    ]
    return f'<p class="eyebrow">{text(each.title)}</p>{table(each.heads, rows)}'


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{prose(line)}</li>' for line in lines)}</ul>"
