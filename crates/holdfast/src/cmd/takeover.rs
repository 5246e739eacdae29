//! `holdfast vault takeover`: this vault instead of another, after proof that the other one is gone.

use std::time::Duration;

use clap::Args;
use holdfast_store::object::Promise;
use holdfast_store::object::fence::{Fence, Silence, WriterIdentity};
use holdfast_vault::RepositoryStatus;
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::cmd::{block_on, read};
use crate::config::Config;
use crate::report::{Done, Output};
use crate::wiring::{Half, private_folder, random, state_folder};

/// Take over the repository from a vault that is gone for good.
#[derive(Debug, Args)]
pub struct Takeover {
    /// Only say who writes and when it was heard.
    #[arg(long)]
    look: bool,
}

impl Takeover {
    /// Looks at the heartbeats by the storage's clock, and claims the next epoch if they ended.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let config = shared.config()?;
        let backend = config.repository().open()?;
        if self.look {
            let silence = Silence::look(backend.as_ref())?;
            let gone = silence.proves_gone().is_ok();
            let value = json!({"silence": silence, "gone": gone});
            output.result(&value, || explain(&silence));
            return Ok(());
        }
        state_folder(&config)?;
        let folder = Half::Vault.folder(&config);
        private_folder(&folder)?;
        let identity = WriterIdentity::open(&folder, random()?)?;
        let heartbeat = Duration::from_secs(config.vault.heartbeat_s);
        let (fence, silence) = Fence::take_over(backend, identity, heartbeat)?;
        let value = json!({"epoch": fence.epoch(), "silence": silence});
        output.result(&value, || {
            format!(
                "{}\nthis vault is the writer now, epoch {}: start it with `holdfast vault run`\n\
                 what only the other vault's spool held is not in the repository; \
                 its source is captured anew if that leaves a hole",
                explain(&silence),
                fence.epoch()
            )
        });
        Ok(())
    }
}

fn explain(silence: &Silence) -> String {
    let (Some(holder), Some(last)) = (&silence.holder, silence.last) else {
        return "nobody has written to this repository yet".to_owned();
    };
    let heard = format!(
        "the writer {holder} was heard at {last}, {} s ago by the storage's clock",
        silence.now.since(last).as_secs()
    );
    match silence.released {
        true => format!("{heard}; it said that it stops"),
        false => format!("{heard}; it counts as gone after {} s", silence.silence_s),
    }
}

/// Asks the running vault what may be promised of its repository, and what its locks cost.
pub fn locks(config: &Config, output: Output) -> Done {
    let asked = block_on(
        Half::Vault
            .client(config)
            .ask("vault.repository", Value::Null),
    )?;
    let status: RepositoryStatus = read(asked)?;
    output.result(&status, || {
        let locks = &status.locks;
        let promise = match &status.promise {
            Promise::Advisory { why } => format!("advisory: {why}"),
            Promise::Compliance => "compliance: the storage refuses to remove what is locked".to_owned(),
        };
        format!(
            "repository  {}\npromise     {promise}\nwriter      epoch {}\nlock window {}\n\
             locks       {} objects are needed; {} asked, {} lengthened, {} left, {} failed at the last look\n\
             cost        {} requests a month, ${:.2}",
            status.place,
            status.epoch,
            status.lock_for,
            locks.objects,
            locks.asked,
            locks.lengthened,
            locks.left,
            locks.failed,
            locks.requests_per_month,
            locks.dollars_per_month
        )
    });
    Ok(())
}
