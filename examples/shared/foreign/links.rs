//! Where nodes are dialled: at their own addresses, or through fault proxies.

use karere::Endpoint;
use serde_json::{Value, json};

use crate::{Failure, Options};

#[cfg(feature = "faults")]
pub(crate) struct Links {
    plan: Option<karere::faults::Plan>,
    proxies: Vec<karere::faults::Proxy>,
}

#[cfg(feature = "faults")]
impl Links {
    pub(crate) fn new(options: &Options) -> Result<Self, Failure> {
        use karere::faults::{DelaySpells, Plan, Schedule};
        let delays = DelaySpells {
            every_ms: (100..=400).into(),
            lasts_ms: (50..=200).into(),
            delay_ms: (1..=20).into(),
        };
        let schedule = Schedule {
            reset_every_ms: Some((100..=500).into()),
            cut_after_bytes: Some((20_000..=400_000).into()),
            delays: Some(delays),
            ..Schedule::default()
        };
        let plan = options.faults.then(|| Plan::new(options.seed, schedule));
        Ok(Self { plan, proxies: Vec::new() })
    }

    /// Where the others find this one.
    pub(crate) fn to(&mut self, endpoint: &Endpoint) -> Result<Endpoint, Failure> {
        let Some(plan) = &self.plan else { return Ok(endpoint.clone()) };
        let seed = plan.seed + self.proxies.len() as u64;
        let plan = karere::faults::Plan { seed, ..plan.clone() };
        let listen = "127.0.0.1:0".parse()?;
        let proxy = karere::faults::Proxy::start(listen, endpoint.to_string().parse()?, plan)?;
        let address = proxy.address().to_string().parse()?;
        self.proxies.push(proxy);
        Ok(address)
    }

    /// What the proxies have done.
    pub(crate) fn counts(&self) -> Value {
        let sum = |of: fn(&karere::faults::FaultCounts) -> u64| -> u64 {
            self.proxies.iter().map(|proxy| of(&proxy.counts())).sum()
        };
        json!({
            "connections": sum(|counts| counts.connections),
            "resets": sum(|counts| counts.resets),
            "cuts": sum(|counts| counts.cuts),
            "delays": sum(|counts| counts.delays),
        })
    }
}

#[cfg(not(feature = "faults"))]
pub(crate) struct Links;

#[cfg(not(feature = "faults"))]
impl Links {
    pub(crate) fn new(options: &Options) -> Result<Self, Failure> {
        if options.faults {
            return Err("--faults needs the feature `faults`".into());
        }
        Ok(Self)
    }

    pub(crate) fn to(&mut self, endpoint: &Endpoint) -> Result<Endpoint, Failure> {
        Ok(endpoint.clone())
    }

    pub(crate) fn counts(&self) -> Value {
        json!({"connections": 0, "resets": 0, "cuts": 0, "delays": 0})
    }
}
