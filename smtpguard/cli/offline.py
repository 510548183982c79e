"""Check what needs no network and no running guard: settings, policy, and the files that both name."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from urllib.parse import urlsplit

from smtpguard.app.certificates import ENDS_SOON_DAYS, Pair, ending, of_console, of_listener, of_relay, try_authorities
from smtpguard.app.files import CannotStart, contact, exposed, fleeting, paths, webhook_secret
from smtpguard.app.lists import people_of
from smtpguard.app.ownports import overlap, own_socket, own_sockets, relays, same_server, to_itself
from smtpguard.app.policycheck import CheckedPolicy, check_policy, display_path, file_problem, readable, warning
from smtpguard.config.documents import policy_document, policy_documents
from smtpguard.config.fields import (
    CREDENTIALS,
    NO_CREDENTIALS,
    Network,
    is_public,
    is_this_machine,
    loose_networks,
    read_secret,
)
from smtpguard.config.listeners import MilterListener, SenderRates, SmtpListener, network_text, open_to_all
from smtpguard.config.problem import Broken, Problem, did_you_mean, one_of, ordered
from smtpguard.config.settings import AlarmRelay, Route, Settings, read_settings
from smtpguard.config.yaml import Document, Place, load_yaml
from smtpguard.lists.digest import KEY_OCTETS
from smtpguard.lists.members import ListMembers, Remote
from smtpguard.locale.phrase import ENGLISH, many, span
from smtpguard.mail.address import Address, BadAddress
from smtpguard.mail.compose import mailbox_of
from smtpguard.notices.notice import NoticeHead, NoticeTemplates
from smtpguard.policy.parse import Policy
from smtpguard.policy.verdict import Mode

_HOST = re.compile(r"[^\s:/@\[\]]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[\w.-]+)?")
"""A name, an IPv4 or an IPv6 address; no place to connect to is spelled otherwise."""
_ELSEWHERE = "another host or port; or in listen what systemd has bound, if that is another address"
_ROUTES = Path("/proc/net/route")
_IN_CONTAINER = (Path("/.dockerenv"), Path("/run/.containerenv"))
_BRIDGE = re.compile(r"(docker|podman|cni|lxcbr|lxdbr|flannel)\w*\Z|br-[0-9a-f]{12}\Z")
_USUAL: Mapping[str, str] = {
    "172.17.0.0/16": "Docker's",
    "10.88.0.0/16": "Podman's",
    "10.42.0.0/16": "K3s's",
    "10.244.0.0/16": "Kubernetes'",
    "192.168.65.0/24": "Docker Desktop's",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found. ``found``: the policy, and who is on its lists; None if an earlier step failed."""

    settings: Settings | None = None
    found: CheckedPolicy | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def fatal(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.fatal)


def check(path: Path, *, live: bool = False) -> Checked:
    """Check the settings in ``path``, and their policy. A policy file is checked alone. ``live``: DNS may be asked whether a relay is
    the guard itself. Raises OSError."""
    document: Document | None = None
    try:
        document = load_yaml(path)
        if isinstance(document.value, dict) and {"organization", "rules"} & document.value.keys():
            return _policy(path, None)
        settings = read_settings(path)
    except Broken as e:
        return Checked(problems=ordered((*e.problems, *_of_its_policy(path, document))))
    files = tuple(_files(document, settings, live=live))
    if not settings.policy.exists():
        return Checked(settings=settings, problems=ordered(files))
    rest = _policy(settings.policy, settings)
    if rest.found is not None:
        policy = rest.found.policy
        files = (*files, *_own_addresses(document, settings, policy), *_routes(document, settings, policy))
        files = (*files, *_not_escalated(document, settings, policy))
    return replace(rest, settings=settings, problems=ordered((*files, *rest.problems)))


def _of_its_policy(path: Path, document: Document | None) -> tuple[Problem, ...]:
    """Find the policy's mistakes, if the settings have mistakes of their own and still name the policy."""
    named = document.value.get("policy") if document is not None and isinstance(document.value, dict) else None
    policy = path.parent / named if isinstance(named, str) and named else None
    return _policy(policy, None).problems if policy is not None and policy.is_file() else ()


