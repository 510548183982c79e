#!/usr/bin/env python3
"""Verify a journal that `smtpguard audit export --signed` wrote, or what `audit prove` printed: without smtpguard, and without a secret.

verify.py KEY FILE [NOTES]      (KEY: as `audit key` shows it; NOTES: checkpoints that somebody else has kept; docs/audit.md)
"""

import hashlib
import json
import re
import sys
from base64 import b64decode
from contextlib import suppress
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

DOMAIN = b"smtpguard journal entry 1\n"
NOTE = re.compile("smtpguard/\\w+\\n\\d+\\n(?:[^\\n]+\\n)+\\n\\u2014 smtpguard/\\w+ [A-Za-z0-9+/]+=*")
SIGNED = """
Who signed the time stamps, OpenSSL finds out; of the newest one: jq -c 'select(.timestamp)' {file} | tail -n 1 > stamp
jq -rj .checkpoint stamp > note; jq -r .timestamp stamp | base64 -d > reply; openssl ts -verify -data note -in reply -CAfile authority.pem"""


def once(pairs):
    return dict(pairs) if len(dict(pairs)) == len(pairs) else sys.exit("verify: a line has the same key twice")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def key_of(text):
    """The log's name, the four octets by which a signature names the key, and the key."""
    name, id, octets = text.strip().split("+", 2)
    raw = b64decode(octets)
    if raw[:1] != b"\x01" or sha256(name.encode(), b"\n", raw)[:4].hex() != id:
        sys.exit("verify: this is no Ed25519 key of a signed note")
    return name, bytes.fromhex(id), raw[1:]


def verifies(key, text, signature):
    with suppress(InvalidSignature):
        return Ed25519PublicKey.from_public_bytes(key[2]).verify(signature, text) is None


def read_note(text, keys):
    """What a signed checkpoint says, where one of the keys has signed it."""
    body, _, signatures = text.partition("\n\n")
    for line in signatures.splitlines():
        _, name, octets = line.split(" ")
        raw = b64decode(octets)
        if any(name == k[0] and raw[:4] == k[1] and verifies(k, f"{body}\n".encode(), raw[4:]) for k in keys):
            _, size, root, entry, time, *_ = body.splitlines()
            _, seq, hash = entry.split()
            return int(seq), bytes.fromhex(hash), int(size), b64decode(root), time.split()[1]
    return sys.exit(f"verify: not signed by this key: {text.splitlines()[3]}")


def hash_of(e):
    text = f"{e['seq']} {e['at_microseconds']} {len(e['kind'])}:{e['kind']} {len(e['id'])}:{e['id']} {len(e['body'])}:{e['body']}"
    hash = sha256(DOMAIN, bytes.fromhex(e["prev"]), text.encode("utf-8", "surrogatepass"))
    if hash.hex() != e["hash"]:
        sys.exit(f"verify: entry {e['seq']} was edited: it does not fit its hash")
    at = f"{datetime.fromtimestamp(e['at_microseconds'] // 10**6, UTC):%Y-%m-%dT%H:%M:%SZ}"
    if (e["at"], e["data"]) != (at, json.loads(e["body"])["data"]):
        sys.exit(f"verify: entry {e['seq']} was edited: at or data, which people read, is not what was hashed")
    return hash


def followed(keys, e):
    """An entry that says that another key signs from now on, and is signed by one that is trusted and by the new one."""
    data = json.loads(e["body"])["data"]
    if e["kind"] in ("key", "secret") and data.get("key") and data.get("before"):
        old, new = key_of(data["before"]), key_of(data["key"])
        text = f"smtpguard: {data['key']} follows {data['before']}\n".encode()
        signed = ((old, b64decode(data["signed_by_before"])), (new, b64decode(data["signed_by_key"])))
        if all(verifies(key, text, by) for key, by in signed) and (old in keys or new in keys):
            keys += [key for key in (old, new) if key not in keys]


def der(octets, place, *path):
    """What is in the element at this place of some DER; ``path``: in which of its elements."""
    for _ in range(place + 1):
        at, size = 2, octets[1]
        if size > 127:  # so many octets more have the length
            at, size = size - 126, int.from_bytes(octets[2 : size - 126], "big")
        found, octets = octets[at : at + size], octets[at + size :]
    return der(found, *path) if path else found


