//! Where a server keeps what must outlive it, if nobody says where.

use std::ffi::OsString;
use std::path::PathBuf;

/// systemd's `StateDirectory=`, else the user's state directory (XDG Base Directory Specification), else that of the machine for root.
/// One directory for each environment and network.
pub(super) fn default_directory(
    environment: &str,
    network: &str,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    // Of several, systemd gives the first to the service itself.
    let systemd = set("STATE_DIRECTORY").map(|paths| {
        let first = paths.to_string_lossy().split(':').next().unwrap_or_default().to_owned();
        PathBuf::from(first)
    });
    let base = systemd
        .and_then(absolute)
        .or_else(|| set("XDG_STATE_HOME").and_then(absolute).map(|home| home.join("karere")))
        .or_else(|| set("HOME").and_then(absolute).map(|home| home.join(".local/state/karere")))?;
    Some(base.join("rendezvous").join(format!("{}.{}", plain(environment), plain(network))))
}

/// A name as part of a path: what is no letter, digit, dash or underscore is written as its number.
fn plain(name: &str) -> String {
    let mut plain = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => plain.push(char::from(byte)),
            other => plain.push_str(&format!("%{other:02x}")),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(set: &[(&str, &str)]) -> Option<String> {
        let variable =
            |name: &str| set.iter().find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value));
        default_directory("production", "or/ders", variable).map(|path| path.to_string_lossy().into_owned())
    }

    #[test]
    fn the_directory_is_the_services_or_the_users_and_one_for_each_network() {
        let systemd = [("STATE_DIRECTORY", "/var/lib/karere:/x"), ("HOME", "/root")];
        assert_eq!(directory(&systemd).unwrap(), "/var/lib/karere/rendezvous/production.or%2fders");
        let xdg = [("XDG_STATE_HOME", "/s"), ("HOME", "/root")];
        assert_eq!(directory(&xdg).unwrap(), "/s/karere/rendezvous/production.or%2fders");
        let home = [("XDG_STATE_HOME", "relative"), ("HOME", "/h")];
        assert_eq!(directory(&home).unwrap(), "/h/.local/state/karere/rendezvous/production.or%2fders");
        assert_eq!(directory(&[("HOME", "")]), None);
    }
}
