"""What can be done with a response once it is there: get, delete, cancel it, list what it was made from."""

from __future__ import annotations

from aiohttp import web

from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import ApiError, bad_request
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.openai.responses.bodies import DeletedAnswer, ItemsAnswer, ResponseAnswer
from sgl_like.runtime.server.openai.responses.store import Stored

MOST_ITEMS = 100


async def get_response(call: Call) -> web.StreamResponse:
    """A response that was stored."""
    if call.http.query.get("stream") == "true":
        raise bad_request("only running background responses could be streamed again", param="stream")
    return json_response(_stored(call).response)


async def delete_response(call: Call) -> web.StreamResponse:
    """Forget a response."""
    id = call.http.match_info["id"]
    if not call.server.responses.delete(call.tenant.name, id):
        raise _missing(id)
    return json_response({"id": id, "object": "response", "deleted": True})


async def cancel_response(call: Call) -> web.StreamResponse:
    """End a response that is being made; what there is of it is its result."""
    id = call.http.match_info["id"]
    running = call.server.responses.running.get((call.tenant.name, id))
    if running is None:
        _stored(call)
        raise bad_request(f"response {id!r} is over; only one that is being made can be cancelled")
    running.cancel()
    return json_response(running.response | {"status": "cancelled"})


async def list_input_items(call: Call) -> web.StreamResponse:
    """The items of the conversation that a response was made from, the latest first unless asked otherwise."""
    stored = _stored(call)
    items = [*stored.before, *stored.input]
    query = call.http.query
    order, limit = query.get("order", "desc"), query.get("limit", "20")
    if order not in ("asc", "desc"):
        raise bad_request(f'order must be "asc" or "desc", not {order!r}', param="order")
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 4 and 1 <= int(limit) <= MOST_ITEMS):
        raise bad_request(f"limit must be between 1 and {MOST_ITEMS}, not {limit!r}", param="limit")
    if order == "desc":
        items.reverse()
    after = query.get("after")
    if after is not None:
        at = next((at for at, item in enumerate(items) if item["id"] == after), None)
        if at is None:
            raise bad_request(f"after: this response has no item {after!r}", param="after")
        items = items[at + 1 :]
    shown = items[: int(limit)]
    return json_response(
        {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(items) > len(shown),
        }
    )


def _stored(call: Call) -> Stored:
    """Raises ApiError: 404: there is none of this id, or it was another tenant's."""
    id = call.http.match_info["id"]
    found = call.server.responses.get(call.tenant.name, id)
    if found is None:
        raise _missing(id)
    return found


def _missing(id: str) -> ApiError:
    return ApiError(404, f"Response with id {id!r} not found.", code="response_not_found")


_PATH = "/v1/responses/{id:resp_[^/]+}"  # so that other names may stand in its place
ROUTES = (
    Route("GET", _PATH, get_response, "Get a stored response", response=ResponseAnswer),
    Route("DELETE", _PATH, delete_response, "Delete a stored response", response=DeletedAnswer),
    Route("POST", f"{_PATH}/cancel", cancel_response, "Cancel a running response", response=ResponseAnswer),
    Route("GET", f"{_PATH}/input_items", list_input_items, "List a response's input", response=ItemsAnswer),
)
