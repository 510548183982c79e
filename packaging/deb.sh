#!/bin/sh
# packaging/deb.sh [FOLDER]: build the Debian package smtpguard_VERSION_ARCH.deb in FOLDER (default dist/), and print its path.
#
# It contains the program with its dependencies in /opt/smtpguard (requirements.lock, with hashes), the units and the docs.
# PYTHON is the interpreter for which compiled dependencies are chosen: Debian's own, of the release that the package is for.
# The build is reproducible: file times are SOURCE_DATE_EPOCH, by default the time of the last commit.
set -eu
umask 022
here=$(cd "$(dirname "$0")/.." && pwd)
out=$(mkdir -p "${1:-$here/dist}" && cd "${1:-$here/dist}" && pwd)
cd "$here"
builder=${BIN:-$here/.venv/bin}/python
if [ -z "${PYTHON:-}" ]; then
    PYTHON=$(command -v python3.13 || command -v python3)
fi
minor=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
wanted=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
version=${VERSION:-$(printf '%s' "$wanted" | sed 's/\(a\|b\|rc\|\.dev\)\([0-9]\)/~\1\2/')}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
place=$root/opt/smtpguard
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }; }

quietly "$builder" -m build --wheel --outdir "$work" .
quietly "$PYTHON" -m venv --without-pip "$place"
# Use the builder's pip for the new interpreter, so that the package contains none.
pip() { quietly "$builder" -m pip --disable-pip-version-check --python "$place/bin/python" install --no-compile "$@"; }
pip --require-hashes -r requirements.lock
pip --no-deps "$work"/smtpguard-*.whl

# Set the paths to where the package is installed, not where it is built.
interpreter=/usr/bin/python$minor
ln -sfn "$interpreter" "$place/bin/python$minor"
ln -sfn "python$minor" "$place/bin/python3"
ln -sfn "python$minor" "$place/bin/python"
printf '%s\n' "home = /usr/bin" "include-system-site-packages = false" "version = $minor" >"$place/pyvenv.cfg"
for script in "$place"/bin/*; do
    [ -L "$script" ] || [ "$script" = "$place/bin/smtpguard" ] || rm -f "$script" # activate, and commands of the dependencies
done
sed -i "1s|.*|#!/opt/smtpguard/bin/python$minor|" "$place/bin/smtpguard"
find "$place" \( -name RECORD -o -name INSTALLER -o -name REQUESTED -o -name direct_url.json \) -exec rm -f {} +
rm -rf "$place/include"
# Bytecode that is valid whatever the time of the source. The service cannot write it.
quietly "$PYTHON" -m compileall -q -j 0 -s "$root" -p / --invalidation-mode unchecked-hash "$place/lib"

installed() { # MODE TARGET SOURCE...
    mode=$1 target=$root$2
    shift 2
    mkdir -p "$target"
    install -m "$mode" -t "$target" "$@"
}
installed 644 /usr/lib/systemd/system systemd/*.service systemd/*.socket systemd/*.timer
mkdir -p "$root/usr/lib/systemd/system/smtpguard.socket.d" "$root/usr/lib/sysusers.d" "$root/usr/bin"
install -m 644 packaging/deb/place.conf "$root/usr/lib/systemd/system/smtpguard.socket.d/place.conf"
install -m 644 systemd/smtpguard.sysusers "$root/usr/lib/sysusers.d/smtpguard.conf"
ln -s /opt/smtpguard/bin/smtpguard "$root/usr/bin/smtpguard"
doc=$root/usr/share/doc/smtpguard
installed 644 /usr/share/doc/smtpguard README.md
mkdir -p "$doc"
cp -R docs "$doc/docs"
cp -R config "$doc/examples"
installed 644 /usr/share/doc/smtpguard/examples/postfix systemd/postfix/*
install -m 644 packaging/deb/copyright "$doc/copyright"
install -m 644 CHANGELOG.md "$doc/CHANGELOG.md"
printf 'smtpguard (%s) stable; urgency=medium\n\n  * What is new: CHANGELOG.md, beside this file.\n\n -- smtpguard <smtpguard@example.com>  %s\n' \
    "$version" "$(date -uRd "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
installed 644 /usr/share/lintian/overrides packaging/deb/overrides
mv "$root/usr/share/lintian/overrides/overrides" "$root/usr/share/lintian/overrides/smtpguard"
# The wheel contains man pages and completion. Move them to where man and the shells look; drop those of dependencies.
shared() { # FROM TO: a folder below share
    mkdir -p "$root/usr/share/$2"
    find "$place/share/$1" -name '*smtpguard*' -type f -exec mv -t "$root/usr/share/$2" {} +
}
shared man/man1 man/man1
shared man/man5 man/man5
shared bash-completion/completions bash-completion/completions
shared zsh/site-functions zsh/vendor-completions
shared fish/vendor_completions.d fish/vendor_completions.d
rm -rf "$place/share"
find "$root/usr/share/man" -type f -exec gzip -9n {} +
find "$root" -name __pycache__ -path "$doc/*" -prune -exec rm -rf {} +
# Set uniform times and permissions.
find "$root" -type f \( ! -perm -u+x -o -path "$place/lib/*" \) -exec chmod 644 {} +
find "$place" -name .gitignore -delete
find "$root" -type d -exec chmod 755 {} +
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

control=$root/DEBIAN
mkdir -m 755 "$control"
for script in preinst postinst prerm postrm; do
    install -m 755 "packaging/deb/$script" "$control/$script"
done
arch=$(dpkg --print-architecture)
next=${minor%.*}.$((${minor#*.} + 1))
size=$(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f1)
sed -e "s|@VERSION@|$version|" -e "s|@ARCH@|$arch|" -e "s|@SIZE@|$size|" -e "s|@PYTHON@|$minor|g" -e "s|@NEXT@|$next|g" \
    packaging/deb/control >"$control/control"
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' md5sum) >"$control/md5sums"
chmod 644 "$control/control" "$control/md5sums"
file=$out/smtpguard_${version}_$arch.deb
quietly dpkg-deb --root-owner-group -Zxz --build "$root" "$file"
echo "$file"
