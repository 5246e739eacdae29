//! Clones as processes: one for each, started here and asked over its own socket.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::{ByteCount, Code};
use holdfast_vault::REHEARSAL_OWNER;
use holdfast_vault::clone::{
    self, CloneError, CloneRequest, CloneShown, CloneState, ClonesConfig, Listed, Standing,
    ThinClone,
};
use holdfast_vault::limits::{CLONE_POLL, CLONE_STOP};
use holdfast_vault::{Progress, ProgressFn};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::api::{self, Client};
use crate::cli::Shared;
use crate::config::Config;
use crate::report::{Done, Failure, Output};
use crate::wiring::access::Access;
use crate::wiring::{failure, now, system};

/// How often a clone's process looks how its clone stands.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the running vault looks after clones.
const LOOK_AFTER_EVERY: Duration = Duration::from_secs(2);
/// The log of a clone's process, in its folder.
const LOG: &str = "serve.log";

/// Returns where clones live and what they may take.
pub fn config(config: &Config) -> ClonesConfig {
    let told = &config.vault.clones;
    let beside = ClonesConfig::beside(&config.vault_dir());
    let mib = |mib: u64| ByteCount(mib.saturating_mul(1 << 20));
    ClonesConfig {
        dir: told
            .dir
            .as_ref()
            .map_or(beside.dir, |dir| config.base.join(dir)),
        count_max: told.count_max,
        disk_max: mib(told.disk_max_mib),
        memory_max: mib(told.memory_max_mib),
        ttl: Duration::from_secs(told.ttl_s),
        ttl_max: Duration::from_secs(told.ttl_max_s),
        form: told.form,
        hydrate: Some(mib(told.hydrate_mib_s)).filter(|rate| rate.0 > 0),
    }
}

/// Returns the clones that there are.
pub fn list(told: &Config) -> Vec<Listed> {
    clone::clones(&config(told))
}

/// Returns one of them.
///
/// # Errors
/// When there is none of that name.
pub fn find(told: &Config, id: &str) -> Result<Listed, Failure> {
    Ok(clone::find(&config(told), id)?)
}

/// What a clone's process says while it opens, one a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    Failed {
        code: String,
        message: String,
        hint: Option<String>,
    },
    Open(Box<CloneShown>),
    Progress(Progress),
}

/// Refuses a recovery key that can be read only once.
///
/// # Errors
/// When it would come from stdin.
pub fn check(access: &Access) -> Done {
    let key = access.recovery_key.as_deref();
    if key == Some(Path::new("-")) {
        return Err(Failure::new(
            Code::ZU605,
            "a clone cannot read its recovery key from stdin: its process reads it again when it is opened again",
            "put the key into a file that only you can read, and name that",
        ));
    }
    Ok(())
}

/// Opens a clone in a process of its own, which outlives this one.
///
/// # Errors
/// The clone's own; nothing of it then stays.
pub fn open(
    request: &CloneRequest,
    access: (&Access, &Path),
    each: impl Fn(Progress),
) -> Result<CloneShown, Failure> {
    let id = clone::prepare(request)?;
    let started = spawn(id.as_str(), &request.clones.dir.join(id.as_str()), access);
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            clone::remove(&request.clones, &id)?;
            return Err(system("start the clone's process", &error));
        }
    };
    let out = child.stdout.take().map(BufReader::new);
    for line in out
        .into_iter()
        .flat_map(BufRead::lines)
        .map_while(Result::ok)
    {
        match serde_json::from_str::<Said>(&line) {
            Ok(Said::Open(shown)) => return Ok(*shown),
            Ok(Said::Progress(progress)) => each(progress),
            Ok(Said::Failed {
                code,
                message,
                hint,
            }) => {
                let _ = child.wait();
                let known = Code::ALL.iter().map(|(code, _)| *code);
                let code = known.into_iter().find(|known| known.as_str() == code);
                return Err(Failure {
                    code: code.unwrap_or(Code::ZS373),
                    message,
                    hint,
                });
            }
            Err(_) => {}
        }
    }
    let why = match child.wait() {
        Ok(status) => format!("its process ended ({status})"),
        Err(error) => error.to_string(),
    };
    Err(CloneError::Gone { id, why }.into())
}

