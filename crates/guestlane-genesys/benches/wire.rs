//! Benchmarks of parsing the guest API's frames and of building request bodies.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may")]

use std::{collections::BTreeMap, hint::black_box};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use guestlane_genesys::{NewConversation, RegisterContactRequest, guest::frame::ServerFrame};
use serde_json::Value;
use uuid::uuid;

/// Parses and serializes every known frame of the server (`contract/guest-api-frames.json`).
fn frames(criterion: &mut Criterion) {
    let known: Vec<Value> =
        serde_json::from_str(include_str!("../../../contract/guest-api-frames.json")).unwrap();
    let texts: Vec<String> = known
        .iter()
        .filter(|frame| frame["direction"] == "server")
        .map(|frame| frame["frame"].to_string())
        .collect();
    let frames: Vec<ServerFrame> = texts
        .iter()
        .filter_map(|text| ServerFrame::parse(text).ok())
        .collect();
    assert!(frames.len() > 20);
    let mut group = criterion.benchmark_group("frames of the server, all that are known");
    group.throughput(Throughput::Elements(frames.len() as u64));
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            texts
                .iter()
                .filter(|text| ServerFrame::parse(black_box(text)).is_ok())
                .count()
        });
    });
    group.bench_function("write", |bencher| {
        bencher.iter(|| {
            frames
                .iter()
                .map(|frame| black_box(frame).to_text().len())
                .sum::<usize>()
        });
    });
}

/// Builds the bodies of the two steps on `rest`, with a token of typical length.
fn payloads(criterion: &mut Criterion) {
    let token = "x".repeat(620);
    let attributes: BTreeMap<String, String> = [("source", "web-portal"), ("tier", "premium")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    criterion.bench_function("body of a contact", |bencher| {
        bencher.iter(|| {
            serde_json::to_vec(&RegisterContactRequest::new(
                black_box("user-8842-xyz"),
                &token,
                &attributes,
            ))
            .unwrap()
        });
    });
    let queue = uuid!("5e0c0000-0000-4000-8000-000000000001");
    criterion.bench_function("body of a conversation", |bencher| {
        bencher.iter(|| {
            serde_json::to_vec(&NewConversation::new(
                black_box("user-8842-xyz"),
                queue,
                &token,
            ))
            .unwrap()
        });
    });
}

criterion_group!(benches, frames, payloads);
criterion_main!(benches);
