//! The log, as the server sees it.

pub(super) use super::solo::{Log, ServerSeen, Standing};
