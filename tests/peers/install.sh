#!/bin/sh
# The real peers that tests talk to. Where they cannot be installed (no root, no apt), their tests skip and say why.
set -u
need=""
add() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || need="$need $2"; }
add postfix postfix
add swaks swaks
add faketime faketime
add haproxy haproxy
add saslpasswd2 sasl2-bin
add nginx nginx-core
add dovecot dovecot-core
[ -e /usr/lib/nginx/modules/ngx_mail_module.so ] || need="$need libnginx-mod-mail"
ls /usr/lib/*/sasl2/liblogin.so >/dev/null 2>&1 || need="$need libsasl2-modules"
add miltertest miltertest
add systemd-analyze systemd
add unshare util-linux
add slapd slapd
add mailman mailman3
add chromium chromium
# Sendmail as a package would push Postfix out: it is unpacked beside it, for the tests alone.
sendmail=/usr/local/lib/smtpguard-peers/sendmail
unpack=""
if [ ! -x "$sendmail/usr/libexec/sendmail/sendmail" ]; then
    unpack="sendmail-bin sendmail-cf"
    need="$need m4 libdb5.3t64 libldap2 liblockfile1 libnsl2 libsasl2-2 libwrap0"
fi
[ -z "$need" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "peers: cannot install$need here (not root, or no apt): their tests are skipped" >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# The package asks for a mail name; the tests use instances of their own and never its service.
echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections 2>/dev/null || true
echo "slapd slapd/no_configuration boolean true" | debconf-set-selections 2>/dev/null || true
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends $need; } >/dev/null 2>&1 ||
    echo "peers: could not install$need: their tests are skipped" >&2
if [ -n "$unpack" ]; then
    there=$(mktemp -d)
    # shellcheck disable=SC2086
    if (cd "$there" && apt-get download -qq $unpack) >/dev/null 2>&1; then
        mkdir -p "$sendmail"
        for package in "$there"/*.deb; do dpkg-deb -x "$package" "$sendmail"; done
    else
        echo "peers: could not fetch $unpack: their tests are skipped" >&2
    fi
    rm -rf "$there"
fi
exit 0
