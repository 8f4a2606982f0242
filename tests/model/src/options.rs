//! What is asked for.

use karere::fuzzing::model::{Scenario, scenarios};

const HELP: &str = "\
Walks through every order of events of a scenario. Without one: the quick ones.
  --scenario NAME   this one; may be given several times
  --all             all of them
  --threads N       how many threads walk (1)
  --max-states N    ends a scenario after so many states: it is not exhausted then, and says so
  --breaks N        so many connections break, not as many as the scenario says
  --sends N,M       sides 0 and 1 send so many messages at most, not as many as the scenario says
  --calm-every N    looks from one state in N whether everything ends when nothing breaks any more (1: from each)
  --json            one line of JSON a scenario
  --list            what there is";

/// See [`HELP`].
pub struct Options {
    names: Vec<String>,
    all: bool,
    breaks: Option<u8>,
    sends: [usize; 2],
    pub threads: usize,
    pub max_states: Option<usize>,
    pub calm_every: u128,
    pub json: bool,
}

impl Options {
    /// Of the command line.
    pub fn from_args() -> Result<Self, String> {
        let mut options = Self {
            names: Vec::new(),
            all: false,
            breaks: None,
            sends: [usize::MAX; 2],
            threads: 1,
            max_states: None,
            calm_every: 1,
            json: false,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            let number =
                |text: String| text.replace('_', "").parse().map_err(|_| format!("no number: {text}"));
            match arg.as_str() {
                "--scenario" => options.names.push(value()?),
                "--all" => options.all = true,
                "--threads" => options.threads = number(value()?)?,
                "--breaks" => {
                    let breaks = number(value()?)?;
                    options.breaks = Some(u8::try_from(breaks).map_err(|_| format!("too many: {breaks}"))?);
                }
                "--sends" => {
                    let text = value()?;
                    let (one, other) = text.split_once(',').ok_or(format!("not two numbers: {text}"))?;
                    options.sends = [number(one.to_owned())?, number(other.to_owned())?];
                }
                "--max-states" => options.max_states = Some(number(value()?)?),
                "--calm-every" => options.calm_every = number(value()?)?.max(1) as u128,
                "--json" => options.json = true,
                "--list" => return Err(list()),
                _ => return Err(HELP.to_owned()),
            }
        }
        let known = |name: &String| scenarios().iter().any(|scenario| scenario.name == name);
        match options.names.iter().find(|name| !known(name)) {
            Some(unknown) => Err(format!("no scenario `{unknown}`; there are:\n{}", list())),
            None => Ok(options),
        }
    }

    /// Those asked for.
    pub fn scenarios(&self) -> impl Iterator<Item = &'static Scenario> {
        let asked = |scenario: &&Scenario| {
            let named = self.names.iter().any(|name| scenario.name == name);
            named || self.all || (self.names.is_empty() && scenario.quick)
        };
        scenarios().iter().filter(asked).map(|scenario| {
            let breaks = self.breaks.unwrap_or(scenario.breaks);
            let sends = [0, 1].map(|side: usize| {
                let all = scenario.sends[side];
                &all[..all.len().min(self.sends[side])]
            });
            // A handful, until the program ends.
            &*Box::leak(Box::new(Scenario { breaks, sends, ..scenario.clone() }))
        })
    }
}

fn list() -> String {
    scenarios().iter().map(|scenario| format!("{:20} {}\n", scenario.name, scenario.about)).collect()
}
