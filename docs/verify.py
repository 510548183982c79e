#!/usr/bin/env python3
"""Verify a journal that `smtpguard audit export --signed` wrote, or what `audit prove` printed: without smtpguard, and without a secret.

verify.py KEY FILE [NOTES]      (KEY: as `audit key` shows it; NOTES: checkpoints that somebody else has kept; docs/audit.md)
"""

import base64
import hashlib
import json
import re
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

DOMAIN = b"smtpguard journal entry 1\n"
NOTE = re.compile("smtpguard/\\w+\\n\\d+\\n(?:[^\\n]+\\n)+\\n\\u2014 smtpguard/\\w+ [A-Za-z0-9+/]+=*")


class Bad(Exception): ...


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def key_of(text):
    """The log's name, the four octets by which a signature names the key, and the key."""
    name, id, octets = text.strip().split("+", 2)
    raw = base64.b64decode(octets)
    if raw[:1] != b"\x01" or sha256(name.encode(), b"\n", raw)[:4].hex() != id:
        raise Bad("this is no Ed25519 key of a signed note")
    return name, bytes.fromhex(id), raw[1:]


def verifies(key, text, signature):
    try:
        Ed25519PublicKey.from_public_bytes(key[2]).verify(signature, text)
    except InvalidSignature:
        return False
    return True


def read_note(text, keys):
    """What a signed checkpoint says, where one of the keys has signed it."""
    body, _, signatures = text.partition("\n\n")
    body += "\n"
    for line in signatures.splitlines():
        _, name, octets = line.split(" ")
        raw = base64.b64decode(octets)
        if any(name == k[0] and raw[:4] == k[1] and verifies(k, body.encode(), raw[4:]) for k in keys):
            _, size, root, *rest = body.splitlines()
            said = dict(line.partition(" ")[::2] for line in rest)
            seq, hash = said["entry"].split()
            root, hash = base64.b64decode(root), bytes.fromhex(hash)
            return {"size": int(size), "root": root, "seq": int(seq), "hash": hash, "time": said["time"]}
    raise Bad(f"not signed by this key: {text.splitlines()[3]}")


def link(e):
    text = f"{e['seq']} {e['at_microseconds']} {len(e['kind'])}:{e['kind']} {len(e['id'])}:{e['id']} {len(e['body'])}:{e['body']}"
    return sha256(DOMAIN, bytes.fromhex(e["prev"]), text.encode("utf-8", "surrogatepass"))


def followed(keys, e):
    """An entry that says that another key signs from now on, and is signed by one that is trusted and by the new one."""
    data = json.loads(e["body"])["data"]
    if e["kind"] in ("key", "secret") and data.get("key") and data.get("before"):
        old, new = key_of(data["before"]), key_of(data["key"])
        text = f"smtpguard: {data['key']} follows {data['before']}\n".encode()
        both = base64.b64decode(data["signed_by_before"]), base64.b64decode(data["signed_by_key"])
        if verifies(old, text, both[0]) and verifies(new, text, both[1]) and (old in keys or new in keys):
            keys += [key for key in (old, new) if key not in keys]


def root_of(stack):
    root = stack[-1]
    for left in reversed(stack[:-1]):
        root = sha256(b"\x01", left, root)
    return root


def journal(rows, keys, notes):
    """Every entry after the one before, every checkpoint against the entries and, from entry 1 on, against their Merkle tree (RFC 6962)."""
    entries = [row for row in rows if "hash" in row]
    for e in entries:
        followed(keys, e)
    marks = {}
    for text in [row["checkpoint"] for row in rows if "checkpoint" in row] + notes:
        mark = read_note(text, keys)
        marks.setdefault(mark["seq"], []).append(mark)
    prev, last, stack, signed = "00" * 32 if entries and entries[0]["seq"] == 1 else None, None, [], None
    for n, e in enumerate(entries, start=1):
        seq, hash = e["seq"], bytes.fromhex(e["hash"])
        if (last is not None and seq != last + 1) or (prev is not None and e["prev"] != prev):
            raise Bad(f"entry {seq} does not follow entry {last}")
        if link(e) != hash:
            raise Bad(f"entry {seq} was edited: it does not fit its hash")
        made, size = sha256(b"\x00", hash), n
        while not size & 1:
            made, size = sha256(b"\x01", stack.pop(), made), size >> 1
        stack.append(made)
        for mark in marks.pop(seq, []):
            if mark["hash"] != hash:
                raise Bad(f"entry {seq} is not the one that was signed at {mark['time']}")
            if entries[0]["seq"] == seq - mark["size"] + 1 and root_of(stack) != mark["root"]:
                raise Bad(f"the tree up to entry {seq} is not the one that was signed at {mark['time']}")
            signed = mark
        prev, last = e["hash"], seq
    if max(marks, default=0) > (last or 0):
        raise Bad(f"the end is cut: entries up to {max(marks)} were signed, and the last one is {last}")
    if signed is None:
        raise Bad("no checkpoint signs any of these entries")
    rest = f"; {last - signed['seq']} after it are not" if last > signed["seq"] else ""
    return f"{len(entries)} entries follow each other; signed up to entry {signed['seq']}, at {signed['time']}{rest}"


def inclusion(row, keys):
    """One entry against the tree of a checkpoint (RFC 9162, section 2.1.3.2)."""
    mark, e = read_note(row["checkpoint"], keys), row["entry"]
    if link(e) != bytes.fromhex(e["hash"]):
        raise Bad("the entry was edited: it does not fit its hash")
    n, last, made = row["leaf"], mark["size"] - 1, sha256(b"\x00", bytes.fromhex(e["hash"]))
    for step in map(bytes.fromhex, row["path"]):
        if n & 1 or n == last:
            made = sha256(b"\x01", step, made)
            while n and not n & 1:
                n, last = n >> 1, last >> 1
        else:
            made = sha256(b"\x01", made, step)
        n, last = n >> 1, last >> 1
    if last or made != mark["root"]:
        raise Bad("the entry is not in the tree that was signed")
    return f"entry {e['seq']} is in the journal that was signed at {mark['time']}"


def main(key, file, notes=None):
    rows = [json.loads(line) for line in Path(file).read_text("utf-8").splitlines()]
    text = re.sub(r"\\+u2014", "\u2014", re.sub(r"\\+n", "\n", Path(notes).read_text("utf-8"))) if notes else ""
    kept = [f"{note}\n" for note in NOTE.findall(text)]
    keys = [key_of(key)]
    return inclusion(rows[0], keys) if "path" in rows[0] else journal(rows, keys, kept)


if __name__ == "__main__":
    try:
        print(main(*sys.argv[1:]))
    except Bad as bad:
        sys.exit(f"verify: {bad}")
