# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Files from web addresses that clients name, so that no client reaches what it could not reach itself."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from urllib.parse import urljoin

import httpcore

from ..network import is_public


# A file is fetched in so many seconds, over so many other addresses
SECONDS, MAX_REDIRECTS = 10, 3
REDIRECTS = (301, 302, 303, 307, 308)


class FetchError(Exception):
    """Why a file cannot be fetched."""


class AllowedNetwork(httpcore.AsyncNetworkBackend):
    """
    Connects to hosts of which every address is allowed, whatever leads to them: a redirect too. It connects to the
    address that it has looked at, so that a name cannot mean another one a moment later.

    Args:
        is_allowed (`Callable[[str], bool]`):
            Of an IP address.
    """

    def __init__(self, is_allowed: Callable[[str], bool]):
        self.is_allowed, self.backend = is_allowed, httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable | None = None,
    ) -> httpcore.AsyncNetworkStream:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(place[0] for *_, place in found))
        if not all(map(self.is_allowed, addresses)):
            raise FetchError(f"{host} is in a private network (`--allow_urls all` allows these)")
        return await self.backend.connect_tcp(addresses[0], port, timeout, local_address, socket_options)


async def fetch(url: str, max_bytes: int, is_allowed: Callable[[str], bool] = is_public) -> bytes:
    """
    A file from a web address.

    Args:
        url (`str`):
            `http://...` or `https://...`.
        max_bytes (`int`):
            The most that is read.
        is_allowed (`Callable[[str], bool]`, *optional*):
            Which IP addresses are connected to. Default: those of the internet.

    Raises:
        `FetchError`: if it cannot be fetched in ten seconds, is larger, or is at an address that is not allowed.
    """
    try:
        return await asyncio.wait_for(follow(url, max_bytes, is_allowed), SECONDS)
    except (asyncio.TimeoutError, httpcore.TimeoutException) as error:
        raise FetchError(f"it takes more than {SECONDS} seconds") from error
    # what the name, the network, the protocol or the address itself may be wrong with
    except (OSError, ValueError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise FetchError(str(error) or type(error).__name__) from error


async def follow(url: str, max_bytes: int, is_allowed: Callable[[str], bool]) -> bytes:
    """The file, by way of redirects."""
    async with httpcore.AsyncConnectionPool(network_backend=AllowedNetwork(is_allowed)) as pool:
        for _ in range(MAX_REDIRECTS + 1):
            async with pool.stream("GET", url, headers={"User-Agent": "lotlip", "Accept": "image/*"}) as response:
                if response.status in REDIRECTS:
                    headers = {name.lower(): value for name, value in response.headers}
                    url = urljoin(url, headers.get(b"location", b"").decode("ascii", "replace"))
                    continue
                if response.status != 200:
                    raise FetchError(f"the server says {response.status}")
                content = bytearray()
                async for part in response.aiter_stream():
                    content += part
                    if len(content) > max_bytes:
                        raise FetchError(f"it has more than {max_bytes} bytes")
                return bytes(content)
    raise FetchError(f"there are more than {MAX_REDIRECTS} redirects")
