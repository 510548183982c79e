"""Build the webhooks of the settings: read their secrets, and ask the policy which lists may be named to each."""

from __future__ import annotations

from smtpguard.app.files import CannotStart
from smtpguard.config.problem import Broken
from smtpguard.config.secret import read_secret
from smtpguard.config.settings import Settings
from smtpguard.config.web import Webhook
from smtpguard.database.errors import LedgerError
from smtpguard.guard.ports import PolicyInForce
from smtpguard.observe.webhooks.delivery import Clock, Dispatcher, Hook
from smtpguard.observe.webhooks.payload import Allowed, Format, Topic
from smtpguard.observe.webhooks.rows import Cursors
from smtpguard.observe.webhooks.sending import Sender
from smtpguard.store.store import Store

SHORTEST_SECRET = 16


def teller(
    settings: Settings,
    store: Store,
    policies: PolicyInForce,
    clock: Clock,
    *,
    sender: Sender | None = None,
) -> Dispatcher | None:
    """None if there are no webhooks. Raises CannotStart if a secret cannot be used."""
    if not settings.webhooks:
        return None
    url = settings.console.url.rstrip("/") if settings.console else ""
    hooks = [_hook(wanted, policies, url) for wanted in settings.webhooks]
    return Dispatcher(hooks, Cursors(store), sender or Sender(), clock)


def unreachable(error: Exception) -> bool:
    return isinstance(error, LedgerError)


def _hook(wanted: Webhook, policies: PolicyInForce, url: str) -> Hook:
    try:
        secret = read_secret(wanted.secret_file).get_secret_value()
    except Broken as e:
        raise CannotStart(str(e)) from None
    if len(secret) < SHORTEST_SECRET:
        raise CannotStart(f"{wanted.secret_file}: a webhook's secret has at least {SHORTEST_SECRET} characters")

    def nameable(name: str) -> bool:
        """False for a list that is no longer in the policy: its sensitivity is unknown."""
        info = policies.current().registry.lists.get(name)
        return info is not None and info.sensitivity != "special-category"

    return Hook(
        name=wanted.known_as,
        url=wanted.url,
        secret=secret.encode(),
        topics=frozenset(map(Topic, wanted.events)),
        form=Format(wanted.format),
        allowed=Allowed(persons=wanted.personal, special=wanted.special, nameable=nameable, url=url),
    )
