//! later
use clap::Args;
use crate::output::Failure;
/// Options
#[derive(Debug, Args)]
pub(crate) struct Options {}
/// later
pub(crate) async fn run(_: Options) -> Result<(), Failure> { Ok(()) }
