#!/bin/sh
# Build the wheel, install it with its runtime dependencies only, and play the demo.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
python=${BIN:-$here/.venv/bin}/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m build --wheel --outdir "$work" "$here" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$python" -m venv --without-pip "$work/venv" # the suite's own pip does
pip() { "$python" -m pip --python "$work/venv/bin/python" "$@"; }
pip install --quiet --require-hashes -r "$here/requirements.lock"
pip install --quiet --no-deps "$work"/*.whl
cd "$work"
"$work/venv/bin/smtpguard" --version
pip check
"$work/venv/bin/smtpguard" demo >"$work/demo.log" 2>&1 </dev/null || { cat "$work/demo.log"; exit 1; }
for said in HELD RELAYED "DEFERRED 451" "REJECTED 550"; do
    grep -q "$said" "$work/demo.log" || { cat "$work/demo.log"; echo "wheel: the demo has no $said"; exit 1; }
done
if grep -e WRONG -e "$(printf '\033')" "$work/demo.log"; then echo "wheel: the demo went wrong, or used colours"; exit 1; fi
echo "wheel: the demo passed with runtime dependencies alone"
