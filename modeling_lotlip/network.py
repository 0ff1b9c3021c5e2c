# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Addresses: which are listened at, and which are of the internet."""

import ipaddress
import socket


# IPv6 addresses that stand for IPv4 ones behind a translator: who knows which
TRANSLATED = [
    ipaddress.ip_network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
]


def is_loopback(host: str) -> bool:
    """
    Whether only programs on this machine reach an address.

    Example:

    ```python
    >>> from modeling_lotlip.network import is_loopback

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    ```"""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name
        return False


def listen(host: str, port: int) -> socket.socket:
    """
    A socket that listens.

    Args:
        host (`str`):
            The address.
        port (`int`):
            The port. 0: any that is free.

    Raises:
        `ValueError`: if that is not possible.

    Example:

    ```python
    >>> from modeling_lotlip.network import listen

    >>> with listen("127.0.0.1", 0) as listener:
    ...     listener.getsockname()[1] > 0
    True
    ```"""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"--host {host} --port {port} cannot be listened at: {reason}. Name others.") from error


def is_public(address: str) -> bool:
    """
    Whether an IP address is one of the internet: not this machine, not a private network.

    Example:

    ```python
    >>> from modeling_lotlip.network import is_public

    >>> [is_public(address) for address in ("8.8.8.8", "127.0.0.1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1")]
    [True, False, False, False, False]
    ```"""
    ip = ipaddress.ip_address(address.partition("%")[0])  # without the zone
    ip = getattr(ip, "ipv4_mapped", None) or ip
    is_translated = any(ip in network for network in TRANSLATED if network.version == ip.version)
    return ip.is_global and not ip.is_multicast and not is_translated
