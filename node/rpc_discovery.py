"""How the registry of RPC methods describes itself: the shapes of an OpenRPC document."""

import msgspec

from node.rpc_types import FaultDetail


class DiscoveredParam(msgspec.Struct, frozen=True):
    """One parameter of a method, with its JSON Schema."""

    name: str
    required: bool
    schema: dict[str, object]


class DiscoveredResult(msgspec.Struct, frozen=True):
    """A method's result, with its JSON Schema."""

    name: str
    schema: dict[str, object]


class DiscoveredError(msgspec.Struct, frozen=True):
    """One error that a method may answer with."""

    code: int
    message: str
    data: FaultDetail


class DiscoveredMethod(msgspec.Struct, frozen=True, rename="camel"):
    """One method in OpenRPC's words."""

    name: str
    summary: str
    param_structure: str
    params: tuple[DiscoveredParam, ...]
    result: DiscoveredResult
    errors: tuple[DiscoveredError, ...]


class Discovery(msgspec.Struct, frozen=True):
    """The registry as an OpenRPC document."""

    openrpc: str
    info: dict[str, str]
    methods: tuple[DiscoveredMethod, ...]
    components: dict[str, dict[str, object]]