def _policy(path: Path, settings: Settings | None) -> Checked:
    try:
        documents = policy_documents(path)
        found = check_policy(documents, path.parent, settings, where=display_path(path))
    except Broken as e:
        return Checked(problems=e.problems)
    problems = found.problems
    if not found.fatal and found.policy.enforce:
        document = policy_document(documents, display_path(path))
        problems = ordered((*problems, *_let_through(document, found.policy, settings, found.people)))
    return Checked(found=found, problems=problems)


def _let_through(
    document: Document, policy: Policy, settings: Settings | None, people: Mapping[str, int]
) -> Iterator[Problem]:
    """Report the messages of the story that would pass."""
    from smtpguard.app.story import play

    if all(rule.mode is Mode.OBSERVE for rule in policy.rules.rules):  # reported already
        return
    counted = {
        name: people.get(name, 0)
        for name, info in policy.lists.items()
        if not any(isinstance(source, Remote | ListMembers) for source in info.members)
    }
    through, unplayed = play(policy, settings, counted)
    for name, shapes in through.items():
        text = f"list {name}: no rule holds {' or '.join(shapes)}"
        yield document.problem(("lists", name), text, key=True, fatal=False)
    if unplayed:
        text = f"{len(unplayed)} more lists were not tried with the story, for want of time"
        yield warning(document, ("lists",), text)


def _files(document: Document, settings: Settings, *, live: bool) -> Iterator[Problem]:
    """Check the files that must exist before the start. Files that smtpguard makes itself need not."""
    yield from _named(document, settings)
    yield from _usable(document, settings)
    yield from _notices(document, settings)
    yield from _alarms(document, settings)
    yield from _places(document, settings, live=live)
    yield from _short(document, settings)


def _named(document: Document, settings: Settings) -> Iterator[Problem]:
    """Yield every file that the settings name, except those that are made later: sockets, and smtpguard's own files. Templates are
    in a folder."""
    for place, path in paths(settings):
        if place in (("state",), ("secret_file",)) or place[-1] in ("unix", "templates"):
            continue
        if CREDENTIALS in path.parts:
            yield document.problem(place, NO_CREDENTIALS)
        elif (problem := file_problem(document, place, path)) is not None:
            yield problem
        else:
            try:
                _try(place, path)
            except Broken as e:
                yield document.problem(place, f"{display_path(path)} {e.problems[0].text}", "a file with one secret")
            except CannotStart as e:
                yield document.problem(place, str(e))


def _try(place: Place, path: Path) -> None:
    """Read a file as it is read at the start, or when an alarm is sent. Raises Broken and CannotStart."""
    if place[-1] == "ca_file":
        try_authorities(path)
    elif place[-1] == "secret_file" and place[0] != "alarms":
        webhook_secret(path)
    elif place[-1] in ("secret_file", "password_file", "token_file", "client_secret_file"):
        read_secret(path)


def _short(document: Document, settings: Settings) -> Iterator[Problem]:
    """Find times of some minutes, where somebody who wrote m may have meant months."""
    kept, expires = settings.retention, settings.hold.expires
    for place, seconds, text in (
        (("retention", "content"), kept.content, "the content of a hold is erased {} after its end"),
        (("retention", "addresses"), kept.addresses, "the journal's addresses are erased after {}"),
        (("hold", "expires"), expires.seconds, "a hold expires after {} if nobody decides"),
    ):
        if seconds < 3600:
            yield warning(document, place, text.format(span(seconds, ENGLISH)), 'days, like "30d"')


