//! Marks: a person's word that a point is kept, whatever the rules say, until they say otherwise.
//!
//! A mark is an object that is created and never changed; the one with the highest number counts. It may
//! end by itself at a time that it names.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use holdfast_core::{ByteCount, Code, Coded, PointId, Principal, SourceName, Timestamp, Untrusted};
use holdfast_store::ledger::LedgerError;
use holdfast_store::object::{ObjectError, ObjectKey, ObjectStore};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::repository::{Reader, RepositoryError};

/// Until when a point is kept whose mark names no end.
pub(super) const FOREVER: Timestamp = Timestamp(i64::MAX);
/// What the signature covers before the text.
const DOMAIN: &str = "holdfast mark 1\n";
/// The longest reason, in characters.
const LIMIT_REASON_CHARS: usize = 400;

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MarkKind {
    /// The point is kept.
    Keep,
    /// The rules decide again.
    Release,
}

impl MarkKind {
    fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Release => "release",
        }
    }
}

/// A mark on a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Of which source.
    pub source: SourceName,
    /// On which point.
    pub point: PointId,
    /// From 1; the highest counts.
    pub number: u32,
    /// What it says.
    pub kind: MarkKind,
    /// Why.
    pub because: String,
    /// Who said so.
    pub by: Principal,
    /// When.
    pub at: Timestamp,
    /// When it ends by itself; absent when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Mark {
    /// Tells whether it keeps its point at a time.
    pub(crate) fn keeps(&self, now: Timestamp) -> bool {
        self.keeps_until().is_some_and(|until| until > now)
    }

    /// Returns until when it keeps its point, or `None` when it does not.
    fn keeps_until(&self) -> Option<Timestamp> {
        match self.kind {
            MarkKind::Keep => Some(self.until.unwrap_or(FOREVER)),
            MarkKind::Release => None,
        }
    }
}

/// A mark and its signature.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedMark {
    /// The text that is signed.
    mark: String,
    /// 128 hexadecimal digits.
    signature: String,
}

/// Why a mark cannot be set. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// Somebody marked the point at the same moment.
    #[error("the point `{0}` was marked at the same moment")]
    Again(PointId),
    /// It is so already.
    #[error("the point `{point}` is {state} already")]
    Already {
        /// Which point.
        point: PointId,
        /// What it is.
        state: &'static str,
    },
    /// It cannot be recorded.
    #[error("cannot record the mark")]
    Ledger(#[from] LedgerError),
    /// It would have ended before it began.
    #[error("{0} is past")]
    Past(Timestamp),
    /// No reason was given, or too long a one.
    #[error("the reason `{}` has not between 1 and {LIMIT_REASON_CHARS} characters", Untrusted(.0))]
    Reason(String),
    /// The repository refused.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl Coded for MarkError {
    fn code(&self) -> Code {
        match self {
            Self::Again(_) | Self::Already { .. } | Self::Past(_) | Self::Reason(_) => Code::ZU354,
            Self::Ledger(error) => error.code(),
            Self::Repository(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Again(_) => "nothing was changed; look at the marks and try again".to_owned(),
            Self::Already { .. } => {
                "nothing was changed; `holdfast point list` says until when, by whom and why"
                    .to_owned()
            }
            Self::Ledger(error) => return error.hint(),
            Self::Past(_) => "nothing was changed; name a time that is to come".to_owned(),
            Self::Reason(_) => {
                "nothing was changed; say with --because why, for those who come later".to_owned()
            }
            Self::Repository(error) => return error.hint(),
        })
    }
}

/// What is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MarkRequest {
    /// Of which source.
    pub source: SourceName,
    /// On which point.
    pub point: PointId,
    /// What it shall say.
    pub kind: MarkKind,
    /// Why.
    pub because: String,
    /// Who says so.
    pub by: Principal,
    /// When it shall end by itself.
    pub until: Option<Timestamp>,
}

