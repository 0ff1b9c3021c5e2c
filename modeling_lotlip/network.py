# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Addresses that a server listens at."""

import ipaddress
import socket


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
