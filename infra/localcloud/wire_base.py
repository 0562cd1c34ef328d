"""What all of RunPod v2's JSON has in common: strict bodies, field types, pages, query words. Used by the `*_wire`s.

PURE.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, StringConstraints, model_validator

from localcloud.errors import Problem

T = TypeVar("T")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.IGNORECASE | re.ASCII)


class Body(BaseModel):
    """A request body: an unknown field is an error that names it; no number in a string, no null."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    nullable: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _no_nulls(cls, given: Any) -> Any:
        if isinstance(given, dict):
            known = {field.alias or name for name, field in cls.model_fields.items()} - set(cls.nullable)
            nulls = [key for key, value in given.items() if value is None and key in known]
            if nulls:
                raise ValueError(f"{nulls[0]} must not be null")
        return given


def _whole(value: Any) -> Any:
    """10.0 is an integer in JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
Positive = Annotated[int, Field(ge=1), WHOLE]
Name = Annotated[str, StringConstraints(strict=True, min_length=1)]
PortText = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9]{1,5}/(tcp|http)$")]
CudaVersion = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9]+\.[0-9]+$")]
Env = dict[StrictStr, StrictStr]


class PersistentMount(Body):
    """A disk that stays with the pod."""

    size: Annotated[int, Field(ge=10), WHOLE]
    path: str


class NetworkMount(Body):
    """A network volume."""

    volume_id: str = Field(alias="volumeId")
    path: str


def page(
    key: str,
    records: Sequence[T],
    show: Callable[[T], Any],
    *,
    serial: Callable[[T], int],
    cursor: str | None,
    size: int,
) -> dict[str, Any]:
    """One page of a list; the cursor also works when the record that ended the last page is gone."""
    after = -1 if cursor is None else _serial_in(cursor)
    rest = [record for record in records if serial(record) > after]
    shown, more = rest[:size], len(rest) > size
    following = base64.urlsafe_b64encode(str(serial(shown[-1])).encode()).decode() if more else ""
    return {
        key: [show(record) for record in shown],
        "pagination": {"hasNextPage": more, "nextCursor": following},
    }


def _serial_in(cursor: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(cursor))
    except (ValueError, binascii.Error):
        raise bad_query("cursor: malformed") from None


def bad_query(*errors: str) -> Problem:
    """422 for what does not parse."""
    return Problem(422, f"malformed query: {'; '.join(errors)}", errors=errors)


def words(params: Mapping[str, str], key: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """A comma-separated list of known words; empty when it is not given."""
    text = params.get(key)
    if text is None:
        return ()
    given = tuple(text.split(","))
    unknown = [word for word in given if word not in allowed]
    if unknown:
        raise bad_query(f"{key}: {unknown[0]!r} is none of {', '.join(allowed)}")
    return given


def matching(params: Mapping[str, str], rules: Mapping[str, str]) -> dict[str, str]:
    """The parameters that `rules` (name -> pattern) knows; 422 for one that does not fit its pattern."""
    given = {key: value for key, value in params.items() if key in rules}
    errors = [f"{key}: malformed" for key, value in given.items() if not re.fullmatch(rules[key], value)]
    if errors:
        raise bad_query(*errors)
    return given


def instant(key: str, text: str, years: tuple[int, int] = (1, 9999)) -> datetime:
    """An RFC 3339 time in UTC; 422 that names the parameter."""
    wrong = bad_query(f"{key}: must be RFC 3339")
    if not _RFC_3339.fullmatch(text):
        raise wrong
    try:
        when = datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong from None
    if not years[0] <= when.year <= years[1]:
        raise bad_query(f"{key}: must be between the years {years[0]} and {years[1]}")
    return when
