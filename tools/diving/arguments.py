"""Arguments that several diving tools take."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from tools.diving.models import Level

MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip


def _month(value: Any) -> Any:
    """A month's number from its English name, also shortened; anything else as it is."""
    name = value.strip().rstrip(".").lower() if isinstance(value, str) else ""
    found = [number for number, month in enumerate(MONTHS, 1) if len(name) >= 3 and month.startswith(name)]
    return found[0] if found else value


def _underscored(value: Any) -> Any:
    return value.strip().lower().replace("-", "_").replace(" ", "_") if isinstance(value, str) else value


Month = Annotated[
    Annotated[int, Field(ge=1, le=12)] | None,
    BeforeValidator(_month),
    Field(description="The month of the journey: 1 is January, 12 December."),
]
SuitsLevel = Annotated[
    Level | None,
    BeforeValidator(_underscored),
    Field(
        description="What the diver is up to; whatever asks for more is left out. open_water: to 18 m; advanced: to 30 m; "
        "experienced: advanced, and at home in strong currents; technical: beyond 40 m."
    ),
]
OwnLevel = Annotated[
    Level,
    BeforeValidator(_underscored),
    Field(description="What the diver's certificates and experience amount to; a Rescue Diver is advanced."),
]
