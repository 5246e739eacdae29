//! `holdfast hold`: what waits for a human, and the human's answer.

mod rehearsal;

use clap::Subcommand;
use holdfast_core::{Approval, ApprovalStatement, Code, HoldId, Untrusted};
use holdfast_guard::hold::{Approver, Hold as Kept, HoldShown};
use holdfast_guard::limits::APPROVAL_LASTS;
use serde_json::{Value, json};

use crate::cli::Shared;
use crate::cmd::{block_on, read};
use crate::config::Config;
use crate::report::{Done, Failure, Output, table};
use crate::wiring::guard::ask_or_open;
use crate::wiring::secrets::{Asking, NewApprover, Twice, approver_key, new_approver, passphrase};
use crate::wiring::{now, operator, random};

/// What waits for a human.
#[derive(Debug, Subcommand)]
pub enum Hold {
    /// Say yes to exactly this action; it then passes once
    Approve {
        /// The hold's id.
        id: String,
        /// Who approves, when there are several.
        #[arg(long = "as", value_name = "NAME")]
        approver: Option<String>,
        /// Read the passphrase from the first line of stdin.
        #[arg(long)]
        passphrase_stdin: bool,
    },
    /// Let another person approve
    Approver {
        /// The person's name.
        name: String,
        /// Who vouches for this person, when there are several who may.
        #[arg(long = "as", value_name = "NAME")]
        approver: Option<String>,
        /// Read the passphrases from stdin: the first line is of the one who vouches, the next is new.
        #[arg(long)]
        passphrase_stdin: bool,
    },
    /// Say no
    Deny {
        /// The hold's id.
        id: String,
    },
    /// Show what waits
    List {
        /// Show what was decided and what lapsed, too.
        #[arg(long)]
        all: bool,
    },
    /// Show one with its evidence
    Show {
        /// The hold's id.
        id: String,
    },
}

impl Hold {
    /// Asks guard, or its state when it does not run.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let config = shared.config()?;
        match self {
            Self::Approve {
                id,
                approver,
                passphrase_stdin,
            } => approve(
                &config,
                &parse(&id)?,
                approver,
                asking(passphrase_stdin),
                output,
            ),
            Self::Approver {
                name,
                approver,
                passphrase_stdin,
            } => {
                let asking = asking(passphrase_stdin);
                add_approver(&config, &name, approver.as_deref(), asking, output)
            }
            Self::Deny { id } => {
                let args = json!([parse(&id)?, operator()]);
                let hold: Kept = read(block_on(ask_or_open(&config, "hold.deny", args))?)?;
                output.result(&hold, || format!("{} is denied", hold.id));
                Ok(())
            }
            Self::List { all } => list(&config, all, output),
            Self::Show { id } => {
                let hold = find(&config, &parse(&id)?)?;
                output.result(&hold, || describe(&hold));
                Ok(())
            }
        }
    }
}

fn asking(stdin: bool) -> Asking {
    match stdin {
        true => Asking::Stdin,
        false => Asking::Terminal,
    }
}

fn parse(id: &str) -> Result<HoldId, Failure> {
    id.parse().map_err(|_| {
        Failure::new(
            Code::ZU402,
            format!("`{}` is not the id of a hold", Untrusted(id)),
            "`holdfast hold list` shows what waits",
        )
    })
}

fn find(config: &Config, id: &HoldId) -> Result<HoldShown, Failure> {
    read(block_on(ask_or_open(config, "hold.show", json!(id)))?)
}

fn approve(
    config: &Config,
    id: &HoldId,
    name: Option<String>,
    asking: Asking,
    output: Output,
) -> Done {
    let shown = find(config, id)?;
    output.say(&describe(&shown));
    if let Some(warning) = rehearsal::warning(&shown) {
        output.say(&warning);
    }
    let rehearsal = shown.rehearsal.as_ref().and_then(|state| state.rehearsal());
    let rehearsal = rehearsal.map(|seen| seen.digest());
    let hold = shown.hold;
    let known = approvers(config)?;
    let approver = choose(&known, name.as_deref())?;
    let passphrase = passphrase(&approver.name, asking, Twice::No)?;
    let key = approver_key(approver, &passphrase)?;
    let at = now();
    let statement = ApprovalStatement {
        hold: hold.id.clone(),
        action: hold.action.digest,
        evidence: hold.evidence.digest(),
        rehearsal,
        approver: approver.name.clone(),
        at,
        expires: at.plus(APPROVAL_LASTS),
    };
    let expires = statement.expires;
    let approval = Approval::sign(statement, &key);
    let hold: Kept = read(block_on(ask_or_open(
        config,
        "hold.approve",
        json!(approval),
    ))?)?;
    output.result(&hold, || {
        format!("{id} is approved until {expires}: exactly the same action passes once")
    });
    Ok(())
}

fn approvers(config: &Config) -> Result<Vec<Approver>, Failure> {
    read(block_on(ask_or_open(config, "approver.list", Value::Null))?)
}

