//! What is said of a scenario.

use crate::options::Options;
use crate::walk::Walked;

/// As a person reads it, or as one line of JSON.
pub fn print(walked: &Walked, options: &Options) {
    if options.json {
        return println!("{}", json(walked));
    }
    let seconds = walked.took.as_secs_f64();
    println!("{}: {}", walked.scenario.name, walked.scenario.about);
    println!(
        "    {} states, {} unique, depth {}, {seconds:.1} s; {}",
        walked.transitions,
        walked.unique,
        walked.depth,
        if walked.exhausted { "all of them" } else { "NOT all of them" }
    );
    for (name, broken) in &walked.properties {
        let Some(broken) = broken else { continue };
        println!("    BROKEN: {name}\n      {}", broken.what);
        for (at, action) in broken.actions.iter().enumerate() {
            println!("      {:3}. {action}", at + 1);
        }
    }
    let held = walked.properties.iter().filter(|(_, broken)| broken.is_none()).count();
    println!("    {held} of {} properties held", walked.properties.len());
    if walked.exhausted && !walked.not_shown.is_empty() {
        println!("    NOT SHOWN, though it should be: {}", walked.not_shown.join(", "));
    }
}

fn json(walked: &Walked) -> String {
    let properties: Vec<String> = walked
        .properties
        .iter()
        .map(|(name, broken)| {
            let broken = broken.as_ref().map_or("null".to_owned(), |broken| {
                let actions: Vec<String> = broken.actions.iter().map(|action| quoted(action)).collect();
                format!("{{\"what\":{},\"actions\":[{}]}}", quoted(&broken.what), actions.join(","))
            });
            format!("{}:{broken}", quoted(name))
        })
        .collect();
    format!(
        "{{\"scenario\":{},\"states\":{},\"unique\":{},\"depth\":{},\"seconds\":{:.3},\"exhausted\":{},\"broken\":{{{}}}}}",
        quoted(walked.scenario.name),
        walked.transitions,
        walked.unique,
        walked.depth,
        walked.took.as_secs_f64(),
        walked.exhausted,
        properties.join(",")
    )
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 32 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
