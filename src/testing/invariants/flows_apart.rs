//! Of routers: of a host no more handlers run at once than it said; with one, each begins when the one before has ended.

use super::{Event, Facts, Invariant};
use crate::testing::routers::Told;

pub(super) struct FlowsApart;

impl Invariant for FlowsApart {
    fn name(&self) -> &'static str {
        "hosts keep to their number"
    }

    fn observe(&mut self, _: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Flow(Told::Handling { by, here, running, .. }) if *running > by.concurrency => {
                let (at, host) = (by.process.0, here.host);
                Err(format!("P{at}.{host} runs {running} handlers, and said {}", by.concurrency))
            }
            _ => Ok(()),
        }
    }
}