fn choose<'a>(known: &'a [Approver], name: Option<&str>) -> Result<&'a Approver, Failure> {
    let names = || {
        let names: Vec<&str> = known.iter().map(|one| one.name.as_str()).collect();
        names.join(", ")
    };
    let found = match (name, known) {
        (Some(name), _) => known.iter().find(|one| one.name == name),
        (None, [one]) => Some(one),
        (None, _) => None,
    };
    found.ok_or_else(|| match known {
        [] => Failure::new(
            Code::ZU402,
            "there is no approver yet; nothing was decided",
            "`holdfast hold approver NAME` makes one",
        ),
        _ => Failure::new(
            Code::ZU402,
            format!(
                "it must be said who approves: {}; nothing was decided",
                names()
            ),
            "name one with --as",
        ),
    })
}

fn add_approver(
    config: &Config,
    name: &str,
    by: Option<&str>,
    asking: Asking,
    output: Output,
) -> Done {
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(Failure::new(
            Code::ZU402,
            "an approver has a name of 1 to 100 printable characters",
            "choose another name",
        ));
    }
    let known = approvers(config)?;
    let voucher = match known.is_empty() {
        true => None,
        false => {
            let by = choose(&known, by)?;
            let theirs = passphrase(&by.name, asking, Twice::No)?;
            Some((by, approver_key(by, &theirs)?))
        }
    };
    let new = passphrase(name, asking, Twice::Yes)?;
    let approver = new_approver(name, &new, random()?)?;
    let args = json!(match &voucher {
        Some((by, key)) => NewApprover::endorsed(approver, by, key),
        None => NewApprover {
            approver,
            endorsement: None,
        },
    });
    let made: Approver = read(block_on(ask_or_open(config, "approver.add", args))?)?;
    output.result(&made, || {
        format!("{} may approve; the passphrase is kept nowhere", made.name)
    });
    Ok(())
}

fn list(config: &Config, all: bool, output: Output) -> Done {
    let holds: Vec<HoldShown> = read(block_on(ask_or_open(config, "hold.list", Value::Null))?)?;
    let now = now();
    let waiting = |one: &&HoldShown| all || one.hold.word(now) == "waiting";
    let holds: Vec<&HoldShown> = holds.iter().filter(waiting).collect();
    let value: Vec<Value> = holds
        .iter()
        .map(|one| {
            let mut value = json!(one);
            if let Some(fields) = value.as_object_mut() {
                fields.insert("stands".to_owned(), json!(one.hold.word(now)));
            }
            value
        })
        .collect();
    output.result(&value, || {
        if holds.is_empty() {
            return "nothing waits".to_owned();
        }
        let rows = holds.iter().map(|one| {
            let hold = &one.hold;
            vec![
                hold.id.to_string(),
                hold.word(now).to_owned(),
                hold.action.principal.to_string(),
                effects(hold),
                one.rehearsal
                    .as_ref()
                    .map_or("-", |state| state.word())
                    .to_owned(),
                Untrusted(&hold.action.summary).to_string(),
            ]
        });
        let header = ["ID", "STATE", "WHO", "EFFECTS", "REHEARSAL", "WHAT"];
        table(&header, &rows.collect::<Vec<_>>())
    });
    Ok(())
}

fn effects(hold: &Kept) -> String {
    let mut words: Vec<&str> = Vec::new();
    for impact in hold.effects.impacts() {
        if !words.contains(&impact.effect.word()) {
            words.push(impact.effect.word());
        }
    }
    words.join(" ")
}

/// Everything a person needs to decide.
fn describe(shown: &HoldShown) -> String {
    let hold = &shown.hold;
    let action = &hold.action;
    let mut text = format!(
        "{}  {}\n  who       {}\n  door      {}\n  what      {}\n",
        hold.id,
        hold.word(now()),
        action.principal,
        action.door.word(),
        Untrusted(&action.summary),
    );
    if let Some(source) = &action.source {
        text.push_str(&format!("  source    {source}\n"));
    }
    if let Some(lease) = &action.lease {
        text.push_str(&format!("  lease     {lease}\n"));
    }
    text.push_str(&format!(
        "  asked     {}\n  lapses    {}\n",
        action.at, hold.expires
    ));
    for impact in hold.effects.impacts() {
        text.push_str(&format!(
            "  effect    {}: {}\n",
            impact.effect.word(),
            Untrusted(&impact.because)
        ));
    }
    for reason in &hold.reasons {
        text.push_str(&format!("  because   {}\n", Untrusted(&reason.text)));
    }
    for item in &hold.evidence.items {
        text.push_str(&format!(
            "  measured  {}: {}\n",
            Untrusted(&item.fact),
            Untrusted(&item.value)
        ));
    }
    if let Some(state) = &shown.rehearsal {
        text.push_str(&rehearsal::describe(state, &hold.evidence));
    }
    text
}