def stamped(row, seq):
    """When an authority had a checkpoint, as its reply says (RFC 3161, section 2.4.2)."""
    over = ()
    with suppress(IndexError, ValueError):
        info = der(b64decode(row["timestamp"]), 0, 1, 1, 0, 2, 1, 0, 0)
        over, time = (der(info, 2, 0, 0), der(info, 2, 1)), der(info, 4).decode()
    if over != (bytes.fromhex("608648016503040201"), sha256(row["checkpoint"].encode())):
        sys.exit(f"verify: the time stamp of the checkpoint of entry {seq} is over something else, or cannot be read")
    return f"\ntime stamp over the checkpoint of entry {seq}: {time}"


def journal(rows, keys, notes):
    """Every entry after the one before, every checkpoint against the entries and, from entry 1 on, against their Merkle tree (RFC 6962)."""
    entries = [row for row in rows if "hash" in row] or sys.exit("verify: there is no entry")
    for e in entries:
        followed(keys, e)
    marks, stamps = {}, ""
    for row in [row for row in rows if "checkpoint" in row] + [{"checkpoint": note} for note in notes]:
        mark = read_note(row["checkpoint"], keys)
        marks.setdefault(mark[0], []).append(mark)
        stamps += stamped(row, mark[0]) if "timestamp" in row else ""
    first, stack, signed = entries[0]["seq"], [], None
    last, prev = first - 1, "00" * 32 if first == 1 else entries[0]["prev"]
    for n, e in enumerate(entries, start=1):
        seq, hash = e["seq"], hash_of(e)
        if (seq, e["prev"]) != (last + 1, prev):
            sys.exit(f"verify: entry {seq} does not follow entry {last}")
        made, size = sha256(b"\x00", hash), n
        while not size & 1:
            made, size = sha256(b"\x01", stack.pop(), made), size >> 1
        stack.append(made)
        for signed in marks.pop(seq, []):
            root = reduce(lambda root, left: sha256(b"\x01", left, root), stack[::-1])
            if signed[1] != hash or (first == seq - signed[2] + 1 and root != signed[3]):
                sys.exit(f"verify: entry {seq}, or the tree up to it, is not the one that was signed at {signed[4]}")
        prev, last = e["hash"], seq
    if max(marks, default=0) > last:
        sys.exit(f"verify: the end is cut: entries up to {max(marks)} were signed, and the last one is {last}")
    signed = signed or sys.exit("verify: no checkpoint signs any of these entries")
    rest = f"; {last - signed[0]} after it are not" if last > signed[0] else ""
    return f"{len(entries)} entries follow each other; signed up to entry {signed[0]}, at {signed[4]}{rest}{stamps}"


def inclusion(row, keys):
    """One entry against the tree of a checkpoint (RFC 9162, section 2.1.3.2)."""
    (_, _, size, root, time), e = read_note(row["checkpoint"], keys), row["entry"]
    n, made, path = row["leaf"], sha256(b"\x00", hash_of(e)), [bytes.fromhex(step) for step in row["path"]]
    inner = (n ^ (size - 1)).bit_length()  # above it the tree has nothing to the right
    for level, step in enumerate(path):
        made = sha256(b"\x01", step, made) if level >= inner or n >> level & 1 else sha256(b"\x01", made, step)
    if made != root or n >= size or len(path) != inner + (n >> inner).bit_count():
        sys.exit("verify: the entry is not in the tree that was signed")
    return f"entry {e['seq']} is in the journal that was signed at {time}"


def main(key, file, notes=None):
    rows = [json.loads(line, object_pairs_hook=once) for line in Path(file).read_text("utf-8").splitlines()]
    text = re.sub(r"\\+u2014", "\u2014", re.sub(r"\\+n", "\n", Path(notes).read_text("utf-8"))) if notes else ""
    kept, keys = [f"{note}\n" for note in NOTE.findall(text)], [key_of(key)]
    said = inclusion(rows[0], keys) if rows and "path" in rows[0] else journal(rows, keys, kept)
    print(said + SIGNED.format(file=file) if "\n" in said else said)


if __name__ == "__main__":
    sys.excepthook = lambda kind, error, _: print(f"verify: {kind.__name__}: {error}", file=sys.stderr)
    main(*sys.argv[1:]) if len(sys.argv) in (3, 4) else sys.exit(f"usage: {__doc__.splitlines()[2]}")