def _not_escalated(document: Document, settings: Settings, policy: Policy) -> Iterator[Problem]:
    """Find a time of escalation that a hold may not live to see, if it begins when a day's work does."""
    hold, hours = settings.hold, policy.organization.hours
    after = timedelta(seconds=hold.escalate_after)
    week = (datetime(2024, 1, day, tzinfo=hours.zone) for day in range(1, 8))
    begins = (hours.working_deadline(midnight, timedelta(), within=True) for midnight in week)
    worked = max(hours.worked(begin, begin + after) for begin in begins) if hold.expires.working else after
    if worked >= timedelta(seconds=hold.expires.seconds):
        place: Place = ("hold", "escalate_after")
        text = f"a hold may expire before it is escalated after {span(int(hold.escalate_after), ENGLISH)}"
        yield warning(document, place if place in document.values else ("hold", "expires"), text, "less than expires")


def _usable(document: Document, settings: Settings) -> Iterator[Problem]:
    """Check existing files whose errors would otherwise show only when they are needed."""
    secret = settings.secret_file
    looked_for = os.access(secret, os.F_OK) and secret.is_file()
    is_none = looked_for and secret.stat().st_size != KEY_OCTETS
    if is_none:
        yield document.problem(
            ("secret_file",), f"{display_path(secret)} does not hold {KEY_OCTETS} octets", "a secret of ours"
        )
    for place, sentence in exposed(settings):
        if not (place == ("secret_file",) and is_none):
            yield warning(document, place, sentence)
    for place, sentence in fleeting(settings):
        yield warning(document, place, sentence, "a folder on a disk, or on a volume of the container")
    if settings.dkim_sign is not None and readable(settings.dkim_sign.key_file):
        from smtpguard.app.services import signer  # imports the store, which nothing else here needs

        try:
            signer(settings)
        except CannotStart as e:
            yield document.problem(("dkim_sign", "key_file"), str(e), "a private key, RSA or Ed25519, in PEM")
    yield from _certificates(document, settings)
    for name in ("freeze_hook", "thaw_hook"):
        for n, (program, *_) in enumerate(getattr(settings, name)):
            if shutil.which(program) is None:
                at: Place = (name, n, 0) if (name, n, 0) in document.values else (name, n)
                yield document.problem(at, f"{program} is no program that can be run", "a program that is there")


def _certificates(document: Document, settings: Settings) -> Iterator[Problem]:
    """Find certificates that a restart could not load, and those that expire. Missing files are reported elsewhere."""
    pairs: list[tuple[Place, Pair | None]] = [
        (("listen", "smtp", n, "tls"), of_listener(each)) for n, each in enumerate(settings.listen.smtp)
    ]
    pairs.append((("console", "tls"), of_console(settings)))
    pairs += [((*place, "client_certificate"), of_relay(relay)) for place, relay in relays(settings)]
    now = datetime.now(UTC)
    for place, pair in pairs:
        if pair is None or not (readable(pair.certificate) and readable(pair.key)):
            continue
        found = ending(pair)
        url = settings.console.url if settings.console is not None and not settings.console.proxies else ""
        if pair.name == "console" and url and not found.names_host(host := urlsplit(url).hostname or ""):
            text = f"{display_path(pair.certificate)} is not for {host}, where console: url leads"
            yield warning(document, place, text, "a certificate for that name")
        if found.ends is None:
            yield document.problem(place, found.problem, "a certificate and its key, in PEM")
        elif found.ends <= now:
            text = f"{display_path(pair.certificate)} ended on {found.ends:%Y-%m-%d}: clients that verify it refuse it"
            yield document.problem(place, text, "a renewed certificate")
        elif (left := found.ends - now) < timedelta(days=ENDS_SOON_DAYS):
            text = (
                f"{display_path(pair.certificate)} ends on {found.ends:%Y-%m-%d}, in {many(left.days, 'day', 'days')}"
            )
            yield warning(document, place, text, "a renewed certificate")


