//! One act: a fresh stack, live traffic, the agent, what came of it, and the count.

use std::time::{Duration, Instant};

use super::act::{Act, Ended};
use super::agent::{Agent, Work, refused_by};
use super::guards::{Guards, Recovery};
use super::limits::{EFFECT, KILL_WINDOW};
use super::office::{Count, Office};
use super::provider::Provider;
use super::stage::Stage;
use super::story::{RecoverTo, Story};
use super::trouble::Trouble;
use super::watch::Watch;

/// What runs in an act; it ends with this value, the office first.
#[derive(Debug)]
pub struct Stack {
    /// The pages, whose address people may want.
    pub office: Office,
    _guards: Guards,
    _provider: Provider,
}

/// Plays one act; `kills` says how often the vault is killed and started again meanwhile.
///
/// # Errors
/// [`Trouble`] when the act could not be played to its end.
pub fn play(stage: &Stage, story: &Story, act: Act, kills: u32) -> Result<(Ended, Stack), Trouble> {
    stage.progress.act(act.word(), act.about());
    let provider = Provider::start(stage, &story.scenario)?;
    let mut office = Office::open(stage, &provider.database_url)?;
    let mut guards = Guards::start(stage, act, &provider)?;
    let agent = ready_agent(stage, story, (act, &guards), &provider)?;
    office.wait_busy(stage)?;
    stage
        .progress
        .say("rental", "bookings are made, paid and cancelled");

    if act.has_vault() {
        kill(stage, &mut guards, kills)?;
    }
    let mut watch = Watch::begin(&provider.database_url, &story.destruction.probe)?;
    let work = agent.work(stage, story, || {
        guards.look_for_hold(stage)?;
        guards.say_no(stage)?;
        Ok(watch.sees_gone())
    })?;
    let answered = office.mark();
    let gone = watch.wait_gone(stage, EFFECT)?;
    drop(watch);
    let since = |moment: Instant| moment.duration_since(work.began).as_secs_f64();
    let (stopped_at, stopped_by) = match gone {
        Some(_) => {
            stage.progress.say("provider", &story.destruction.what);
            (None, None)
        }
        None => {
            let (at, by) = refusal(stage, story, &mut guards, &work)?;
            (Some(at), Some(by))
        }
    };
    let mut recovery = None;
    let serving_again_after_s = match gone {
        None => Some(office.wait_serving(stage, &answered)?),
        Some(at) if act.has_vault() => {
            let to = story.destruction.recover;
            let (office, url) = (&mut office, &provider.database_url);
            let (back, after) = bring_back(stage, (&mut guards, to), (office, url), at)?;
            recovery = Some(back);
            Some(after)
        }
        Some(_) => {
            stage.stop.pause(AFTERMATH)?;
            None
        }
    };
    tell_serving(stage, gone.is_some(), serving_again_after_s);
    let count = close(stage, &mut office, (&guards, recovery.as_mut()))?;
    let ended = Ended {
        act,
        acknowledged: count.acknowledged,
        present: count.present,
        lost: count.lost,
        unknown: count.unknown,
        called_after_s: since(work.called),
        gone_after_s: gone.map(since),
        stopped_after_s: stopped_at.map(since),
        stopped_by,
        serving_again_after_s,
        recovery,
        vault_kills: guards.kills,
    };
    let stack = Stack {
        office,
        _guards: guards,
        _provider: provider,
    };
    Ok((ended, stack))
}

/// How long the office is left alone with its loss, so that what is acknowledged then is counted too.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Prepares the agent: its workspace, its lease, and custody of what lies in the workspace.
fn ready_agent(
    stage: &Stage,
    story: &Story,
    (act, guards): (Act, &Guards),
    provider: &Provider,
) -> Result<Agent, Trouble> {
    let mut lease = match act.has_doors() {
        true => Some(guards.lease(stage, &story.agent)?),
        false => None,
    };
    if let (Some(lease), true) = (&mut lease, act.has_custody()) {
        // Then the files have the real connection string, and custody puts the lease's in its place.
        lease.url = None;
    }
    let agent = Agent::settle(stage, story, provider, lease)?;
    if act.has_custody() {
        guards.take(stage, agent.workspace(), &story.agent)?;
    }
    Ok(agent)
}

