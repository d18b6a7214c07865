"""The bytes of a text file -> its characters.

    a byte order mark     says it: UTF-8, UTF-16 or UTF-32
    valid UTF-8           is UTF-8
    every other byte NUL  UTF-16 without a mark, as some editors of Windows write it
    anything else         the encoding that the file declares, else UTF-8 with damage, or Windows-1252, which holds Latin-1

What is guessed is named, so that somebody looks at it.
"""

import codecs
import re

from agent_server.knowledge.readers.base import ReadText, Unreadable

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 4096
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_MOST_CONTROLS = 0.02
"""The share of control characters from which on bytes that are no UTF-8 are no text either."""


def decode(content: bytes, declared: str | None = None) -> ReadText:
    """The text of a file, every line ended by one newline. Raises Unreadable for what is no text."""
    text, remark = _decode(content, declared)
    if "\x00" in text:
        raise Unreadable("holds a NUL byte; remove it", text[: text.index("\x00")].count("\n") + 1)
    return ReadText(text.replace("\r\n", "\n").replace("\r", "\n"), remarks=(remark,) if remark else ())


def _decode(content: bytes, declared: str | None) -> tuple[str, tuple[int | None, str] | None]:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            try:
                return content.decode(encoding), None
            except UnicodeDecodeError as error:
                name = encoding.upper().removesuffix("-SIG")
                raise Unreadable(f"begins as {name} and is none (byte {error.start}); save it as UTF-8") from None
    if wide := _find_wide(content):
        try:
            return content.decode(wide), (None, _guessed("UTF-16"))
        except UnicodeDecodeError:
            pass  # it may be any other
    try:
        return content.decode(), None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return _guess(content, line, declared)


def _find_wide(content: bytes) -> str | None:
    """UTF-16 without a mark: in most scripts every other byte of it is NUL at least now and then."""
    sample = content[:_SAMPLE]
    if len(content) % 2 or len(sample) < 2:
        return None
    high, low = sample[0::2].count(0), sample[1::2].count(0)
    pairs = len(sample) // 2
    if low > 0.3 * pairs and high <= 0.02 * pairs:
        return "utf-16-le"
    return "utf-16-be" if high > 0.3 * pairs and low <= 0.02 * pairs else None


def _guess(content: bytes, line: int, declared: str | None) -> tuple[str, tuple[int | None, str] | None]:
    if declared:
        try:
            return content.decode(declared), None
        except (LookupError, UnicodeDecodeError, ValueError):
            pass  # it declares what it is not
    repaired = content.decode(errors="replace")
    damaged = repaired.count("\ufffd")
    # Letters of several bytes that are valid are no accident: such a file is UTF-8, damaged in few places.
    if sum(character > "\x7f" for character in repaired) - damaged > damaged:
        return repaired, (line, "is UTF-8 with bytes in it that are none; they are shown as \ufffd. Correct this line")
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if len(_CONTROLS.findall(text)) > _MOST_CONTROLS * len(text):
        raise Unreadable(f"is not text in any encoding that is known here (line {line}); save it as UTF-8", line)
    return text, (line, _guessed("Windows-1252"))


def _guessed(encoding: str) -> str:
    return f"is not UTF-8; it was read as {encoding}. Save it as UTF-8"
