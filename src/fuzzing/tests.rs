//! The doors on stable Rust: over the committed seeds, and over bytes of chance from fixed seeds.

use std::path::Path;

use super::{byte_streams, exchange, frames, hello, peer_pair, records, requests, router, session_ops};
#[cfg(feature = "rendezvous")]
use super::{rendezvous_client, rendezvous_desk, rendezvous_state, rendezvous_words};

type Door = fn(&[u8]);

const DOORS: &[(&str, Door)] = &[
    ("hello", hello),
    ("exchange", exchange),
    ("frames", frames),
    ("records", records),
    ("session_ops", session_ops),
    ("peer_pair", peer_pair),
    ("byte_streams", byte_streams),
    ("requests", requests),
    ("router", router),
    #[cfg(feature = "rendezvous")]
    ("rendezvous_words", rendezvous_words),
    #[cfg(feature = "rendezvous")]
    ("rendezvous_state", rendezvous_state),
    #[cfg(feature = "rendezvous")]
    ("rendezvous_client", rendezvous_client),
    #[cfg(feature = "rendezvous")]
    ("rendezvous_desk", rendezvous_desk),
];

#[test]
fn the_doors_hold_on_the_committed_seeds() {
    // A package without them has nothing to show here.
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (name, door) in DOORS {
        for file in std::fs::read_dir(seeds.join(name)).into_iter().flatten() {
            door(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }
}

/// `DOOR=router` looks at this one alone.
#[test]
fn the_doors_hold_on_bytes_of_chance() {
    let only = std::env::var("DOOR").ok();
    for &(name, door) in DOORS.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)) {
        let rounds = if matches!(name, "peer_pair" | "router" | "rendezvous_state") { 1000 } else { 2000 };
        for seed in 0..rounds {
            let mut random = fastrand::Rng::with_seed(seed);
            let length = random.usize(..1500);
            let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            if let Some(mode) = bytes.first_mut() {
                // Half of them honest, half hostile; both kinds of leaving.
                *mode = seed as u8;
            }
            let door = std::panic::AssertUnwindSafe(|| door(&bytes));
            assert!(std::panic::catch_unwind(door).is_ok(), "{name}, seed {seed}");
        }
    }
}
