//! Claims about the store, each shown on a disk that does what disks do.

mod machine;
mod suite;
