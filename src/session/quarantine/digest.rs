//! See [`Session::digest`](crate::session::Session::digest).

use std::hash::{Hash, Hasher};

use super::Quarantine;
use crate::session::digest::types_of;

impl Quarantine {
    pub(in crate::session) fn digest(&self, into: &mut impl Hasher) {
        let Self { time: _, room: _, held, bytes, until } = self;
        (bytes, until.is_some(), held.len()).hash(into);
        held.iter().for_each(|batch| (batch.stream, batch.first, batch.count, &batch.records).hash(into));
    }

    pub(in crate::session) fn types_kept(&self, note: &mut impl FnMut(u32)) {
        self.held.iter().for_each(|batch| types_of(&batch.records, note));
    }
}
