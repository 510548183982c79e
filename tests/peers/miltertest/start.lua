-- The beginning of every script: a connection to the milter at "socket", and a message up to its body.

function fail(what)
	mt.echo(what) -- miltertest itself only says that a check failed
	error(what)
end

function is(got, wanted, what)
	if got ~= wanted then
		fail(what .. ": " .. tostring(got) .. " is not " .. tostring(wanted))
	end
end

function connected()
	local conn = mt.connect(socket)
	if conn == nil then
		fail "no connection"
	end
	is(mt.negotiate(conn, nil, nil, nil), nil, "negotiation")
	return conn
end

function greeted(conn, address)
	is(mt.macro(conn, SMFIC_CONNECT, "j", "mx.example.com", "{client_addr}", address), nil, "macros")
	is(mt.conninfo(conn, "desk.example.com", address), nil, "connect")
	is(mt.helo(conn, "desk.example.com"), nil, "helo")
end

function written(conn, recipient)
	is(mt.macro(conn, SMFIC_MAIL, "{auth_authen}", "anna@example.com"), nil, "macros")
	is(mt.mailfrom(conn, "<anna@example.com>", "SIZE=100", "BODY=8BITMIME"), nil, "mail")
	is(mt.macro(conn, SMFIC_RCPT, "i", "4bXyz"), nil, "macros")
	is(mt.rcptto(conn, recipient, "NOTIFY=NEVER"), nil, "rcpt")
	is(mt.getreply(conn), SMFIR_CONTINUE, "answer to rcpt")
	is(mt.header(conn, "From", "Anna <anna@example.com>"), nil, "header")
	is(mt.header(conn, "Subject", "folded\n\tonce"), nil, "header")
	is(mt.eoh(conn), nil, "end of header")
	is(mt.bodystring(conn, "Hej\r\n"), nil, "body")
	is(mt.bodystring(conn, "there\r\n"), nil, "body")
	is(mt.eom(conn), nil, "end of message")
end
