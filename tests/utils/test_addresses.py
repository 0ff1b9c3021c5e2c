"""Addresses that a server listens at."""

import socket

import pytest

from modeling_lotlip.utils.addresses import is_loopback, listen


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("192.168.0.1", False),
        ("::", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_an_address_is_reached_from_this_machine_alone(host, expected):
    assert is_loopback(host) == expected


def test_a_port_that_is_taken_is_refused():
    with listen("127.0.0.1", 0) as first:
        assert first.family == socket.AF_INET
        port = first.getsockname()[1]
        with pytest.raises(ValueError, match=f"at --host 127.0.0.1 --port {port}: .*in use"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_number_that_is_no_port_is_refused(port):
    with pytest.raises(ValueError, match=f"Cannot listen at --host 127.0.0.1 --port {port}: "):
        listen("127.0.0.1", port)
