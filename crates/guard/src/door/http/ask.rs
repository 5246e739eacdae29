//! Asks the provider itself what a thing is, before a decision.

use bytes::Bytes;
use holdfast_core::Secret;
use holdfast_judge::packs::{Answer, Question};
use holdfast_wire::http::HttpRequest;
use http_body_util::{BodyExt, Full, Limited};
use tokio::time::{Instant, timeout, timeout_at};

use super::exchange::Door;
use super::upstream::{Destination, NoAnswer, UpstreamOverride, Upstreams};
use crate::limits::{HTTP_QUESTION_ANSWER_BYTES_MAX, HTTP_QUESTIONS_WAIT_MAX};

impl Door {
    /// Puts questions where the request would go, with its credential, over TLS only.
    ///
    /// A question without an answer leaves the decision as strict as it was.
    pub(super) async fn ask(
        &self,
        questions: &[Question],
        request: &HttpRequest,
        credentials: &[(String, Secret)],
    ) -> Vec<Answer> {
        let to = Destination {
            https: true,
            host: request.host.clone(),
            port: request.port,
        };
        let until = Instant::now().checked_add(HTTP_QUESTIONS_WAIT_MAX);
        let mut answers = Vec::new();
        for question in questions {
            let body = if request.scheme != "https" || credentials.is_empty() {
                Err("there is no credential to ask with".to_owned())
            } else {
                let asking = put(&self.upstreams, question, &to, credentials);
                match until {
                    Some(until) => match timeout_at(until, asking).await {
                        Ok(answer) => answer,
                        Err(_) => Err("the provider did not answer in time".to_owned()),
                    },
                    None => Err("the clock is out of range".to_owned()),
                }
            };
            answers.push(Answer {
                question: question.clone(),
                body,
            });
        }
        answers
    }
}

async fn put(
    upstreams: &Upstreams,
    question: &Question,
    to: &Destination,
    credentials: &[(String, Secret)],
) -> Result<Vec<u8>, String> {
    let mut builder = hyper::Request::post(&question.path)
        .header("host", &to.host)
        .header("content-type", "application/json")
        .header("accept", "application/json");
    for (header, value) in credentials {
        builder = builder.header(header, value.expose());
    }
    let body = Full::new(Bytes::from(question.body.clone()));
    let request = builder
        .body(body)
        .map_err(|_| "it cannot be asked".to_owned())?;
    let (response, mut line) = match upstreams.send(to, request).await {
        Ok(answered) => answered,
        Err(NoAnswer::Lost(why) | NoAnswer::NotSent(why)) => return Err(why),
    };
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), HTTP_QUESTION_ANSWER_BYTES_MAX);
    let body = line.drive(body.collect()).await;
    let body = body.map_err(|_| "the answer is cut or too long".to_owned())?;
    upstreams.give_back(to, line);
    if status != 200 {
        return Err(format!("the provider answered with status {status}"));
    }
    Ok(body.to_bytes().to_vec())
}

/// Puts questions to a provider outside of any agent's request.
pub struct Asker {
    upstreams: Upstreams,
}

impl Asker {
    /// Makes one that reaches providers as the door does.
    ///
    /// # Errors
    /// When a certificate authority cannot be used.
    pub fn new(upstreams: &[UpstreamOverride]) -> Result<Self, String> {
        let upstreams = Upstreams::new(upstreams)?;
        Ok(Self { upstreams })
    }

    /// Asks one question, with a deadline.
    pub(crate) async fn ask(
        &self,
        request: &HttpRequest,
        question: &Question,
        credentials: &[(String, Secret)],
    ) -> Result<Vec<u8>, String> {
        let to = Destination {
            https: true,
            host: request.host.clone(),
            port: request.port,
        };
        let asking = put(&self.upstreams, question, &to, credentials);
        match timeout(HTTP_QUESTIONS_WAIT_MAX, asking).await {
            Ok(answer) => answer,
            Err(_) => Err("the provider did not answer in time".to_owned()),
        }
    }
}