def _places(document: Document, settings: Settings, *, live: bool) -> Iterator[Problem]:
    """Check where we listen: no two listeners at one place, none at the relay's, and none open to everybody."""
    listening = settings.listen
    yield from open_to_all(document, listening, settings.trust)
    yield from loose_networks(document)
    for key, networks, may, whose in (
        ("trust", settings.trust, "whoever connects may say who the client is, and who has logged in", "MTAs in front"),
        (
            "expanders",
            settings.expanders,
            "whoever got a post of a list may send it on as the list server",
            "list servers",
        ),
    ):
        for n, network in enumerate(networks):
            if network.prefixlen == 0:
                text = f"{network_text(network)} is everybody: {may}"
                yield warning(document, (key, n), text, f"the addresses of the {whose}")
    for kind, n, each in listening.each():
        for doubt in too_open(each.clients or ()):
            yield warning(document, ("listen", kind, n, "clients"), doubt)
        if each.senders_verified and (who := _anybody(each)):
            text = f"{who}, and is then believed to be whoever From says: senders_verified is for an MTA that has checked it"
            yield warning(document, ("listen", kind, n, "senders_verified"), text)
    for n, smtp in enumerate(listening.smtp):
        if smtp.rates.login != SenderRates() and smtp.auth is None and not settings.trust:
            text = "no client logs in here, and no MTA in trust names a login"
            yield warning(document, ("listen", "smtp", n, "rates", "login"), text, "auth, or trust")
    ours = own_sockets(settings)
    for n, mine in enumerate(ours):
        if (other := next((other for other in ours[:n] if overlap(mine, other)), None)) is not None:
            also = "" if other.address == mine.address else f", also by {other.address}"
            text = f"{mine.address} port {mine.port} is listened on twice{also}"
            yield document.problem((*mine.place, "port"), text, "another port or address")
    if settings.metrics is not None and is_public(settings.metrics.address):
        text = f"metrics ask nobody for a password, and {settings.metrics.address} may be reached by anybody"
        yield warning(document, ("metrics", "address"), text, "a private address")
    if (console := settings.console) is not None:
        host = urlsplit(console.url).hostname or "" if console.url else console.address
        proxied = console.url.startswith("https:") or (console.proxies and not console.url)
        if not (console.tls or proxied or is_this_machine(host)):
            text = "passwords and held mail go over the network in clear: the console has no TLS"
            expected = "tls: {certificate: ..., key: ...}; or a proxy with TLS in front, and url: https://..."
            yield warning(document, ("console", "url" if console.url else "address"), text, expected)
    for place, text in to_itself(settings, ours, ask=live):
        yield document.problem(place, text, _ELSEWHERE)
    for at, relay in relays(settings):
        servers = [relay, *relay.fallbacks]
        for n, fallback in enumerate(relay.fallbacks):
            if any(same_server(fallback, earlier) for earlier in servers[: n + 1]):
                text = f"{fallback.host} port {fallback.port} is tried before this fallback already"
                yield warning(document, (*at, "fallbacks", n, "host"), text, "another server")
    hosts: list[tuple[Place, str]] = []
    if settings.alarms.relay is not None:
        hosts.append((("alarms", "relay", "host"), settings.alarms.relay.host))
    for at, relay in relays(settings):
        hosts.append(((*at, "host"), relay.host))
        hosts += [((*at, "fallbacks", n, "host"), other.host) for n, other in enumerate(relay.fallbacks)]
    for place, host in hosts:
        if not _HOST.fullmatch(host):
            yield document.problem(place, f'"{host}" is no host', "a name or an address; its port is a key of its own")


def _routes(document: Document, settings: Settings, policy: Policy) -> Iterator[Problem]:
    """Find unknown lists in routes, and routes that get no mail, or less than they name."""
    for n, route in enumerate(settings.routes):
        for m, name in enumerate(route.lists):
            if name not in policy.lists:
                hint = did_you_mean(name, policy.lists)
                text = f'the policy has no list "{name}"'
                yield document.problem(("routes", n, "lists", m), text, one_of(sorted(policy.lists)), hint)
        before = next((earlier for earlier in settings.routes[:n] if _hides(earlier, route)), None)
        if before is not None:
            text = f"route {route.name} gets no mail: the earlier route {before.name} takes all of it"
            yield warning(document, ("routes", n), text)
    login = next((each for each in settings.listen.smtp if each.auth), None)
    by_recipient = [(n, route) for n, route in enumerate(settings.routes) if route.lists or route.domains]
    own = next((n for n, r in by_recipient if login and (not r.listeners or login.called in r.listeners)), None)
    if own is not None and login is not None:
        relay = settings.relay_of(login.called)
        text = f"route {settings.routes[own].name} is not for clients that log in on {login.called}: all their mail goes over their login, to {relay.host}"
        yield warning(document, ("routes", own), text)


