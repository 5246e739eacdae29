//! Functions that are called by their number: judged as the same call in a `SELECT`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use holdfast_core::DigestBuilder;
use holdfast_wire::pg::frontend::{FunctionCall, HEADER_BYTES, function_call};

use super::super::outside::Function;
use super::gate::{Decided, Then, unmeasured};
use super::intake::garbled;
use super::plan::{self, Item, Ran};
use super::replies::{Expected, What};
use super::script::Parameters;
use super::steps::Phase;
use super::{Bound, End, Session};

impl Session {
    /// Asks which function is meant.
    pub(super) fn call(&mut self, message: BytesMut) -> Result<(), End> {
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        let oid = function_call(body).map_err(garbled)?.function;
        let (source, database) = (Arc::clone(&self.source), self.database.clone());
        self.deciding = Some(tokio::spawn(async move {
            match source.control.function(&database, oid).await {
                Ok(found) => Decided::Named(found),
                Err(why) => Decided::Refused(unmeasured(&format!("guard's own connection: {why}"))),
            }
        }));
        self.phase = Phase::Deciding(Then::Call(message));
        Ok(())
    }

    /// It is known, or nobody else sees it: then only the gate tells what it does.
    pub(super) fn called(&mut self, message: BytesMut, function: Option<Function>) {
        let body = message.get(HEADER_BYTES..).unwrap_or_default();
        let Ok(call) = function_call(body) else {
            return;
        };
        let ran = match function {
            Some(function) => self.named(&call, &function),
            None => Ran {
                known: None,
                which: 0..0,
                digest: digest(b"", &call),
                parameters: None,
            },
        };
        let expected = vec![Expected::client(What::Query { ready: false })];
        let items = plan::call(message, expected, &ran, self.is_free());
        self.begin_items(items, &[ran], Some(Item::End { is_simple: true }));
    }

    fn named(&self, call: &FunctionCall<'_>, function: &Function) -> Ran {
        let arguments: Vec<String> = (1..=call.count)
            .map(|number| format!("${number}"))
            .collect();
        let text = format!("SELECT {}({})", function.name, arguments.join(", "));
        let known = self.door.verdicts.judge(text.as_bytes(), self.context);
        let count = u16::try_from(function.types.len()).unwrap_or(u16::MAX);
        let types = function.types.iter().flat_map(|oid| oid.to_be_bytes());
        let types: Bytes = count.to_be_bytes().into_iter().chain(types).collect();
        // As a `Bind` has them, with no formats of results.
        let values = [call.arguments, &[0, 0]].concat();
        Ran::bound(&Bound {
            digest: digest(text.as_bytes(), call),
            parameters: Arc::new(Parameters::new(types, &values)),
            known: Some(known),
        })
    }
}

fn digest(text: &[u8], call: &FunctionCall<'_>) -> holdfast_core::Digest {
    DigestBuilder::new("holdfast pg function call 1")
        .field(text)
        .field(&call.function.to_be_bytes())
        .field(call.arguments)
        .finish()
}
