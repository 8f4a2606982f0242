//! What must hold, whatever goes wrong: one guarantee a file.

mod apart;
mod arrives;
mod books;
mod bounded;
mod drains;
mod flows_apart;
mod flows_end;
mod flows_fit;
mod flows_home;
mod flows_limit;
mod flows_once;
mod flows_rest;
mod flows_truth;
mod hung;
mod let_in;
mod members_only;
mod once;
mod over;
mod removal;
mod sound;
mod truth;
mod unbent;
mod woken;

use super::facts::{Event, Facts};

/// Watches a world for one guarantee.
pub(super) trait Invariant {
    /// Its name, as violations are told by.
    fn name(&self) -> &'static str;

    /// Something happened; `Err` says what does not hold.
    fn observe(&mut self, facts: &Facts, event: &Event) -> Result<(), String>;
}

/// All of them.
pub(super) fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(once::Once),
        Box::new(unbent::Unbent),
        Box::new(truth::Truth),
        Box::new(arrives::Arrives),
        Box::new(books::BooksBalance::default()),
        Box::new(bounded::Bounded),
        Box::new(apart::Apart::default()),
        Box::new(removal::Removal::default()),
        Box::new(hung::Hung),
        Box::new(members_only::MembersOnly),
        Box::new(let_in::LetIn),
        Box::new(woken::Woken::default()),
        Box::new(drains::Drains),
        Box::new(sound::Sound),
        Box::new(over::Over),
        Box::new(flows_end::FlowsEnd),
        Box::new(flows_home::FlowsHome),
        Box::new(flows_once::FlowsOnce),
        Box::new(flows_fit::FlowsFit),
        Box::new(flows_limit::FlowsLimit),
        Box::new(flows_apart::FlowsApart),
        Box::new(flows_truth::FlowsTruth),
        Box::new(flows_rest::FlowsRest),
    ]
}
