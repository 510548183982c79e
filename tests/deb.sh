#!/bin/sh
# tests/deb.sh [PACKAGE]: install, upgrade, remove and purge the Debian package on a clean root, and run lintian on it.
# Without PACKAGE, it builds one. ROOTFS names a root file system to start from, which is not changed; else debootstrap makes one.
# Needs root, debootstrap and Debian's archive. Skips with the reason if one is missing: the package is not tested then.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
suite=trixie
skip() { echo "deb: skipped: $1"; exit 0; }
[ "$(id -u)" = 0 ] || skip "only root makes a root of its own"
for tool in dpkg-deb chroot mount; do
    command -v "$tool" >/dev/null || skip "$tool is not installed"
done
[ -n "${ROOTFS:-}" ] || command -v debootstrap >/dev/null || skip "debootstrap is not installed"

work=$(mktemp -d "${TMPDIR:-/var/tmp}/smtpguard-deb.XXXXXX")
root=$work/over/root
end() {
    umount "$root/proc" 2>/dev/null || true
    umount "$root" 2>/dev/null || true
    umount "$work/over" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap end EXIT
failed() { echo "deb: $1" >&2; [ ! -s "$work/log" ] || tail -20 "$work/log" >&2; exit 1; }
quietly() { "$@" >"$work/log" 2>&1 || failed "$*"; }

base=${ROOTFS:-$work/base}
if [ -z "${ROOTFS:-}" ]; then
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$base" >"$work/log" 2>&1 ||
        skip "debootstrap: $(tail -1 "$work/log")"
fi
mkdir "$work/over"
mount -t tmpfs -o size=3g tmpfs "$work/over" 2>/dev/null || skip "this root may not mount"
mkdir "$work/over/up" "$work/over/work" "$root"
mount -t overlay -o "lowerdir=$base,upperdir=$work/over/up,workdir=$work/over/work" overlay "$root" 2>/dev/null ||
    skip "this kernel mounts no overlay here"
mkdir -p "$root/proc"
mount -t proc proc "$root/proc"
cp -L /etc/resolv.conf /etc/hosts "$root/etc/" 2>/dev/null || true
inside() { chroot "$root" env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }

package=${1:-}
if [ -z "$package" ]; then
    package=$("$here/packaging/deb.sh" "$work")
fi
# The same package with a higher version, to upgrade to.
quietly dpkg-deb -R "$package" "$work/next"
sed -i 's/^Version: .*/&+next/' "$work/next/DEBIAN/control"
version=$(dpkg-deb -f "$package" Version)
cp "$package" "$root/tmp/first.deb"
quietly dpkg-deb --root-owner-group -Znone -b "$work/next" "$root/tmp/next.deb"

if command -v lintian >/dev/null; then
    lintian --allow-root --no-tag-display-limit --fail-on error,warning "$package" >"$work/log" 2>&1 || failed "lintian"
else
    echo "deb: lintian is not installed, and was not asked"
fi

echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/smtpguard-test"
inside apt-get update -qq --error-on=any >"$work/log" 2>&1 || skip "Debian's archive cannot be reached from the clean root"

# /opt/smtpguard was installed by hand (docs/install.md): the package refuses to unpack there.
mkdir -p "$root/opt/smtpguard-0"
ln -s smtpguard-0 "$root/opt/smtpguard"
! inside dpkg --force-depends -i /tmp/first.deb >"$work/log" 2>&1 || failed "it was installed over one that was made by hand"
grep -q "/opt/smtpguard is a link" "$work/log" || failed "a link was not told of"
[ -z "$(ls "$root/opt/smtpguard-0")" ] || failed "files were written into the folder of another"
rm -r "$root/opt/smtpguard" "$root/opt/smtpguard-0"
inside dpkg --purge smtpguard >/dev/null 2>&1 || true

inside apt-get install -y -qq --no-install-recommends /tmp/first.deb >"$work/log" 2>&1 || failed "apt-get install"
grep -q "installed and not started" "$work/log" || failed "it does not say how to go on"
[ "$(inside stat -c %U:%G:%a /var/lib/smtpguard /etc/smtpguard | paste -sd' ')" = "smtpguard:smtpguard:700 root:smtpguard:750" ] ||
    failed "the folders have other rights"
quietly inside smtpguard --version
inside smtpguard demo </dev/null >"$work/log" 2>&1 || failed "the demo"
cp -R "$here/config/." "$root/etc/smtpguard/"
quietly inside chown -R root:smtpguard /etc/smtpguard
quietly inside smtpguard check

# A stand-in for systemctl that logs its calls. Timers and sockets must stop before their services, and units that ran must start
# again: the backup last, and nothing waits for it.
mkdir -p "$root/run/systemd/system"
rm -f "$root/usr/bin/systemctl"
cat >"$root/usr/bin/systemctl" <<'TOOL'
#!/bin/sh
case "$*" in
    list-units*) printf '%s loaded active running Guard\n' smtpguard-backup.service smtpguard-backup.timer \
        smtpguard.service smtpguard.socket ;;
    *) echo "$*" >>/tmp/systemctl ;;
esac
TOOL
chmod 755 "$root/usr/bin/systemctl" # in dpkg's search path, which has no /usr/local
echo "# ours" >>"$root/etc/smtpguard/policy.yaml"
echo "kept" >"$root/var/lib/smtpguard/secret"
sums() { (cd "$root" && find etc/smtpguard var/lib/smtpguard -type f -exec md5sum {} + | sort); }
before=$(sums)
inside apt-get install -y -qq /tmp/next.deb >"$work/log" 2>&1 || failed "the upgrade"
[ "$(inside dpkg -s smtpguard | sed -n 's/^Version: //p')" = "$version+next" ] || failed "the upgrade is not installed"
[ "$(sums)" = "$before" ] || failed "the upgrade changed settings or state"
stops="stop smtpguard-backup.timer,stop smtpguard.socket,stop smtpguard-backup.service,stop smtpguard.service"
starts="start smtpguard.socket,start smtpguard.service"
starts="$starts,start --no-block smtpguard-backup.timer,start --no-block smtpguard-backup.service"
[ "$(grep -v reload "$root/tmp/systemctl" | paste -sd,)" = "$stops,$starts" ] ||
    failed "units: $(cat "$root/tmp/systemctl")"
quietly inside smtpguard check

enabled=$root/etc/systemd/system/sockets.target.wants/smtpguard.socket
mkdir -p "${enabled%/*}"
ln -s /usr/lib/systemd/system/smtpguard.socket "$enabled" # as "systemctl enable" does
touch "$root/etc/systemd/system/smtpguard-ours.service"
ln -s /etc/systemd/system/smtpguard-ours.service "${enabled%/*}/smtpguard-ours.service"
inside apt-get remove -y -qq smtpguard >"$work/log" 2>&1 || failed "apt-get remove"
[ ! -e "$root/opt/smtpguard" ] || failed "left in /opt: $(find "$root/opt/smtpguard" | head -3)"
[ "$(sums)" = "$before" ] || failed "removing it changed settings or state"
[ -L "$enabled" ] || failed "removing it disabled it for the next installation"
inside apt-get purge -y -qq smtpguard >"$work/log" 2>&1 || failed "apt-get purge"
grep -q "were kept: /etc/smtpguard /var/lib/smtpguard" "$work/log" || failed "purge does not say what is left"
[ "$(sums)" = "$before" ] || failed "purging it took the journal along"
[ "$(ls "${enabled%/*}")" = smtpguard-ours.service ] || failed "left enabled: $(ls "${enabled%/*}")"
echo "deb: $version installed, upgraded, removed and purged on a clean root"
