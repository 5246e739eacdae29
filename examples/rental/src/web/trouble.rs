//! Pages for what went wrong: in words for the person at the counter, with the right status.

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Office;
use super::forms::Fields;
use super::views::{Nav, Notice, TroublePage, page};
use crate::desk::DeskError;

/// A page that says what went wrong.
pub struct Trouble {
    status: StatusCode,
    page: TroublePage,
}

impl Trouble {
    /// A page that could not be shown.
    pub fn reading(office: &Office, error: &DeskError) -> Self {
        let mut trouble = Self::of(office, error);
        trouble.page.refresh = error.is_outage();
        trouble
    }

    /// A form that could not be carried out; it can be sent again from the page.
    pub fn writing(office: &Office, error: &DeskError, fields: &Fields) -> Self {
        let mut trouble = Self::of(office, error);
        trouble.page.fields.clone_from(&fields.0);
        trouble.page.again = error.is_outage();
        let then = match error {
            DeskError::Away { .. } | DeskError::ReadOnly if fields.0.is_empty() => {
                "Nothing was saved. Press “Try again” in a moment, or make a note on paper.".to_owned()
            }
            DeskError::Away { .. } | DeskError::ReadOnly => {
                "Nothing was saved. Your entries are kept on this page: press “Try again” in a moment, \
                 or write them down on paper."
                    .to_owned()
            }
            DeskError::Unknown { .. } => return trouble,
            DeskError::Broken { .. }
            | DeskError::Busy
            | DeskError::NotFound { .. }
            | DeskError::Refused { .. }
            | DeskError::Taken { .. } => format!("Nothing was saved. {}", trouble.page.then),
        };
        trouble.page.then = then;
        trouble
    }

    /// An address that does not exist.
    pub fn no_page() -> Self {
        let then = "Start again from the list of counters.";
        let what = "The address was mistyped, or the link is an old one.";
        Self::new(StatusCode::NOT_FOUND, "There is no such page", (what, then))
    }

    /// A request that did not get as far as the desk.
    pub fn not_understood(status: StatusCode) -> Self {
        let (title, what) = match status {
            StatusCode::METHOD_NOT_ALLOWED => (
                "This address is not a page",
                "It only takes what a button on another page sends, so nothing was done.",
            ),
            StatusCode::PAYLOAD_TOO_LARGE => (
                "This form is too long",
                "More was sent than a form of this office can hold. Nothing was saved.",
            ),
            _ => (
                "This request was not understood",
                "What was sent is not a form of this office. Nothing was saved.",
            ),
        };
        let then = "Go back, or start again from the list of counters.";
        Self::new(status, title, (what, then))
    }

    /// A form that another site has sent.
    pub fn foreign_form() -> Self {
        let texts = (
            "The form was sent from another web site, so nothing was done.",
            "Use the pages of this office.",
        );
        Self::new(
            StatusCode::FORBIDDEN,
            "This form does not come from here",
            texts,
        )
    }

    fn of(office: &Office, error: &DeskError) -> Self {
        let (status, what) = (status(error), sentence(error));
        let gone = "It may have been removed, or the address was mistyped.";
        let odd = "Whoever looks after the system should see this.";
        let back = "Go back and try again.";
        let mut trouble = match error {
            DeskError::Away { .. } => Self::new(status, &away_since(office), AWAY),
            DeskError::ReadOnly => Self::new(
                status,
                "The booking system can read but not write",
                READ_ONLY,
            ),
            DeskError::Unknown { .. } => {
                Self::new(status, "It is not certain that this was saved", UNKNOWN)
            }
            DeskError::NotFound { .. } => {
                Self::new(status, "This is not in the books", (&what, gone))
            }
            DeskError::Broken { .. } => Self::new(
                status,
                "The booking system does not understand its database",
                ("The database refused what was asked of it.", odd),
            ),
            DeskError::Busy | DeskError::Refused { .. } | DeskError::Taken { .. } => {
                Self::new(status, "This was not done", (&what, back))
            }
        };
        if status.is_server_error() {
            trouble.page.detail = error.reason();
        }
        trouble
    }

    fn new(status: StatusCode, title: &str, (what, then): (&str, &str)) -> Self {
        let page = TroublePage {
            nav: Nav::default(),
            title: title.to_owned(),
            what: what.to_owned(),
            then: then.to_owned(),
            detail: String::new(),
            refresh: false,
            again: false,
            fields: Vec::new(),
        };
        Self { status, page }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let mut response = page(self.status, &self.page);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("3"));
        }
        response
    }
}

/// The notice on a form whose request the office refused, or `None` when the database is at fault.
pub fn notice(error: &DeskError) -> Option<Notice> {
    let then = match error {
        DeskError::Busy => "Nothing was saved. Press the button once more.",
        DeskError::Refused { .. } => {
            "Nothing was saved. Correct it and press the button once more."
        }
        DeskError::Taken { .. } => "Nothing was saved. Choose another vehicle or other times.",
        DeskError::Away { .. }
        | DeskError::Broken { .. }
        | DeskError::NotFound { .. }
        | DeskError::ReadOnly
        | DeskError::Unknown { .. } => return None,
    };
    Some(Notice {
        what: sentence(error),
        then: then.to_owned(),
    })
}

/// What happened, as a sentence; whether something was saved is for the page to say.
fn sentence(error: &DeskError) -> String {
    let text = error.to_string();
    let text = text.split("; nothing was saved").next().unwrap_or_default();
    let mut letters = text.chars();
    let capital = letters
        .next()
        .map(|first| first.to_uppercase().to_string())
        .unwrap_or_default();
    format!("{capital}{}.", letters.as_str())
}

/// The status that goes with an error.
pub fn status(error: &DeskError) -> StatusCode {
    match error {
        DeskError::Away { .. } | DeskError::ReadOnly | DeskError::Unknown { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        DeskError::Broken { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        DeskError::Busy | DeskError::Taken { .. } => StatusCode::CONFLICT,
        DeskError::NotFound { .. } => StatusCode::NOT_FOUND,
        DeskError::Refused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

fn away_since(office: &Office) -> String {
    let since = office
        .pages
        .away()
        .map_or_else(Timestamp::now, |away| away.since);
    let clock = since
        .to_zoned(TimeZone::UTC)
        .strftime("%H:%M:%S")
        .to_string();
    format!("The booking system cannot reach its database since {clock} UTC")
}

const AWAY: (&str, &str) = (
    "The pages work, but the reservations behind them cannot be read or changed at the moment.",
    "Nothing was changed. Keep notes on paper until it is back.",
);

const READ_ONLY: (&str, &str) = (
    "The reservations can be looked at, but nothing new can be entered at the moment.",
    "Nothing was saved. Keep notes on paper until it is back.",
);

const UNKNOWN: (&str, &str) = (
    "The connection to the database was lost before its answer came.",
    "Press “Try again”: what was already saved is not saved twice.",
);
