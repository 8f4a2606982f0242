//! Logs of several servers in one process.
