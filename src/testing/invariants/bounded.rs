//! Guarantee 3: memory is bounded, per destination, per process, per receiver.

use super::{Event, Facts, Invariant};
use crate::limits::{QUARANTINE_BYTES, QUARANTINE_PROCESS_BYTES, REPLY_RESERVE_BYTES};

pub(super) struct Bounded;

impl Invariant for Bounded {
    fn name(&self) -> &'static str {
        "memory is bounded"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Looked { process, stats } = event else { return Ok(()) };
        let limits = &facts.plan.limits;
        let at_most = |what: &str, bytes: u64, most: u64| {
            let at = process.0;
            if bytes > most {
                Err(format!("P{at}: {what} holds {bytes} bytes, at most {most}"))
            } else {
                Ok(())
            }
        };
        let replies = REPLY_RESERVE_BYTES as u64;
        for peer in &stats.peers {
            // A message that is larger than the whole queue is taken when it is the only one.
            let one = limits.queue_bytes.max(2 * limits.message_bytes) as u64;
            at_most("a destination", peer.queue_bytes as u64, one + replies)?;
            let streams = 12;
            let most = streams * limits.credit_bytes + limits.reassembly_bytes as u64;
            at_most("a receiver", peer.unhandled_bytes, most)?;
            at_most("a quarantine", peer.quarantined_bytes as u64, QUARANTINE_BYTES as u64)?;
        }
        let sum = |of: fn(&crate::PeerStats) -> usize| stats.peers.iter().map(of).sum::<usize>() as u64;
        let most = limits.process_bytes as u64 + replies * stats.peers.len() as u64;
        at_most("all destinations", sum(|peer| peer.queue_bytes), most)?;
        at_most("all quarantines", sum(|peer| peer.quarantined_bytes), QUARANTINE_PROCESS_BYTES as u64)
    }
}
