# Each recipe is one command, which also works without just (https://just.systems) at the root of
# the repository. `just --list` lists the recipes; `just` alone runs the first one.

# Create twelve sessions against the simulator; needs neither settings nor an organization
demo:
    cargo run -- demo

# Run the default and the slow tests on loopback; they start PostgreSQL themselves
test:
    ci/test

# Run clippy on all targets; every warning is an error
lint:
    cargo clippy --workspace --all-targets -- -D warnings && cargo clippy --workspace --test '*' -- -D warnings

# Format the code with rustfmt
fmt:
    cargo fmt --all

# Check links and citations of documents, then build the API documentation
docs:
    ci/check-docs && ci/check-layers && RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

# Check licences, banned crates, sources and advisories of dependencies; needs cargo-deny
deny:
    cargo deny check

# Run the tests that need other programs (interop/README.md)
interop:
    cargo test --workspace --test interop

# Fuzz every parser of external input, each for one minute
fuzz:
    fuzz/run 60

# Measure whole processes against the simulator; CONTRIBUTING.md lists the other benchmarks
bench:
    cargo bench -p guestlane-cli --bench flow

# Run the gate: all checks of a merge; installs missing tools as root on Debian
gate:
    .ci/run
