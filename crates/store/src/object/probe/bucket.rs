//! The probe of a bucket: an object that is locked, and everything that would take it away.

mod attempt;

use std::time::Duration;

use data_encoding::HEXLOWER;
use holdfast_core::{CheckOutcome, Secret, Timestamp, Untrusted};

use super::{Findings, TargetReport};
use crate::limits;
use crate::object::s3::versions::{self, Version, Versions};
use crate::object::s3::xml::Element;
use crate::object::s3::{
    self, COMPLIANCE, Client, CredentialSource, Credentials, PROBES, Request, S3Error, S3Location,
};
use crate::object::{ObjectError, Promise};
use attempt::{
    BYPASS, ENABLED, SUSPENDED, Taken, attempt, each, refusal, remove, retain, unreadable,
    versioning,
};

/// What the probe object holds, and what others try to put in its place.
const BODY: &[u8] = b"This object must stay as it is until its lock ends.\n";
const OTHER: &[u8] = b"This object must not be read in the place of the first.\n";
pub(super) fn probe(
    location: &S3Location,
    strong: Option<&CredentialSource>,
) -> Result<TargetReport, ObjectError> {
    let own = Client::new(location)?;
    let strong = strong.map(|credentials| {
        Client::new(&S3Location {
            credentials: credentials.clone(),
            ..location.clone()
        })
    });
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|error| ObjectError::Io {
        step: "draw random bytes for",
        what: location.bucket.to_string(),
        source: std::io::Error::other(error.to_string()),
    })?;
    let folder = format!("{PROBES}{}", HEXLOWER.encode(&random));
    let mut trial = Trial {
        place: own.place(),
        keys: std::iter::once(Key {
            whose: "the vault's key",
            client: own,
        })
        .chain(strong.transpose()?.map(|client| Key {
            whose: "the probe's key",
            client,
        }))
        .collect(),
        name: location.bucket.full(&format!("{folder}/locked")),
        control: location.bucket.full(&format!("{folder}/free")),
        findings: Findings::default(),
    };
    let promise = trial.run()?;
    Ok(TargetReport {
        at: trial.own()?.time()?,
        place: trial.place,
        checks: trial.findings.checks,
        promise,
    })
}

/// Somebody who may ask the storage.
struct Key {
    whose: &'static str,
    client: Client,
}

struct Trial {
    place: String,
    /// The vault's own first.
    keys: Vec<Key>,
    /// The object that is locked.
    name: String,
    /// The object that is not.
    control: String,
    findings: Findings,
}

/// The locked object.
struct Locked {
    version: Version,
    until: Timestamp,
}

impl Trial {
    fn run(&mut self) -> Result<Promise, S3Error> {
        let advisory = |why: Option<String>| Promise::Advisory {
            why: why.unwrap_or_else(|| "the probe could not be ended".to_owned()),
        };
        self.configuration()?;
        let Some(locked) = self.store()? else {
            return Ok(advisory(self.findings.worst()));
        };
        self.create_only(&locked)?;
        self.overwrite(&locked)?;
        self.hide(&locked)?;
        let longer = self.lengthen(&locked)?;
        let locked = Locked {
            until: longer,
            ..locked
        };
        self.shorten(&locked)?;
        self.delete(&locked)?;
        self.suspend()?;
        self.wrong_key()?;
        let may_delete = self.control()?;
        self.stays(&locked)?;
        Ok(match self.findings.worst() {
            Some(worst) => advisory(Some(worst)),
            None if may_delete => Promise::Compliance,
            None => advisory(Some(
                "no key that may delete has been tried: `holdfast vault check-target` takes one"
                    .to_owned(),
            )),
        })
    }

    fn own(&self) -> Result<&Client, S3Error> {
        let first = self.keys.first();
        first
            .map(|key| &key.client)
            .ok_or_else(|| S3Error::Credentials {
                place: self.place.clone(),
                why: "there are none".to_owned(),
            })
    }

    /// What the bucket says of itself; what counts is what it does.
    fn configuration(&mut self) -> Result<(), S3Error> {
        let versioning = self.asked("versioning")?;
        self.told("versions", versioning, |told| {
            match told.text_of("Status") {
                "Enabled" => Ok("the bucket keeps every version".to_owned()),
                "" => Err("the bucket keeps no versions".to_owned()),
                other => Err(format!("versions are {}", Untrusted(other))),
            }
        });
        let lock = self.asked("object-lock")?;
        self.told("object lock", lock, |told| {
            if told.text_of("ObjectLockEnabled") != "Enabled" {
                return Err("it is not enabled".to_owned());
            }
            let rule = told.inside.iter().find(|element| element.name == "Rule");
            let default = rule.and_then(|rule| rule.inside.first());
            Ok(match default {
                Some(default) => format!(
                    "enabled; by default {} for {} {}",
                    Untrusted(default.text_of("Mode")),
                    Untrusted(&format!(
                        "{}{}",
                        default.text_of("Days"),
                        default.text_of("Years")
                    )),
                    match default.text_of("Years") {
                        "" => "days",
                        _ => "years",
                    }
                ),
                None => "enabled; nothing is locked by default, the vault asks for it".to_owned(),
            })
        });
        Ok(())
    }