/// Marks a point; what was decided is recorded by `record` before it counts.
///
/// A point that is kept can be kept for longer, and for a shorter time only after it was released.
///
/// # Errors
/// [`MarkError`]; nothing is then changed.
pub fn mark(
    store: &dyn ObjectStore,
    reader: &Reader,
    request: MarkRequest,
    (key, now): (&SigningKey, Timestamp),
    record: impl FnOnce(&Mark) -> Result<(), LedgerError>,
) -> Result<Mark, MarkError> {
    let reason = request.because.trim();
    if reason.is_empty() || reason.chars().count() > LIMIT_REASON_CHARS {
        return Err(MarkError::Reason(request.because));
    }
    let (source, point) = (request.source, request.point);
    reader.point(&source, &point)?;
    let before = newest(reader, &source)?.remove(&point);
    let kept = before
        .as_ref()
        .and_then(|(_, mark)| kept_until(mark.as_ref()));
    let kept = kept.filter(|until| *until > now);
    let already = |state| {
        Err(MarkError::Already {
            point: point.clone(),
            state,
        })
    };
    match request.kind {
        MarkKind::Keep => {
            let until = request.until.unwrap_or(FOREVER);
            if until <= now {
                return Err(MarkError::Past(until));
            }
            if kept >= Some(until) {
                return already("kept for as long or longer");
            }
        }
        MarkKind::Release if kept.is_none() => return already("not kept by a mark"),
        MarkKind::Release => {}
    }
    let mark = Mark {
        number: before.map_or(0, |(number, _)| number).saturating_add(1),
        source,
        point,
        kind: request.kind,
        because: reason.to_owned(),
        by: request.by,
        at: now,
        until: request.until.filter(|_| request.kind == MarkKind::Keep),
    };
    record(&mark)?;
    let stored = store.create_new(&name(reader, &mark)?, &seal(&mark, key)?);
    match stored {
        Err(ObjectError::Exists(_)) => Err(MarkError::Again(mark.point)),
        Err(error) => Err(MarkError::Repository(error.into())),
        Ok(()) => Ok(mark),
    }
}

/// Returns the mark that counts of every point of a source that has one.
///
/// # Errors
/// When the store cannot be read.
pub fn marks(reader: &Reader, source: &SourceName) -> Result<Vec<Mark>, RepositoryError> {
    let newest = newest(reader, source)?;
    Ok(newest.into_values().filter_map(|(_, mark)| mark).collect())
}

/// Returns the points that are kept by a mark, and until when.
pub(crate) fn marked(
    reader: &Reader,
    source: &SourceName,
) -> Result<BTreeMap<PointId, Timestamp>, RepositoryError> {
    let newest = newest(reader, source)?.into_iter();
    let kept = newest.filter_map(|(point, (_, mark))| Some((point, kept_until(mark.as_ref())?)));
    Ok(kept.collect())
}

/// A mark that cannot be read or verified keeps.
fn kept_until(mark: Option<&Mark>) -> Option<Timestamp> {
    mark.map_or(Some(FOREVER), Mark::keeps_until)
}

/// Returns of every marked point the highest number and the mark, `None` when that is not readable.
fn newest(
    reader: &Reader,
    source: &SourceName,
) -> Result<BTreeMap<PointId, (u32, Option<Mark>)>, RepositoryError> {
    let store = reader.store();
    let mut names: BTreeMap<PointId, (u32, ObjectKey)> = BTreeMap::new();
    for (key, _) in store.list(&format!("{source}/keep"))? {
        let Some((point, number)) = read_name(key.name()) else {
            continue;
        };
        match names.get(&point) {
            Some((newer, _)) if *newer >= number => {}
            _ => {
                names.insert(point, (number, key));
            }
        }
    }
    let mut found = BTreeMap::new();
    for (point, (number, key)) in names {
        let object = store.get(&key, ByteCount(limits::NOTE_BYTES))?;
        let mark = open(&object, reader.key())
            .filter(|mark| mark.point == point && mark.number == number && mark.source == *source);
        found.insert(point, (number, mark));
    }
    Ok(found)
}

