"""What mkdocs needs to know beside `mkdocs.yml`: the pages of the repository's root are pages of the site as well.

On GitHub, and in an editor, a page in docs/ links to `../SECURITY.md`, and the README to `docs/tools.md`. In the site,
which holds docs/ alone, the pages of the root are below `repository/`, and their links are turned to match.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

log = logging.getLogger("mkdocs.hooks.site")

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "repository"
PAGES = ("README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")
FILES = {".env.example": "env.example.txt", "LICENSE": "LICENSE.txt"}
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\s(?:src|href)=[\"']?(https?://[^\s\"'>]+)")
LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add what is in the root."""
    for name in (*PAGES, *FILES):
        there = f"{FOLDER}/{FILES.get(name, name)}"
        files.append(File.generated(config, there, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the links between docs/ and the root."""
    path = page.file.src_uri
    inside = path.removeprefix(f"{FOLDER}/")
    source = inside if inside != path else f"docs/{path}"

    def turned(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        place = target.removeprefix("docs/") if target.startswith("docs/") else f"{FOLDER}/{FILES.get(target, target)}"
        return f"{match[1]}{posixpath.relpath(place, posixpath.dirname(path) or '.')}{match[3] or ''})"

    return LINK.sub(turned, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Warn of what a page would load from another host; with `--strict` a warning ends the build."""
    for address in LOADED.findall(output):
        log.warning("%s loads %s; a page of the site loads nothing from elsewhere", page.file.src_uri, address)
    return output
