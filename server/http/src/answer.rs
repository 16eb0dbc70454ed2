//! What does a server answer, and is it worth asking once more?

use std::time::Duration;

use bytes::Bytes;
use quern_base::secret::struck_out;
use reqwest::{RequestBuilder, Response};
use serde_json::Value;

use crate::client::{causes, on_one_line};

/// More than this no answer is.
const ANSWER_BYTES_MAX: usize = 1 << 28;
/// How long one may take to its last byte.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a server does not say what it is asked for.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The status that it answered with; none where it did not answer.
    pub status: Option<u16>,
    /// Its own word for why, a number where it is a registry of schemas.
    pub code: Option<u64>,
    /// For people, without what was told in confidence.
    pub why: String,
}

impl Refused {
    /// Of what is not as it should be, whatever was answered.
    pub fn odd(why: impl Into<String>) -> Refused {
        Refused { status: Some(200), code: None, why: why.into() }
    }

    /// Whether it may be otherwise a moment later.
    pub fn may_pass(&self) -> bool {
        self.status.is_none_or(|status| [408, 429].contains(&status) || status >= 500)
    }
}

/// Asks, and reads the answer to its end. `secrets` are struck out of what is said of a refusal.
///
/// # Errors
/// Any answer but 200, and none.
pub async fn ask(request: RequestBuilder, secrets: &[String]) -> Result<Bytes, Refused> {
    let failed = |why: String| Refused { status: None, code: None, why };
    let reply = request.timeout(ANSWER_TIMEOUT).send().await.map_err(|error| failed(causes(&error)))?;
    let status = reply.status().as_u16();
    let body = body(reply).await.map_err(failed)?;
    if status == 200 {
        return Ok(body);
    }
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let words = [&said["error"]["message"], &said["error_description"], &said["error"], &said["message"]];
    let word = words.iter().find_map(|word| word.as_str()).map(|word| on_one_line(&struck(word, secrets)));
    let answer = format!("it answers {status}");
    let why = word
        .filter(|word| !word.is_empty())
        .map_or_else(|| answer.clone(), |word| format!("{answer}: {word}"));
    Err(Refused { status: Some(status), code: said["error_code"].as_u64(), why })
}

/// What a server says, without what it was told in confidence: a token, which comes after `Bearer`, and secrets.
fn struck(said: &str, secrets: &[String]) -> String {
    let mut said = struck_out(said, secrets);
    if let Some(token) = said.find("Bearer ") {
        said.truncate(token);
        said.push('…');
    }
    said
}

async fn body(mut reply: Response) -> Result<Bytes, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = reply.chunk().await.map_err(|error| causes(&error))? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("it answers with more than {ANSWER_BYTES_MAX} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}