/// Starts the process of a clone.
fn spawn(id: &str, folder: &Path, (access, file): (&Access, &Path)) -> std::io::Result<Child> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join(LOG))?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--config")
        .arg(std::path::absolute(file)?)
        .args(["clone", "serve", id]);
    if let Some(key) = &access.recovery_key {
        command.arg("--recovery-key").arg(std::path::absolute(key)?);
    }
    if let Some(repository) = &access.repository {
        command.args(["--repository", repository]);
    }
    if let Some(key) = &access.vault_key {
        command.args(["--vault-key", key]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(log))
        .spawn()
}

/// Opens what nobody serves and its time is not up, and removes the rest.
///
/// # Errors
/// When a process cannot be started.
pub fn look_after(told: &Config) -> Result<(), Failure> {
    let clones = config(told);
    for listed in clone::clones(&clones).iter().filter(|one| !one.is_served) {
        let Ok(shown) = &listed.shown else {
            continue;
        };
        let is_over = now() >= shown.expires;
        match shown.state {
            // A vault that was killed left it; nobody can ask it anything.
            _ if is_over || shown.owner == REHEARSAL_OWNER => {
                clone::remove(&clones, &listed.id)?;
            }
            CloneState::Halted => {}
            CloneState::Filling | CloneState::Open | CloneState::Recovering => {
                let folder = clones.dir.join(listed.id.as_str());
                let mut child = spawn(
                    listed.id.as_str(),
                    &folder,
                    (&Access::default(), &told.file),
                )
                .map_err(|error| system("start the clone's process", &error))?;
                // Read to its end, so that it is not in the way, and reaped.
                std::thread::spawn(move || {
                    if let Some(mut out) = child.stdout.take() {
                        let _ = std::io::copy(&mut out, &mut std::io::sink());
                    }
                    child.wait()
                });
            }
        }
    }
    Ok(())
}

/// Looks after clones as long as the vault runs; they go on without it.
pub async fn keep_looking(told: Config, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let here = told.clone();
        let looked = tokio::task::spawn_blocking(move || look_after(&here)).await;
        if let Ok(Err(failure)) = looked {
            tracing::warn!(what = failure.message, "clones cannot be looked after");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(LOOK_AFTER_EVERY) => {}
        }
    }
}

fn client(told: &Config, id: &str) -> Client {
    Client::new("the clone", &config(told).dir.join(id))
}

/// Asks a clone's process.
///
/// # Errors
/// When there is no such clone, or its process refuses or does not answer.
pub async fn ask<T: DeserializeOwned>(
    told: &Config,
    id: &str,
    (op, args): (&str, Value),
) -> Result<T, Failure> {
    find(told, id)?;
    client(told, id).ask(op, args).await
}

