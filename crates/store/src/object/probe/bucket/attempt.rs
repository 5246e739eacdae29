//! The requests of the probe that should be refused, and how an answer is read.

use holdfast_core::Untrusted;

use crate::object::s3::versions::{self, Version};
use crate::object::s3::xml::Element;
use crate::object::s3::{Client, Request, S3Error};

/// Set with a request, it takes back locks in governance mode.
pub(super) const BYPASS: &str = "x-amz-bypass-governance-retention";
pub(super) const ENABLED: &str =
    "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
pub(super) const SUSPENDED: &str =
    "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>";

/// How the storage took a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Performed,
    Refused(String),
}

/// Asks for something that should be refused.
pub(super) fn attempt(client: &Client, request: &Request<'_>) -> Result<Taken, S3Error> {
    match client.send(request) {
        Ok(_) => Ok(Taken::Performed),
        Err(error) => refusal(&error).map(Taken::Refused).ok_or(error),
    }
}

/// The storage's words when it said no, rather than failed.
pub(super) fn refusal(error: &S3Error) -> Option<String> {
    let (status, code) = error.answer()?;
    let is_no = (400..500).contains(&status) || status == 501;
    is_no.then(|| format!("{status} {}", Untrusted(code)))
}

/// Reads what became of the one object of a request that deletes several.
pub(super) fn each(body: &[u8]) -> Taken {
    let told = Element::read(body).unwrap_or_default();
    let error = told.inside.iter().find(|element| element.name == "Error");
    match error {
        Some(error) => Taken::Refused(Untrusted(error.text_of("Code")).to_string()),
        None => Taken::Performed,
    }
}

pub(super) fn versioning(body: &'static str) -> Request<'static> {
    Request::new("change the versions of a bucket", "PUT", "")
        .query("versioning", "")
        .header("content-type", "application/xml")
        .body(body.as_bytes())
}

pub(super) fn unreadable() -> String {
    "the answer is not readable".to_owned()
}

pub(super) fn retain<'a>(name: &'a str, version: &Version, body: &'a str) -> Request<'a> {
    versions::retain(name, version, body.as_bytes())
}

pub(super) fn remove<'a>(name: &'a str, version: &Version) -> Request<'a> {
    Request::new("delete a version", "DELETE", name).query("versionId", &version.id)
}