def _hides(earlier: Route, later: Route) -> bool:
    """Return whether ``earlier`` takes all mail that ``later`` would."""
    return all(
        not first or (second and set(second) <= set(first))
        for first, second in (
            (earlier.listeners, later.listeners),
            (earlier.lists, later.lists),
            (earlier.domains, later.domains),
        )
    )


def _anybody(each: SmtpListener | MilterListener) -> str:
    """Return who besides our own MTA may connect to a listener, in words; "" for nobody."""
    if each.admitted is None:
        return "" if isinstance(each, MilterListener) else "whoever can log in may send"
    wide = [
        network
        for network in each.admitted
        if network.prefixlen == 0 or (network.is_global and network.num_addresses > 1)
    ]
    return f"whoever is in {network_text(wide[0])} may send" if wide else ""


def _own_addresses(document: Document, settings: Settings, policy: Policy) -> Iterator[Problem]:
    """Find addresses of the guard that somebody else has. Mail to the guard's addresses is never passed on."""
    lists = {
        Address.parse(a).canonical(policy.delimiters): name
        for name, info in policy.lists.items()
        for a in info.addresses
    }
    people = {Address.parse(each).canonical(policy.delimiters) for each in people_of(policy)}
    own: list[tuple[Place, str, str]] = [
        (("hold", "approve_at"), settings.hold.approve_at, "a question"),
        (("hold", "reply_at"), settings.hold.reply_at, "a vote"),
        *((("returns", "addresses", n), each, "a return") for n, each in enumerate(settings.returns.addresses)),
    ]
    for at, told, reaches in (
        (("notices", "from"), settings.notices.from_, "answers to notices"),
        (("notices", "contact"), settings.notices.contact, "alarms"),
        (("audit", "mail"), settings.audit.mail, "checkpoints"),
    ):
        with contextlib.suppress(BadAddress):
            mailbox = mailbox_of(told)[1]
            if (name := lists.get(mailbox.canonical(policy.delimiters))) is not None:
                text = f"{mailbox} is the address of list {name}: {reaches} would go to everybody on it"
                yield warning(document, at, text, "an address that nobody else has")
    for place, address, taken in own:
        ours = Address.parse(address).canonical(policy.delimiters) if address else ""
        if ours in lists:
            text = f"{address} is the address of list {lists[ours]}: mail to it would be taken as {taken}"
            yield warning(document, place, text, "an address that nobody else has")
        elif ours in people:
            text = f"{address} is the mailbox of a person in the policy: the guard would keep all mail to it"
            yield warning(document, place, text, "an address that nobody else has")


def _notices(document: Document, settings: Settings) -> Iterator[Problem]:
    """Check the sender of notices, and the admin's own templates, each rendered in every language."""
    notices = settings.notices
    sender = notices.from_
    expected = 'a mailbox, like "Mail guard <guard@example.com>"'
    try:
        if not mailbox_of(sender)[1].local.isascii():
            text = "letters beyond ASCII before the @: a relay without SMTPUTF8 would take no notice"
            yield document.problem(("notices", "from"), text, expected)
    except BadAddress:
        yield document.problem(("notices", "from"), "not the mailbox of a sender", expected)
        sender = NoticeHead().sender
    if notices.templates is None:
        return
    if not notices.templates.is_dir():
        yield document.problem(("notices", "templates"), f"there is no folder {display_path(notices.templates)}")
        return
    head = NoticeHead(sender=sender, contact=notices.contact, templates=notices.templates)
    for wrong in NoticeTemplates(head).check():
        yield document.problem(("notices", "templates"), f"a template that cannot be used: {wrong}")


