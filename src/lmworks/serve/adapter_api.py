"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter: vLLM's names for adapters that come and go."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from lmworks.serve.adapters import AdapterFolder, drop
from lmworks.serve.api_errors import ApiError, about_field
from lmworks.serve.bodies import read_body
from lmworks.serve.event_stream import JsonResponse
from lmworks.serve.operation import described
from lmworks.serve.schemas import LoadAdapterBody, UnloadAdapterBody
from lmworks.serve.service import Service, service_of


async def load_adapter(request: Request) -> Response:
    """Serve an adapter of the server's folder under a name."""
    service = service_of(request)
    body = await read_body(request, LoadAdapterBody, service.settings.body_bytes)
    folder = _folder(service)
    async with service.adapter_lock:
        if body.lora_name in service.models:
            message = f"lora_name: there is a model {body.lora_name!r} already: unload it, or choose another name"
            raise ApiError(400, message, "lora_name", "invalid_value")
        with about_field("lora_name", "lora_path", "base_model_name"):
            served = await run_in_threadpool(folder.load, body.lora_name, body.lora_path or "", body.base_model_name)
        service.models[served.name] = served
    return JsonResponse(described(served))


async def unload_adapter(request: Request) -> Response:
    """Serve an adapter no more; answers that have it are finished."""
    service = service_of(request)
    body = await read_body(request, UnloadAdapterBody, service.settings.body_bytes)
    _folder(service)
    async with service.adapter_lock:
        served = service.models.get(body.lora_name)
        if served is None or served.parent is None:
            loaded = [other.name for other in service.models.values() if other.parent is not None]
            message = (
                f"lora_name: there is no adapter {body.lora_name[:80]!r}; loaded are: {', '.join(loaded) or 'none'}"
            )
            raise ApiError(404, message, "lora_name", "model_not_found")
        del service.models[served.name]
        drop(served)
    return JsonResponse({"id": served.name, "object": "model", "deleted": True})


def _folder(service: Service) -> AdapterFolder:
    """The server's folder of adapters.

    Raises:
        ApiError: it has none.
    """
    if service.adapters is None:
        raise ApiError(400, "this server takes no adapters: start it with --adapters FOLDER", code="no_adapters")
    return service.adapters