fn name(reader: &Reader, mark: &Mark) -> Result<ObjectKey, RepositoryError> {
    let (source, point, number) = (&mark.source, &mark.point, mark.number);
    let (word, end) = (mark.kind.word(), reader.name_end());
    let text = format!("{source}/keep/{point}-{number:06}-{word}{end}");
    text.parse().map_err(|error| RepositoryError::Misuse {
        what: format!("{error}"),
    })
}

fn read_name(name: &str) -> Option<(PointId, u32)> {
    let name = name.strip_suffix(".age").unwrap_or(name);
    let mut parts = name.strip_suffix(".zst")?.rsplitn(3, '-');
    let (_, number, point) = (parts.next()?, parts.next()?, parts.next()?);
    Some((point.parse().ok()?, number.parse().ok()?))
}

fn seal(mark: &Mark, key: &SigningKey) -> Result<Vec<u8>, RepositoryError> {
    let failed = |what: String| RepositoryError::System {
        step: "write a mark",
        what,
    };
    let text = serde_json::to_string(mark).map_err(|error| failed(error.to_string()))?;
    let signature = key.sign(format!("{DOMAIN}{text}").as_bytes());
    let signed = SignedMark {
        mark: text,
        signature: HEXLOWER.encode(&signature.to_bytes()),
    };
    let text = serde_json::to_vec(&signed).map_err(|error| failed(error.to_string()))?;
    zstd::bulk::compress(&text, limits::ZSTD_LEVEL).map_err(|error| failed(error.to_string()))
}

fn open(object: &[u8], key: &VerifyingKey) -> Option<Mark> {
    let limit = usize::try_from(limits::NOTE_BYTES).ok()?;
    let text = zstd::bulk::decompress(object, limit).ok()?;
    let signed: SignedMark = serde_json::from_slice(&text).ok()?;
    let bytes = HEXLOWER.decode(signed.signature.as_bytes()).ok()?;
    let signature = Signature::from_slice(&bytes).ok()?;
    key.verify_strict(format!("{DOMAIN}{}", signed.mark).as_bytes(), &signature)
        .ok()?;
    serde_json::from_str(&signed.mark).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_was_changed_or_signed_by_another_says_nothing() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let mark = Mark {
            source: "prod".parse().unwrap(),
            point: "point-0123456789".parse().unwrap(),
            number: 2,
            kind: MarkKind::Release,
            because: "the audit has ended".to_owned(),
            by: Principal::human("ada"),
            at: Timestamp(1),
            until: None,
        };
        let object = seal(&mark, &key).unwrap();
        assert_eq!(open(&object, &key.verifying_key()), Some(mark.clone()));
        let other = SigningKey::from_bytes(&[8; 32]);
        assert_eq!(open(&object, &other.verifying_key()), None);
        let text = zstd::bulk::decompress(&object, 1 << 20).unwrap();
        let changed = String::from_utf8(text).unwrap().replace("audit", "Audit");
        let changed = zstd::bulk::compress(changed.as_bytes(), 3).unwrap();
        assert_eq!(open(&changed, &key.verifying_key()), None);
        for cut in 0..object.len() {
            assert_eq!(open(&object[..cut], &key.verifying_key()), None, "{cut}");
        }
    }

    #[test]
    fn the_name_of_a_mark_says_its_point_and_number() {
        let point: PointId = "point-0123456789".parse().unwrap();
        for name in [
            "point-0123456789-000007-keep.zst",
            "point-0123456789-000007-release.zst.age",
        ] {
            assert_eq!(read_name(name), Some((point.clone(), 7)));
        }
        assert_eq!(read_name("point-0123456789-keep.zst"), None);
    }
}
