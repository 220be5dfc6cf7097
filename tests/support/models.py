"""Models that refuse what they do not know."""

from pydantic import BaseModel


def strict(model: type[BaseModel]) -> type[BaseModel]:
    """The model, refusing members that it does not know; those inside it are held against their own by name."""
    return type(model.__name__, (model,), {"model_config": {"extra": "forbid"}})
