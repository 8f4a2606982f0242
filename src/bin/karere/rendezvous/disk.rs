//! What is done to a server's data directory while no server runs on it.

use std::path::Path;

use karere::rendezvous::ServerBuilder;
use serde_json::json;

use super::serve::failed;
use super::{On, order};
use crate::output::{self, Failure, JsonTo};
use crate::settings::Settings;

impl On {
    fn settings(self) -> Result<(Settings, ServerBuilder), Failure> {
        let mut all = Settings::of(&self.source)?;
        all.over("rendezvous.data", "--data", self.data, |file| &mut file.rendezvous.data);
        let advertise = self.advertise;
        all.over("rendezvous.advertise", "--advertise", advertise, |file| &mut file.rendezvous.advertise);
        let builder = all.server()?;
        Ok((all, builder))
    }
}

pub(super) async fn restore(file: &Path, on: On) -> Result<(), Failure> {
    let (settings, builder) = on.settings()?;
    let data = builder.directory().unwrap_or_default();
    let only = builder.restore(file).await.map_err(|error| failed(&settings, &data, &error))?;
    output::say(&format!(
        "{} holds what was in {}; start it: karere rendezvous --data {} --advertise {}",
        data.display(),
        file.display(),
        data.display(),
        only.address
    ));
    Ok(())
}

pub(super) async fn snapshot(file: &Path, on: On, json: bool) -> Result<(), Failure> {
    let (settings, builder) = on.settings()?;
    let data = builder.directory().unwrap_or_default();
    let upto = builder.copy_to(file).await.map_err(|error| failed(&settings, &data, &error))?;
    if json {
        return output::json_line(JsonTo::Stdout, &json!({"file": file, "entry": upto}));
    }
    output::say(&format!("{} holds all of {}, up to entry {upto}", file.display(), data.display()));
    Ok(())
}

pub(super) async fn recover(on: On, yes: bool) -> Result<(), Failure> {
    let (settings, builder) = on.settings()?;
    let data = builder.directory().unwrap_or_default();
    let shown = data.display().to_string();
    order::sure(
        yes,
        &[
            &format!(
                "The server of {shown} becomes the only one of its cluster. Do this only if more than half of the"
            ),
            "servers are lost for good, on the one of those left that has most, while none of the others runs: otherwise two clusters decide.",
            "- What reached this disk is kept; what only the lost servers had is lost.",
            "- History goes on in a higher generation; nodes that live keep their ids and sessions.",
            "- Data directories of the other servers are worth nothing then: they are added anew, empty.",
        ],
    )?;
    let only = builder.recover().await.map_err(|error| failed(&settings, &data, &error))?;
    let lost = if only.lost.is_empty() { String::new() } else { format!("; gone: {}", only.lost.join(", ")) };
    output::say(&format!(
        "the server at {} is the only one now{lost}; start it: karere rendezvous --data {shown}",
        only.address
    ));
    Ok(())
}
