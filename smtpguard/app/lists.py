"""Build what serves a policy's customer lists on this machine: the registry of indexes, and the refresher that reads
the sources."""

from __future__ import annotations

from smtpguard.app.clock import SystemClock
from smtpguard.app.files import indexes, installation_secret, make_state
from smtpguard.config.settings import Settings
from smtpguard.journal.clock import Clock
from smtpguard.journal.distinct import Asked, Version
from smtpguard.lists.digest import Digester
from smtpguard.lists.expanding import Expander
from smtpguard.lists.index import BadIndex, Index, index_path
from smtpguard.lists.names import Names
from smtpguard.lists.registry import Registry
from smtpguard.lists.sources import Stop
from smtpguard.lists.sources.opening import never
from smtpguard.lists.sync import Refresher
from smtpguard.mail.address import Address
from smtpguard.mail.envelope import client_address
from smtpguard.policy.parse import Policy


def names(settings: Settings, policy: Policy) -> Names:
    """Return what knows list addresses, by the organization's domains, the relays' names, and the mailboxes of people in policy
    and settings."""
    hosts = {settings.hostname}
    for relay in settings.relays.values():
        hosts.update(relay.names, *((each.host, each.server_name or "") for each in (relay, *relay.fallbacks)))
    ours = settings.notices.contact, settings.hold.approve_at, settings.hold.reply_at, *settings.returns.addresses
    known = people_of(policy) | {text for text in ours if text}
    elsewhere = (address for expands in policy.expansions for address in expands.addresses_elsewhere)
    return Names(
        policy.declared_lists,
        domains=policy.organization.domains,
        host_names={name for name in hosts if "." in name and client_address(name) is None},
        mailboxes=[address for text in known if (address := Address.parse_any(text)) is not None],
        elsewhere=[address for text in elsewhere if (address := Address.parse_any(text)) is not None],
        delimiters=policy.delimiters,
    )


def people_of(policy: Policy) -> set[str]:
    """Return the addresses of all people in the policy, as written or canonical."""
    known: set[str] = set(policy.groups.aliases)
    known.update(*policy.groups.values())
    for info in policy.lists.values():
        known.update(info.writers, filter(None, [info.owner]))
    for stream in policy.streams.values():
        known.update(stream.from_, filter(None, [stream.owner]))
    return known


def built_registry(settings: Settings, policy: Policy, digester: Digester, clock: Clock) -> Registry:
    return Registry(
        lists=policy.declared_lists,
        streams=policy.declared_streams,
        digester=digester,
        folder=indexes(settings),
        now=clock.now,
        expanders=settings.expanders,
        expansions=bool(policy.expansions),
        customers_here=policy.organization.customers_here,
        people=policy.organization.people,
        names=names(settings, policy),
    )


def built_refresher(settings: Settings, policy: Policy, digester: Digester, *, stop: Stop = never) -> Refresher:
    """Build what reads the lists' sources, whose paths are relative to the policy file."""
    return Refresher(
        policy.declared_lists, folder=indexes(settings), base=settings.policy.parent, digester=digester, stop=stop
    )


def built_expander(settings: Settings, policy: Policy, registry: Registry, *, stop: Stop = never) -> Expander:
    """Build what looks up what the relay expands, in the same way as lists. It needs a ``registry`` of its own."""
    return Expander(policy.expansions, registry, folder=indexes(settings), base=settings.policy.parent, stop=stop)


def on_list(settings: Settings, digester: Digester) -> Asked:
    """Return what says whether a person, by their digest, is on a list at a version of its index. It is known only for the version
    in use, and None for any other."""

    known: dict[str, tuple[tuple[int, int], Index]] = {}

    def asked(digest: str, of: Version) -> bool | None:
        name, version = of
        path = index_path(indexes(settings), name)
        try:
            stat = path.stat()
            stamp = stat.st_ino, stat.st_mtime_ns
            if name not in known or known[name][0] != stamp:
                known[name] = stamp, Index(path, digester.key_id)
            index = known[name][1]
            return bytes.fromhex(digest) in index if index.version == version else None
        except (OSError, BadIndex, ValueError):  # or an entry of an earlier version, without digests of lists
            return None

    return asked


def open_registry(settings: Settings, policy: Policy) -> Registry:
    return built_registry(settings, policy, digester_of(settings), SystemClock())


def digester_of(settings: Settings) -> Digester:
    """Return the installation's digester. Its secret is made if needed: lists may be synced before the first start."""
    make_state(settings)
    return Digester(installation_secret(settings), settings.delimiters)
