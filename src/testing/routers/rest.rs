//! A look at all routers, when nothing fails and nothing begins any more.

use std::collections::BTreeSet;

use super::book::{Ended, Told};
use crate::router::Scope;
use crate::testing::facts::Event;
use crate::testing::net::ProcessId;
use crate::testing::world::World;

/// What a router holds.
#[derive(Clone, Debug)]
pub(in crate::testing) struct Look {
    pub(in crate::testing) process: ProcessId,
    /// Messages that wait, promises, work that is not done.
    pub(in crate::testing) open: (usize, usize, usize),
    /// Places of windows that are taken.
    pub(in crate::testing) under_way: usize,
    /// Routes that others are to know, and those of others that it knows: node and host by numbers of the world.
    pub(in crate::testing) own: BTreeSet<(String, u32)>,
    pub(in crate::testing) known: BTreeSet<(ProcessId, String, u32)>,
}

impl Look {
    /// Routes that it should know.
    pub(in crate::testing) fn of_others(&self, looks: &[Self]) -> BTreeSet<(ProcessId, String, u32)> {
        let others = looks.iter().filter(|other| other.process != self.process);
        others
            .flat_map(|other| other.own.iter().map(|(key, host)| (other.process, key.clone(), *host)))
            .collect()
    }
}

impl World {
    fn look_at_router(&self, process: ProcessId) -> Option<Look> {
        let node = &self.process(process)?.router.as_ref()?.node;
        let own = node.internal_routes().into_iter().filter(|(.., scope)| *scope == Scope::Network);
        let known = node.external_routes().into_iter().map(|(key, to)| {
            let of = self.facts.process_of(to.node).unwrap_or(ProcessId(usize::MAX));
            (of, key.to_string(), to.host)
        });
        Some(Look {
            process,
            open: node.open(),
            under_way: node.under_way(),
            own: own.map(|(key, host, _)| (key.to_string(), host)).collect(),
            known: known.collect(),
        })
    }

    /// Whether routers have nothing to do any more.
    pub(in crate::testing) fn routers_rest(&self) -> bool {
        let rests = |look: Look| look.open == (0, 0, 0) && look.under_way == 0;
        self.facts.book.open.is_empty()
            && self.facts.running().filter_map(|(id, _)| self.look_at_router(id)).all(rests)
    }

    fn looks(&self) -> Vec<Look> {
        self.facts.running().filter_map(|(id, _)| self.look_at_router(id)).collect()
    }

    /// Whether all know all routes: without views it takes its time until somebody is missed, and found again.
    pub(in crate::testing) fn routers_know_all(&self) -> bool {
        let looks = self.looks();
        looks.iter().all(|look| look.known == look.of_others(&looks))
    }

    pub(in crate::testing) fn look_at_routers(&mut self) {
        if !self.facts.plan.routers {
            return;
        }
        let looks = self.looks();
        self.observe(Event::Flow(Told::Rest { looks }));
    }

    /// Figures of what was told.
    pub(in crate::testing) fn count_flow(&mut self, told: &Told) {
        let figures = &mut self.outcome.routers;
        match told {
            Told::Ended { flow, ended } => {
                *figures.outcomes.entry(ended.name().to_owned()).or_default() += 1;
                let strays = matches!(ended, Ended::Answered { flow: other, .. } if other != flow);
                figures.misdelivered += u64::from(strays);
            }
            Told::Handling { .. } => figures.handled += 1,
            _ => {}
        }
    }

    /// Whose messengers have closed wait for nothing.
    pub(in crate::testing) fn look_at_last_flows(&mut self) {
        if !self.facts.plan.routers {
            return;
        }
        if self.goes_on()
            && let Some(flow) = self.facts.book.open.first().copied()
        {
            let flow = self.facts.book.flows.get(&flow).map(|flow| (flow.process, flow.way));
            self.violated("flows end with their messenger", format!("{flow:?} goes on"));
        }
        self.count_routers();
    }

    /// Figures of the world's end.
    pub(in crate::testing) fn count_routers(&mut self) {
        if self.facts.plan.routers {
            (0..self.processes.len()).for_each(|at| self.count_router(ProcessId(at)));
            self.outcome.routers.worlds = 1;
            self.outcome.routers.flows = self.facts.book.flows.len() as u64;
        }
    }

    /// Figures of a router that ends.
    pub(in crate::testing) fn count_router(&mut self, id: ProcessId) {
        let Some(router) = self.process(id).and_then(|one| one.router.as_ref()) else { return };
        let counts = router.node.counts();
        // What is open when the world ends has hung.
        let crashed = if self.is_over { 0 } else { self.facts.book.forget(id) };
        let figures = &mut self.outcome.routers;
        figures.crashed += crashed as u64;
        figures.forwarded += counts.forwarded;
        figures.returned += counts.returned;
        figures.rerouted += counts.rerouted;
        figures.dead += counts.dead;
        figures.late += counts.late;
        figures.discoveries += counts.discoveries;
    }
}
