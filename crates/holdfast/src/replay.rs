//! Incidents, played against a throw-away stack with real processes: PostgreSQL, the provider's
//! stand-in, the rental office with live traffic, holdfast itself, and an agent.
//!
//! A replay is a file in `replays/` (docs/replays.md); what is here plays any of them. Each act begins
//! with a fresh stack in a folder of its own, and whatever was started has ended when it is over.

mod act;
mod agent;
mod guards;
mod http;
mod limits;
mod office;
mod play;
mod process;
mod programs;
mod progress;
mod provider;
mod stage;
mod stop;
mod story;
mod trouble;
mod watch;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use act::{Act, Ended};
pub use trouble::Trouble;

use crate::report::Output;
use programs::Programs;
use progress::Progress;
use stage::Stage;
use stop::Stop;
use story::Story;

/// What is to be played.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The name of a replay, or the path of its file.
    pub replay: String,
    /// The acts, in this order.
    pub acts: Vec<Act>,
    /// Where random choices begin.
    pub seed: u64,
    /// How often the vault is killed in the acts that have one.
    pub vault_kills: u32,
    /// Whether the pages of the last act stay up until Ctrl-C.
    pub serve: bool,
    /// Whether the folder stays.
    pub keep: bool,
}

/// What a replay returns.
#[derive(Clone, Debug, Serialize)]
pub struct Played {
    /// Its name.
    pub replay: String,
    /// Where random choices began.
    pub seed: u64,
    /// What each act ended with.
    pub acts: Vec<Ended>,
}

impl Played {
    /// Says which acts ended otherwise than promised.
    ///
    /// # Errors
    /// [`Trouble::Promise`].
    pub fn keeps_its_promise(&self) -> Result<(), Trouble> {
        let broken: Vec<String> = self.acts.iter().filter_map(Ended::broken_promise).collect();
        match broken.is_empty() {
            true => Ok(()),
            false => Err(Trouble::Promise(broken.join("; "))),
        }
    }
}

/// Plays a replay. `tell` is given what was played before the pages are left up.
///
/// # Errors
/// [`Trouble`] when it cannot be played to its end; everything it started has ended then.
pub fn play(plan: &Plan, output: Output, tell: impl FnOnce(&Played)) -> Result<Played, Trouble> {
    let story = Story::load(&plan.replay)?;
    let programs = Programs::find()?;
    let stop = Stop::on_signals()?;
    let folder = Folder::make(plan.keep, output)?;
    let progress = Progress::begin(output);
    progress.say(
        "replay",
        &format!("{}: {}; seed {}", story.name, story.title, plan.seed),
    );
    let mut played = Played {
        replay: story.name.clone(),
        seed: plan.seed,
        acts: Vec::new(),
    };
    for (index, act) in plan.acts.iter().enumerate() {
        let scene = Scene(folder.path.join(index.saturating_add(1).to_string()));
        let stage = Stage {
            programs: programs.clone(),
            folder: scene.0.clone(),
            progress: progress.clone(),
            stop: stop.clone(),
            seed: plan.seed,
        };
        stage.make_folder("logs", 0o755)?;
        let result = play::play(&stage, &story, *act, plan.vault_kills);
        let (ended, stack) = result.inspect_err(|_| progress.end())?;
        played.acts.push(ended);
        if plan.serve && index.saturating_add(1) == plan.acts.len() {
            progress.end();
            tell(&played);
            output.say(&format!(
                "\nthe counter pages are at http://{} until you press Ctrl-C",
                stack.office.pages
            ));
            while !stop.is_set() {
                std::thread::sleep(limits::POLL);
            }
            return Ok(played);
        }
        drop(stack);
        drop(scene);
    }
    progress.end();
    tell(&played);
    Ok(played)
}

/// The folder of an act; servers that still run in it end with this value.
struct Scene(PathBuf);

impl Drop for Scene {
    fn drop(&mut self) {
        process::end_servers_in(&self.0);
    }
}

/// The folder of a replay; it goes with this value unless it is to be kept.
struct Folder {
    path: PathBuf,
    _goes: Option<tempfile::TempDir>,
}

impl Folder {
    fn make(keep: bool, output: Output) -> Result<Self, Trouble> {
        let make = || {
            // Short, because the path of a socket has at most 107 bytes.
            let folder = tempfile::Builder::new().prefix("hf-").tempdir()?;
            // PostgreSQL may run as another account than we; what is secret has its own mode.
            std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
            Ok(folder)
        };
        let folder = make().map_err(Trouble::system("make a folder for the replay"))?;
        let path = folder.path().to_owned();
        let goes = match keep {
            true => {
                output.say(&format!("everything is kept in {}", shown(&folder.keep())));
                None
            }
            false => Some(folder),
        };
        Ok(Self { path, _goes: goes })
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
