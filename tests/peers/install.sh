#!/bin/sh
# The real peers that tests talk to, on Debian. Where they cannot be installed (no root, no apt), their tests skip and say why.
# The packages are asked for, not the programs: a swaks without Net::SSLeay is there and knows no TLS.
set -u
packages="
    postfix sasl2-bin libsasl2-modules
    swaks libnet-ssleay-perl miltertest
    haproxy nginx-core libnginx-mod-mail dovecot-core dovecot-submissiond
    slapd mailman3 chromium promtool
    man-db mandoc zsh fish
    systemd util-linux faketime gcc libc6-dev
    m4 libdb5.3t64 libldap2 liblockfile1 libnsl2 libsasl2-2 libwrap0"
# Sendmail as a package would push Postfix out: it is unpacked beside it, for the tests alone. The last line above is what it needs.
sendmail=/usr/local/lib/smtpguard-peers/sendmail

lacking() {
    # shellcheck disable=SC2086
    installed=" $(dpkg-query -W -f '${Package}=${db:Status-Status} ' $packages 2>/dev/null) "
    for package in $packages; do
        case "$installed" in *" $package=installed "*) ;; *) printf ' %s' "$package" ;; esac
    done
}

unpacked() { [ -x "$sendmail/usr/libexec/sendmail/sendmail" ] && [ -e "$sendmail/usr/share/sendmail/cf/m4/cf.m4" ]; }

need=$(lacking)
[ -z "$need" ] && unpacked && exit 0
unpacked || need="$need sendmail"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "peers: cannot install$need here (not root, or no apt): their tests are skipped" >&2
    exit 0
fi

echo "peers: installing$need (make test PEERS=no goes without)" >&2
work=$(mktemp -d)
policy=/usr/sbin/policy-rc.d
trap 'rm -rf "$work"; [ -e "$work.policy" ] && rm -f "$policy" "$work.policy"' EXIT
# The tests run instances of their own, so no service of a package need start for them.
if [ ! -e "$policy" ]; then
    : >"$work.policy"
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
# These would ask.
{
    echo "postfix postfix/main_mailer_type select No configuration"
    echo "slapd slapd/no_configuration boolean true"
} | debconf-set-selections 2>/dev/null

install() { apt-get install -y -qq --no-install-recommends "$@" >"$work/log" 2>&1; }

apt-get update -qq >"$work/log" 2>&1 || tail -3 "$work/log" >&2
need=$(lacking)
# shellcheck disable=SC2086
if [ -n "$need" ] && ! install $need; then
    for package in $need; do # all but those that are not to be had here
        install "$package" || tail -1 "$work/log" >&2
    done
fi
if ! unpacked; then
    mkdir "$work/sendmail" && chmod 755 "$work" "$work/sendmail"
    if (
        cd "$work" && apt-get download -qq sendmail-bin sendmail-cf &&
            for package in *.deb; do dpkg-deb -x "$package" sendmail || exit 1; done
    ) >"$work/log" 2>&1; then
        rm -rf "$sendmail" && mkdir -p "${sendmail%/*}" && mv "$work/sendmail" "$sendmail"
    else
        tail -1 "$work/log" >&2
    fi
fi
need=$(lacking)
unpacked || need="$need sendmail"
[ -z "$need" ] || echo "peers: could not install$need: their tests are skipped" >&2
exit 0
