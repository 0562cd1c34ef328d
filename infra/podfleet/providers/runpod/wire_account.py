"""RunPod's JSON for what an account holds beside pods: secrets, registry logins, volumes, bills, the balance.

Used by `client_account` alone, as `wire` is by `client`: pydantic at the border, frozen dataclasses for everybody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue, field_validator


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry login's name card; the API never returns the login."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Volume:
    """A network volume. Data centre and type are for ever; the size can only grow."""

    id: str
    name: str
    size_gb: int
    data_center_id: str
    type: str


@dataclass(frozen=True, slots=True)
class BillRecord:
    """What one pod cost within one bucket of time (seconds since the epoch)."""

    pod_id: str
    start_s: float
    end_s: float
    usd: float


@dataclass(frozen=True, slots=True)
class Balance:
    """The account's money, and what all that runs in the account costs an hour."""

    usd: float
    spend_usd_per_hr: float


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class _Page(_Wire):
    has_next_page: bool = Field(False, alias="hasNextPage")
    next_cursor: str | None = Field(None, alias="nextCursor")


class _Paged(_Wire):
    pagination: _Page | None = None


class WireSecret(_Wire):
    """A secret's name card."""

    id: str
    name: str


class WireSecretPage(_Paged):
    """One page of account secrets."""

    secrets: list[WireSecret]


class WireRegistry(_Wire):
    """A registry login's name card."""

    id: str = Field(min_length=1)
    name: str = ""

    def view(self) -> Registry:
        return Registry(self.id, self.name)


class WireRegistryPage(_Paged):
    """One page of registry logins."""

    registries: list[WireRegistry]


class WireVolume(_Wire):
    """A network volume; the data centre may be its id or an object with one."""

    id: str = Field(min_length=1)
    name: str = ""
    size: int = 0
    data_center: str = Field("", validation_alias=AliasChoices("dataCenter", "dataCenterId"))
    type: str = ""

    @field_validator("data_center", mode="before")
    @classmethod
    def _its_id(cls, value: JsonValue) -> JsonValue:
        return value.get("id", "") if isinstance(value, dict) else value or ""

    def view(self) -> Volume:
        return Volume(self.id, self.name, self.size, self.data_center, self.type)


class WireVolumePage(_Paged):
    """One page of network volumes."""

    volumes: list[WireVolume] = Field(validation_alias=AliasChoices("networkVolumes", "volumes"))


class _WireBill(_Wire):
    pod_id: str = Field(alias="podId")
    start_time: datetime = Field(alias="startTime")
    end_time: datetime = Field(alias="endTime")
    total_amount: float = Field(alias="totalAmount")


class WireBilling(_Paged):
    """Records of pod billing."""

    records: list[_WireBill]

    def views(self) -> tuple[BillRecord, ...]:
        return tuple(
            BillRecord(bill.pod_id, bill.start_time.timestamp(), bill.end_time.timestamp(), bill.total_amount)
            for bill in self.records
        )


class _WireMyself(_Wire):
    client_balance: float = Field(alias="clientBalance")
    current_spend_per_hr: float | None = Field(None, alias="currentSpendPerHr")


class _WireData(_Wire):
    myself: _WireMyself


class WireBalance(_Wire):
    """GraphQL's answer to the balance query."""

    data: _WireData

    def view(self) -> Balance:
        return Balance(self.data.myself.client_balance, self.data.myself.current_spend_per_hr or 0.0)
