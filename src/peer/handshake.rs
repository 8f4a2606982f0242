//! The handshake's decisions: which hello resumes, which begins anew, which is refused, and which of several links
//! stays. Rules 3-10 and 17 of docs/PROTOCOL.md.

use crate::member::{Member, MemberId, ViewId};
use crate::wire::first::Code;
use crate::wire::{Epoch, Hello, Reject, VERSIONS, Versions};

/// What each hello of a process says of it.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    pub(crate) versions: Versions,
    pub(crate) environment: String,
    pub(crate) network: String,
    /// This side does not know the network's name, and takes whatever the other says. It only dials.
    pub(crate) network_open: bool,
    /// Whoever does not know the network's name may come here: it is a server, that answers questions.
    pub(crate) strangers: bool,
    pub(crate) member: Member,
    pub(crate) view: Option<ViewId>,
}

impl Introduction {
    /// A hello that says nothing of a session: the question "who is there?".
    pub(crate) fn question(&self) -> Hello {
        Hello {
            versions: self.versions,
            environment: self.environment.clone(),
            network: (!self.network_open).then(|| self.network.clone()),
            from: self.member.clone(),
            role: 0,
            to: None,
            epoch: Epoch::UNKNOWN,
            your_epoch: Epoch::UNKNOWN,
            generation: 0,
            attempt: 0,
            view: self.view,
            streams: Vec::new(),
            features: 0,
            credit: 0,
            message_bytes: u64::MAX,
        }
    }

    /// A refusal that carries who answers.
    pub(crate) fn reject(&self, code: Code, text: impl Into<String>) -> Reject {
        Reject {
            versions: self.versions,
            code,
            text: text.into(),
            from: Some(self.member.id),
            your_versions: None,
            environment: None,
            network: None,
        }
    }

    /// The refusal of one who speaks no version that is spoken here.
    pub(crate) fn reject_version(&self, theirs: Versions) -> Box<Reject> {
        let text = format!("speaks versions {}, you {theirs}", self.versions);
        Box::new(Reject { your_versions: Some(theirs), ..self.reject(Code::VersionMismatch, text) })
    }

    /// What can be judged before it is known whose session it is: version, environment, network, whom it means.
    pub(crate) fn judge(&self, hello: &Hello) -> Result<(), Box<Reject>> {
        if self.versions.agree(hello.versions).is_none() {
            return Err(self.reject_version(hello.versions));
        }
        let named = |code, what: &str, ours: &str, theirs: &str| {
            let text = format!("this is {what} `{ours}`, not `{theirs}`");
            Box::new(Reject {
                environment: Some(self.environment.clone()),
                network: Some(self.network.clone()),
                ..self.reject(code, text)
            })
        };
        if hello.environment != self.environment {
            let (ours, theirs) = (&self.environment, &hello.environment);
            return Err(named(Code::EnvironmentMismatch, "environment", ours, theirs));
        }
        match &hello.network {
            Some(network) if *network != self.network => {
                return Err(named(Code::NetworkMismatch, "network", &self.network, network));
            }
            None if !self.strangers => {
                let text = format!(
                    "this is network `{}`, and the hello names none: only servers may be asked",
                    self.network
                );
                let names = (Some(self.environment.clone()), Some(self.network.clone()));
                let reject = self.reject(Code::NetworkMismatch, text);
                return Err(Box::new(Reject { environment: names.0, network: names.1, ..reject }));
            }
            Some(_) | None => {}
        }
        match hello.to {
            Some(to) if to == self.member.id => Ok(()),
            Some(_) | None => Err(Box::new(self.reject(Code::WrongMember, "another member is here"))),
        }
    }
}

impl Default for Introduction {
    fn default() -> Self {
        Self {
            versions: VERSIONS,
            environment: String::new(),
            network: String::new(),
            network_open: false,
            strangers: true,
            member: Member {
                id: MemberId::from_parts(0, 0),
                endpoints: Vec::new(),
                name: String::new(),
                labels: std::collections::BTreeMap::new(),
                joined: None,
            },
            view: None,
        }
    }
}

/// Whether waiting does not mend a refusal: somebody's configuration is wrong.
pub(super) const fn is_for_good(code: Code) -> bool {
    use Code::{EnvironmentMismatch, Identity, NetworkMismatch, VersionMismatch};
    matches!(code, VersionMismatch | EnvironmentMismatch | NetworkMismatch | Identity)
}

/// Decides between two links of one session: the higher stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// One more than the highest its dialler has seen established.
    pub(crate) generation: u64,
    pub(crate) dialler: MemberId,
    /// Counts own dials within the generation.
    pub(crate) attempt: u64,
}

impl Rank {
    pub(crate) const fn of(hello: &Hello) -> Self {
        Self { generation: hello.generation, dialler: hello.from.id, attempt: hello.attempt }
    }
}

/// Rule 4: whether two sides mean the same session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Same {
    /// The peer's epoch was not known yet.
    Bind,
    Resume,
    /// The peer's epoch is newer: it forgot the session that is here.
    PeerForgot,
    /// It means a session that is not here.
    Unknown,
    /// It comes from a session that the peer itself has ended since.
    Stale,
}

impl Same {
    pub(crate) fn judge(ours: Epoch, bound: Option<Epoch>, epoch: Epoch, your_epoch: Epoch) -> Self {
        if your_epoch != Epoch::UNKNOWN && your_epoch != ours {
            return Self::Unknown;
        }
        match bound {
            None => Self::Bind,
            Some(bound) if bound == epoch => Self::Resume,
            Some(bound) if bound < epoch => Self::PeerForgot,
            Some(_) => Self::Stale,
        }
    }
}
