"""Who is told what, and when: from a hold or a decision to NOTICE intents. Rendering is mail.notice's, when it is sent.

Never here: words for people, templates, sending; nor anybody who is told because a message says so. A notice goes to the
authenticated user's mailbox, else to an internal From: never to the reverse-path (a VERP handler would unsubscribe the
customer), never to the original recipients, never to outsiders. What nobody would hear of goes to the lists' owners.

A NOTICE intent has ``reverse_path=None``, one recipient, ``hold_id`` where there is a hold, and this ``data`` (JSON; times
are ISO 8601 UTC with "Z"; what is absent is null):

==================  ==================================================================================================
every notice        ``notice``: its kind; ``hold_id``; ``subject``, ``message_id``, ``from`` of the message it is about
                    (as they came: escape them); ``language`` of that message ("" unknown); ``recipients``: how many
                    RCPTs; ``reach``: how many people; ``lists``: titles that may be named to this reader
held, approve       ``held_at``, ``expires_at``; ``reasons``: [{``rule``, ``description``, ``sentences``: [str]}];
                    ``marks``: [str], phrases found in the message; ``deciders``: [{``groups``: [str], ``each``: int,
                    ``people``: [address]}]; ``part``: true where only the customers' part is held
approve             and ``excerpt``: the text's beginning, ``recipients_shown``: the first addresses, ``senders``: [address]
decided             ``outcome``: approved | rejected | withdrawn; ``by``: address or null; ``comment``; ``decided_at``
expired             ``held_at``, ``expired_at``
reminder            to approvers: ``held_at``, ``expires_at``, ``percent``: 25 | 50 | 90, ``deciders``
escalation          to owners and out-of-hours approvers: ``held_at``, ``expires_at``, ``deciders``
rejected            to an internal sender, where the rule has ``explain``: ``at``, ``reasons``, ``marks``
digest              ``role``: sender | approver; ``since``, ``until``; its ``messages`` come from ``digests.fill``
owner-digest        ``list``: its title; ``since``, ``until``; its ``messages`` come from ``digests.fill``
==================  ==================================================================================================

A digest has no subject, message_id or hold_id of its own (null). ``digests.fill`` adds, before rendering, ``total``: int,
``states``: {state: int}, and ``messages``: [{``hold_id``, ``subject``, ``from``, ``state``, ``held_at``, ``expires_at``,
``reach``}], at most 50 of them, newest first.
"""
