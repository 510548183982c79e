"""An incident report, shown: on a page that can be read out at a desk, or as one object for programs.

Never here: what belongs to an incident (audit.report), or the words for what happens to a message (console.telling).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from smtpguard.audit.about import About
from smtpguard.audit.chain import Clear, Entry, instant
from smtpguard.audit.event import Kind
from smtpguard.audit.report import End, Report, Sum
from smtpguard.audit.timeline import Step
from smtpguard.cli.shown import plain
from smtpguard.console.rulewords import FACTS
from smtpguard.console.speech import Speech
from smtpguard.console.telling import told as in_words
from smtpguard.guard.mailings import row as mailing_row
from smtpguard.policy.admission import Selector
from smtpguard.policy.freezing import FREEZE

if TYPE_CHECKING:
    from smtpguard.store.incident import Found

MOST = 10
"""Of addresses, subjects and the like so many are shown, those with the most messages."""
FEW = 4
"""Of what a rule saw, and of contents."""
_ENGLISH = Speech()
_BECAME = {
    End.DELIVERED: "delivered: the relay took it",
    End.RELEASED: "delivered after people had approved it",
    End.IN_DOUBT: "in doubt: nobody knows whether the relay took it",
    End.ON_ITS_WAY: "approved, and on its way",
    End.WAITING: "held: people are still to decide",
    End.DECLINED: "held, and people decided that it does not go out",
    End.WITHDRAWN: "held, and withdrawn by its writer",
    End.EXPIRED: "held, and nobody decided in time: it does not go out",
    End.VOID: "not taken: its client was told to try again",
    End.REJECTED: "rejected by a rule",
    End.DEFERRED: "put off: its client has it still",
    End.REFUSED: "refused by the relay",
    End.NOT_SENT: "stopped before it was sent",
}
_NAMING = frozenset({"reverse_path", "from", "subject", "by", "sentence", "client", "replies"})
"""What names people, or may, in a row of a mailing and in the data of an entry."""
_MODES = {"enforce": "", "observe": " (observes)", "approved": " (approved)"}


def told(
    found: Found, report: Report, about: About, purposes: Mapping[str, str], made: datetime, by: str, *, names: bool
) -> Iterator[str]:
    """The page, line by line. ``purposes``: rule to what it is for, as far as that is known."""
    yield f"INCIDENT REPORT, made {_moment(made)} by {by}"
    yield f"About: {'; '.join(_asked(about, names))}"
    yield f"Proof: {_proof(found)}"
    yield ""
    yield _in_short(report)
    yield from _titled("What became of it", _ends(report))
    yield from _titled("Mailings, in distinct people over all of their time", _mailings(found, names))
    yield from _titled("Who", _who(report, names))
    yield from _titled("What", _what(report, names))
    yield from _titled("Why", _why(report, purposes, names))
    yield from _titled("When, by the numbers of the journal", _when(report, names))
    yield from _titled("What is not known", _not_known(found, report))


def _titled(title: str, lines: Iterable[str]) -> Iterator[str]:
    lines = list(lines)
    if lines:
        yield ""
        yield title.upper()
        yield from (f"  {line}" for line in lines)


def _in_short(report: Report) -> str:
    reached, still = report.reached, report.open
    if reached.messages:
        said = f"{_messages(reached)} went out, to {_people(reached)}."
    elif End.IN_DOUBT in report.ends:
        said = "It is not known that anything went out."
    else:
        said = "Nothing of it went out through this guard."
    if still.messages:
        said += f" Still open: {_messages(still)}, for {_people(still)}."
    when = f"between {_moment(report.first)} and {_moment(report.last)}"
    if report.first == report.last:
        when = f"at {_moment(report.first)}"
    came = f"{report.messages:,} message{'s' * (report.messages != 1)} came {when}."
    return f"{came} {said}"


def _ends(report: Report) -> Iterator[str]:
    for end, some in report.ends.items():
        yield f"{_messages(some)}, for {_people(some)}: {_BECAME[end]}"
    if report.again:
        yield f"{_times(report.again)} what was held already came again, which counts as the same message"
    if report.parts:
        yield f"{_times(report.parts)} the colleagues among its recipients got it while their customers' part was held"
    if report.undelivered:
        yield f"{report.undelivered:,} of the recipients of what was approved were refused by the relay"


def _mailings(found: Found, names: bool) -> Iterator[str]:
    for one in found.mailings[:MOST]:
        people = one.people
        titled = f' "{plain(one.subject)}"' if one.subject and names else ""
        counts = (
            (people.relayed, "got it"),
            (people.admitted, "have it on the way"),
            (people.held, "held"),
            (people.deferred, "wait at the client"),
            (people.refused, "refused by the relay"),
        )
        said = ", ".join(f"{n:,} {word}" for n, word in counts if n) or "nobody got it"
        reported = (
            f"; {one.bounces:,} bounces and {one.complaints:,} complaints" if one.bounces or one.complaints else ""
        )
        yield f"{one.mailing_id}{titled}, {one.state.value}: {said}{reported}"
    if len(found.mailings) > MOST:
        yield f"and {len(found.mailings) - MOST:,} more: smtpguard mailings list"


def _who(report: Report, names: bool) -> Iterator[str]:
    if names:
        for role in dict.fromkeys(role for role, _ in report.writers):
            yield from _counted(role, Counter({a: n for (r, a), n in report.writers.items() if r == role}))
        yield from _counted("client", report.clients)


def _what(report: Report, names: bool) -> Iterator[str]:
    if names:
        yield from _counted("subject", report.subjects)
    yield from _counted("list", report.lists)
    yield from _counted("content, SHA-256", report.contents, most=FEW)


def _why(report: Report, purposes: Mapping[str, str], names: bool) -> Iterator[str]:
    for (rule, mode), n in report.rules.most_common():
        many = f" ({n:,})" if report.messages > 1 else ""
        purpose = f": {purposes[rule]}" if purposes.get(rule) else ""
        yield plain(f"rule {rule}{_MODES.get(mode, '')}{purpose}{many}")
        seen = [(one, m) for one, m in report.reasons.most_common() if one[0] == rule and mode == "enforce"]
        for (_, fact, observed, limit), m in seen[:FEW]:
            observed = observed if names or fact != FREEZE else _what_is_frozen(observed)
            values = f"{observed or 'not shown'}, the limit {limit}" if limit else observed or "not shown"
            yield plain(f"  {FACTS.get(fact, fact)}: {values[:200]}" + (f" ({m:,})" if m != n else ""))
    yield from _counted("policy", report.policies)


def _counted(what: str, counter: Counter[str], *, most: int = MOST) -> Iterator[str]:
    for value, n in counter.most_common(most):
        yield plain(f"{what}: {value}" + (f" ({n:,})" if len(counter) > 1 else ""))
    if len(counter) > most:
        yield f"{what}: {len(counter) - most:,} more"


def _when(report: Report, names: bool) -> Iterator[str]:
    for step in report.steps:
        yield plain(f"{step.entry.seq:>8}  {_moment(instant(step.entry.at), zone=False)}  {_line(step, names)}")
        if step.left_out:
            yield f"{'':>8}  ... and {step.left_out:,} more of this kind, before the next of it"


def _line(step: Step, names: bool) -> str:
    entry = step.entry
    said = in_words(entry, step.clear, _ENGLISH)
    parts = [said.text, *_details(entry)]
    if names and said.who:
        parts.append(f"{'to' if entry.kind in (Kind.NOTICE.value, Kind.RELEASE.value) else 'by'} {said.who}")
    text = f"{entry.id}  {', '.join(parts)}"
    return f'{text}: "{said.words}"' if names and said.words else text


def _details(entry: Entry) -> Iterator[str]:
    """What the words for its kind do not say."""
    data = entry.data
    if entry.kind == Kind.VERDICT.value:
        yield f"for {data.get('counts', {}).get('reach', 0):,}"
        yield from (f"rule {rule}" for rule in data.get("rules", ()))
    elif entry.kind in (Kind.FREEZE.value, Kind.THAW.value, Kind.THAW_ASKED.value):
        yield f"{data.get('selector')} {data.get('value') or ''}".rstrip()
    elif entry.kind == Kind.POLICY.value:
        yield str(data.get("sha256", ""))[:12]
    elif entry.kind == Kind.MAILING.value:
        yield str(data.get("what", ""))
    elif "with" in data:
        yield f"with {data['with']}"


def _not_known(found: Found, report: Report) -> Iterator[str]:
    if report.unsettled:
        shown = ", ".join(report.unsettled[:MOST])
        more = f" and {len(report.unsettled) - MOST:,} more" if len(report.unsettled) > MOST else ""
        yield f"whether the relay took {shown}{more}: look in its own log"
    if report.reached.messages > 1 or any(some.messages > 1 for some in report.ends.values()):
        yield "above, each message counts its own people: who got two of them is counted twice, save where it says distinct"
    if any(some.at_least for some in report.ends.values()):
        yield "how many people exactly: of some messages a list could not say who is on it"
    if report.erased:
        yield f"who wrote {report.erased:,} of the messages, and their subjects: retention has erased it"
    if found.proof is None:
        yield "whether the journal is whole: nobody asked (--no-proof)"
    if End.DEFERRED in report.ends:
        yield "what became of what was put off: a client that came again with it is counted once more, by what became of that"
    yield "what went another way than through this guard, and who read what was delivered"


def _proof(found: Found) -> str:
    if found.proof is None:
        said = "not looked for"
    elif found.proof.ok:
        said = f"the journal is whole, each of its {found.proof.entries:,} entries checked"
    else:
        assert found.proof.first_bad is not None
        bad = found.proof.first_bad
        said = f"THE JOURNAL IS NOT WHAT WAS WRITTEN: entry {bad.seq}: {bad.problem}"
    mark = found.checkpoint
    signed = f"; entry {mark.seq:,} signed {_moment(instant(mark.at))}" if mark is not None else ""
    return f"{said}; last entry {found.seq:,}, {found.hash.hex()}{signed}"


def _asked(about: About, names: bool) -> Iterator[str]:
    yield from sorted(about.ids)
    yield from (f"list {name}" for name in sorted(about.lists))
    if names:
        yield from (f"sender {plain(address)}" for address in sorted(about.senders))
        if about.subject:
            yield f'subject with "{plain(about.subject)}"'
    elif about.senders or about.subject:
        yield "what somebody wrote"
    if about.since is not None:
        yield f"since {_moment(instant(about.since))}"
    if about.until is not None:
        yield f"until {_moment(instant(about.until))}"


def _moment(at: datetime, *, zone: bool = True) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}{' UTC' * zone}"


def _messages(some: Sum) -> str:
    return f"{some.messages:,} message{'s' * (some.messages != 1)}"


def _people(some: Sum) -> str:
    many = "person" if some.people == 1 else "people"
    return f"{'at least ' * some.at_least}{some.people:,} {many}"


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"


def row(found: Found, report: Report, about: About, made: datetime, *, names: bool) -> dict[str, Any]:
    """One object; the shapes of ``mailings`` are those of ``mailings list``, of ``timeline`` those of ``audit export``."""
    proof = found.proof
    return {
        "about": list(_asked(about, names)),
        "made_at": made,
        "journal": {
            "id": found.journal,
            "seq": found.seq,
            "hash": found.hash.hex(),
            "signed_seq": found.checkpoint.seq if found.checkpoint is not None else None,
            "signed_at": instant(found.checkpoint.at) if found.checkpoint is not None else None,
        },
        "proof": None if proof is None else {
            "ok": proof.ok,
            "entries": proof.entries,
            "first_bad": None if proof.first_bad is None else {"seq": proof.first_bad.seq, "problem": proof.first_bad.problem},
        },
        "first_at": report.first,
        "last_at": report.last,
        "messages": report.messages,
        "again": report.again,
        "reached": _sum(report.reached),
        "open": _sum(report.open),
        "ends": [{"end": end.value, **_sum(some)} for end, some in report.ends.items()],
        "undelivered": report.undelivered,
        "parts": report.parts,
        "lists": _counts("name", report.lists),
        "mailings": [_unnamed(mailing_row(one), names) for one in found.mailings],
        "writers": [{"role": role, "address": a, "messages": n} for (role, a), n in report.writers.most_common()] * names,
        "clients": _counts("address", report.clients) * names,
        "subjects": _counts("text", report.subjects) * names,
        "contents": _counts("sha256", report.contents),
        "rules": [{"rule": rule, "mode": mode, "messages": n} for (rule, mode), n in report.rules.most_common()],
        "policies": _counts("sha256", report.policies),
        "erased": report.erased,
        "unsettled": list(report.unsettled),
        "timeline": [_step(step, names) for step in report.steps],
    }  # fmt: skip


def _sum(some: Sum) -> dict[str, Any]:
    return {"messages": some.messages, "people": some.people, "at_least": some.at_least}


def _counts(name: str, counter: Counter[str]) -> list[dict[str, Any]]:
    return [{name: value, "messages": n} for value, n in counter.most_common()]


def _unnamed(value: Any, names: bool) -> Any:
    """Without what names people or is their words, however deep."""
    if names:
        return value
    if isinstance(value, (list, tuple)):
        return [_unnamed(some, names) for some in value]
    if not isinstance(value, Mapping):
        return value
    shown = {key: None if key in _NAMING else _unnamed(some, names) for key, some in value.items()}
    if value.get("fact") == FREEZE:
        shown["observed"] = _what_is_frozen(str(value.get("observed") or ""))
    return shown


def _what_is_frozen(observed: str) -> str:
    """ "sender": entries of earlier versions have the address behind it."""
    return observed.partition(" ")[0] if observed.startswith(f"{Selector.SENDER.value} ") else observed


def _step(step: Step, names: bool) -> dict[str, Any]:
    entry, clear = step.entry, step.clear
    return {
        "seq": entry.seq,
        "at": entry.time,
        "kind": entry.kind,
        "id": entry.id,
        "data": _unnamed(entry.data, names),
        "private": _shown(clear) if names else None,
        "text": in_words(entry, clear, _ENGLISH).text,
        "hash": entry.hash.hex(),
        "left_out": step.left_out,
    }


def _shown(clear: Clear | None) -> dict[str, list[str]] | None:
    """Recipients are people who had no part in it: their number is enough."""
    return None if clear is None else {role: list(v) for role, v in clear.items() if role != "recipients"}
