#!/bin/sh
# Make all files of a release in dist/: wheel, source, Debian package, bill of materials, image, and their SHA256SUMS.
# If one cannot be made here, the end of the output says why, and the exit status is 1.
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here" || exit 2
bin=${BIN:-$here/.venv-release/bin}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
missing=
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf dist
mkdir -p dist
made() { # WHAT COMMAND...
    what=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        echo "release: $what"
    else
        missing="$missing
  $what: $(grep -v '^$' "$work/log" | tail -1)"
    fi
}
lacks() { missing="$missing
  $1: $2"; }

[ -z "$(git status --porcelain)" ] || lacks "a clean tree" "there are changes that are not committed"
made "wheel and source" "$bin/python" -m build --outdir dist .
made "bill of materials" "$bin/cyclonedx-py" requirements --pyproject pyproject.toml --output-reproducible --of JSON \
    -o "dist/smtpguard-$version.cdx.json" requirements.lock
if command -v dpkg-deb >/dev/null; then
    made "Debian package" packaging/deb.sh dist
else
    lacks "Debian package" "dpkg-deb is not installed"
fi
builder=$(command -v podman || command -v buildah || command -v docker || true)
if [ -n "$builder" ]; then
    # shellcheck disable=SC2317 # made calls it
    archive() {
        case "$builder" in
            */buildah)
                buildah build ${BASE:+--build-arg BASE="$BASE"} --format docker -f packaging/Containerfile -t "smtpguard:$version" . &&
                    buildah push "smtpguard:$version" "docker-archive:dist/smtpguard-$version.image.tar"
                ;;
            *)
                # podman's own format has no health check
                case "$builder" in */podman) format="--format docker" ;; *) format="" ;; esac
                # shellcheck disable=SC2086
                "$builder" build $format ${BASE:+--build-arg BASE="$BASE"} -f packaging/Containerfile -t "smtpguard:$version" . &&
                    "$builder" save -o "dist/smtpguard-$version.image.tar" "smtpguard:$version"
                ;;
        esac
    }
    made "image" archive
else
    lacks "image" "none of podman, buildah and docker is installed"
fi
(cd dist && sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS)
cat dist/SHA256SUMS
[ -z "$missing" ] && exit 0
echo "release: not made:$missing" >&2
exit 1