    /// Asks the bucket about itself with the first key that may.
    fn asked(&self, what: &'static str) -> Result<Option<Result<Element, String>>, S3Error> {
        for key in &self.keys {
            let request = Request::new("ask the bucket", "GET", "").query(what, "");
            match key.client.send(&request) {
                Ok(answer) => return Ok(Some(Element::read(&answer.body).ok_or_else(unreadable))),
                Err(S3Error::Denied { .. }) => {}
                Err(error) => match refusal(&error) {
                    Some(why) => return Ok(Some(Err(why))),
                    None => return Err(error),
                },
            }
        }
        Ok(None)
    }

    fn told(
        &mut self,
        name: &str,
        told: Option<Result<Element, String>>,
        judge: impl FnOnce(&Element) -> Result<String, String>,
    ) {
        match told {
            Some(told) => self.findings.is(name, told.and_then(|told| judge(&told))),
            None => {
                let why = "the key may not ask; the stored object shows it";
                self.findings.note(name, CheckOutcome::NotRun, why);
            }
        }
    }

    /// Stores the object with its lock, as the vault stores everything.
    fn store(&mut self) -> Result<Option<Locked>, S3Error> {
        const NAME: &str = "stored with a lock";
        let until = self.own()?.time()?.plus(limits::PROBE_LOCK);
        let stored = self.put(&self.name, BODY, Some(until))?;
        let version = match stored {
            Ok(Some(version)) => version,
            Ok(None) => {
                let why = "the storage gave the object no version";
                self.findings.is(NAME, Err(why.to_owned()));
                return Ok(None);
            }
            Err(why) => {
                self.findings.is(NAME, Err(why));
                return Ok(None);
            }
        };
        let found = s3::locked(self.own()?, &self.name, &version)?;
        let second = Duration::from_secs(1);
        let seen = match found {
            Some(found) if found.plus(second) >= until => Ok(format!("{COMPLIANCE} until {found}")),
            Some(found) => Err(format!("until {found}, not {until} as asked for")),
            None => Err("the storage took the object and left out its lock".to_owned()),
        };
        let until = found.unwrap_or(until);
        let is_locked = seen.is_ok();
        self.findings.is(NAME, seen);
        Ok(is_locked.then_some(Locked { version, until }))
    }

    /// Stores an object with the vault's key; the inner error is the storage's refusal.
    fn put(
        &self,
        name: &str,
        body: &[u8],
        until: Option<Timestamp>,
    ) -> Result<Result<Option<Version>, String>, S3Error> {
        let mut request = Request::new("store an object", "PUT", name).body(body);
        if let Some(until) = until {
            request = request
                .header("x-amz-object-lock-mode", COMPLIANCE)
                .header("x-amz-object-lock-retain-until-date", s3::seconds(until));
        }
        match self.own()?.send_once(&request) {
            Ok(answer) => Ok(Ok(s3::version_of(&answer, body))),
            Err(error) => refusal(&error).map(Err).ok_or(error),
        }
    }

    fn create_only(&mut self, locked: &Locked) -> Result<(), S3Error> {
        let request = Request::new("store an object", "PUT", &self.name)
            .header("if-none-match", "*")
            .body(OTHER);
        let taken = attempt(self.own()?, &request)?;
        let stays = self.reads(locked)?;
        self.findings.is(
            "create only",
            match (taken, stays) {
                (_, Err(why)) => Err(why),
                (Taken::Refused(why), Ok(())) if why.starts_with("412") => {
                    Ok("a second object of one name is refused (If-None-Match)".to_owned())
                }
                (Taken::Refused(why), Ok(())) => Err(format!(
                    "it does not know If-None-Match, with which the vault stores: {why}"
                )),
                (Taken::Performed, Ok(())) => Ok(
                    "If-None-Match is not honoured: the vault looks after each object instead"
                        .to_owned(),
                ),
            },
        );
        Ok(())
    }