/// Ends a clone, whether somebody serves it or not.
///
/// # Errors
/// When something of it stays.
pub async fn close(told: &Config, id: &str) -> Result<(), Failure> {
    let listed = find(told, id)?;
    let deadline = Instant::now() + CLONE_STOP;
    while !clone::remove(&config(told), &listed.id)? {
        let asked = client(told, id)
            .ask::<Value>("clone.close", Value::Null)
            .await;
        match asked {
            Ok(_) => break,
            // Its process is ending by itself, and answers no more; what it leaves is removed here.
            Err(failure) if is_silence(&failure) && Instant::now() < deadline => {
                tokio::time::sleep(CLONE_POLL).await;
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

fn is_silence(failure: &Failure) -> bool {
    matches!(failure.code, Code::ZS601 | Code::ZS602)
}

/// Makes an ordinary data directory of a clone.
///
/// # Errors
/// When it is not served, or `into` cannot be used.
pub async fn keep(told: &Config, id: &str, into: &Path) -> Result<(), Failure> {
    find(told, id)?;
    client(told, id)
        .ask::<Value>("clone.keep", json!(into))
        .await?;
    Ok(())
}

/// What a clone's process is asked to do.
enum Wish {
    Close,
    Hydrate(Option<ByteCount>),
    Keep(PathBuf),
    Look,
    Show,
}

type Asked = (Wish, oneshot::Sender<Result<Value, Failure>>);

/// Serves one clone until it ends: the hidden command.
///
/// # Errors
/// Why it could not be opened.
pub fn serve(id: &str, (access, shared): (&Access, &Shared), output: Output) -> Done {
    // A terminal that is closed must not end it. It fails where we have a session already.
    let _ = rustix::process::setsid();
    let opened = open_here(id, (access, shared), output);
    let (clone, folder) = match opened {
        Ok(Some(opened)) => opened,
        Ok(None) => return Ok(()),
        Err(failure) => {
            say(&Said::Failed {
                code: failure.code.to_string(),
                message: failure.message.clone(),
                hint: failure.hint.clone(),
            });
            return Err(failure);
        }
    };
    let (wishes, asked) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| system("start", &error))?;
    let _guard = runtime.enter();
    let listener = api::listen(&folder)?;
    runtime.spawn(api::serve(listener, stop.clone(), move |request| {
        let wishes = wishes.clone();
        async move { wish(&wishes, request).await }
    }));
    say(&Said::Open(Box::new(clone.shown())));
    let ended = run(clone, asked, &runtime);
    stop.cancel();
    ended
}

fn open_here(
    id: &str,
    (access, shared): (&Access, &Shared),
    output: Output,
) -> Result<Option<(ThinClone, PathBuf)>, Failure> {
    let reading = access.open(shared, output)?;
    let clones = config(&reading.config);
    let listed = clone::find(&clones, id)?;
    let folder = clones.dir.join(listed.id.as_str());
    let progress: ProgressFn = Arc::new(|progress| say(&Said::Progress(progress)));
    let opened = clone::reopen(&reading.place, &clones, &listed.id, &progress)?;
    Ok(opened.map(|clone| (clone, folder)))
}

/// Tells whoever started us; nobody may listen any more.
fn say(said: &Said) {
    if let Ok(text) = serde_json::to_string(said) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

async fn wish(wishes: &mpsc::Sender<Asked>, request: api::Request) -> Result<Value, Failure> {
    let wish = match request.op.as_str() {
        "clone.close" => Wish::Close,
        "clone.hydrate" => Wish::Hydrate(api::args(request)?),
        "clone.keep" => Wish::Keep(api::args(request)?),
        "clone.show" => Wish::Show,
        other => {
            return Err(Failure::new(
                Code::ZU605,
                format!("a clone knows no operation `{other}`"),
                "use the same version of holdfast for both",
            ));
        }
    };
    let (tell, told) = oneshot::channel();
    let gone = || {
        let hint = "`holdfast clone list` shows what is left of it";
        Failure::new(Code::ZS373, "the clone has ended meanwhile", hint)
    };
    wishes.send((wish, tell)).await.map_err(|_| gone())?;
    told.await.map_err(|_| gone())?
}

/// Looks how the clone stands and does what is asked, until it ends.
fn run(
    mut clone: ThinClone,
    mut asked: mpsc::Receiver<Asked>,
    runtime: &tokio::runtime::Runtime,
) -> Done {
    let mut term = signal(SignalKind::terminate()).map_err(|error| system("listen", &error))?;
    loop {
        let next = runtime.block_on(async {
            tokio::select! {
                next = asked.recv() => next,
                _ = term.recv() => None,
                () = tokio::time::sleep(LOOK_EVERY) => Some((Wish::Look, oneshot::channel().0)),
            }
        });
        // Told to end, the clone is left as it is, to be opened again.
        let Some((wish, tell)) = next else {
            return Ok(clone.stop()?);
        };
        match wish {
            Wish::Look => match clone.standing(now()) {
                Standing::Good => clone.note_hydration()?,
                Standing::Expired => return Ok(clone.close()?),
                Standing::Halted(why) => return Ok(clone.halt(why)?),
            },
            Wish::Close => {
                let closed = clone.close().map_err(|error| failure(&error));
                return answer(runtime, tell, closed.map(|()| Value::Null));
            }
            Wish::Keep(into) => {
                if let Err(error) = clone.may_be_kept(&into) {
                    let _ = tell.send(Err(failure(&error)));
                    continue;
                }
                let kept = clone.keep(&into).map_err(|error| failure(&error));
                return answer(runtime, tell, kept.map(|into| json!(into)));
            }
            Wish::Hydrate(rate) => {
                let begun = clone.hydrate(rate).map_err(|error| failure(&error));
                let _ = tell.send(begun.map(|()| json!(clone.shown())));
            }
            Wish::Show => {
                let _ = tell.send(Ok(json!(clone.shown())));
            }
        }
    }
}

/// Gives the last answer of a process, and the time to send it.
fn answer(
    runtime: &tokio::runtime::Runtime,
    tell: oneshot::Sender<Result<Value, Failure>>,
    answer: Result<Value, Failure>,
) -> Done {
    if let Err(failure) = &answer {
        tracing::warn!(what = failure.message, "the clone did not end as asked");
    }
    let _ = tell.send(answer);
    runtime.block_on(tokio::time::sleep(LAST_WORD));
    Ok(())
}

/// How long a process stays for its last answer to be read.
const LAST_WORD: Duration = Duration::from_millis(100);
