//! Logs of several servers in one process, in virtual time, over the simulated network and disks that outlive their processes.

mod beginning;
mod changing;
mod chaos;
mod deciding;
mod disk;
mod leading;
mod lease;
mod peers;
mod world;
