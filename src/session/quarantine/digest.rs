//! See [`Session::digest`](crate::session::Session::digest).

use std::hash::{Hash, Hasher};

use super::Quarantine;

impl Quarantine {
    pub(in crate::session) fn digest(&self, into: &mut impl Hasher) {
        let Self { time: _, room: _, held, bytes, until } = self;
        (bytes, until.is_some(), held.len()).hash(into);
        held.iter().for_each(|batch| (batch.stream, batch.first, batch.count, &batch.records).hash(into));
    }
}
