"""A Jupyter notebook -> Markdown. Outputs are left out."""

import json
from typing import Any

from agent_server.knowledge.readers.base import ReadText, Unreadable
from agent_server.knowledge.readers.encoding import decode


def read_notebook(content: bytes) -> ReadText:
    try:
        notebook = json.loads(decode(content).text)
    except RecursionError:
        raise Unreadable("is nested too deeply for a notebook") from None
    except ValueError as error:
        raise Unreadable(f"is no notebook: {error}; save it with Jupyter") from None
    cells = _find_cells(notebook)
    if cells is None:
        raise Unreadable("is no notebook: it has no cells; save it with Jupyter")
    language = _find_language(notebook)
    parts = [part for cell in cells if isinstance(cell, dict) and (part := _read_cell(cell, language))]
    return ReadText("\n\n".join(parts) + "\n" if parts else "")


def _find_cells(notebook: Any) -> list[Any] | None:
    if not isinstance(notebook, dict):
        return None
    # Version 3 has them in worksheets.
    sheets = notebook.get("worksheets")
    if isinstance(sheets, list):
        lists = [sheet.get("cells") for sheet in sheets if isinstance(sheet, dict)]
        return [cell for cells in lists if isinstance(cells, list) for cell in cells]
    cells = notebook.get("cells")
    return cells if isinstance(cells, list) else None


def _find_language(notebook: dict[str, Any]) -> str:
    metadata = notebook.get("metadata")
    info = metadata.get("language_info") if isinstance(metadata, dict) else None
    name = info.get("name") if isinstance(info, dict) else None
    return name if isinstance(name, str) and name.isalnum() else "python"


def _read_cell(cell: dict[str, Any], language: str) -> str:
    source = cell.get("source", cell.get("input", ""))
    text = "".join(map(str, source)) if isinstance(source, list) else str(source)
    text = text.replace("\x00", "").strip("\n")
    match cell.get("cell_type"):
        case "code" if text.strip():
            fence = "```"
            while fence in text:
                fence += "`"
            return f"{fence}{language}\n{text}\n{fence}"
        case "heading":
            level = cell.get("level")
            return f"{'#' * (level if isinstance(level, int) and 1 <= level <= 6 else 1)} {text}"
        case "markdown":
            return text
        case _:
            return ""
