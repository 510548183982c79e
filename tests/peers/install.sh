#!/bin/sh
# Install the servers and tools that tests use, on Debian. If that is impossible (no root, no apt), their tests skip with the reason.
# Checks for packages, not programs: swaks without Net::SSLeay runs, but without TLS.
set -u
packages="
    postfix sasl2-bin libsasl2-modules
    swaks libnet-ssleay-perl miltertest
    haproxy nginx-core libnginx-mod-mail dovecot-core dovecot-submissiond
    slapd mailman3 chromium promtool
    man-db mandoc zsh fish openssl
    systemd util-linux faketime docker-compose gcc libc6-dev
    m4 libdb5.3t64 libldap2 liblockfile1 libnsl2 libsasl2-2 libwrap0 libidn12"
# The packages of Sendmail and Exim conflict with Postfix, so they are only unpacked, for the tests. The last line above has their dependencies.
sendmail=/usr/local/lib/smtpguard-peers/sendmail
exim=/usr/local/lib/smtpguard-peers/exim

lacking() {
    # shellcheck disable=SC2086
    installed=" $(dpkg-query -W -f '${Package}=${db:Status-Status} ' $packages 2>/dev/null) "
    for package in $packages; do
        case "$installed" in *" $package=installed "*) ;; *) printf ' %s' "$package" ;; esac
    done
}

is_sendmail() { [ -x "$sendmail/usr/libexec/sendmail/sendmail" ] && [ -e "$sendmail/usr/share/sendmail/cf/m4/cf.m4" ]; }
is_exim() { [ -x "$exim/usr/sbin/exim4" ]; }
unpacked() { is_sendmail && is_exim; }
unpack() { # FOLDER PACKAGE...
    folder=$1 && shift
    rm -rf "$work/unpacked" && mkdir "$work/unpacked" "$work/unpacked/root" && chmod 755 "$work" "$work/unpacked" "$work/unpacked/root"
    if (
        cd "$work/unpacked" && apt-get download -qq "$@" &&
            for package in *.deb; do dpkg-deb -x "$package" root || exit 1; done
    ) >"$work/log" 2>&1; then
        rm -rf "$folder" && mkdir -p "${folder%/*}" && mv "$work/unpacked/root" "$folder"
    else
        tail -1 "$work/log" >&2
    fi
}

need=$(lacking)
[ -z "$need" ] && unpacked && exit 0
unpacked || need="$need sendmail exim"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "peers: cannot install$need here (not root, or no apt): their tests are skipped" >&2
    exit 0
fi

echo "peers: installing$need (make test PEERS=no goes without)" >&2
work=$(mktemp -d)
policy=/usr/sbin/policy-rc.d
trap 'rm -rf "$work"; [ -e "$work.policy" ] && rm -f "$policy" "$work.policy"' EXIT
# The tests start their own instances, so keep packages from starting services.
if [ ! -e "$policy" ]; then
    : >"$work.policy"
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
# Answer these packages' questions in advance.
{
    echo "postfix postfix/main_mailer_type select No configuration"
    echo "slapd slapd/no_configuration boolean true"
} | debconf-set-selections 2>/dev/null

install() { apt-get install -y -qq --no-install-recommends "$@" >"$work/log" 2>&1; }

apt-get update -qq >"$work/log" 2>&1 || tail -3 "$work/log" >&2
need=$(lacking)
# shellcheck disable=SC2086
if [ -n "$need" ] && ! install $need; then
    for package in $need; do # install those that are available
        install "$package" || tail -1 "$work/log" >&2
    done
fi
is_sendmail || unpack "$sendmail" sendmail-bin sendmail-cf
is_exim || unpack "$exim" exim4-daemon-light
need=$(lacking)
unpacked || need="$need sendmail exim"
[ -z "$need" ] || echo "peers: could not install$need: their tests are skipped" >&2
exit 0
