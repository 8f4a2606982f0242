//! Who may change a cluster: peers with certain names, which their certificates prove.

use std::collections::BTreeSet;

/// See the module's text. Without names anybody may who is let in at all.
#[derive(Clone, Debug, Default)]
pub(super) struct Admins(Option<BTreeSet<String>>);

impl Admins {
    pub(super) fn named(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(Some(names.into_iter().map(Into::into).collect()))
    }

    /// Whether names are asked for.
    pub(super) const fn are_named(&self) -> bool {
        self.0.is_some()
    }

    /// Why a peer of this name may not, if so; for people.
    pub(super) fn refuses(&self, name: Option<&str>) -> Option<String> {
        let names = self.0.as_ref()?;
        if name.is_some_and(|name| names.contains(name)) {
            return None;
        }
        let who = match name {
            Some(name) if !name.is_empty() => format!("`{name}`"),
            Some(_) | None => "who has no name".to_owned(),
        };
        let may = match names.len() {
            0 => "nobody may".to_owned(),
            _ => {
                format!("the servers' `admins` may: {}", names.iter().cloned().collect::<Vec<_>>().join(", "))
            }
        };
        Some(format!("{who} may not ask this of the servers: {may}; nothing has changed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_names_all_may_and_with_names_only_those() {
        assert_eq!(Admins::default().refuses(None), None);
        let admins = Admins::named(["ops", "ci"]);
        assert_eq!(admins.refuses(Some("ops")), None);
        for name in [Some("Ops"), Some("ops2"), Some(""), None] {
            let why = admins.refuses(name).unwrap();
            assert!(why.contains("admins") && why.contains("ci, ops"), "{why}");
        }
        assert!(Admins::named(Vec::<String>::new()).refuses(Some("ops")).unwrap().contains("nobody"));
    }
}
