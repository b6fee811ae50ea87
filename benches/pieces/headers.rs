//! Header sections on their way: a request's to the upstream, a reply's to the client with its receipt.

use std::net::{IpAddr, Ipv4Addr};

use divan::Bencher;
use keytoll::gateway::pieces::Sayings;

use super::sections::{SIZES, Size, parsed, reply, request};
use super::{SAMPLE_SIZE, SAMPLES, common};

fn sayings() -> Sayings {
    Sayings::new(&common::principal(0, &common::keys(1)[0]), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)))
}

#[divan::bench(args = SIZES, sample_size = SAMPLE_SIZE, sample_count = SAMPLES)]
fn to_upstream(bencher: Bencher<'_, '_>, size: Size) {
    let sayings = sayings();
    bencher.with_inputs(|| parsed(request(size))).bench_local_values(|mut headers| {
        sayings.to_upstream(&mut headers);
        headers
    });
}

#[divan::bench(args = SIZES, sample_size = SAMPLE_SIZE, sample_count = SAMPLES)]
fn to_client(bencher: Bencher<'_, '_>, size: Size) {
    let sayings = sayings();
    bencher.with_inputs(|| parsed(reply(size))).bench_local_values(|mut headers| {
        sayings.to_client(&mut headers);
        headers
    });
}
