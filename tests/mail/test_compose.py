"""Text of strangers made safe to show: bounded, limited to a number of lines, and without invisible characters that
have an effect."""

from __future__ import annotations

from smtpguard.mail import compose


def test_text_is_bounded_and_escaped() -> None:
    assert compose.one_line("a\u202eb\u200bc\u00a0d\x00\r\ne") == "a\\u202ebc d\\u0000 e"
    assert compose.one_line("x" * 400).endswith("…")
    assert len(compose.one_line("x" * 400)) == 300
    assert compose.some_lines("a\r\nb\rc").split("\n") == ["a", "b", "c"]
    assert compose.some_lines("\n".join("x" * 99)).endswith("…")
    assert compose.shown_address("no address\r\n") == "no address"
    assert compose.message_ids("junk <a@b> <c d@e> <f@g>") == "<a@b>\r\n <f@g>"
