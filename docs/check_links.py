"""Checks the links of a built site without a network: `python docs/check_links.py SITE`.

Every link inside the site leads to a file that is there and, where it names one, to an anchor on it; no page loads anything
from elsewhere.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {("script", "src"), ("img", "src"), ("iframe", "src"), ("link", "href"), ("source", "src")}
NOT_LOADED = {"canonical", "prev", "next", "alternate"}


class Page(HTMLParser):
    """The anchors of a page, where it leads, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note ids, links and loads."""
        found = {k: v or "" for k, v in attributes}
        self.anchors |= {found[k] for k in ("id", "name") if k in found}
        for name in ("href", "src"):
            if name in found:
                loaded = (tag, name) in LOADS and found.get("rel", "") not in NOT_LOADED
                (self.loads if loaded else self.links).append(found[name])


def faults(site: Path) -> list[str]:
    """Return what is wrong, one line each."""
    parsed = {path: Page(path) for path in site.rglob("*.html")}
    wrong = []
    for path, page in parsed.items():
        for address in page.links + page.loads:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.loads and parts.scheme != "data":
                    wrong.append(f"{path.relative_to(site)} loads {address}")
                continue
            target = path
            if parts.path:
                base = site if parts.path.startswith("/") else path.parent
                target = (base / unquote(parts.path).lstrip("/")).resolve()
                target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                wrong.append(f"{path.relative_to(site)} leads to {address}, which is not there")
            elif parts.fragment and target in parsed and unquote(parts.fragment) not in parsed[target].anchors:
                wrong.append(f"{path.relative_to(site)} leads to {address}, which has no such anchor")
    return wrong


if __name__ == "__main__":
    found = faults(Path(sys.argv[1]).resolve())
    print("\n".join(found))
    sys.exit(f"{len(found)} faulty links" if found else 0)