    fn overwrite(&mut self, locked: &Locked) -> Result<(), S3Error> {
        let taken = self.put(&self.name, OTHER, None)?;
        let stays = self.reads(locked)?;
        self.findings.is(
            "overwrite",
            stays.map(|()| match taken {
                Ok(_) => "a newer version changes nothing of the first".to_owned(),
                Err(why) => format!("refused: {why}"),
            }),
        );
        Ok(())
    }

    /// A delete without a version hides the object from those who do not look.
    fn hide(&mut self, locked: &Locked) -> Result<(), S3Error> {
        let mut hidden = false;
        for key in &self.keys {
            let request = Request::new("hide an object", "DELETE", &self.name);
            hidden |= attempt(&key.client, &request)? == Taken::Performed;
        }
        let stays = self.reads(locked)?;
        self.findings.is(
            "delete marker",
            stays.map(|()| match hidden {
                true => "a delete marker hides nothing from the vault".to_owned(),
                false => "refused".to_owned(),
            }),
        );
        Ok(())
    }

    /// Lengthens the lock, with every key: who may do that may try to shorten it.
    fn lengthen(&mut self, locked: &Locked) -> Result<Timestamp, S3Error> {
        let longer = locked.until.plus(limits::PROBE_LONGER);
        let body = s3::retention(COMPLIANCE, longer);
        let mut performed = Vec::new();
        for key in &self.keys {
            let request = retain(&self.name, &locked.version, &body);
            if attempt(&key.client, &request)? == Taken::Performed {
                performed.push(key.whose);
            }
        }
        let found = s3::locked(self.own()?, &self.name, &locked.version)?;
        let is_vaults = performed.first() == self.keys.first().map(|key| &key.whose);
        let is_longer = found.is_some_and(|found| found >= longer);
        self.findings.is(
            "lengthen",
            match (is_longer, is_vaults) {
                (true, true) => Ok(format!("{} can", performed.join(" and "))),
                (true, false) => Err("the vault's key may not lengthen a lock".to_owned()),
                (false, _) => Err("a lock could not be lengthened".to_owned()),
            },
        );
        Ok(found.unwrap_or(locked.until))
    }

    fn shorten(&mut self, locked: &Locked) -> Result<(), S3Error> {
        let sooner = locked.until.minus(limits::PROBE_LONGER);
        let shorter = s3::retention(COMPLIANCE, sooner);
        let governance = s3::retention("GOVERNANCE", locked.until);
        let none = "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>".to_owned();
        for (name, body, bypass) in [
            ("shorten", &shorter, None),
            ("change the mode", &governance, None),
            ("shorten past governance", &shorter, Some("true")),
            ("change the mode past governance", &governance, Some("true")),
            ("take the lock away", &none, Some("true")),
        ] {
            let ask = |key: &Key| {
                let mut request = retain(&self.name, &locked.version, body);
                if let Some(bypass) = bypass {
                    request = request.header(BYPASS, bypass);
                }
                attempt(&key.client, &request)
            };
            let refused = self.refused_to_all(ask)?;
            self.findings.is(name, refused);
        }
        Ok(())
    }

    fn delete(&mut self, locked: &Locked) -> Result<(), S3Error> {
        for (name, bypass) in [("delete", None), ("delete past governance", Some("true"))] {
            let ask = |key: &Key| {
                let mut request = remove(&self.name, &locked.version);
                if let Some(bypass) = bypass {
                    request = request.header(BYPASS, bypass);
                }
                attempt(&key.client, &request)
            };
            let refused = self.refused_to_all(ask)?;
            self.findings.is(name, refused);
        }
        let several = format!(
            "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Object><Key>{}</Key>\
             <VersionId>{}</VersionId></Object></Delete>",
            self.name, locked.version.id
        );
        let refused = self.refused_to_all(|key| {
            let request = Request::new("delete versions", "POST", "")
                .query("delete", "")
                .header("content-type", "application/xml")
                .header(BYPASS, "true")
                .body(several.as_bytes());
            // It answers 200 and says of each object what became of it.
            Ok(match key.client.send(&request) {
                Ok(answer) => each(&answer.body),
                Err(error) => Taken::Refused(refusal(&error).ok_or(error)?),
            })
        })?;
        self.findings.is("delete among several", refused);
        Ok(())
    }

    /// Without versions a newer object would take the place of an older one. What was permitted is taken
    /// back at once.
    fn suspend(&mut self) -> Result<(), S3Error> {
        let refused = self.refused_to_all(|key| {
            let taken = attempt(&key.client, &versioning(SUSPENDED))?;
            if taken == Taken::Performed {
                attempt(&key.client, &versioning(ENABLED))?;
            }
            Ok(taken)
        })?;
        self.findings.is("suspend versions", refused);
        Ok(())
    }

