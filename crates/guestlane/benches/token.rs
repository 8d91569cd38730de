//! Benchmark of signing a guest token, the largest part of a session's processor time.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use guestlane_core::{
    request::{Attributes, GuestId},
    token::{self, Keyring, MasterKey, SealedSigningKey, TokenIdentity},
};
use guestlane_runtime::Timestamp;

fn tokens(criterion: &mut Criterion) {
    let now = Timestamp::from_unix_micros(1_795_361_029_000_000);
    let master = MasterKey::parse(
        &"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
            .to_owned()
            .into(),
        "bench",
    )
    .unwrap();
    let keyring = Keyring::open(
        &master,
        vec![SealedSigningKey::first(&master, now).unwrap()],
    )
    .unwrap();
    let guest: GuestId = "user-8842-xyz".parse().unwrap();
    let attributes =
        Attributes::from_pairs([("source", "web-portal"), ("tier", "premium")]).unwrap();
    let identity = TokenIdentity::new(keyring.active(now).kid(), now);

    criterion.bench_function("sign, and verify after signing", |bencher| {
        bencher.iter(|| {
            token::sign(
                keyring.active(now),
                black_box(&guest),
                &attributes,
                &identity,
            )
            .unwrap()
        });
    });
    let signed = token::sign(keyring.active(now), &guest, &attributes, &identity).unwrap();
    criterion.bench_function("verify", |bencher| {
        bencher.iter(|| token::verify(&keyring, black_box(signed.expose()), now).unwrap());
    });
}

criterion_group!(benches, tokens);
criterion_main!(benches);
