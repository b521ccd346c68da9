"""A route that is asked once a token, and so without what FastAPI does around an endpoint.

FastAPI finds out anew at each request what a route depends on, and asks each dependency. That
costs more than all else that a step of a session does between the wire and the model. The
published API shows such a route as any other; errors end in the application's handlers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from triparty.cloud.accounts import Principal

Allowed = Callable[..., Awaitable[Principal]]


def direct_route(allowed: Allowed) -> type[APIRoute]:
    """The class of routes whose endpoint takes the path's members, `request` and `principal`.

    Args:
        allowed: says who asks, of a request; see `auth.require`.
    """

    class DirectRoute(APIRoute):
        """See the module."""

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            """Answers one request."""
            if scope["method"] not in (self.methods or ()):
                await super().handle(scope, receive, send)  # says which it has
                return
            request = Request(scope, receive, send)
            who = request.app.dependency_overrides.get(allowed, allowed)
            principal = await who(request)
            endpoint: Any = self.endpoint
            response = await endpoint(
                **request.path_params, request=request, principal=principal
            )
            await response(scope, receive, send)

    return DirectRoute
