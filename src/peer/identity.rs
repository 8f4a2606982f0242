//! Who is at the other end: the name in its hello against what its certificate proved. Under TLS nobody is a member
//! whose certificate does not cover the member's name.

use std::fmt;

use super::Introduction;
use crate::wire::first::Code;
use crate::wire::{Hello, Reject};

/// What a certificate proved that was verified up to an authority. Reading certificates is the driver's.
pub(crate) trait Identity: fmt::Debug + Send + Sync {
    /// Whether the certificate is for this name.
    fn covers(&self, name: &str) -> bool;

    /// What it is for, to be shown.
    fn names(&self) -> &[String];
}

impl Introduction {
    /// Judges a hello or an answer by the certificate that came before it; without TLS there is nothing to judge.
    pub(crate) fn judge_identity(
        &self,
        hello: &Hello,
        identity: Option<&dyn Identity>,
    ) -> Result<(), Box<Reject>> {
        let Some(identity) = identity else { return Ok(()) };
        let name = &hello.from.name;
        if identity.covers(name) {
            return Ok(());
        }
        let names = identity.names().join("`, `");
        let text = if name.is_empty() {
            format!(
                "the hello gives no name, and the certificate is for `{names}`: give the member one of these"
            )
        } else {
            format!(
                "the hello gives the name `{name}`, and the certificate is for `{names}`: one of them is wrong"
            )
        };
        Err(Box::new(self.reject(Code::Identity, text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::{Member, MemberId};

    #[derive(Debug)]
    struct Names(Vec<String>);

    impl Identity for Names {
        fn covers(&self, name: &str) -> bool {
            self.0.iter().any(|covered| covered == name)
        }

        fn names(&self) -> &[String] {
            &self.0
        }
    }

    fn hello(name: &str) -> Hello {
        let question = Introduction::default().question();
        let member =
            Member { id: MemberId::from_parts(5, 5), name: name.to_owned(), ..question.from.clone() };
        Hello { from: member, ..question }
    }

    #[test]
    fn a_name_that_the_certificate_does_not_cover_is_refused_and_both_are_told() {
        let me = Introduction::default();
        let identity = Names(vec!["alpha".to_owned(), "beta".to_owned()]);
        assert_eq!(me.judge_identity(&hello("beta"), Some(&identity)), Ok(()));
        let reject = me.judge_identity(&hello("gamma"), Some(&identity)).unwrap_err();
        assert_eq!((reject.code, reject.from), (Code::Identity, Some(me.member.id)));
        for told in ["`alpha`, `beta`", "`gamma`"] {
            assert!(reject.text.contains(told), "{}", reject.text);
        }
        let reject = me.judge_identity(&hello(""), Some(&identity)).unwrap_err();
        assert!(reject.text.contains("no name"), "{}", reject.text);
    }

    #[test]
    fn without_a_certificate_any_name_passes() {
        assert_eq!(Introduction::default().judge_identity(&hello("anything"), None), Ok(()));
    }
}
