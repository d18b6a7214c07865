"""A Word document -> Markdown, by mammoth. It needs the extra `documents`."""

import io
import zipfile

from agent_server.knowledge.readers.base import ReadText, Unreadable
from agent_server.knowledge.readers.html import convert_html

_MOST_BYTES, _MOST_FILES = 200_000_000, 5_000
"""What a document may hold once it is unpacked."""
_STYLES = "p[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => p:fresh"


def read_docx(content: bytes) -> ReadText:
    import mammoth  # noqa: PLC0415  # an extra

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            files = packed.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise Unreadable("is no Word document that can be opened; save it as .docx again") from None
    # Before it is unpacked: a few kilobytes may unpack to gigabytes.
    if len(files) > _MOST_FILES or sum(file.file_size for file in files) > _MOST_BYTES:
        raise Unreadable(f"unpacks to more than {_MOST_BYTES // 1_000_000} MB; split it")
    no_image = mammoth.images.img_element(lambda image: {})
    # mammoth's own Markdown leaves out tables.
    converted = mammoth.convert_to_html(io.BytesIO(content), convert_image=no_image, style_map=_STYLES)
    return convert_html(converted.value)
