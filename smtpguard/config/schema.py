"""The JSON Schema of the settings file, for editors that complete and check it, with a description of each key: "Model.key", or "*.key"
for all models that have the key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from smtpguard.config.durations import EXPECTED, WORKING_EXPECTED, in_short
from smtpguard.config.settings import Settings

SETTINGS: Mapping[str, str] = {
    ".hostname": "The guard's name in greetings and trace headers. Default: the machine's name.",
    ".listen": "The addresses on which mail comes in.",
    ".trust": "Addresses of MTAs and proxies in front that may name their client by XFORWARD, XCLIENT or PROXY.",
    ".relay": "The server that takes the mail that passes.",
    ".routes": "Other relays for some of the mail, by listener, list or domain. The first route that matches a recipient is used; recipients without one go to relay.",
    ".expanders": "List servers whose expanded copies come back through the guard.",
    ".accepted_ways": "Ways around the guard that are meant to be open; check --live finds them.",
    ".store": "The database: journal, holds, outbox, accounts.",
    ".journal": "How the journal is written.",
    ".policy": "The policy file. policy.d, lists.d and vocabularies are read from its folder.",
    ".state": "The folder of indexes, spool and checkpoints.",
    ".secret_file": "The installation's secret; made at the first start.",
    ".notices": "Mail that the guard writes itself.",
    ".console": "The web console and the API; off if this section is missing.",
    ".webhooks": "Programs that receive events by HTTP.",
    ".metrics": "Metrics for Prometheus; off if this section is missing.",
    ".alarms": "How alarms reach a person although the database or the relay cannot be used.",
    ".bypass": "Who can begin an emergency bypass, which relays little while the database is away; off if it names nobody.",
    "BypassSettings.people": "The addresses of at least two people: two of them begin a bypass together, and get its alarms.",
    ".limits": "Limits of size, number and time.",
    ".freeze": "What a freeze does with mail.",
    ".freeze_hook": "Commands to run when a freeze begins, each a list of words.",
    ".thaw_hook": "Commands to run when a freeze is lifted, each a list of words.",
    ".hold": "How long mail is held, and how much of it.",
    ".retention": "How long contents, addresses and the journal are kept.",
    ".returns": "Mail that comes back after a mailing: bounces, complaints, replies.",
    "ReturnsSettings.addresses": "Addresses of the guard itself, like bounces@guard.example.com, at which it takes bounces, complaints and replies; + and a word may follow the local part.",
    ".mentions": "What is said outside: feeds, and what media monitoring sends.",
    "Mentions.feeds": "RSS and Atom feeds; needs smtpguard[feeds].",
    "Mentions.every": "How often they are read.",
    "Mentions.webhook": "Who sends what media monitoring finds to the console, at /api/mentions.",
    "Feed.name": "What pages call it.",
    "Feed.url": "Its address, with https; a host of the Internet.",
    "Monitoring.name": "What pages call it.",
    "Monitoring.secret_file": "A file with the secret that signs its requests.",
    ".audit": "Who outside keeps the journal's checkpoints, and what auditors may see.",
    ".dkim_sign": "The key that signs the guard's own mail.",
    ".dkim_keys": "DNS names with the text of their DKIM records; used instead of DNS.",
    ".resolver": "The DNS servers to ask, and the timeout.",
    ".authserv_ids": "Servers whose Authentication-Results are believed (RFC 8601).",
    ".delimiters": "Characters that begin a subaddress in a local part, for all domains or by domain.",
    ".logging": "The format of the log.",
    ".workers": "The number of proxy processes; 0: one for each core.",
    "Listen.smtp": "Listeners that speak SMTP.",
    "Listen.milter": "Listeners that speak the milter protocol with an MTA.",
    "*.address": "The address to listen on.",
    "*.port": "The port.",
    "SmtpListener.name": "Its name in rules and in the journal.",
    "SmtpListener.clients": "Networks that may connect. Required if other machines reach the listener and no login is required.",
    "SmtpListener.tls": "Its certificate, and when TLS begins.",
    "*.senders_verified": "Whether the MTA in front has checked that the sender may use the From address. A login at this listener is then that MTA's own.",
    "SmtpListener.auth": "Mail clients log in here; the relay checks the login.",
    "SmtpListener.rates": "How much one client, and one login, may send in a time; above it RCPT is answered 451.",
    "Rates.client": "The limits of one client: an IPv4 address, or a /64 of IPv6. MTAs in trust have none.",
    "Rates.login": "The limits of one login, over all its addresses.",
    "SenderRates.messages": "The most messages in a time, like 100 in 1m.",
    "SenderRates.recipients": "The most recipients in a time, like 600 in 1m.",
    "SmtpListener.proxy": "Whether every connection begins with a PROXY header from an address in trust.",
    "MilterListener.name": "Its name in rules and in the journal.",
    "MilterListener.clients": "MTAs that may connect. Required if other machines reach the listener.",
    "MilterListener.unix": "A Unix socket, instead of address and port.",
    "MilterListener.mode": "The mode of the Unix socket, in octal digits.",
    "MilterListener.group": "The group that owns the Unix socket.",
    "ServerTls.mode": "starttls; or implicit: TLS from the first octet.",
    "ServerTls.required": "Whether mail is refused before STARTTLS.",
    "*.certificate": "The certificate with its chain, in PEM.",
    "*.key": "The private key, in PEM.",
    "ServerAuth.required": "Whether mail is refused before a login.",
    "ServerAuth.without_tls": "Whether a client may send its password without TLS.",
    "*.host": "Its name or address.",
    "*.tls": "none, opportunistic (without verification, if the server offers it), require (verified), or implicit.",
    "*.auth": "The login for this server.",
    "*.server_name": "The name in the server's certificate, if it is not host.",
    "*.ca_file": "Certificate authorities in PEM that may sign the server's certificate. Default: those of the system.",
    "*.clients_without_tls": "Whether the logins of mail clients may go to the relay without TLS.",
    "*.names": "Other host names under which the relay takes mail as its own; a list's local part is the list at each of them.",
    "*.chunking": "Whether content is sent by BDAT to a relay that offers CHUNKING.",
    "*.fallbacks": "Other relays for the same mail, tried in this order if the relay cannot be used.",
    "*.client_certificate": "The certificate that the guard shows to the relay.",
    "*.client_key": "The key of that certificate.",
    "*.connections": "The most connections, of all processes together.",
    "*.messages_per_connection": "The most messages on one connection.",
    "*.idle_seconds": "How long an unused connection is kept.",
    "*.wait_seconds": "How long a client may wait until a connection to the relay is ready.",
    "*.client_share": "The share of the connections that one client outside trust may use.",
    "Route.name": "The name of the route in log, status and metrics.",
    "Route.listeners": "Names of listeners: the route is only for mail that comes in there.",
    "Route.lists": "Lists of the policy: the route is only for mail to their addresses.",
    "Route.domains": "Domains of recipients, or *.example.com for all subdomains: the route is only for mail to them.",
    "Route.relay": "The relay, with the keys of relay; host is required, and port is 25 by default.",
    "RelayAuth.user": "The user name.",
    "*.password_file": "A file with the password.",
    "Store.url": "sqlite:///PATH or postgresql://USER@HOST/DATABASE, without a password.",
    "Store.password_file": "A file with the password. Each connection reads it.",
    "JournalSettings.front": "Whether mail that no other message and no decision depends on is recorded first in a file beside the database. For SQLite only.",
    "Notices.from": "The From address of the guard's own mail.",
    "Notices.contact": "The address that receives alarms, and notices of holds that nobody else can decide on.",
    "Notices.templates": "A folder of templates that replace those of the product.",
    "AlarmSettings.relay": "The relay that takes alarms; the guarded one, if this one does not.",
    "AlarmSettings.webhook": "A program that receives alarms, and nothing else.",
    "AlarmSettings.quiet": "Alarms that are not sent.",
    "*.url": "The URL.",
    "*.secret_file": "A file with the secret that signs what is sent there.",
    "Webhook.events": "The events that are sent.",
    "*.format": "How an event is sent: as JSON, or as a message for Slack or Teams.",
    "Webhook.name": "Its name in logs and metrics.",
    "Webhook.personal": "Whether events contain addresses and subjects.",
    "Webhook.special": "Whether events name lists of a special category.",
    "Limits.recipients": "The most recipients of one message.",
    "Limits.message_mb": "The most megabytes of one message.",
    "Limits.line_octets": "The most octets of one line.",
    "Limits.connections": "The most connections at a time.",
    "Limits.per_client": "The most connections of one client: an IPv4 address, or a /64 of IPv6. MTAs in trust have no such limit.",
    "Limits.idle_seconds": "How long a client may be silent.",
    "Limits.transaction_seconds": "How long one transaction may take.",
    "FreezeSettings.answer": "Whether a freeze holds mail or defers it.",
    "FreezeSettings.thaw": "Whether one person can lift a freeze, or two must agree within a day.",
    "HoldSettings.expires": "After how long an undecided hold expires.",
    "HoldSettings.escalate_after": "After how long an undecided hold is reported to others.",
    "HoldSettings.quota_gb": "The most gigabytes of held content.",
    "HoldSettings.copies": "The most copies of one mailing that are stored; further ones are deferred.",
    "HoldSettings.approve_at": "An address of the guard itself, to which a mailing is sent to be approved beforehand.",
    "HoldSettings.reply_at": "An address of the guard itself, like decisions@guard.example.com, at which approvers vote by answering their notices: to reject, and to approve if the policy's reply_votes allows it. Without it there are no votes by mail.",
    "HoldSettings.approval_lasts": "How long the approval of a mailing covers further copies. After 14 days without a message a mailing is over, and its approval with it.",
    "HoldSettings.rejection_lasts": "How long the rejection of a mailing covers further copies.",
    "HoldSettings.release_delay": "How long an approval can be undone before a message to more than 20 people is sent; 0: not at all.",
    "Retention.content": "How long the content of a hold is kept after the hold ends.",
    "Retention.addresses": "How long the journal keeps addresses and subjects in clear, and the facts of each message.",
    "Retention.journal": "How long the journal's entries are kept.",
    "Audit.mail": "An auditor's address, to which the newest signed checkpoint is sent every day.",
    "Audit.approvers": "Whether auditors may see the votes of each approver: report approvers, and a page of the console for operators and admins. It monitors employees: off by default.",
    "Audit.syslog": "A syslog server that gets each signed checkpoint (RFC 5424): unix:///dev/log, udp://HOST:514 or tcp://HOST:514.",
    "Audit.witness": "Another host that keeps each signed checkpoint, so that root of this host cannot change the journal unnoticed.",
    "Audit.timestamps": "A time-stamp authority (RFC 3161), which proves that a checkpoint existed at a time.",
    "Timestamps.url": "The URL of the authority, to which requests are sent by POST; without it time stamps are only verified.",
    "Timestamps.ca_file": "Certificates (PEM) that the authority's certificate must lead to.",
    "Timestamps.every": "How often the newest checkpoint is stamped.",
    "Witness.url": "The URL to which each checkpoint is sent by POST, as text.",
    "Witness.token_file": "A file with the bearer token for the witness.",
    "DkimSign.domain": "The signing domain.",
    "DkimSign.selector": "The selector of the key in DNS.",
    "DkimSign.key_file": "The private key, in PEM.",
    "Resolver.nameservers": "The addresses of the DNS servers. Default: those of the system.",
    "Resolver.timeout_seconds": "How long to wait for an answer.",
    "Logging.format": "auto (text on a terminal, else JSON), json or text.",
    "Logging.addresses": "Whether addresses are written in clear, or masked.",
    "Console.tls": "The certificate and key, if the console speaks TLS itself.",
    "Console.url": "The URL under which browsers reach the console; notices link there.",
    "Console.proxies": "Addresses of reverse proxies in front.",
    "Console.session": "How long a session lasts.",
    "Console.oidc": "Single sign-on.",
    "Console.guide": "Who can read the policy for staff at /guide: people who are signed in, or (open) everyone who reaches the console.",
    "Console.second_factor": "The roles that need a second factor.",
    "ConsoleSession.idle": "How long a session lasts without a request.",
    "ConsoleSession.longest": "How long a session lasts at most.",
    "SecondFactor.required_for": "Roles that cannot sign in without a second factor.",
    "Oidc.issuer": "The provider's issuer.",
    "Oidc.client_id": "The guard's client id at the provider.",
    "Oidc.client_secret_file": "A file with the guard's client secret.",
    "Oidc.groups": "Groups of the provider, and the roles that they give.",
    "Oidc.groups_claim": "The claim that contains the groups.",
    "Oidc.scopes": "The scopes to request.",
    "Oidc.title": "The text of the sign-in button.",
    "Oidc.unverified_addresses": "Whether to accept an address that the provider has not verified.",
}


def settings_schema() -> dict[str, Any]:
    return titled("smtpguard settings", for_editors(Settings.model_json_schema(by_alias=True), SETTINGS))


def titled(title: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "title": title, **{k: v for k, v in schema.items() if k != "title"}}


def for_editors(schema: dict[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """Add a description to each key, and defaults as people would write them, so that ``check`` accepts what an editor
    offers. ``texts``: by "Model.key", or "*.key" for any model."""
    for model in (schema, *schema.get("$defs", {}).values()):
        if "description" in model:  # a docstring
            model["description"] = " ".join(model["description"].replace("``", "`").split())
    for model, properties in sections(schema):
        for key, each in properties.items():
            own = texts.get(f"{model}.{key}") or texts.get(f"*.{key}")
            shapes = [each, *each.get("anyOf", ())]
            said = {shape.get("description") for shape in shapes}
            if own:
                each["description"] = own
            default = each.get("default")
            texts_only = all(shape.get("type", "string") in ("string", "null") for shape in shapes)
            if isinstance(default, int) and not isinstance(default, bool) and (EXPECTED in said or texts_only):
                each["default"] = in_short(default)
            elif isinstance(default, dict) and WORKING_EXPECTED in said:
                length = in_short(default["seconds"])
                each["default"] = f"{default['seconds'] // 3600} working hours" if default["working"] else length
            elif isinstance(default, dict) or (
                isinstance(default, list) and any(isinstance(one, dict) for one in default)
            ):
                del each["default"]  # its keys have defaults of their own
    return schema


def sections(schema: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each model with its properties, "" for the whole file."""
    yield "", schema.get("properties", {})
    for name, model in schema.get("$defs", {}).items():
        if "properties" in model:
            yield name, model["properties"]
