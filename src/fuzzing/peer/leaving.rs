//! The last act: one side leaves.

use std::time::Duration;

use super::{Node, Run};
use crate::limits;

impl Run {
    /// Whoever leaves is gone as soon as what is broken shows, also if the goodbye or its confirmation is lost.
    pub(super) fn leave(&mut self, leaver: usize, loses: u8) {
        self.keeping = false;
        if let Some(peer) = &mut self.nodes[leaver].peer {
            peer.leave();
        }
        self.act(leaver);
        if loses & 2 != 0 {
            // The goodbye comes through, and its confirmation is lost.
            (0..self.conns.len()).for_each(|which| {
                self.carry(which, leaver, usize::MAX);
            });
        }
        if loses & 1 != 0 {
            (0..self.conns.len()).for_each(|which| self.break_conn(which, true));
        }
        let from = self.now;
        while self.nodes[leaver].peer.is_some() {
            self.act(0);
            self.act(1);
            if self.carry_all() == 0 && self.nodes[leaver].peer.is_some() {
                self.pass_to_next();
            }
            // Who cannot dial and lost the confirmation waits for the other side, which has gone; its deadline would end it.
            let most = if loses & 2 != 0 { limits::RESUME_LEASE } else { Duration::from_secs(30) };
            assert!(self.now - from < most + Duration::from_secs(1), "whoever leaves is gone");
        }
        let drained = |node: &Node| node.peer.as_ref().is_none_or(|peer| peer.session().is_drained());
        assert!(self.nodes.iter().all(drained));
    }
}
