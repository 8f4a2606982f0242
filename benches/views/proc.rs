//! What the kernel says of this process: descriptors, sockets, memory. Linux.

use std::fs;
use std::path::{Path, PathBuf};

/// Whether this system has it.
pub(crate) fn is_there() -> bool {
    Path::new("/proc/self/fd").exists() && Path::new("/proc/net/tcp").exists()
}

/// Resident memory, in KiB.
pub(crate) fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line for it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Descriptors that are open; the one for looking is not counted.
pub(crate) fn descriptors() -> u64 {
    fs::read_dir("/proc/self/fd").expect("descriptors").count() as u64 - 1
}

/// An IPv4 TCP socket of this network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    /// As in the kernel's `tcp_states.h`.
    pub(crate) state: u8,
    /// Bytes written that the other side's kernel did not acknowledge.
    pub(crate) unsent: u64,
    /// 0: no descriptor holds it.
    inode: u64,
}

pub(crate) const ESTABLISHED: u8 = 1;
pub(crate) const SYN_SENT: u8 = 2;
/// FIN_WAIT2 and TIME_WAIT.
const ENDED: [u8; 2] = [5, 6];

/// All of them.
pub(crate) fn sockets() -> Vec<Socket> {
    let table = fs::read_to_string("/proc/net/tcp").expect("a table of sockets");
    table.lines().skip(1).filter_map(socket).collect()
}

fn socket(line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let port = |at: usize| u16::from_str_radix(fields.get(at)?.split_once(':')?.1, 16).ok();
    Some(Socket {
        local_port: port(1)?,
        remote_port: port(2)?,
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        unsent: u64::from_str_radix(fields.get(4)?.split_once(':')?.0, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

impl Socket {
    /// Its descriptor in this process.
    pub(crate) fn held(self) -> Option<Held> {
        let name = PathBuf::from(format!("socket:[{}]", self.inode));
        let all = fs::read_dir("/proc/self/fd").expect("descriptors");
        let mut links = all.flatten().map(|entry| entry.path());
        let link = links.find(|link| fs::read_link(link).is_ok_and(|to| to == name))?;
        Some(Held { link, name, socket: self })
    }
}

/// A socket that this process had open.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    link: PathBuf,
    name: PathBuf,
    socket: Socket,
}

impl Held {
    /// Whether it is closed. The descriptor's number may be another file's by now, its inode is not.
    pub(crate) fn is_closed(&self) -> bool {
        fs::read_link(&self.link).map_or(true, |to| to != self.name)
    }
}

/// Whether the kernel holds nothing of any of them that is on its way: at most the note of a connection whose end the
/// other side has acknowledged (FIN_WAIT2) and answered (TIME_WAIT). Looking takes milliseconds where there are many sockets.
pub(crate) fn are_forgotten(all: &[Held]) -> bool {
    let ports = |of: &Socket| (of.local_port, of.remote_port);
    let is_one = |other: &Socket| all.iter().any(|held| ports(&held.socket) == ports(other));
    !sockets().iter().any(|other| !ENDED.contains(&other.state) && is_one(other))
}