    /// A storage that takes any key keeps nothing from anybody.
    fn wrong_key(&mut self) -> Result<(), S3Error> {
        let location = S3Location {
            credentials: CredentialSource::new(|| {
                Ok(Credentials {
                    access_key_id: "NOBODY".to_owned(),
                    secret_access_key: Secret::new("nothing"),
                    session_token: None,
                })
            }),
            ..self.own()?.location().clone()
        };
        let list = Request::new("list", "GET", "").query("prefix", PROBES);
        let seen = match Client::new(&location)?.send(&list) {
            Ok(_) => Err("a key that nobody was given can list the bucket".to_owned()),
            Err(S3Error::Credentials { why, .. }) => Ok(format!("refused: {}", Untrusted(&why))),
            Err(error) => Ok(format!("refused: {}", refusal(&error).ok_or(error)?)),
        };
        self.findings.is("a wrong key", seen);
        Ok(())
    }

    fn refused_to_all(
        &self,
        ask: impl Fn(&Key) -> Result<Taken, S3Error>,
    ) -> Result<Result<String, String>, S3Error> {
        let mut told = String::new();
        for key in &self.keys {
            match ask(key)? {
                Taken::Performed => return Ok(Err(format!("{} was permitted to", key.whose))),
                Taken::Refused(why) => told = why,
            }
        }
        let all: Vec<&str> = self.keys.iter().map(|key| key.whose).collect();
        Ok(Ok(format!("refused to {}: {told}", all.join(" and "))))
    }

    /// Shows that what was refused is refused because of the lock: the same key deletes what has none.
    fn control(&mut self) -> Result<bool, S3Error> {
        const NAME: &str = "delete what is not locked";
        let Some(mut version) = self.put(&self.control, BODY, None)?.ok().flatten() else {
            let why = "the bucket takes nothing without a lock";
            self.findings.note(NAME, CheckOutcome::NotRun, why);
            return Ok(false);
        };
        let mut free_from = None;
        if s3::locked(self.own()?, &self.control, &version)?.is_some() {
            // The bucket locks everything, so this one gets a lock that ends soon.
            let until = self.own()?.time()?.plus(limits::PROBE_SHORT);
            if let Ok(Some(short)) = self.put(&self.control, BODY, Some(until))? {
                (version, free_from) = (short, Some(until));
            }
        }
        if let Some(until) = free_from {
            let left = until.since(self.own()?.time()?) + Duration::from_secs(2);
            std::thread::sleep(left.min(limits::PROBE_SHORT * 2));
        }
        let mut who = None;
        for key in &self.keys {
            if attempt(&key.client, &remove(&self.control, &version))? == Taken::Performed {
                who = Some(key.whose);
                break;
            }
        }
        match who {
            Some(whose) => {
                let least = match self.keys.first().is_some_and(|key| key.whose == whose) {
                    true => "; it should not be able to, docs/storage.md has the least policy",
                    false => "",
                };
                self.findings.is(
                    NAME,
                    Ok(format!("{whose} can, so the lock refused it{least}")),
                );
            }
            None => {
                let why = "no key may delete, so refusals prove nothing of the lock";
                self.findings.note(NAME, CheckOutcome::NotRun, why);
            }
        }
        Ok(who.is_some())
    }

    /// After all of that, the object is what it was.
    fn stays(&mut self, locked: &Locked) -> Result<(), S3Error> {
        let content = self.reads(locked)?;
        let seen = match content {
            Ok(()) => match s3::locked(self.own()?, &self.name, &locked.version)? {
                Some(until) if until >= locked.until => Ok(format!("as it was, until {until}")),
                Some(until) => Err(format!("it is locked until {until} only")),
                None => Err("its lock is gone".to_owned()),
            },
            Err(why) => Err(why),
        };
        self.findings.is("the object afterwards", seen);
        Ok(())
    }

    /// Reads the object as the vault reads: the oldest version of its name.
    fn reads(&self, locked: &Locked) -> Result<Result<(), String>, S3Error> {
        let own = self.own()?;
        let oldest = Versions::default().look(own, &self.name)?;
        let Some(oldest) = oldest else {
            return Ok(Err("the object is gone".to_owned()));
        };
        if oldest != locked.version {
            return Ok(Err("another version is the oldest now".to_owned()));
        }
        match own.send(&versions::read(&self.name, &oldest, oldest.bytes)) {
            Ok(answer) if answer.body == BODY => Ok(Ok(())),
            Ok(_) => Ok(Err("the object has another content".to_owned())),
            Err(error) => refusal(&error).map(Err).ok_or(error),
        }
    }
}
