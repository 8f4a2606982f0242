//! Why a tool has no answer.

/// Why a tool has no answer, and whether anything may have changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// No server answered. Nothing has changed.
    #[error("no rendezvous server answers: {}", tried_text(.tried))]
    Nobody {
        /// Which addresses, and what came of each.
        tried: Vec<(String, String)>,
    },
    /// Servers answer, and none of them leads. Nothing has changed.
    #[error("no rendezvous server leads: {}", tried_text(.tried))]
    NoLeader {
        /// Which addresses, and what came of each at last.
        tried: Vec<(String, String)>,
    },
    /// A server could not do it; the text is its own.
    #[error("{server}: {why}")]
    Refused {
        /// Where it is.
        server: String,
        /// What failed, in which state it leaves things, and what to do.
        why: String,
    },
    /// The servers do not let who asks do this; the text says who may. Nothing has changed.
    #[error("{server}: {why}")]
    Denied {
        /// Where it is.
        server: String,
        /// Who may not, and who may.
        why: String,
    },
    /// The server took the order and did not answer: nobody knows whether it was done.
    #[error("{server} has not answered, and may have done it: {why}")]
    Unknown {
        /// Where it is.
        server: String,
        /// What ended the wait.
        why: String,
    },
    /// It is no server of a rendezvous, or of another version. Nothing has changed.
    #[error("{server} answers as no rendezvous server does: {why}")]
    NoServer {
        /// Where it is.
        server: String,
        /// What it said.
        why: String,
    },
    /// What was told could not be written.
    #[error("cannot write it: {0}")]
    Write(String),
}

impl AdminError {
    /// Why one server that was asked has not answered; another may. `None`: this is an answer.
    pub(super) fn of_one(&self) -> Option<&str> {
        match self {
            Self::Nobody { tried } | Self::NoLeader { tried } => tried.first().map(|(_, why)| why.as_str()),
            Self::Unknown { why, .. } | Self::NoServer { why, .. } => Some(why),
            Self::Refused { .. } | Self::Denied { .. } | Self::Write(_) => None,
        }
    }
}

fn tried_text(tried: &[(String, String)]) -> String {
    tried.iter().map(|(address, why)| format!("{address}: {why}")).collect::<Vec<_>>().join("; ")
}
