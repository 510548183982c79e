"""The name in each SASL mechanism: exact, and for any octets a name or one refusal."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpguard.wire import sasl
from smtpguard.wire.grammar import Refused
from tests.every import every


@every(
    ("mechanism", "response", "name"),
    [
        ("PLAIN", b"\0anna\0x", "anna"),
        ("PLAIN", b"boss\0anna\0x", "anna"),
        ("PLAIN", "\0ånna@exämple.com\0å".encode(), "ånna@exämple.com"),
        ("LOGIN", b"EXAMPLE\\anna", "EXAMPLE\\anna"),
        ("XOAUTH2", b"user=anna@example.com\x01auth=Bearer x\x01\x01", "anna@example.com"),
        ("OAUTHBEARER", b"n,a=anna@example.com,\x01host=x\x01port=587\x01auth=Bearer x\x01\x01", "anna@example.com"),
        ("OAUTHBEARER", b"n,a=a=2Cb=3D2C,\x01auth=Bearer x\x01\x01", "a,b=2C"),
    ],
)
def test_the_name_in_each_mechanism(mechanism: str, response: bytes, name: str) -> None:
    assert sasl.who(mechanism, bytearray(response)) == name


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sasl.CARRIED), st.binary(max_size=60) | st.binary(max_size=20).map(lambda b: b"\0" + b + b"\0x"))
def test_any_response_gives_a_name_or_a_refusal(mechanism: str, response: bytes) -> None:
    try:
        name = sasl.who(mechanism, bytearray(response))
    except Refused:
        return
    assert name
    assert name.isprintable()
    assert len(name) <= sasl.MAX_NAME
    assert name.encode() in response or mechanism == "OAUTHBEARER"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_any_auth_command_is_parsed_or_refused(argument: bytes) -> None:
    try:
        mechanism, initial = sasl.parse_auth(argument)
    except Refused:
        return
    assert mechanism.encode() in argument.upper()
    assert initial is None or initial == b"" or initial in argument


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_base64_is_decoded(raw: bytes) -> None:
    assert sasl.decoded(base64.b64encode(raw)) == raw


@every("coded", [b"a", b"abc", b"ab=c", b"====", b"ab c", b"ab\tc=", b"%", b"YWI=YWI="])
def test_invalid_base64_is_refused(coded: bytes) -> None:
    with pytest.raises(Refused):
        sasl.decoded(coded)


def test_secrets_are_wiped() -> None:
    secret = bytearray(b"secret")
    sasl.wipe((secret,))
    assert secret == bytes(6)
