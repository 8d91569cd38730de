"""Tests a service against its own OpenAPI document, with valid and invalid requests.

    python fuzz.py ADDRESS KEY

KEY has the scope `admin` and no rate limit (GUESTLANE_API_KEY_RATE_LIMIT=off). The run creates
sessions, so use the simulator and never an organization.

GUESTLANE_TEST_CASES  the minimum number of cases [default: 5000]
GUESTLANE_TEST_SEED   the first seed [default: 1]

The program first validates the document itself. Then it calls each operation with the key until that
many cases have run, and then without the key, where only 401 is correct. The last line is JSON. Any
findings are printed before it, and the exit code is then 1.
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

here = Path(__file__).resolve().parent
address, key = sys.argv[1].rstrip("/"), sys.argv[2]
wanted = int(os.environ.get("GUESTLANE_TEST_CASES", "5000"))
seed = int(os.environ.get("GUESTLANE_TEST_SEED", "1"))
# Number of cases per operation in one campaign. The same operation in another order, after others,
# is another case.
EXAMPLES = 100
LONGEST = 2000
WITHOUT_KEY = "nothing_without_a_key"


def description():
    with urllib.request.urlopen(f"{address}/openapi.json", timeout=10) as answer:
        document = json.load(answer)
    try:
        validate(document, cls=OpenAPIV31SpecValidator)
    except OpenAPIValidationError as error:
        print(f"openapi.json: {'/'.join(map(str, error.absolute_path))}: {error.message.splitlines()[0]}")
        return document, 1
    return document, 0


def campaign(document, directory, *options):
    """Runs Schemathesis once. Returns the number of cases and the number of findings."""
    report = directory / "report.json"
    report.unlink(missing_ok=True)
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file", here / "schemathesis.toml", "--no-color", "run", document]
    command += ["--url", address, "--output-sanitize", "false", "--report", "json", "--report-json-path", report, *options]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": str(here / "hooks.py"), "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    if ended.returncode not in (0, 1) or not report.exists():
        sys.exit(f"Schemathesis ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    came_to = json.loads(report.read_text())
    counts = came_to["test_cases"]
    findings = counts["unique_failures"] + len(came_to["errors"])
    if findings or ended.returncode:
        print(*(line[:LONGEST] for line in (ended.stdout + ended.stderr).splitlines()), sep="\n")
    return counts["generated"], max(findings, ended.returncode)


def refused(method, path):
    """Returns whether one request without an API key gets 401, also for the stream that never ends."""
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{address}{path}", method=method), timeout=10) as answer:
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    if status != 401:
        print(f"{method} {path} answers {status} to somebody without a key")
    return status == 401


def tell(cases, findings, without_key):
    print(json.dumps({"cases": cases, "findings": findings, "withoutKey": without_key}, separators=(",", ":")))
    sys.exit(findings > 0)


def main():
    document, findings = description()
    if findings:
        tell(0, findings, 0)
    closed = {
        operation["operationId"]: (method.upper(), path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if any(operation.get("security", []))
    }
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        file = directory / "openapi.json"
        file.write_text(json.dumps(document))
        cases, one_seed = 0, seed
        while cases < wanted:
            bearer = f"Authorization: Bearer {key}"
            more, found = campaign(file, directory, "-H", bearer, "--exclude-checks", WITHOUT_KEY, "-n", str(EXAMPLES), "--seed", str(one_seed))
            print(f"seed {one_seed}: {more} cases, {found} findings")
            cases, findings, one_seed = cases + more, findings + found, one_seed + 1
            if found or not more:
                break
        only = [option for operation in closed for option in ("--include-operation-id", operation)]
        without_key, found = campaign(file, directory, *only, "--checks", WITHOUT_KEY, "-n", "20", "--seed", str(seed))
        found += sum(not refused(*operation) for operation in closed.values())
        without_key += len(closed)
        print(f"without a key: {len(closed)} operations, {without_key} cases, {found} findings")
    tell(cases, findings + found, without_key)


main()