def _alarms(document: Document, settings: Settings) -> Iterator[Problem]:
    """Check whether a person would be told if all mail stopped."""
    missing, key = second_way(settings)
    if missing:
        place: Place = (key,) if (key,) in document.values else ()
        yield warning(document, place, missing, "alarms: {relay: ...} or {webhook: ...}")


def second_way(settings: Settings) -> tuple[str, str]:
    """Return what is missing to tell a person of an alarm while the guarded relay cannot be used, "" if nothing; and the settings
    key."""
    alarms = settings.alarms
    if alarms.webhook is not None:
        return "", ""
    if contact(settings) is None:
        return "no one receives alarms: notices: contact is not a mailbox, and alarms has no webhook", "notices"
    if alarms.relay is not None and not _is_guarded(settings, alarms.relay):
        return "", ""
    return (
        "no one receives alarms while the relay cannot be used: alarms has neither a relay of its own nor a webhook",
        "alarms",
    )


def _is_guarded(settings: Settings, relay: AlarmRelay) -> bool:
    """Return whether this is a guarded relay, or the guard itself, however each is spelled."""
    guarded = any(same_server(relay, each) for each in settings.relays.values())
    return guarded or own_socket(relay, own_sockets(settings), ask=False) is not None


def too_open(networks: Sequence[Network], routes: str | None = None, *, inside: bool | None = None) -> Iterator[str]:
    """Yield a sentence for each network that probably admits more than was meant: public ones, and bridges of containers, since an
    engine may forward a published port through a proxy of its own, so that every client has its address. ``routes``: the text of
    /proc/net/route; ``inside``: whether we run in a container."""
    text = _read() if routes is None else routes
    contained = any(path.exists() for path in _IN_CONTAINER) if inside is None else inside
    bridges = dict(_bridges(text, contained=contained))
    for network in networks:
        if whose := _bridge(network, bridges):
            yield (
                f"{network_text(network)} contains {whose}: through a published port anyone can connect from it; name "
                "each container that sends"
            )
        elif network.is_global and network.num_addresses > 1:
            yield f"{network_text(network)} is a network of the Internet: everyone in it may send through this guard"


def _bridge(network: Network, bridges: Mapping[IPv4Network, str]) -> str:
    """Return the name of the bridge that a network contains, or "". A single address in a bridge is a container, unless it is the
    bridge's own."""
    if not isinstance(network, IPv4Network):
        return ""
    for usual, whose in _USUAL.items():
        if network.subnet_of(IPv4Network(usual)) and (network.num_addresses > 1 or network[0] == IPv4Network(usual)[1]):
            return f"{whose} bridge"
    for bridge, name in bridges.items():
        if network.overlaps(bridge) and (
            network.num_addresses > 1 or bridge.num_addresses == 1 or network[0] == bridge[1]
        ):
            return (
                f"the bridge {name} ({bridge})"
                if bridge.num_addresses > 1
                else f"the gateway of this container ({bridge[0]})"
            )
    return ""


def _bridges(routes: str, *, contained: bool) -> Iterator[tuple[IPv4Network, str]]:
    """Yield the bridges of this machine with their names; in a container also its gateway, through which all clients come."""
    for line in routes.splitlines()[1:]:
        name, destination, gateway, *rest = line.split()
        mask = _address(rest[4])
        if _BRIDGE.match(name) and int(mask):
            yield IPv4Network(f"{_address(destination)}/{mask}"), name
        elif contained and not int(_address(destination)) and int(_address(gateway)):
            yield IPv4Network(_address(gateway)), name


def _address(text: str) -> IPv4Address:
    """Parse an address in hexadecimal in host byte order, which is little-endian wherever we run."""
    return IPv4Address(int.from_bytes(bytes.fromhex(text), "little"))


def _read() -> str:
    try:
        return _ROUTES.read_text(encoding="utf-8")
    except OSError:
        return ""
