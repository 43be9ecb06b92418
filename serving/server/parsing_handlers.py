"""A service whose requests are parsed where it can be said what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError


class ParsingHandlers:
    """Takes the place of a grpc.aio.Server where a generated function adds a servicer of unary methods to it.

    A request that is no message of its type ends with INTERNAL, as with C++ servers; left to itself the library answers
    UNKNOWN with the name of a Python class, and logs a stack trace.

        add_PredictionServiceServicer_to_server(servicer, ParsingHandlers(server))
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As the server's."""
        self._server.add_generic_rpc_handlers([_ParsingHandler(handler) for handler in handlers])


class _ParsingHandler(grpc.GenericRpcHandler):
    def __init__(self, handler: grpc.GenericRpcHandler) -> None:
        self._handler = handler
        self._parsing: dict[str, grpc.RpcMethodHandler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = handler_call_details.method
        if method not in self._parsing:
            handler = self._handler.service(handler_call_details)
            if handler is None:
                return None
            self._parsing[method] = _parsing(handler)
        return self._parsing[method]


def _parsing(handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
    parse, respond = handler.request_deserializer, handler.unary_unary

    async def call(data: bytes, context: grpc.aio.ServicerContext) -> Any:
        try:
            request = parse(data)
        except DecodeError as error:
            await context.abort(grpc.StatusCode.INTERNAL, str(error))
        return await respond(request, context)

    return grpc.unary_unary_rpc_method_handler(call, response_serializer=handler.response_serializer)
