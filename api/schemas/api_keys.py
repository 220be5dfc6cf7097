"""Models of API keys."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from api.schemas.fields import Moment, RequestModel
from api.schemas.rules import clock_beside_faults
from shared.api_keys import KEY_NAME, KeyRole
from shared.database.clock import whole_milliseconds

IN_FUTURE = "must be in the future"


def _in_future(moment: datetime) -> datetime:
    now = clock_beside_faults()
    if now is not None and moment <= now:
        raise ValueError(IN_FUTURE)
    return moment


class ApiKeyRequest(RequestModel):
    """A new API key."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "orders", "role": "service"}]})

    name: Annotated[str, StringConstraints(pattern=KEY_NAME)] = Field(
        description="The service or the admin that uses the key. With the role it is the principal, such as "
        "`service:orders`: several keys with the same name and role are the same principal.",
        examples=["orders"],
    )
    role: Annotated[KeyRole, Field(strict=False)] = Field(description="What the key may do, as the role of a token.")
    expires_at: (
        Annotated[Moment, Field(strict=False), AfterValidator(whole_milliseconds), AfterValidator(_in_future)] | None
    ) = Field(default=None, description="From this moment on the key is refused. By default it does not expire.")


class ApiKey(BaseModel):
    """An API key, without the key itself."""

    id: str
    name: str
    role: KeyRole
    key_start: str = Field(description="The first characters of the key, by which its owner recognises it.")
    created_by: str = Field(
        description="Who created it: an admin such as `admin:root`, or `cli` for the command `payments keys create`."
    )
    created_at: datetime
    expires_at: datetime | None = Field(description="From this moment on the key is refused; null = never.")
    last_used_at: datetime | None = Field(
        description="When the key was used last, at most a minute behind; null if it was never used."
    )


class ApiKeyWithSecret(ApiKey):
    """A new API key, with the key itself."""

    key: str | None = Field(
        default=None,
        description="Send it as `Authorization: Bearer <key>`. It is shown only once: a repeat with the same "
        "idempotency key does not have it.",
    )


class ApiKeyList(BaseModel):
    """A page of API keys that were not revoked, the newest first."""

    api_keys: list[ApiKey]
    limit: int = Field(description="The largest number of keys on a page.")
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last page.")
