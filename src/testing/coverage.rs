//! What was hit in the midst of what: fault by state.

use super::faults::Fault;
use crate::peer::Doing;

const STATES: usize = Doing::ALL.len();
const FAULTS: usize = Fault::ALL.len();

/// How often each fault met a peer in each state.
#[derive(Clone, Debug)]
pub struct Coverage([[u64; STATES]; FAULTS]);

impl Default for Coverage {
    fn default() -> Self {
        Self([[0; STATES]; FAULTS])
    }
}

impl Coverage {
    pub(super) fn hit(&mut self, fault: Fault, doing: Doing) {
        self.0[fault as usize][doing as usize] += 1;
    }

    /// Sums up.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().flatten().zip(other.0.iter().flatten()) {
            *mine += theirs;
        }
    }

    /// Names of the states, in the order of the columns.
    #[must_use]
    pub fn states() -> Vec<String> {
        Doing::ALL.iter().map(|doing| format!("{doing:?}")).collect()
    }

    /// Each fault with its hits, by state.
    #[must_use]
    pub fn rows(&self) -> Vec<(String, Vec<u64>)> {
        let row = |fault: &Fault| (format!("{fault:?}"), self.0[*fault as usize].to_vec());
        Fault::ALL.iter().map(row).collect()
    }
}
