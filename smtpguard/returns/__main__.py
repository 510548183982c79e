"""``python -m smtpguard.returns``: read a feed in a process that can be killed.

On standard input is a line of JSON, with the feed's Content-Type, its name, and the time now, and then the feed. On standard output are its
mentions, as JSON. The status is 1 for what is no feed, and not 0 where a limit is hit (``confine``).
"""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict
from datetime import datetime
from typing import BinaryIO, TextIO

import feedparser

from smtpguard.reading.__main__ import allow, confine
from smtpguard.returns.mentions import of_feed

SECONDS = 20.0
"""The most processor time, should nobody kill the process."""


def main(source: BinaryIO, sink: TextIO) -> int:
    head, body = json.loads(source.readline()), source.read()  # feedparser would fetch a str that looks like a URL
    found = feedparser.parse(io.BytesIO(body), response_headers={"content-type": head["kind"]} if head["kind"] else {})
    made = of_feed(head["source"], found, datetime.fromisoformat(head["now"]))
    if not made and found.get("bozo"):
        return 1
    json.dump([{**asdict(one), "at": one.at.isoformat()} for one in made], sink)
    return 0


if __name__ == "__main__":
    confine()
    allow(SECONDS)
    sys.exit(main(sys.stdin.buffer, sys.stdout))
