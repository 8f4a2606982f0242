//! Turns that are owed. Who is passed over for want of room gets its turn later: so all providers of a key have had as many in the end,
//! however their windows filled meanwhile. What each has had and what it is owed differ from the others' by one turn at most, as long as
//! nobody is owed more than [`OWED_MAX`]; so counts differ by what is owed at that moment, and not more the longer it goes on.

use super::super::envelope::ActorRef;

/// Turns that one provider may be owed: as many as messages may wait for room. Who stood still for longer has lost the rest.
pub(super) const OWED_MAX: u32 = 65_536;

/// What providers of one key are owed: one entry each, so as many as there are providers.
#[derive(Debug, Default)]
pub(super) struct Owed {
    of: Vec<(ActorRef, u32)>,
    /// The last message was a turn that was owed.
    repaid: bool,
}

impl Owed {
    /// One of so many was passed over.
    pub(super) fn pass(&mut self, to: ActorRef, providers: usize) {
        match self.of.iter_mut().find(|(other, _)| *other == to) {
            Some((_, turns)) => *turns = turns.saturating_add(1).min(OWED_MAX),
            None => self.of.push((to, 1)),
        }
        if self.of.len() == providers {
            // What is owed to all is owed to nobody.
            let least = self.of.iter().map(|(_, turns)| *turns).min().unwrap_or(0);
            self.of.iter_mut().for_each(|(_, turns)| *turns -= least);
            self.of.retain(|(_, turns)| *turns > 0);
        }
    }

    /// Who of those that can take it is owed most: it has its turn now. Every second message at most is such a turn: who
    /// comes back gets more than the others, not all there is.
    pub(super) fn claim(&mut self, takes: impl Fn(ActorRef) -> bool) -> Option<ActorRef> {
        if self.of.is_empty() || std::mem::take(&mut self.repaid) {
            return None;
        }
        let able = self.of.iter().enumerate().filter(|(_, (to, _))| takes(*to));
        let (at, _) = able.max_by_key(|(_, (_, turns))| *turns)?;
        let (to, turns) = self.of.get_mut(at)?;
        let to = *to;
        *turns -= 1;
        if *turns == 0 {
            self.of.remove(at);
        }
        self.repaid = true;
        Some(to)
    }

    /// It is no provider any more.
    pub(super) fn forget(&mut self, to: ActorRef) {
        self.of.retain(|(other, _)| *other != to);
    }
}
