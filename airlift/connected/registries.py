"""The registries that a run reads from: one client each, with docker's login."""

from __future__ import annotations

import threading

from airlift.connected.source import Settings
from airlift.transport import credentials
from airlift.transport.http import HttpClient
from airlift.transport.registry import RegistryClient


class Registries:
    """Clients by registry. Safe to use from many threads."""

    def __init__(self, settings: Settings, http: HttpClient) -> None:
        self._settings = settings
        self._http = http
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, bool], RegistryClient] = {}

    def client(self, registry: str, *, plain_http: bool) -> RegistryClient:
        """Return the client of a registry.

        Raises:
            FetchError: docker's configuration is malformed, or its helper program fails.
        """
        with self._lock:
            key = (registry, plain_http)
            if key not in self._clients:
                login = credentials.find(self._settings.docker_config, registry, self._settings.environment)
                self._clients[key] = RegistryClient(registry, http=self._http, credentials=login, plain_http=plain_http)
            return self._clients[key]
