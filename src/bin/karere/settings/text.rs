//! The text of a file, and on which line each of its keys stands.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue, Error};

use crate::output::Failure;

/// A key with its value.
#[derive(Clone, Debug)]
struct Place {
    line: usize,
    /// The value, if it is a text.
    text: Option<String>,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    path: PathBuf,
    text: String,
    /// By names with dots between.
    places: BTreeMap<String, Place>,
}

impl Text {
    /// # Errors
    /// It is no TOML, or a key of it is not known; with its line.
    pub(super) fn read<T: serde::de::DeserializeOwned>(
        path: &Path,
        text: String,
    ) -> Result<(Self, T), Failure> {
        let table = DeTable::parse(&text).map_err(|error| refuse(path, &text, &error))?;
        let mut places = BTreeMap::new();
        note("", table.get_ref(), &text, &mut places);
        let value = toml::from_str(&text).map_err(|error| refuse(path, &text, &error))?;
        Ok((Self { path: path.to_owned(), text, places }, value))
    }

    /// Where a key stands: `karere.toml:12`.
    pub(super) fn place(&self, key: &str) -> Option<String> {
        self.places.get(key).map(|place| format!("{}:{}", self.path.display(), place.line))
    }

    /// The line it stands on, as it is written.
    pub(super) fn written(&self, key: &str) -> Option<&str> {
        let line = self.places.get(key)?.line;
        self.text.lines().nth(line.checked_sub(1)?).map(str::trim)
    }

    /// The key whose value is or holds this text.
    pub(super) fn key_with(&self, value: &str) -> Option<&str> {
        let holds = |place: &Place| place.text.as_deref().is_some_and(|text| text.contains(value));
        self.places.iter().find(|(_, place)| holds(place)).map(|(key, _)| key.as_str())
    }
}

fn note(above: &str, table: &DeTable<'_>, text: &str, places: &mut BTreeMap<String, Place>) {
    for (name, value) in table {
        let key =
            if above.is_empty() { name.get_ref().to_string() } else { format!("{above}.{}", name.get_ref()) };
        let line = line_of(text, name.span());
        let texts = match value.get_ref() {
            DeValue::Array(all) => {
                let texts = all.iter().filter_map(|one| one.get_ref().as_str());
                Some(texts.collect::<Vec<_>>().join(" "))
            }
            other => other.as_str().map(str::to_owned),
        };
        if let DeValue::Table(below) = value.get_ref() {
            note(&key, below, text, places);
        }
        places.insert(key, Place { line, text: texts });
    }
}

fn line_of(text: &str, span: Range<usize>) -> usize {
    text.get(..span.start).map_or(0, |before| before.matches('\n').count()) + 1
}

/// What the parser says, with its line, and what to do about it.
fn refuse(path: &Path, text: &str, error: &Error) -> Failure {
    let message = error.message().replace('\n', ", ");
    let Some(span) = error.span() else { return Failure::new(format!("{}: {message}", path.display())) };
    let line = line_of(text, span.clone());
    let (what, known) = match message.split_once(", expected one of ") {
        Some((what, known)) => (what.to_owned(), Some(known)),
        None => (message, None),
    };
    let what = what.replace("unknown field", "unknown key");
    let failure = Failure::new(format!("{}:{line}: {what}", path.display()));
    let failure = match text.lines().nth(line - 1).map(str::trim) {
        Some(written) if !written.is_empty() => failure.by(written),
        Some(_) | None => failure,
    };
    let Some(known) = known else { return failure.tries("`karere config example` for a file that is right") };
    let given = text.get(span).unwrap_or_default();
    let names: Vec<&str> = known.split(", ").map(|name| name.trim_matches('`')).collect();
    match names.iter().min_by_key(|name| distance(name, given)).filter(|name| distance(name, given) <= 3) {
        Some(near) => failure.tries(format!("`{near}`; known here: {}", names.join(", "))),
        None => failure.tries(format!("one of those known here: {}", names.join(", "))),
    }
}

/// Letters to be changed, put in or left out (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut next = vec![at + 1];
        for (column, other) in other.iter().enumerate() {
            let change = row[column] + usize::from(letter != *other);
            next.push(change.min(row[column + 1] + 1).min(next[column] + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::file::File;

    fn read(text: &str) -> Result<(Text, File), Failure> {
        Text::read(Path::new("k.toml"), text.to_owned())
    }

    #[test]
    fn keys_are_found_on_their_lines_also_in_tables_of_one_line() {
        let text = "name = \"a\"\n\n[rendezvous]\npeers = [\n  \"a:1\",\n  \"b:2\",\n]\n\n[node]\nlabels = { zone = \"x\" }\n";
        let (text, file) = read(text).unwrap();
        assert_eq!(file.node.labels["zone"], "x");
        assert_eq!(text.place("rendezvous.peers").unwrap(), "k.toml:4");
        assert_eq!(text.place("node.labels.zone").unwrap(), "k.toml:10");
        assert_eq!(text.place("timeouts.ping"), None);
        assert_eq!(text.key_with("b:2"), Some("rendezvous.peers"));
        assert_eq!(text.written("name"), Some("name = \"a\""));
    }

    #[test]
    fn what_is_not_known_is_refused_with_its_line_and_what_may_have_been_meant() {
        let failure = read("[rendezvous]\nbind = \":1\"\npingg = \"1s\"\n").unwrap_err();
        assert_eq!(failure.what, "k.toml:3: unknown key `pingg`");
        assert_eq!(failure.by.as_deref(), Some("pingg = \"1s\""));
        assert!(failure.tries.as_deref().unwrap().starts_with("`ping`; known here: bind, "), "{failure}");
        let failure = read("\n[rendezvus]\n").unwrap_err();
        assert!(failure.what.starts_with("k.toml:2: unknown key `rendezvus`"), "{failure}");
    }

    #[test]
    fn what_is_no_time_or_no_toml_is_refused_with_its_line() {
        let failure = read("[timeouts]\nping = 5\n").unwrap_err();
        assert!(failure.what.starts_with("k.toml:2: ") && failure.what.contains("75ms"), "{failure}");
        let failure = read("[timeouts]\nping = \"5 days\"\n").unwrap_err();
        assert!(failure.what.starts_with("k.toml:2: `5 days` is no time"), "{failure}");
        let failure = read("a = 1\nb = = 2\n").unwrap_err();
        assert!(failure.what.starts_with("k.toml:2: "), "{failure}");
        let failure = read("name = \"a\"\nname = \"b\"\n").unwrap_err();
        assert!(failure.what.starts_with("k.toml:2: "), "{failure}");
    }
}
