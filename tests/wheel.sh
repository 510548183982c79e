#!/bin/sh
# Build the wheel, install it with its runtime dependencies only, and play the demo.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
python=${BIN:-$here/.venv/bin}/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m build --wheel --outdir "$work" "$here" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --require-hashes -r "$here/requirements.lock"
"$work/venv/bin/python" -m pip install --quiet --no-deps "$work"/*.whl
cd "$work"
"$work/venv/bin/smtpguard" --version
"$work/venv/bin/python" -m pip check
"$work/venv/bin/smtpguard" demo >"$work/demo.log" 2>&1 </dev/null || { cat "$work/demo.log"; exit 1; }
echo "wheel: the demo passed with runtime dependencies alone"
