# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Addresses that a server listens at."""

import ipaddress
import socket

from .terminal import without_stop


def is_loopback(host: str) -> bool:
    """Returns whether only programs on this machine reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name
        return False


def listen(host: str, port: int) -> socket.socket:
    """Opens a socket that listens, at any free port for 0. Raises a `ValueError` if that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        detail = getattr(error, "strerror", None) or error
        raise ValueError(
            f"Cannot listen at --host {host} --port {port}: {without_stop(detail)}. Name others."
        ) from error
