"""Object stores for tests: one in memory that fails on order, and an S3 server."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

BLOB_KINDS = ("disk", "memory", "s3")
"""The stores that tests of blobs run with."""
OPERATIONS = ("info", "put_file", "cat_file", "get_file", "rm_file", "find")


class StoreDownError(Exception):
    """What a driver raises: of no kind that anybody else knows."""


class FaultyObjects(MemoryFileSystem):
    """Objects in memory under `s3://`; an operation fails when a test says so.

    As in an object store, an object appears when its upload ends.
    """

    protocol = "s3"
    store: dict[str, Any] = {}  # noqa: RUF012  shared by all, as a server's
    pseudo_dirs = [""]  # noqa: RUF012
    failing: frozenset[str] = frozenset()
    is_late = False

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return "/" + str(path).removeprefix("s3://").strip("/")

    @classmethod
    def names(cls) -> list[str]:
        return sorted(cls.store)

    @classmethod
    def change(cls, name: str, data: bytes | None) -> None:
        """Removes an object behind the cloud's back, or puts other bytes into it."""
        if data is None:
            del cls.store[name]
        else:
            filesystem = cls(skip_instance_cache=True)
            MemoryFileSystem.pipe_file(filesystem, name, data)

    @classmethod
    @contextmanager
    def failing_at(cls, *operations: str, late: bool = False) -> Iterator[None]:
        """While the block runs, operations fail: before they do anything, or after it all."""
        assert set(operations) <= set(OPERATIONS)
        cls.failing, cls.is_late = frozenset(operations), late
        try:
            yield
        finally:
            cls.failing = frozenset()


def _faulty(operation: str) -> Any:
    def call(self: FaultyObjects, *args: Any, **kwargs: Any) -> Any:
        is_failing = operation in self.failing
        if is_failing and not self.is_late:
            raise StoreDownError(operation)
        result = getattr(MemoryFileSystem, operation)(self, *args, **kwargs)
        if is_failing:
            raise StoreDownError(operation)
        return result

    return call


for _operation in OPERATIONS:
    setattr(FaultyObjects, _operation, _faulty(_operation))


def objects_in_memory(patch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store in memory; `s3://` means `FaultyObjects` meanwhile."""
    FaultyObjects.store.clear()
    FaultyObjects.pseudo_dirs[:] = [""]
    patch.setitem(_registry, "s3", FaultyObjects)
    return "s3://bucket/some/prefix"


class S3Server:
    """A server on loopback that keeps its objects in memory."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    def new_bucket(self, patch: pytest.MonkeyPatch) -> str:
        """The URL of an empty bucket; the driver's environment leads to it."""
        patch.setenv("AWS_ENDPOINT_URL", self._endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "an-access-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-key")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket = f"tests-{secrets.token_hex(6)}"
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket)
        return f"s3://{bucket}/some/prefix"


def missing_for_s3() -> str | None:
    """The first package that an S3 server and its driver lack here."""
    needed = ("s3fs", "moto", "flask", "flask_cors")
    return next((name for name in needed if importlib.util.find_spec(name) is None), None)


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """Starts a server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()
