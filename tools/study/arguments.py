"""Arguments that several study tools take."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from tools.study.models import StudyLevel

_LEVELS = {
    "bachelors": "bachelor", "undergraduate": "bachelor", "ba": "bachelor", "bsc": "bachelor", "beng": "bachelor", "llb": "bachelor",
    "masters": "master", "postgraduate": "master", "msc": "master", "ma": "master", "llm": "master",
    "phd": "doctorate", "doctoral": "doctorate", "doctorates": "doctorate", "integrated masters": "integrated master",
    "meng": "integrated master",
}  # fmt: skip
"""Words that people use for a level."""


def _level(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    word = value.strip().lower().replace("'", "").replace("’", "").replace("_", " ").replace("-", " ")
    return _LEVELS.get(word, word)


Level = Annotated[
    StudyLevel,
    BeforeValidator(_level),
    Field(description="integrated master: a first degree that ends as a master."),
]
WhichReport = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=200,
        description="The report's id or topic as list_reports gives it; the newest when absent.",
    ),
]
