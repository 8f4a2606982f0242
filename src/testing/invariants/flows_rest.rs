//! Of routers: when nothing fails and all times are over, nothing is left of any flow, and all know everything.

use super::{Event, Facts, Invariant};
use crate::member::Views;
use crate::testing::facts::ProcessFacts;
use crate::testing::routers::Told;

pub(super) struct FlowsRest;

impl Invariant for FlowsRest {
    fn name(&self) -> &'static str {
        "routers come to rest"
    }

    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        let Event::Flow(Told::Rest { looks }) = event else { return Ok(()) };
        if let Some(flow) = facts.book.open.first() {
            return Err(format!("flow {flow} goes on: {:?}", facts.book.flows.get(flow)));
        }
        for look in looks {
            let at = look.process.0;
            if look.open != (0, 0, 0) {
                let (waiting, promises, work) = look.open;
                return Err(format!("P{at}: {waiting} messages wait, {promises} promises, {work} of work"));
            }
            if look.under_way > 0 {
                return Err(format!("P{at}: {} places of windows are never given back", look.under_way));
            }
        }
        // Without views all know each other in the end, by the list that they have.
        let knows =
            |process: &ProcessFacts| facts.plan.views == Views::None || process.view.len() == looks.len();
        if !facts.running().all(|(_, process)| knows(process)) {
            return Ok(());
        }
        for look in looks {
            let all = look.of_others(looks);
            if let Some((of, key, host)) = all.difference(&look.known).next() {
                return Err(format!("P{} does not know {key} of P{}.{host}", look.process.0, of.0));
            }
            if let Some((of, key, host)) = look.known.difference(&all).next() {
                return Err(format!("P{} knows {key} of P{}.{host}, which is not", look.process.0, of.0));
            }
        }
        Ok(())
    }
}
