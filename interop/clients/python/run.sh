#!/usr/bin/env bash
# Usage: bash run.sh ADDRESS KEY. Generates a client from ADDRESS/openapi.json and creates a session
# with it. Prints one line of JSON.
# GUESTLANE_INTEROP: the directory of the packages [default: target/interop of this repository].
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$(realpath "${GUESTLANE_INTEROP:-$here/../../../target/interop}")/python/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$work"
export PATH=$python:$PATH # the generator looks for its formatter there
# The generator supports no streams of lines. It reports that and leaves the batch operation out.
"$python/openapi-python-client" generate --url "$1/openapi.json" --meta none --output-path guestlane_client >&2
PYTHONPATH=$work PYTHONDONTWRITEBYTECODE=1 "$python/python" "$here/create.py" "$1" "$2"
