-- Several messages on one connection: relayed, held, rejected, deferred.
local conn = connected()
greeted(conn, "192.0.2.7")

written(conn, "<bob@example.net>")
is(mt.getreply(conn), SMFIR_ACCEPT, "relayed")
is(mt.eom_check(conn, MT_HDRINSERT, "X-Smtpguard"), true, "our trace")
is(mt.eom_check(conn, MT_HDRINSERT, "Received"), false, "a Received that the MTA writes itself")

written(conn, "<hold@lists.example.com>")
is(mt.getreply(conn), SMFIR_DISCARD, "held")
is(mt.eom_check(conn, MT_HDRINSERT), false, "a change")

written(conn, "<reject@lists.example.com>")
is(mt.getreply(conn), SMFIR_REPLYCODE, "rejected")
is(mt.eom_check(conn, MT_SMTPREPLY, "550", "5.7.1", "100 %% of this is not sent."), true, "550 5.7.1")

written(conn, "<defer@lists.example.com>")
is(mt.getreply(conn), SMFIR_REPLYCODE, "deferred")
is(mt.eom_check(conn, MT_SMTPREPLY, "451", "4.7.1", "Not now."), true, "451 4.7.1")
mt.disconnect(conn)