/// Kills the vault at random moments and starts it again. After the last time nobody waits until it
/// streams: the agent begins while it is coming back.
fn kill(stage: &Stage, guards: &mut Guards, kills: u32) -> Result<(), Trouble> {
    let mut moments = Moments(stage.seed);
    for left in (0..kills).rev() {
        stage.stop.pause(moments.draw())?;
        guards.kill_vault(stage)?;
        if left > 0 {
            guards.wait_streaming(stage)?;
        }
    }
    Ok(())
}

/// Tells when the call was held or refused, and by what.
fn refusal(
    stage: &Stage,
    story: &Story,
    guards: &mut Guards,
    work: &Work,
) -> Result<(Instant, String), Trouble> {
    guards.look_for_hold(stage)?;
    let by = refused_by(&work.said, &story.refusals);
    stage.progress.say("agent", &format!("is stopped by {by}"));
    let held = guards.held_at().unwrap_or(work.answered);
    Ok((held.min(work.answered), by))
}

/// Recovers, points the office at the new server, and returns also the seconds from the loss to the next
/// booking.
fn bring_back(
    stage: &Stage,
    (guards, to): (&mut Guards, RecoverTo),
    (office, lost_url): (&mut Office, &str),
    lost_at: Instant,
) -> Result<(Recovery, f64), Trouble> {
    let recovery = guards.recover(stage, to)?;
    let moved = office.mark();
    let before = lost_at.elapsed().as_secs_f64();
    office.point_at(stage, &with_port(lost_url, recovery.port)?)?;
    let after = before + office.wait_serving(stage, &moved)?;
    Ok((recovery, after))
}

/// Ends the bookings and counts them; then nobody minds a restore to compare with.
fn close(
    stage: &Stage,
    office: &mut Office,
    (guards, recovery): (&Guards, Option<&mut Recovery>),
) -> Result<Count, Trouble> {
    office.close()?;
    let count = office.count(stage)?;
    if let Some(recovery) = recovery {
        guards.compare(stage, recovery)?;
    }
    Ok(count)
}

fn tell_serving(stage: &Stage, was_gone: bool, serving: Option<f64>) {
    let what = match (was_gone, serving) {
        (true, Some(after)) => format!("bookings are accepted again, {after:.1} s after the loss"),
        (false, Some(_)) => "bookings go on".to_owned(),
        (_, None) => "the counters stand without data".to_owned(),
    };
    stage.progress.say("rental", &what);
}

/// Returns the connection string with another server in it.
fn with_port(url: &str, port: u16) -> Result<String, Trouble> {
    let (login, rest) = url
        .rsplit_once('@')
        .ok_or_else(|| Trouble::part("provider", "its database URL names no user"))?;
    let database = rest.split_once('/').map_or("", |(_, database)| database);
    Ok(format!("{login}@127.0.0.1:{port}/{database}"))
}

/// Random moments from a seed (splitmix64).
struct Moments(u64);

impl Moments {
    fn draw(&mut self) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        let window = u64::try_from(KILL_WINDOW.as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        Duration::from_micros(bits % window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_login_leads_to_another_server() {
        let url = with_port("postgresql://rental:p%40ss@127.0.0.1:5432/rental?a=b", 99).unwrap();
        assert_eq!(url, "postgresql://rental:p%40ss@127.0.0.1:99/rental?a=b");
        assert!(with_port("postgresql://127.0.0.1/x", 99).is_err());
    }

    #[test]
    fn moments_differ_stay_in_the_window_and_come_again_with_the_seed() {
        let draw = |seed: u64| -> Vec<Duration> {
            let mut moments = Moments(seed);
            (0..100).map(|_| moments.draw()).collect()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).iter().all(|moment| *moment < KILL_WINDOW));
        let early = draw(7)
            .iter()
            .filter(|moment| **moment < KILL_WINDOW / 2)
            .count();
        assert!((30..70).contains(&early), "{early}");
    }
}
