#!/usr/bin/env bash
# Usage: bash run.sh ADDRESS KEY. Generates a client from ADDRESS/openapi.json, checks its types and
# creates a session with it. Prints one line of JSON.
# GUESTLANE_INTEROP: the directory of the packages [default: target/interop of this repository].
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
packages=$(realpath "${GUESTLANE_INTEROP:-$here/../../../target/interop}")/node_modules
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp "$here/package.json" "$here/tsconfig.json" "$here/create.ts" "$work"
ln -s "$packages" "$work/node_modules"
cd "$work"
node node_modules/openapi-typescript/bin/cli.js "$1/openapi.json" --output guestlane.d.ts >&2
node node_modules/typescript/bin/tsc --strict --noEmit -p .
node node_modules/typescript/bin/tsc --noCheck --outDir out -p .
echo "import { check } from './out/create.js'; console.log(JSON.stringify(await check(...process.argv.slice(2))));" > run.js
node run.js "$1" "$2"
