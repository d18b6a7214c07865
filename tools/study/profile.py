"""Tools for a student's profile: what the adviser knows of the caller."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from agent_server import InvalidInput, ToolContext, read_profile, tool, update_profile
from tools.study.arguments import Level

PREFIX = "study_"
"""What the names of a student's fields begin with, beside those that other agents keep of the same person."""
PROFILE = """
{% if level %}
- Level: {{ level }}

{% endif %}
{% if subjects %}
- Subjects: {{ subjects }}

{% endif %}
{% if goals %}
- Goals: {{ goals }}

{% endif %}
{% if budget_pounds %}
- Budget for a year: £{{ budget_pounds }}

{% endif %}
{% if english_test %}
- English test: {{ english_test }}

{% endif %}
{% if needs_visa is not none %}
- Needs a visa: {{ "yes" if needs_visa else "no" }}

{% endif %}
{% if known == 0 %}
Nothing is known of you as a student yet. Tell me, for example: I want to study data science.
{% endif %}
"""
"""How a profile reads."""
Field_ = Literal["goals", "needs_visa", "level", "subjects", "budget_pounds", "english_test"]


class StudentProfile(BaseModel):
    """What is known of the caller as a student; null is not known. `known` is how many things are."""

    goals: str | None = None
    needs_visa: bool | None = None
    level: str | None = None
    subjects: str | None = None
    budget_pounds: int | None = None
    english_test: str | None = None
    known: int = 0


@tool(
    scope="student:read",
    effect="read",
    phrases=("show [me] my student profile", "what do you know about me as a student"),
    result=PROFILE,
)
async def read_student_profile(context: ToolContext) -> StudentProfile:
    """Read what is known of the user as a student: goals, level, subjects, budget, English test, need of a visa."""
    return view_profile(await read_profile(context.session, context.caller))


@tool(
    scope="student:write",
    effect="stored",
    phrases=(
        "remember that i want to study {subjects}",
        "i want to study {subjects} at {level} level",
        "remember that i want [to do] [a|an] {level} degree [in {subjects}]",
        "my budget is {budget_pounds} pounds [a year]",
        "my english test is {english_test}",
        "remember that my goal is {goals}",
    ),
    result=f"This is what I will remember:\n{PROFILE}",
)
async def update_student_profile(
    context: ToolContext,
    goals: Annotated[str | None, Field(min_length=1, max_length=500, description="What the study is for.")] = None,
    needs_visa: Annotated[
        bool | None,
        Field(description="Whether they need a visa to study. Never ask for or keep a passport or its number."),
    ] = None,
    level: Level | None = None,
    subjects: Annotated[str | None, Field(min_length=1, max_length=200, description="What to study.")] = None,
    budget_pounds: Annotated[int | None, Field(ge=0, le=1_000_000, description="For a year, in pounds.")] = None,
    english_test: Annotated[
        str | None, Field(min_length=1, max_length=100, description="Which test and result, as in: IELTS 6.5.")
    ] = None,
    forget: Annotated[Sequence[Field_], Field(max_length=6, description="What to forget.")] = (),
) -> StudentProfile:
    """Remember what the user said of themselves as a student. What is not given stays as it was."""
    given = {
        "goals": goals,
        "needs_visa": needs_visa,
        "level": level,
        "subjects": subjects,
        "budget_pounds": budget_pounds,
        "english_test": english_test,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if both := changes.keys() & set(forget):
        raise InvalidInput(f"{', '.join(sorted(both))}: either give a new value or forget it")
    changes |= dict.fromkeys(forget)
    if not changes:
        raise InvalidInput(f"There is nothing to remember; give {', '.join(given)} or forget")
    named = {f"{PREFIX}{name}": value for name, value in changes.items()}
    return view_profile(await update_profile(context.session, context.caller, named))


def view_profile(body: Mapping[str, Any]) -> StudentProfile:
    """The student in what is known of a caller."""
    names = StudentProfile.model_fields.keys() - {"known"}
    found = {name: body[f"{PREFIX}{name}"] for name in names if f"{PREFIX}{name}" in body}
    return StudentProfile(**found, known=len(found))
