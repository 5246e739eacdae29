//! The agent: a workspace, and a script that does in it what the agent of the incident did.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use holdfast_core::Code;
use serde_json::Value;

use super::guards::Lease;
use super::limits::{COMMAND_ENDS, TRANSCRIPT_BYTES};
use super::process::{Enough, Process};
use super::provider::{HOSTS, Provider};
use super::stage::Stage;
use super::story::{Refusal, Story, fill};
use super::trouble::Trouble;

/// An agent that is about to work.
#[derive(Debug)]
pub struct Agent {
    workspace: PathBuf,
    home: PathBuf,
    path: String,
    lease: Option<Lease>,
}

/// What the agent's work came to.
#[derive(Debug)]
pub struct Work {
    /// When it began.
    pub began: Instant,
    /// When the destroying call was sent.
    pub called: Instant,
    /// When that call was answered.
    pub answered: Instant,
    /// What the call printed.
    pub said: String,
    /// The call, when its effect was seen before its answer.
    _running: Process,
}

impl Agent {
    /// Makes the workspace with its files. The values of the provider are filled in; with a lease, its
    /// connection string is what the files have for the database's.
    ///
    /// # Errors
    /// [`Trouble::Invalid`] when the story asks for a value that there is not.
    pub fn settle(
        stage: &Stage,
        story: &Story,
        provider: &Provider,
        lease: Option<Lease>,
    ) -> Result<Self, Trouble> {
        let workspace = stage.make_folder("workspace", 0o755)?;
        let home = stage.make_folder("home", 0o755)?;
        let mut values = provider.ready.clone();
        let url = lease.as_ref().and_then(|lease| lease.url.clone());
        if let (Some(url), Some(fields)) = (url, values.as_object_mut()) {
            fields.insert("database_url".to_owned(), Value::String(url));
        }
        for file in &story.files {
            let text = fill(&file.text, &values).map_err(|why| Trouble::Invalid {
                name: story.name.clone(),
                why: format!("{}: {why}", file.path),
            })?;
            let path = workspace.join(&file.path);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)
                    .map_err(Trouble::system(format!("make `{}`", folder.display())))?;
            }
            stage.write_file(&path, text.trim_start_matches('\n'))?;
        }
        // Without a door, this is how the provider's name leads to the stand-in.
        if lease.is_none() {
            stage.write_file(&home.join(".curlrc"), &curlrc(provider))?;
        }
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        Ok(Self {
            workspace,
            home,
            path: format!("{}:{path}", provider.postgres_bin.display()),
            lease,
        })
    }

    /// Returns the workspace.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Does everything that the story says, up to the end of the destroying step; `meanwhile` is called
    /// again and again while that step runs, and may say that it is enough.
    ///
    /// # Errors
    /// [`Trouble::Part`] when a step hangs, and what `meanwhile` returns.
    pub fn work(
        &self,
        stage: &Stage,
        story: &Story,
        mut meanwhile: impl FnMut() -> Result<Enough, Trouble>,
    ) -> Result<Work, Trouble> {
        let began = Instant::now();
        for step in &story.steps {
            stage.progress.say("agent", &step.say);
            let called = Instant::now();
            let script = format!("{}\n{}", story.agent.prelude, step.run);
            let (said, running) = self.step(stage, &script, || match step.destroys {
                true => meanwhile(),
                false => Ok(Enough::No),
            })?;
            if step.destroys {
                return Ok(Work {
                    began,
                    called,
                    answered: Instant::now(),
                    said,
                    _running: running,
                });
            }
        }
        Err(Trouble::part("agent", "no step destroys anything"))
    }

    /// Runs one step; what it returns does not matter to an agent, only what it says.
    fn step(
        &self,
        stage: &Stage,
        script: &str,
        meanwhile: impl FnMut() -> Result<Enough, Trouble>,
    ) -> Result<(String, Process), Trouble> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec 2>&1\n{script}"));
        command.current_dir(&self.workspace).env_clear();
        command.env("PATH", &self.path).env("HOME", &self.home);
        command.env("CURL_HOME", &self.home).env("LC_ALL", "C");
        command.env("TMPDIR", &self.home);
        for (name, value) in self.lease.iter().flat_map(|lease| &lease.env) {
            command.env(name, value);
        }
        let log = stage.logs()?.join("agent.out");
        let skip = fs::metadata(&log).map_or(0, |found| found.len());
        let mut process = stage.start("agent", command)?;
        process.wait_end(&stage.stop, COMMAND_ENDS, meanwhile)?;
        Ok((after(&log, skip), process))
    }
}

/// Tells what stopped the call, by what it printed; an answer that nobody has described is shown as it is.
pub fn refused_by(said: &str, refusals: &[Refusal]) -> String {
    if let Some(known) = refusals.iter().find(|one| said.contains(&one.says)) {
        return known.means.clone();
    }
    let code = Code::ALL
        .iter()
        .find(|(code, _)| said.contains(code.as_str()));
    if let Some((code, title)) = code {
        return format!("{title} ({code})");
    }
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    format!(
        "it had no effect: {}",
        holdfast_core::Untrusted(last.unwrap_or("no answer"))
    )
}

fn after(log: &Path, skip: u64) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || {
        let mut file = fs::File::open(log)?;
        file.seek(SeekFrom::Start(skip))?;
        let mut bytes = Vec::new();
        file.take(TRANSCRIPT_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn curlrc(provider: &Provider) -> String {
    let mut text = format!("cacert = \"{}\"\n", provider.ca_file.display());
    for host in HOSTS {
        text.push_str(&format!("connect-to = \"{host}:443:{}\"\n", provider.api));
    }
    // Whatever proxy the machine has, the stand-in is on this machine.
    text.push_str("noproxy = \"*\"\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stopped_the_call_is_told_by_the_story_by_the_code_or_by_the_answer_itself() {
        let refusals = [Refusal {
            says: "Not Authorized".to_owned(),
            means: "custody: refused".to_owned(),
        }];
        let told = |said: &str| refused_by(said, &refusals);
        assert_eq!(told("{\"message\":\"Not Authorized\"}"), "custody: refused");
        assert_eq!(told("ERROR: ZH002: no"), "denied by policy (ZH002)");
        assert_eq!(told("one\ntwo\n\n"), "it had no effect: two");
        assert!(told("").contains("no answer"));
    }
}
