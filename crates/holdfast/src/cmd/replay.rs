//! `holdfast replay NAME`: an incident, played against a throw-away stack.

use crate::replay::{Act, Ended, Plan, Played, play};
use crate::report::{Done, Failure, Output, table};

/// Plays an incident against a throw-away stack, and counts what is lost.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Each act begins with a fresh stack of real processes: PostgreSQL, a stand-in for \
the provider, a rental office with live bookings, and an agent.\nExit status: 0 when the unprotected act lost \
everything and no other act lost anything."
)]
pub struct Args {
    /// The replay: pocketos, drop-schema, or the path of a replay's .toml file.
    #[arg(value_name = "NAME")]
    name: String,
    /// Play this act only; repeatable.
    #[arg(long = "act", value_enum, value_name = "ACT")]
    acts: Vec<Act>,
    /// Leave the pages of the last act up for a look, until Ctrl-C.
    #[arg(long)]
    serve: bool,
    /// Keep the folder with all logs, and say where it is.
    #[arg(long)]
    keep: bool,
    /// Where random choices begin.
    #[arg(long, value_name = "N", default_value_t = SEED)]
    seed: u64,
    /// Kill the vault with SIGKILL this many times at random moments and start it again.
    #[arg(long, value_name = "TIMES", default_value_t = 0)]
    kill_vault: u32,
}

/// The day of the incident.
const SEED: u64 = 20_260_424;

/// Plays it.
///
/// # Errors
/// When it cannot be played, or did not end as promised.
pub fn run(args: &Args, output: Output) -> Done {
    let acts = match args.acts.is_empty() {
        true => Act::EACH.to_vec(),
        false => args.acts.clone(),
    };
    let plan = Plan {
        replay: args.name.clone(),
        acts,
        seed: args.seed,
        vault_kills: args.kill_vault,
        serve: args.serve,
        keep: args.keep,
    };
    let tell = |played: &Played| output.result(played, || describe(played));
    let played = play(&plan, output, tell)?;
    played.keeps_its_promise().map_err(Failure::from)
}

fn describe(played: &Played) -> String {
    let header = [
        "ACT",
        "ACKNOWLEDGED",
        "PRESENT",
        "LOST",
        "UNKNOWN",
        "GONE AFTER",
        "SERVING AGAIN",
        "STOPPED BY",
    ];
    let rows: Vec<Vec<String>> = played.acts.iter().map(row).collect();
    table(&header, &rows)
}

fn row(act: &Ended) -> Vec<String> {
    let seconds =
        |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1} s"));
    vec![
        act.act.word().to_owned(),
        act.acknowledged.to_string(),
        act.present.to_string(),
        act.lost.to_string(),
        act.unknown.to_string(),
        seconds(act.gone_after_s),
        seconds(act.serving_again_after_s),
        stopped_by(act),
    ]
}

/// Says what stopped it, or that it was not stopped and how that ended.
fn stopped_by(act: &Ended) -> String {
    if let Some(what) = &act.stopped_by {
        return what.clone();
    }
    let Some(recovery) = act.recovery.as_ref().filter(|_| act.lost == 0) else {
        return "nothing".to_owned();
    };
    let (way, took) = (recovery.way(), recovery.took_s);
    let restore = recovery.restore_s;
    let restore = restore.map_or(String::new(), |s| format!(" (a restore: {s:.1} s)"));
    format!("nothing; {way} brought it back in {took:.1} s{restore}")
}
