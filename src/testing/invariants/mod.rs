//! What must hold, whatever goes wrong: one guarantee a file.

mod apart;
mod arrives;
mod books;
mod bounded;
mod drains;
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
    ]
}
