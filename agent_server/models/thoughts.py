"""Thoughts that a model writes into its text.

Local models begin an answer with `<think>...</think>` where their server does not take it out. Where the template of the
prompt has opened the tag already, only its end is written.
"""

import re
from dataclasses import dataclass

_TAGS = {
    "<think>": "</think>",  # DeepSeek R1, Qwen
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",  # Gemma
    "<reasoning>": "</reasoning>",
    "[THINK]": "[/THINK]",  # Magistral
    "◁think▷": "◁/think▷",  # Kimi-VL
}
_LONGEST = max(map(len, _TAGS))
_END = re.compile(r"(?:</think>|\[/THINK\]|◁/think▷)(?:[^\S\n]*\n\s*|\s*\Z)")


@dataclass
class Thoughts:
    """Parts a text that comes in pieces into what the model thinks and what it says. Tags count at the start alone."""

    found: bool = False
    _kept: str = ""
    _end: str | None = None
    _says: bool = False

    def part(self, piece: str, *, last: bool = False) -> tuple[str, str]:
        """What is thought and what is said in the text so far, without what was given back before.

        What may be the begin of a tag waits for the next piece, but for the `last` one.
        """
        if self._says:
            return "", piece
        text, self._kept, thought = self._kept + piece, "", ""
        while True:
            if self._end is not None:
                before, found, text = text.partition(self._end)
                if not found:
                    cut = 0 if last else _begun(before, [self._end])
                    self._kept = before[len(before) - cut :]
                    return thought + before[: len(before) - cut], ""
                thought, self._end = thought + before, None
            text = text.lstrip() if self.found else text
            begin = text.lstrip()
            tag = next((tag for tag in _TAGS if begin.startswith(tag)), None)
            if tag is not None:
                self.found, self._end, text = True, _TAGS[tag], begin[len(tag) :]
            elif not last and any(tag.startswith(begin) for tag in _TAGS):
                self._kept = text
                return thought, ""
            else:
                self._says = True
                return thought, text


def _begun(text: str, tags: list[str]) -> int:
    """How many characters at the end of a text may be the begin of one of the tags."""
    return next(
        (n for n in range(min(len(text), _LONGEST + 1), 0, -1) if any(t.startswith(text[-n:]) for t in tags)), 0
    )


def split_unopened(text: str) -> tuple[str, str] | None:
    """What was thought and what was said in a whole text that only ends a thought. None of other texts."""
    end = _END.search(text)
    if end is None or any(tag in text[: end.start()] for tag in _TAGS):
        return None
    return text[: end.start()].strip(), text[end.end() :]
